"""zstd frames (RFC 8878), each with its size and a checksum, made and read with contexts that are kept.

The standard library makes a context for each frame it reads: of small frames that is more than half of the
work (16 against 7 us for one of 32 events). Request bodies, of which nothing is known, are not read here.
"""

import threading
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeAlias, cast

import zstandard

from auditplane.errors import Damaged

LEVEL: Final = 3
# Smaller by a tenth and quicker to read, but twice the work to make: for what is read in small frames.
SMALL_LEVEL: Final = 6
GROUP_BYTES: Final = 32 * 1024

_Group: TypeAlias = list[bytes | bytearray | memoryview]


class _Contexts(threading.local):
    """Those of a thread: they must not be used by two at a time."""

    def __init__(self) -> None:
        self.compress = zstandard.ZstdCompressor(LEVEL, write_checksum=True).compress
        self.compress_small = zstandard.ZstdCompressor(SMALL_LEVEL, write_checksum=True).compress
        self.decompress = zstandard.ZstdDecompressor().decompress
        self.decompress_many = zstandard.ZstdDecompressor().multi_decompress_to_buffer


_contexts = _Contexts()
_helper = ThreadPoolExecutor(1, thread_name_prefix="zstd")
_helper_mutex = threading.Lock()


def compress(data: bytes) -> bytes:
    """One frame."""
    return _contexts.compress(data)


def compress_small(data: bytes) -> bytes:
    """One frame of the higher level."""
    return _contexts.compress_small(data)


def decompress(frame: bytes) -> bytes:
    """The content of one frame made by `compress`; raises Damaged."""
    try:
        return _contexts.decompress(frame)
    except (zstandard.ZstdError, MemoryError) as error:  # the size that a frame tells may be anything
        raise _damaged(error) from error


def decompress_exactly(frame: bytes) -> bytes:
    """The content of one frame, after which nothing else may stand; raises Damaged."""
    try:
        return _contexts.decompress(frame, allow_extra_data=False)
    except (zstandard.ZstdError, MemoryError) as error:
        raise _damaged(error) from error


def decompress_all(frames: Sequence[bytes], line_end: bytes = b"\n") -> list[bytes]:
    """The contents of some frames, joined to a few texts, their line feeds replaced by `line_end`.

    Another thread makes half of them when it has nothing else to do. Raises Damaged.
    """
    groups = _grouped(frames)
    if len(groups) < 2 or not _helper_mutex.acquire(blocking=False):
        return _decompress_groups(groups, line_end)
    try:
        half = len(groups) // 2
        later = _helper.submit(_decompress_groups, groups[half:], line_end)
        return _decompress_groups(groups[:half], line_end) + later.result()
    finally:
        _helper_mutex.release()


def _grouped(frames: Sequence[bytes]) -> list[_Group]:
    """Frames in groups of about GROUP_BYTES."""
    groups: list[_Group] = []
    room = 0
    for frame in frames:
        if room <= 0:
            groups.append([])
            room = GROUP_BYTES
        groups[-1].append(frame)
        room -= len(frame)
    return groups


def _decompress_groups(groups: Sequence[_Group], line_end: bytes) -> list[bytes]:
    return [_decompress_group(group, line_end) for group in groups]


def _decompress_group(group: _Group, line_end: bytes) -> bytes:
    plain = line_end == b"\n"
    try:
        # Of frames without content the library below corrupts the heap, and unknown sizes it can't take.
        if len(group) == 1 or min(map(zstandard.frame_content_size, group)) <= 0:
            text = b"".join(map(_contexts.decompress, group))
            return text if plain else text.replace(b"\n", line_end)
        # A group at once: it takes the interpreter's lock once, which other threads want too.
        texts = _contexts.decompress_many(group, threads=1)
    except (zstandard.ZstdError, MemoryError) as error:
        raise _damaged(error) from error
    if plain:
        return b"".join(cast("Iterable[bytes]", texts))
    return b"".join([texts[at].tobytes().replace(b"\n", line_end) for at in range(len(texts))])


def _damaged(error: Exception) -> Damaged:
    return Damaged(f"Stored data can't be decompressed: {error}. Restore it from a backup.")
