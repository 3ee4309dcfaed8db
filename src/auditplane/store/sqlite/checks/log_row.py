"""The row that says where a log stands."""

from typing import NamedTuple

import apsw

from auditplane.store.sqlite.checks import QUERIES
from auditplane.store.sqlite.database import fetch


class Log(NamedTuple):
    """The row of the table `log`."""

    size: int
    live: int
    newest_us: int
    at_us: int
    low: int
    high: int
    overflow_us: int
    sealed: int
    crowded: int
    tiled: int
    expired: int
    purged: int
    expired_high: int
    markings: int
    wal_due: int
    retention_days: int | None


def log_row(connection: apsw.Connection) -> Log:
    """Where the log stands; ValueError when it does not say."""
    rows = fetch(connection, QUERIES["log"])
    if len(rows) != 1:
        raise ValueError(f"it has {len(rows)} rows in place of one")
    log = Log(*rows[0])
    if log.size < 0:
        raise ValueError(f"it has the size {log.size}")
    return log
