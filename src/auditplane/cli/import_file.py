"""The events of a file, each with the number of its line and with an id.

An event without an id gets one that its line, its place in the file and its timestamp give, so that it is
the same each time the file is read. Where the timestamp is missing too, the name of the file goes in as well:
two files may well begin alike.
"""

import csv
import gzip
import io
import sys
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, BinaryIO, Final, Literal, cast

import msgspec
from msgspec import Raw

from auditplane import render, ulid
from auditplane.errors import InvalidInput
from auditplane.event import MEMBERS, REQUIRED
from auditplane.times import parse_rfc3339

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

Form = Literal["csv", "ndjson"]

_GZIP: Final = b"\x1f\x8b"
_ZSTD: Final = b"\x28\xb5\x2f\xfd"
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
_NULL: Final = b"null"
_FORMULA: Final = tuple("=+-@\t\r\n")
_encode = msgspec.json.Encoder().encode
_decode_members = msgspec.json.Decoder(dict[str, Raw]).decode
_decode_raw = msgspec.json.Decoder(Raw).decode

Members = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Line:
    """An event as JSON, and the number of the line that it begins on."""

    number: int
    event: bytes


def unpacked(file: io.BufferedReader) -> BinaryIO:
    """The file without its compression, gzip or zstd."""
    magic = file.peek(len(_ZSTD))
    if magic.startswith(_GZIP):
        return cast("BinaryIO", gzip.GzipFile(fileobj=file))
    if magic.startswith(_ZSTD):
        return cast("BinaryIO", zstd.ZstdFile(file))
    return file


def read(file: BinaryIO, form: Form, name: str, *, guarded: bool) -> Iterator[Line]:
    """The events of a file; `guarded` for CSV whose cells were made safe for spreadsheets.

    Raises InvalidInput, which names the line, at the first that is no event at all.
    """
    lines = _of_csv(file, guarded=guarded) if form == "csv" else _of_ndjson(file)
    try:
        for number, members in lines:
            try:
                yield Line(number, _with_id(members, number, name))
            except UnicodeEncodeError:
                raise InvalidInput(f"line {number:,}: is not UTF-8") from None
    except (EOFError, gzip.BadGzipFile, zlib.error, zstd.ZstdError) as error:
        raise InvalidInput(f"the compressed file is damaged: {error}") from None


def _of_ndjson(file: BinaryIO) -> Iterator[tuple[int, Members]]:
    for number, line in enumerate(file, 1):
        text = (line.removeprefix(_BYTE_ORDER_MARK) if number == 1 else line).strip()
        if not text:
            continue
        try:
            yield number, _decode_members(text)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise InvalidInput(f"line {number:,}: is not a JSON object: {error}") from None


class _Text:
    """The lines of a file, which end at line feeds only, as text; `last` is the one that was read last."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.last = ""

    def __iter__(self) -> Iterator[str]:
        mark = _BYTE_ORDER_MARK
        for line in self._file:
            self.last = line.removeprefix(mark).decode("utf-8", "surrogateescape")
            mark = b""
            yield self.last


def _of_csv(file: BinaryIO, *, guarded: bool) -> Iterator[tuple[int, Members]]:
    text = _Text(file)
    rows = csv.reader(text, strict=True)
    columns: list[str] = []
    number = 1
    while True:
        try:
            row = next(rows, None)
        except csv.Error as error:
            raise InvalidInput(f"line {number:,}: is not CSV: {error}") from None
        if row is None:
            return
        if not columns:
            columns = _checked_columns(row)
        elif row:
            if not row[-1] and not text.last.endswith("\n"):
                raise InvalidInput(f"line {number:,}: may lack its last cell; is the file whole?")
            yield number, _members(columns, row, number, guarded=guarded)
        number = rows.line_num + 1


def _checked_columns(row: list[str]) -> list[str]:
    unknown = [name for name in row if name not in MEMBERS]
    missing = [name for name in REQUIRED if name not in row]
    if unknown or missing or len(set(row)) < len(row):
        raise InvalidInput(f"line 1: must name the columns of a download: {', '.join(MEMBERS)}")
    return row


def _members(columns: list[str], row: list[str], number: int, *, guarded: bool) -> Members:
    if len(row) != len(columns):
        raise InvalidInput(f"line {number:,}: has {len(row)} cells, not {len(columns)}; is the file whole?")
    members: Members = {name: cell for name, cell in zip(columns, row, strict=True) if cell}
    if guarded:
        for name, cell in members.items():
            if cell.startswith(_FORMULA):
                raise InvalidInput(
                    f"line {number:,}, {name}: begins with {cell[0]!r}, as only a raw download has it; "
                    "import it with --raw"
                )
            members[name] = render.unguard(cell)
    if "details" in members:
        try:
            members["details"] = Raw(msgspec.json.format(_decode_raw(members["details"]), indent=-1))
        except UnicodeEncodeError:
            raise InvalidInput(f"line {number:,}, details: is not UTF-8") from None
        except (msgspec.MsgspecError, RecursionError) as error:
            raise InvalidInput(f"line {number:,}, details: is not valid JSON: {error}") from None
    return members


def _with_id(members: Members, number: int, name: str) -> bytes:
    if members.get("id", _NULL) != _NULL:
        return _encode(members)
    members.pop("id", None)
    us = _timestamp_us(members.get("timestamp"))
    place = f"{number}\n" if us is not None else f"{number}\n{name}\n"
    digest = sha256(place.encode("utf-8", "surrogateescape") + _encode(members)).digest()
    key = (us or 0) << ulid.COUNTER_BITS | int.from_bytes(digest[:2]) % ulid.COUNTERS
    return _encode({"id": ulid.make(key, digest[2:]), **members})


def _timestamp_us(given: Any) -> int | None:
    """A timestamp in microseconds since 1970; None when there is none that can be read."""
    try:
        text = msgspec.json.decode(given, type=str) if isinstance(given, Raw) else given
        us = parse_rfc3339(text or "")
    except (msgspec.MsgspecError, ValueError):
        return None
    return us if us >= 0 else None
