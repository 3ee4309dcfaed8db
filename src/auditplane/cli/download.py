"""`download`: all events that match in a file, whole or not at all."""

import os
import secrets
import signal
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, BinaryIO, Final, Literal

from cyclopts import Parameter

from auditplane.cli.connection import UNNAMED, Connection
from auditplane.cli.filters import ALL, Filters
from auditplane.cli.output import check_file
from auditplane.errors import InvalidConfig

TERMINATED: Final = 128 + signal.SIGTERM


def download(
    *,
    output: Annotated[
        str,
        Parameter(name=["--output", "-o"], allow_leading_hyphen=True, help="The file; - is standard output."),
    ],
    form: Annotated[
        Literal["csv", "ndjson", "json"], Parameter(name="--format", help="What to write.")
    ] = "csv",
    raw: Annotated[
        bool, Parameter(negative="", help="CSV with cells that look like formulas left as recorded.")
    ] = False,
    order: Annotated[
        Literal["desc", "asc", "recorded"], Parameter(help="Newest first, oldest first, or as recorded.")
    ] = "desc",
    filters: Filters = ALL,
    connection: Connection = UNNAMED,
) -> None:
    """Download the audit events that match. The file is there once all of them are in it.

    For example:

        auditplane download -o trail.csv --min-date 20260101 --max-date 20260331
        auditplane download -o trail.ndjson --format ndjson --order recorded
        auditplane download -o - --raw --configuration prod-gateway
    """
    from auditplane.cli.progress import progress

    check_file(output)
    if raw and form != "csv":
        raise InvalidConfig(f"--raw goes with --format csv, not {form}.")
    where = filters.filter()
    with connection.client() as client, destination(output) as file:
        total = client.count(where) if sys.stderr.isatty() else None
        if form == "json":
            chunks: Iterable[bytes] = _array(client.lines(where, order=order))
        else:
            chunks = client.download("raw" if raw else form, where, order=order)
        with progress("Downloading", total) as report:
            events = 0
            for chunk in chunks:
                file.write(chunk)
                events += chunk.count(b"\n")  # nearly: a cell may hold some
                report(events, events)


def _array(docs: Iterable[bytes]) -> Iterator[bytes]:
    first = True
    for doc in docs:
        yield (b"[" if first else b",\n") + doc
        first = False
    yield b"[]\n" if first else b"]\n"


@contextmanager
def destination(output: str) -> "Iterator[BinaryIO]":
    """The file to write to; a regular one comes to its place when all is written, and else not at all."""
    if output == "-":
        yield sys.stdout.buffer
        return
    path = Path(output).resolve()
    if path.is_dir():
        raise InvalidConfig(f"--output: {output} is a folder; name a file in it.")
    if path.exists() and not path.is_file():  # such as /dev/stdout or a named pipe
        with path.open("wb") as special:
            yield special
        return
    unfinished = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    with _ending_orderly():
        try:
            with unfinished.open("xb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            unfinished.replace(path)
        except BaseException:
            unfinished.unlink(missing_ok=True)
            raise


@contextmanager
def _ending_orderly() -> Iterator[None]:
    """Has SIGTERM end the process in the way of an exception."""
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
