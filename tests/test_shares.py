import gc
import random
import threading
import weakref
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest

from auditplane.errors import TooManyRequests, Unavailable
from auditplane.http import rates
from auditplane.http.rates import Rates
from auditplane.http.turns import Turns
from auditplane.shares import Shares

# Shares.


def test_no_account_takes_all_of_it() -> None:
    """One alone has up to half, two up to a third each, and the next one always finds some."""
    shares = Shares(1_200)
    for number in range(8):
        while shares.take(f"a{number}", 1):
            pass
        free = 1_200 - shares.total
        assert free >= 1_200 // 2 ** (number + 1)
        assert not shares.take(f"a{number}", 1)
    assert shares.take("next", 1)


def test_shares_are_those_of_a_naive_model() -> None:
    """Whatever is taken and given back, nobody holds more than was free, and all of it comes back."""
    chosen = random.Random(1)
    shares, held = Shares(100), Counter[str]()
    for _ in range(5_000):
        account, amount = f"a{chosen.randrange(5)}", chosen.randrange(30)
        if chosen.random() < 0.5:
            may = not amount or held[account] + amount <= 100 - held.total()
            assert shares.take(account, amount) == may
            held[account] += amount * may
        elif amount and held[account] >= amount:
            shares.give_back(account, amount)
            held[account] -= amount
        assert shares.total == held.total() <= 100
    assert shares.take("a0", 0), "who takes nothing more is never refused"


# Turns.


def test_who_asks_for_much_waits_behind_himself() -> None:
    """With a thousand works of one waiting, that of another is the next but one."""
    turns, done, go = Turns(1, "test", 10_000), [], threading.Event()
    turns.submit("greedy", go.wait)
    works = [turns.submit("greedy", lambda: done.append("greedy")) for _ in range(1_000)]
    modest = turns.submit("modest", lambda: done.append("modest"))
    go.set()
    modest.result(10)
    for work in works:
        work.result(10)
    turns.close()
    assert done.index("modest") <= 1
    assert len(done) == 1_001


def test_no_account_has_all_threads() -> None:
    """However long its work takes and however much of it waits; all of it is done when it can be."""
    turns, go, done = Turns(3, "test", 100), threading.Event(), []
    slow = [turns.submit("slow", go.wait) for _ in range(10)]
    for _ in range(5):
        turns.submit("quick", lambda: done.append("quick")).result(10)
    assert not any(work.done() for work in slow)
    go.set()
    turns.close()
    assert len(done) == 5
    assert all(work.result(0) for work in slow)


def test_what_waits_is_bounded_and_each_result_reaches_who_waits_for_it() -> None:
    turns, go = Turns(1, "test", 10), threading.Event()
    first = [turns.submit("a", go.wait) for _ in range(5)]
    with pytest.raises(Unavailable):
        turns.submit("a", go.wait)
    other = turns.submit("b", lambda: 1 / 0)
    go.set()
    with pytest.raises(ZeroDivisionError):
        other.result(10)
    assert all(work.result(10) for work in first)
    assert turns.submit("a", lambda: 7).result(10) == 7
    turns.close()
    with pytest.raises(Unavailable):
        turns.submit("a", go.wait)


def test_what_failed_keeps_nothing() -> None:
    """The memory of bodies that can't be read is free at once, not when it is collected."""

    class Held:
        pass

    gone: list[weakref.ref[Held]] = []

    def fail() -> None:
        held = Held()
        gone.append(weakref.ref(held))
        raise ValueError

    turns = Turns(1, "test", 10)
    gc.disable()
    try:
        with suppress(ValueError):
            turns.submit("a", fail).result(10)
        turns.close()
        assert gone[0]() is None
    finally:
        gc.enable()


# Rates.


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that stands still but for what is added to its one number."""
    now = [1_000.0]
    monkeypatch.setattr("auditplane.http.rates.time.monotonic", lambda: now[0])
    return now


def allowed(of: Rates, key: str, per_minute: int, tries: int) -> int:
    """How many of some requests at once are allowed."""
    count = 0
    for _ in range(tries):
        try:
            of.take("requests a minute", key, per_minute)
        except TooManyRequests:
            continue
        count += 1
    return count


def test_a_rate_is_kept_in_any_minute_by_all_workers(tmp_path: Path, clock: list[float]) -> None:
    """A minute's worth at once, then as they come; other keys and other rates are not touched."""
    rates.prepare(tmp_path)
    one, other = Rates(tmp_path), Rates(tmp_path)
    assert allowed(one, "key", 60, 50) + allowed(other, "key", 60, 50) == 60
    assert allowed(one, "another", 60, 100) == 60
    one.take("events a minute", "key", 60)
    clock[0] += 10
    assert allowed(other, "key", 60, 100) == 10
    clock[0] += 3_600
    assert allowed(one, "key", 60, 100) == 60
    assert allowed(one, "key", 0, 1_000) == 1_000, "0 is no bound"


def test_who_is_refused_is_told_when_to_come_again(tmp_path: Path, clock: list[float]) -> None:
    """Not before that moment, and then it works; a large request may go beyond the rate once."""
    rates.prepare(tmp_path)
    limited = Rates(tmp_path)
    limited.add("events a minute", "key", 10_000, 600)
    with pytest.raises(TooManyRequests, match="its 600 events a minute;") as refused:
        limited.take("events a minute", "key", 600)
    assert refused.value.retry_after_seconds == 941, "of the thousand that it stands for, all but a minute's"
    clock[0] += refused.value.retry_after_seconds - 1
    with pytest.raises(TooManyRequests):
        limited.take("events a minute", "key", 600)
    clock[0] += 1
    limited.take("events a minute", "key", 600)


def test_more_keys_than_there_are_places_lose_no_request(tmp_path: Path, clock: list[float]) -> None:
    """The file is of one size; who has no place any more is let in rather than refused."""
    rates.prepare(tmp_path)
    limited = Rates(tmp_path)
    for number in range(3 * rates.SLOTS):
        assert allowed(limited, f"key{number}", 10, 3) == 3
    full = Rates(tmp_path / "missing")
    assert allowed(full, "key", 60, 100) == 60, "where a full disk had no room for it"
