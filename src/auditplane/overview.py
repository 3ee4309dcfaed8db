"""What a query finds, at a glance: how many events, when, and of whom and what most.

Counts are exact where the columns hold the filters. They hold no words and not all names of resources: for
these the newest SAMPLE_EVENTS matches are read, for about SAMPLE_SECONDS, and the answer says how many it is
made from. So it is where a member that is counted has more values than `counting` holds in memory.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from heapq import nsmallest
from typing import TYPE_CHECKING, Final

from auditplane.event import Event, decode_docs
from auditplane.query import Order, Query, fold
from auditplane.store import Member
from auditplane.store.sqlite import reader
from auditplane.store.sqlite.account import AccountStore
from auditplane.times import DAY_US, SECOND_US, parse_rfc3339

if TYPE_CHECKING:
    from auditplane.store.sqlite.counting import Counted

SAMPLE_EVENTS: Final = 10_000
SAMPLE_SECONDS: Final = 1.0
SERIES_MAX: Final = 8
TOPS_MAX: Final = 10
TEXTS_AT_ONCE: Final = 1_000
BUCKETS_MAX: Final = 120
TOPS: Final = (Member.USER, Member.CONFIGURATION, Member.KIND, Member.ACTION)

WEEK_US: Final = 7 * DAY_US
_FIRST_MONDAY_US: Final = 4 * DAY_US
_SECONDS: Final = (1, 5, 15, 60, 300, 900, 3_600, 3 * 3_600, 6 * 3_600, 12 * 3_600)
_DAYS: Final = (1, 7, 30, 365)
WIDTHS_US: Final = (*(width * SECOND_US for width in _SECONDS), *(width * DAY_US for width in _DAYS))
"""How wide the buckets of a chart can be."""


@dataclass(frozen=True, slots=True)
class Overview:
    """What a query finds, counted.

    `matches` is None when there are more than were counted and nobody knows how many; `counted` is how many
    events the rest is made from, the newest. Buckets are `bucket_us` wide and begin at `starts_us`, ascending
    and without gaps; `series` has a count for each bucket by text, the most frequent text first, and those of
    all others under an empty one. `tops` are the most frequent values, most frequent first.
    """

    matches: int | None
    counted: int
    bucket_us: int
    starts_us: Sequence[int]
    series: dict[str, Sequence[int]]
    tops: dict[Member, Sequence[tuple[str, int]]]
    oldest_us: int | None
    newest_us: int | None

    @property
    def exact(self) -> bool:
        """Whether all matches were counted."""
        return self.counted == self.matches


def overview(
    store: AccountStore, query: Query, *, stacked: Member, buckets_max: int = BUCKETS_MAX
) -> Overview:
    """What a query finds, whatever its order and cursor; over time stacked by a member, but not by names."""
    query = replace(query, order=Order.DESC, after=None, limit=None, cursor=None)
    if query.names or query.words:
        return _of_sample(store, query, stacked, buckets_max)
    from auditplane.store.sqlite.counting import View

    with store.snapshot() as connection:
        view = View(store, connection, query)
        bounds = view.extent()
        if bounds is None:
            return _nothing()
        width, starts = buckets(*bounds, buckets_max)
        counted = view.count(starts, stacked)
        if not counted.is_over:
            return _made(counted, counted.events, stacked, bounds, (width, starts), view.texts)
    return _of_sample(store, query, stacked, buckets_max, counted.events)


def suggestions(
    store: AccountStore, member: Member, text: str, at_most: int = TOPS_MAX
) -> list[tuple[str, int]]:
    """The values of a member in which a text occurs in any case, most frequent first, with their counts."""
    from auditplane.store.sqlite.counting import values_holding

    with store.snapshot() as connection:
        found = values_holding(store, connection, member, fold(text))
    return nsmallest(at_most, ((value, count) for value, count in found.items() if value), key=_most_frequent)


def buckets(oldest_us: int, newest_us: int, buckets_max: int) -> tuple[int, Sequence[int]]:
    """The least width that covers a range with so many buckets at the most, and where each begins.

    They begin at multiples of the width since 1970, those of weeks on Mondays.
    """
    for width in WIDTHS_US:
        offset = _FIRST_MONDAY_US if width == WEEK_US else 0
        first = (oldest_us - offset) // width * width + offset
        count = (newest_us - first) // width + 1
        if count <= buckets_max or width == WIDTHS_US[-1]:
            return width, range(first, first + count * width, width)
    raise AssertionError("there is a widest one")


def _nothing() -> Overview:
    return Overview(0, 0, WIDTHS_US[0], (), {}, dict.fromkeys(TOPS, ()), None, None)


def _of_sample(
    store: AccountStore, query: Query, stacked: Member, buckets_max: int, matches: int | None = None
) -> Overview:
    """That of the newest matches, as far as they are read; `matches` is how many there are, if known."""
    from auditplane.store.sqlite.counting import count_events

    events, is_whole = _newest(store, query)
    if is_whole:
        matches = len(events)
    elif matches is None and not query.words:
        matches = reader.count_matching(store, query)
    if not events:
        return replace(_nothing(), matches=matches)
    moments = [parse_rfc3339(event.timestamp or "") for event in events]
    bounds = min(moments), max(moments)
    width, starts = buckets(*bounds, buckets_max)
    with store.snapshot() as connection:
        counted, texts = count_events(connection, events, starts, stacked)
        return _made(counted, matches, stacked, bounds, (width, starts), texts)


def _newest(store: AccountStore, query: Query) -> tuple[list[Event], bool]:
    """The newest matches, as many as are counted, and whether these are all."""
    deadline = time.monotonic() + SAMPLE_SECONDS
    found: list[Event] = []
    for event in _decoded(reader.Reader(store, query).docs()):
        if event is not None:
            found.append(event)
        if len(found) > SAMPLE_EVENTS or (event is None and time.monotonic() > deadline):
            return found[:SAMPLE_EVENTS], False
    return found, True


def _decoded(steps: Iterator[list[bytes]]) -> Iterator[Event | None]:
    """The events of some steps; None after each."""
    for docs in steps:
        yield from decode_docs(docs)
        yield None


def _made(
    counted: "Counted",
    matches: int | None,
    stacked: Member,
    bounds: tuple[int, int],
    chart: tuple[int, Sequence[int]],
    texts_of: Callable[[Sequence[int]], dict[int, str]],
) -> Overview:
    named = {member: _named(counted.top(member, TOPS_MAX + 1), texts_of) for member in TOPS}
    shown = named[stacked][:SERIES_MAX]
    width, starts = chart
    *rows, others = counted.series([value_id for _, _, value_id in shown])
    series: dict[str, Sequence[int]] = {text: row for (text, _, _), row in zip(shown, rows, strict=True)}
    if any(others):
        series[""] = others
    return Overview(
        matches=matches,
        counted=counted.events,
        bucket_us=width,
        starts_us=starts,
        series=series,
        tops={member: [(text, count) for text, count, _ in found] for member, found in named.items()},
        oldest_us=bounds[0],
        newest_us=bounds[1],
    )


def _named(
    found: Sequence[tuple[int, int]], texts_of: Callable[[Sequence[int]], dict[int, str]]
) -> list[tuple[str, int, int]]:
    """The most frequent of some values with their texts, counts and numbers, of which some are in memory at a
    time. A configuration may have no name, only a version: that is none to show."""

    def named() -> Iterator[tuple[str, int, int]]:
        for start in range(0, len(found), TEXTS_AT_ONCE):
            some = found[start : start + TEXTS_AT_ONCE]
            texts = texts_of([value_id for value_id, _ in some])
            yield from ((texts[value_id], count, value_id) for value_id, count in some if texts[value_id])

    return nsmallest(TOPS_MAX, named(), key=_by_count)


def _most_frequent(value: tuple[str, int]) -> tuple[int, str]:
    text, count = value
    return -count, text


def _by_count(value: tuple[str, int, int]) -> tuple[int, str]:
    return _most_frequent(value[:2])
