"""Upkeep: sealing, compaction, repacking and checkpoints, alone, beside others, and broken off."""

import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from itertools import chain
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import apsw
import pytest

from auditplane import log
from auditplane.query import Order, Query
from auditplane.render import Form
from auditplane.store import Stored
from auditplane.store.sqlite import account, block, sealing
from auditplane.store.sqlite.account import AccountStore
from auditplane.store.sqlite.database import fetch, one
from auditplane.store.sqlite.statements import QUERIES
from auditplane.times import format_us
from engine_model import (
    START_US,
    Model,
    entries,
    hammer_and_tell,
    memory_folder,
    opened,
    record,
    request,
    shrink,
    spec,
    whole,
)


@pytest.fixture
def path() -> Iterator[Path]:
    with memory_folder() as folder:
        yield folder / "default.db"


@pytest.fixture
def store(path: Path) -> Iterator[AccountStore]:
    with opened(path) as store:
        yield store


def fill(store: AccountStore, model: Model, events: int = 300, seed: int = 1) -> None:
    """Events of which a third are late, sealed as they come."""
    draw = random.Random(seed)
    now = START_US
    while model.size < events:
        now += 1_000
        late = [format_us(now - draw.randint(0, 10**6)) for _ in range(3)]
        specs = [spec(at, timestamp=us) for at, us in enumerate(late)] + [spec(at) for at in range(6)]
        model.record(store, [specs], now)
        sealing.seal(store)


def check(store: AccountStore, model: Model) -> None:
    for order in Order:
        model.check_answer(store, Query(order=order), Form.NDJSON, packed=False)
    for query in (Query(words=(("name", "2"),)), Query(users=("ann@example.com",)), Query(names=("name-2",))):
        model.check_answer(store, query, Form.JSON, packed=False)
        model.check_count(store, query)
    model.check_log(store)
    model.check_store(store)


def runs(store: AccountStore) -> int:
    with store.snapshot() as connection:
        return len(fetch(connection, QUERIES["runs"]))


# What a step leaves.


@pytest.mark.parametrize("events", [1, 2, 511, 512, 513, 1_024, 1_025, 4_096])
def test_blocks_are_of_even_size(events: int) -> None:
    """As few as can be, none more than one event larger than another."""
    rows = [Stored(at, at, b'{"id":"%d"}' % at, b"{}") for at in range(events)]
    counts = [sealed.count for sealed in block.cut(rows)]
    assert sum(counts) == events
    assert len(counts) == -(-events // block.BLOCK_EVENTS)
    assert max(counts) - min(counts) <= len(counts)
    assert max(counts) <= block.BLOCK_EVENTS


def test_blocks_of_large_docs_are_smaller() -> None:
    """A block is at most BLOCK_BYTES of docs, however large they are, and no event is left out."""
    doc = b'{"id":"%s"}' % (b"x" * 60_000)
    rows = [Stored(at, at, doc if at % 3 else b'{"id":""}', b"{}") for at in range(200)]
    blocks = block.cut(rows)
    assert sum(sealed.count for sealed in blocks) == 200
    assert all(sealed.docs_bytes <= block.BLOCK_BYTES + sealed.count for sealed in blocks)
    assert len(blocks) < 20


def test_sealing_keeps_the_newest_in_the_tail(store: AccountStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """It begins when it can seal SEAL_EVENTS and keep TAIL_KEPT_EVENTS, and not before."""
    shrink(monkeypatch, SEAL_EVENTS=10, TAIL_KEPT_EVENTS=5)
    record(store, [spec(at) for at in range(14)])
    assert not sealing.seal(store)
    record(store, [spec(14)])
    assert sealing.seal(store)
    assert not sealing.seal(store)
    with store.snapshot() as connection:
        assert fetch(connection, "SELECT idx FROM tail ORDER BY idx") == [(at,) for at in range(10, 15)]
        assert fetch(connection, "SELECT count, last_index FROM block") == [(10, 9)]


def test_settling_leaves_all_sealed_and_copied(store: AccountStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """No tail, few runs, an empty write-ahead log; and then there is nothing left to do."""
    shrink(monkeypatch, SEAL_EVENTS=10, TAIL_KEPT_EVENTS=3, BLOCK_EVENTS=4, RUNS_MAX=2, MERGE_BLOCKS_MAX=3)
    model = Model()
    fill(store, model)
    sealing.settle(store)
    assert store.wal_bytes == 0
    assert runs(store) <= 2
    with store.snapshot() as connection:
        assert one(connection, "SELECT count(*) FROM tail") == 0
    assert not sealing.tend(store)
    check(store, model)


@pytest.mark.parametrize("merge_blocks_max", [1, 2, 32])
def test_compaction_comes_to_an_end(
    store: AccountStore, monkeypatch: pytest.MonkeyPatch, merge_blocks_max: int
) -> None:
    """However badly runs overlap, steps of bounded size leave RUNS_MAX of them, and each loses nothing."""
    shrink(monkeypatch, SEAL_EVENTS=8, TAIL_KEPT_EVENTS=0, BLOCK_EVENTS=8, RUNS_MAX=1)
    shrink(monkeypatch, MERGE_BLOCKS_MAX=merge_blocks_max)
    model = Model()
    now = START_US + 10**6
    for at in range(24):  # each batch is spread over all of the time: none fits into the run of another
        times = [format_us(START_US + 1_000 * place + at) for place in range(8)]
        model.record(store, [[spec(at, timestamp=us) for us in times]], now)
        sealing.seal(store)
    assert runs(store) == 24
    steps = 0
    while sealing.compact(store):
        steps += 1
        assert steps < 3_000
    assert runs(store) == 1
    check(store, model)


# Broken off.


@pytest.mark.parametrize("step", [sealing.seal, sealing.compact, sealing.repack])
def test_a_step_that_fails_leaves_all_as_it_was(
    store: AccountStore, monkeypatch: pytest.MonkeyPatch, step: Callable[[AccountStore], bool]
) -> None:
    """At whichever of its writes; and the next one does it."""
    shrink(monkeypatch, SEAL_EVENTS=10, TAIL_KEPT_EVENTS=3, BLOCK_EVENTS=4, RUNS_MAX=2, REPACK_ENTRIES=8)
    shrink(monkeypatch, TILE_ENTRIES=4)
    model = Model()
    fill(store, model, 100)
    model.record(store, [[spec(at) for at in range(13)]], START_US + 10**9)
    writes = 0
    while True:
        left = writes

        def fail_late(_cursor: apsw.Cursor, statement: str, _bindings: Any) -> bool:
            nonlocal left
            if statement.startswith(("INSERT", "DELETE", "UPDATE")):
                left -= 1
                if left < 0:  # SQLite takes back what is not committed whatever the disk does
                    raise RuntimeError("broken off")
            return True

        with store._kept() as keeper:
            keeper.exec_trace = fail_late
        try:
            assert step(store)
            break
        except RuntimeError:
            keeper.exec_trace = None
            model.check_store(store)
            writes += 1
    keeper.exec_trace = None
    assert writes > 2
    check(store, model)


@pytest.mark.parametrize("seed", range(3))
def test_a_process_that_is_killed(path: Path, seed: int) -> None:
    """Amid recording and upkeep: all that was acknowledged is there, and nothing by half."""
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=hammer_and_tell, args=(path, theirs, seed), daemon=True)
    process.start()
    theirs.close()
    acknowledged = ours.recv()
    deadline = time.monotonic() + 0.1 + 0.15 * seed
    while time.monotonic() < deadline:
        acknowledged += ours.recv() if ours.poll(0.01) else []
    os.kill(process.pid or 0, signal.SIGKILL)
    process.join()
    while True:
        try:
            acknowledged += ours.recv()
        except EOFError:
            break
    with opened(path) as store:
        found = entries(store)
        assert len(found) >= len(acknowledged)
        assert {log.get(store, event_id) for event_id in acknowledged} <= {stored.doc for stored in found}
        assert sorted(whole(store, Query()).splitlines()) == sorted(stored.doc for stored in found)
        sealing.settle(store)
        assert [stored.doc for stored in entries(store)] == [stored.doc for stored in found]


# Beside others.


def in_between(monkeypatch: pytest.MonkeyPatch, name: str, action: Callable[[], Any]) -> None:
    """Does something once, when a step has read what it needs and has not yet written."""
    original = getattr(block, name)
    waiting = [action]

    def wrapped(*args: Any) -> Any:
        if waiting:
            waiting.pop()()
        return original(*args)

    monkeypatch.setattr(block, name, wrapped)


@pytest.mark.parametrize(
    ("step", "amid"), [(sealing.seal, "cut"), (sealing.compact, "cut"), (sealing.repack, "unpack_numbers")]
)
def test_two_keepers_do_no_step_twice(
    path: Path, monkeypatch: pytest.MonkeyPatch, step: Callable[[AccountStore], bool], amid: str
) -> None:
    """One that another process was quicker with is given up."""
    shrink(monkeypatch, SEAL_EVENTS=10, TAIL_KEPT_EVENTS=3, BLOCK_EVENTS=4, RUNS_MAX=2, REPACK_ENTRIES=8)
    shrink(monkeypatch, TILE_ENTRIES=4)
    model = Model()
    with opened(path) as store, opened(path) as other:
        fill(store, model, 100)
        model.record(store, [[spec(at) for at in range(13)]], START_US + 10**9)
        in_between(monkeypatch, amid, lambda: step(other))
        assert step(store)
        check(store, model)
        sealing.settle(store)
        check(other, model)


def test_events_that_come_late_while_others_are_sealed(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They stay in the tail, between what is sealed around them."""
    shrink(monkeypatch, SEAL_EVENTS=10, TAIL_KEPT_EVENTS=3, BLOCK_EVENTS=4)
    model = Model()
    with opened(path) as store, opened(path) as other:
        model.record(store, [[spec(at) for at in range(13)]], START_US)
        late = [spec(timestamp=format_us(START_US + at)) for at in range(-1, 12)]
        in_between(monkeypatch, "cut", lambda: model.record(other, [late], START_US + 99))
        assert sealing.seal(store)
        check(store, model)


def test_all_at_once(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two keepers, two recorders and two readers in threads: nothing is wrong, lost or doubled."""
    shrink(monkeypatch, SEAL_EVENTS=40, TAIL_KEPT_EVENTS=20, BLOCK_EVENTS=16, FRAME_EVENTS=4, RUNS_MAX=2)
    shrink(monkeypatch, CHUNK_BYTES=3_000, BLOCKS_MAX=2, TAIL_ROWS_MAX=16, REPACK_ENTRIES=64, TILE_ENTRIES=16)
    monkeypatch.setattr(sealing, "WAL_BYTES_TO_COPY", 50_000)
    monkeypatch.setattr(sealing, "WAL_BYTES_MAX", 200_000)
    stop = threading.Event()
    failures: list[BaseException] = []
    ids: list[str] = []

    def until_stopped(work: Callable[[AccountStore, random.Random], None], seed: int) -> None:
        try:
            with opened(path) as store:
                draw = random.Random(seed)
                while not stop.is_set():
                    work(store, draw)
        except BaseException as error:  # noqa: BLE001 - told by the main thread
            failures.append(error)
            stop.set()

    def record_some(store: AccountStore, draw: random.Random) -> None:
        now = log.clock()
        times = [format_us(now - draw.randint(0, 10**5)) for _ in range(draw.randint(0, 5))]
        specs = [spec(at, timestamp=us) for at, us in enumerate(times)]
        (result,) = log.record(store, [request([*specs, spec(), spec()])], log.clock)
        assert not isinstance(result, Exception), result
        ids.extend(result)

    def keep(store: AccountStore, draw: random.Random) -> None:
        draw.choice([sealing.tend, sealing.tend, sealing.compact, sealing.settle])(store)

    def read(store: AccountStore, draw: random.Random) -> None:
        query = Query(order=draw.choice(list(Order)), users=draw.choice([(), ("ann@example.com",)]))
        answer = log.Answer(store, query, Form.NDJSON, packed=False)
        docs = b"".join(chain.from_iterable(answer)).splitlines()
        assert len(docs) == len(set(docs)) == answer.size
        if query.order is not Order.RECORDED:
            keys = [doc[7:33] + doc[48:75] for doc in docs]
            assert keys == sorted(keys, key=lambda key: key[26:], reverse=query.order is Order.DESC)

    work = [record_some, record_some, keep, keep, read, read]
    threads = [threading.Thread(target=until_stopped, args=(one, seed)) for seed, one in enumerate(work)]
    for thread in threads:
        thread.start()
    stop.wait(1.0)
    stop.set()
    for thread in threads:
        thread.join()
    assert not failures, failures
    with opened(path) as store:
        found = entries(store)
        assert len(found) == len(ids) == len(set(ids)) > 100
        assert sorted(whole(store, Query()).splitlines()) == sorted(stored.doc for stored in found)


# The write-ahead log.


@pytest.mark.parametrize("read_meanwhile", [False, True])
def test_the_write_ahead_log_is_bounded(
    store: AccountStore, monkeypatch: pytest.MonkeyPatch, read_meanwhile: bool
) -> None:
    """Whatever is recorded, while upkeep goes on, and without a pause in which nobody reads."""
    monkeypatch.setattr(sealing, "WAL_BYTES_TO_COPY", 200_000)
    monkeypatch.setattr(sealing, "WAL_BYTES_MAX", 1_000_000)
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            log.count(store, Query(users=("ann@example.com",)))

    reader = threading.Thread(target=read)
    if read_meanwhile:
        reader.start()
    largest = 0
    for at in range(60):
        record(store, [spec(at, description="x" * 1_000) for _ in range(100)])
        sealing.tend(store)
        largest = max(largest, store.wal_bytes)
    stop.set()
    if read_meanwhile:
        reader.join()
    assert largest < 4_000_000
    assert store.path.stat().st_size > 3_000_000


def test_a_reader_from_outside_that_stays(store: AccountStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A backup under way keeps the write-ahead log from being emptied, but holds up no recorder for long."""
    monkeypatch.setattr(sealing, "WAL_BYTES_TO_COPY", 100_000)
    monkeypatch.setattr(sealing, "WAL_BYTES_MAX", 200_000)
    record(store, [spec()])
    outside = apsw.Connection(str(store.path))
    fetch(outside, "BEGIN")
    fetch(outside, "SELECT * FROM tail")
    began = time.monotonic()
    for at in range(30):
        record(store, [spec(at, description="x" * 1_000) for _ in range(30)])
        sealing.tend(store)
    assert time.monotonic() - began < 10 * account.EMPTY_WAIT_MS / 1_000 + 3
    assert store.wal_bytes > 900_000
    fetch(outside, "COMMIT")
    outside.close()
    sealing.tend(store)
    assert store.wal_bytes == 0


def test_a_copy_that_another_process_makes(store: AccountStore) -> None:
    """Who finds another at it leaves it to that one; this is no failure of the upkeep."""
    record(store, [spec()])
    reader, other = apsw.Connection(str(store.path)), apsw.Connection(str(store.path))
    fetch(reader, "BEGIN")
    fetch(reader, "SELECT * FROM tail")
    record(store, [spec()])
    other.set_busy_timeout(500)
    fetch(other, "SELECT * FROM tail")  # before that it knows of no write-ahead log

    def copy_in_vain() -> None:
        with pytest.raises(apsw.BusyError):  # it waits for the reader, and holds what others need to copy
            other.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)

    copying = threading.Thread(target=copy_in_vain)
    copying.start()
    while copying.is_alive():
        store.checkpoint(whole=False)
        time.sleep(0.01)
    fetch(reader, "COMMIT")
    reader.close()
    other.close()
    store.checkpoint(whole=True)
    assert store.wal_bytes == 0


def test_an_answer_under_way_holds_no_snapshot(store: AccountStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between its steps the write-ahead log can be emptied, and recording goes on."""
    shrink(monkeypatch, CHUNK_BYTES=1)
    model = Model()
    model.record(store, [[spec(at) for at in range(50)]], START_US)
    for query in (
        Query(),
        Query(users=("ann@example.com",)),
        Query(order=Order.RECORDED),
        Query(words=(("name",),)),
    ):
        expected = model.docs(query)
        steps = iter(log.Answer(store, query, Form.NDJSON, packed=False))
        got = b"".join(next(steps))
        model.record(store, [[spec(at) for at in range(5)]], START_US)
        assert store.wal_bytes > 0
        store.checkpoint(whole=True)
        assert store.wal_bytes == 0
        assert (got + b"".join(chain.from_iterable(steps))).splitlines() == expected
