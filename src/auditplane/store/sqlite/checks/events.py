"""Events against their entries, and against what recording promises of ids, keys and times.

Groups of events are compared as a whole, which is quick; only where a group differs each of its events is
looked at, to say which is wrong and how.
"""

import re
from array import array
from collections.abc import Iterator, Sequence
from hashlib import sha256
from operator import gt
from pathlib import Path
from typing import Final

import apsw
import msgspec

from auditplane import ulid
from auditplane.event import DEFAULT_ACCOUNT, Event, decode_doc, decode_docs
from auditplane.forgotten import Accounts, told
from auditplane.store.sqlite.checks import QUERIES, Problem, telling
from auditplane.store.sqlite.checks.entries import EXPECTED, SEEN, TAKEN_OUT, Entries
from auditplane.store.sqlite.checks.given import Given
from auditplane.store.sqlite.checks.log_row import Log
from auditplane.store.sqlite.database import fetch
from auditplane.times import format_all, parse_rfc3339
from auditplane.ulid import COUNTER_BITS

_STAMP_HEAD = re.compile(rb'\{"at":"([0-9T:.-]{26}Z)","by":"[^"\\]*","salt":"')
_SALT_CHARS: Final = 24
_STAMP_END: Final = b'=="}'
_STAMP_TAIL: Final = _SALT_CHARS + len(b'"}')
_ACCOUNTS_FOR: Final = b'"resourceKind":"AuditTrail"'
_AT_ONCE: Final = 4_096


class Events:
    """Takes the events of a log in any order, some at a time; knows in the end what all of them say.

    `newest_us`, `low`, `high` and `overflow_us` are what the row `log` has of those that were taken.
    """

    def __init__(
        self, connection: apsw.Connection, path: Path, entries: Entries, log: Log, problem: Problem
    ) -> None:
        self._connection, self._folder = connection, path.parent
        self._entries, self._problem = entries, problem
        self._overflow_max_us = log.overflow_us
        self._hidden = range(log.purged, log.expired)
        self._account = None if path.stem == DEFAULT_ACCOUNT else path.stem
        self._commits = array("q", bytes(8 * entries.size))
        self._commit_us: dict[bytes, int] = {}
        self.given = Given(connection, problem)
        self.accounts = Accounts()
        self.count = 0
        self.hashed_bytes = 0
        self.newest_us = self.overflow_us = 0
        self.low, self.high = (1 << 63) - 1, -1
        self.hidden_high = -1
        self.purge_target = 0
        self.telling: set[int] = set()

    def take(
        self, keys: Sequence[int], indexes: Sequence[int], docs: Sequence[bytes], stamps: Sequence[bytes]
    ) -> list[Event] | None:
        """Checks some events in the order of their keys; gives them when all of their texts can be read."""
        self.count += len(keys)
        self.hashed_bytes += sum(map(len, docs)) + sum(map(len, stamps))
        self._check_entries(keys, indexes, docs, stamps)
        events = self._decoded(indexes, docs)
        if events is None:
            return None
        moments = self._moments(keys, indexes, events)
        self._check_stamps(indexes, stamps, moments, events)
        self._check_ids(keys, indexes, events)
        for event in events:
            if event.account != self._account:
                for index, each in zip(indexes, events, strict=True):
                    if each.account != self._account:
                        self._problem(f"{_name(index, each.id)}: it is of the account {each.account}")
                break
        self.low, self.high = min(self.low, keys[0]), max(self.high, keys[-1])
        if self._hidden and min(indexes) < self._hidden.stop and keys[-1] > self.hidden_high:
            hidden = [key for key, index in zip(keys, indexes, strict=True) if index in self._hidden]
            self.hidden_high = max(self.hidden_high, *hidden, -1)
        return events

    # Entries.

    def _check_entries(
        self, keys: Sequence[int], indexes: Sequence[int], docs: Sequence[bytes], stamps: Sequence[bytes]
    ) -> None:
        hashes = [sha256(b"%b\n%b" % pair).digest() for pair in zip(docs, stamps, strict=True)]
        if min(indexes) >= 0 and max(indexes) < self._entries.size:
            due_keys, due_hashes = self._entries.of(indexes)
            if due_keys == list(keys) and due_hashes == b"".join(hashes) and self._entries.mark_seen(indexes):
                self._learn(indexes, docs, stamps)
                return
        whole = dict(zip(hashes, indexes, strict=True))
        for row in zip(keys, indexes, docs, stamps, hashes, strict=True):
            self._check_entry(*row, whole)

    def _check_entry(
        self, key: int, index: int, doc: bytes, stamp: bytes, hashed: bytes, others: dict[bytes, int]
    ) -> None:
        """Says what is wrong with an event, if anything is."""
        name = _name(index, _id_of(doc))
        if not 0 <= index < self._entries.size:
            self._problem(f"{name}: the log has no such entry, only {self._entries.size}")
            return
        state = self._entries.states[index]
        due_key, due_hash = self._entries.at(index)
        if state == SEEN:
            self._problem(f"{name}: its index is used twice")
        elif state == TAKEN_OUT:
            self._problem(f"{name}: it is there, though its entry says that it is gone")
        elif state == EXPECTED and due_key != key:
            self._problem(f"{name}: it stands at the key {key}, its entry says {due_key}")
        if due_hash != hashed:
            self._problem(
                f"{name}: its text or its stamp was changed; {self._changed(index, due_hash, others)}"
            )
        elif state != SEEN:
            self._learn([index], [doc], [stamp])
        if state != TAKEN_OUT:
            self._entries.states[index] = SEEN

    def _changed(self, index: int, due: bytes, others: dict[bytes, int]) -> str:
        """What is known of how it was changed."""
        other = others.get(due)
        if other is not None and other != index:
            return f"what was recorded as event {index} stands in the place of event {other}"
        return f"the log has committed to {due.hex()}"

    def _learn(self, indexes: Sequence[int], docs: Sequence[bytes], stamps: Sequence[bytes]) -> None:
        for index, doc, stamp in zip(indexes, docs, stamps, strict=True):
            if _ACCOUNTS_FOR in doc:
                self.accounts.learn(doc, stamp)
                if told(doc, stamp):
                    self.telling.add(index)

    def _decoded(self, indexes: Sequence[int], docs: Sequence[bytes]) -> list[Event] | None:
        try:
            events = decode_docs(docs)
            if len(events) == len(docs):
                return events
        except (msgspec.MsgspecError, UnicodeDecodeError):
            pass
        for index, doc in zip(indexes, docs, strict=True):
            try:
                decode_doc(doc)
            except (msgspec.MsgspecError, UnicodeDecodeError) as error:
                self._problem(f"{_name(index, _id_of(doc))}: its text is not that of an event: {error}")
        return None

    # Ids and times.

    def _moments(self, keys: Sequence[int], indexes: Sequence[int], events: Sequence[Event]) -> Sequence[int]:
        """The timestamps in microseconds; each lies at its key, or before it where a microsecond was full."""
        moments = [key >> COUNTER_BITS for key in keys]
        texts = [event.timestamp for event in events]
        if min(moments) < 0 or texts != format_all(moments):
            for at, (index, event) in enumerate(zip(indexes, events, strict=True)):
                moments[at] = self._moment(moments[at], index, event)
        self.newest_us = max(self.newest_us, *moments, 0)
        return moments

    def _moment(self, key_us: int, index: int, event: Event) -> int:
        try:
            us = parse_rfc3339(event.timestamp or "")
        except ValueError:
            self._problem(f"{_name(index, event.id)}: its timestamp is {event.timestamp}")
            return key_us
        self.overflow_us = max(self.overflow_us, key_us - us)
        if not 0 <= key_us - us <= self._overflow_max_us:
            self._problem(
                f"{_name(index, event.id)}: it stands at the key of {format_all([max(key_us, 0)])[0]}, "
                f"its timestamp is {event.timestamp}"
            )
        return us

    def _check_stamps(
        self, indexes: Sequence[int], stamps: Sequence[bytes], moments: Sequence[int], events: Sequence[Event]
    ) -> None:
        """The stamps have their form, and no event is later than its commit."""
        heads = [stamp[:-_STAMP_TAIL] for stamp in stamps]
        commits = [self._commit_us.get(head, 0) for head in heads]
        if not all(commits):
            commits = [self._committed(head, at, indexes, events) for at, head in enumerate(heads)]
        for at, stamp in enumerate(stamps):
            if not stamp.endswith(_STAMP_END):
                self._problem(f"{_name(indexes[at], events[at].id)}: its stamp has no salt")
        self._note_commits(indexes, commits)
        # Each event without a timestamp is given one beyond all others, so a log of so many may run ahead.
        latest = [at + index + 1 for at, index in zip(commits, indexes, strict=True)]
        if any(map(gt, moments, latest)):
            for us, commit, index, event in zip(moments, commits, indexes, events, strict=True):
                if us > commit + index + 1 and commit:
                    self._problem(
                        f"{_name(index, event.id)}: its timestamp is {event.timestamp}, but it was recorded "
                        f"before that, at {format_all([commit])[0]}"
                    )

    def _committed(self, head: bytes, at: int, indexes: Sequence[int], events: Sequence[Event]) -> int:
        """The commit time in the beginning of a stamp; zero when there is none."""
        us = self._commit_us.get(head)
        if us is None:
            match = _STAMP_HEAD.fullmatch(head)
            try:
                us = parse_rfc3339(match[1].decode()) if match else 0
            except ValueError:
                us = 0
            if not us:
                self._problem(f"{_name(indexes[at], events[at].id)}: its stamp has not the form of one")
            if len(self._commit_us) >= _AT_ONCE:
                self._commit_us.clear()
            self._commit_us[head] = us
        return us

    def _note_commits(self, indexes: Sequence[int], commits: Sequence[int]) -> None:
        first, end = indexes[0], indexes[-1] + 1
        if first >= 0 and end <= self._entries.size and list(indexes) == list(range(first, end)):
            self._commits[first:end] = array("q", commits)
            return
        for index, commit in zip(indexes, commits, strict=True):
            if 0 <= index < self._entries.size:
                self._commits[index] = commit

    def _check_ids(self, keys: Sequence[int], indexes: Sequence[int], events: Sequence[Event]) -> None:
        ids = [event.id or "" for event in events]
        given = self.given.keys(ids)
        try:
            if not given and list(map(ulid.key_of, ids)) == list(keys):
                return
        except ValueError:
            pass
        for key, index, event_id in zip(keys, indexes, ids, strict=True):
            found = given.get(event_id)
            if not ulid.is_ulid(event_id):
                self._problem(f"{_name(index, event_id)}: its id is no ULID")
            elif index < self._hidden.stop:
                continue  # it has expired, unless it is held: its id was free for a later one
            elif found is not None and found != key:
                self._problem(
                    f"{_name(index, event_id)}: it stands at the key {key}, its id leads to {found}"
                )
            elif found is None and ulid.key_of(event_id) != key:
                self._problem(f"{_name(index, event_id)}: its id does not lead to it")

    # In the end.

    def check_order(self) -> None:
        """Tells of each event that was recorded earlier than one before it."""
        latest = 0
        for start in range(0, len(self._commits), _AT_ONCE):
            part = [us for us in self._commits[start : start + _AT_ONCE] if us]
            if not part:
                continue
            if part[0] >= latest and not any(map(gt, part, part[1:])):
                latest = part[-1]
                continue
            for index, us in enumerate(self._commits[start : start + _AT_ONCE], start):
                if us and us < latest:
                    self._problem(
                        f"event {index}: it was recorded at {format_all([us])[0]}, but one before it at "
                        f"{format_all([latest])[0]}"
                    )
                latest = max(latest, us)

    @property
    def last_commit_us(self) -> int:
        """The greatest commit time."""
        return max(self._commits, default=0)

    @property
    def is_last_here(self) -> bool:
        """Whether the event of the last index was taken."""
        return bool(self._commits) and self._commits[-1] > 0

    def check_erased(self) -> None:
        """The ids that can't be recorded again are of events that the log says were erased."""
        with telling(self._problem, "the table of erased ids", self._folder):
            for event_id, index in self._connection.execute(QUERIES["erased"]):
                if not 0 <= index < self._entries.size or index not in self.accounts.erased:
                    self._problem(f"the id {event_id} is kept as that of event {index}, which was not erased")
                elif not ulid.is_ulid(event_id) or self._entries.states[index] != TAKEN_OUT:
                    self._problem(f"event {index} (id {event_id}): it was erased, and its entry is as before")

    def check_telling(self) -> None:
        """The events that are kept from expiring are those that say why others are gone."""
        with telling(self._problem, "the table of what tells of others", self._folder):
            kept = {index for (index,) in fetch(self._connection, QUERIES["told"])}
            for index in sorted(kept ^ self.telling):
                self._problem(
                    f"event {index}: it is kept from expiring, and does not say why others are gone"
                    if index in kept
                    else f"event {index}: it says why others are gone, and is not kept from expiring"
                )

    def find_purge(self) -> None:
        """A purge that is under way takes events out first, then marks their entries, then tells of it."""
        with telling(self._problem, "the table of the purge", self._folder):
            for (target,) in fetch(self._connection, QUERIES["purge_target"]):
                if not 0 < target <= self._hidden.stop:
                    self._problem(f"a purge is under way up to event {target}, which has not expired")
                else:
                    self.purge_target = target

    def missing(self) -> Iterator[int]:
        """The indexes whose events should be there, and are not."""
        return (index for index in self._entries.where(EXPECTED) if index >= self.purge_target)

    def being_purged(self) -> int:
        """How many events the purge that is under way has taken out, of which the log does not tell yet."""
        end = self.purge_target
        taken = sum(index < end for index in self.accounts.unexplained(self._entries.where(TAKEN_OUT)))
        return taken + self._entries.states.count(EXPECTED, 0, end)

    def gone(self) -> int:
        """How many events the entries say are gone."""
        return self._entries.states.count(TAKEN_OUT) + self._entries.states.count(
            EXPECTED, 0, self.purge_target
        )

    def erased(self) -> int:
        """How many of these were taken by an erasure."""
        states = self._entries.states
        return sum(states[index] == TAKEN_OUT for index in self.accounts.erased if 0 <= index < len(states))

    def unexplained(self) -> Sequence[int]:
        """Those gone of which the log does not say why."""
        found = self.accounts.unexplained(self._entries.where(TAKEN_OUT))
        return [index for index in found if index >= self.purge_target]


def _name(index: int, event_id: str | None) -> str:
    return f"event {index} (id {event_id})" if event_id else f"event {index}"


def _id_of(doc: bytes) -> str | None:
    """The id in a doc that may be anything."""
    match = re.match(rb'\{"id":"([0-9A-Z]{26})"', doc)
    return match[1].decode() if match else None
