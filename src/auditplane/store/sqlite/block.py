"""Blocks: neighbouring events rendered once, compressed, and read back in part. No SQL.

Lines stand newest first. A corrupt block raises `Damaged`, never gives wrong bytes: zstd frames carry a
checksum.
"""

import sys
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from operator import sub
from typing import Any, Final

from auditplane.errors import Damaged
from auditplane.event import Event, decode_docs
from auditplane.render import csv_lines
from auditplane.store import Stored

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

BLOCK_EVENTS: Final = 512
BLOCK_BYTES: Final = 1024 * 1024
FRAME_EVENTS: Final = 32
LEVEL: Final = 3

_OPTIONS: Final[dict[Any, int]] = {
    zstd.CompressionParameter.compression_level: LEVEL,
    zstd.CompressionParameter.checksum_flag: 1,
}


@dataclass(slots=True)
class Header:
    """A row of the table `block`."""

    id: int
    run: int
    low: int
    high: int
    count: int
    last_index: int
    guarded: int
    docs_bytes: int
    ends: bytes


@dataclass(frozen=True, slots=True)
class Sealed:
    """A block ready to be stored; `events` are those of its lines."""

    low: int
    high: int
    count: int
    last_index: int
    guarded: bool
    docs_bytes: int
    ends: bytes
    keys: bytes
    indexes: bytes
    docs: bytes
    csv: bytes
    stamps: bytes
    events: Sequence[Event]


def seal(rows: Sequence[Stored]) -> Sealed:
    """The block of up to BLOCK_EVENTS events in ascending order of their keys."""
    newest_first = rows[::-1]
    docs = [row.doc for row in newest_first]
    frames = [
        compress(b"\n".join(docs[i : i + FRAME_EVENTS]) + b"\n") for i in range(0, len(docs), FRAME_EVENTS)
    ]
    events = decode_docs(docs)
    csv, guarded = csv_lines(events, guard=True)
    return Sealed(
        low=rows[0].key,
        high=rows[-1].key,
        count=len(rows),
        last_index=max(row.index for row in rows),
        guarded=guarded,
        docs_bytes=sum(map(len, docs)) + len(docs),
        ends=array("I", accumulate(map(len, frames))).tobytes(),
        keys=pack_numbers([row.key for row in rows]),
        indexes=pack_numbers([row.index for row in rows]),
        docs=b"".join(frames),
        csv=compress(csv),
        stamps=compress(b"\n".join(row.stamp for row in newest_first) + b"\n"),
        events=events,
    )


def cut(rows: Sequence[Stored]) -> list[Sealed]:
    """Events in ascending order of their keys as blocks of even size, those of large docs smaller."""
    events_max = -(-len(rows) // -(-len(rows) // BLOCK_EVENTS))
    blocks = []
    start, size = 0, 0
    for at, row in enumerate(rows):
        if at > start and (at - start == events_max or size + len(row.doc) > BLOCK_BYTES):
            blocks.append(seal(rows[start:at]))
            start, size = at, 0
        size += len(row.doc)
    return [*blocks, seal(rows[start:])]


def compress(data: bytes) -> bytes:
    """One zstd frame, with checksum."""
    return zstd.compress(data, options=_OPTIONS)


def decompress(data: bytes) -> bytes:
    """The text of one or several zstd frames; raises Damaged."""
    try:
        return zstd.decompress(data)
    except zstd.ZstdError as error:
        raise Damaged(f"A stored block can't be decompressed: {error}.") from error


def frames(header: Header, docs: bytes, first: int, end: int) -> Iterator[tuple[int, bytes]]:
    """The text of the frames that hold the lines from `first` to before `end`, each with its first line."""
    start = 0
    for number, stop in enumerate(array("I", header.ends)):
        if first < (number + 1) * FRAME_EVENTS and number * FRAME_EVENTS < end:
            yield number * FRAME_EVENTS, decompress(docs[start:stop])
        start = stop


def frame(header: Header, docs: bytes, number: int) -> list[bytes]:
    """The docs of one frame of a block's data; raises Damaged."""
    ends = array("I", header.ends)
    start = ends[number - 1] if number else 0
    return split(
        decompress(docs[start : ends[number]]), min(FRAME_EVENTS, header.count - number * FRAME_EVENTS)
    )


def line(header: Header, docs: bytes, number: int) -> bytes:
    """One doc of a block's data, by its line; raises Damaged."""
    return frame(header, docs, number // FRAME_EVENTS)[number % FRAME_EVENTS]


def lines(packed: bytes, count: int) -> list[bytes]:
    """The lines of packed text; raises Damaged when they are not as many as they should be."""
    return split(decompress(packed), count)


def split(text: bytes, count: int) -> list[bytes]:
    """The lines of a text; raises Damaged when they are not as many as they should be."""
    found = text[:-1].split(b"\n")
    if len(found) != count:
        raise Damaged(
            f"A stored block holds {len(found)} lines in place of {count}. Restore it from a backup."
        )
    return found


def line_of(keys: "array[int]", key: int) -> int | None:
    """The line at which the event of `key` stands; None when it is not in the block."""
    at = bisect_left(keys, key)
    if at == len(keys) or keys[at] != key:
        return None
    return len(keys) - 1 - at


def greatest_below(keys: "array[int]", bound: int) -> int | None:
    """The greatest of ascending keys that is less than `bound`."""
    at = bisect_right(keys, bound - 1)
    return keys[at - 1] if at else None


def pack_numbers(numbers: Sequence[int]) -> bytes:
    """Numbers (i64) as zstd of their differences."""
    deltas = array("q", map(sub, numbers, (0, *numbers[:-1])))
    return compress(deltas.tobytes())


def unpack_numbers(packed: bytes) -> "array[int]":
    """What `pack_numbers` packed."""
    deltas = array("q")
    deltas.frombytes(decompress(packed))
    return array("q", accumulate(deltas))
