"""What an operator watches, in the text format of Prometheus.

With several workers each keeps its counts in a file of PROMETHEUS_MULTIPROC_DIR, which `serve` sets, and
whichever is asked adds them up. No label names an account, a user or a key.
"""

import os
from functools import lru_cache
from typing import Final

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    REGISTRY,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
    values,
)
from prometheus_client.multiprocess import MultiProcessCollector

if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
    # It would ask the system for the process's id at each count, in case of a fork; workers never fork.
    _PID: Final = os.getpid()
    values.ValueClass = values.MultiProcessValue(lambda: _PID)  # type: ignore[no-untyped-call]

METHODS: Final = frozenset(("GET", "HEAD", "POST", "DELETE", "PUT", "PATCH", "OPTIONS"))
CONTENT_TYPE: Final = CONTENT_TYPE_LATEST

REQUEST_SECONDS: Final = Histogram(
    "auditplane_request_seconds", "Time until an answer began.", ["route", "method", "status"],
    buckets=(0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0),
)  # fmt: skip
EVENTS_RECORDED: Final = Counter("auditplane_events_recorded", "Events that were recorded and acknowledged.")
EVENTS_WAITING: Final = Gauge(
    "auditplane_events_waiting", "Events that wait to be committed.", multiprocess_mode="livesum"
)
CONNECTIONS: Final = Gauge("auditplane_connections", "Open connections.", multiprocess_mode="livesum")
STREAMS: Final = Gauge("auditplane_streams", "Long answers under way.", multiprocess_mode="livesum")
COMMIT_SECONDS: Final = Histogram(
    "auditplane_commit_seconds", "Time that a commit of events took, with its sync to the disk.",
    buckets=(0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0),
)  # fmt: skip
REFUSED: Final = Counter(
    "auditplane_refused", "Requests that were refused as the server could not serve them.", ["reason"]
)
CHECKPOINT_TIME: Final = Gauge(
    "auditplane_checkpoint_timestamp_seconds", "When the newest checkpoint that was served was signed.",
    multiprocess_mode="max",
)  # fmt: skip
DISK_FREE: Final = Gauge(
    "auditplane_disk_free_bytes", "Room that is left on the disk of the data folder.",
    multiprocess_mode="mostrecent",
)  # fmt: skip

# Those of upkeep, which the process that runs the workers sets.
UNSEALED: Final = Gauge(
    "auditplane_unsealed_events", "Recorded events that upkeep has not come to.",
    multiprocess_mode="livemostrecent",
)  # fmt: skip
PURGE_LAG: Final = Gauge(
    "auditplane_purge_lag_seconds", "For how long the oldest of what has expired waits to be destroyed.",
    multiprocess_mode="livemostrecent",
)  # fmt: skip
UPKEEP_FAILING: Final = Gauge(
    "auditplane_upkeep_failing_accounts", "Accounts of which upkeep fails.",
    multiprocess_mode="livemostrecent",
)  # fmt: skip


@lru_cache(maxsize=512)
def _request_seconds(route: str, method: str, status: int) -> Histogram:
    return REQUEST_SECONDS.labels(route, method, str(status))


def count_request(route: str, method: str, status: int, seconds: float) -> None:
    """Counts a request whose answer began after so many seconds."""
    _request_seconds(route, method if method in METHODS else "other", status).observe(seconds)


def exposition() -> bytes:
    """All metrics of all workers."""
    registry = REGISTRY
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return generate_latest(registry)
