"""Threads on which accounts take turns, one piece of work each: who asks for much waits behind himself.

Where there are several threads an account has all but one of them at the most, however long its work takes.
Threads that come last leave the processors to those that record, where there are fewer than threads want, and
do not keep the interpreter's lock from them for long.
"""

import os
import sys
import threading
from collections import Counter, deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext, suppress
from typing import Any, Final, TypeVar

from auditplane.errors import Unavailable
from auditplane.http.switch_interval import short_switch_interval
from auditplane.shares import Shares

T = TypeVar("T")

_NICE: Final = 3
"""Little: one that has the interpreter's lock and no processor keeps all others waiting."""


class Turns:
    """So many threads; of what waits and is under way, an account has no more than its share."""

    def __init__(self, threads: int, name: str, works_max: int, *, come_last: bool = False) -> None:
        self._at_once_max = max(1, threads - 1)
        begin = _come_last if come_last else None
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix=name, initializer=begin)
        self._working = short_switch_interval if come_last else nullcontext()
        self._shares = Shares(works_max)
        self._mutex = threading.Lock()
        self._running: Counter[str] = Counter()
        # In the order of their turns.
        self._waiting: dict[str, deque[tuple[Future[Any], Callable[[], Any]]]] = {}

    def submit(self, account: str, work: Callable[[], T]) -> "Future[T]":
        """Has some work done in its turn; raises Unavailable when too much of the account's waits."""
        if not self._shares.take(account, 1):
            raise Unavailable("More was asked for than the server can answer; try again in a moment.")
        future: Future[T] = Future()
        with self._mutex:
            try:
                self._threads.submit(self._work)  # which waits for what is added here
            except RuntimeError:
                self._shares.give_back(account, 1)
                raise Unavailable("The server is shutting down; ask again in a moment.") from None
            self._waiting.setdefault(account, deque()).append((future, work))
        return future

    def soon(self, work: Callable[[], object]) -> None:
        """Has some short work done that nobody waits for, also when the threads have ended."""
        try:
            self._threads.submit(work)
        except RuntimeError:
            work()

    def close(self) -> None:
        """Waits until all is done."""
        self._threads.shutdown()

    def _work(self) -> None:
        """Works until nothing is left that may be begun: what was passed over before may be now."""
        while (found := self._begin()) is not None:
            account, future, work = found
            try:
                if future.set_running_or_notify_cancel():
                    try:
                        with self._working:
                            future.set_result(work())
                    except BaseException as error:  # noqa: BLE001 - whoever waits hears of it
                        future.set_exception(error)
            finally:
                # An error knows this frame: what they hold, bodies too, would wait for the collector.
                del future, work, found
                self._end(account)

    def _begin(self) -> tuple[str, "Future[Any]", Callable[[], Any]] | None:
        """The work whose turn it is; its account comes last then."""
        with self._mutex:
            free = (each for each in self._waiting if self._running[each] < self._at_once_max)
            account = next(free, None)
            if account is None:
                return None
            self._running[account] += 1
            waiting = self._waiting.pop(account)
            future, work = waiting.popleft()
            if waiting:
                self._waiting[account] = waiting
            return account, future, work

    def _end(self, account: str) -> None:
        self._shares.give_back(account, 1)
        with self._mutex:
            self._running[account] -= 1
            if not self._running[account]:
                del self._running[account]


def _come_last() -> None:
    """Linux alone has priorities of threads. Where they may not be set, none works the worse for it."""
    if sys.platform == "linux":
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)
