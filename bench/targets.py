"""What this server is to reach, and how it is seen whether it does."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from bench.measure import ratio
from bench.measures import BY_ONE_FILTER
from bench.results import Results
from bench.servers import AUDITPLANE, NOTHING, ORDINARY, STATIC

MILLION: Final = 1_000_000
TEN_MILLION: Final = 10 * MILLION

# The value, and a word on where it comes from. The second results are those of a million events.
Find = Callable[[Results, Results | None], tuple[float | None, str]]


@dataclass(frozen=True)
class Target:
    """A figure to reach, one way or the other, in runs of at least so many events."""

    label: str
    find: Find
    at_least: float | None = None
    below: float | None = None
    events: int = 0

    @property
    def bound(self) -> float:
        """The figure."""
        return self.at_least if self.at_least is not None else self.below or 0.0

    def is_met(self, value: float) -> bool:
        """Whether a value reaches it."""
        return value >= self.bound if self.at_least is not None else value < self.bound


def _plain(part: str, measures: Sequence[str], system: str = AUDITPLANE) -> Find:
    """The highest of some figures."""
    return lambda results, _: (_best(results, part, measures, system), "")


def _times(
    part: str, measures: Sequence[str], system: str, other: str, other_measures: Sequence[str] = ()
) -> Find:
    """The highest of some figures of a system by the highest of another one."""
    return lambda results, _: (
        ratio(
            _best(results, part, measures, system), _best(results, part, other_measures or measures, other)
        ),
        "",
    )


def _best(results: Results, part: str, measures: Sequence[str], system: str) -> float | None:
    values = [results.value(part, measure, system) for measure in measures]
    return max((value for value in values if value is not None), default=None)


def _within(part: str, measure: str, other: str) -> Find:
    """A figure of this server by another one of it."""
    return _times(part, (measure,), AUDITPLANE, AUDITPLANE, (other,))


def _memory(results: Results, _million: Results | None) -> tuple[float | None, str]:
    """The most memory at anything."""
    exports = {f"sending {form}": f"memory-{form}" for form in ("csv", "zstd", "json", "ndjson")}
    return _worst(
        {
            "recording": results.value("record_batches", "memory", AUDITPLANE),
            **{label: results.value("export", name, AUDITPLANE) for label, name in exports.items()},
        }
    )


def _slowest(share: str) -> Find:
    """The worst of all single filters."""

    def find(results: Results, _million: Results | None) -> tuple[float | None, str]:
        return _worst(
            {
                label: results.value("query", f"{name}-{share}", AUDITPLANE)
                for name, label in BY_ONE_FILTER.items()
            }
        )

    return find


def _slower_than_a_million(results: Results, million: Results | None) -> tuple[float | None, str]:
    """How much slower the single filters are, at the worst."""
    if million is None:
        return None, ""
    return _worst(
        {
            label: ratio(
                results.value("query", f"{name}-p50", AUDITPLANE),
                million.value("query", f"{name}-p50", AUDITPLANE),
            )
            for name, label in BY_ONE_FILTER.items()
        }
    )


def _by_a_million(part: str, measure: str) -> Find:
    """A figure by that of a million events."""

    def find(results: Results, million: Results | None) -> tuple[float | None, str]:
        if million is None:
            return None, ""
        return ratio(results.value(part, measure, AUDITPLANE), million.value(part, measure, AUDITPLANE)), ""

    return find


def _worst(found: dict[str, float | None]) -> tuple[float | None, str]:
    known = {label: value for label, value in found.items() if value is not None}
    if not known:
        return None, ""
    label = max(known, key=lambda each: known[each])
    return known[label], label


_RECORDED: Final = ("rate-1", "rate-2")
_SINGLE: Final = ("rate-8", "rate-64")

TARGETS: Final = (
    Target("batches of 1,000: events/s", _plain("record_batches", _RECORDED), at_least=40_000),
    Target(
        "batches of 1,000: times the ordinary server",
        _times("record_batches", _RECORDED, AUDITPLANE, ORDINARY),
        at_least=2,
    ),
    Target(
        "batches of 1,000: the aim beyond, events/s", _plain("record_batches", _RECORDED), at_least=120_000
    ),
    Target(
        "batches of 1,000: share of the rate at a million",
        _by_a_million("record_batches", "rate-1"),
        at_least=0.9,
        events=TEN_MILLION,
    ),
    Target(
        "one event a request, 64 connections: share of a POST that stores nothing",
        _times("record_single", ("rate-64",), AUDITPLANE, NOTHING),
        at_least=0.3,
    ),
    Target(
        "one event a request: times the ordinary server at its best",
        _times("record_single", ("rate-64",), AUDITPLANE, ORDINARY, _SINGLE),
        at_least=10,
    ),
    Target("one event a request, 64 connections: p99, ms", _plain("record_single", ("p99-64",)), below=40),
    Target("CSV: times DuckDB", _times("export", ("csv",), AUDITPLANE, "duckdb"), at_least=1.5),
    Target("CSV: times the ordinary server", _times("export", ("csv",), AUDITPLANE, ORDINARY), at_least=40),
    Target(
        "CSV in zstd: share of a static file", _times("export", ("zstd",), AUDITPLANE, STATIC), at_least=0.5
    ),
    Target("JSON array: share of the CSV rate", _within("export", "json", "csv"), at_least=0.6),
    Target("most memory, MB", _memory, below=250),
    Target("newest 100 by the slowest single filter: p50, ms", _slowest("p50"), below=3),
    Target("newest 100 by the slowest single filter: p99, ms", _slowest("p99"), below=8),
    Target(
        "newest 100 by a single filter: times as slow as at a million, p50",
        _slower_than_a_million,
        below=1.3,
        events=TEN_MILLION,
    ),
    Target(
        "newest 100 by three filters that rarely meet: p99, ms",
        _plain("query", ("three-p99",)),
        below=40,
        events=TEN_MILLION,
    ),
    Target(
        "a word that occurs nowhere: p99, ms",
        _plain("query", ("word-nowhere-p99",)),
        below=50,
        events=TEN_MILLION,
    ),
    Target("bytes an event on disk", _plain("disk", ("bytes",)), below=200),
)
