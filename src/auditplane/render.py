"""Docs to the bytes of an answer: JSON, the envelope, NDJSON and CSV. Pure.

CSV is RFC 4180 with CRLF in UTF-8. Unless it is raw, a cell that a spreadsheet would run as a formula
(first character `= + - @`, tab, CR or LF), or that begins with `'`, gets a leading `'`.
"""

import re
from collections.abc import Sequence
from enum import Enum
from typing import Final

from auditplane.event import MEMBERS, Event, decode_docs


class Form(Enum):
    """A representation of a list of events."""

    JSON = "json"
    ENVELOPE = "envelope"
    NDJSON = "ndjson"
    CSV = "csv"
    CSV_RAW = "csv-raw"

    @property
    def is_csv(self) -> bool:
        """Whether this is one of the two kinds of CSV."""
        return self in (Form.CSV, Form.CSV_RAW)


CSV_HEADER: Final = ",".join(MEMBERS).encode() + b"\r\n"
_COMMAS: Final = len(MEMBERS) - 1
_UNSAFE = re.compile(r"(?:^|[,\n])[=+\-@\t']")
_QUOTED = re.compile(r'[",\r\n]')
_GUARDED = ("=", "+", "-", "@", "\t", "\r", "\n", "'")


def head(form: Form) -> bytes:
    """What comes before the first event."""
    return {Form.JSON: b"[", Form.ENVELOPE: b'{"auditEvents":['}.get(form, CSV_HEADER if form.is_csv else b"")


def tail(form: Form) -> bytes:
    """What comes after the last event."""
    return {Form.JSON: b"]\n", Form.ENVELOPE: b"]}\n"}.get(form, b"")


def body(docs: Sequence[bytes], form: Form, *, first: bool) -> bytes:
    """Some events of an answer; `first` when none came before. Docs must not be empty."""
    if form.is_csv:
        return csv_lines(docs, guard=form is Form.CSV)[0]
    if form is Form.NDJSON:
        return b"\n".join(docs) + b"\n"
    return (b"" if first else b",\n") + b",\n".join(docs)


def joined(lines: bytes, *, first: bool) -> bytes:
    """NDJSON as items of a JSON array; `first` when none came before."""
    return (b"" if first else b",\n") + lines[:-1].replace(b"\n", b",\n")


def csv_lines(docs: Sequence[bytes], *, guard: bool) -> tuple[bytes, bool]:
    """The CSV lines of docs, and whether the guard had to change any cell."""
    rows = [_cells(event) for event in decode_docs(docs)]
    lines = [",".join(row) for row in rows]
    changed = False
    if not _is_plain("\n".join(lines), len(lines), guard=guard):
        for i, row in enumerate(rows):
            if not _is_plain(lines[i], 1, guard=guard):
                cells = _guarded(row) if guard else row
                changed = changed or cells is not row
                lines[i] = ",".join([_quoted(cell) for cell in cells])
    return "\r\n".join(lines).encode() + b"\r\n", changed


def _is_plain(text: str, rows: int, *, guard: bool) -> bool:
    """Whether no cell of some joined rows needs quotes or the guard."""
    return (
        '"' not in text
        and "\r" not in text
        and text.count(",") == _COMMAS * rows
        and text.count("\n") == rows - 1
        and not (guard and _UNSAFE.search(text))
    )


def _cells(event: Event) -> tuple[str, ...]:
    return (
        event.id or "",
        event.timestamp or "",
        event.resourceName,
        event.description or "",
        event.resourceKind,
        event.configuration or "",
        event.action,
        event.user,
        event.account or "",
        bytes(event.details).decode(),
    )


def _guarded(row: tuple[str, ...]) -> tuple[str, ...]:
    """The row with a `'` before each cell that needs one; the same object when none does."""
    if not any(cell.startswith(_GUARDED) for cell in row):
        return row
    return tuple("'" + cell if cell.startswith(_GUARDED) else cell for cell in row)


def unguard(cell: str) -> str:
    """The cell as it was recorded: takes off what the guard put before it."""
    return cell[1:] if cell.startswith("'") else cell


def _quoted(cell: str) -> str:
    return '"' + cell.replace('"', '""') + '"' if _QUOTED.search(cell) else cell
