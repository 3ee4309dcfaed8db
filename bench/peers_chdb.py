"""ClickHouse in process (chdb): batches as JSONEachRow; the trail in time order, which is the table's own."""

import time
from pathlib import Path
from typing import Any, Final

import chdb
from chdb import session

from bench.dataset import Dataset

NAME: Final = "chdb"

_DURABLE: Final = " SETTINGS fsync_after_insert = 1, fsync_part_directory = 1"
_TABLE: Final = """
    CREATE TABLE IF NOT EXISTS audit.{name} (
        id UUID DEFAULT generateUUIDv7(),
        timestamp DateTime64(6, 'UTC') DEFAULT addMicroseconds(now64(6, 'UTC'), rowNumberInBlock()),
        resourceName String, description String, resourceKind LowCardinality(String), configuration String,
        action LowCardinality(String), user LowCardinality(String)
    ) ENGINE = MergeTree ORDER BY timestamp"""
_COPY: Final = (
    "SELECT * FROM audit.events ORDER BY timestamp DESC INTO OUTFILE '/dev/null' TRUNCATE FORMAT CSVWithNames"
)
_BYTES: Final = """
    SELECT sum(bytes_on_disk) FROM system.parts WHERE active AND database = 'audit' AND table = 'events'"""


class ClickHouse:
    """An engine (`bench.in_process.Engine`): a MergeTree, told to sync each insert."""

    def __init__(self, folder: Path) -> None:
        self._session: Any = session.Session(str(folder / "clickhouse"))
        self._session.query("CREATE DATABASE IF NOT EXISTS audit ENGINE = Atomic")
        self._session.query(_TABLE.format(name="events") + _DURABLE)

    def version(self) -> str:
        """The versions of chdb and of the ClickHouse in it."""
        return f"chdb {chdb.__version__}, ClickHouse {self._one('SELECT version()')}"

    def record(self, dataset: Dataset, which: range) -> list[float]:
        """Inserts batches as they are; ids and timestamps are the table's defaults."""
        return self._insert("events", dataset, which)

    def record_unsynced(self, dataset: Dataset, which: range) -> list[float]:
        """The same as ClickHouse does it by itself, without fsync, into a table that is dropped again."""
        self._session.query(_TABLE.format(name="unsynced"))
        marks = self._insert("unsynced", dataset, which)
        self._session.query("DROP TABLE audit.unsynced SYNC")
        return marks

    def _insert(self, table: str, dataset: Dataset, which: range) -> list[float]:
        marks = []
        began = time.perf_counter()
        for ndjson in dataset.ndjson(which):
            self._session.query(f"INSERT INTO audit.{table} FORMAT JSONEachRow {ndjson.decode()}")
            marks.append(time.perf_counter() - began)
        return marks

    def drain_csv(self) -> float:
        """All in time order, into no file."""
        began = time.perf_counter()
        self._session.query(_COPY)
        return time.perf_counter() - began

    def stored(self) -> int:
        """The number of rows."""
        return int(self._one("SELECT count() FROM audit.events"))

    def disk_bytes(self) -> int:
        """The parts in use; those that were merged are still about for some minutes."""
        return int(self._one(_BYTES))

    def _one(self, query: str) -> str:
        return str(self._session.query(query, "TSV").bytes().decode().strip())

    def close(self) -> None:
        """Closes the session."""
        self._session.close()
