"""Frames of HTTP/2 (RFC 9113) and of zstd (RFC 8878) that no honest program would send."""

import struct
from typing import Final

from torture.http1 import Target

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_HEADERS, _RST_STREAM, _SETTINGS, _CONTINUATION = 1, 3, 4, 9
_END_STREAM, _END_HEADERS = 1, 4
_CANCEL: Final = 8
_HEAD_BYTES: Final = 16_000

_ZSTD_MAGIC: Final = b"\x28\xb5\x2f\xfd"
_RLE_BLOCK: Final = 1
_BLOCK_BYTES_MAX: Final = 128 * 1024


def settings() -> bytes:
    """An empty SETTINGS frame."""
    return _frame(_SETTINGS, 0, 0, b"")


def request(target: Target, path: str, number: int) -> bytes:
    """The frame of a GET request, the stream of which is the nth of the client."""
    return _frame(_HEADERS, _END_STREAM | _END_HEADERS, _stream(number), _head(target, path))


def reset(number: int) -> bytes:
    """The frame that takes a stream back."""
    return _frame(_RST_STREAM, 0, _stream(number), struct.pack(">I", _CANCEL))


def head_without_end(target: Target) -> bytes:
    """The beginning of a request's head, after which nothing but more of it may come."""
    return _frame(_HEADERS, _END_STREAM, _stream(0), _head(target, "/health"))


def more_of_a_head() -> bytes:
    """More of such a head."""
    field = _literal("x-more", "x" * 100)
    return _frame(_CONTINUATION, 0, _stream(0), field * (_HEAD_BYTES // len(field)))


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


def _stream(number: int) -> int:
    return 2 * number + 1


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def _head(target: Target, path: str) -> bytes:
    fields = {
        ":method": "GET", ":scheme": "http", ":path": path, ":authority": "127.0.0.1",
        "x-bindplane-api-key": target.secret,
    }  # fmt: skip
    return b"".join(_literal(name, value) for name, value in fields.items())


def _literal(name: str, value: str) -> bytes:
    """A header field as HPACK has it, without any compression (RFC 7541, section 6.2.2)."""
    return b"\x00" + _text(name) + _text(value)


def _text(text: str) -> bytes:
    data = text.encode()
    if len(data) >= 127:
        raise ValueError("too long for one byte of length")
    return bytes([len(data)]) + data
