"""Long answers: made by a thread a step at a time, sent as fast as the reader takes them, cut off in time.

Nothing is sent before the first step has succeeded. When a later one fails, the reader takes nothing for
too long, or the server shuts down, the connection is reset, so that a short answer can't be taken for a
whole one.
"""

import asyncio
import logging
import threading
import zlib
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from typing import TypeAlias, TypeVar

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from auditplane import limits
from auditplane.errors import AuditplaneError, NotAuthenticated, Unavailable
from auditplane.http import memory
from auditplane.http.connections import Address, break_off
from auditplane.http.metrics import CUT_OFF, count_failure
from auditplane.http.turns import Turns
from auditplane.shares import Shares
from auditplane.zstd import compress

T = TypeVar("T")

Steps: TypeAlias = Generator[list[bytes], None, None]
"""What an answer is made of: a step is a list of parts, none of them large."""

_log = logging.getLogger(__name__)


class StreamStalled(Exception):
    """The reader took nothing for too long."""


class ReaderGone(Exception):
    """The reader has closed the connection."""


def gzipped(steps: Iterable[list[bytes]]) -> Steps:
    """A gzip body of some steps."""
    pack = zlib.compressobj(level=3, wbits=31)
    for parts in steps:
        packed = list(filter(None, map(pack.compress, parts)))
        parts.clear()
        yield packed
    yield [pack.flush()]


def encoded(body: bytes, encoding: str | None) -> bytes:
    """A whole body in a content encoding."""
    match encoding:
        case "zstd":
            return compress(body)
        case "gzip":
            return b"".join(chain.from_iterable(gzipped([[body]])))
    return body


MakeSteps: TypeAlias = Callable[[int], Steps]
"""Begins the steps of an answer, each of about so many bytes."""


class Stepper:
    """The steps of an answer to an account, made one at a time on whatever thread asks."""

    def __init__(self, account: str, make: MakeSteps, step_bytes: int, *, held_bytes: int = 0) -> None:
        self.account, self.held_bytes = account, held_bytes
        self._make, self._step_bytes = make, step_bytes
        self._steps: Steps | None = None
        self._closed = False
        self._mutex = threading.Lock()

    def next(self) -> list[bytes] | None:
        """The parts of the next step, or None after the last."""
        with self._mutex:
            if self._closed:
                return None
            if self._steps is None:
                self._steps = self._make(self._step_bytes)
            return next(self._steps, None)

    def close(self) -> None:
        """Drops what is left."""
        with self._mutex:
            self._closed = True
            if self._steps is not None:
                self._steps.close()


class Streams:
    """The long answers under way in this worker."""

    def __init__(self, threads: Turns, stall_seconds: float) -> None:
        self.stall_seconds = stall_seconds
        self._threads = threads
        self._shares = Shares(limits.STREAMS_MAX)
        self._pages = Shares(limits.PAGES_BYTES_MAX)
        self._tasks: dict[asyncio.Task[None], Address] = {}
        self._closing = False
        self._were_many = False

    def __len__(self) -> int:
        """How many there are, from before their first step to their end."""
        return self._shares.total

    def cut(self) -> None:
        """Breaks off all of them, and those that begin from now on."""
        self._closing = True
        break_off(self._tasks.values())
        for task in self._tasks:
            task.cancel()

    async def run(self, account: str, function: Callable[[], T]) -> T:
        """Runs a function on a reading thread, in the turn of an account; raises Unavailable."""
        return await asyncio.wrap_future(self._threads.submit(account, function))

    async def start(
        self, account: str, make: MakeSteps, headers: Mapping[str, str], media_type: str
    ) -> "StreamedAnswer":
        """An answer of the steps that `make` gives; the first is made before this returns.

        Raises Unavailable when the account has too many long answers under way.
        """
        if not self._shares.take(account, 1):
            raise Unavailable("Too many long answers are under way; ask again when some have ended.")
        few = len(self) <= limits.STREAMS_FEW_MAX
        self._were_many = self._were_many or not few
        stepper = Stepper(account, make, limits.CHUNK_BYTES if few else limits.CHUNK_BYTES_MANY)
        try:
            first = await self.run(account, stepper.next)
        except BaseException:
            self.drop(stepper)
            raise
        # The server below holds about five parts for a slow reader.
        send_bytes = limits.SEND_BYTES if few else limits.SEND_BYTES_MANY
        return StreamedAnswer(self, stepper, first, send_bytes, headers, media_type)

    def whole(self, account: str, answer: Response, check: Callable[[], object]) -> Response:
        """An answer that is made already; a large one is a long answer, as its reader may not take it.

        `check` is called before each part of that; what it raises breaks the answer off. Raises Unavailable
        when the account has too much of those under way.
        """
        body = bytes(answer.body)
        if len(body) <= limits.WHOLE_BYTES_MAX:
            return answer
        if not self._pages.take(account, len(body)):
            raise Unavailable("Too large pages are under way; ask again when some were taken, or for less.")
        stepper = Stepper(account, _no_steps, 0, held_bytes=len(body))
        if not self._shares.take(account, 1):
            self._pages.give_back(account, len(body))
            raise Unavailable("Too many long answers are under way; ask again when some have ended.")
        parts = [body[at : at + limits.SEND_BYTES] for at in range(0, len(body), limits.SEND_BYTES)]
        streamed = StreamedAnswer(
            self, stepper, parts, limits.SEND_BYTES_MANY, answer.headers, None, check, answer.status_code
        )
        streamed.headers["content-length"] = str(len(body))
        return streamed

    def drop(self, stepper: Stepper) -> None:
        """Lets go of what an answer holds, once the step that may be at work has ended."""
        self._shares.give_back(stepper.account, 1)
        self._pages.give_back(stepper.account, stepper.held_bytes)
        self._threads.soon(stepper.close)
        if self._were_many and not len(self):
            self._were_many = False
            self._threads.soon(memory.give_back)

    @contextmanager
    def under_way(self, client: Address) -> Iterator[None]:
        """Has the current task cut off when the server shuts down; raises Unavailable if it does already."""
        task = asyncio.current_task()
        if self._closing or task is None:
            raise Unavailable("The server is shutting down; ask again in a moment.")
        self._tasks[task] = client
        try:
            yield
        finally:
            del self._tasks[task]


def _no_steps(_step_bytes: int) -> Steps:
    yield from ()


class StreamedAnswer(Response):
    """An answer sent part by part."""

    def __init__(
        self,
        streams: Streams,
        stepper: Stepper,
        first: list[bytes] | None,
        send_bytes: int,
        headers: Mapping[str, str],
        media_type: str | None,
        check: Callable[[], object] = lambda: None,
        status: int = 200,
    ) -> None:
        super().__init__(None, status, headers, media_type)
        del self.headers["content-length"]
        self._streams, self._stepper, self._first = streams, stepper, first
        self._send_bytes, self._check = send_bytes, check

    def abandon(self) -> None:
        """Lets go of the answer, of which nothing was sent."""
        self._streams.drop(self._stepper)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends the answer, or as much of it as the reader takes and the store gives."""
        try:
            with self._streams.under_way(scope["client"]):
                await self._send_or_break_off(scope, receive, send)
        finally:
            self._streams.drop(self._stepper)

    async def _send_or_break_off(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._send(scope, receive, send)
        except asyncio.CancelledError:
            return  # `cut` has broken it off, and the task ends here
        except ReaderGone:
            return  # the connection has ended without the end of the answer
        except StreamStalled:
            CUT_OFF.labels("stalled").inc()
            _log.warning("a reader took nothing for %d s and was cut off", self._streams.stall_seconds)
        except NotAuthenticated as error:
            _log.warning("an answer broke off: %s", error)
        except AuditplaneError as error:
            _log.error("an answer broke off: %s", error)
            count_failure(error)
        except Exception as error:  # noqa: BLE001 - whatever it is, the reader must see that something is missing
            _log.exception("an answer broke off")
            count_failure(error)
        else:
            return
        break_off([scope["client"]])

    async def _send(self, scope: Scope, receive: Receive, send: Send) -> None:
        gone = asyncio.ensure_future(_disconnected(receive))
        try:
            await send(
                {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
            )
            if scope["method"] != "HEAD":
                await self._send_steps(send, gone)
            await send({"type": "http.response.body", "body": b""})
        finally:
            gone.cancel()

    async def _send_steps(self, send: Send, gone: "asyncio.Future[None]") -> None:
        parts, self._first = self._first, None
        while parts is not None:
            parts.reverse()
            while parts:
                part = parts.pop()
                for start in range(0, len(part), self._send_bytes):
                    if gone.done():
                        raise ReaderGone
                    self._check()
                    await self._send_part(send, part[start : start + self._send_bytes])
            parts = await self._streams.run(self._stepper.account, self._stepper.next)

    async def _send_part(self, send: Send, part: bytes) -> None:
        try:
            async with asyncio.timeout(self._streams.stall_seconds):
                await send({"type": "http.response.body", "body": part, "more_body": True})
        except TimeoutError:
            raise StreamStalled from None


async def _disconnected(receive: Receive) -> None:
    """Returns when the reader is gone."""
    while (await receive())["type"] != "http.disconnect":
        pass
