"""Docs to the bytes of an answer: JSON, the envelope, NDJSON and CSV. Pure.

CSV is RFC 4180 with CRLF in UTF-8. Unless it is raw, a cell that a spreadsheet would run as a formula
(first character `= + - @`, tab, CR or LF), or that begins with `'`, gets a leading `'`.
"""

from collections.abc import Iterable, Sequence
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
_TEXT_COMMAS: Final = len(MEMBERS) - 2
_GUARDED: Final = frozenset("=+-@\t\r\n'")


def head(form: Form) -> bytes:
    """What comes before the first event."""
    return {Form.JSON: b"[", Form.ENVELOPE: b'{"auditEvents":['}.get(form, CSV_HEADER if form.is_csv else b"")


def body(docs: Sequence[bytes], form: Form) -> bytes:
    """Some events of an answer."""
    if form.is_csv:
        return csv_lines(decode_docs(docs), guard=form is Form.CSV)[0]
    return _separator(form).join([*docs, b""])


def entry_lines(events: Iterable[tuple[int, bytes, bytes]]) -> bytes:
    """Events (index, doc, stamp) with all that their commitments are made of, one JSON object a line.

    `event` is the doc and `stamp` the stamp, byte for byte: what stands between `,"event":` and the last
    `,"stamp":`, and between that and the brace that ends the line.
    """
    return b"".join(
        [b'{"index":%d,"event":%b,"stamp":%b}\n' % (index, doc, stamp) for index, doc, stamp in events]
    )


def line_end(form: Form) -> bytes:
    """What each line of stored lines, CSV or NDJSON, ends with in an answer in place of a line feed."""
    return b"\n" if form.is_csv else _separator(form)


_CLOSING: Final = {Form.JSON: b"]\n", Form.ENVELOPE: b"]}\n"}


def is_closed(form: Form) -> bool:
    """Whether something comes after the last event, so that its part ends otherwise than the others."""
    return form in _CLOSING


def end(last: bytes, form: Form) -> bytes:
    """The end of an answer, made from its last part: the body, or where that is empty the head."""
    closing = _CLOSING.get(form)
    return last if closing is None else last.removesuffix(_separator(form)) + closing


def _separator(form: Form) -> bytes:
    return b",\n" if form in (Form.JSON, Form.ENVELOPE) else b"\n"


def csv_lines(events: Sequence[Event], *, guard: bool) -> tuple[bytes, bool]:
    """The CSV lines of events, and whether the guard had to change any cell."""
    lines = []
    changed = False
    for event in events:
        row = _texts(event)
        if guard and _is_unsafe(row):
            row = [_guarded(cell) for cell in row]
            changed = True
        line = ",".join(row)
        if '"' in line or line.count(",") > _TEXT_COMMAS or "\n" in line or "\r" in line:
            line = ",".join([_quoted(cell) for cell in row])
        details = bytes(event.details).decode()
        lines.append(f"{line},{_quoted(details)}\r\n" if details else f"{line},\r\n")
    return "".join(lines).encode(), changed


def _texts(event: Event) -> Sequence[str]:
    """The cells but for the details, which begin with `{` and so need no guard."""
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
    )


def _is_unsafe(row: Sequence[str]) -> bool:
    """Whether a cell needs the guard; ids, timestamps and accounts begin with a letter or a digit."""
    _, _, name, description, kind, configuration, action, user, _ = row
    firsts = (name[:1], description[:1], kind[:1], configuration[:1], action[:1], user[:1])
    return not _GUARDED.isdisjoint(firsts)


def _guarded(cell: str) -> str:
    return "'" + cell if cell[:1] in _GUARDED else cell


def unguard(cell: str) -> str:
    """The cell as it was recorded: takes off what the guard put before it."""
    return cell.removeprefix("'")


def _quoted(cell: str) -> str:
    if '"' in cell:
        return '"' + cell.replace('"', '""') + '"'
    return f'"{cell}"' if "," in cell or "\n" in cell or "\r" in cell else cell
