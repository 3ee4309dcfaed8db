"""The names of all parts, systems and measures, in the order in which they are shown."""

from typing import Final

from bench.measure import Measure
from bench.servers import AUDITPLANE, NOTHING, ORDINARY, STATIC

SYSTEMS: Final = {
    AUDITPLANE: "Auditplane",
    ORDINARY: "FastAPI + SQLAlchemy + SQLite",
    "duckdb": "DuckDB",
    "chdb": "ClickHouse (chdb)",
    "postgresql": "PostgreSQL COPY",
    NOTHING: "a POST that stores nothing",
    STATIC: "a static file",
}
PARTS: Final = {
    "record_batches": "Recording in batches of 1,000, durable",
    "record_single": "Recording one event a request",
    "export": "The whole trail, newest first",
    "query": "The newest 100 events, one request after the other",
    "disk": "Space on disk",
}

BY_ONE_FILTER: Final = {
    "user": "user",
    "configuration": "configuration, all versions",
    "version": "configuration and version",
    "kind": "resource kind",
    "action": "action",
    "name": "resource name",
    "dates": "dates: a hundredth of the trail's time",
    "word-common": "a word in a sixth of all events",
    "word-rare": "a word in hardly any event",
}
_QUESTIONS: Final = {
    "newest": "no filter",
    **BY_ONE_FILTER,
    "three": "user, configuration and action that rarely meet",
    "word-nowhere": "a word that occurs nowhere",
}

MEASURES: Final = (
    Measure("record_batches", "rate-1", "one connection, or in process", "events/s"),
    Measure("record_batches", "rate-2", "two connections", "events/s"),
    Measure("record_batches", "rate-unsynced", "without fsync", "events/s"),
    Measure("record_batches", "rate-first", "the first 100,000", "events/s"),
    Measure("record_batches", "rate-last", "the last 100,000", "events/s"),
    Measure("record_batches", "rate-all-in", "all, with the upkeep that follows", "events/s"),
    Measure("record_batches", "memory", "most memory", "MB", less_is_better=True),
    Measure("record_single", "rate-8", "8 connections", "requests/s"),
    Measure("record_single", "p50-8", "8 connections, p50", "ms", less_is_better=True),
    Measure("record_single", "p99-8", "8 connections, p99", "ms", less_is_better=True),
    Measure("record_single", "rate-64", "64 connections", "requests/s"),
    Measure("record_single", "p50-64", "64 connections, p50", "ms", less_is_better=True),
    Measure("record_single", "p99-64", "64 connections, p99", "ms", less_is_better=True),
    Measure("export", "csv", "CSV", "events/s"),
    Measure("export", "zstd", "CSV in zstd", "events/s"),
    Measure("export", "json", "JSON array", "events/s"),
    Measure("export", "ndjson", "NDJSON", "events/s"),
    Measure("export", "memory-csv", "most memory, CSV", "MB", less_is_better=True),
    Measure("export", "memory-zstd", "most memory, CSV in zstd", "MB", less_is_better=True),
    Measure("export", "memory-json", "most memory, JSON array", "MB", less_is_better=True),
    Measure("export", "memory-ndjson", "most memory, NDJSON", "MB", less_is_better=True),
    *(
        Measure("query", f"{name}-{share}", f"{label}, {share}", "ms", less_is_better=True)
        for name, label in _QUESTIONS.items()
        for share in ("p50", "p99")
    ),
    Measure("disk", "bytes", "after a clean stop", "bytes/event", less_is_better=True),
)
