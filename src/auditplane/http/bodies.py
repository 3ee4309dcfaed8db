"""Request bodies: read with bounds of size and time, before and after decompression."""

import asyncio
import sys
import zlib
from collections.abc import Callable
from typing import Final, Protocol

from starlette.requests import Request

from auditplane import limits
from auditplane.errors import InvalidInput, RequestTimeout, TooLarge, UnsupportedMedia

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

_WINDOW_BYTES: Final = 64 * 1024
_LENGTH_DIGITS_MAX: Final = 20  # the server below takes no more


async def read(request: Request, bytes_max: int = limits.BODY_BYTES_MAX) -> bytes:
    """The body as it was sent.

    Raises TooLarge beyond `bytes_max`, and RequestTimeout after BODY_SECONDS_MAX.
    """
    if _told_bytes(request) > bytes_max:
        raise _too_large(bytes_max)
    try:
        async with asyncio.timeout(limits.BODY_SECONDS_MAX):
            return await _receive(request, bytes_max)
    except TimeoutError:
        raise RequestTimeout(
            f"The body did not arrive within {limits.BODY_SECONDS_MAX:.0f} seconds; nothing was stored."
        ) from None


def _told_bytes(request: Request) -> int:
    """What the headers say of the size; zero when that is no number. Zeros may stand before it."""
    digits = request.headers.get("content-length", "").lstrip("0")
    is_number = digits.isascii() and digits.isdigit() and len(digits) <= _LENGTH_DIGITS_MAX
    return int(digits) if is_number else 0


async def _receive(request: Request, bytes_max: int) -> bytes:
    chunks: list[bytes] = []
    size = 0
    more = True
    while more:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise InvalidInput("The connection ended before the body did; nothing was stored.")
        chunks.append(message.get("body", b""))
        size += len(chunks[-1])
        if size > bytes_max:
            raise _too_large(bytes_max)
        more = message.get("more_body", False)
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def decode(body: bytes, encoding: str) -> bytes:
    """The body without its content encoding; raises TooLarge when it is a bomb."""
    try:
        match encoding.strip().lower():
            case "" | "identity":
                return body
            case "gzip" | "x-gzip":
                return _unpacked(body, lambda: zlib.decompressobj(wbits=31))
            case "zstd":
                return _unpacked(body, zstd.ZstdDecompressor)
    except (zlib.error, zstd.ZstdError, EOFError) as error:
        raise InvalidInput(f"The body is not valid {encoding}: {error}.") from None
    raise UnsupportedMedia(f"Content-Encoding must be gzip or zstd, is {encoding[:64]!r}.")


class _Unpacker(Protocol):
    """What zlib and zstd have in common: reads one member or frame."""

    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...


def _unpacked(body: bytes, new: Callable[[], _Unpacker]) -> bytes:
    """All members of a gzip body (RFC 1952, section 2.2) or frames of a zstd body (RFC 8878, section 3).

    It is read in windows: what stands behind a small member would else be copied once for each of them.
    """
    parts: list[bytes] = []
    room, at, members = limits.BODY_BYTES_MAX, 0, 0
    unpacker = new()
    while at < len(body):
        if unpacker.eof:
            members += 1
            if members == limits.BODY_MEMBERS_MAX:
                raise TooLarge(
                    f"A body may have at most {limits.BODY_MEMBERS_MAX:,} gzip members or zstd frames."
                )
            unpacker = new()
        window = body[at : at + _WINDOW_BYTES]
        parts.append(unpacker.decompress(window, room + 1))
        room -= len(parts[-1])
        if room < 0:
            raise _too_large(limits.BODY_BYTES_MAX)
        at += len(window) - len(unpacker.unused_data)
    if not unpacker.eof:
        raise EOFError("it ends too early")
    return b"".join(parts)


def _too_large(bytes_max: int) -> TooLarge:
    if bytes_max < limits.BODY_BYTES_MAX:
        return TooLarge(f"A body may have at most {bytes_max // 1024} KiB here.")
    return TooLarge(
        f"A body may have at most {limits.BODY_BYTES_MAX // (1024 * 1024)} MiB, decompressed too; "
        "send the events in several requests."
    )
