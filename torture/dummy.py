"""A server that does nothing: attacks on it show what of their effect is that of the machine."""

import asyncio
import contextlib
import re
import socket
from typing import Final

from torture.attackers import DOWNLOAD
from torture.http1 import CHUNK_BYTES

DOWNLOAD_BYTES: Final = 8 * 1024 * 1024
HEAD_BYTES_MAX: Final = 2 * 1024 * 1024


def run(listening: socket.socket) -> None:
    """Answers on a socket until the process is ended."""
    asyncio.run(_serve(listening))


async def _serve(listening: socket.socket) -> None:
    server = await asyncio.start_server(_answer_all, sock=listening, limit=HEAD_BYTES_MAX)
    async with server:
        await server.serve_forever()


async def _answer_all(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            await _pass_over(reader, _length(head))
            await _answer(writer, DOWNLOAD_BYTES if DOWNLOAD.encode() in head else 100)
    writer.close()


def _length(head: bytes) -> int:
    found = re.search(rb"(?i)\r\ncontent-length: (\d+)", head)
    return 0 if found is None else int(found[1])


async def _pass_over(reader: asyncio.StreamReader, size: int) -> None:
    while size:
        size -= len(await reader.readexactly(min(size, CHUNK_BYTES)))


async def _answer(writer: asyncio.StreamWriter, size: int) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
    for start in range(0, size, CHUNK_BYTES):
        writer.write(b" " * min(CHUNK_BYTES, size - start))
        await writer.drain()
