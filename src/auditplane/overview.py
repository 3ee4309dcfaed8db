"""Stand-in."""

from collections import Counter
from dataclasses import dataclass
from enum import Enum
from auditplane import log
from auditplane.event import decode_docs
from auditplane.times import parse_rfc3339
from auditplane.query import configuration_name


class Member(Enum):
    USER = "user"
    CONFIGURATION = "configuration"
    KIND = "kind"
    ACTION = "action"
    NAME = "name"


@dataclass(frozen=True, slots=True)
class Overview:
    matches: int | None
    counted: int
    exact: bool
    bucket_us: int
    starts_us: list[int]
    series: dict[str, list[int]]
    tops: dict
    oldest_us: int | None
    newest_us: int | None


def overview(store, query, *, stacked, buckets_max=120):
    docs, _, _ = log.page(store, query, 5000)
    ev = decode_docs(docs)
    n = log.count(store, query)
    if not ev:
        return Overview(0, 0, True, 1, [], {}, {m: [] for m in Member}, None, None)
    ts = [parse_rfc3339(e.timestamp) for e in ev]
    lo, hi = min(ts), max(ts)
    w = 86_400_000_000
    for c in (1, 5, 15, 60, 300, 900, 3600, 10800, 21600, 43200, 86400, 604800):
        if (hi - lo) // (c * 1000000) < buckets_max:
            w = c * 1000000
            break
    starts = list(range(lo // w * w, hi + 1, w))
    val = (lambda e: e.action) if stacked is Member.ACTION else (lambda e: e.resourceKind)
    c = Counter(map(val, ev))
    top = [t for t, _ in c.most_common(8)]
    series = {t: [0] * len(starts) for t in top}
    for e, t in zip(ev, ts):
        k = val(e)
        series.setdefault(k if k in top else "", [0] * len(starts))[(t - starts[0]) // w] += 1
    tops = {
        Member.USER: Counter(e.user for e in ev).most_common(10),
        Member.KIND: Counter(e.resourceKind for e in ev).most_common(10),
        Member.ACTION: Counter(e.action for e in ev).most_common(10),
        Member.CONFIGURATION: Counter(
            configuration_name(e.configuration) for e in ev if e.configuration
        ).most_common(10),
    }
    return Overview(n, len(ev), len(ev) == n, w, starts, series, tops, lo, hi)


def suggestions(store, member, text, at_most=10):
    docs, _, _ = log.page(store, __import__("auditplane.query").query.Query(), 5000)
    ev = decode_docs(docs)
    f = {
        "user": lambda e: e.user,
        "kind": lambda e: e.resourceKind,
        "action": lambda e: e.action,
        "name": lambda e: e.resourceName,
        "configuration": lambda e: e.configuration or "",
    }[member.value]
    return [(t, n) for t, n in Counter(map(f, ev)).most_common() if text.lower() in t.lower() and t][:at_most]
