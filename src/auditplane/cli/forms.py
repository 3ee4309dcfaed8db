"""Events as text, a batch at a time: table, JSON, YAML, CSV and NDJSON.

What is printed to a terminal holds no control character that an event brought along, in no form. To a file or
another program, CSV is what the server gives, byte by byte.
"""

import json
import os
import re
import shutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any, BinaryIO, Final, Literal, Protocol

import msgspec

from auditplane import render
from auditplane.cli.output import on_one_line
from auditplane.errors import InvalidInput
from auditplane.event import Event, decode_docs

Form = Literal["table", "json", "yaml", "csv", "raw", "ndjson"]

# The first batch is small, so that rows come soon.
FIRST_EVENTS: Final = 200
BATCH_EVENTS: Final = 2_000

_CONTROL_BYTES = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|\r(?!\n)|\xc2[\x80-\x9f]")


class Writer(Protocol):
    """Writes batches of docs in a form; `end` is called once, after the last."""

    def write(self, docs: Sequence[bytes]) -> None:
        """Writes some docs, at least one."""

    def end(self) -> None:
        """Writes what is due when there is no more."""


def write(docs: Iterable[bytes], form: Form) -> None:
    """Writes docs to standard output while they come."""
    writer = new_writer(form)
    docs = iter(docs)
    batch = list(islice(docs, FIRST_EVENTS))
    while batch:
        writer.write(batch)
        sys.stdout.flush()
        batch = list(islice(docs, BATCH_EVENTS))
    writer.end()


def new_writer(form: Form) -> Writer:
    """A writer to standard output."""
    out, to_terminal = sys.stdout.buffer, sys.stdout.isatty()
    match form:
        case "table":
            return Table(out, to_terminal=to_terminal)
        case "json":
            return Json(out)
        case "yaml":
            return Yaml(out)
        case "ndjson":
            return Ndjson(out)
        case "csv" | "raw":
            return Csv(out, guard=form == "csv", to_terminal=to_terminal)


@contextmanager
def _readable() -> Iterator[None]:
    """Raises InvalidInput when docs are not what they are due to be."""
    try:
        yield
    except (msgspec.MsgspecError, ValueError):
        raise InvalidInput("The server sends events of a newer form; use a newer auditplane.") from None


class Json:
    """An array, laid out for people."""

    def __init__(self, out: BinaryIO) -> None:
        self._out, self._first = out, True

    @_readable()
    def write(self, docs: Sequence[bytes]) -> None:
        """Writes some docs, at least one."""
        items = (msgspec.json.format(_escaped(doc), indent=2).replace(b"\n", b"\n  ") for doc in docs)
        self._out.write((b"[\n  " if self._first else b",\n  ") + b",\n  ".join(items))
        self._first = False

    def end(self) -> None:
        """Closes the array."""
        self._out.write(b"[]\n" if self._first else b"\n]\n")


class Ndjson:
    """One event a line."""

    def __init__(self, out: BinaryIO) -> None:
        self._out = out

    def write(self, docs: Sequence[bytes]) -> None:
        """Writes some docs, at least one."""
        self._out.write(b"\n".join(map(_escaped, docs)) + b"\n")

    def end(self) -> None:
        """Nothing is due."""


class Csv:
    """CSV as the server makes it; without the guard, cells that look like formulas stay as they are."""

    def __init__(self, out: BinaryIO, *, guard: bool, to_terminal: bool) -> None:
        self._out, self._to_terminal = out, to_terminal
        self._form = render.Form.CSV if guard else render.Form.CSV_RAW
        out.write(render.CSV_HEADER)

    @_readable()
    def write(self, docs: Sequence[bytes]) -> None:
        """Writes some docs, at least one."""
        lines = render.body(docs, self._form)
        self._out.write(_CONTROL_BYTES.sub(b"?", lines) if self._to_terminal else lines)

    def end(self) -> None:
        """Nothing is due."""


class Yaml:
    """A sequence of mappings: YAML 1.2, and 1.1 too. Texts are in double quotes, details in one line."""

    def __init__(self, out: BinaryIO) -> None:
        self._out, self._empty = out, True

    @_readable()
    def write(self, docs: Sequence[bytes]) -> None:
        """Writes some docs, at least one."""
        lines = []
        for doc in docs:
            mark = "- "
            for name, value in json.loads(doc, parse_int=_Number, parse_float=_Number).items():
                lines.append(f"{mark}{name}: {_yaml(value)}\n")
                mark = "  "
        self._out.write("".join(lines).encode())
        self._empty = False

    def end(self) -> None:
        """Writes what an empty sequence is."""
        if self._empty:
            self._out.write(b"[]\n")


class Table:
    """One line an event, as wide as the terminal; of any width where there is none.

    The columns are as wide as what has come so far needs.
    """

    COLUMNS: Final = ("TIME (UTC)", "USER", "ACTION", "KIND", "NAME", "CONFIGURATION", "DESCRIPTION")
    PADDED_CHARS_MAX: Final = 32
    CUT_CHARS_MIN: Final = 6

    def __init__(self, out: BinaryIO, *, to_terminal: bool) -> None:
        self._out = out
        self._width = shutil.get_terminal_size().columns if to_terminal else None
        self._coloured = to_terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
        self._needed = [len(name) for name in self.COLUMNS]
        self._widths = self._fitted()
        self._begun = False

    @_readable()
    def write(self, docs: Sequence[bytes]) -> None:
        """Writes some docs, at least one."""
        rows = [_row(event) for event in decode_docs(docs)]
        widths = [max(map(_cells, cells)) for cells in zip(*rows, strict=True)]
        self._needed = list(map(max, self._needed, widths))
        self._widths = self._fitted()
        self._begin()
        self._out.write("".join([self._line(row, _COLOURS.get(row[2], "")) for row in rows]).encode())

    def end(self) -> None:
        """Writes the head of a table without rows."""
        self._begin()

    def _begin(self) -> None:
        if not self._begun:
            self._out.write(self._line(self.COLUMNS, "1").encode())
            self._begun = True

    def _fitted(self) -> list[int]:
        if self._width is None:
            return [min(width, self.PADDED_CHARS_MAX) for width in self._needed]
        widths = list(self._needed)
        last = len(widths) - 1
        while sum(widths) + _GAP * last > self._width:
            # The time stays whole, and the description may be twice as wide as another.
            widest = max(range(1, len(widths)), key=lambda at: widths[at] // (2 if at == last else 1))
            if widths[widest] <= self.CUT_CHARS_MIN:
                break
            widths[widest] -= 1
        return widths

    def _line(self, row: Sequence[str], colour: str) -> str:
        cells = [self._cell(text, width) for text, width in zip(row, self._widths, strict=True)]
        line = (" " * _GAP).join(cells).rstrip()
        return f"\x1b[{colour}m{line}\x1b[0m\n" if self._coloured and colour else f"{line}\n"

    def _cell(self, text: str, width: int) -> str:
        cells = _cells(text)
        if cells <= width:
            return text + " " * (width - cells)
        return text if self._width is None else _cut(text, width)


_GAP: Final = 2
_COLOURS: Final = {"Created": "32", "Deleted": "31", "Modified": "33"}


def _row(event: Event) -> tuple[str, ...]:
    time = (event.timestamp or "")[:19].replace("T", " ")
    texts = (
        event.user,
        event.action,
        event.resourceKind,
        event.resourceName,
        event.configuration or "",
        event.description or "",
    )
    return (time, *map(on_one_line, texts))


def _cells(text: str) -> int:
    """How many columns of a terminal a text takes."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)


def _cut(text: str, width: int) -> str:
    if text.isascii():
        return text[: width - 1] + "…"
    from rich.cells import set_cell_size

    return set_cell_size(text, width - 1) + "…"


def _escaped(doc: bytes) -> bytes:
    """The same JSON without control characters."""
    return _RAW_CONTROL.sub(lambda found: b"\\u00%02x" % found[0][-1], doc)


_RAW_CONTROL = re.compile(rb"\x7f|\xc2[\x80-\x9f]")
_YAML_KEY_CHARS_MAX: Final = 100


class _Number(str):
    """A number as it was written."""

    __slots__ = ()


def _yaml(value: Any) -> str:
    """A value of JSON in one line."""
    if isinstance(value, _Number):
        return _yaml_number(value)
    if isinstance(value, str):
        return _yaml_text(value)
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_yaml_key(key)}: {_yaml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_yaml, value)) + "]"
    return json.dumps(value)


def _yaml_number(text: str) -> str:
    """The same number. Where there is an exponent, YAML 1.1 wants a point, and the sign of the exponent."""
    number, mark, exponent = text.replace("E", "e").partition("e")
    if not mark:
        return text
    point = "" if "." in number else ".0"
    sign = "" if exponent[0] in "+-" else "+"
    return f"{number}{point}e{sign}{exponent}"


def _yaml_key(key: str) -> str:
    # A longer one could not be told from a value without the mark.
    return _yaml_text(key) if len(key) <= _YAML_KEY_CHARS_MAX else f"? {_yaml_text(key)} "


def _yaml_text(text: str) -> str:
    quoted = json.dumps(text, ensure_ascii=False)
    return quoted if quoted.isprintable() else _NOT_PRINTABLE.sub(_yaml_escape, quoted)


_NOT_PRINTABLE = re.compile(r"[^ \w!-~]")


def _yaml_escape(found: re.Match[str]) -> str:
    char = found[0]
    if char.isprintable():
        return char
    return f"\\u{ord(char):04x}" if ord(char) <= 0xFFFF else f"\\U{ord(char):08x}"
