"""Blocks: neighbouring events rendered once, compressed, and read back in part. No SQL.

Lines stand newest first. A corrupt block raises `Damaged`, never gives wrong bytes: zstd frames carry a
checksum.
"""

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from operator import sub
from typing import Final

from auditplane.errors import Damaged
from auditplane.event import Event, decode_docs
from auditplane.render import csv_lines
from auditplane.store import Stored
from auditplane.zstd import compress, compress_small, decompress, decompress_exactly

BLOCK_EVENTS: Final = 1_024
BLOCK_BYTES: Final = 512 * 1024
FRAME_EVENTS: Final = 32
FRAME_BITS: Final = 9
GONE: Final = -1
"""In place of the key of an entry whose event is gone: it expired, or it was erased."""


@dataclass(slots=True)
class Header:
    """A row of the table `block`."""

    id: int
    run: int
    low: int
    high: int
    count: int
    first_index: int
    last_index: int
    guarded: int
    docs_bytes: int


@dataclass(frozen=True, slots=True)
class Sealed:
    """A block ready to be stored; `events` are those of its lines."""

    low: int
    high: int
    count: int
    first_index: int
    last_index: int
    guarded: bool
    docs_bytes: int
    keys: bytes
    indexes: bytes
    frames: Sequence[bytes]
    csv: bytes
    stamps: bytes
    events: Sequence[Event]


def seal(rows: Sequence[Stored]) -> Sealed:
    """The block of up to BLOCK_EVENTS events in ascending order of their keys."""
    newest_first = rows[::-1]
    docs = [row.doc for row in newest_first]
    frames = [
        compress_small(b"\n".join(docs[i : i + FRAME_EVENTS]) + b"\n")
        for i in range(0, len(docs), FRAME_EVENTS)
    ]
    events = decode_docs(docs)
    csv, guarded = csv_lines(events, guard=True)
    indexes = [row.index for row in rows]
    return Sealed(
        low=rows[0].key,
        high=rows[-1].key,
        count=len(rows),
        first_index=min(indexes),
        last_index=max(indexes),
        guarded=guarded,
        docs_bytes=sum(map(len, docs)) + len(docs),
        keys=pack_numbers([row.key for row in rows]),
        indexes=pack_numbers(indexes),
        frames=frames,
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


def frame_ids(block_id: int, first: int, end: int) -> range:
    """The ids of the frames that hold the lines from `first` to before `end` of a block."""
    start = block_id << FRAME_BITS
    return range(start + first // FRAME_EVENTS, start - (-end // FRAME_EVENTS))


def frame_of(block_id: int, line: int) -> tuple[int, int]:
    """The id of the frame that holds a line of a block, and which of its lines that is."""
    number, at = divmod(line, FRAME_EVENTS)
    return (block_id << FRAME_BITS) + number, at


def lines(packed: bytes, count: int) -> list[bytes]:
    """The lines of a packed text; raises Damaged when they are not as many as they should be."""
    return split(decompress(packed), count)


def split(text: bytes, count: int) -> list[bytes]:
    """The lines of a text; raises Damaged when they are not as many as they should be."""
    found = text[:-1].split(b"\n")
    if len(found) != count:
        raise Damaged(
            f"A stored block holds {len(found)} lines in place of {count}. Restore it from a backup."
        )
    return found


def nth(text: bytes, number: int) -> bytes:
    """A line of a frame's text; raises Damaged when there are not so many."""
    found = text.split(b"\n", number + 1)
    if len(found) != number + 2:
        raise Damaged("A stored frame holds too few lines. Restore it from a backup.")
    return found[number]


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
    return _summed(decompress(packed))


def unpack_exactly(packed: bytes) -> "array[int]":
    """What `pack_numbers` packed, after which nothing else may stand."""
    return _summed(decompress_exactly(packed))


def _summed(packed: bytes) -> "array[int]":
    deltas = array("q")
    deltas.frombytes(packed)
    return array("q", accumulate(deltas))
