"""Checks everything that is stored of an account's log, and says what is wrong and how.

What a log commits to is its entries: 32 bytes an event, of which the root is made that checkpoints sign.
Everything else can be made anew from the events, and is: it must be what is stored.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from auditplane.checkpoint import Checkpoint, VerifierKey
from auditplane.merkle import EMPTY_ROOT
from auditplane.store.sqlite.account import AccountStore

PROBLEMS_KEPT_MAX: Final = 100


@dataclass(slots=True)
class Findings:
    """What a check has found. A log is whole when there are no problems.

    `problems` are sentences, the first PROBLEMS_KEPT_MAX of `problems_total`. `size` and `root` are those of
    the log as it was checked, `events` how many of its events are there, and `gone` how many are not, as
    they expired or were erased; `checked_bytes` is how much text was hashed.
    """

    problems: list[str] = field(default_factory=list)
    problems_total: int = 0
    size: int = 0
    root: bytes = EMPTY_ROOT
    events: int = 0
    gone: int = 0
    checked_bytes: int = 0

    def add(self, problem: str) -> None:
        """Takes up a problem."""
        self.problems_total += 1
        if len(self.problems) < PROBLEMS_KEPT_MAX:
            self.problems.append(problem)


def check(
    store: AccountStore,
    *,
    deep: bool = False,
    report: Callable[[int, int], None] | None = None,
    keys: Sequence[VerifierKey] = (),
    earlier: Sequence[Checkpoint] = (),
) -> Findings:
    """Checks the log of an account; with `deep` also by what its events are found, and every page.

    `report` is told how many events of how many are checked. `keys` are those of which one must have signed
    the stored checkpoint, if there are any; `earlier` are checkpoints of which this log must be the
    continuation.

    It is done in one view of the log as it is at the start: a server may go on meanwhile, but what it writes
    stays in its write-ahead log until the check has ended.
    """
    raise NotImplementedError
