"""Request bodies: read with bounds of size and time, before and after decompression.

All bodies together have a bound, too, of which each account has a share, from their first byte until their
requests are answered. Whoever has shown no key has a share of another one, by his address.
"""

import asyncio
import sys
import zlib
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from typing import Final, Protocol

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import Receive, Scope

from auditplane import limits
from auditplane.access.key import Key
from auditplane.errors import InvalidInput, RequestTimeout, TooLarge, Unavailable, UnsupportedMedia
from auditplane.http.state import CALLER
from auditplane.shares import Shares

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

_WINDOW_BYTES: Final = 64 * 1024
_ZSTD_OPTIONS: Final[Mapping[int, int]] = {
    zstd.DecompressionParameter.window_log_max: limits.BODY_WINDOW_BYTES_MAX.bit_length() - 1
}
_LENGTH_DIGITS_MAX: Final = 20  # the server below takes no more
_HELD: Final = "auditplane.held"
_ENDED: Final = "auditplane.body-ended"
"""Where the scope of a request says that nothing more of its body is to come."""
_room: Final = Shares(limits.BODIES_BYTES_MAX)
_strangers_room: Final = Shares(limits.STRANGERS_BODIES_BYTES_MAX)


async def read(request: Request, bytes_max: int = limits.BODY_BYTES_MAX) -> bytes:
    """The body as it was sent.

    Raises TooLarge beyond `bytes_max`, RequestTimeout when it takes too long, and Unavailable when the bodies
    of the account, or those that strangers send from the same address, take too much room.
    """
    told = _told_bytes(request.headers)
    if told > bytes_max:
        raise _too_large(bytes_max)
    seconds = _seconds(request.scope)
    try:
        async with asyncio.timeout(seconds):
            return await _receive(request.scope, request.receive, bytes_max, told)
    except TimeoutError:
        request.scope[_ENDED] = True
        raise RequestTimeout(
            f"The body did not arrive within {seconds} seconds; nothing was stored."
        ) from None


def _seconds(scope: Scope) -> float:
    """For how long a body is waited for."""
    seconds: float = scope["state"]["server"].config.body_seconds
    return seconds if CALLER in scope else min(seconds, limits.BODY_SECONDS_STRANGER)


def _told_bytes(headers: Headers) -> int:
    """What the headers say of the size; zero when that is no number. Zeros may stand before it."""
    digits = headers.get("content-length", "").lstrip("0")
    is_number = digits.isascii() and digits.isdigit() and len(digits) <= _LENGTH_DIGITS_MAX
    return int(digits) if is_number else 0


def hold(scope: Scope, size: int) -> None:
    """Takes room for so many bytes until the request is answered; raises Unavailable."""
    key: Key | None = scope.get(CALLER)
    nothing = (_strangers_room, scope["client"][0], 0) if key is None else (_room, key.account, 0)
    room, whose, held = scope.setdefault(_HELD, nothing)
    if not room.take(whose, size):
        raise Unavailable("More is being sent than the server can take; send it again in a moment.")
    scope[_HELD] = room, whose, held + size


def let_go(scope: Scope) -> None:
    """Gives back what the body of a request took."""
    if _HELD in scope:
        room, whose, held = scope.pop(_HELD)
        room.give_back(whose, held)


async def _receive(scope: Scope, receive: Receive, bytes_max: int, told: int) -> bytes:
    chunks: list[bytes] = []
    size = held = 0
    try:
        async for chunk in _chunks(scope, receive):
            size += len(chunk)
            if size > bytes_max:
                raise _too_large(bytes_max)
            came_at_once = size == told <= limits.BODY_BYTES_HELD_MIN and not held
            if not came_at_once:
                # However little has come: who sends many slowly takes his share of those who may.
                wanted = max(size, limits.BODY_BYTES_HELD_MIN)
                hold(scope, wanted - held)
                held = wanted
            chunks.append(chunk)
    except (TooLarge, Unavailable):
        chunks.clear()
        let_go(scope)
        raise
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


async def read_on(scope: Scope, receive: Receive) -> None:
    """Reads, for a while, what is left of the body of a request that is refused, and throws it away.

    Who still sends would find the connection broken, and seldom look for the answer. Who waits for leave to
    send (RFC 9110, section 10.1.1) gets it at once.
    """
    headers, left = Headers(scope=scope), limits.BODY_BYTES_REFUSED_MAX
    if _ENDED in scope or "expect" in headers or _told_bytes(headers) > left:
        return
    if "content-length" not in headers and "transfer-encoding" not in headers:
        return
    with suppress(TimeoutError, InvalidInput):
        async with asyncio.timeout(_seconds(scope)):
            async for chunk in _chunks(scope, receive):
                left -= len(chunk)
                if left < 0:
                    return


async def _chunks(scope: Scope, receive: Receive) -> AsyncIterator[bytes]:
    more = True
    while more:
        message = await receive()
        more = message.get("more_body", False)
        if not more:
            scope[_ENDED] = True
        if message["type"] == "http.disconnect":
            # granian does not say which.
            raise InvalidInput(
                "The body ended before it was whole: the connection ended, or a chunk is malformed; "
                "nothing was stored."
            )
        yield message.get("body", b"")


def decode(body: bytes, encoding: str) -> bytes:
    """The body without its content encoding; raises TooLarge when it is a bomb."""
    try:
        match encoding.strip().lower():
            case "" | "identity":
                return body
            case "gzip" | "x-gzip":
                return _unpacked(body, lambda: zlib.decompressobj(wbits=31))
            case "zstd":
                return _unpacked(body, lambda: zstd.ZstdDecompressor(options=_ZSTD_OPTIONS))
    except (zlib.error, zstd.ZstdError, EOFError) as error:
        wrong = str(error)
    else:
        raise UnsupportedMedia(f"Content-Encoding must be gzip or zstd, is {encoding[:64]!r}.")
    # Here, as an error that knows the other one would keep all that was unpacked.
    raise InvalidInput(f"The body is not valid {encoding}: {wrong}.")


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
