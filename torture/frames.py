"""Frames of zstd (RFC 8878) that no honest program would send."""

import struct
from typing import Final

_ZSTD_MAGIC: Final = b"\x28\xb5\x2f\xfd"
_RLE_BLOCK: Final = 1
_BLOCK_BYTES_MAX: Final = 128 * 1024


def zstd_bomb(*, blocks: int, window_log: int, last: bool = True) -> bytes:
    """A frame with a window of 2^window_log bytes, and so many blocks of 128 KiB in four bytes each.

    Without `last` it never ends.
    """
    size = min(_BLOCK_BYTES_MAX, 1 << window_log)
    block = _block(size, is_last=False)
    descriptor = bytes([(window_log - 10) << 3])
    return _ZSTD_MAGIC + b"\x00" + descriptor + block * (blocks - 1) + _block(size, is_last=last)


def zstd_skippable() -> bytes:
    """A frame of nothing that is to be passed over."""
    return b"\x50\x2a\x4d\x18" + struct.pack("<I", 1) + b"x"


def _block(size: int, *, is_last: bool) -> bytes:
    return struct.pack("<I", is_last | _RLE_BLOCK << 1 | size << 3)[:3] + b" "
