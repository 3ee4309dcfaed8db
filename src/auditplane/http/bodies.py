"""Request bodies: read with bounds of size and time, before and after decompression."""

import asyncio
import sys
import zlib

from starlette.requests import Request

from auditplane import limits
from auditplane.errors import InvalidInput, RequestTimeout, TooLarge, UnsupportedMedia

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd


async def read(request: Request) -> bytes:
    """The body as it was sent.

    Raises TooLarge beyond BODY_BYTES_MAX, and RequestTimeout after BODY_SECONDS_MAX.
    """
    length = request.headers.get("content-length", "0")
    if length.isdigit() and int(length) > limits.BODY_BYTES_MAX:
        raise _too_large()
    try:
        async with asyncio.timeout(limits.BODY_SECONDS_MAX):
            return await _receive(request)
    except TimeoutError:
        raise RequestTimeout(
            f"The body did not arrive within {limits.BODY_SECONDS_MAX:.0f} seconds; nothing was stored."
        ) from None


async def _receive(request: Request) -> bytes:
    chunks: list[bytes] = []
    size = 0
    more = True
    while more:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise InvalidInput("The connection ended before the body did; nothing was stored.")
        chunks.append(message.get("body", b""))
        size += len(chunks[-1])
        if size > limits.BODY_BYTES_MAX:
            raise _too_large()
        more = message.get("more_body", False)
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def decode(body: bytes, encoding: str) -> bytes:
    """The body without its content encoding; raises TooLarge when it is a bomb."""
    try:
        match encoding.strip().lower():
            case "" | "identity":
                return body
            case "gzip" | "x-gzip":
                return _gunzip(body)
            case "zstd":
                return _unzstd(body)
    except (zlib.error, zstd.ZstdError, EOFError) as error:
        raise InvalidInput(f"The body is not valid {encoding}: {error}.") from None
    raise UnsupportedMedia(f"Content-Encoding must be gzip or zstd, is {encoding[:64]!r}.")


def _gunzip(body: bytes) -> bytes:
    """All members of a gzip body (RFC 1952, section 2.2)."""
    parts: list[bytes] = []
    room = limits.BODY_BYTES_MAX
    while body:
        member = zlib.decompressobj(wbits=31)
        part = member.decompress(body, room + 1)
        room -= len(part)
        if room < 0:
            raise _too_large()
        if not member.eof:
            raise EOFError("it ends too early")
        parts.append(part)
        body = member.unused_data
    return b"".join(parts)


def _unzstd(body: bytes) -> bytes:
    """All frames of a zstd body (RFC 8878, section 3)."""
    parts: list[bytes] = []
    room = limits.BODY_BYTES_MAX
    while body:
        frame = zstd.ZstdDecompressor()
        part = frame.decompress(body, room + 1)
        room -= len(part)
        if room < 0:
            raise _too_large()
        if not frame.eof:
            raise EOFError("it ends too early")
        parts.append(part)
        body = frame.unused_data
    return b"".join(parts)


def _too_large() -> TooLarge:
    return TooLarge(
        f"A body may have at most {limits.BODY_BYTES_MAX // (1024 * 1024)} MiB, decompressed too; "
        "send the events in several requests."
    )
