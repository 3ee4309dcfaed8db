"""The trail: the page at `/`, and its parts that are asked for later."""

import json
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar
from urllib.parse import parse_qsl, urlsplit

from starlette.requests import Request
from starlette.responses import Response

from auditplane import limits, log
from auditplane import overview as overviews
from auditplane import query as queries
from auditplane.access.key import Key, Right
from auditplane.errors import InvalidQuery
from auditplane.event import Event, decode_docs
from auditplane.http.events import parameters
from auditplane.http.page import sessions
from auditplane.http.page.foot import Foot, foot
from auditplane.http.page.rendering import html, page_route
from auditplane.http.page.view import LABELS, NO_VIEW, Chip, View, read_view
from auditplane.http.state import State
from auditplane.query import encode_cursor
from auditplane.store import Member
from auditplane.store.sqlite.account import AccountStore
from auditplane.times import SECOND_US

T = TypeVar("T")

ROWS: Final = 100
SUGGESTED_MAX: Final = 10
RELAXED_MAX: Final = 8
RELAX_SECONDS: Final = 2.0
BUCKETS_MAX: Final = 120

MEMBERS: Final = {
    queries.USER: Member.USER,
    queries.CONFIGURATION: Member.CONFIGURATION,
    queries.KIND: Member.KIND,
    queries.ACTION: Member.ACTION,
    queries.NAME: Member.NAME,
}
"""The filters whose values are suggested."""
TOPS: Final = (queries.USER, queries.CONFIGURATION, queries.KIND, queries.ACTION)


@dataclass(frozen=True, slots=True)
class Rows:
    """A page of events: the URL of the next, if there is one, and the size of the log that they show."""

    events: Sequence[Event]
    next_cursor: str | None
    size: int


@page_route
async def show(request: Request) -> Response:
    """`GET /`: the trail."""
    return await show_trail(request)


async def show_trail(request: Request, drawer: Mapping[str, object] | None = None) -> Response:
    """The page of the trail; with the values of a drawer, that is open beside it."""
    state: State = request.state.server
    session = sessions.session(request)
    session.key.require(Right.READ)
    problems: Sequence[str] = ()
    found: tuple[Rows, Foot] | tuple[None, None] = None, None
    try:
        view = asked_view(request, state, session.key)
        account = session.key.account
        found = await on_thread(state, account, lambda store: _whole(store, view, state, account))
    except InvalidQuery as error:  # an unfiltered answer to a wrong filter would mislead
        view, problems = NO_VIEW, error.messages
    return await html(
        request,
        "trail.html",
        400 if problems else 200,
        session=session,
        view=view,
        ranges=view.quick_ranges(state.clock()),
        labels=LABELS,
        problems=problems,
        rows=found[0],
        foot=found[1],
        drawer=drawer,
    )


@page_route
async def rows(request: Request) -> Response:
    """`GET /rows`: the rows after a cursor."""
    state, key = reader(request)
    view = asked_view(request, state, key)
    found = await on_thread(state, key.account, lambda store: _rows(store, view, key.account))
    return await html(request, "rows.html", view=view, rows=found)


@page_route
async def overview(request: Request) -> Response:
    """`GET /overview`: the chart, and the top values of the view."""
    state, key = reader(request)
    view = asked_view(request, state, key)
    stacked = Member(view.chart)

    def counted(store: AccountStore) -> overviews.Overview:
        return overviews.overview(store, view.query, stacked=stacked, buckets_max=BUCKETS_MAX)

    found = await on_thread(state, key.account, counted)
    chart = {
        "starts": [us // SECOND_US for us in found.starts_us],
        "width": found.bucket_us // SECOND_US,
        "series": found.series,
        "by": view.chart,
    }
    tops = [(name, LABELS[name], found.tops[MEMBERS[name]]) for name in TOPS]
    return await html(request, "overview.html", view=view, overview=found, chart=json.dumps(chart), tops=tops)


@page_route
async def suggestions(request: Request) -> Response:
    """`GET /suggestions`: values of the trail for a filter, most frequent first."""
    state, key = reader(request)
    given = dict(parameters(request))
    member = MEMBERS.get(given.get("member", ""))
    if member is None:
        raise InvalidQuery(f"member: must be one of {', '.join(MEMBERS)}.")
    text = given.get("text", "")[: limits.NAME_CHARS_MAX]

    def suggested(store: AccountStore) -> Sequence[tuple[str, int]]:
        return overviews.suggestions(store, member, text, SUGGESTED_MAX)

    return await html(request, "suggestions.html", suggestions=await on_thread(state, key.account, suggested))


@page_route
async def relax(request: Request) -> Response:
    """`GET /relax`: what the view would show without one of its filters."""
    state, key = reader(request)
    view = asked_view(request, state, key)

    kinds = state.rules(key.account).kinds
    without = [
        (chip, read_view(parse_qsl(urlsplit(chip.url).query), account=key.account, kinds=kinds).query)
        for chip in view.chips[:RELAXED_MAX]
    ]

    def counted(store: AccountStore) -> Sequence[tuple[Chip, int | None]]:
        deadline = time.monotonic() + RELAX_SECONDS
        counts = [(chip, _count_in_time(store, query, deadline)) for chip, query in without]
        return sorted(counts, key=lambda each: -(each[1] or 0))

    return await html(request, "relax.html", relaxed=await on_thread(state, key.account, counted))


def _count_in_time(store: AccountStore, query: queries.Query, deadline: float) -> int | None:
    """How many events match; None when there is no time to know."""
    return None if query.words or time.monotonic() > deadline else log.count(store, query)


def reader(request: Request) -> tuple[State, Key]:
    """The server, and the key of who asks for a part of the trail; raises NotAuthenticated and Forbidden."""
    key = sessions.session(request).key
    key.require(Right.READ)
    return request.state.server, key


def asked_view(request: Request, state: State, key: Key, beside: Collection[str] = ()) -> View:
    """The view that a request asks for, beside some parameters of other use; raises InvalidQuery."""
    given = [(name, value) for name, value in parameters(request) if name not in beside]
    return read_view(given, account=key.account, kinds=state.rules(key.account).kinds)


def _whole(store: AccountStore, view: View, state: State, account: str) -> tuple[Rows, Foot]:
    return _rows(store, view, account), foot(store, state, account)


def _rows(store: AccountStore, view: View, account: str) -> Rows:
    docs, cursor, size = log.page(store, view.query, ROWS)
    text = None if cursor is None else encode_cursor(cursor, view.query, account)
    return Rows(decode_docs(docs), text, size)


async def on_thread(state: State, account: str, work: Callable[[AccountStore], T]) -> T:
    """What some work on an account gives, done on a thread in its turn; raises Unavailable."""

    def run() -> T:
        with state.folder.account(account) as store:
            return work(store)

    return await state.streams.run(account, run)
