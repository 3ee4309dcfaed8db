"""Threads on which accounts take turns, one piece of work each: who asks for much waits behind himself."""

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from auditplane.errors import Unavailable
from auditplane.shares import Shares

T = TypeVar("T")


class Turns:
    """So many threads; of what waits and is under way, an account has no more than its share."""

    def __init__(self, threads: int, name: str, works_max: int) -> None:
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix=name)
        self._shares = Shares(works_max)
        self._mutex = threading.Lock()
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
        account, future, work = self._next()
        try:
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(work())
                except BaseException as error:  # noqa: BLE001 - whoever waits hears of it
                    future.set_exception(error)
        finally:
            # An error knows this frame: what it and the work hold, bodies too, would wait for the collector.
            del future, work
            self._shares.give_back(account, 1)

    def _next(self) -> tuple[str, "Future[Any]", Callable[[], Any]]:
        """The work whose turn it is; its account comes last then."""
        with self._mutex:
            account = next(iter(self._waiting))
            waiting = self._waiting.pop(account)
            future, work = waiting.popleft()
            if waiting:
                self._waiting[account] = waiting
            return account, future, work
