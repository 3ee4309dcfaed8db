"""Checks everything that is stored of an account's log, and says what is wrong and how.

What a log commits to is its entries: 32 bytes an event, of which the root is made that checkpoints sign.
Everything else can be made anew from the events, and is: it must be what is stored.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from auditplane.checkpoint import Checkpoint, VerifierKey, note_text, open_note, parse_checkpoint
from auditplane.errors import ProofError
from auditplane.event import Event
from auditplane.merkle import EMPTY_ROOT
from auditplane.store import Signed
from auditplane.store.sqlite.account import AccountStore
from auditplane.store.sqlite.checks import Problem, named, ranges, telling
from auditplane.store.sqlite.checks.blocks import Blocks
from auditplane.store.sqlite.checks.entries import SEEN, Entries
from auditplane.store.sqlite.checks.events import Events
from auditplane.store.sqlite.checks.found_by import FoundBy
from auditplane.store.sqlite.checks.log_row import Log, log_row
from auditplane.store.sqlite.checks.state import check_log, check_pages, check_schema

if TYPE_CHECKING:
    from auditplane.store.sqlite.checks.counted import Counted

Report: TypeAlias = Callable[[int, int], None]

PROBLEMS_KEPT_MAX: Final = 100


@dataclass(slots=True)
class Findings:
    """What a check has found. A log is whole when there are no problems.

    `problems` are sentences, the first PROBLEMS_KEPT_MAX of `problems_total`. `size` and `root` are those of
    the log as it was checked, `events` how many of its events are there, and `gone` how many are not, as
    they expired or were erased, `erased` of them by an erasure and
    `being_purged` by a purge of which the log will tell at its end; `hidden` how many of those there are not
    shown any more, unless they are held, as they expired; `checked_bytes` is how much text was hashed.
    `signed` is the stored checkpoint.
    """

    problems: list[str] = field(default_factory=list)
    problems_total: int = 0
    size: int = 0
    root: bytes = EMPTY_ROOT
    events: int = 0
    gone: int = 0
    erased: int = 0
    being_purged: int = 0
    hidden: int = 0
    checked_bytes: int = 0
    signed: Signed | None = None

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
    earlier: Mapping[str, Checkpoint] | None = None,
) -> Findings:
    """Checks the log of an account; with `deep` also by what its events are found, and every page.

    `report` is told how many events of how many are checked. `keys` are those of which one must have signed
    the stored checkpoint, if there are any; `earlier` are checkpoints, by what they are
    called, of which this log must be the continuation.

    It is done in one view of the log as it is at the start: a server may go on meanwhile, but what it writes
    stays in its write-ahead log until the check has ended.
    """
    findings = Findings()
    with telling(findings.add, "the log", store.path.parent), store.long_view() as connection:
        _Check(store, connection, findings, report or _unseen).run(deep, keys, earlier or {})
    return findings


def _unseen(_done: int, _total: int) -> None:
    """Where nobody wants to know how far it has come."""


class _Check:
    """One check in one view."""

    def __init__(self, store: AccountStore, connection: Any, findings: Findings, report: Report) -> None:
        self._store, self._connection, self._findings, self._report = store, connection, findings, report
        self._folder = store.path.parent
        self._add = findings.add

    def run(self, deep: bool, keys: Sequence[VerifierKey], earlier: Mapping[str, Checkpoint]) -> None:
        """Checks from the entries up."""
        findings = self._findings
        check_schema(self._connection, self._folder, self._add)
        if deep:
            check_pages(self._connection, self._folder, self._add)
        log = log_row(self._connection)
        entries = Entries(self._connection, self._folder, log.size, self._add)
        entries.walk()
        findings.size = log.size
        with self._telling("the tree"):
            findings.root = entries.root(log.size)
        self._check_checkpoints(entries, keys, earlier)
        self._check_events(log, entries, deep)

    def _telling(self, what: str) -> AbstractContextManager[None]:
        return telling(self._add, what, self._folder)

    # Checkpoints.

    def _check_checkpoints(
        self, entries: Entries, keys: Sequence[VerifierKey], earlier: Mapping[str, Checkpoint]
    ) -> None:
        with self._telling("its last checkpoint"):
            signed = self._store.checkpoint_in(self._connection)
            if signed is not None:
                self._findings.signed = signed
                self._check_signed(signed, keys)
                self._check_continues(entries, signed.size, signed.root, "its last checkpoint")
        for what, checkpoint in earlier.items():
            self._check_continues(entries, checkpoint.size, checkpoint.root, what)

    def _check_signed(self, signed: Signed, keys: Sequence[VerifierKey]) -> None:
        """The note says what its row says, and a known key has signed it."""
        found = parse_checkpoint(note_text(signed.note))
        if (found.size, found.root) != (signed.size, signed.root):
            self._add("the row of the last checkpoint has another size or root than the note in it")
        if keys:
            try:
                open_note(signed.note, keys)
            except ProofError as error:
                self._add(f"the last checkpoint is not signed by the key of the log: {error}")

    def _check_continues(self, entries: Entries, size: int, root: bytes, what: str) -> None:
        if size > entries.size:
            self._add(
                f"the log is shorter than {what}: it has {entries.size} entries, {size} were signed; "
                f"{named(entries.size, size - 1)} gone, or an older state was put back"
            )
        elif size < 0 or entries.root(size) != root:
            self._add(
                f"the log is not the continuation of {what}: its first {size} entries are not those "
                "that were signed"
            )

    # Events.

    def _check_events(self, log: Log, entries: Entries, deep: bool) -> None:
        findings, store, connection = self._findings, self._store, self._connection
        events = Events(connection, store.path, entries, log, self._add)
        found_by = FoundBy(connection, self._folder, store.terms, self._add) if deep else None
        counted = _counted(connection, self._folder, log.size, self._add) if deep else None

        def seen(block_id: int, keys: Sequence[int], indexes: Sequence[int], found: Sequence[Event]) -> None:
            if found_by is not None and counted is not None:
                found_by.expect(block_id, keys, found)
                counted.expect(indexes, found)

        blocks = Blocks(connection, self._folder, events, seen, self._add)
        blocks.walk(lambda: self._report(events.count, log.size))
        findings.events, findings.checked_bytes = events.count, events.hashed_bytes
        events.find_purge()
        findings.gone, findings.erased = events.gone(), events.erased()
        findings.being_purged = events.being_purged()
        findings.hidden = sum(entries.states[index] == SEEN for index in range(log.purged, log.expired))
        self._tell_missing(events)
        events.check_order()
        events.check_erased()
        events.check_telling()
        events.given.check_rest(store, self._folder)
        check_log(log, entries, events, blocks, self._add)
        if counted is not None:
            counted.tell()
        if found_by is not None and found_by.differs():
            looked_into = found_by

            def seen_again(
                block_id: int, keys: Sequence[int], _: Sequence[int], found: Sequence[Event]
            ) -> None:
                looked_into.expect(block_id, keys, found)

            again = Findings().add
            second = Events(connection, store.path, entries, log, again)
            Blocks(connection, self._folder, second, seen_again, again).walk(lambda: None)
            found_by.tell()

    def _tell_missing(self, events: Events) -> None:
        for first, last in ranges(events.missing()):
            self._add(f"{named(first, last)} missing, though the log has committed to what was there")
        for first, last in ranges(events.unexplained()):
            self._add(f"{named(first, last)} gone, and the log does not say why")


def _counted(connection: Any, folder: Path, size: int, problem: Problem) -> "Counted":
    from auditplane.store.sqlite.checks.counted import Counted

    return Counted(connection, folder, size, problem)
