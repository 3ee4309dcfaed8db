"""Recording: times, identity, requests that share a commit, and the recorder's threads."""

import json
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
from engine_model import (
    NEAR_US,
    RULES,
    START_US,
    Model,
    Spec,
    hammer,
    opened,
    record,
    rendered,
    request,
    shrink,
    spec,
    walk,
    whole,
)

from auditplane import limits, log, ulid
from auditplane.errors import Conflict, InvalidEvents, NotFound, StoreError, Unavailable
from auditplane.event import decode_doc, parse
from auditplane.query import Order, Query
from auditplane.render import Form
from auditplane.store.sqlite import account, block, sealing
from auditplane.store.sqlite.account import AccountStore
from auditplane.store.sqlite.database import fetch
from auditplane.store.sqlite.folder import DataFolder
from auditplane.times import format_us, parse_rfc3339

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
                offsets = [draw.choice([None, None, 0, -1, 1, -(10**6), 10**7]) for _ in range(draw.randint(1, 8))]
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


def test_timestamps_of_one_batch_are_unique_and_in_its_order(store: AccountStore) -> None:
    """Even when the clock stands still, and when given timestamps lie between."""
    specs = [spec(timestamp=format_us(START_US)) if at % 3 == 0 else spec() for at in range(3_000)]
    record(store, specs)
    assigned = [us for us in timestamps(store) if us != START_US]
    assert len(assigned) == 2_000
    assert all(a < b for a, b in pairwise([START_US, *assigned]))


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


@pytest.mark.parametrize("events", [ulid.COUNTERS - 1, ulid.COUNTERS, ulid.COUNTERS + 1, 3 * ulid.COUNTERS])
def test_more_events_of_one_microsecond_than_it_has_keys(store: AccountStore, events: int) -> None:
    """They run over into later keys, and their neighbours with them, yet dates are those of the events."""
    model = Model()
    of_one = spec(timestamp=format_us(START_US))
    model.record(store, [[of_one] * (events // 2)], START_US + 10)
    sealing.settle(store)
    model.record(store, [[of_one] * (events - events // 2)], START_US + 10)
    model.record(store, [[spec(timestamp=format_us(START_US + at)) for at in (1, 2, 3, 0, -1)]], START_US + 10)
    for order in Order:
        model.check_answer(store, Query(order=order), Form.NDJSON, packed=False)
    for at in range(-2, 6):
        for query in (
            Query(min_us=START_US + at),
            Query(max_us=START_US + at),
            Query(min_us=START_US + at, max_us=START_US + at, order=Order.ASC),
        ):
            model.check_count(store, query)
            model.check_count(store, Query(users=("ann@example.com",), min_us=query.min_us, max_us=query.max_us))
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
    store._writer.exec_trace = count
    record(store, [of_one] * 10, START_US + 10)
    assert 0 < asked < 50
    store._writer.exec_trace = None
    assert len(whole(store, Query(min_us=START_US, max_us=START_US)).splitlines()) == 4_011


def test_two_processes_record_into_one_account(path: Path) -> None:
    """Indexes have no gap, assigned timestamps rise in their order, and nothing acknowledged is lost."""
    with ProcessPoolExecutor(3, mp_context=get_context("spawn")) as processes:
        running = [processes.submit(hammer, path, at, 40, step) for at, step in enumerate((0, -5_000_000, 3))]
        acknowledged = [one for process in running for one in process.result()]
    with opened(path) as store:
        assert store.size() == len(acknowledged) == len({event_id for event_id, _ in acknowledged})
        with store.snapshot() as connection:
            by_index = sorted((store.find(connection, event_id), given) for event_id, given in acknowledged)  # type: ignore[type-var]
