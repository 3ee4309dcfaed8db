"""What is new in the log of an account, looked for once for all pages of a worker that show it.

All of them come to the same size of the log: so however many show the same view, what is new in it is found
and rendered once. They must be signed in to the account, which whoever asks has made sure of.
"""

import asyncio
import json
from collections.abc import Coroutine
from dataclasses import dataclass, replace
from functools import partial
from math import inf
from typing import Final, TypeAlias, TypeVar
from weakref import WeakValueDictionary

from auditplane import limits, log
from auditplane.event import Event, decode_docs
from auditplane.http.page.rendering import rendered
from auditplane.http.page.trail import on_thread
from auditplane.http.page.view import View
from auditplane.http.state import State
from auditplane.query import Cursor, Order
from auditplane.store.sqlite.account import AccountStore

T = TypeVar("T")

ROWS_MAX: Final = 100
BEHIND_EVENTS_MAX: Final = 100_000
LOOK_SECONDS: Final = 0.25
COMMIT_SECONDS: Final = 5.0
"""A commit is written, then synced, and only then shown: a look meanwhile sees that something was written."""
MESSAGES_KEPT_MAX: Final = 32

_Asked: TypeAlias = tuple[tuple[tuple[str, str], ...], int, int]
"""The parameters of a view, the index after which it wants the news, and the size of the log to come to."""


class Feed:
    """What is new in the log of an account; for one event loop."""

    def __init__(self, state: State, account: str) -> None:
        self._state, self._account = state, account
        self._size = 0
        self._mark: tuple[int, int] | None = None
        # When the mark was seen to change, the log was read, and the mark was looked at.
        self._written = self._read = self._looked = -inf
        self._looking: asyncio.Task[int] | None = None
        self._messages: dict[_Asked, asyncio.Task[bytes]] = {}

    async def news(self, view: View, after: int) -> tuple[int, bytes]:
        """The last index of the log, and the server-sent event that tells of what matches after another one.

        Where nothing does, it only says how far the browser has come. Raises Unavailable.
        """
        size = await self._sized()
        return (after, b"") if size <= after + 1 else (size - 1, await self._message(view, after, size))

    async def _sized(self) -> int:
        """The size of the log now, or LOOK_SECONDS ago; COMMIT_SECONDS ago where a commit takes so long."""
        now = asyncio.get_running_loop().time()
        if self._looking is None and now >= self._looked + LOOK_SECONDS:
            self._looked = now
            mark = self._state.folder.wal_mark(self._account)
            if mark != self._mark:
                self._mark, self._written = mark, now
            if now < self._written + COMMIT_SECONDS or now >= self._read + COMMIT_SECONDS:
                self._looking = _started(self._look())
        return self._size if self._looking is None else await asyncio.shield(self._looking)

    async def _message(self, view: View, after: int, size: int) -> bytes:
        asked = (tuple(view.given), after, size)
        making = self._messages.pop(asked, None)
        if making is None or (making.done() and (making.cancelled() or making.exception())):
            work = partial(_told, view=view, after=after, size=size)
            making = _started(on_thread(self._state, self._account, work))
        self._messages[asked] = making
        while len(self._messages) > MESSAGES_KEPT_MAX:
            del self._messages[next(iter(self._messages))]
        return await asyncio.shield(making)

    async def _look(self) -> int:
        self._messages.clear()  # what they tell of may have expired or been erased
        try:
            self._size = await on_thread(self._state, self._account, AccountStore.size)
            self._read = asyncio.get_running_loop().time()
            return self._size
        finally:
            self._looking = None


def _started(work: Coroutine[None, None, T]) -> asyncio.Task[T]:
    """Begun for all who wait for it, and for nobody if all of them go."""
    task = asyncio.get_running_loop().create_task(work)
    task.add_done_callback(lambda done: done.cancelled() or done.exception())
    return task


_feeds: Final[WeakValueDictionary[tuple[State, str], Feed]] = WeakValueDictionary()


def feed(state: State, account: str) -> Feed:
    """The feed of an account, which is there as long as somebody has it."""
    found = _feeds.get((state, account))
    if found is None:
        found = _feeds[state, account] = Feed(state, account)
    return found


@dataclass(frozen=True, slots=True)
class News:
    """What came between an index and a size of the log: how many match, and they themselves if few."""

    number: int
    events: list[Event]


def _told(store: AccountStore, *, view: View, after: int, size: int) -> bytes:
    news = _news(store, view, after, size)
    if not news.number:
        return b"id: %d\nevent: at\ndata: -\n\n" % (size - 1)
    newest_first = sorted(news.events, key=lambda event: event.timestamp or "", reverse=True)
    html = rendered("new_rows.html", view=view, events=newest_first)
    data = json.dumps({"number": news.number, "html": html})
    return f"id: {size - 1}\nevent: news\ndata: {data}\n\n".encode()


def _news(store: AccountStore, view: View, after: int, size: int) -> News:
    """What matches; a page that is far behind only hears that there is much."""
    if size - after > BEHIND_EVENTS_MAX:
        return News(limits.PAGE_EVENTS_MAX, [])
    query = replace(view.query, order=Order.RECORDED, cursor=Cursor(after, size), limit=None)
    docs, cursor, _ = log.page(store, query, ROWS_MAX)
    if cursor is None:
        return News(len(docs), decode_docs(docs))
    further, _, _ = log.page(store, replace(query, cursor=cursor), limits.PAGE_EVENTS_MAX)
    return News(len(docs) + len(further), [])
