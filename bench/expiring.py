"""How long single events wait to be recorded while very many expire: `python -m bench.expiring`.

A log of events that were recorded 100 days ago is served, and then given a retention of 30 days, so that all
of them expire at once. Four connections record one event at a time: before, and until all is destroyed.
"""

import argparse
import json
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from auditplane import log
from auditplane.event import Rules, parse
from auditplane.store.sqlite import sealing
from auditplane.store.sqlite.folder import DataFolder
from auditplane.times import DAY_US
from bench import dataset
from bench.backing_up import ALONE_SECONDS, Load
from bench.client import Connection, Target
from bench.processes import executable, free_port, start, wait_for_http

AGE_DAYS: Final = 100
KEPT_DAYS: Final = 30
POLL_SECONDS: Final = 0.5


def main() -> None:
    """Fills a folder, serves it, and measures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=1_000_000)
    events = parser.parse_args().events
    with TemporaryDirectory(prefix="auditplane-expiring-") as name:
        folder = Path(name)
        _fill(folder, events)
        port = free_port()
        program: list[str | Path] = [executable("auditplane"), "serve", "--data", folder / "data"]
        server = start([*program, "--port", str(port)], folder / "server.log")
        try:
            wait_for_http(server, port, "/health")
            _measure(folder, port, events)
        finally:
            server.stop()


def _fill(folder: Path, events: int) -> None:
    """Events as they would be, had they been recorded long ago."""
    made = dataset.load(folder / "dataset", events)
    data = DataFolder(folder / "data")
    rules = Rules()
    with data.account("default", may_begin=True) as store:
        for lines in made.ndjson(range(made.batches)):
            request = log.Request(parse(lines, rules, lines=True), "bench")
            log.record(store, [request], lambda: log.clock() - AGE_DAYS * DAY_US)
            while sealing.tend(store):
                pass
        sealing.settle(store)
    data.close()


def _measure(folder: Path, port: int, events: int) -> None:
    target = Target(port, {"X-Bindplane-Api-Key": (folder / "data" / "admin.key").read_text().strip()})
    log_file = folder / "data" / "accounts" / "default.db"
    print(f"{events:,} events, {log_file.stat().st_size / 1e6:,.0f} MB", flush=True)
    load = Load(target)
    try:
        load.during("alone", lambda: time.sleep(ALONE_SECONDS))
        load.during("hiding", lambda: _ask(target, _put(target)))
        load.during("destroying", lambda: _wait_until_told(target))
        load.during("alone", lambda: time.sleep(ALONE_SECONDS))
    finally:
        load.stop()
    print(f"{log_file.stat().st_size / 1e6:,.0f} MB are left", flush=True)


def _put(target: Target) -> bytes:
    body = json.dumps({"days": KEPT_DAYS}).encode()
    return target.post("/v1/retention", body).replace(b"POST", b"PUT", 1)


def _ask(target: Target, request: bytes) -> bytes:
    with Connection(target.port) as connection:
        return connection.ask(request).body


def _wait_until_told(target: Target) -> None:
    """Until the log tells of the purge, which is its end."""
    asked = target.get("/v1/audit-events?resource-kind=AuditTrail&action=Deleted&limit=1")
    while b"purgedBefore" not in _ask(target, asked):
        time.sleep(POLL_SECONDS)


if __name__ == "__main__":
    main()
