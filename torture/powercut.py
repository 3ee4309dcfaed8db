"""Power cuts: a session is watched, and what any of many cuts may have left of its disk is examined."""

import random
import shutil
import tempfile
import traceback
from bisect import insort
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from torture import promises, session, small, trace
from torture.disk import Disk
from torture.trace import Op, Synced, Told

SYNC_SHARE: Final = 0.6


@dataclass(frozen=True)
class Failure:
    """A cut after which something was wrong; the same seed, session and number show it again."""

    seed: int
    number: int
    op: str
    problem: str


def cuts(
    seed: int, count: int, *, processes: int = 2, program: Sequence[str] = session.PROGRAM
) -> tuple[int, list[Failure]]:
    """Tries a number of cuts in one session; returns how many different disks there were, and what failed."""
    with session.watched(seed, program=program) as (root, output, code):
        if code:
            raise RuntimeError(f"the session {seed} failed")
        shutil.rmtree(root)
        with ProcessPoolExecutor(processes) as pool:
            shares = [
                pool.submit(_try_share, seed, output, root, range(at, count, processes), count)
                for at in range(processes)
            ]
            found = [share.result() for share in shares]
    states = set().union(*(each for each, _ in found))
    return len(states), [failure for _, failures in found for failure in failures]


def _try_share(
    seed: int, output: Path, root: Path, numbers: Sequence[int], count: int
) -> tuple[set[int], list[Failure]]:
    """Tries some of the cuts."""
    small.shrink(setattr, **session.SIZES)
    states: set[int] = set()
    failures: list[Failure] = []
    ops = list(trace.read(output, root))
    wanted = _moments(ops, seed, count)
    disk, told, at = Disk(), promises.Promises(), 0
    for number in numbers:
        while at < wanted[number]:
            op = ops[at]
            disk.do(op)
            if isinstance(op, Told):
                told.take(op.text)
            at += 1
        left = disk.after_a_power_cut(random.Random(f"{seed} {number}"))
        states.add(hash(tuple(sorted(left.files.items(), key=lambda each: each[0]))))
        with tempfile.TemporaryDirectory(dir=output.parent) as folder:
            path = Path(folder) / "root"
            left.put(path)
            try:
                promises.examine(told, path)
            except Exception as error:  # noqa: BLE001 - whatever it is, a promise is broken
                problem = "".join(traceback.format_exception(error))
                failures.append(Failure(seed, number, str(ops[at : at + 1])[:200], problem))
    return states, failures


def _moments(ops: Sequence[Op], seed: int, count: int) -> list[int]:
    """Before which operations the power is cut, ascending: most often before a sync, which counts most."""
    chosen = random.Random(seed)
    syncs = [at for at, op in enumerate(ops) if isinstance(op, Synced)]
    found: list[int] = []
    for _ in range(count):
        insort(found, chosen.choice(syncs) if chosen.random() < SYNC_SHARE else chosen.randint(0, len(ops)))
    return found
