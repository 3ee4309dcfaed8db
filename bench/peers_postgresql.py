"""PostgreSQL by raw COPY, in a cluster made for it, where `initdb` is installed.

For root it runs as the user postgres, as it does not run as root.
"""

import csv
import io
import json
import os
import shutil
import signal
import tempfile
import time
from pathlib import Path
from typing import Any, Final

import psycopg

from bench.dataset import MEMBERS, Dataset
from bench.processes import START_SECONDS_MAX, Failed, Program, free_port, run_as, start
from bench.trail import digest

NAME: Final = "postgresql"
SERVER_USER: Final = "postgres"

_COLUMNS: Final = ", ".join(f'"{name}"' for name in MEMBERS)
_TABLE: Final = f"""
    CREATE TABLE IF NOT EXISTS events (
        id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
        "timestamp" timestamptz NOT NULL DEFAULT clock_timestamp(),
        {", ".join(f'"{name}" text NOT NULL' for name in MEMBERS)}
    );
    CREATE INDEX IF NOT EXISTS events_timestamp ON events ("timestamp");
    CREATE INDEX IF NOT EXISTS events_user ON events ("user", "timestamp");
    CREATE INDEX IF NOT EXISTS events_configuration ON events (configuration, "timestamp");"""
_RECORD: Final = f"COPY events ({_COLUMNS}) FROM STDIN (FORMAT csv)"
_COPY: Final = """COPY (SELECT * FROM events ORDER BY "timestamp" DESC) TO '/dev/null' (FORMAT csv, HEADER)"""


class PostgreSQL:
    """A trail (`bench.trail.Trail`) in a cluster with default settings, as Debian's package has them."""

    name = NAME

    def __init__(self, folder: Path, log: Path) -> None:
        self.folder = folder
        self._log = log
        self._programs = _programs()
        self._user = SERVER_USER if os.geteuid() == 0 else None
        self._program: Program | None = None
        self._connection: Any = None

    @property
    def missing(self) -> str:
        """Says so where there is no initdb."""
        return "" if self._programs else "initdb is not installed"

    @property
    def fingerprint(self) -> str:
        """Changes with this file, and with the place of the programs, which names the version."""
        return digest([Path(__file__)], str(self._programs))

    @property
    def pid(self) -> int:
        """The postmaster."""
        return self._running.pid

    @property
    def _running(self) -> Program:
        if self._program is None:
            raise Failed("PostgreSQL was not started")
        return self._program

    def version(self) -> str:
        """The version of the server."""
        return f"PostgreSQL {self._one('SHOW server_version')}"

    def clear(self) -> None:
        """Removes the cluster, wherever it is."""
        place = self.folder / "place"
        if place.exists():
            shutil.rmtree(place.read_text(), ignore_errors=True)
        shutil.rmtree(self.folder, ignore_errors=True)

    def start(self) -> None:
        """Starts it; makes the cluster and the table the first time."""
        if self._programs is None:
            raise Failed(self.missing)
        cluster = self._cluster()
        if not (cluster / "PG_VERSION").exists():
            self._make(self._programs / "initdb", cluster)
        port = free_port()
        options = {"listen_addresses": "127.0.0.1", "port": str(port), "unix_socket_directories": ""}
        settings = [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
        self._program = start(
            [self._programs / "postgres", "-D", cluster, *settings], self._log, user=self._user
        )
        try:
            self._connection = self._connected(port)
        except BaseException:
            self._program.kill()
            raise
        self._connection.execute(_TABLE)

    def _cluster(self) -> Path:
        """Its folder: below `folder`, or in /var/tmp where the server's user may not enter that."""
        self.folder.mkdir(parents=True, exist_ok=True)
        place = self.folder / "place"
        if not place.exists():
            inside = Path(tempfile.mkdtemp(dir=self.folder))
            self._give(inside)
            if run_as(self._user, ["test", "-w", inside]).returncode:
                inside.rmdir()
                inside = Path(tempfile.mkdtemp(dir="/var/tmp", prefix="auditplane-bench-"))
                self._give(inside)
            place.write_text(str(inside))
        return Path(place.read_text())

    def _give(self, folder: Path) -> None:
        if self._user is not None:
            shutil.chown(folder, self._user, self._user)

    def _make(self, initdb: Path, cluster: Path) -> None:
        command: list[str | Path] = [
            initdb,
            "-D",
            cluster,
            "-U",
            SERVER_USER,
            "-A",
            "trust",
            "-E",
            "UTF8",
            "--locale=C",
        ]
        done = run_as(self._user, command)
        if done.returncode:
            raise Failed(f"initdb: {done.stderr}")

    def _connected(self, port: int) -> Any:
        deadline = time.monotonic() + START_SECONDS_MAX
        while True:
            self._running.check()
            try:
                return psycopg.connect(
                    host="127.0.0.1", port=port, user=SERVER_USER, dbname="postgres", autocommit=True
                )
            except psycopg.OperationalError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)

    def stop(self) -> None:
        """Brings the table in order, as autovacuum would within a minute, and ends by the fast shutdown."""
        if self._connection is not None:
            self._connection.execute("VACUUM ANALYZE events")
            self._connection.close()
            self._connection = None
        program, self._program = self._program, None
        if program is not None:
            program.stop(signal.SIGINT)

    def record(self, dataset: Dataset, which: range, connections: int) -> list[float]:  # noqa: ARG002 - always one
        """Copies batches in, one a transaction; ids and timestamps are the table's defaults."""
        marks = []
        began = time.perf_counter()
        for ndjson in dataset.ndjson(which):
            events = json.loads(b"[" + ndjson[:-1].replace(b"\n", b",") + b"]")
            text = io.StringIO()
            # An empty text is quoted, as one without quotes would be NULL.
            rows = csv.writer(text, quoting=csv.QUOTE_ALL)
            rows.writerows([event.get(name, "") for name in MEMBERS] for event in events)
            with self._connection.cursor() as cursor, cursor.copy(_RECORD) as copy:
                copy.write(text.getvalue())
            marks.append(time.perf_counter() - began)
        return marks

    def drain_csv(self) -> float:
        """The server copies all in time order into no file."""
        began = time.perf_counter()
        self._connection.execute(_COPY)
        return time.perf_counter() - began

    def stored(self) -> int:
        """The number of rows."""
        return int(self._one("SELECT count(*) FROM events"))

    def disk_bytes(self) -> int:
        """The table and its indexes, without the write-ahead log; opens it to ask."""
        self.start()
        try:
            return int(self._one("SELECT pg_total_relation_size('events')"))
        finally:
            self.stop()

    def _one(self, query: str) -> str:
        return str(self._connection.execute(query).fetchone()[0])


def _programs() -> Path | None:
    """Where initdb and postgres are: Debian does not put them on the PATH."""
    found = [Path(name) for name in filter(None, [shutil.which("initdb")])]
    found += sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: -float(path.parts[4]))
    return found[0].resolve().parent if found else None
