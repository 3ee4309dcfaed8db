import contextlib
import json
import os
import random
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from server import Server, launch, start, wait_until_healthy
from tenants import DOWNLOAD, EVENTS, client, events, events_of
from trails import big_trail

STOP_SECONDS_MAX = 10


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a trail of more than 50 MB."""
    return big_trail(tmp_path_factory.mktemp("stop") / "data")


def connect(server: Server, sent: bytes, receive_bytes: int | None = None) -> socket.socket:
    """A connection on which something was sent."""
    made = socket.socket()
    if receive_bytes:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    made.settimeout(30)
    made.connect(("127.0.0.1", server.port))
    made.sendall(sent)
    return made


def head(server: Server, line: str, **headers: object) -> bytes:
    """The head of a request with the admin's key."""
    given = {"Host": "x", "X-Bindplane-Api-Key": server.admin_key, **headers}
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in given.items()]
    return "\r\n".join([line, *lines, "", ""]).encode()


def read_to_the_end(connection: socket.socket, pause: float = 0.0) -> tuple[bytes, bool]:
    """What comes, and whether the connection was reset."""
    parts = []
    try:
        while part := connection.recv(1 << 16):
            parts.append(part)
            time.sleep(pause)
    except ConnectionResetError:
        return b"".join(parts), True
    return b"".join(parts), False


def stopped(server: Server, sign: signal.Signals = signal.SIGTERM) -> float:
    """How many seconds a server takes to end in order; it says nothing while it does."""
    before = server.output
    began = time.monotonic()
    if sign is signal.SIGINT:
        os.killpg(server.process.pid, sign)
    else:
        server.process.send_signal(sign)
    assert server.process.wait(20) == 0
    took = time.monotonic() - began
    assert server.output == before
    assert took < STOP_SECONDS_MAX
    return took


@contextlib.contextmanager
def closing(*connections: socket.socket) -> Iterator[None]:
    """Closes some connections in the end."""
    with contextlib.ExitStack() as stack:
        for connection in connections:
            stack.enter_context(connection)
        yield


def test_requests_under_way_are_answered_and_stored(tmp_path: Path) -> None:
    """Who has sent the head of a request before SIGTERM and the rest soon after gets his 201."""
    with start(tmp_path / "data") as server:
        bodies = [json.dumps(events(200)).encode() for _ in range(12)]
        posts = [
            connect(
                server, head(server, f"POST {EVENTS} HTTP/1.1", Content_Length=len(body)) + body[: size * 500]
            )
            for size, body in enumerate(bodies)
        ]
        idle = connect(server, head(server, "GET /health HTTP/1.1"))
        assert b"200 OK" in idle.recv(4096)
        with closing(idle, *posts):
            time.sleep(0.3)  # all of it has been read
            server.process.terminate()
            time.sleep(0.3)
            assert idle.recv(4096) == b""
            for number, body in enumerate(bodies):
                posts[number].sendall(body[number * 500 :])
            answers = [read_to_the_end(connection)[0] for connection in posts]
            assert server.process.wait(STOP_SECONDS_MAX) == 0
        key = server.admin_key
    ids = set()
    for answer in answers:
        assert answer.startswith(b"HTTP/1.1 201 ")
        ids.update(json.loads(answer.partition(b"\r\n\r\n")[2])["ids"])
    assert len(ids) == 12 * 200
    with start(tmp_path / "data", port=server.port) as again, client(again.url, key) as admin:
        assert ids <= {event["id"] for event in events_of(admin.get(EVENTS))}


def test_downloads_are_broken_off(data: Path) -> None:
    """A reader of whatever form, by HTTP/1.1 or 1.0, sees that his answer is not whole."""
    requests = {
        "csv": (f"GET {DOWNLOAD} HTTP/1.1", {}),
        "csv, 1.0": (f"GET {DOWNLOAD} HTTP/1.0", {}),
        "json": (f"GET {EVENTS} HTTP/1.1", {}),
        "ndjson, 1.0": (f"GET {EVENTS} HTTP/1.0", {"Accept": "application/x-ndjson"}),
        "gzip": (f"GET {DOWNLOAD} HTTP/1.1", {"Accept-Encoding": "gzip"}),
        "zstd, 1.0": (f"GET {EVENTS} HTTP/1.0", {"Accept-Encoding": "zstd"}),
    }
    with start(data) as server:
        readers = [connect(server, head(server, line, **more), 1 << 15) for line, more in requests.values()]
        got: list[tuple[bytes, bool]] = [(b"", False)] * len(readers)

        def read(number: int) -> None:
            got[number] = read_to_the_end(readers[number], pause=0.005)

        threads = [threading.Thread(target=read, args=(number,)) for number in range(len(readers))]
        with closing(*readers):
            for thread in threads:
                thread.start()
            time.sleep(0.5)
            assert stopped(server) < 3
            for thread in threads:
                thread.join()
    for name, (answer, reset) in zip(requests, got, strict=True):
        assert b" 200 OK\r\n" in answer[:20], name
        assert len(answer) > 1 << 16, name
        assert reset, name


def test_stalled_readers_and_halves_of_requests_hold_nothing_up(data: Path) -> None:
    """Readers that stopped reading are cut off, and nobody waits long for the rest of a request."""
    with start(data) as server:
        stalled = [connect(server, head(server, f"GET {DOWNLOAD} HTTP/1.1"), 4096) for _ in range(20)]
        idle = [connect(server, b"") for _ in range(3)]
        halves = [
            connect(server, b"GET /health HT"),
            connect(server, head(server, f"POST {EVENTS} HTTP/1.1", Content_Length=100) + b"[{"),
        ]
        with closing(*stalled, *idle, *halves):
            time.sleep(1)
            stopped(server)
            for connection in (*stalled, *halves):
                answer, _ = read_to_the_end(connection)
                assert len(answer) < 50_000_000
                assert not answer.endswith(b"\r\n0\r\n\r\n")
    with start(data, port=server.port) as server:
        stalled = [connect(server, head(server, f"GET {DOWNLOAD} HTTP/1.1"), 4096) for _ in range(20)]
        with closing(*stalled):
            time.sleep(0.5)
            assert stopped(server) < 3


def test_ctrl_c_ends_server_and_workers_in_order(tmp_path: Path) -> None:
    """A terminal sends SIGINT to all of them: what was answered 201 is stored, and nothing is said."""
    ids: list[str] = []
    with start(tmp_path / "data", "--workers", "2") as server:
        key = server.admin_key

        def record() -> None:
            with client(server.url, key) as admin, contextlib.suppress(Exception):
                while True:
                    ids.extend(admin.post(EVENTS, content=json.dumps(events(50)).encode()).json()["ids"])

        threads = [threading.Thread(target=record) for _ in range(3)]
        for thread in threads:
            thread.start()
        time.sleep(0.7)
        assert stopped(server, signal.SIGINT) < 3
        for thread in threads:
            thread.join()
    assert ids
    with start(tmp_path / "data", port=server.port) as server, client(server.url, key) as admin:
        assert set(ids) <= {event["id"] for event in events_of(admin.get(EVENTS))}
        assert stopped(server, signal.SIGINT) < 3


@pytest.mark.parametrize("ignored", [False, True])
def test_a_closed_terminal_ends_it_unless_that_is_ignored(tmp_path: Path, *, ignored: bool) -> None:
    """SIGHUP is as SIGTERM; after `nohup` it is nothing."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN if ignored else signal.SIG_DFL)
    try:
        server = start(tmp_path / "data")
    finally:
        signal.signal(signal.SIGHUP, before)
    with server:
        os.killpg(server.process.pid, signal.SIGHUP)
        if ignored:
            time.sleep(0.3)
            wait_until_healthy(server)
        else:
            assert server.process.wait(STOP_SECONDS_MAX) == 0


def test_it_can_be_ended_at_any_moment_of_its_start(tmp_path: Path) -> None:
    """SIGTERM and Ctrl-C end a server that has not yet come up, quietly, and the next one comes up."""
    data = tmp_path / "data"
    chosen = random.Random(7)
    for attempt in range(8):
        server = launch(data)
        sign = (signal.SIGTERM, signal.SIGINT)[attempt % 2]
        if sign is signal.SIGINT:
            wait_until_it_holds(server)  # Python itself says much when it is interrupted before
        time.sleep(chosen.random() * 0.7)
        os.killpg(server.process.pid, sign)
        began = time.monotonic()
        status = server.process.wait(20)
        assert time.monotonic() - began < STOP_SECONDS_MAX
        assert status in (0, 130, -signal.SIGTERM), server.output
        assert "Traceback" not in server.output, server.output
        assert "ERROR" not in server.output, server.output
    with start(data) as server, client(server.url, server.admin_key) as admin:
        assert admin.get(EVENTS).status_code == 200


def wait_until_it_holds(server: Server) -> None:
    """Returns once a server has begun to work on its folder."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        with contextlib.suppress(FileNotFoundError):
            if (server.data / "lock").read_text() == f"{server.process.pid}\n":
                return
        time.sleep(0.01)
