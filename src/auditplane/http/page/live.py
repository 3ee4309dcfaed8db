"""New events as they are recorded, for pages that are open: server-sent events (HTML standard, section 9.2).

A stream tells of what was committed after an index and passes the filters of a view, whichever worker
recorded it. The id of each message is the index that it came to, so that a browser that lost the connection
misses nothing and is told nothing twice. Who is not signed in any more is told of nothing.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from typing import Final

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from auditplane import limits
from auditplane.access.key import Right
from auditplane.errors import InvalidQuery, NotAuthenticated, TooManyRequests, Unavailable
from auditplane.http.connections import break_off
from auditplane.http.events import parameters
from auditplane.http.page import feeds, sessions
from auditplane.http.page.feeds import Feed
from auditplane.http.page.rendering import HEADERS, page_route
from auditplane.http.page.trail import asked_view
from auditplane.http.page.view import View
from auditplane.http.state import State
from auditplane.shares import Shares

AFTER: Final = "after"
LAST_ID_HEADER: Final = "last-event-id"
EVENT_STREAM: Final = "text/event-stream"
LOOK_SECONDS: Final = 1.0
COMMENT_SECONDS: Final = 15.0
RETRY_MS: Final = 1_000


class Listeners:
    """Who listens in this worker: bounded for each session, and in all, of which each account has a share."""

    def __init__(self) -> None:
        self._sessions: Counter[str] = Counter()
        self._shares = Shares(limits.LISTENERS_MAX)

    def add(self, account: str, token: str) -> None:
        """Counts one; raises TooManyRequests and Unavailable when there are too many."""
        if self._sessions[token] >= limits.SESSION_LISTENERS_MAX:
            raise TooManyRequests("This session has too many pages open; close some.", retry_after_seconds=60)
        if not self._shares.take(account, 1):
            raise Unavailable("Too many pages are open; this one does not show new events by itself.")
        self._sessions[token] += 1

    def drop(self, account: str, token: str) -> None:
        """Counts one less."""
        self._shares.give_back(account, 1)
        self._sessions[token] -= 1
        if not self._sessions[token]:
            del self._sessions[token]


_listeners = Listeners()


@page_route
async def live(request: Request) -> Response:
    """`GET /live`: what is recorded from now on, or after the index `after`."""
    state: State = request.state.server
    session = sessions.session(request)
    session.key.require(Right.READ)
    given = parameters(request)
    view = asked_view(request, state, session.key, beside=(AFTER,))
    after = _index(request.headers.get(LAST_ID_HEADER) or dict(given).get(AFTER, ""))
    token = sessions.token(request)
    account = session.key.account
    _listeners.add(account, token)
    messages = _messages(request, feeds.feed(state, account), view, after)
    return _LiveAnswer(state, messages, account, token)


class _LiveAnswer(StreamingResponse):
    """A stream that ends with the server, with its reader, or when that takes nothing for too long."""

    def __init__(self, state: State, messages: AsyncIterator[bytes], account: str, token: str) -> None:
        super().__init__(messages, headers={**HEADERS, "X-Accel-Buffering": "no"}, media_type=EVENT_STREAM)
        self._state, self._account, self._token = state, account, token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_in_time(message: dict[str, object]) -> None:
            try:
                async with asyncio.timeout(self._state.config.stall_seconds):
                    await send(message)
            except TimeoutError:
                break_off([scope["client"]])
                raise

        try:
            with self._state.streams.under_way(scope["client"]):
                await super().__call__(scope, receive, send_in_time)  # type: ignore[arg-type]
        except (asyncio.CancelledError, TimeoutError):
            return  # the server ends, or the reader stalled: the connection is broken off already
        finally:
            _listeners.drop(self._account, self._token)


async def _messages(request: Request, feed: Feed, view: View, after: int) -> AsyncIterator[bytes]:
    state: State = request.state.server
    yield b"retry: %d\n\n" % RETRY_MS
    quiet = 0.0
    while _is_signed_in(request):
        try:
            last, message = await feed.news(view, after)
        except Unavailable:  # too much waits for this account; the next look tells of it
            last, message = after, b""
        if last > after:
            await state.turnstile.turn()  # thousands may have waited for the same
            if not _is_signed_in(request):
                break  # what was read is not for who was signed out meanwhile
            after, quiet = last, 0.0
            yield message
        if quiet >= COMMENT_SECONDS:
            quiet = 0.0
            yield b": \n\n"
        await asyncio.sleep(LOOK_SECONDS)
        quiet += LOOK_SECONDS
    yield b"event: over\ndata: -\n\n"


def _is_signed_in(request: Request) -> bool:
    try:
        sessions.session(request)
    except NotAuthenticated:
        return False
    return True


def _index(text: str) -> int:
    if not text.removeprefix("-").isdigit() or not text.isascii() or len(text) > 18:
        raise InvalidQuery(f"{AFTER}: must be the index of an event, is {text[:32]!r}.")
    return max(int(text), -1)
