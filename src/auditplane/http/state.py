"""What the routes of one worker share."""

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import TypeVar

from starlette.requests import Request
from starlette.responses import Response

from auditplane import keeping, limits, log
from auditplane.access import Access
from auditplane.access.key import Key, Right
from auditplane.config import Config
from auditplane.errors import AuditplaneError, Forbidden, NotAuthenticated
from auditplane.event import Batch
from auditplane.http import metrics
from auditplane.http.health import Health
from auditplane.http.lines import standard_error
from auditplane.http.rates import Rates
from auditplane.http.streams import MakeSteps, Steps, StreamedAnswer, Streams
from auditplane.http.turns import Turns
from auditplane.http.turnstile import Turnstile
from auditplane.recorder import Recorder
from auditplane.signing import KeyFile, LogKey
from auditplane.store.sqlite.folder import DataFolder, may_expire

T = TypeVar("T")

API_KEY_HEADER = b"x-bindplane-api-key"
ACCOUNT_HEADER = b"x-bindplane-account-id"
GAUGE_SECONDS = 1.0
READS = "requests a minute beside those that record"
EVENTS = "events a minute"
NOBODY = ""
"""No name of an account: whoever is not signed in, and shows no key, shares with all others who don't."""
CALLER = "auditplane.key"
"""Where the scope of a request names the key that it was sent with."""


class State:
    """The open data folder, who may use it, and the threads that work on it.

    `under_way` tells how many requests are being answered.
    """

    def __init__(
        self, config: Config, clock: log.Clock, turnstile: Turnstile, under_way: Callable[[], int]
    ) -> None:
        self.config, self.clock, self.turnstile = config, clock, turnstile
        self._key_file = KeyFile(config.data, config.log_name, config.log_key)
        self.folder = DataFolder(config.data)
        self.access = Access(self.folder, clock)
        self.recorder = Recorder(self.folder, clock, self._deliver, metrics.COMMIT_SECONDS.observe)
        self.health = Health(self.folder, self.access, self.recorder)
        self._under_way = under_way
        self._readers = Turns(limits.READER_THREADS, "reader", limits.WORKS_WAITING_MAX, come_last=True)
        # Of their own: to erase takes long, and recording does not wait for readers.
        self._changers = Turns(limits.CHANGER_THREADS, "changer", limits.WORKS_WAITING_MAX)
        # By keys, not accounts: who floods with a stolen key waits behind himself, not the account's own.
        self._urgent = Turns(limits.URGENT_THREADS, "urgent", limits.URGENT_WORKS_WAITING_MAX)
        self._parsers = Turns(limits.PARSER_THREADS, "parser", limits.WORKS_WAITING_MAX, come_last=True)
        self._rates = Rates(config.data)
        self._exposing: asyncio.Task[bytes] | None = None
        self.streams = Streams(self._readers, config.stall_seconds)
        self._loop = asyncio.get_running_loop()
        self._tasks = [asyncio.create_task(self._write_last_use()), asyncio.create_task(self._measure())]
        self.rules = lru_cache(limits.ACCOUNTS_OPEN_MAX)(config.rules)

    @property
    def log_key(self) -> LogKey:
        """The key that signs now; raises StoreError when it can't be used any more."""
        return self._key_file.current()

    async def close(self) -> None:
        """Answers what waits, and closes everything."""
        for task in self._tasks:
            task.cancel()
        await asyncio.to_thread(self.recorder.close)
        await asyncio.to_thread(self._readers.close)
        await asyncio.to_thread(self._changers.close)
        await asyncio.to_thread(self._urgent.close)
        await asyncio.to_thread(self._parsers.close)
        self._rates.close()
        self.access.close()
        self.folder.close()

    def key(self, request: Request, right: Right, *, is_counted: bool = True) -> Key:
        """The key of a request, which has a right; raises NotAuthenticated, Forbidden and TooManyRequests."""
        secrets, accounts = _presented(request.scope["headers"])
        if len(secrets) > 1:
            raise NotAuthenticated(
                "The headers X-Bindplane-Api-Key and Authorization carry different keys; send one."
            )
        key = self.access.authenticate(secrets.pop() if secrets else None)
        request.scope[CALLER] = key  # who is refused from here on is logged, and counts
        if right is not Right.RECORD and is_counted:
            self.take_read(key)
        if any(account != key.account for account in accounts):
            raise Forbidden("X-Bindplane-Account-ID names another account than that of the API key.")
        key.require(right)
        return key

    def take_read(self, key: Key) -> None:
        """Counts a request to read, or to change something; raises TooManyRequests."""
        self._rates.take(READS, key.id, self.config.reads_per_minute)

    def check_events(self, key: Key) -> None:
        """Raises TooManyRequests when a key has recorded as many events as it may for now."""
        self._rates.check(EVENTS, key.id, self.config.events_per_minute)

    @contextlib.contextmanager
    def counted_events(self, key: Key, count: int) -> Iterator[None]:
        """Counts events that a key is about to record, which may go beyond its rate once.

        Those that are refused then do not count. Raises TooManyRequests as `check_events` does.
        """
        self.check_events(key)
        self._rates.add(EVENTS, key.id, count, self.config.events_per_minute)
        try:
            yield
        except AuditplaneError:
            self._rates.add(EVENTS, key.id, -count, self.config.events_per_minute)
            raise

    async def exposition(self) -> bytes:
        """All metrics; whoever asks while the files of all workers are read for them gets the same."""
        if self._exposing is None or self._exposing.done():
            gathering = asyncio.to_thread(metrics.exposition, self.folder.path)
            self._exposing = asyncio.create_task(gathering)
        return await asyncio.shield(self._exposing)

    def check(self, request: Request) -> None:
        """Raises NotAuthenticated when the key of a request has ended since: a body may take a minute."""
        secrets, _ = _presented(request.scope["headers"])
        self.access.authenticate(secrets.pop() if secrets else None)

    async def change(self, key: Key, change: Callable[[], T]) -> T:
        """Changes something of the account of a key on a thread, in its turn.

        Raises Unavailable, and NotAuthenticated when the key has ended by then.
        """
        return await asyncio.wrap_future(self._changers.submit(key.account, self._checked(key, change)))

    async def change_at_once(self, key: Key, change: Callable[[], T]) -> T:
        """The same, in the turn of the key: what protects an account waits for nothing others do to it."""
        return await asyncio.wrap_future(self._urgent.submit(key.id, self._checked(key, change)))

    def on_account(self, key: Key, work: Callable[[keeping.Account], T]) -> T:
        """What some work on the account of a key gives, which ends soon after the key has."""
        trusted = may_expire(self.folder.path, self.clock())
        check = self.access.watch(key)
        with self.folder.account(key.account) as store:
            return work(
                keeping.Account(
                    key.account, store, self.clock, key.name, key.id, check=check, may_expire=trusted
                )
            )

    def _checked(self, key: Key, change: Callable[[], T]) -> Callable[[], T]:
        def run() -> T:
            self.access.watch(key)()
            return change()

        return run

    async def parse(self, account: str, reading: Callable[[], T]) -> T:
        """Reads a large body on a thread, in the turn of an account; raises Unavailable."""
        return await asyncio.wrap_future(self._parsers.submit(account, reading))

    async def stream(
        self, key: Key, make: MakeSteps, headers: Mapping[str, str], media_type: str
    ) -> StreamedAnswer:
        """A long answer to a key, which breaks off when that ends: to read slowly keeps nobody in."""
        check = self.access.watch(key)

        def checked(step_bytes: int) -> Steps:
            with contextlib.closing(make(step_bytes)) as steps:
                for parts in steps:
                    check()
                    yield parts

        return await self.streams.start(key.account, checked, headers, media_type)

    def whole(self, key: Key, answer: Response) -> Response:
        """An answer to a key that is made already; a large one breaks off when the key ends, too.

        Raises Unavailable when its account has too much of those under way.
        """
        return self.streams.whole(key.account, answer, self.access.watch(key))

    async def record(
        self, account: str, batch: Batch, by: str, check: Callable[[], None] = lambda: None
    ) -> Sequence[str]:
        """Records a batch; returns the ids once they are on disk.

        It may wait for others: what `check` raises, on a thread, when its turn comes refuses it.
        """
        future: asyncio.Future[log.Result] = self._loop.create_future()
        self.recorder.submit(account, log.Request(batch, by, future, check))
        result = await future
        if isinstance(result, Exception):
            raise result
        return result

    def _deliver(self, results: Sequence[tuple[log.Request, log.Result]]) -> None:
        self._loop.call_soon_threadsafe(_set_all, results)

    async def _write_last_use(self) -> None:
        while True:
            await asyncio.sleep(limits.KEY_LAST_USE_WRITE_SECONDS)
            with contextlib.suppress(Exception):
                await asyncio.to_thread(self.access.write_last_use)

    async def _measure(self) -> None:
        """Now and then, as each setting of a gauge writes to a file."""
        process = metrics.Process()
        metrics.WORKERS.set(1)
        metrics.WORKERS_STARTED.inc()
        left_out = 0
        while True:
            process.measure()
            metrics.REQUESTS_UNDER_WAY.set(self._under_way())
            metrics.EVENTS_WAITING.set(self.recorder.events_waiting)
            metrics.STREAMS.set(len(self.streams))
            before, left_out = left_out, standard_error().left_out_total
            metrics.LINES_LEFT_OUT.inc(left_out - before)
            await asyncio.sleep(GAUGE_SECONDS)


def _set_all(results: Sequence[tuple[log.Request, log.Result]]) -> None:
    for request, result in results:
        if not request.token.done():  # the caller may be gone
            request.token.set_result(result)


def _presented(headers: Iterable[tuple[bytes, bytes]]) -> tuple[set[str], set[str]]:
    """The keys and the accounts that the headers of a request name, however often."""
    secrets: set[str] = set()
    accounts: set[str] = set()
    for name, value in headers:
        if name == API_KEY_HEADER:
            secrets.add(value.decode("latin-1"))
        elif name == ACCOUNT_HEADER:
            accounts.add(value.decode("latin-1"))
        elif name == b"authorization":
            scheme, _, token = value.decode("latin-1").partition(" ")
            if scheme.lower() == "bearer":
                secrets.add(token.strip())
    secrets.discard("")
    accounts.discard("")
    return secrets, accounts
