"""A clock that is ahead of what it should say destroys nothing, until it has stayed so for long."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from auditplane import keeping, limits, log
from auditplane.event import Rules, parse
from auditplane.http.expiry import ROUND_SECONDS_MIN, Expiry
from auditplane.http.trust import ClockTrust
from auditplane.query import Query
from auditplane.store.sqlite.account import AccountStore
from auditplane.store.sqlite.folder import (
    CLOCK_FILE,
    NotedClock,
    last_write_us,
    may_expire,
    note_clock,
    noted_clock,
)
from auditplane.times import DAY_US, SECOND_US, format_us
from folders import FreeFolder
from keepers import record_old, wait_for, work
from server import make_key, run, start
from tenants import EVENTS, client, event, events
from trails import made_folder

HOUR, DAY = 3_600, 86_400
TRUST = limits.CLOCK_TRUST_SECONDS
BEGAN_US = 1_700_000_000 * SECOND_US


class Times:
    """A clock that is `ahead` by some seconds, and one that nobody sets."""

    def __init__(self, ahead: float = 0.0) -> None:
        self.seconds, self.ahead = 0.0, ahead

    def monotonic(self) -> float:
        return self.seconds

    def clock(self) -> int:
        return BEGAN_US + int((self.seconds + self.ahead) * SECOND_US)


def trust(times: Times, known_us: int = BEGAN_US, waited: float | None = None) -> ClockTrust:
    return ClockTrust(times.clock, times.monotonic, NotedClock(known_us, waited))


aheads = st.sampled_from((0, 60, 2 * HOUR, 400 * DAY, 800 * DAY, -2 * HOUR, -400 * DAY))
histories = st.lists(st.tuples(st.integers(1, 30 * HOUR), aheads), max_size=30)


@given(histories)
def test_what_is_ahead_is_trusted_after_the_time_of_grace_only(history: list[tuple[int, int]]) -> None:
    """However the clock is set: what nobody trusted before must have stayed so for that long."""
    times = Times()
    looked_at = trust(times)
    assert looked_at.look() == times.clock()
    before, set_at, trusted = 0, 0.0, 60
    for passed, ahead in history:
        times.seconds += passed
        times.ahead = ahead
        if ahead - before > limits.CLOCK_STEP_SECONDS_MAX:
            set_at = times.seconds
        before = ahead
        now_us = looked_at.look()
        assert now_us in {None, times.clock()}
        assert (now_us is None) is looked_at.is_ahead
        if now_us is not None and ahead > trusted:
            assert times.seconds - set_at >= TRUST
            trusted = ahead


@given(histories, aheads, st.integers(1, HOUR))
def test_it_is_trusted_in_the_end(history: list[tuple[int, int]], ahead: int, step: int) -> None:
    """Whatever was before, a clock that nobody sets for the time of grace is trusted from then on."""
    times = Times()
    looked_at = trust(times)
    for passed, set_to in [*history, (1, ahead)]:
        times.seconds, times.ahead = times.seconds + passed, set_to
        looked_at.look()
    times.seconds += TRUST
    for _ in range(5):
        assert looked_at.look() == times.clock()
        times.seconds += step


@given(st.lists(st.tuples(st.integers(0, 30 * DAY), st.integers(-60, 60)), max_size=20))
def test_a_clock_that_is_kept_right_is_always_trusted(history: list[tuple[int, int]]) -> None:
    """A suspended machine, or one that nothing looks at for a month, is no matter."""
    times = Times()
    looked_at = trust(times)
    for passed, ahead in history:
        times.seconds, times.ahead = times.seconds + passed, ahead
        assert looked_at.look() == times.clock()


@pytest.mark.parametrize(
    ("bound", "is_start"), [(limits.CLOCK_STEP_SECONDS_MAX, False), (limits.CLOCK_OFF_SECONDS_MAX, True)]
)
def test_the_bounds_are_exact(bound: int, is_start: bool) -> None:
    """Up to the bound it is trusted, and beyond it not, for the time of grace to the second."""

    def looked_at(ahead: int) -> tuple[Times, ClockTrust]:
        times = Times(ahead if is_start else 0)
        trusting = trust(times)
        if not is_start:
            trusting.look()
            times.ahead = ahead
        return times, trusting

    times, trusting = looked_at(bound)
    assert trusting.look() == times.clock()
    times, trusting = looked_at(bound + 1)
    assert trusting.look() is None
    times.seconds += TRUST - 1
    assert trusting.look() is None
    times.seconds += 1
    assert trusting.look() == times.clock()


def test_a_restart_does_not_make_a_wrong_clock_right() -> None:
    """It goes on with what the last one knew, and with how long that one has waited."""
    times = Times(400 * DAY)
    first = trust(times)
    assert first.look() is None
    times.seconds += 20 * HOUR
    assert first.look() is None
    second = ClockTrust(times.clock, times.monotonic, first.known)
    assert second.look() is None
    times.seconds += 4 * HOUR - 1
    assert second.look() is None
    times.ahead = 0
    assert second.look() == times.clock()
    assert second.known == NotedClock(times.clock())


def test_a_machine_that_starts_in_1970_is_trusted_when_it_is_set_right() -> None:
    """Without a battery it does so each time; nothing expires then."""
    times = Times(-400 * DAY)
    looked_at = trust(times)
    assert looked_at.look() == times.clock()
    times.seconds += 60
    times.ahead = HOUR  # it was off for that long
    assert looked_at.look() == times.clock()


# What a folder knows.


def test_a_note_is_read_as_it_was_written(tmp_path: Path) -> None:
    """By it a far later clock expires nothing, nor does one that is distrusted; a damaged one is none."""
    off_us = limits.CLOCK_OFF_SECONDS_MAX * SECOND_US
    assert noted_clock(tmp_path) is None
    assert may_expire(tmp_path, BEGAN_US)
    note_clock(tmp_path, NotedClock(BEGAN_US))
    assert noted_clock(tmp_path) == NotedClock(BEGAN_US)
    assert may_expire(tmp_path, BEGAN_US + off_us)
    assert not may_expire(tmp_path, BEGAN_US + off_us + 1)
    note_clock(tmp_path, NotedClock(BEGAN_US, 61.2))
    assert noted_clock(tmp_path) == NotedClock(BEGAN_US, 61)
    assert not may_expire(tmp_path, BEGAN_US)
    for damaged in (b"", b"\xff", b"yesterday", format_us(BEGAN_US).encode() + b" x"):
        (tmp_path / CLOCK_FILE).write_bytes(damaged)
        assert noted_clock(tmp_path) is None


def test_a_folder_tells_when_it_was_last_written_to(tmp_path: Path) -> None:
    assert last_write_us(tmp_path) is None
    data = made_folder(tmp_path / "data")
    set_back(data, 60)
    os.utime(data / "accounts" / "default.db", ns=(0, BEGAN_US * 1_000))
    assert last_write_us(data) == max(BEGAN_US, int((data / "control.db").stat().st_mtime_ns // 1_000))


# Attacks on what is kept.


@pytest.fixture
def store(tmp_path: Path) -> Iterator[AccountStore]:
    """A log of ten events of the beginning, which are kept for a year."""
    folder = FreeFolder(tmp_path)
    with folder.account("a") as opened:
        batch = parse(json.dumps(events(10)).encode(), Rules(account="a"))
        log.record(opened, [log.Request(batch, "test")], lambda: BEGAN_US)
        keeping.set_retention(keeping.Account("a", opened, lambda: BEGAN_US), 365)
        yield opened
    folder.close()


def shown(store: AccountStore) -> int:
    """How many events are shown."""
    return len(log.page(store, Query(), 100)[0])


def test_a_year_ahead_for_a_minute_destroys_nothing(
    store: AccountStore, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing is hidden or destroyed, then or after; what lasts is trusted, and expiry goes on."""
    times = Times()
    expiry = Expiry(0, times.clock, NotedClock(BEGAN_US), times.monotonic)

    def pass_by(seconds: int, step: int = 1) -> tuple[int, int]:
        """The size of the log and what is shown, after a time in which the account is tended all along."""
        for _ in range(0, seconds, step):
            times.seconds += step
            for _ in range(20):
                expiry.tend("a", store)
        return store.size(), shown(store)

    before = pass_by(10)
    times.ahead = 400 * DAY
    assert pass_by(60) == before
    assert not expiry.is_due("a")
    times.ahead = 0
    expiry.look_at_clock()
    assert expiry.is_due("a")
    assert pass_by(2 * int(ROUND_SECONDS_MIN), 60) == before
    assert [record.message.partition(":")[0] for record in caplog.records] == [
        "expiry waits",
        "expiry goes on",
    ]

    times.ahead = 400 * DAY
    assert pass_by(TRUST, HOUR) == before
    times.seconds += HOUR
    expiry.look_at_clock()
    assert expiry.is_due("a")
    size, left = pass_by(60)
    assert size == before[0] + 1  # the event of the purge
    assert left < before[1]


def test_a_purge_under_way_waits_too(store: AccountStore) -> None:
    """What it had not destroyed when the clock was set ahead is there still."""
    times = Times(366 * DAY)
    expiry = Expiry(0, times.clock, NotedClock(times.clock()), times.monotonic)
    assert expiry.tend("a", store)
    size = store.size()
    times.ahead += 400 * DAY
    for _ in range(50):
        assert not expiry.tend("a", store)
    assert store.size() == size
    times.ahead -= 400 * DAY
    expiry.look_at_clock()
    assert expiry.is_due("a")
    times.seconds += 2
    while expiry.tend("a", store):
        pass
    assert store.size() == size + 1


def set_back(data: Path, days: int) -> None:
    """Has all files of a folder be as old as if no server had run for some days."""
    for file in [*data.glob("*.db*"), *data.glob("accounts/*.db*")]:
        at = file.stat().st_mtime_ns - days * DAY_US * 1_000
        os.utime(file, ns=(at, at))


def test_a_server_that_starts_far_ahead_waits(tmp_path: Path) -> None:
    """It hides nothing, nor does a request, a command or the next start; its log says why, once."""
    data = made_folder(tmp_path / "data")
    old = record_old(data, "old", 400, events(3))
    work(data, "old", lambda account: keeping.set_retention(account, 500))
    _, secret = make_key(data, "admin", "old")
    set_back(data, 60)
    env = {"AUDITPLANE_AUDIT_TRAIL_RETENTION_DAYS": "30"}
    for days in (None, 365):
        with start(data, env=env) as server, client(server.url, secret) as admin:
            assert admin.put("/v1/retention", json={"days": days}).status_code == 200
            assert admin.post(EVENTS, json=event()).status_code == 201
            ran = run("retention", "set", "--days", "300", "--account", "old", "--data", data)
            assert ran.returncode == 0
            assert all(admin.get(f"{EVENTS}/{each}").status_code == 200 for each in old)
            assert server.output.count("expiry waits: the clock is") == 1
            server.stop()
    note_clock(data, NotedClock(log.clock() - 60 * DAY_US, TRUST))
    with start(data, env=env) as server, client(server.url, secret) as admin:
        assert admin.get(f"{EVENTS}/{old[0]}").status_code == 410
        wait_for(lambda: "Purged 3 expired" in admin.get(EVENTS).text)
        assert "expiry" not in server.output
        assert may_expire(data, log.clock())
