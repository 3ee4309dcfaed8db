"""The queue before the logs: each account's requests wait together and share a commit.

A few threads record, one an account at a time. An answer is given only after the commit is on disk.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from math import inf
from typing import Final

from auditplane import limits, log
from auditplane.errors import AuditplaneError, StoreError, Unavailable
from auditplane.shares import Shares
from auditplane.store.sqlite.account import AccountStore
from auditplane.store.sqlite.folder import DataFolder

FAILING_SECONDS: Final = 5.0
SEALING_SECONDS_MAX: Final = 1.0
SEALING_PAUSE_SECONDS: Final = 0.01


class Recorder:
    """Records for all accounts on a few threads; accounts take turns, one commit each.

    An account of which far more was recorded than has been sealed waits for that, though not for ever, and
    holds no thread meanwhile.

    `deliver` is called on such a thread, once a commit, with each request and its result, and `observe` with
    the seconds that the commit took.
    """

    def __init__(
        self,
        folder: DataFolder,
        clock: log.Clock,
        deliver: Callable[[Sequence[tuple[log.Request, log.Result]]], None],
        observe: Callable[[float], None] = lambda _seconds: None,
    ) -> None:
        self._folder, self._clock, self._deliver, self._observe = folder, clock, deliver, observe
        self._mutex = threading.Lock()
        self._all_answered = threading.Condition(self._mutex)
        # An account is here while a commit of its is under way or to come.
        self._queues: dict[str, deque[log.Request]] = {}
        self._waiting = Shares(limits.APPEND_EVENTS_WAITING_MAX)
        self._failures: dict[str, tuple[float, str]] = {}
        # Until when an account waits for its seals.
        self._patience: dict[str, float] = {}
        self._closed = False
        self._threads = _begun(limits.WRITER_THREADS, "writer")
        self._pauses = _begun(1, "pause")

    @property
    def events_waiting(self) -> int:
        """How many events have been submitted and not yet answered."""
        return self._waiting.total

    def check(self, account: str) -> None:
        """Raises StoreError when recording to an account failed a moment ago, and has not succeeded since."""
        at, why = self._failures.get(account, (-inf, ""))
        if time.monotonic() < at + FAILING_SECONDS:
            raise StoreError(f"Recording to the account {account} failed: {why}")

    def submit(self, account: str, request: log.Request) -> None:
        """Queues a request; raises Unavailable when too much is waiting, or after `close`."""
        count = len(request.batch.events)
        with self._mutex:
            if self._closed:
                raise Unavailable("The server is shutting down; try again in a moment.")
            if not self._waiting.take(account, count):
                raise Unavailable("More events wait than the server can record; try again in a moment.")
            if account in self._queues:
                self._queues[account].append(request)
                return
            self._queues[account] = deque((request,))
        self._threads.submit(self._drain, account)

    def _drain(self, account: str) -> None:
        """Commits once what waits for an account, and takes its turn again when more came meanwhile."""
        requests, results = self._commit(account)
        if not requests:
            self._pauses.submit(self._resume, account)
            return
        self._note(account, results)
        try:
            self._deliver(list(zip(requests, results, strict=True)))
        finally:
            with self._mutex:
                self._waiting.give_back(account, sum(len(request.batch.events) for request in requests))
                again = bool(self._queues[account])
                if not again:
                    del self._queues[account]
                    self._all_answered.notify_all()
            if again:
                self._threads.submit(self._drain, account)

    def _waits_for_seals(self, account: str, store: AccountStore) -> bool:
        """Whether far more was recorded than has been sealed, and the account's patience has not ended."""
        if store.tail_events > limits.TAIL_EVENTS_MAX < store.count_tail():
            now = time.monotonic()
            if now < self._patience.setdefault(account, now + SEALING_SECONDS_MAX):
                return True
        self._patience.pop(account, None)
        return False

    def _resume(self, account: str) -> None:
        """Has an account look again, a moment later."""
        time.sleep(SEALING_PAUSE_SECONDS)
        self._threads.submit(self._drain, account)

    def _note(self, account: str, results: Sequence[log.Result]) -> None:
        """Notes whether the store failed, which is no matter of what was asked."""
        failures = [result for result in results if isinstance(result, Exception)]
        if len(failures) < len(results):
            self._failures.pop(account, None)
        for error in failures:
            if isinstance(error, StoreError) or not isinstance(error, AuditplaneError):
                # Not the error, which knows the requests.
                self._failures[account] = time.monotonic(), str(error)

    def _take(self, account: str) -> list[log.Request]:
        taken: list[log.Request] = []
        events = 0
        with self._mutex:
            waiting = self._queues[account]
            while waiting:
                events += len(waiting[0].batch.events)
                if taken and events > limits.COMMIT_EVENTS_MAX:
                    break
                taken.append(waiting.popleft())
        return taken

    def _commit(self, account: str) -> tuple[list[log.Request], list[log.Result]]:
        """Requests and what came of them; none as long as the account waits for its seals."""
        requests: list[log.Request] = []
        try:
            with self._folder.account(account) as store:
                if self._waits_for_seals(account, store):
                    return [], []
                requests = self._take(account)
                began = time.perf_counter()
                results = log.record(store, requests, self._clock)
                self._observe(time.perf_counter() - began)
                return requests, results
        except Exception as error:  # noqa: BLE001 - each request hears why
            requests = requests or self._take(account)
            return requests, [error] * len(requests)

    def close(self) -> None:
        """Waits until all that was submitted is answered."""
        with self._mutex:
            self._all_answered.wait_for(lambda: not self._queues)
            self._closed = True
        self._pauses.shutdown()
        self._threads.shutdown()


def _begun(count: int, name: str) -> ThreadPoolExecutor:
    """Threads that have all begun: what waits for one that can't be begun later would wait for ever.

    Raises RuntimeError.
    """
    threads = ThreadPoolExecutor(count, thread_name_prefix=name)
    begun = threading.Barrier(count + 1)
    try:
        for _ in range(count):
            threads.submit(begun.wait)
    except RuntimeError:
        begun.abort()
        raise
    begun.wait()
    return threads
