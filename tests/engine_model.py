"""A naive model of an account's log, and what the tests of the engine share.

The model keeps events in a Python list and answers queries with `Query.matches` and a sort. It takes ids,
timestamps and docs from the engine, and checks each of them against the rules as it takes it.
"""

import json
import os
import random
import sys
import time
from bisect import bisect_right, insort
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from hashlib import sha256
from itertools import chain, pairwise
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import msgspec
import pytest

from auditplane import checking, limits, log, overview, render, ulid
from auditplane.errors import Conflict, Gone, InvalidEvents, NotFound
from auditplane.event import Event, Rules, decode_doc, parse
from auditplane.query import Cursor, Order, Query, configuration_name, decode_cursor, encode_cursor, fold
from auditplane.render import Form
from auditplane.store import Hold, Member, Stored
from auditplane.store.sqlite import (
    block,
    counting,
    forgetting,
    sealing,
)
from auditplane.store.sqlite.account import AccountStore
from auditplane.store.sqlite.database import fetch
from auditplane.store.sqlite.recorded import Recorded
from auditplane.times import format_us, parse_rfc3339
from torture import small

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

ZstdError = zstd.ZstdError

START_US: Final = 1_772_000_000_000_000
RULES: Final = Rules()
NEAR_US: Final = limits.FUTURE_US_MAX

Spec = dict[str, Any]
"""The members of an event as a caller gives them."""


def spec(number: int = 0, **members: Any) -> Spec:
    """An event to record."""
    return {
        "resourceName": f"name-{number}",
        "resourceKind": "Source",
        "action": "Modified",
        "user": "ann@example.com",
        **members,
    }


def request(specs: Sequence[Spec], by: str = "key-1") -> log.Request:
    """A request as it comes from the parser."""
    return log.Request(parse(msgspec.json.encode(specs), RULES), by)


def record(store: AccountStore, specs: Sequence[Spec], now: int = START_US) -> list[str]:
    """Records events in a commit of their own; returns their ids."""
    (result,) = log.record(store, [request(specs)], lambda: now)
    if isinstance(result, Exception):
        raise result
    return list(result)


@contextmanager
def opened(path: Path) -> Iterator[AccountStore]:
    """A store, closed afterwards."""
    store = AccountStore(path)
    try:
        yield store
    finally:
        store.close()


@contextmanager
def memory_folder() -> Iterator[Path]:
    """A folder in memory where there is such: most of these tests are not about what survives a power cut."""
    memory = Path("/dev/shm")
    with TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as name:
        yield Path(name)


def unpacked(data: bytes) -> bytes:
    """The text of zstd frames one after the other, read as a stream."""
    text = b""
    while data:
        frame = zstd.ZstdDecompressor()
        text += frame.decompress(data)
        assert frame.eof, "a frame is cut off"
        data = frame.unused_data
    return text


def unpacked_part(data: bytes) -> bytes:
    """The text of a zstd frame as far as it can be read; nothing where there is none."""
    try:
        return bytes(zstd.ZstdDecompressor().decompress(data))
    except zstd.ZstdError:
        return b""


def whole(store: AccountStore, query: Query, form: Form = Form.NDJSON, *, packed: bool = False) -> bytes:
    """The whole answer to a query, unpacked."""
    data = b"".join(chain.from_iterable(log.Answer(store, query, form, packed=packed)))
    return unpacked(data) if packed else data


def walk(store: AccountStore, query: Query, limit: int) -> Iterator[list[bytes]]:
    """The pages of an answer, by cursors that go through their texts."""
    cursor: Cursor | None = None
    while True:
        docs, cursor, _ = log.page(store, replace(query, cursor=cursor), limit)
        yield docs
        if cursor is None:
            return
        cursor = decode_cursor(encode_cursor(cursor, query, "default"), query, "default")


def entries(store: AccountStore) -> list[Stored]:
    """The events that the entries lead to, by index, of which none is gone."""
    found = [stored for stored in entries_or_gone(store) if stored is not None]
    assert len(found) == store.size()
    return found


def entries_or_gone(store: AccountStore) -> list[Stored | None]:
    """The events that the entries lead to, by index, None for one that is gone.

    Each entry must be the hash of its event.
    """
    found: list[Stored | None] = []
    with store.snapshot() as connection:
        for first, count, packed, hashes in fetch(connection, "SELECT * FROM entry ORDER BY first"):
            keys = block.unpack_numbers(packed)
            assert (first, count, len(hashes)) == (len(found), len(keys), 32 * len(keys))
            for at, key in enumerate(keys):
                stored = None if key == block.GONE else store.at(connection, key)
                if stored is not None and stored.index == len(found):
                    assert stored.key == key
                    assert (
                        hashes[32 * at : 32 * at + 32] == sha256(stored.doc + b"\n" + stored.stamp).digest()
                    )
                    found.append(stored)
                else:
                    found.append(None)
    return found


def rendered(docs: Sequence[bytes], form: Form) -> bytes:
    """An answer made in one go."""
    return render.end(render.head(form) + render.body(docs, form), form)


def shrink(patch: pytest.MonkeyPatch, **sizes: int) -> None:
    """Makes constants small, so that few events meet all edges."""
    small.shrink(patch.setattr, **sizes)


@dataclass(order=True)
class Kept:
    """An event of the model."""

    key: int
    index: int
    at_us: int
    doc: bytes
    event: Event = field(compare=False)
    given: Spec = field(compare=False)

    def shown(self) -> Spec:
        """All its members."""
        return dict(json.loads(self.doc))

    @property
    def us(self) -> int:
        """Its timestamp."""
        return parse_rfc3339(self.event.timestamp or "")


def value_of(event: Event, member: Member) -> str:
    """What an event has in a member that is counted; empty for none."""
    match member:
        case Member.USER:
            return event.user
        case Member.KIND:
            return event.resourceKind
        case Member.ACTION:
            return event.action
        case Member.NAME:
            return event.resourceName
    return configuration_name(event.configuration) if event.configuration else ""


def most_frequent(events: Iterable[Event], member: Member) -> list[tuple[str, int]]:
    """The values of a member and their counts, most frequent first."""
    counts = Counter(text for event in events if (text := value_of(event, member)))
    return sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))


def has_many(events: Iterable[Event], member: Member) -> bool:
    """Whether events have more values of a member than are counted; to have no name is one."""
    if member is Member.CONFIGURATION:
        events = (event for event in events if event.configuration is not None)
    return len({value_of(event, member) for event in events}) > counting.VALUES_COUNTED_MAX


class Model:
    """The log of one account as a list."""

    def __init__(self) -> None:
        self.kept: list[Kept] = []
        self.by_key: list[Kept] = []
        self.by_id: dict[str, Kept] = {}
        self.taken: set[int] = set()
        self.salts: set[bytes] = set()
        self.newest_us = 0
        self.at_us = 0
        self.expired = 0
        self.holds: list[Hold] = []
        self.erased: set[int] = set()
        self.purged: set[int] = set()

    @property
    def size(self) -> int:
        """The next index."""
        return len(self.kept)

    # Forgetting.

    def is_held(self, kept: Kept) -> bool:
        """Whether a hold covers an event, or it says why others are gone."""
        accounts = kept.event.resourceKind == "AuditTrail" and kept.event.action == "Deleted"
        return accounts or any(
            (hold.user is None or fold(hold.user) == fold(kept.event.user))
            and (hold.min_us is None or hold.min_us <= kept.us)
            and (hold.max_us is None or kept.us <= hold.max_us)
            for hold in self.holds
        )

    def is_shown(self, kept: Kept) -> bool:
        """Whether answers have an event."""
        if kept.index in self.erased or kept.index in self.purged:
            return False
        return kept.index >= self.expired or self.is_held(kept)

    def expire(self, store: AccountStore, before_us: int) -> None:
        """Hides what was committed before a moment."""
        left_us = forgetting.expire(store, before_us)
        stored = [kept for kept in self.kept if not {kept.index} & (self.erased | self.purged)]
        found = [kept.index for kept in stored if kept.at_us < before_us]
        self.expired = max(self.expired, max(found, default=-1) + 1)
        assert left_us == next((kept.at_us for kept in stored if kept.index >= self.expired), None)

    def follow_purge(self, store: AccountStore) -> None:
        """Takes over what a step of a purge destroyed, which must have expired."""
        left = {stored.index for stored in entries_or_gone(store) if stored is not None}
        for kept in self.kept:
            if kept.index not in left | self.erased | self.purged:
                assert not self.is_shown(kept), f"{kept} was destroyed"
                self.purged.add(kept.index)
                self._free(kept)

    def check_purged(self, store: AccountStore) -> None:
        """After a whole purge nothing is stored that is not shown."""
        assert [stored and stored.index for stored in entries_or_gone(store)] == [
            kept.index if self.is_shown(kept) else None for kept in self.kept
        ]

    def take_erased(self, kept: Kept) -> None:
        """Takes over that an event was erased."""
        self.erased.add(kept.index)
        self._free(kept)

    def _free(self, kept: Kept) -> None:
        self.taken.discard(kept.key)

    def follow(self, store: AccountStore, now: int) -> None:
        """Takes over what the store recorded of itself."""
        for step in Recorded(store, Query(), self.size, store.size()):
            for stored in step:
                event = decode_doc(stored.doc)
                assert (event.user, event.resourceKind) in (
                    ("auditplane", "AuditTrail"),
                    ("eve", "AuditTrail"),
                )
                assert stored.index == self.size
                self._check_stamp(stored, max(now, self.at_us), "auditplane")
                kept = Kept(
                    stored.key, self.size, max(now, self.at_us), stored.doc, event, json.loads(stored.doc)
                )
                assert kept.key not in self.taken
                assert kept.us > self.newest_us
                self._add(kept, event.id or "")

    def _add(self, kept: Kept, event_id: str) -> None:
        self.taken.add(kept.key)
        self.kept.append(kept)
        insort(self.by_key, kept)
        self.by_id[event_id] = kept
        self.newest_us = max(self.newest_us, kept.us)
        self.at_us = kept.at_us

    # Recording.

    def record(self, store: AccountStore, requests: Sequence[Sequence[Spec]], clock_us: int) -> None:
        """Records in one commit, in the store and here, and checks that the store did what it owes."""
        now = max(clock_us, self.at_us)
        results = log.record(
            store, [request(specs, f"key-{at}") for at, specs in enumerate(requests)], lambda: clock_us
        )
        assert len(results) == len(requests)
        for at, (specs, result) in enumerate(zip(requests, results, strict=True)):
            wrong = self._wrong(specs, now)
            if wrong:
                assert isinstance(result, wrong), f"{result!r} for {specs}"
            else:
                assert not isinstance(result, Exception), f"{result!r} for {specs}"
                self.take(store, specs, result, now, f"key-{at}")
        assert store.size() == self.size

    def _wrong(self, specs: Sequence[Spec], now: int) -> type[Exception] | None:
        """Why a request must be refused."""
        if any(_given_us(given) > now + NEAR_US for given in specs):
            return InvalidEvents
        first: dict[str, Spec] = {}
        for given in specs:
            event_id = given.get("id")
            if event_id is not None and self._is_erased(event_id):
                return Conflict
            if self._is_known(event_id):
                if not self._repeats(given, self.by_id[given["id"]]):
                    return Conflict
            elif event_id is not None and not _agree(given, first.setdefault(event_id, given)):
                return Conflict
        return None

    def _is_erased(self, event_id: str) -> bool:
        return event_id in self.by_id and self.by_id[event_id].index in self.erased

    def _is_known(self, event_id: str | None) -> bool:
        """Whether an event of this id is there; what has expired leaves it free once it is destroyed."""
        kept = self.by_id.get(event_id or "")
        return kept is not None and kept.index not in self.erased | self.purged

    def _repeats(self, given: Spec, kept: Kept) -> bool:
        """Whether every member that the caller gave is that of the stored event."""
        members = json.loads(kept.doc)
        us = _given_us(given)
        was_near = kept.at_us < us <= kept.at_us + NEAR_US and kept.us >= kept.at_us
        same_time = us < 0 or us == kept.us or was_near
        return same_time and all(
            members.get(name) == given[name] for name in given if name not in ("id", "timestamp")
        )

    def take(self, store: AccountStore, specs: Sequence[Spec], ids: Sequence[str], now: int, by: str) -> None:
        """Takes over what a request added; ids must be one an event, in the order given."""
        assert len(ids) == len(specs)
        given_newest = max((_given_us(given) for given in specs if _given_us(given) <= now), default=0)
        assigned = max(now, max(self.newest_us, given_newest) + 1)
        for given, event_id in zip(specs, ids, strict=True):
            assert given.get("id", event_id) == event_id
            if self._is_known(event_id):
                continue
            us = _given_us(given)
            if us < 0 or us > now:
                us, assigned = assigned, assigned + 1
            self._keep(store, given, event_id, us, now, by)

    def _keep(self, store: AccountStore, given: Spec, event_id: str, us: int, now: int, by: str) -> None:
        stored = store.get(event_id)
        assert stored is not None, f"{event_id} was acknowledged, but is not there"
        event = decode_doc(stored.doc)
        members = json.loads(stored.doc)
        assert members["timestamp"] == format_us(us)
        assert all(members[name] == value for name, value in given.items() if name != "timestamp")
        key = stored.key
        if not self.erased and not self.purged:
            assert key == self._place(us)
        assert key not in self.taken
        assert key >> ulid.COUNTER_BITS >= us
        assert "id" in given or ulid.key_of(event_id) == key
        assert stored.index == self.size
        self._check_stamp(stored, now, by)
        self._add(Kept(key, self.size, now, stored.doc, event, given), event_id)

    def _place(self, us: int) -> int:
        """The first free key from a microsecond on; each has COUNTERS of them."""
        while True:
            for counter in range(ulid.COUNTERS):
                key = us << ulid.COUNTER_BITS | counter
                if key not in self.taken:
                    return key
            us += 1

    def _check_stamp(self, stored: Stored, now: int, by: str) -> None:
        assert b"\n" not in stored.stamp
        stamp = json.loads(stored.stamp)
        assert list(stamp) == ["at", "by", "salt"]
        assert stamp["at"] == format_us(now)
        assert stamp["by"] == by
        salt = msgspec.convert(stamp["salt"], bytes)
        assert len(salt) == 16
        assert salt not in self.salts
        self.salts.add(salt)

    # Reading.

    def docs(self, query: Query, size: int | None = None) -> list[bytes]:
        """The docs of an answer that shows the first `size` events."""
        return [kept.doc for kept in self.ever(query, size) if self.is_shown(kept)]

    def ever(self, query: Query, size: int | None = None) -> list[Kept]:
        """What an answer has or had, in its order."""
        size = self.size if size is None else size
        if query.order is Order.RECORDED:
            first = 0 if query.after is None else query.after + 1
            found: Iterable[Kept] = self.kept[max(first, 0) :]
        else:
            found = self.by_key if query.order is Order.ASC else reversed(self.by_key)
        return [kept for kept in found if kept.index < size and query.matches(kept.event)]

    def check_answer(self, store: AccountStore, query: Query, form: Form, *, packed: bool) -> None:
        """The whole answer in one form."""
        expected = rendered(self.docs(query), form)
        assert whole(store, query, form, packed=packed) == expected, f"{query} as {form}, packed: {packed}"

    def check_pages(self, store: AccountStore, query: Query, limit: int) -> None:
        """The answer in pages, of which each but the last is full, and none but the first is empty."""
        pages = list(walk(store, query, limit))
        assert [doc for page in pages for doc in page] == self.docs(query), f"{query} in pages of {limit}"
        assert all(len(page) <= limit for page in pages)
        assert all(pages[1:])

    def check_count(self, store: AccountStore, query: Query) -> None:
        """The count; what concerns the order alone does not change it."""
        assert log.count(store, query) == len(self.docs(replace(query, order=Order.DESC))), (
            f"the count of {query}"
        )

    def events(self, query: Query) -> list[Event]:
        """The events that match, newest first."""
        found = self.ever(replace(query, order=Order.DESC, after=None))
        return [kept.event for kept in found if self.is_shown(kept)]

    def check_overview(self, store: AccountStore, query: Query, stacked: Member, buckets_max: int) -> None:
        """All that is counted, against counting one by one."""
        found = overview.overview(store, query, stacked=stacked, buckets_max=buckets_max)
        events = self.events(query)
        is_sample = bool(query.names or query.words) or any(map(partial(has_many, events), overview.TOPS))
        counted = events[: overview.SAMPLE_EVENTS] if is_sample else events
        known = len(counted) == len(events) or not query.words
        assert (found.counted, found.matches) == (len(counted), len(events) if known else None), query
        assert found.exact is (len(counted) == len(events))
        for member in overview.TOPS:
            assert list(found.tops[member]) == most_frequent(counted, member)[:10]
        moments = [parse_rfc3339(event.timestamp or "") for event in counted]
        assert (found.oldest_us, found.newest_us) == (min(moments, default=None), max(moments, default=None))
        shown = [text for text, _ in most_frequent(counted, stacked)[: overview.SERIES_MAX]]
        series: dict[str, list[int]] = {text: [0] * len(found.starts_us) for text in [*shown, ""]}
        for event, us in zip(counted, moments, strict=True):
            text = value_of(event, stacked)
            bucket = bisect_right(found.starts_us, us) - 1
            series[text if text in shown else ""][bucket] += 1
        if not any(series[""]):
            del series[""]
        assert {text: list(row) for text, row in found.series.items()} == series

    def check_suggestions(self, store: AccountStore, member: Member, text: str) -> None:
        """The values that are there, most frequent first; some may be missing where only so many are kept."""
        found = overview.suggestions(store, member, text)
        due = [pair for pair in most_frequent(self.events(Query()), member) if fold(text) in fold(pair[0])]
        if member is Member.NAME or has_many(self.events(Query()), member):
            assert all(count <= dict(due)[each] for each, count in found)
        else:
            assert found == due[:10]

    def check_log(self, store: AccountStore) -> None:
        """Every event by its id, and every entry by its index."""
        for event_id, kept in self.by_id.items():
            if self.is_shown(kept):
                assert log.get(store, event_id) == kept.doc
                assert log.get(store, event_id.lower()) == kept.doc
            else:
                with pytest.raises(Gone if ulid.key_of(event_id) == kept.key else (Gone, NotFound)):
                    log.get(store, event_id)
        assert [stored and (stored.key, stored.doc) for stored in entries_or_gone(store)] == [
            None if kept.index in self.purged | self.erased else (kept.key, kept.doc) for kept in self.kept
        ]

    def check_store(self, store: AccountStore) -> None:
        """What holds of the tables: no event twice, none lost, runs without overlaps, whole tiles."""
        with store.snapshot() as connection:
            tail = [row[0] for row in fetch(connection, "SELECT key FROM tail")]
            blocks = fetch(connection, "SELECT run, low, high, id FROM block ORDER BY run, low")
            sealed: list[int] = []
            for _, low, high, block_id in blocks:
                keys = block.unpack_numbers(store.data(connection, "block_keys", block_id))
                assert (keys[0], keys[-1]) == (low, high)
                assert sorted(set(keys)) == list(keys)
                sealed.extend(keys)
            gone = self.purged | self.erased
            assert sorted(tail + sealed) == [kept.key for kept in self.by_key if kept.index not in gone]
            assert fetch(connection, "SELECT live, size - sealed FROM log") == [
                (len(tail + sealed), len(tail))
            ]
            assert all(a[0] != b[0] or a[2] < b[1] for a, b in pairwise(blocks)), "blocks of one run overlap"
            (tiled,) = fetch(connection, "SELECT tiled FROM log")[0]
            tiles = fetch(
                connection, "SELECT first, count FROM entry WHERE first < ? ORDER BY first", (tiled,)
            )
            assert tiles == [(at, sealing.TILE_ENTRIES) for at in range(0, tiled, sealing.TILE_ENTRIES)]
        with store.maintenance() as connection:
            for table in ("word", "term"):
                fetch(connection, f"INSERT INTO {table} ({table}) VALUES ('integrity-check')")  # noqa: S608 - ours
        problems = checking.check(store, deep=True).problems
        assert not problems, "\n".join(problems)


def _given_us(given: Spec) -> int:
    """The given timestamp, or -1."""
    return parse_rfc3339(given["timestamp"]) if "timestamp" in given else -1


def _agree(given: Spec, earlier: Spec) -> bool:
    """Whether a repeat within one request gives nothing else than the first did."""
    (event,) = request([earlier]).batch.events
    members = {**earlier, "description": event.description}
    same_time = _given_us(given) in (-1, _given_us(earlier))
    return same_time and all(
        members.get(name) == value for name, value in given.items() if name != "timestamp"
    )


# For tests with several processes, which import this module by name.


def hammer(path: Path, number: int, batches: int, step_us: int) -> list[tuple[str, int | None]]:
    """Records small batches beside others, with a clock that is off by `step_us`.

    Returns what was acknowledged: each id with the timestamp that was given, if any.
    """
    acknowledged: list[tuple[str, int | None]] = []
    with opened(path) as store:
        for batch in range(batches):
            now = time.time_ns() // 1000 + step_us
            times = [None, now - 10**6 * batch, None, now + 10**7, START_US, START_US]
            specs = [
                spec(number, details={"batch": batch, "at": at})
                | ({} if us is None else {"timestamp": format_us(us)})
                for at, us in enumerate(times)
            ]
            ids = record(store, specs, now)
            acknowledged += [
                (event_id, us if us and us <= now else None) for event_id, us in zip(ids, times, strict=True)
            ]
            if batch % 7 == number:
                sealing.tend(store)
    return acknowledged


def hammer_and_tell(path: Path, pipe: Connection, seed: int) -> None:
    """Records, seals and compacts until it is killed; tells the ids of each acknowledged commit."""
    draw = random.Random(seed)
    with opened(path) as store, pytest.MonkeyPatch.context() as patch:
        shrink(patch, SEAL_EVENTS=40, TAIL_KEPT_EVENTS=20, BLOCK_EVENTS=16, RUNS_MAX=2)
        shrink(patch, REPACK_ENTRIES=64, TILE_ENTRIES=16)
        while True:
            now = time.time_ns() // 1000
            times = [format_us(now - draw.randint(0, 10**7)) for _ in range(draw.randint(1, 9))]
            pipe.send(record(store, [*(spec(at, timestamp=us) for at, us in enumerate(times)), spec()], now))
            draw.choice([sealing.tend, sealing.tend, sealing.settle])(store)
