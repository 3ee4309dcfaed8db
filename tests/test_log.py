"""Recording: times, identity, requests that share a commit, and the recorder's threads."""

import json
import random
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest
from apsw import Connection

from auditplane import limits, log, ulid
from auditplane.errors import Conflict, InvalidEvents, NotFound, StoreError
from auditplane.event import decode_doc
from auditplane.query import Order, Query
from auditplane.render import Form
from auditplane.store.sqlite import sealing
from auditplane.store.sqlite.account import AccountStore
from auditplane.store.sqlite.database import fetch
from auditplane.times import format_us, parse_rfc3339
from engine_model import (
    NEAR_US,
    START_US,
    Model,
    Spec,
    entries,
    hammer,
    opened,
    record,
    request,
    shrink,
    spec,
    walk,
    whole,
)

OWN_ID = "01ARZ3NDEKTSV4RRFFQ69G5FAV"
OTHER_ID = "01BX5ZZKBKACTAV9WEVGEMMVS0"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "default.db"


@pytest.fixture
def store(path: Path) -> Iterator[AccountStore]:
    with opened(path) as store:
        yield store


def shown(store: AccountStore, event_id: str) -> Spec:
    """An event as it is served."""
    return dict(json.loads(log.get(store, event_id)))


def timestamps(store: AccountStore) -> list[int]:
    """All timestamps in the order in which they were recorded."""
    docs = whole(store, Query(order=Order.RECORDED)).splitlines()
    return [parse_rfc3339(decode_doc(doc).timestamp or "") for doc in docs]


# Times.


def test_assigned_timestamps_rise_whatever_the_clock_does(path: Path) -> None:
    """Each is greater than every earlier one, assigned or given, across clock steps and restarts."""
    draw = random.Random(7)
    model = Model()
    now = START_US
    for _ in range(12):
        with opened(path) as store:
            for _ in range(5):
                now += draw.choice([0, 1, 3, 10**6, -1, -(10**6), -(10**12)])
                offsets = [
                    draw.choice([None, None, 0, -1, 1, -(10**6), 10**7]) for _ in range(draw.randint(1, 8))
                ]
                model.record(
                    store,
                    [[spec() if at is None else spec(timestamp=format_us(now + at)) for at in offsets]],
                    now,
                )
    with opened(path) as store:
        found = timestamps(store)
        newest = 0
        for kept, us in zip(model.kept, found, strict=True):
            given = parse_rfc3339(kept.given["timestamp"]) if "timestamp" in kept.given else None
            assert us == given or us > newest
            newest = max(newest, us)
        model.check_log(store)


@pytest.mark.parametrize(("ahead_us", "taken"), [(0, True), (1, True), (NEAR_US, True), (NEAR_US + 1, False)])
def test_the_future_is_never_recorded(store: AccountStore, ahead_us: int, taken: bool) -> None:
    """Up to 60 s ahead becomes the server's time; more is refused by position, and nothing is stored."""
    specs = [spec(), spec(timestamp=format_us(START_US + ahead_us))]
    if taken:
        record(store, specs)
        assert max(timestamps(store)) <= START_US + 1
    else:
        with pytest.raises(InvalidEvents, match=r"events\[1\]\.timestamp: .* lies in the future"):
            record(store, specs)
        assert store.size() == 0


def test_at_most_twenty_wrong_timestamps_are_listed(store: AccountStore) -> None:
    """However many there are."""
    with pytest.raises(InvalidEvents) as caught:
        record(store, [spec(timestamp=format_us(START_US + NEAR_US + 1))] * 50)
    assert len(caught.value.messages) == limits.PROBLEMS_LISTED_MAX


def test_the_first_microsecond_of_1970(store: AccountStore) -> None:
    """The earliest event there can be is found like any other."""
    (event_id,) = record(store, [spec(timestamp="1970-01-01T00:00:00Z")])
    record(store, [spec()])
    sealing.settle(store)
    assert shown(store, event_id)["timestamp"] == "1970-01-01T00:00:00.000000Z"
    assert len(whole(store, Query(max_us=0)).splitlines()) == 1
    assert whole(store, Query(max_us=-1)) == b""
    assert len(whole(store, Query(order=Order.ASC)).splitlines()) == 2


@pytest.mark.parametrize("events", [ulid.COUNTERS, ulid.COUNTERS + 1])
def test_more_events_of_one_microsecond_than_it_has_keys(store: AccountStore, events: int) -> None:
    """They run over into later keys, and their neighbours with them, yet dates are those of the events."""
    model = Model()
    of_one = spec(timestamp=format_us(START_US))
    model.record(store, [[of_one] * (events // 2)], START_US + 10)
    sealing.settle(store)
    model.record(store, [[of_one] * (events - events // 2)], START_US + 10)
    model.record(
        store, [[spec(timestamp=format_us(START_US + at)) for at in (1, 2, 3, 0, -1)]], START_US + 10
    )
    for order in Order:
        model.check_answer(store, Query(order=order), Form.NDJSON, packed=False)
    for at in range(-2, 6):
        for query in (
            Query(min_us=START_US + at),
            Query(max_us=START_US + at),
            Query(min_us=START_US + at, max_us=START_US + at, order=Order.ASC),
        ):
            model.check_count(store, query)
            model.check_count(
                store, Query(users=("ann@example.com",), min_us=query.min_us, max_us=query.max_us)
            )
    assert sum(map(len, walk(store, Query(max_us=START_US), 1_000))) == events + 2


def test_full_microseconds_are_not_walked_again(store: AccountStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A free key after very many events of one microsecond is found at once, in later commits too."""
    shrink(monkeypatch, COUNTERS=2)
    of_one = spec(timestamp=format_us(START_US))
    record(store, [of_one] * 4_000, START_US + 10)
    asked = 0

    def count(_cursor: object, statement: str, _bindings: object) -> bool:
        nonlocal asked
        asked += "FROM tail WHERE key >=" in statement
        return True

    record(store, [of_one], START_US + 10)
    with store._writer.use() as writer:
        writer.exec_trace = count
    record(store, [of_one] * 10, START_US + 10)
    assert 0 < asked < 50
    with store._writer.use() as writer:
        writer.exec_trace = None
    assert len(whole(store, Query(min_us=START_US, max_us=START_US)).splitlines()) == 4_011


@pytest.mark.parametrize("kept", [0, 4_096])
@pytest.mark.parametrize("sealed", [True, False])
def test_neither_are_those_between(
    store: AccountStore, monkeypatch: pytest.MonkeyPatch, sealed: bool, kept: int
) -> None:
    """Events of each of very many full microseconds, in any order: none is asked for twice in a commit."""
    shrink(monkeypatch, COUNTERS=2, FULL_KEPT_MAX=kept)
    full = 300
    draw = random.Random(3)
    model = Model()
    model.record(store, [[spec(timestamp=format_us(START_US))] * (2 * full)], START_US + 10_000)
    model.record(store, [[spec(timestamp=format_us(START_US + full + 5))] * 6], START_US + 10_000)
    if sealed:
        sealing.settle(store)
    asked = 0

    def count(_cursor: object, statement: str, _bindings: object) -> bool:
        nonlocal asked
        asked += "FROM tail WHERE key >=" in statement
        return True

    with store._writer.use() as writer:
        writer.exec_trace = count
    for _ in range(2):
        moments = draw.sample(range(full), full - 7)
        specs = [spec(timestamp=format_us(START_US + at)) for at in moments]
        model.record(store, [specs], START_US + 10_000)
    assert 0 < asked < 6 * full
    with store._writer.use() as writer:
        writer.exec_trace = None
    model.check_answer(store, Query(order=Order.ASC), Form.NDJSON, packed=False)


def test_two_processes_record_into_one_account(path: Path) -> None:
    """Indexes have no gap, assigned timestamps rise in their order, and nothing acknowledged is lost."""
    with ProcessPoolExecutor(3, mp_context=get_context("spawn")) as processes:
        running = [processes.submit(hammer, path, at, 20, step) for at, step in enumerate((0, -5_000_000, 3))]
        acknowledged = [one for process in running for one in process.result()]
    with opened(path) as store:
        log_of = entries(store)
        ids = [decode_doc(stored.doc).id for stored in log_of]
        assert sorted(map(str, ids)) == sorted(event_id for event_id, _ in acknowledged)
        given = dict(acknowledged)
        newest = 0
        for event_id, us in zip(ids, timestamps(store), strict=True):
            assert us == given[str(event_id)] or us > newest
            newest = max(newest, us)
        assert len({stored.stamp for stored in log_of}) == len(log_of)
    # Each process was answered in the order in which it recorded.
    positions = {event_id: at for at, event_id in enumerate(ids)}
    for process in running:
        mine = [positions[event_id] for event_id, _ in process.result()]
        assert mine == sorted(mine)


def test_processes_that_open_a_new_account_at_once(path: Path) -> None:
    """Make one log, of one secret."""
    with ProcessPoolExecutor(3, mp_context=get_context("spawn")) as processes:
        running = [processes.submit(hammer, path, at, 1, 0) for at in range(3)]
        assert sum(len(process.result()) for process in running) == 18
    with opened(path) as store:
        assert len(entries(store)) == 18
        assert len(whole(store, Query(users=("ann@example.com",))).splitlines()) == 18


# Identity.


def test_the_same_again_is_answered_as_the_first_time(store: AccountStore) -> None:
    """Whatever of the event the caller gives the second time, and in whatever case the id is."""
    full = spec(id=OWN_ID, timestamp=format_us(START_US - 5), configuration="gw:1", details={"a": [1]})
    assert record(store, [full]) == [OWN_ID]
    for again in (
        full,
        shown(store, OWN_ID),
        spec(id=OWN_ID),
        {**full, "id": OWN_ID.lower()},
        {**full, "timestamp": format_us(START_US - 5).replace("Z", "+00:00")},
        {**full, "description": "Modified Source name-0 in configuration gw:1"},
    ):
        assert record(store, [again], START_US + 99) == [OWN_ID]
        sealing.settle(store)
    assert store.size() == 1


@pytest.mark.parametrize(
    "other",
    [
        {"resourceName": "another"},
        {"resourceKind": "Agent"},
        {"action": "modified"},
        {"user": "ANN@example.com"},
        {"description": "another"},
        {"configuration": "gw"},
        {"details": {"a": 1}},
        {"timestamp": format_us(START_US - 6)},
        {"timestamp": format_us(START_US + 6)},
    ],
)
def test_the_same_id_with_other_content_is_a_conflict(store: AccountStore, other: Spec) -> None:
    """Each member counts, and nothing of the request is stored."""
    first = spec(id=OWN_ID, timestamp=format_us(START_US - 5), configuration="gw:1")
    record(store, [first])
    for _ in range(2):
        with pytest.raises(Conflict, match=r"events\[1\]\.id"):
            record(store, [spec(1), {**first, **other}, spec(2)])
        assert store.size() == 1
        sealing.settle(store)


def test_an_id_made_here_sent_again(store: AccountStore) -> None:
    """As it is shown, it is the same event; with other content a conflict."""
    ids = record(store, [spec(at) for at in range(5)])
    assert record(store, [shown(store, event_id) for event_id in reversed(ids)]) == ids[::-1]
    with pytest.raises(Conflict):
        record(store, [{**shown(store, ids[0]), "user": "bob"}])
    assert store.size() == 5


def test_ids_sent_again_in_any_order_open_each_block_once(
    store: AccountStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither their order nor runs that overlap make a block be unpacked for each of its events."""
    shrink(monkeypatch, BLOCK_EVENTS=8, FRAME_EVENTS=4)
    draw = random.Random(7)
    model = Model()
    for run in range(4):  # each between the events of the others, and the last one is not sealed
        specs = [spec(at, timestamp=format_us(START_US + 4 * at + run)) for at in range(40)]
        specs[7] |= {"id": ulid.make(draw.getrandbits(60), draw.randbytes(ulid.RANDOM_BYTES))}
        model.record(store, [specs], START_US + 1_000 + run)
        if run < 3:
            assert sealing.seal(store, everything=True)
    given = [kept.given | {"id": kept.event.id} for kept in model.kept]
    again = [*given, *given[::3], spec(1_000, id=OWN_ID), spec(1_001), spec(1_000, id=OWN_ID)]
    draw.shuffle(again)
    with store.snapshot() as connection:
        frames = fetch(connection, "SELECT count(*) FROM frame")[0][0]
        blocks = fetch(connection, "SELECT count(*), count(DISTINCT run) FROM block")[0]
    assert blocks[1] > 1, "runs overlap"
    read: list[tuple[str, object]] = []
    data, frames_of = AccountStore.data, AccountStore.frames

    def reading_data(self: AccountStore, connection: Connection, query: str, block_id: int) -> bytes:
        read.append((query, block_id))
        return data(self, connection, query, block_id)

    def reading_frames(self: AccountStore, connection: Connection, ids: range) -> list[bytes]:
        read.append(("frames", ids))
        return frames_of(self, connection, ids)

    with monkeypatch.context() as patch:
        patch.setattr(AccountStore, "data", reading_data)
        patch.setattr(AccountStore, "frames", reading_frames)
        results = log.record(store, [request(again)], lambda: START_US + 2_000)
    assert len(read) == len(set(read)), "each is read once"
    assert sum(query == "frames" for query, _ in read) == frames
    assert sum(query == "block_stamps" for query, _ in read) == blocks[0]
    (ids,) = results
    assert not isinstance(ids, Exception), ids
    model.take(store, again, ids, START_US + 2_000, "key-1")
    assert model.size == store.size() == 4 * 40 + 2
    for first, second in ((0, 1), (3, len(again) // 2)):
        for wrong in ({first}, {first, second}):  # the first one is told of, whichever stands before it
            other = [each | {"user": "bob"} if at in wrong else each for at, each in enumerate(again)]
            with pytest.raises(Conflict, match=rf"events\[{first}\]"):
                record(store, other, START_US + 3_000)
    model.check_log(store)


def test_an_id_that_only_looks_like_one_made_here(store: AccountStore) -> None:
    """An id that holds the key of another event is free, and both are found."""
    (made,) = record(store, [spec()])
    alike = made[:-1] + ("A" if made[-1] != "A" else "B")
    assert ulid.key_of(alike) == ulid.key_of(made)
    with pytest.raises(NotFound):
        log.get(store, alike)
    assert record(store, [spec(1, id=alike)]) == [alike]
    sealing.settle(store)
    assert shown(store, made)["resourceName"] == "name-0"
    assert shown(store, alike)["resourceName"] == "name-1"


def test_repeats_within_a_request(store: AccountStore) -> None:
    """The same twice is stored once; other content, or a timestamp that the first lacks, is a conflict."""
    timed = spec(id=OTHER_ID, timestamp=format_us(START_US - 5))
    again = {name: value for name, value in timed.items() if name != "timestamp"}
    assert record(store, [spec(id=OWN_ID), spec(), spec(id=OWN_ID), timed, timed, again]) == [
        OWN_ID,
        shown(store, whole(store, Query()).splitlines()[0][7:33].decode())["id"],
        OWN_ID,
        OTHER_ID,
        OTHER_ID,
        OTHER_ID,
    ]
    assert store.size() == 3
    for wrong in (spec(1, id="01ARZ3NDEKTSV4RRFFQ69G5FAW"), timed | {"id": "01ARZ3NDEKTSV4RRFFQ69G5FAW"}):
        with pytest.raises(Conflict, match=r"events\[1\]"):
            record(store, [spec(id="01ARZ3NDEKTSV4RRFFQ69G5FAW"), wrong])
    assert store.size() == 3


def test_a_timestamp_of_the_near_future_sent_again(store: AccountStore) -> None:
    """It had become the server's time; the same is the same event, before that time comes and after."""
    record(store, [spec(at) for at in range(50)])  # assigned timestamps run ahead of the clock by 49 µs
    for ahead_us, event_id in ((10, OWN_ID), (NEAR_US, OTHER_ID)):
        near = spec(id=event_id, timestamp=format_us(START_US + ahead_us))
        record(store, [near])
        first = shown(store, event_id)
        for later in (0, 1, ahead_us, ahead_us + 1, 10 * NEAR_US):
            assert record(store, [near], START_US + later) == [event_id]
        assert shown(store, event_id) == first
        with pytest.raises(Conflict):
            record(store, [near | {"timestamp": format_us(START_US - 1)}], START_US + 10 * NEAR_US)
        with pytest.raises(Conflict):
            record(store, [near | {"timestamp": format_us(START_US + NEAR_US + 1)}], START_US + 10 * NEAR_US)


# Requests that share a commit.


def test_requests_that_fail_leave_the_others(store: AccountStore) -> None:
    """Each is recorded wholly or not at all, and those that are leave no gap."""
    model = Model()
    model.record(store, [[spec(id=OWN_ID)]], START_US)
    future = spec(timestamp=format_us(START_US + 2 * NEAR_US))
    model.record(
        store,
        [
            [spec(1), spec(2)],
            [spec(3), spec(4, id=OTHER_ID), spec(5, id=OWN_ID)],  # a conflict at its end
            [spec(6, id=OTHER_ID)],  # the id that was not stored with it is free
            [spec(7), future],
            [spec(6, id=OTHER_ID), spec(8)],  # the same as in this commit
            [spec(9, id=OTHER_ID)],  # other content than in this commit
            [spec(10)],
        ],
        START_US + 5,
    )
    assert model.size == 6
    model.check_answer(store, Query(order=Order.RECORDED), Form.JSON, packed=False)
    model.check_log(store)


def test_a_commit_in_which_all_fail_leaves_nothing(store: AccountStore) -> None:
    """Not even the time of the commit."""
    results = log.record(
        store, [request([spec(timestamp=format_us(START_US + 2 * NEAR_US))])] * 3, lambda: START_US
    )
    assert all(isinstance(result, InvalidEvents) for result in results)
    record(store, [spec()], START_US - 100)
    assert timestamps(store) == [START_US - 100]


def test_an_error_that_nobody_foresaw_is_told_to_each(store: AccountStore) -> None:
    """Whatever breaks the commit, every request gets an answer, and nothing is stored."""

    def broken() -> int:
        raise RuntimeError("no clock")

    results = log.record(store, [request([spec()])] * 3, broken)
    assert [str(result) for result in results] == ["no clock"] * 3
    assert store.size() == 0
    record(store, [spec()])


def test_a_transaction_that_sqlite_took_back(store: AccountStore) -> None:
    """Some failures of the disk end the transaction under our hands: nothing may be written after that."""

    def record_in_vain() -> None:
        with store.transaction() as transaction:
            log._record_one(transaction, request([spec()]), START_US)
            fetch(transaction.connection, "ROLLBACK")

    with pytest.raises(StoreError):
        record_in_vain()
    with store.snapshot() as connection:
        for table in ("tail", "entry", "given"):
            assert fetch(connection, f"SELECT * FROM {table}") == []  # noqa: S608 - ours
    assert store.size() == 0
    record(store, [spec()])
