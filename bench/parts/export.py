"""The whole trail, newest first: as CSV from all systems, and in its other forms from this server."""

import hashlib
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Final

from bench.client import Connection
from bench.measure import REPEATS, take_turns
from bench.processes import Failed, watching_memory
from bench.run import Run, calm, say
from bench.servers import STATIC, Auditplane, Bare, HttpServer, Ordinary
from bench.trail import Trail

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

ZSTD: Final = {"Accept-Encoding": "zstd"}
READ_BYTES: Final = 1024 * 1024

# The forms of this server: name, path and headers.
FORMS: Final[Sequence[tuple[str, str, dict[str, str]]]] = (
    ("csv", Auditplane.csv_path, {}),
    ("zstd", Auditplane.csv_path, ZSTD),
    ("json", Auditplane.list_path, {"Accept": "application/json"}),
    ("ndjson", Auditplane.list_path, {"Accept": "application/x-ndjson"}),
)


def run(run: Run) -> None:
    """Checks the answers once, then measures memory, then time."""
    trails = run.filled(run.trails())
    with run.scratch("export") as name, run.started(trails) as started:
        folder = run.folder / name
        folder.mkdir()
        file = folder / "everything.csv.zst"
        shots: dict[tuple[str, str], Callable[[], float]] = {}
        for trail in run.alive(started):
            with run.attempt(trail.name):
                shots |= _prepare(run, trail, file)
        static = run.bare(STATIC, file)
        try:
            if file.exists():
                with run.attempt(STATIC):
                    static.start()
                    shots["zstd", STATIC] = partial(static.drain, Bare.file_path)
            _measure(run, shots)
        finally:
            static.stop()


def _prepare(run: Run, trail: Trail, file: Path) -> dict[tuple[str, str], Callable[[], float]]:
    """Checks what a system gives, and how much memory that takes; returns its shots."""
    say(f"  checking {trail.name}")
    calm(trail.pid)
    if isinstance(trail, Auditplane):
        _check_auditplane(trail, file)
        for form, path, headers in FORMS:
            with watching_memory(trail.pid) as peak:
                trail.drain(path, headers)
            run.add(f"memory-{form}", trail.name, peak.bytes / 1e6)
        return {(form, trail.name): partial(trail.drain, path, headers) for form, path, headers in FORMS}
    if isinstance(trail, Ordinary):
        _check_lines(trail, Ordinary.csv_path, {}, run.dataset.events + 1)
    with watching_memory(trail.pid) as peak:
        trail.drain_csv()
    run.add("memory-csv", trail.name, peak.bytes / 1e6)
    return {("csv", trail.name): trail.drain_csv}


def _measure(run: Run, shots: dict[tuple[str, str], Callable[[], float]]) -> None:
    os.sync()
    names = {f"{system} {form}": (form, system) for form, system in shots}
    say(f"  {', '.join(names)}")

    def failed(name: str, error: Exception) -> None:
        run.failed(names[name][1], error)

    taken = take_turns({name: shots[key] for name, key in names.items()}, REPEATS, failed)
    for name, seconds in taken.items():
        run.add(*names[name], *(run.dataset.events / each for each in seconds))


def _check_auditplane(server: Auditplane, file: Path) -> None:
    """Every form holds each event once, and the zstd frames, kept in a file, are the plain CSV."""
    events = server.stored()
    plain = _check_lines(server, Auditplane.csv_path, {}, events + 1)
    with file.open("wb") as opened:
        for part in _body(server, Auditplane.csv_path, ZSTD):
            opened.write(part)
    unpacked = hashlib.sha256()
    with zstd.open(file) as packed:
        while part := packed.read(READ_BYTES):
            unpacked.update(part)
    if unpacked.digest() != plain:
        raise Failed("the CSV in zstd is not the plain CSV")
    for form, path, headers in FORMS:
        if form in ("json", "ndjson"):
            _check_lines(server, path, headers, events)


def _check_lines(server: HttpServer, path: str, headers: dict[str, str], wanted: int) -> bytes:
    """The SHA-256 of a body; raises Failed when it has another number of lines."""
    digest, lines = hashlib.sha256(), 0
    for part in _body(server, path, headers):
        digest.update(part)
        lines += part.count(b"\n")
    if lines != wanted:
        raise Failed(f"{path} has {lines} lines, not {wanted}")
    return digest.digest()


def _body(server: HttpServer, path: str, headers: dict[str, str]) -> Iterable[bytes]:
    with Connection(server.target.port) as connection:
        yield from connection.stream(server.target.get(path, headers))
