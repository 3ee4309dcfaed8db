"""What expired or was erased is nowhere in the folder; what is left, and every proof, is as it was."""

import json
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from auditplane import keeping, limits, log, merkle
from auditplane.errors import Conflict, Gone, InvalidInput, NotFound
from auditplane.event import decode_doc
from auditplane.query import Order, Query
from auditplane.store import Hold, Stored
from auditplane.store.sqlite import forgetting, sealing
from auditplane.store.sqlite.account import AccountStore
from auditplane.store.sqlite.database import fetch
from auditplane.store.sqlite.recorded import Recorded
from auditplane.store.sqlite.terms import Terms
from auditplane.store.sqlite.tree import Tree
from auditplane.times import DAY_US, SECOND_US, format_us, parse_rfc3339
from engine_model import START_US, memory_folder, opened, record, shrink, spec, unpacked_part

ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"


@pytest.fixture
def store() -> Iterator[AccountStore]:
    with memory_folder() as folder, opened(folder / "default.db") as opened_store:
        yield opened_store


def account(store: AccountStore, now: int = START_US) -> keeping.Account:
    return keeping.Account("default", store, lambda: now, "eve")


def purge(store: AccountStore, now: int) -> int:
    """All of what has expired; returns how many steps it took."""
    steps = 0
    while keeping.purge(account(store, now), may_begin=True):
        steps += 1
    return steps


def events(store: AccountStore) -> list[Stored]:
    return [stored for step in Recorded(store, Query(), 0, store.size()) for stored in step]


def root(store: AccountStore, size: int) -> bytes:
    with store.snapshot() as connection:
        return merkle.root(size, Tree(store, connection).nodes(size))


# Nowhere in the folder.


def holding(folder: Path, text: bytes) -> list[str]:
    """The files that hold a text, as it is or in a zstd frame, wherever that begins."""
    found = []
    for path in folder.rglob("*"):
        data = path.read_bytes() if path.is_file() else b""
        if text in data or any(text in frame for frame in frames(data)):
            found.append(path.name)
    return found


def frames(data: bytes) -> Iterator[bytes]:
    """What can be unpacked, from every place where a frame may begin; cut-off ones as far as they go."""
    at = data.find(ZSTD_MAGIC)
    while at >= 0:
        yield unpacked_part(data[at : at + 2**20])
        at = data.find(ZSTD_MAGIC, at + 1)


def secret(number: int) -> str:
    return f"hush{number:06d}quiet"


def secretive(number: int) -> dict[str, object]:
    """An event with a text of its own in every member that may have one."""
    text = secret(number)
    return spec(
        number,
        resourceName=f"name {text}",
        user=f"{text}@example.com",
        configuration=f"{text}:1",
        description=f"about {text}, " + "and more " * (number % 40),
        details={"before": text, "after": [text] * (number % 5)},
    )


@pytest.mark.parametrize("seed", range(12))
def test_an_erased_text_is_nowhere_in_the_folder(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever became of an event before: sealed, compacted, repacked, or still in the tail."""
    draw = random.Random(seed)
    shrink(monkeypatch, SEAL_EVENTS=draw.choice([20, 200]), TAIL_KEPT_EVENTS=draw.choice([0, 50]), RUNS_MAX=2)
    with memory_folder() as folder:
        path = folder / "default.db"
        ids: list[str] = []
        with opened(path) as store:
            for _ in range(12):
                specs = [secretive(len(ids) + at) for at in range(draw.choice([1, 7, 80, 300]))]
                if draw.random() < 0.4:  # late ones, which overlap what is there
                    for each in specs:
                        us = START_US - draw.randrange(10**9)
                        each["timestamp"] = f"2026-02-25T0{us % 6}:13:20.{us % 10**6:06d}Z"
                ids += record(store, specs, START_US + len(ids))
                for step in draw.sample([sealing.seal, sealing.compact, sealing.repack, sealing.tend], 2):
                    step(store)
            if draw.random() < 0.3:
                sealing.settle(store)
            before = {event.index: event for event in events(store)}
            chosen = draw.sample(range(len(ids)), 12)
            assert all(holding(folder, secret(number).encode()) for number in chosen)
            kept_root = root(store, store.size())
            size = store.size()

            erased = {log.stored(store, ids[number]).index for number in chosen}
            keeping.erase(account(store), [ids[number] for number in chosen[:6]], reason="asked for")
            for number in chosen[6:]:
                keeping.erase_user(account(store), f"{secret(number)}@EXAMPLE.com", reason="asked for")

            for number in chosen:
                assert holding(folder, secret(number).encode()) == []
            left = {event.index: event for event in events(store) if event.index < size}
            assert left == {index: event for index, event in before.items() if index not in erased}
            assert root(store, size) == kept_root
        for number in chosen:
            assert holding(folder, secret(number).encode()) == []


def test_the_terms_of_what_was_erased_are_gone(store: AccountStore) -> None:
    """Neither the keyed hash of a value nor that of a word is left, when no other event has it."""
    store.terms = Terms(bytes(32))  # the same in each run, as short ones could be there by chance
    ids = record(store, [secretive(at) for at in range(500)])
    sealing.settle(store)
    event = decode_doc(log.get(store, ids[7]))
    tokens = set(store.terms.of_event(event).split())
    words = set(store.terms.of_words(secret(7)).split())
    shared = store.terms.of_event(decode_doc(log.get(store, ids[8]))).split()
    own = tokens - set(shared)
    assert own == stored_tokens(store, "term", own)
    assert words == stored_tokens(store, "word", words)
    keeping.erase(account(store), [ids[7]], reason="asked for")
    assert not stored_tokens(store, "term", own)
    assert not stored_tokens(store, "word", words)


def stored_tokens(store: AccountStore, table: str, tokens: set[str]) -> set[str]:
    """Those of which the pages of an index hold the end, deleted or not: a beginning may be left out."""
    with store.snapshot() as connection:
        pages = b"".join(row[0] for row in fetch(connection, f"SELECT block FROM {table}_data"))  # noqa: S608 - ours
    return {token for token in tokens if token[3:].encode() in pages}


def test_a_purged_text_is_nowhere_in_the_folder() -> None:
    """Once upkeep has come by."""
    with memory_folder() as folder, opened(folder / "default.db") as store:
        record(store, [secretive(at) for at in range(3_000)])
        sealing.settle(store)
        record(store, [secretive(at) for at in range(3_000, 3_100)])
        record(store, [secretive(at) for at in range(3_100, 3_200)], START_US + 20 * DAY_US)
        now = START_US + 21 * DAY_US
        keeping.set_retention(account(store, now), 10)
        assert holding(folder, b"hush")
        purge(store, now)
        sealing.tend(store)
        for number in (0, 1, 1_500, 2_999, 3_000, 3_099):
            assert holding(folder, secret(number).encode()) == []
        assert holding(folder, secret(3_100).encode())


# Retention.


def test_expired_events_are_hidden_at_once_and_destroyed_later(store: AccountStore) -> None:
    old = record(store, [spec(at) for at in range(300)])
    sealing.settle(store)
    old += record(store, [spec(at) for at in range(300, 320)], START_US + SECOND_US)
    new = record(store, [spec(at) for at in range(320, 400)], START_US + 5 * DAY_US)
    size, before = store.size(), root(store, store.size())
    now = START_US + 7 * DAY_US
    keeping.set_retention(account(store, now), 3)

    def check(told: int) -> None:
        assert log.count(store, Query()) == len(new) + told
        assert log.count(store, Query(users=("ann@example.com",))) == len(new)
        assert log.count(store, Query(words=(("source",),))) == len(new)
        for order in Order:
            docs, _, _ = log.page(store, Query(order=order, users=("ann@example.com",)), 1_000)
            assert len(docs) == len(new)
        for event_id in (old[0], old[-1]):
            with pytest.raises(Gone, match="has expired"):
                log.get(store, event_id)
        assert decode_doc(log.get(store, new[0])).id == new[0]

    check(told=1)
    assert purge(store, now) > 3
    check(told=2)
    told = json.loads(events(store)[-1].doc)
    assert (told["resourceKind"], told["action"], told["user"]) == ("AuditTrail", "Deleted", "auditplane")
    assert told["details"]["count"] == len(old)
    assert told["details"]["purgedBefore"] == len(old)
    assert told["details"]["oldest"] == "2026-02-25T06:13:20.000000Z"
    assert told["details"]["newest"] == "2026-02-25T06:13:21.000019Z"
    assert told["details"]["size"] == size + 1
    assert root(store, size) == before
    assert purge(store, now) == 0


def test_imported_history_counts_from_its_commit(store: AccountStore) -> None:
    record(store, [spec(timestamp="1999-01-01T00:00:00Z")])
    keeping.set_retention(account(store, START_US + DAY_US), 2)
    assert log.count(store, Query(min_us=0, max_us=10**15)) == 1
    keeping.expire(account(store, START_US + 2 * DAY_US + 1), 0)
    assert log.count(store, Query(min_us=0, max_us=10**15)) == 0


def test_expire_tells_when_the_next_event_will(store: AccountStore) -> None:
    record(store, [spec()])
    record(store, [spec()], START_US + 5)
    assert keeping.expire(account(store, START_US + DAY_US), 1) == START_US + DAY_US
    assert keeping.expire(account(store, START_US + DAY_US + 1), 1) == START_US + DAY_US + 5
    assert keeping.expire(account(store, START_US + 2 * DAY_US), 1) is None
    assert keeping.expire(account(store, START_US + 2 * DAY_US), 0) is None


def test_the_own_retention_goes_before_the_default(store: AccountStore) -> None:
    record(store, [spec()])
    now = START_US + 50 * DAY_US
    keeping.set_retention(account(store), 0)
    assert keeping.expire(account(store, now), 10) is None
    assert log.count(store, Query(kinds=("Source",))) == 1
    keeping.set_retention(account(store), None)
    keeping.expire(account(store, now), 10)
    assert log.count(store, Query(kinds=("Source",))) == 0


def test_a_log_left_alone_does_not_tell_of_purges_for_ever(store: AccountStore) -> None:
    record(store, [spec(at) for at in range(10)])
    keeping.set_retention(account(store), 1)
    now = START_US
    sizes = []
    for _ in range(6):
        now += 2 * DAY_US
        keeping.expire(account(store, now), 0)
        purge(store, now)
        sizes.append(store.size())
    assert sizes == [12] * 6
    assert [json.loads(event.doc)["action"] for event in events(store)] == ["Deleted"]


def test_the_keys_of_what_is_gone_lead_to_nothing_else(store: AccountStore) -> None:
    """History that is imported again, when it has expired, takes the same keys."""
    given = [spec(at, timestamp=f"2020-01-01T00:00:{at:02d}Z") for at in range(40)]
    record(store, given)
    sealing.settle(store)
    now = START_US + 10 * DAY_US
    keeping.set_retention(account(store, now), 1)
    forgetting.begin_purge(store, "01J00000000000000000000000")
    for _ in range(20):  # at each step of a purge
        again = record(store, given[:2], now)
        docs, _, _ = log.page(store, Query(order=Order.RECORDED), 1_000)
        assert len(set(docs)) == len(docs)
        assert log.get(store, again[0]) in docs
        forgetting.go_on(store)
    going = forgetting.purge_under_way(store)
    assert going
    assert going.is_done
    assert going.destroyed == 40


def test_a_bad_retention_is_refused(store: AccountStore) -> None:
    for days in (-1, limits.RETENTION_DAYS_MAX + 1):
        with pytest.raises(InvalidInput, match="retention"):
            keeping.set_retention(account(store), days)


CRASHING = """
import sys, time
from pathlib import Path
from auditplane import keeping
from auditplane.store.sqlite.account import AccountStore
store = AccountStore(Path(sys.argv[1]))
while keeping.purge(keeping.Account("default", store, lambda: int(sys.argv[2])), may_begin=True):
    print("step", flush=True)
    time.sleep(0.002)
"""


def test_a_purge_goes_on_after_a_crash_and_is_told_of_once(tmp_path: Path) -> None:
    path = tmp_path / "default.db"
    now = START_US + 10 * DAY_US
    with opened(path) as store:
        for _ in range(3):
            record(store, [spec(at, id=f"01ARZ3NDEKTSV4RR{_}FQ69G{at:04d}") for at in range(9_000)])
        sealing.settle(store)
        record(store, [spec(at) for at in range(1_000)])
        keeping.set_retention(account(store, now), 1)
    draw = random.Random(5)
    steps = 0
    for _ in range(40):
        process = subprocess.Popen(
            [sys.executable, "-c", CRASHING, path, str(now)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout
        wanted = draw.randint(1, 5)
        came = [line for line, _ in zip(process.stdout, range(wanted), strict=False)]
        process.send_signal(signal.SIGKILL)
        process.communicate()
        steps += len(came)
        if len(came) < wanted:
            break
    with opened(path) as store:
        purge(store, now)
        assert purge(store, now) == 0
        left = events(store)
        assert [json.loads(event.doc)["action"] for event in left] == ["Updated", "Deleted"]
        assert json.loads(left[1].doc)["details"]["count"] == 28_000
        with store.snapshot() as connection:
            left_rows = {"tail": 2, "block": 0, "frame": 0, "given": 1, "purge": 0}
            for table, rows in left_rows.items():
                assert fetch(connection, f"SELECT count(*) FROM {table}") == [(rows,)]  # noqa: S608 - ours
    assert steps > 5


# Holds.


def test_a_hold_keeps_what_it_covers_and_no_more(store: AccountStore) -> None:
    record(store, [spec(at, user=user) for at in range(50) for user in ("ann", "bob", "Zoë")])
    sealing.settle(store)
    later = START_US + 2 * DAY_US
    hold = keeping.place_hold(account(store, later), reason="case 7", user="ZOË", min_us=None, max_us=None)
    keeping.set_retention(account(store, later), 1)
    purge(store, later)
    assert log.count(store, Query(users=("zoë",))) == 50
    assert log.count(store, Query(users=("ann",))) == 0
    assert forgetting.holds(store) == [hold]
    keeping.lift_hold(account(store, later), hold.id)
    assert log.count(store, Query(users=("zoë",))) == 0
    purge(store, later)
    with pytest.raises(NotFound, match="no hold"):
        keeping.lift_hold(account(store, later), hold.id)
    told = [json.loads(event.doc) for event in events(store)]
    assert [event["action"] for event in told] == ["Created", "Updated", "Deleted", "Updated", "Deleted"]
    assert told[0]["details"] == {"hold": hold.id, "reason": "case 7", "user": "ZOË"}


@pytest.mark.parametrize("sealed", [False, True])
def test_an_id_stands_for_one_event_also_after_that_expired(store: AccountStore, sealed: bool) -> None:
    """As long as it is hidden, a hold may show it again: the id is not free before it is destroyed."""
    own_id = "01ARZ3NDEKTSV4RRFFQ69G5FAV"
    later = START_US + 2 * DAY_US
    given = spec(0, id=own_id, user="zoë")
    record(store, [given])
    if sealed:
        sealing.settle(store)
    keeping.set_retention(account(store, later), 1)
    size = store.size()
    assert log.count(store, Query(users=("zoë",))) == 0
    assert record(store, [given], later) == [own_id]
    with pytest.raises(Conflict, match="recorded before with other content"):
        record(store, [{**given, "description": "another"}], later)
    assert store.size() == size
    keeping.place_hold(account(store, later), reason="case 7", user="zoë", min_us=None, max_us=None)
    assert log.count(store, Query(users=("zoë",))) == 1
    assert decode_doc(log.get(store, own_id)).user == "zoë"


def test_a_hold_on_the_account_keeps_everything(store: AccountStore) -> None:
    record(store, [spec(at) for at in range(50)])
    keeping.place_hold(account(store), reason="case 7", user=None, min_us=None, max_us=None)
    keeping.set_retention(account(store, START_US + 9 * DAY_US), 1)
    purge(store, START_US + 9 * DAY_US)
    assert log.count(store, Query()) == 52


def test_a_lifted_hold_where_nothing_expired_leaves_no_trace(store: AccountStore) -> None:
    record(store, [spec(0)])
    hold = keeping.place_hold(account(store), reason="case 1", user=None, min_us=None, max_us=None)
    keeping.lift_hold(account(store), hold.id)
    with pytest.raises(NotFound):
        log.get(store, "01ARZ3NDEKTSV4RRFFQ69G5FAV")


def test_holds_are_bounded(store: AccountStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "HOLDS_MAX", 2)
    first, _ = (hold_all(store) for _ in range(2))
    with pytest.raises(Conflict, match="2 holds are in force"):
        hold_all(store)
    keeping.lift_hold(account(store), first.id)
    hold_all(store)


def hold_all(store: AccountStore) -> Hold:
    return keeping.place_hold(account(store), reason="case 1", user=None, min_us=None, max_us=None)


def test_thousands_of_holds_cost_no_more_than_a_few(
    store: AccountStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "HOLDS_MAX", 3_000)
    with store.transaction() as transaction:
        for number in range(3_000):
            hold = Hold(f"{number:026}", START_US, "eve", "case 1", f"user-{number}", None, None)
            forgetting.add_hold(transaction, hold)
    record(store, [spec(number, user=f"User-{number}") for number in range(2_990, 3_000)])
    record(store, [spec(number, user="bob") for number in range(3_000)])
    keeping.set_retention(account(store, START_US + 2 * DAY_US), 1)
    began = time.process_time()
    kept = events(store)
    assert time.process_time() - began < 0.25
    assert [decode_doc(event.doc).user for event in kept[:-1]] == [f"User-{n}" for n in range(2_990, 3_000)]


def test_what_is_on_hold_is_not_erased(store: AccountStore) -> None:
    ids = record(store, [spec(at, user=f"user-{at % 2}") for at in range(10)])
    keeping.place_hold(account(store), reason="case 7", user=None, min_us=START_US, max_us=START_US)
    before = events(store)
    with pytest.raises(Conflict, match="on hold"):
        keeping.erase(account(store), ids, reason="asked for")
    with pytest.raises(Conflict, match="on hold"):
        keeping.erase_user(account(store), "user-0", reason="asked for")
    assert events(store) == before
    assert keeping.erase_user(account(store), "user-1", reason="asked for") == 5


@pytest.mark.parametrize("reason", ["", "  ", "two\nlines", "x" * (limits.REASON_CHARS_MAX + 1)])
def test_a_reason_is_one_line(store: AccountStore, reason: str) -> None:
    (event_id,) = record(store, [spec()])
    with pytest.raises(InvalidInput, match="reason"):
        keeping.erase(account(store), [event_id], reason=reason)
    with pytest.raises(InvalidInput, match="reason"):
        keeping.place_hold(account(store), reason=reason, user=None, min_us=None, max_us=None)
    assert store.size() == 1


# Erasure.


def test_an_erased_event_is_told_of_and_its_id_is_taken(store: AccountStore) -> None:
    foreign = "01ARZ3NDEKTSV4RRFFQ69G5FAV"
    own, given = record(store, [spec(1), spec(2, id=foreign)])
    doc = json.loads(log.get(store, own))
    assert keeping.erase(account(store), [own.lower(), given, own], reason="asked for") == 2
    for event_id in (own, given):
        with pytest.raises(Gone, match=r"was erased at 2026-02-25T06:13:20\.000000Z: asked for"):
            log.get(store, event_id)
        with pytest.raises(Gone):
            keeping.erase(account(store), [event_id], reason="again")
    for again in (doc, spec(2, id=foreign)):
        with pytest.raises(Conflict, match="was erased"):
            record(store, [again])
    (told,) = [json.loads(event.doc) for event in events(store)]
    assert told["details"] == {"erased": [0, 1], "reason": "asked for"}
    assert told["user"] == "eve"
    assert own not in json.dumps(told)


def test_nothing_is_erased_when_one_id_is_wrong(store: AccountStore) -> None:
    ids = record(store, [spec(at) for at in range(3)])
    with pytest.raises(NotFound):
        keeping.erase(account(store), [*ids, "01ARZ3NDEKTSV4RRFFQ69G5FAV"], reason="asked for")
    assert len(events(store)) == 3


def test_what_tells_of_erasures_is_not_erased(store: AccountStore) -> None:
    ids = record(store, [spec(at) for at in range(3)])
    keeping.erase(account(store), ids[:1], reason="asked for")
    told = decode_doc(events(store)[-1].doc)
    with pytest.raises(Conflict, match="the server's own"):
        keeping.erase(account(store), [told.id or ""], reason="asked for")
    with pytest.raises(Conflict, match="the server's own"):
        keeping.erase_user(account(store), "eve", reason="asked for")


def test_a_user_of_many_blocks_is_erased_in_several_commits(store: AccountStore) -> None:
    for _ in range(6):
        record(store, [spec(at, user=f"user-{at % 50}") for at in range(1_000)])
    sealing.settle(store)
    size = store.size()
    assert keeping.erase_user(account(store), "user-7", reason="asked for") == 120
    told = [json.loads(event.doc)["details"]["erased"] for event in events(store) if event.index >= size]
    assert len(told) > 1
    assert sorted(index for part in told for index in part) == [
        index for index in range(size) if index % 50 == 7
    ]
    assert log.count(store, Query()) == size - 120 + len(told)


def test_what_had_expired_of_an_erased_user_never_comes_back(store: AccountStore) -> None:
    now = START_US + 2 * DAY_US
    record(store, [secretive(1)])
    record(store, [secretive(1)], now)
    keeping.set_retention(account(store, now), 1)
    user = f"{secret(1)}@example.com"
    assert keeping.erase_user(account(store, now), user, reason="asked for") == 1
    keeping.place_hold(account(store, now), reason="case 1", user=None, min_us=None, max_us=None)
    assert user not in [decode_doc(event.doc).user for event in events(store)]
    assert not holding(store.path.parent, secret(1).encode())


def test_an_erasure_that_a_hold_stops_says_that_a_part_is_gone(
    store: AccountStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = record(store, [spec(number) for number in range(600)])
    erase = forgetting.erase

    def erase_and_hold(*given: Any) -> Any:
        erased = erase(*given)
        forgetting.add_hold(given[1], Hold("1", START_US, "eve", "case 1", None, None, None))
        return erased

    monkeypatch.setattr(forgetting, "erase", erase_and_hold)
    with pytest.raises(Conflict, match="is on hold, so only a part was erased"):
        keeping.erase(account(store), ids, reason="asked for")


def test_an_erasure_across_overlapping_blocks_takes_few_commits(
    store: AccountStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Late events: neighbours in time stand in the blocks of all runs."""
    shrink(monkeypatch, SEAL_EVENTS=200, TAIL_KEPT_EVENTS=0)
    for batch in range(6):
        times = [format_us(START_US - 6_000 + number * 6 + batch) for number in range(200)]
        record(store, [spec(at, user=f"user-{at % 2}", timestamp=us) for at, us in enumerate(times)])
        sealing.seal(store)
    size = store.size()
    assert keeping.erase_user(account(store), "user-1", reason="asked for") == 600
    assert store.size() - size <= 6


def test_a_reader_that_keeps_the_log_from_being_emptied_is_waited_for(
    store: AccountStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    (event_id,) = record(store, [secretive(1)])
    monkeypatch.setattr(keeping, "EMPTY_SECONDS_MAX", 0.3)
    with store.snapshot() as connection:
        fetch(connection, "SELECT size FROM log")
        with pytest.raises(Exception, match="keeps the write-ahead log"):
            keeping.erase(account(store), [event_id], reason="asked for")
    assert holding(store.path.parent, secret(1).encode())
    sealing.tend(store)
    assert not holding(store.path.parent, secret(1).encode())
    assert store.wal_bytes < 100_000


def test_what_is_erased_while_another_empties_the_log_is_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other must not note that nothing is due after it was due again."""
    with opened(tmp_path / "default.db") as store, opened(tmp_path / "default.db") as keeper:
        monkeypatch.setattr(store, "empty_wal", lambda: True)  # done at the end
        keeping.erase(account(store), record(store, [spec(0)]), reason="asked for")
        erasing: list[threading.Thread] = []

        def erase() -> None:
            keeping.erase(account(store), record(store, [secretive(1)]), reason="asked for")

        def emptied(asked: AccountStore) -> int:
            found = asked.path.with_name("default.db-wal").stat().st_size
            if asked is keeper and not erasing:
                erasing.append(threading.Thread(target=erase))
                erasing[0].start()
                erasing[0].join(0.3)
            return found

        monkeypatch.setattr(AccountStore, "wal_bytes", property(emptied))
        assert keeper.empty_wal()
        erasing[0].join()
        monkeypatch.undo()
        assert store.empty_wal()
        assert not holding(tmp_path, secret(1).encode())


def test_blocks_of_an_erasure_that_failed_are_not_remembered(tmp_path: Path) -> None:
    """Their ids are used again: what was kept of them would hide what others seal."""
    at = "2026-02-20T00:00:00.000000Z"
    with opened(tmp_path / "default.db") as store, opened(tmp_path / "default.db") as other:
        ids = record(store, [spec(number, timestamp=at) for number in range(3_000)])
        sealing.settle(store)
        full = parse_rfc3339(at)
        with suppress(ZeroDivisionError), store.transaction() as transaction:
            forgetting.erase(store, transaction, [log.stored(store, ids[2_040])], START_US, "asked for")
            transaction.place(full)  # it looks for room in the new blocks
            raise ZeroDivisionError
        keeping.erase(account(other), ids[2_999:], reason="asked for")
        for event_id in ids[:2_999]:
            assert log.get(store, event_id)
