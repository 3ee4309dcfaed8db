"""Power cuts: a session is watched, and what any of many cuts may have left of its disk is examined."""

import random
import shutil
import tempfile
import traceback
from bisect import insort
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from auditplane.errors import AuditplaneError
from torture import promises, session, small, trace
from torture.disk import Disk
from torture.trace import Op, Synced, Told

MEMORY: Final = Path("/dev/shm")  # noqa: S108 - made by mkdtemp there
SYNC_SHARE: Final = 0.6


@dataclass(frozen=True)
class Failure:
    """A cut after which something was wrong; the same seed, session and number show it again."""

    seed: int
    number: int
    op: str
    problem: str


def cuts(seed: int, count: int, processes: int = 2) -> tuple[int, list[Failure]]:
    """Tries a number of cuts in one session; returns how many different disks there were, and what failed."""
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as folder:
        root, output = Path(folder) / "root", Path(folder) / "trace"
        root.mkdir()
        trace.traced(["-m", "torture.session", str(seed)], root, output)
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
            except (promises.Broken, AuditplaneError, OSError, AssertionError) as error:
                op = ops[at] if at < len(ops) else "the end"
                failures.append(Failure(seed, number, str(op)[:200], "".join(traceback.format_exception(error))))
    return states, failures


def _moments(ops: Sequence[Op], seed: int, count: int) -> list[int]:
    """Before which operations the power is cut, ascending: most often before a sync, as most is at stake then."""
    chosen = random.Random(seed)
    syncs = [at for at, op in enumerate(ops) if isinstance(op, Synced)]
    found: list[int] = []
    for _ in range(count):
        insort(found, chosen.choice(syncs) if chosen.random() < SYNC_SHARE else chosen.randint(0, len(ops)))
    return found
