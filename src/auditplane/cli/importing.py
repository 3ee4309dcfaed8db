"""`import`: the events of a file, batch by batch, each stored once however often the file is imported.

Each event has an id when it is sent, and the server knows it again. So a batch may be sent again after a lost
connection, and a whole file after a run that was broken off. A batch is stored wholly or not at all.
"""

import re
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal

from cyclopts import Parameter

from auditplane.cli.connection import UNNAMED, Connection
from auditplane.cli.output import check_file
from auditplane.errors import InvalidConfig, InvalidInput, Refused

if TYPE_CHECKING:
    import io

    from auditplane.cli.import_file import Line

BATCH_EVENTS: Final = 2_000
BATCH_BYTES: Final = 4 * 1024 * 1024
PATIENCE_SECONDS: Final = 60.0
# What the server says of an event that names another account, and how an event does that.
_OTHER_ACCOUNT: Final = "into the account"
_ACCOUNT = re.compile(rb'"account":"[^"]')


def import_events(
    file: Annotated[
        str,
        Parameter(
            name="FILE", allow_leading_hyphen=True, help="The file; gzip and zstd too; - is standard input."
        ),
    ],
    /,
    *,
    form: Annotated[
        Literal["csv", "ndjson"] | None,
        Parameter(name="--format", help="What it is, where its name does not tell.", show_default=False),
    ] = None,
    raw: Annotated[
        bool, Parameter(negative="", help="CSV that was downloaded with --raw: cells are taken as they are.")
    ] = False,
    connection: Connection = UNNAMED,
) -> None:
    """Record the audit events of a file: CSV made by download, or NDJSON.

    To import it again stores nothing twice. After a failure, mend what is wrong and import it again. An event
    without an id gets one from its content, timestamp and line; without a timestamp, from the name of the
    file too.

    For example:

        auditplane import trail.csv
        auditplane import --raw trail-raw.csv.gz
        zcat *.ndjson.gz | auditplane import - --format ndjson
    """
    from auditplane.cli import import_file
    from auditplane.cli.patience import Patience
    from auditplane.cli.progress import progress

    check_file(file)
    form = form or _form_of(file)
    if raw and form != "csv":
        raise InvalidConfig(f"--raw goes with CSV, not {form}.")
    started, events = time.monotonic(), 0
    with connection.client() as client, _opened(file) as (packed, size):
        unpacked = import_file.unpacked(packed)
        lines = import_file.read(unpacked, form, Path(file).name, guarded=not raw)
        patience = Patience(PATIENCE_SECONDS)
        with progress("Importing", size) as report:
            for batch in _batches(lines, file):
                body = b"[" + b",\n".join([line.event for line in batch]) + b"]"
                try:
                    patience.ask(partial(client.record_json, body, repeatable=True))
                except Refused as error:
                    raise _located(error, batch, file) from None
                events += len(batch)
                report(packed.tell() if size else events, events)
    seconds = time.monotonic() - started
    print(f"{events:,} events of {file} are recorded ({events / seconds:,.0f} a second).")


def _form_of(file: str) -> Literal["csv", "ndjson"]:
    name = re.sub(r"\.(gz|zst)$", "", file.lower())
    if name.endswith(".csv"):
        return "csv"
    if name.endswith((".ndjson", ".jsonl")):
        return "ndjson"
    raise InvalidConfig(f"The name {file} does not tell what it is; say --format csv or --format ndjson.")


@contextmanager
def _opened(file: str) -> "Iterator[tuple[io.BufferedReader, int | None]]":
    """A file and its size; standard input has none."""
    if file == "-":
        yield sys.stdin.buffer, None  # type: ignore[misc]
        return
    with Path(file).open("rb") as opened:
        yield opened, Path(file).stat().st_size or None


def _batches(lines: "Iterator[Line]", file: str) -> "Iterator[list[Line]]":
    """Lines in batches; one that holds what is no event at all is not given."""
    batch: list[Line] = []
    size = 0
    try:
        for line in lines:
            batch.append(line)
            size += len(line.event)
            if len(batch) == BATCH_EVENTS or size >= BATCH_BYTES:
                yield batch
                batch, size = [], 0
    except InvalidInput as error:
        raise InvalidInput(_advised(str(error), file, batch)) from None
    if batch:
        yield batch


def _located(error: Refused, batch: "Sequence[Line]", file: str) -> Refused:
    """The error with numbers of lines in the place of positions."""

    def line(found: re.Match[str]) -> str:
        return f"line {batch[int(found[1])].number:,}{', ' if found[2] else ''}"

    told = "; ".join(re.sub(r"^events\[([0-9]{1,5})\](\.?)", line, text) for text in error.messages)
    if _OTHER_ACCOUNT in told:
        first = next((one.number for one in batch if _ACCOUNT.search(one.event)), batch[0].number)
        told = f"line {first:,}: {told}"
    return Refused(error.status, _advised(told, file, batch), may_pass=error.may_pass)


def _advised(told: str, file: str, batch: "Sequence[Line]") -> str:
    since = f"from line {batch[0].number:,} on" if batch else "from there on"
    return f"{file}: {told.rstrip('.')}. Nothing {since} was stored. Mend that and import it again."
