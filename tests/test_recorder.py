"""The queue before the logs: every request is answered once, and no account holds up another."""

import itertools
import json
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from auditplane import limits, log
from auditplane import recorder as queue
from auditplane.access import Access
from auditplane.access.key import Key, Role
from auditplane.errors import InvalidEvents, NotAuthenticated, NotFound, StoreError, Unavailable
from auditplane.event import Batch, decode_doc, parse
from auditplane.query import Order, Query
from auditplane.recorder import Recorder
from auditplane.store.sqlite import sealing
from auditplane.store.sqlite.folder import DataFolder
from auditplane.times import parse_rfc3339
from engine_model import RULES, START_US, entries, record, spec
from folders import FreeFolder

HOUR_US = 3_600 * 10**6
STEPS_US = (HOUR_US, -HOUR_US, 365 * 24 * HOUR_US, -365 * 24 * HOUR_US)


class Delivered:
    """Gathers what a recorder delivers."""

    def __init__(self) -> None:
        self.results: dict[Any, log.Result] = {}
        self.commits: list[int] = []
        self._mutex = threading.Lock()

    def __call__(self, results: Sequence[tuple[log.Request, log.Result]]) -> None:
        with self._mutex:
            self.commits.append(len(results))
            for request, result in results:
                assert request.token not in self.results
                self.results[request.token] = result


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[DataFolder]:
    folder = FreeFolder(tmp_path / "data")
    yield folder
    folder.close()


def batch(events: int = 1) -> Batch:
    return parse(json.dumps([spec(at) for at in range(events)]).encode(), RULES)


@pytest.mark.parametrize("sealed", [True, False])
def test_recording_waits_for_sealing_but_not_for_ever(
    folder: DataFolder, monkeypatch: pytest.MonkeyPatch, sealed: bool
) -> None:
    """Far more events than are sealed hold up the next request until they are, or until its patience ends."""
    monkeypatch.setattr(limits, "TAIL_EVENTS_MAX", 5)
    monkeypatch.setattr(queue, "SEALING_SECONDS_MAX", 60.0 if sealed else 0.3)
    done = threading.Event()
    recorder = Recorder(folder, log.clock, lambda _: done.set())
    with folder.account("default") as store:
        record(store, [spec(at) for at in range(9)])
        record(store, [spec()])  # it finds them
        began = time.monotonic()
        recorder.submit("default", log.Request(parse(json.dumps([spec()]).encode(), RULES), "key"))
        assert not done.wait(0.2)
        if sealed:
            sealing.settle(store)
        assert done.wait(20)
        assert sealed or time.monotonic() - began >= 0.3
        assert store.size() == 11
    recorder.close()


def test_those_who_wait_for_sealing_hold_up_nobody_else(
    folder: DataFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More of them than there are threads, and an account of which all is sealed."""
    monkeypatch.setattr(limits, "TAIL_EVENTS_MAX", 5)
    monkeypatch.setattr(queue, "SEALING_SECONDS_MAX", 60.0)
    behind = [f"behind-{number}" for number in range(limits.WRITER_THREADS + 2)]
    delivered = Delivered()
    recorder = Recorder(folder, log.clock, delivered)
    with ExitStack() as stack:
        stores = [stack.enter_context(folder.account(account, may_begin=True)) for account in behind]
        for store in stores:
            record(store, [spec(at) for at in range(9)])
            record(store, [spec()])  # it finds them
        with folder.account("default", may_begin=True):
            for account in behind:
                recorder.submit(account, log.Request(batch(), "key", account))
            for number in range(5):
                recorder.submit("default", log.Request(batch(), "key", number))
                deadline = time.monotonic() + 20
                while number not in delivered.results:
                    assert time.monotonic() < deadline
                    time.sleep(0.001)
        assert set(delivered.results) == set(range(5))
        for store in stores:
            sealing.settle(store)
        recorder.close()
    assert set(delivered.results) == {*range(5), *behind}
    assert not any(isinstance(result, Exception) for result in delivered.results.values())


def test_every_request_is_answered_once(folder: DataFolder) -> None:
    """Whichever threads submit and whichever accounts they record into, with some requests that fail."""
    delivered = Delivered()
    recorder = Recorder(folder, log.clock, delivered)
    accounts = [f"account-{at}" for at in range(6)]

    def submit(thread: int) -> None:
        draw = random.Random(thread)
        for at in range(60):
            given = (
                [spec(at, timestamp="2999-01-01T00:00:00Z")]
                if at % 10 == 9
                else [spec(at)] * draw.randint(1, 4)
            )
            made = log.Request(parse(json.dumps(given).encode(), RULES), "key", (thread, at, len(given)))
            recorder.submit(draw.choice(accounts), made)

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(submit, range(4)))
    recorder.close()
    assert len(delivered.results) == 240
    assert recorder.events_waiting == 0
    assert sum(delivered.commits) == 240
    recorded: list[str] = []
    for (_, at, events), result in delivered.results.items():
        if at % 10 == 9:
            assert isinstance(result, InvalidEvents)
        else:
            assert not isinstance(result, Exception)
            assert len(result) == events
            recorded.extend(result)
    stored: list[str] = []
    for name in folder.accounts():
        with folder.account(name) as store:
            stored += [str(decode_doc(one.doc).id) for one in entries(store)]
    assert sorted(stored) == sorted(recorded)


def test_requests_that_wait_share_a_commit(folder: DataFolder) -> None:
    """While an account commits, what comes for it waits and is committed at once, up to a bound."""
    delivered = Delivered()
    recorder = Recorder(folder, log.clock, delivered)
    with folder.account("default") as store, store._alone():
        recorder.submit("default", log.Request(batch(), "key", 0))
        wait_until(lambda: not recorder._queues["default"])
        for at in range(1, 8):
            recorder.submit("default", log.Request(batch(6_000), "key", at))
    recorder.close()
    assert delivered.commits == [1, 3, 3, 1]


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_too_much_waiting_is_refused(folder: DataFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until there is room again; an account at full speed leaves another its share."""
    monkeypatch.setattr(limits, "APPEND_EVENTS_WAITING_MAX", 12)
    delivered = Delivered()
    recorder = Recorder(folder, log.clock, delivered)
    with folder.account("default") as store, store._alone():
        recorder.submit("default", log.Request(batch(6), "key", 0))
        with pytest.raises(Unavailable):
            recorder.submit("default", log.Request(batch(1), "key", 1))
        recorder.submit("another", log.Request(batch(3), "key", 2))
        with pytest.raises(Unavailable):
            recorder.submit("third", log.Request(batch(7), "key", 3))
    wait_until(lambda: recorder.events_waiting == 0)
    recorder.submit("default", log.Request(batch(6), "key", 4))
    recorder.close()
    assert set(delivered.results) == {0, 2, 4}


def test_an_account_that_can_not_be_opened(folder: DataFolder) -> None:
    """Each of its requests hears why, and the others are recorded."""
    delivered = Delivered()
    recorder = Recorder(folder, log.clock, delivered)
    (folder.path / "accounts" / "broken.db").write_bytes(b"this is no database" * 1_000)
    for at, name in enumerate(("../default", "broken", "default", "broken")):
        recorder.submit(name, log.Request(batch(), "key", at))
    recorder.close()
    assert isinstance(delivered.results[0], NotFound)
    assert isinstance(delivered.results[1], StoreError)
    assert isinstance(delivered.results[3], StoreError)
    assert isinstance(delivered.results[2], list)


def test_a_delivery_that_fails_holds_nobody_up(folder: DataFolder) -> None:
    """The account goes on, and closing comes to an end."""
    delivered = Delivered()

    def deliver(results: Sequence[tuple[log.Request, log.Result]]) -> None:
        delivered(results)
        raise RuntimeError("the event loop is closed")

    recorder = Recorder(folder, log.clock, deliver)
    for at in range(20):
        recorder.submit("default", log.Request(batch(), "key", at))
    recorder.close()
    assert sorted(delivered.results) == list(range(20))
    assert recorder.events_waiting == 0


def test_a_thread_that_can_not_be_begun_is_told_of_at_the_start(
    folder: DataFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And all have begun before anything is recorded: an account would wait for the missing one for ever."""
    recorder = Recorder(folder, log.clock, Delivered())
    writers = [thread for thread in threading.enumerate() if thread.name.startswith("writer")]
    assert len(writers) == limits.WRITER_THREADS
    recorder.close()
    start, left = threading.Thread.start, iter([True, True, False])

    def failing(thread: threading.Thread) -> None:
        if not next(left):
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", failing)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        Recorder(folder, log.clock, Delivered())


def test_a_closed_recorder_refuses(folder: DataFolder) -> None:
    """What was submitted before is answered, what comes after is told to try again."""
    delivered = Delivered()
    recorder = Recorder(folder, log.clock, delivered)
    recorder.submit("default", log.Request(batch(1_000), "key", 0))
    recorder.close()
    assert set(delivered.results) == {0}
    with pytest.raises(Unavailable):
        recorder.submit("default", log.Request(batch(), "key", 1))
    assert recorder.events_waiting == 0
    recorder.close()


@pytest.mark.parametrize("step_us", STEPS_US, ids=["an hour on", "an hour back", "a year on", "a year back"])
def test_pollers_miss_nothing_when_the_clock_is_set(folder: DataFolder, step_us: int) -> None:
    """While several record: who asks for what is newer than the newest he has gets all, once."""
    clock_us = [START_US]

    def clock() -> int:
        clock_us[0] += 1
        return clock_us[0]

    recorder = Recorder(folder, clock, Delivered())
    stopping = threading.Event()
    polled: list[str] = []

    def poll() -> None:
        newest = 0
        while True:
            last = stopping.is_set()
            with folder.account("default") as store:
                docs, _, _ = log.page(
                    store, Query(order=Order.ASC, min_us=newest + 1), limits.PAGE_EVENTS_MAX
                )
            found = [decode_doc(doc) for doc in docs]
            polled.extend(str(event.id) for event in found)
            newest = max([newest, *(parse_rfc3339(event.timestamp or "") for event in found)])
            if last:
                return

    def submit(thread: int) -> None:
        for at in range(60):
            if (thread, at) in ((0, 20), (0, 40)):
                clock_us[0] += step_us if at == 20 else -step_us
            made = log.Request(parse(json.dumps([spec(at)] * 3).encode(), RULES), "key", (thread, at))
            recorder.submit("default", made)
            time.sleep(0.001)

    poller = threading.Thread(target=poll)
    poller.start()
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(submit, range(4)))
    recorder.close()
    stopping.set()
    poller.join()
    with folder.account("default") as store:
        events = [decode_doc(one.doc) for one in entries(store)]
    stored = [str(event.id) for event in events]
    times = [parse_rfc3339(event.timestamp or "") for event in events]
    assert len(stored) == 4 * 60 * 3
    assert polled == stored
    assert all(earlier < later for earlier, later in itertools.pairwise(times))


# Keys that end while requests wait.


def test_what_waits_with_a_key_that_is_revoked_is_refused_and_the_others_recorded(
    folder: DataFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing of it, neither an event nor an id, though it shares a commit; what was committed stays."""
    monkeypatch.setattr(limits, "TAIL_EVENTS_MAX", 5)
    monkeypatch.setattr(queue, "SEALING_SECONDS_MAX", 60.0)
    access = Access(folder, log.clock)
    keys = [access.create(account="default", role=Role.WRITER, by="tests") for _ in range(2)]
    (stolen, stolen_secret), (kept, kept_secret) = keys
    delivered = Delivered()
    recorder = Recorder(folder, log.clock, delivered)
    own_id = "01ARZ3NDEKTSV4RRFFQ69G5FAV"

    def submit(token: int, key: Key, secret: str, *specs: dict[str, Any]) -> None:
        def check() -> None:
            access.authenticate(secret)

        made = parse(json.dumps(specs).encode(), RULES)
        recorder.submit("default", log.Request(made, key.id, token, check))

    with folder.account("default") as store:
        submit(0, stolen, stolen_secret, spec(0))
        while 0 not in delivered.results:
            time.sleep(0.001)
        record(store, [spec(at) for at in range(9)])
        record(store, [spec()])  # it finds them, and what comes now waits
        submit(1, stolen, stolen_secret, spec(1, id=own_id), spec(2))
        submit(2, kept, kept_secret, spec(3, id=own_id))  # free, as the other one is not recorded
        submit(3, stolen, stolen_secret, spec(4))
        access.revoke(stolen.id, account="default", by="tests")
        size = store.size()
        sealing.settle(store)
        recorder.close()
        assert delivered.commits == [1, 3]
        assert isinstance(delivered.results[0], list)
        assert delivered.results[2] == [own_id]
        for token in (1, 3):
            assert isinstance(delivered.results[token], NotAuthenticated)
        assert store.size() == size + 1
        last = entries(store)[-1]
        assert decode_doc(last.doc).resourceName == "name-3"
        by = [json.loads(stored.stamp)["by"] for stored in entries(store)]
        assert by.count(stolen.id) == 1
    access.close()
