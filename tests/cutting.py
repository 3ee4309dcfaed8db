"""Servers that do harm, to test clients with: one breaks answers off, one gives prepared answers."""

import contextlib
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager


class CuttingProxy:
    """Hands connections on to a server; ends one after `cuts` bytes of answers, one cut each,
    or stops sending after `stall` of them."""

    def __init__(self, port: int) -> None:
        self._to = port
        self.cuts: list[int] = []
        self.stall: int | None = None
        self._open: list[socket.socket] = []
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Takes no more connections."""
        self._listening.close()

    def reset(self) -> None:
        """Ends the connections that are open."""
        for near in self._open:
            with contextlib.suppress(OSError):
                near.shutdown(socket.SHUT_RDWR)
        self._open.clear()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listening.accept()
                self._open.append(near)
                cut = self.cuts.pop(0) if self.cuts else None
                threading.Thread(target=self._serve, args=(near, cut), daemon=True).start()

    def _serve(self, near: socket.socket, cut: int | None) -> None:
        with near, contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self._to)) as far:
            threading.Thread(target=_copy, args=(near, far, None), daemon=True).start()
            _copy(far, near, cut or self.stall, stalling=cut is None)


def _copy(source: socket.socket, target: socket.socket, left: int | None, *, stalling: bool = False) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            if left is not None and len(data) >= left:
                target.sendall(data[:left])
                if stalling:
                    target.recv(1)  # until the other side ends it
                break
            target.sendall(data)
            left = None if left is None else left - len(data)
        target.shutdown(socket.SHUT_RDWR)
        source.shutdown(socket.SHUT_RDWR)


@contextmanager
def cutting_proxy(port: int) -> Iterator[CuttingProxy]:
    """A proxy before the server of a port."""
    proxy = CuttingProxy(port)
    try:
        yield proxy
    finally:
        proxy.close()


class Scripted:
    """A server that gives prepared answers, one a connection, and keeps what it was asked."""

    def __init__(self, answers: Sequence[bytes]) -> None:
        self.asked: list[bytes] = []
        self._answers = answers
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with self._listening:
            for answer in self._answers:
                connection, _ = self._listening.accept()
                with connection:
                    self.asked.append(connection.recv(65536))
                    with contextlib.suppress(ConnectionError):  # who asked may have had enough
                        connection.sendall(answer)


def answer(status: str, body: bytes, *headers: str, media: str = "application/json") -> bytes:
    """The bytes of an answer that ends with its connection."""
    lines = [f"HTTP/1.1 {status}", f"Content-Type: {media}", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join([*lines, "Connection: close", "", ""]).encode() + body
