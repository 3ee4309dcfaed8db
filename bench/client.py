"""An HTTP/1.1 client whose own work hardly counts: requests are bytes made before, and answers are not
looked at more than it takes to know where they end.

The clients of libraries take from 0.3 ms for a request; that would be a tenth of what is measured.
"""

import socket
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

from bench.processes import Failed

TIMEOUT_SECONDS: Final = 600.0
RECEIVE_BYTES: Final = 1024 * 1024
_END: Final = b"\r\n\r\n"
_LAST_CHUNK: Final = b"0\r\n\r\n"


@dataclass(frozen=True)
class Target:
    """A server, and the headers that each request to it carries."""

    port: int
    headers: Mapping[str, str]

    def get(self, path: str, headers: Mapping[str, str] | None = None, *, close: bool = False) -> bytes:
        """A GET request."""
        return self._request("GET", path, {**(headers or {}), **({"Connection": "close"} if close else {})})

    def post(self, path: str, body: bytes) -> bytes:
        """A POST request with a JSON body."""
        headers = {"Content-Type": "application/json", "Content-Length": str(len(body))}
        return self._request("POST", path, headers) + body

    def _request(self, method: str, path: str, headers: Mapping[str, str]) -> bytes:
        lines = [f"{method} {path} HTTP/1.1", f"Host: 127.0.0.1:{self.port}"]
        lines += [f"{name}: {value}" for name, value in {**self.headers, **headers}.items()]
        return "\r\n".join(lines).encode() + _END


@dataclass(frozen=True)
class Answer:
    """The status, headers (names in lower case) and body of an answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Connection:
    """A connection that is kept alive. Raises Failed for an answer that is broken off or not 2xx."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), TIMEOUT_SECONDS)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._waiting = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def ask(self, request: bytes) -> Answer:
        """Sends a request and reads its answer."""
        self._socket.sendall(request)
        status, headers = self._head()
        chunked = headers.get("transfer-encoding") == "chunked"
        body = b"".join(self._chunks()) if chunked else self._take(int(headers.get("content-length", "0")))
        if not 200 <= status < 300:
            raise Failed(f"answered {status}: {body[:300]!r}")
        return Answer(status, headers, body)

    def stream(self, request: bytes) -> Iterator[bytes]:
        """Sends a request and gives the body of its answer as it comes."""
        self._socket.sendall(request)
        status, headers = self._head()
        if not 200 <= status < 300:
            raise Failed(f"answered {status}")
        if headers.get("transfer-encoding") == "chunked":
            yield from self._chunks()
        else:
            left = int(headers["content-length"])
            while left:
                part = self._take(min(left, RECEIVE_BYTES))
                left -= len(part)
                yield part

    def _head(self) -> tuple[int, dict[str, str]]:
        first, *lines = self._until(_END).decode("latin-1").split("\r\n")
        headers = {}
        for line in lines:
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        return int(first.split()[1]), headers

    def _chunks(self) -> Iterator[bytes]:
        while size := int(self._until(b"\r\n"), 16):
            yield self._take(size)
            self._take(2)
        self._take(2)

    def _until(self, end: bytes) -> bytes:
        while end not in self._waiting:
            self._waiting += self._receive()
        found, _, self._waiting = self._waiting.partition(end)
        return found

    def _take(self, size: int) -> bytes:
        parts = [self._waiting]
        have = len(self._waiting)
        while have < size:
            parts.append(self._receive())
            have += len(parts[-1])
        whole = b"".join(parts)
        self._waiting = whole[size:]
        return whole[:size]

    def _receive(self) -> bytes:
        received = self._socket.recv(RECEIVE_BYTES)
        if not received:
            raise Failed("the connection ended before the answer did")
        return received


def seconds_to_drain(port: int, request: bytes) -> float:
    """How long it takes to receive a whole answer, which is thrown away.

    The request must ask to close the connection. Raises Failed for an answer that is not 200, or broken off.
    """
    room = bytearray(RECEIVE_BYTES)
    began = time.perf_counter()
    with socket.create_connection(("127.0.0.1", port), TIMEOUT_SECONDS) as connection:
        connection.sendall(request)
        head = b""
        while _END not in head:
            part = connection.recv(RECEIVE_BYTES)
            if not part:
                raise Failed("the connection ended before the answer began")
            head += part
        head, _, rest = head.partition(_END)
        received, ending = len(rest), rest[-len(_LAST_CHUNK) :]
        while size := connection.recv_into(room):
            received += size
            ending = (ending + bytes(room[max(0, size - len(_LAST_CHUNK)) : size]))[-len(_LAST_CHUNK) :]
    taken = time.perf_counter() - began
    _check_whole(head, received, ending)
    return taken


def _check_whole(head: bytes, received: int, ending: bytes) -> None:
    first, *lines = head.lower().split(b"\r\n")
    if b" 200" not in first:
        raise Failed(f"answered {first!r}")
    length = [int(line.partition(b":")[2]) for line in lines if line.startswith(b"content-length:")]
    if (received != length[0]) if length else (ending != _LAST_CHUNK):
        raise Failed("the connection ended before the answer did")


def post_all(target: Target, path: str, bodies: Iterable[bytes], connections: int) -> list[float]:
    """Posts bodies one after the other on each of some connections.

    Returns, for each body in the order of the answers, the seconds from the start to its answer. Raises
    Failed when one is not answered 2xx.
    """
    waiting = iter(bodies)
    mutex = threading.Lock()
    marks: list[float] = []
    failures: list[Exception] = []
    open_connections = [Connection(target.port) for _ in range(connections)]

    def work(connection: Connection) -> None:
        try:
            while not failures:
                with mutex:
                    body = next(waiting, None)
                if body is None:
                    return
                connection.ask(target.post(path, body))
                marks.append(time.perf_counter() - began)
        except Exception as error:  # noqa: BLE001 - raised again by the thread that waits
            failures.append(error)

    threads = [threading.Thread(target=work, args=(each,)) for each in open_connections]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread, connection in zip(threads, open_connections, strict=True):
        thread.join()
        with connection:
            pass
    if failures:
        raise failures[0]
    return marks
