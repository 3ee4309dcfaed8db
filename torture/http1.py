"""HTTP/1.1 as attackers need it: each byte is sent as it is said, and answers are read to their end."""

import asyncio
import contextlib
import socket
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Self

CHUNK_BYTES: Final = 64 * 1024
BODY_KEPT_MAX: Final = 64 * 1024
HEAD_BYTES_MAX: Final = 64 * 1024
_NO_LINGER: Final = struct.pack("ii", 1, 0)


class Ended(Exception):
    """The connection ended before the answer did."""


@dataclass(frozen=True)
class Target:
    """A server, and the key that each request carries."""

    port: int
    secret: str
    headers: Mapping[str, str] = field(default_factory=dict)

    def head(self, method: str, path: str, **more: str) -> bytes:
        """The head of a request, without the empty line at its end."""
        named = {
            "Host": "127.0.0.1",
            "X-Bindplane-Api-Key": self.secret,
            **self.headers,
            **{name.replace("_", "-"): value for name, value in more.items()},
        }
        lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in named.items())]
        return "\r\n".join(lines).encode() + b"\r\n"


@dataclass(frozen=True)
class Answer:
    """An answer that came to its end; of the body only the beginning."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    body_bytes: int


class Line:
    """A connection to a server."""

    def __init__(self, target: Target, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.target, self._reader, self._writer = target, reader, writer

    @classmethod
    async def open(cls, target: Target, address: str | None = None, receive_bytes: int | None = None) -> Self:
        """Connects, from an address of the loopback network; with a receive buffer of so many bytes."""
        made = socket.socket()
        made.setblocking(False)
        # asyncio does so for sockets that it makes; else a body would wait for the other side's late
        # acknowledgement of the head.
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            if receive_bytes is not None:
                made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
            if address is not None:
                made.bind((address, 0))
            await asyncio.get_running_loop().sock_connect(made, ("127.0.0.1", target.port))
            reader, writer = await asyncio.open_connection(sock=made, limit=HEAD_BYTES_MAX)
        except BaseException:
            made.close()
            raise
        return cls(target, reader, writer)

    async def ask(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Answer:
        """The answer to a request; raises Ended."""
        if body is not None:
            headers = {"Content_Type": "application/json", **headers, "Content_Length": str(len(body))}
        answered = asyncio.ensure_future(self.answer())
        try:
            await self.send(self.target.head(method, path, **headers) + b"\r\n")
            await self.send_body(body or b"", answered)
            return await answered
        except Ended:
            return await answered  # it may have come before the end
        finally:
            answered.cancel()

    async def send_body(self, body: bytes, answered: "asyncio.Future[Answer]") -> None:
        """Sends a body as far as it is wanted: until there is an answer. Raises Ended."""
        for start in range(0, len(body), CHUNK_BYTES):
            if answered.done():
                return
            await self.send(body[start : start + CHUNK_BYTES])

    async def send(self, data: bytes) -> None:
        """Sends bytes; raises Ended."""
        try:
            self._writer.write(data)
            await self._writer.drain()
        except OSError:
            raise Ended from None

    async def answer(self) -> Answer:
        """The next answer that is final; raises Ended."""
        try:
            while True:
                status, headers = await self._head()
                if status >= 200:
                    return Answer(status, headers, *await self._body(headers))
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError):
            raise Ended from None

    async def begin(self) -> int:
        """The status of the next answer, of whose body nothing is read; raises Ended."""
        try:
            return (await self._head())[0]
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError):
            raise Ended from None

    async def take(self, size: int) -> int:
        """Reads up to so many bytes; raises Ended at the end."""
        try:
            found = await self._reader.read(size)
        except OSError:
            raise Ended from None
        if not found:
            raise Ended
        return len(found)

    async def ends(self) -> None:
        """Returns once the other side has ended the connection."""
        with contextlib.suppress(Ended):
            while True:
                await self.take(CHUNK_BYTES)

    def close(self) -> None:
        """Ends the connection at once; what is still to be sent is thrown away, and no port stays in use."""
        with contextlib.suppress(OSError):
            self._writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
        self._writer.transport.abort()

    async def _head(self) -> tuple[int, dict[str, str]]:
        first, *lines = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        named = (line.partition(":") for line in lines if line)
        return int(first.split()[1]), {name.lower(): value.strip() for name, _, value in named}

    async def _body(self, headers: Mapping[str, str]) -> tuple[bytes, int]:
        if "chunked" not in headers.get("transfer-encoding", ""):
            return await self._taken(int(headers.get("content-length", "0")))
        kept, size = b"", 0
        while length := int(await self._reader.readuntil(b"\r\n"), 16):
            part, _ = await self._taken(length)
            await self._reader.readexactly(2)
            kept, size = (kept + part)[:BODY_KEPT_MAX], size + length
        await self._reader.readexactly(2)
        return kept, size

    async def _taken(self, length: int) -> tuple[bytes, int]:
        kept, left = b"", length
        while left:
            part = await self._reader.readexactly(min(left, CHUNK_BYTES))
            left -= len(part)
            if len(kept) < BODY_KEPT_MAX:
                kept += part
        return kept, length
