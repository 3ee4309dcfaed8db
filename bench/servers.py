"""The servers that are spoken to over HTTP: this one, the ordinary one, and the two bare ones."""

import json
import shutil
import sys
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Final
from urllib.parse import urlencode

from bench import bare, ordinary
from bench.client import Connection, Target, post_all, seconds_to_drain
from bench.dataset import Dataset
from bench.processes import (
    ROOT,
    Failed,
    Program,
    executable,
    free_port,
    run_as,
    start,
    wait_for_http,
)
from bench.trail import digest, folder_bytes

SOURCES: Final = ROOT / "src" / "auditplane"
AUDITPLANE: Final = "auditplane"
ORDINARY: Final = "ordinary"
NOTHING: Final = "nothing"
STATIC: Final = "static"

# The filters of the ordinary server, by the names of this one's.
_ORDINARY_FILTERS: Final = {
    "user": "user",
    "configuration-name": "configuration",
    "resource-kind": "kind",
    "action": "action",
    "min-date": "min_date",
    "max-date": "max_date",
    "order": "order",
    "limit": "limit",
}


class HttpServer:
    """A server program: started, asked by GET and POST, stopped."""

    missing = ""

    def __init__(self, name: str, log: Path) -> None:
        self.name = name
        self._log = log
        self._program: Program | None = None
        self.target = Target(0, {})

    @property
    def pid(self) -> int:
        """Its first process."""
        return self._running.pid

    @property
    def _running(self) -> Program:
        if self._program is None:
            raise Failed(f"{self.name} was not started")
        return self._program

    def _launch(
        self, command: list[str | Path], port: int, health: str, env: Mapping[str, str] | None = None
    ) -> None:
        self._program = start(command, self._log, env=env)
        try:
            wait_for_http(self._program, port, health)
        except BaseException:
            self._program.kill()
            raise
        self.target = Target(port, {})

    def stop(self) -> None:
        """Ends it in order."""
        program, self._program = self._program, None
        if program is not None:
            program.stop()

    def get(self, path: str, headers: Mapping[str, str] | None = None) -> bytes:
        """The body of an answer to GET; raises Failed when it is not 2xx."""
        with Connection(self.target.port) as connection:
            return connection.ask(self.target.get(path, headers)).body

    def drain(self, path: str, headers: Mapping[str, str] | None = None) -> float:
        """The seconds until the last byte of an answer to GET."""
        return seconds_to_drain(self.target.port, self.target.get(path, headers, close=True))


class Auditplane(HttpServer):
    """This server, with its default settings but for the number of workers."""

    batch_path = single_path = list_path = "/v1/audit-events"
    csv_path = "/v1/audit-events/download"

    def __init__(self, folder: Path, log: Path, workers: int) -> None:
        super().__init__(AUDITPLANE, log)
        self.folder = folder
        self._data = folder / "data"
        self._key = folder / "key.json"
        self._workers = workers

    @property
    def fingerprint(self) -> str:
        """Changes with the sources."""
        return digest(path for path in SOURCES.rglob("*") if path.suffix in (".py", ".sql"))

    def version(self) -> str:
        """Its version and that of what it stands on."""
        return f"Auditplane {version('auditplane')}, granian {version('granian')}, apsw {version('apsw')}"

    def clear(self) -> None:
        """Removes the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def start(self) -> None:
        """Starts it; the first time it makes an admin's key by the command line."""
        self.folder.mkdir(parents=True, exist_ok=True)
        port = free_port()
        program = executable("auditplane")
        options: list[str | Path] = [
            "--data",
            self._data,
            "--port",
            str(port),
            "--workers",
            str(self._workers),
        ]
        self._launch([program, "serve", *options], port, "/health")
        if not self._key.exists():
            self._key.write_text(self._made_key(program))
        self.target = Target(port, {"X-Bindplane-Api-Key": json.loads(self._key.read_text())["key"]})

    def _made_key(self, program: Path) -> str:
        command: list[str | Path] = [
            program,
            "keys",
            "create",
            "--data",
            self._data,
            "--role",
            "admin",
            "-o",
            "json",
        ]
        done = run_as(None, command)
        if done.returncode:
            raise Failed(f"auditplane keys create: {done.stderr}")
        return done.stdout

    def record(self, dataset: Dataset, which: range, connections: int) -> list[float]:
        """Posts batches as JSON arrays."""
        return post_all(self.target, self.batch_path, dataset.arrays(which), connections)

    def drain_csv(self) -> float:
        """Downloads everything."""
        return self.drain(self.csv_path)

    def stored(self) -> int:
        """The count that it gives."""
        return int(json.loads(self.get("/v1/audit-events/count"))["count"])

    def disk_bytes(self) -> int:
        """Everything in its data folder."""
        return folder_bytes(self._data)

    def newest(self, filters: Mapping[str, str]) -> str:
        """The path of a list."""
        return f"{self.list_path}?{urlencode(filters)}"


class Ordinary(HttpServer):
    """The server of bench/ordinary.py."""

    batch_path, single_path, list_path, csv_path = "/events/batch", "/events", "/events", "/events.csv"

    def __init__(self, folder: Path, log: Path, workers: int) -> None:
        super().__init__(ORDINARY, log)
        self.folder = folder
        self._workers = workers

    @property
    def fingerprint(self) -> str:
        """Changes with the program."""
        return digest([Path(ordinary.__file__)], version("sqlalchemy"))

    def version(self) -> str:
        """The libraries that it is made of."""
        names = ("fastapi", "sqlalchemy", "uvicorn")
        return ", ".join(f"{name} {version(name)}" for name in names) + f", SQLite {_sqlite_version()}"

    def clear(self) -> None:
        """Removes the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def start(self) -> None:
        """Starts it under uvicorn."""
        self.folder.mkdir(parents=True, exist_ok=True)
        port = free_port()
        command = [sys.executable, "-m", "uvicorn", "--factory", "bench.ordinary:create"]
        options = ["--port", str(port), "--workers", str(self._workers), "--no-access-log"]
        database = str(self.folder / "events.db")
        self._launch([*command, *options], port, "/openapi.json", {ordinary.DATABASE: database})

    def record(self, dataset: Dataset, which: range, connections: int) -> list[float]:
        """Posts batches as JSON arrays."""
        return post_all(self.target, self.batch_path, dataset.arrays(which), connections)

    def drain_csv(self) -> float:
        """Downloads everything."""
        return self.drain(self.csv_path)

    def stored(self) -> int:
        """The count that it gives."""
        return int(self.get("/count"))

    def disk_bytes(self) -> int:
        """The database with whatever lies beside it."""
        return folder_bytes(self.folder)

    def newest(self, filters: Mapping[str, str]) -> str | None:
        """The path of a list, or None when it has no such filter."""
        if not filters.keys() <= _ORDINARY_FILTERS.keys():
            return None
        return f"{self.list_path}?{urlencode({_ORDINARY_FILTERS[name]: filters[name] for name in filters})}"


class Bare(HttpServer):
    """A server of bench/bare.py: stores nothing, and sends a file when it is given one."""

    single_path, file_path = "/nothing", "/file"

    def __init__(self, name: str, log: Path, workers: int, file: Path | None = None) -> None:
        super().__init__(name, log)
        self._workers, self._file = workers, file

    def version(self) -> str:
        """The server that it runs on."""
        return f"granian {version('granian')}"

    def start(self) -> None:
        """Starts it on granian."""
        port = free_port()
        files = [] if self._file is None else [self._file]
        command: list[str | Path] = [
            sys.executable,
            "-m",
            bare.__name__,
            str(port),
            str(self._workers),
            *files,
        ]
        self._launch(command, port, "/")
        # Asked with the headers of this server, which it reads and forgets.
        self.target = Target(port, {"X-Bindplane-Api-Key": "ap_" + "0" * 43})


def _sqlite_version() -> str:
    import sqlite3  # noqa: PLC0415 - only to say which one it is

    return sqlite3.sqlite_version
