"""New events as they are recorded, for pages that are open: server-sent events (HTML standard, section 9.2).

A stream tells of what was committed after an index and passes the filters of a view, whichever worker
recorded it. The id of each message is the index that it came to, so that a browser that lost the connection
misses nothing and is told nothing twice. Who is not signed in any more is told of nothing.
"""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from auditplane import limits, log
from auditplane.access.key import Right, Session
from auditplane.errors import InvalidQuery, NotAuthenticated, TooManyRequests, Unavailable
from auditplane.event import Event, decode_docs
from auditplane.http.connections import break_off
from auditplane.http.events import parameters
from auditplane.http.page import sessions
from auditplane.http.page.rendering import HEADERS, page_route, rendered
from auditplane.http.page.trail import asked_view, on_thread
from auditplane.http.page.view import View
from auditplane.http.state import State
from auditplane.query import Order, Query
from auditplane.shares import Shares
from auditplane.store.sqlite.account import AccountStore

AFTER: Final = "after"
LAST_ID_HEADER: Final = "last-event-id"
EVENT_STREAM: Final = "text/event-stream"
ROWS_MAX: Final = 100
BEHIND_EVENTS_MAX: Final = 100_000
LOOK_SECONDS: Final = 1.0
COMMENT_SECONDS: Final = 15.0
RETRY_MS: Final = 1_000


@dataclass(frozen=True, slots=True)
class News:
    """What came after an index: how many events match, they themselves if few, and the last index."""

    number: int
    events: list[Event]
    last: int


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
    return _LiveAnswer(state, _messages(state, request, view, after), account, token)


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


async def _messages(state: State, request: Request, view: View, after: int) -> AsyncIterator[bytes]:
    yield b"retry: %d\n\n" % RETRY_MS
    quiet = 0.0
    mark: object = None
    while True:
        session = _session(request)
        if session is None:
            yield b"event: over\ndata: -\n\n"
            return
        now = state.folder.wal_mark(session.key.account)
        if now != mark:  # something was written
            try:
                told = partial(_told, request=request, view=view, after=after)
                last, message = await on_thread(state, session.key, told)
            except Unavailable:  # too much waits for this account; the next look tells of it
                await asyncio.sleep(LOOK_SECONDS)
                continue
            mark = now
            if _session(request) is None:
                continue  # what was read is not for who was signed out meanwhile
            if last > after:
                after, quiet = last, 0.0
                yield message
        if quiet >= COMMENT_SECONDS:
            quiet = 0.0
            yield b": \n\n"
        await asyncio.sleep(LOOK_SECONDS)
        quiet += LOOK_SECONDS


def _session(request: Request) -> Session | None:
    try:
        return sessions.session(request)
    except NotAuthenticated:
        return None


def _told(store: AccountStore, *, request: Request, view: View, after: int) -> tuple[int, bytes]:
    """The last index, and the message of what matches after another one."""
    news = _news(store, view=view, after=after)
    return news.last, _message(request, view, news)


def _news(store: AccountStore, *, view: View, after: int) -> News:
    """What matches after an index; a page that is far behind only hears that there is much."""
    size = store.size()
    if size <= after + 1:
        return News(0, [], after)
    if size - after > BEHIND_EVENTS_MAX:
        return News(limits.PAGE_EVENTS_MAX, [], size - 1)
    query = replace(view.query, order=Order.RECORDED, after=after, cursor=None, limit=None)
    docs, cursor, shown = log.page(store, query, ROWS_MAX)
    if cursor is None:
        return News(len(docs), decode_docs(docs), shown - 1)
    return News(len(docs) + _count_further(store, query, cursor.position), [], shown - 1)


def _count_further(store: AccountStore, query: Query, after: int) -> int:
    """How many more match, up to a bound."""
    docs, _, _ = log.page(store, replace(query, after=after), limits.PAGE_EVENTS_MAX)
    return len(docs)


def _message(request: Request, view: View, news: News) -> bytes:
    """A message; one without news only says how far the browser has come."""
    if not news.number:
        return b"id: %d\nevent: at\ndata: -\n\n" % news.last
    newest_first = sorted(news.events, key=lambda event: event.timestamp or "", reverse=True)
    html = rendered(request, "new_rows.html", view=view, events=newest_first)
    data = json.dumps({"number": news.number, "html": html})
    return f"id: {news.last}\nevent: news\ndata: {data}\n\n".encode()


def _index(text: str) -> int:
    if not text.removeprefix("-").isdigit() or not text.isascii() or len(text) > 18:
        raise InvalidQuery(f"{AFTER}: must be the index of an event, is {text[:32]!r}.")
    return max(int(text), -1)
