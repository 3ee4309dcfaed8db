"""What a page shows, as a value: the parameters of its URL, and the URLs of its neighbours. Pure.

The whole view is in its URL, under the names that the API has, so that a link shows the same to a colleague.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlencode

from auditplane import query as queries
from auditplane.errors import InvalidQuery
from auditplane.query import Order, Query, parse_query
from auditplane.times import DAY_US, SECOND_US, format_us

CHART: Final = "chart"
CHARTS: Final = ("action", "kind")
PARAMETERS: Final = (*queries.FILTERS, queries.ORDER, queries.CURSOR)

LABELS: Final = {
    queries.WORDS: "Words",
    queries.USER: "User",
    queries.CONFIGURATION: "Configuration",
    queries.ACTION: "Action",
    queries.KIND: "Kind",
    queries.NAME: "Resource",
    queries.MIN_DATE: "From",
    queries.MAX_DATE: "To",
}
"""What the filters are called, in the order in which they stand on the page."""

HOUR_US: Final = 3_600 * SECOND_US


@dataclass(frozen=True, slots=True)
class Chip:
    """A filter that is in force; `url` shows the view without it."""

    name: str
    label: str
    value: str
    url: str


@dataclass(frozen=True, slots=True)
class QuickRange:
    """A range of time that one click sets; `url` shows the view in it."""

    name: str
    label: str
    url: str
    current: bool


@dataclass(frozen=True, slots=True)
class View:
    """What the parameters of a URL ask for. `given` are those that restrict or order it, in their order."""

    given: Sequence[tuple[str, str]]
    query: Query
    chart: str

    @property
    def filters(self) -> Sequence[tuple[str, str]]:
        """The filters that were given."""
        return [(name, value) for name, value in self.given if name in queries.FILTERS]

    def values(self, name: str) -> Sequence[str]:
        """The values that were given of a filter."""
        return [value for given, value in self.given if given == name]

    def url(self, path: str = "/", **more: object) -> str:
        """This view at a path, with further parameters."""
        return _url(path, [*self.given, *((name, str(value)) for name, value in more.items())])

    def adding(self, name: str, value: str) -> str:
        """The URL of this view with one more filter; a single one is replaced."""
        kept = [
            pair
            for pair in self.given
            if pair != (name, value) and (name not in queries.SINGLE or pair[0] != name)
        ]
        return _url("/", [*kept, (name, value)])

    def without(self, name: str, value: str | None = None) -> str:
        """The URL of this view without a filter, or without one value of it."""
        return _url("/", [pair for pair in self.given if pair[0] != name or value not in (None, pair[1])])

    def toggling(self, name: str, value: str) -> str:
        """The URL with this filter when it is not in force, and without it when it is."""
        return self.without(name, value) if (name, value) in self.given else self.adding(name, value)

    def between(self, min_us: int | None, max_us: int | None) -> str:
        """The URL of this view between two moments, both included; None is any."""
        kept = [pair for pair in self.given if pair[0] not in (queries.MIN_DATE, queries.MAX_DATE)]
        bounds = ((queries.MIN_DATE, min_us), (queries.MAX_DATE, max_us))
        return _url("/", [*kept, *((name, _short(us)) for name, us in bounds if us is not None)])

    def charted(self, by: str) -> str:
        """The URL of this view with the chart stacked by something else."""
        kept = [pair for pair in self.given if pair[0] != CHART]
        return _url("/", kept if by == CHARTS[0] else [*kept, (CHART, by)])

    @property
    def is_newest(self) -> bool:
        """Whether it begins with the newest events, so that what comes belongs on top."""
        return self.query.order is Order.DESC and self.query.cursor is None

    @property
    def turned(self) -> str:
        """The URL of this view in the other order."""
        kept = [pair for pair in self.given if pair[0] != queries.ORDER]
        return _url("/", kept if self.query.order is Order.ASC else [*kept, (queries.ORDER, Order.ASC.value)])

    @property
    def chips(self) -> Sequence[Chip]:
        """The filters in force, in the order of the page."""
        order = list(LABELS)
        found = sorted(self.filters, key=lambda pair: order.index(pair[0]))
        return [Chip(name, LABELS[name], value, self.without(name, value)) for name, value in found]

    @property
    def clear_url(self) -> str:
        """The view without any filter."""
        return _url("/", [pair for pair in self.given if pair[0] not in queries.FILTERS])

    def quick_ranges(self, now_us: int) -> Sequence[QuickRange]:
        """The ranges of time up to now that one click sets."""
        current = self.query.min_us
        starts = {
            "hour": ("Last hour", now_us - HOUR_US),
            "today": ("Today", now_us - now_us % DAY_US),
            "week": ("7 days", now_us - 7 * DAY_US),
            "month": ("30 days", now_us - 30 * DAY_US),
        }
        no_dates = current is None and self.query.max_us is None
        ranges = [
            QuickRange(name, label, self.between(start // SECOND_US * SECOND_US, None), current=False)
            for name, (label, start) in starts.items()
        ]
        return [*ranges, QuickRange("all", "All time", self.between(None, None), current=no_dates)]


NO_VIEW: Final = View((), Query(), CHARTS[0])
"""The view without filters."""


def read_view(parameters: Iterable[tuple[str, str]], *, account: str, kinds: Collection[str]) -> View:
    """The view that the parameters of a URL ask for; raises InvalidQuery."""
    given = [(name, value) for name, value in parameters if value]
    charts = [value for name, value in given if name == CHART] or [CHARTS[0]]
    if len(charts) > 1 or charts[0] not in CHARTS:
        raise InvalidQuery(f"{CHART}: must be one of {' and '.join(CHARTS)}.")
    asked = [(name, value) for name, value in given if name != CHART]
    query = parse_query(asked, account=account, allowed=PARAMETERS, kinds=kinds)
    if query.order is Order.RECORDED:
        raise InvalidQuery(f"{queries.ORDER}: the page shows desc and asc.")
    kept = [(name, value) for name, value in given if name != queries.CURSOR]
    return View(kept, query, charts[0])


def _url(path: str, parameters: Sequence[tuple[str, str]]) -> str:
    return f"{path}?{urlencode(parameters)}" if parameters else path


def _short(us: int) -> str:
    """A moment as it stands in a URL: without the parts of a second where there are none."""
    text = format_us(us)
    return text.replace(".000000Z", "Z")
