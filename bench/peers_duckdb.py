"""DuckDB in process: batches by Arrow, each committed; the trail by COPY, in time order."""

import time
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path
from typing import Any, Final

import duckdb
import pyarrow as pa
import pyarrow.json

from bench.dataset import MEMBERS, Dataset
from bench.trail import folder_bytes

NAME: Final = "duckdb"

_FIELDS: Final = pyarrow.json.ParseOptions(
    explicit_schema=pa.schema([(name, pa.string()) for name in MEMBERS])
)
_COLUMNS: Final = ", ".join(f'"{name}"' for name in MEMBERS)
_TABLE: Final = f"""
    CREATE TABLE IF NOT EXISTS events (
        id UUID DEFAULT uuidv7(), "timestamp" TIMESTAMP, {", ".join(f'"{name}" VARCHAR' for name in MEMBERS)}
    )"""
_INSERT: Final = f'INSERT INTO events ("timestamp", {_COLUMNS}) SELECT recorded, {_COLUMNS} FROM batch'  # noqa: S608 - no values
_COPY: Final = """COPY (SELECT * FROM events ORDER BY "timestamp" DESC) TO '/dev/null' (FORMAT csv, HEADER)"""


class DuckDB:
    """An engine (`bench.in_process.Engine`): one file, default settings, which sync each commit."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "events.duckdb"
        self._warm_up()
        self._connection: Any = duckdb.connect(str(self._file))
        self._connection.execute(_TABLE)

    def _warm_up(self) -> None:
        """Has all that DuckDB imports at the first batch imported: that takes seconds."""
        with duckdb.connect(":memory:") as connection:
            connection.register("batch", pyarrow.json.read_json(BytesIO(b'{"user":"x"}')))
            connection.execute("SELECT * FROM batch")

    def version(self) -> str:
        """Its version."""
        return f"DuckDB {duckdb.__version__}"

    def record(self, dataset: Dataset, which: range) -> list[float]:
        """Inserts batches from their JSON. Timestamps are the time, a microsecond apart."""
        marks = []
        began = time.perf_counter()
        for ndjson in dataset.ndjson(which):
            events = pyarrow.json.read_json(BytesIO(ndjson), parse_options=_FIELDS)
            now = datetime.now(UTC).replace(tzinfo=None)
            times = [now + timedelta(microseconds=step) for step in range(len(events))]
            self._connection.register(
                "batch", events.append_column("recorded", pa.array(times, pa.timestamp("us")))
            )
            self._connection.execute(_INSERT)
            marks.append(time.perf_counter() - began)
        return marks

    def drain_csv(self) -> float:
        """COPY of all in time order."""
        began = time.perf_counter()
        self._connection.execute(_COPY)
        return time.perf_counter() - began

    def stored(self) -> int:
        """The number of rows."""
        return int(self._connection.execute("SELECT count(*) FROM events").fetchone()[0])

    def disk_bytes(self) -> int:
        """The file and what lies beside it."""
        self._connection.execute("CHECKPOINT")
        return folder_bytes(self._file.parent)

    def close(self) -> None:
        """Closes the file."""
        self._connection.close()
