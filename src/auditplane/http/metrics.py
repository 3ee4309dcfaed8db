"""What an operator watches, in the text format of Prometheus.

With several workers each keeps its counts in a file of PROMETHEUS_MULTIPROC_DIR, which `serve` sets, and
whichever is asked adds them up. No label names an account, a user or a key.
"""

import os
import resource
import shutil
import threading
import time
from contextlib import suppress
from http import HTTPStatus
from pathlib import Path
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

from auditplane import __version__, errors
from auditplane.store.sqlite.database import memory_bytes
from auditplane.store.sqlite.folder import last_backup_us
from auditplane.times import SECOND_US

if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
    # It would ask the system for the process's id at each count, in case of a fork; workers never fork.
    _PID: Final = os.getpid()
    values.ValueClass = values.MultiProcessValue(lambda: _PID)  # type: ignore[no-untyped-call]

METHODS: Final = frozenset(("GET", "HEAD", "POST", "DELETE", "PUT", "PATCH", "OPTIONS"))
CONTENT_TYPE: Final = CONTENT_TYPE_LATEST
SERIES_MAX: Final = 300
"""Of requests: more would not fit into the file that lies on the disk wholly."""
OTHER: Final = "other"
OPEN_FILES_SECONDS: Final = 10.0
_BUCKETS: Final = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
BUG: Final = "bug"
SIGN_IN: Final = "/sign-in"
_REASONS: Final = (
    errors.AuditplaneError,
    errors.Damaged,
    errors.FolderInUse,
    errors.LogMissing,
    errors.NewerFormat,
    errors.ProofError,
    errors.StorageFull,
    errors.StoreError,
    errors.Unavailable,
)


def _sum(name: str, help: str) -> Gauge:  # noqa: A002 - as Prometheus calls it
    """A gauge of which the values of all processes are added up."""
    return Gauge(name, help, multiprocess_mode="livesum")


def _most(name: str, help: str) -> Gauge:  # noqa: A002
    """A gauge of which the greatest value of all processes counts."""
    return Gauge(name, help, multiprocess_mode="livemax")


def _last(name: str, help: str) -> Gauge:  # noqa: A002
    """A gauge of which the newest value counts."""
    return Gauge(name, help, multiprocess_mode="livemostrecent")


REQUEST_SECONDS: Final = Histogram(
    "auditplane_request_seconds", "Time until an answer began.", ["route", "method", "status"],
    buckets=_BUCKETS,
)  # fmt: skip
REQUESTS_UNDER_WAY: Final = _sum("auditplane_requests_under_way", "Requests that are being answered.")
STREAMS: Final = _sum("auditplane_streams", "Long answers under way.")
EVENTS_RECORDED: Final = Counter("auditplane_events_recorded", "Events that were recorded and acknowledged.")
EVENTS_WAITING: Final = _sum("auditplane_events_waiting", "Events that wait to be committed.")
CONNECTIONS: Final = _sum("auditplane_connections", "Open connections.")
CONNECTIONS_LIMIT: Final = _sum("auditplane_connections_limit", "Connections that there may be.")
CUT_OFF: Final = Counter(
    "auditplane_cut_off", "Connections that asked for nothing, and readers that took nothing, too long.",
    ["reason"],
)  # fmt: skip
for reason in ("idle", "stalled"):
    CUT_OFF.labels(reason)
COMMIT_SECONDS: Final = Histogram(
    "auditplane_commit_seconds", "Time that a commit of events took, with its sync to the disk.",
    buckets=_BUCKETS,
)  # fmt: skip
REFUSED: Final = Counter(
    "auditplane_refused", "Requests that failed or were refused for reasons of the server's.", ["reason"]
)
for reason in (*(kind.__name__ for kind in _REASONS), BUG):
    REFUSED.labels(reason)  # from the beginning: what grows from nothing looks like no growth
KEYS_TRIED: Final = Counter(
    "auditplane_keys_tried", "Answers of 401, and of 429 to signing in: keys that don't work."
)
HEALTHY: Final = _last("auditplane_healthy", "1 while events can be recorded, as /health tells; else 0.")
DISK_FREE: Final = _last("auditplane_disk_free_bytes", "Room that is left on the disk of the data folder.")
DISK_SIZE: Final = _last("auditplane_disk_size_bytes", "Room that the disk of the data folder has in all.")
BACKUP_TIME: Final = _last(
    "auditplane_backup_timestamp_seconds", "When the last `auditplane backup` was begun; 0 if none was."
)
LINES_LEFT_OUT: Final = Counter(
    "auditplane_log_lines_left_out", "Log lines that were left out as nobody read standard error."
)

# Those of upkeep, which the process that runs the workers sets.
ACCOUNTS: Final = _last("auditplane_accounts", "Accounts that have a log.")
UNSEALED: Final = _last("auditplane_unsealed_events", "Recorded events that upkeep has not come to.")
WAL: Final = _last("auditplane_wal_bytes", "What stands in write-ahead logs.")
PURGE_LAG: Final = _last(
    "auditplane_purge_lag_seconds", "For how long the oldest of what has expired waits to be destroyed."
)
CHECKPOINT_LAG: Final = _last(
    "auditplane_checkpoint_lag_seconds",
    "For how long the oldest event that no fetched checkpoint covers waits for one.",
)
UPKEEP_FAILING: Final = _last("auditplane_upkeep_failing_accounts", "Accounts of which upkeep fails.")
UPKEEP_TIME: Final = _last("auditplane_upkeep_timestamp_seconds", "When upkeep last came round.")
TLS_EXPIRY: Final = _last(
    "auditplane_tls_certificate_expiry_timestamp_seconds", "When the TLS certificate ends; 0 without TLS."
)

# Those of the processes.
BUILD: Final = Gauge(
    "auditplane_build_info", "1 for the version that runs.", ["version"], multiprocess_mode="livemax"
)
START_TIME: Final = _last("auditplane_start_timestamp_seconds", "When the server was started.")
WORKERS: Final = _sum("auditplane_workers", "Processes that serve requests.")
WORKERS_STARTED: Final = Counter("auditplane_workers_started", "Processes that began to serve requests.")
CPU_SECONDS: Final = Counter("auditplane_cpu_seconds", "Processor time of all processes.")
MEMORY: Final = _sum("auditplane_memory_bytes", "Memory that all processes hold.")
DATABASE_MEMORY: Final = _sum(
    "auditplane_database_memory_bytes", "Of that, what SQLite holds: pages of databases, mostly."
)
THREADS: Final = _sum("auditplane_threads", "Threads of all processes.")
OPEN_FILES: Final = _most("auditplane_open_files", "Open files of the process that has most.")
OPEN_FILES_LIMIT: Final = _most("auditplane_open_files_limit", "Open files that a process may have.")


def count_failure(error: Exception) -> None:
    """Counts a request that failed, or an answer that broke off, by a fault of the server's."""
    REFUSED.labels(reason_of(error)).inc()


def reason_of(error: Exception) -> str:
    """The class of an error, or its nearest ancestor that is counted; a word for what is none of ours."""
    return next((kind.__name__ for kind in type(error).__mro__ if kind in _REASONS), BUG)


def known_method(method: str) -> str:
    """A method that is served, or a word for all others."""
    return method if method in METHODS else OTHER


_series: Final[dict[tuple[str, str, int], Histogram]] = {}


def count_request(route: str, method: str, status: int, seconds: float) -> None:
    """Counts a request whose answer began after so many seconds."""
    if status == HTTPStatus.UNAUTHORIZED or (status == HTTPStatus.TOO_MANY_REQUESTS and route == SIGN_IN):
        KEYS_TRIED.inc()  # one series that is always there: that of a route begins with its first answer
    key = (route, known_method(method), status)
    found = _series.get(key)
    if found is None:
        if len(_series) >= SERIES_MAX:
            key = (OTHER, OTHER, status)
        found = _series[key] = REQUEST_SECONDS.labels(key[0], key[1], str(status))
    found.observe(seconds)


class Process:
    """Measures this process, now and then."""

    def __init__(self) -> None:
        BUILD.labels(__version__).set(1)
        self._cpu_seconds = 0.0
        self._files_counted = float("-inf")

    def measure(self) -> None:
        """Sets what is known of the process."""
        spent = time.process_time()
        CPU_SECONDS.inc(max(0.0, spent - self._cpu_seconds))
        self._cpu_seconds = spent
        MEMORY.set(_memory_bytes())
        DATABASE_MEMORY.set(memory_bytes())
        THREADS.set(_threads())
        if time.monotonic() > self._files_counted + OPEN_FILES_SECONDS:  # of many it takes milliseconds
            self._files_counted = time.monotonic()
            OPEN_FILES_LIMIT.set(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
            with suppress(OSError):
                OPEN_FILES.set(sum(1 for _ in Path("/dev/fd").iterdir()))


def _threads() -> int:
    """All of the process; where the system does not tell, those of Python."""
    with suppress(OSError):
        return sum(1 for _ in Path("/proc/self/task").iterdir())
    return threading.active_count()


def _memory_bytes() -> int:
    """What the process holds in memory now; where the system does not tell, what it ever held."""
    with suppress(OSError, IndexError, ValueError):
        return int(Path("/proc/self/statm").read_bytes().split()[1]) * resource.getpagesize()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def exposition(folder: Path) -> bytes:
    """All metrics of all workers, and of the disk that a data folder is on."""
    with suppress(OSError):
        disk = shutil.disk_usage(folder)
        DISK_FREE.set(disk.free)
        DISK_SIZE.set(disk.total)
    BACKUP_TIME.set((last_backup_us(folder) or 0) / SECOND_US)
    registry = REGISTRY
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return generate_latest(registry)
