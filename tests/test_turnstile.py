import asyncio
import os
import sys
import threading
from contextlib import closing
from functools import partial
from threading import get_native_id

import pytest

from auditplane.http.switch_interval import SWITCH_SECONDS, SWITCH_SECONDS_SHORT
from auditplane.http.turns import Turns
from auditplane.http.turnstile import Turnstile
from loops import in_a_loop


def comers(turnstile: Turnstile, count: int) -> tuple[list[asyncio.Future[None]], list[int]]:
    """So many who want a turn, and the numbers of those who have had theirs."""
    through = list[int]()

    async def come(number: int) -> None:
        await turnstile.turn()
        through.append(number)

    return [asyncio.ensure_future(come(number)) for number in range(count)], through


async def _passes(number: int) -> None:
    for _ in range(number):
        await asyncio.sleep(0)


@in_a_loop
async def test_each_turn_of_the_loop_lets_one_through_in_the_order_of_coming() -> None:
    tasks, through = comers(Turnstile(), 50)
    seen = list[int]()
    while len(through) < len(tasks):
        await asyncio.sleep(0)
        seen.append(len(through))
    assert through == list(range(50))
    assert max(later - before for before, later in zip([0, *seen], seen, strict=False)) == 1


@in_a_loop
async def test_however_many_go_by_as_many_are_let_through() -> None:
    """A flood of those who record keeps nobody waiting for longer than one of others would."""
    turnstile = Turnstile()
    tasks, through = comers(turnstile, 100)
    await _passes(3)
    before, went_by = len(through), 0
    for count in (0, 7, 30, 0, 1, 20):
        for _ in range(count):
            turnstile.go_by()
        went_by += max(1, count)
        await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert went_by <= len(through) - before <= went_by + 2
    await asyncio.gather(*tasks)
    assert through == list(range(100))


@in_a_loop
async def test_who_comes_alone_goes_through_at_once() -> None:
    turnstile = Turnstile()
    for _ in range(3):
        with pytest.raises(StopIteration):  # it waits for nothing
            turnstile.turn().send(None)
        await _passes(2)


@in_a_loop
async def test_who_goes_away_while_he_waits_keeps_nobody_waiting() -> None:
    tasks, through = comers(Turnstile(), 20)
    await asyncio.sleep(0)
    for number in range(1, 20, 2):
        tasks[number].cancel()
    await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 10)
    assert through == list(range(0, 20, 2))


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has priorities of threads")
def test_threads_that_come_last_do_so_by_themselves() -> None:
    """Neither the others nor the thread that recording goes on in have their priority."""

    def priority() -> int:
        return os.getpriority(os.PRIO_PROCESS, get_native_id())

    with closing(Turns(1, "last", 10, come_last=True)) as last, closing(Turns(1, "first", 10)) as first:
        before = priority()
        assert last.submit("a", priority).result(10) == before + 3
        assert first.submit("a", priority).result(10) == priority() == before


def test_where_priorities_may_not_be_set_threads_work_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """As under a filter of system calls."""

    def forbidden(*_: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "setpriority", forbidden)
    with closing(Turns(1, "last", 10, come_last=True)) as last:
        assert [last.submit("a", lambda: 1).result(10) for _ in range(3)] == [1, 1, 1]


def test_turns_at_the_lock_are_short_as_long_as_any_thread_that_comes_last_works() -> None:
    before, release = sys.getswitchinterval(), threading.Event()
    with (
        closing(Turns(2, "last", 10, come_last=True)) as last,
        closing(Turns(1, "more", 10, come_last=True)) as more,
    ):
        assert last.submit("a", sys.getswitchinterval).result(10) == pytest.approx(SWITCH_SECONDS_SHORT)
        long = last.submit("a", partial(release.wait, 10))
        assert more.submit("b", sys.getswitchinterval).result(10) == pytest.approx(SWITCH_SECONDS_SHORT)
        with pytest.raises(ZeroDivisionError):
            more.submit("b", lambda: 1 / 0).result(10)
        assert sys.getswitchinterval() == pytest.approx(SWITCH_SECONDS_SHORT)
        release.set()
        long.result(10)
    assert sys.getswitchinterval() == pytest.approx(SWITCH_SECONDS)
    sys.setswitchinterval(before)


@in_a_loop
async def test_turns_at_the_lock_are_short_as_long_as_anybody_waits_for_his_turn() -> None:
    before, turnstile = sys.getswitchinterval(), Turnstile()
    tasks = [asyncio.ensure_future(turnstile.turn()) for _ in range(20)]
    await asyncio.sleep(0)
    tasks[-1].cancel()
    seen = set[float]()
    while not all(task.done() for task in tasks[:-2]):
        seen.add(round(sys.getswitchinterval(), 6))
        await asyncio.sleep(0)
    await asyncio.gather(*tasks, return_exceptions=True)
    assert seen == {SWITCH_SECONDS_SHORT}
    assert sys.getswitchinterval() == pytest.approx(SWITCH_SECONDS)
    sys.setswitchinterval(before)
