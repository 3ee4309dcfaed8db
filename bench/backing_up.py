"""How long single events wait to be recorded while a backup is made: `python -m bench.backing_up`.

Four connections record one event at a time. That is measured alone, while `auditplane backup` runs, and while
SQLite's VACUUM INTO, the other way to copy a database in use, copies the same log.
"""

import argparse
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from bench import dataset
from bench.client import Connection, Target
from bench.processes import executable, free_port, start, wait_for_http

CONNECTIONS: Final = 4
ALONE_SECONDS: Final = 5.0
EVENT: Final = {"user": "ann", "action": "Modified", "resourceKind": "Agent", "resourceName": "host"}
VACUUM: Final = "import apsw, sys; list(apsw.Connection(sys.argv[1]).execute('VACUUM INTO ?', sys.argv[2:]))"


class Load:
    """Records one event after the other on each connection, and notes how long each took."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._stopping = threading.Event()
        self._noted: list[tuple[float, float]] = []
        self._threads = [threading.Thread(target=self._run) for _ in range(CONNECTIONS)]
        for thread in self._threads:
            thread.start()

    def _run(self) -> None:
        request = self._target.post("/v1/audit-events", json.dumps(EVENT).encode())
        with Connection(self._target.port) as connection:
            while not self._stopping.is_set():
                began = time.perf_counter()
                connection.ask(request)
                self._noted.append((began, time.perf_counter() - began))

    def during(self, name: str, work: Callable[[], object]) -> None:
        """Does some work and prints what it did to those who record."""
        began = time.perf_counter()
        work()
        ended = time.perf_counter()
        waits = sorted(wait for at, wait in list(self._noted) if began <= at < ended)
        rate = len(waits) / (ended - began)
        p50, p99, most = (waits[int(len(waits) * share)] * 1e3 for share in (0.5, 0.99, 1 - 1e-9))
        shown = f"{ended - began:6.1f} s {rate:8,.0f} events/s   p50 {p50:5.1f} ms   p99 {p99:5.1f} ms"
        print(f"{name:<18} {shown}   longest {most:5.0f} ms", flush=True)

    def stop(self) -> None:
        """Ends."""
        self._stopping.set()
        for thread in self._threads:
            thread.join()


def main() -> None:
    """Fills a server, and measures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=1_000_000)
    events = parser.parse_args().events
    with TemporaryDirectory(prefix="auditplane-backing-up-") as name:
        folder = Path(name)
        port = free_port()
        program: list[str | Path] = [
            executable("auditplane"),
            "serve",
            "--data",
            folder / "data",
            "--port",
            str(port),
        ]
        server = start(program, folder / "server.log")
        try:
            wait_for_http(server, port, "/health")
            _measure(folder, port, events)
        finally:
            server.stop()


def _measure(folder: Path, port: int, events: int) -> None:
    key = (folder / "data" / "admin.key").read_text().strip()
    log = folder / "data" / "accounts" / "default.db"
    _fill(Target(port, {"X-Bindplane-Api-Key": key, "Content-Type": "application/x-ndjson"}), folder, events)
    print(f"{events:,} events, {log.stat().st_size / 1e6:,.0f} MB", flush=True)
    load = Load(Target(port, {"X-Bindplane-Api-Key": key}))
    try:
        backup: list[str | Path] = [
            executable("auditplane"),
            "backup",
            folder / "backup",
            "--data",
            folder / "data",
        ]
        vacuum: list[str | Path] = [sys.executable, "-c", VACUUM, log, folder / "vacuum.db"]
        load.during("alone", lambda: time.sleep(ALONE_SECONDS))
        load.during("auditplane backup", lambda: subprocess.run(backup, check=True, capture_output=True))
        load.during("alone", lambda: time.sleep(ALONE_SECONDS))
        load.during("VACUUM INTO", lambda: subprocess.run(vacuum, check=True, capture_output=True))
    finally:
        load.stop()


def _fill(target: Target, folder: Path, events: int) -> None:
    made = dataset.load(folder / "dataset", events)
    with Connection(target.port) as connection:
        for lines in made.ndjson(range(made.batches)):
            connection.ask(_lines(target, lines))
    time.sleep(ALONE_SECONDS)  # until what was recorded is sealed


def _lines(target: Target, lines: bytes) -> bytes:
    """A request with a body of NDJSON."""
    head = [f"POST /v1/audit-events HTTP/1.1\r\nHost: 127.0.0.1:{target.port}"]
    head += [f"{name}: {value}" for name, value in {**target.headers, "Content-Length": len(lines)}.items()]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + lines


if __name__ == "__main__":
    main()
