"""What a server that runs takes: memory, threads, open files, processor, and the room of its data folder."""

import contextlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import quantiles
from typing import Final

from prometheus_client.multiprocess import MultiProcessCollector

from bench.processes import tree
from server import Server

MB: Final = 1_000_000


@dataclass(frozen=True)
class Usage:
    """What a process takes. Of memory that it shares with others it has its share (PSS)."""

    memory_bytes: int
    threads: int
    handles: int


def processes(server: Server) -> Mapping[str, Usage]:
    """What each process of a server takes: `main`, the workers `worker 1` and on, and what helps them."""
    found: dict[str, Usage] = {}
    workers = 0
    for pid in tree(server.process.pid):
        with contextlib.suppress(OSError):
            name = _name(pid, server)
            if name == "worker":
                workers += 1
                name = f"worker {workers}"
            found[name] = _usage(Path(f"/proc/{pid}"))
    return found


def memory_bytes(server: Server) -> int:
    """The memory of all processes of a server."""
    total = 0
    for pid in tree(server.process.pid):
        with contextlib.suppress(OSError):
            total += _pss(Path(f"/proc/{pid}"))
    return total


def database_bytes(server: Server) -> int:
    """What SQLite holds in all processes of a server, as they tell without being asked."""
    files = [str(file) for file in (server.data / "metrics").glob("gauge_livesum_*.db")]
    families = MultiProcessCollector.merge(files)  # type: ignore[no-untyped-call]
    (held,) = (each for each in families if each.name == "auditplane_database_memory_bytes")
    return int(sum(sample.value for sample in held.samples))


def wal_bytes(data: Path) -> Mapping[str, int]:
    """The size of each write-ahead log of a data folder."""
    found = {}
    for path in [*data.glob("*.db-wal"), *data.glob("accounts/*.db-wal")]:
        with contextlib.suppress(OSError):
            found[path.name.removesuffix(".db-wal")] = path.stat().st_size
    return found


def folder_bytes(data: Path) -> int:
    """The size of all files of a data folder."""
    total = 0
    for path in data.rglob("*"):
        with contextlib.suppress(OSError):
            total += path.stat().st_size
    return total


def p99(values: list[float]) -> float:
    """What one in a hundred exceeds; 0 when there are none."""
    return quantiles(values, n=100)[-1] if len(values) > 1 else sum(values)


def complaints(path: Path) -> list[str]:
    """The lines of a server's log that tell of errors, and those that are no lines of such a log."""
    found = []
    for line in path.read_text(errors="replace").splitlines():
        if re.match(r'\{"time":', line):
            said = json.loads(line)
            if said["level"] == "error" or "exception" in said:
                found.append(f"the server logged: {said['message'][:300]} {said.get('exception', '')[-300:]}")
        elif "Traceback" in line or "panicked" in line:
            found.append(f"the server printed: {line[:500]}")
    return found


def _name(pid: int, server: Server) -> str:
    if pid == server.process.pid:
        return "main"
    return "worker" if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes() else f"helper {pid}"


def _usage(process: Path) -> Usage:
    return Usage(
        _pss(process), len(list((process / "task").iterdir())), len(list((process / "fd").iterdir()))
    )


def _pss(process: Path) -> int:
    for line in (process / "smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return 0
