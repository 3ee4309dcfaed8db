"""A failing disk: calls that a session makes on its folder fail, once or for a while, with EIO or ENOSPC.

The session does what failed again, and must come to its end without a restart; what was acknowledged
meanwhile must hold, also when the power is cut after a sync that failed.
"""

import random
import traceback
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice, zip_longest
from pathlib import Path
from typing import Final

from torture import promises, session, small, trace
from torture.disk import Disk
from torture.trace import Op, Synced, Told

KINDS: Final = {
    "EIO": ("pwrite64", "write", "fsync", "fdatasync", "ftruncate", "openat", "rename", "unlink", "mkdir"),
    "ENOSPC": ("pwrite64", "write", "fsync", "fdatasync", "ftruncate", "openat", "rename", "mkdir"),
}
CALLS: Final = sorted({call for calls in KINDS.values() for call in calls})
LASTING_CALLS_MAX: Final = 30
CUTS_AFTER_FAULT: Final = 3


@dataclass(frozen=True)
class Fault:
    """Which calls of a session fail: from the `first` of its kind on, counted from 1, `count` in all."""

    seed: int
    call: str
    error: str
    first: int
    count: int

    def __str__(self) -> str:
        """As strace takes it."""
        last = f"..{self.first + self.count - 1}" if self.count > 1 else ""
        return f"{self.call}:error={self.error}:when={self.first}{last}"


@dataclass(frozen=True)
class Result:
    """What came of a fault: how many steps failed by it, and what was wrong."""

    fault: Fault
    steps_failed: int
    problem: str = ""


def faults(
    seed: int, count: int, only: Collection[str] = CALLS, *, program: Sequence[str] = session.PROGRAM
) -> list[Fault]:
    """So many faults of a session, of `only` some calls: of each kind each in turn, once and for a while.

    The kinds take turns, as long as there are more of them, so the rare ones are tried wholly.
    """
    chosen = random.Random(seed)
    with session.watched(seed, program=program):
        pass  # the first one may compile what it imports, by calls that do not come again
    with session.watched(seed, program=program) as (root, output, _):
        places = trace.calls_below(output, root)
    kinds = [
        [
            Fault(seed, call, error, first, failing)
            for first in places.get(call, ())
            for failing in (1, chosen.randint(2, LASTING_CALLS_MAX))
        ]
        for error, calls in KINDS.items()
        for call in calls
    ]
    chosen.shuffle(kinds)
    for faults_of_kind in kinds:
        chosen.shuffle(faults_of_kind)
    in_turn = chain.from_iterable(zip_longest(*kinds))
    return list(islice((fault for fault in in_turn if fault and fault.call in only), count))


def tried(
    wanted: Sequence[Fault], processes: int = 2, *, program: Sequence[str] = session.PROGRAM
) -> Iterator[Result]:
    """Tries faults, each in a session of its own."""
    with ProcessPoolExecutor(processes) as pool:
        yield from pool.map(partial(_try, program), wanted)


def _try(program: Sequence[str], fault: Fault) -> Result:
    small.shrink(setattr, **session.SIZES)
    with session.watched(fault.seed, inject=str(fault), program=program) as (root, output, code):
        told, steps_failed = promises.Promises(), 0
        try:
            ops = list(trace.read(output, root, contents=False))
            for op in ops:
                if isinstance(op, Told):
                    told.take(op.text)
            steps_failed = len(told.failures)
            if code:
                raise promises.Broken(f"the session ended with {code}; {told.failures[-1:]}")
            promises.examine(told, root)
            if any(isinstance(op, Synced) and op.failed for op in ops):
                _cut_power_after(fault, list(trace.read(output, root)), root.parent)
        except Exception as error:  # noqa: BLE001 - whatever it is, a promise is broken
            return Result(fault, steps_failed, "".join(traceback.format_exception(error)))
    return Result(fault, steps_failed)


def _cut_power_after(fault: Fault, ops: Sequence[Op], folder: Path) -> None:
    """Cuts the power at some moments after a sync has failed."""
    failed = [at for at, op in enumerate(ops) if isinstance(op, Synced) and op.failed]
    chosen = random.Random(str(fault))
    syncs = [at for at, op in enumerate(ops) if isinstance(op, Synced) and at > failed[0]]
    moments = sorted([*syncs[:2], *chosen.choices(syncs, k=CUTS_AFTER_FAULT)])
    disk, told, at = Disk(), promises.Promises(), 0
    for number, moment in enumerate(moments):
        for op in ops[at:moment]:
            disk.do(op)
            if isinstance(op, Told):
                told.take(op.text)
        at = moment
        path = folder / f"cut-{number}"
        disk.after_a_power_cut(random.Random(f"{fault} {number}")).put(path)
        promises.examine(told, path)
