"""The bounds hold on a real server, and docs/limits.md has them all."""

import gzip
import http.client
import json
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path

import pytest

from auditplane import limits
from docs_site import pages
from server import Server, make_key, start
from tenants import EVENTS, client, event, events, problems_of, recorded
from torture import kept
from torture.attackers import RECEIVE_BYTES
from trails import big_trail

SILENT: dict[str, bytes] = {
    "nothing": b"",
    "half of a line": b"GET /hea",
    "a request, and no other": b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n",
}


def test_the_page_has_every_bound() -> None:
    """With the value that it has."""
    text = (pages.DOCS / "limits.md").read_text()
    told: dict[str, str] = {}
    for names, values in re.findall(r"^\| (`[A-Z].*?) \| (.*?) \|", text, re.MULTILINE):
        given = values.split(", ") if "," in names else [values]
        told |= dict(zip(re.findall("`(.*?)`", names), given, strict=True))
    bounds = {name: f"{value:,g}" for name, value in vars(limits).items() if name.isupper()}
    exact = {name: f"{getattr(limits, name):,}".removesuffix(".0") for name in bounds}
    assert told == exact


@pytest.fixture(scope="module")
def hasty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that waits for nobody."""
    settings = {
        "IDLE_SECONDS": "1",
        "STALL_SECONDS": "3",
        "BODY_SECONDS": "1",
        "EVENTS_PER_MINUTE": "500",
        "READS_PER_MINUTE": "40",
    }
    env = {f"AUDITPLANE_LIMITS_{name}": value for name, value in settings.items()}
    with start(tmp_path_factory.mktemp("hasty") / "data", "--workers", "2", env=env) as server:
        yield server


@pytest.fixture(scope="module")
def usual(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server as it is without settings."""
    with start(tmp_path_factory.mktemp("usual") / "data") as server:
        yield server


def connected(server: Server, sent: bytes) -> socket.socket:
    made = socket.create_connection(("127.0.0.1", server.port), 30)
    made.sendall(sent)
    return made


def test_who_asks_for_nothing_is_cut_off(hasty: Server) -> None:
    began = time.monotonic()
    with ExitStack() as stack:
        silent = {name: stack.enter_context(connected(hasty, sent)) for name, sent in SILENT.items()}
        for name, connection in silent.items():
            with suppress(ConnectionResetError):
                while connection.recv(1 << 16):
                    pass
            assert time.monotonic() - began < 15, name
    with client(hasty.url, None) as anybody:
        (cut,) = re.findall(
            r'^auditplane_cut_off_total{reason="idle"} (\d+)', anybody.get("/metrics").text, re.MULTILINE
        )
    assert int(cut) >= len(silent)


def test_who_waits_for_an_answer_is_not_cut_off(hasty: Server) -> None:
    """However long he does not send anything: here a page that follows the trail."""
    _, key = make_key(hasty.data, "reader")
    with client(hasty.url, None) as browser:
        answer = browser.post(
            "/sign-in", data={"key": key, "next": "/"}, headers={"Origin": hasty.url, "Host": hasty.url[7:]}
        )
        assert answer.status_code == 303, answer.text
        with browser.stream("GET", "/live", params={"after": "-1"}) as live:
            assert live.status_code == 200
            lines = live.iter_lines()
            deadline = time.monotonic() + 8
            while time.monotonic() < deadline:
                recorded_one(hasty)
                while "news" not in next(lines):
                    pass
                time.sleep(2)


def test_who_takes_the_end_of_an_answer_slowly_is_not_cut_off(hasty: Server) -> None:
    """The server has handed all of it to the system by then, and has no request of his under way."""
    _, key = make_key(hasty.data, "admin", "slow")
    with client(hasty.url, key) as admin:
        recorded(admin.post(EVENTS, json=events(1_000, description="x" * 4_000)))
    head = f"GET {EVENTS}?limit=900 HTTP/1.1\r\nHost: x\r\nX-Bindplane-Api-Key: {key}\r\n\r\n"
    with connected(hasty, head.encode()) as reader:
        answer = reader.recv(1 << 16)
        length = int(re.search(rb"content-length: (\d+)", answer)[1])  # type: ignore[index]
        length += answer.index(b"\r\n\r\n") + 4
        while len(answer) < length:
            part = reader.recv(1 << 17)
            assert part
            answer += part
            time.sleep(0.25)  # it takes eight seconds


def test_what_nobody_reads_is_not_kept_for_long(hasty: Server) -> None:
    """The server has closed the connection by then: the system would keep for it what was not taken."""
    ask = b"GET /openapi.json HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    with ExitStack() as stack:
        stopped = [stack.enter_context(socket.socket()) for _ in range(20)]
        for each in stopped:
            each.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BYTES)
            each.connect(("127.0.0.1", hasty.port))
            each.sendall(ask)
        waiting = {each.getsockname() for each in stopped}
        time.sleep(1)
        assert waiting <= kept.peers(hasty.port)
        deadline = time.monotonic() + 15
        while waiting & kept.peers(hasty.port):
            assert time.monotonic() < deadline
            time.sleep(0.2)


def test_a_stranger_who_sends_a_form_slowly_is_not_waited_for_long(usual: Server) -> None:
    """Else a few thousand of them would take all connections."""
    head = (
        "POST /sign-in HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-www-form-urlencoded\r\n"
        "Content-Length: 1000\r\n\r\nk"
    )
    with connected(usual, head.encode()) as slow:
        began = time.monotonic()
        assert b" 408 " in slow.recv(64)
        assert time.monotonic() - began < limits.BODY_SECONDS_STRANGER + 5


def recorded_one(server: Server) -> None:
    with client(server.url, server.admin_key) as admin:
        recorded(admin.post(EVENTS, json=event()))


def test_a_body_that_does_not_come_is_not_waited_for(hasty: Server) -> None:
    """Not longer than the time that is set, whatever trickles in; nothing of it is stored."""
    head = (
        f"POST {EVENTS} HTTP/1.1\r\nHost: x\r\nX-Bindplane-Api-Key: {hasty.admin_key}\r\n"
        "Content-Type: application/json\r\nContent-Length: 1000000\r\n\r\n["
    )
    with connected(hasty, head.encode()) as trickling:
        began = time.monotonic()
        trickling.settimeout(0.2)
        answer = b""
        while b"\r\n\r\n" not in answer:
            assert time.monotonic() - began < 10
            try:
                trickling.sendall(b" ")
                answer += trickling.recv(1 << 16)
            except TimeoutError:
                continue
        assert b" 408 " in answer.split(b"\r\n")[0]


def test_rates_hold_for_a_key_over_all_workers(hasty: Server) -> None:
    """A key that has used up its own is told when to come again; others go on, and recording is apart."""
    keys = [make_key(hasty.data, role, "rated")[1] for role in ("reader", "reader", "writer")]
    statuses = []
    began = time.monotonic()
    for _ in range(60):
        with client(hasty.url, keys[0]) as reader:  # a connection each: they meet both workers
            last = reader.get(EVENTS, params={"limit": 1})
            statuses.append(last.status_code)
    came_back = (time.monotonic() - began) * 40 / 60
    assert 40 <= statuses.count(200) <= 40 + came_back + 1
    assert set(statuses) == {200, 429}
    with client(hasty.url, keys[0]) as reader:
        refused = next(
            answer
            for answer in (reader.get(f"{EVENTS}/count") for _ in range(50))
            if answer.status_code == 429
        )
        assert "its 40 requests a minute beside those that record;" in problems_of(refused, 429)[0]
        assert 1 <= int(refused.headers["Retry-After"]) <= 60
    with client(hasty.url, keys[1]) as other:
        assert other.get(EVENTS, params={"limit": 1}).status_code == 200
    with client(hasty.url, keys[2]) as writer:
        recorded(writer.post(EVENTS, json=events(700)))
        refused = writer.post(EVENTS, json=event())
        assert "its 500 events a minute;" in problems_of(refused, 429)[0]


def test_events_that_come_at_once_count_before_they_are_recorded(hasty: Server) -> None:
    """One request may go beyond the rate, not all that are under way; what is refused does not count."""
    _, key = make_key(hasty.data, "writer", "parallel")
    known = event(id="01JQ0000000000000000000000")
    with client(hasty.url, key) as writer:
        recorded(writer.post(EVENTS, json=known))
        for _ in range(4):
            other = [{**known, "user": "another"}, *events(400)]
            problems_of(writer.post(EVENTS, json=other), 409)
    body = json.dumps(events(400)).encode()
    head = (
        f"POST {EVENTS} HTTP/1.1\r\nHost: x\r\nX-Bindplane-Api-Key: {key}\r\nConnection: close\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode()
    with ExitStack() as stack:
        senders = [stack.enter_context(connected(hasty, head + body[:-1])) for _ in range(12)]
        time.sleep(0.3)
        for sender in senders:
            sender.sendall(body[-1:])
        statuses = [sender.recv(1 << 16).split(b" ")[1] for sender in senders]
    assert set(statuses) == {b"201", b"429"}
    assert statuses.count(b"201") <= 4, "two in each of two workers, whose counts may meet"


BIG = b" " * limits.BODY_BYTES_MAX


def test_bodies_have_bounded_room_of_which_each_account_has_a_share(usual: Server) -> None:
    """One that sends many large bodies, and does not end them, is refused; another one is not."""
    head = _head_of_big(usual)
    _, other = make_key(usual.data, "writer", "other")
    with ExitStack() as stack:
        halves = [stack.enter_context(connected(usual, head)) for _ in range(8)]
        senders = [threading.Thread(target=_send, args=(half, BIG[:-1])) for half in halves]
        for sender in senders:
            sender.start()
        for sender in senders:
            sender.join()
        with client(usual.url, other) as writer:
            for _ in range(3):
                recorded(writer.post(EVENTS, json=events(100)))
            packed = gzip.compress(json.dumps(events(1_000)).encode())
            recorded(
                writer.post(
                    EVENTS,
                    content=packed,
                    headers={"Content-Encoding": "gzip", "Content-Type": "application/json"},
                )
            )
        for half in halves:
            half.sendall(BIG[-1:])
        answers = [half.recv(1 << 16) for half in halves]
    refused = [answer for answer in answers if b" 503 " in answer]
    assert 5 <= len(refused) < 8, "the others are read, and hold no event"
    assert all(b"retry-after: 1\r\n" in answer.lower() for answer in refused)
    with client(usual.url, usual.admin_key) as admin:
        recorded(admin.post(EVENTS, json=events(1_000)))


def test_a_body_for_which_there_is_no_room_at_all_is_read_and_refused(usual: Server) -> None:
    """Who sends it is told so, over a connection that goes on."""
    with closing(_Sender(usual)) as sender, ExitStack() as stack:
        deadline = time.monotonic() + 30
        while sender.post(b" " * (limits.BODY_BYTES_HELD_MIN + 1)).status != 503:
            assert time.monotonic() < deadline
            stack.enter_context(connected(usual, _head_of_big(usual))).sendall(BIG[:-1])
        used = sender.connection.sock
        for _ in range(2):
            answer = sender.post(BIG)
            assert (answer.status, answer.headers["Retry-After"]) == (503, "1")
            assert sender.connection.sock is used


def test_strangers_who_send_slowly_take_room_from_their_own_address_alone(usual: Server) -> None:
    """A form that comes whole is always taken; accounts and other addresses go on."""
    _, key = make_key(usual.data, "reader")
    form = f"key={key}&next=/".encode()
    head = (
        f"POST /sign-in HTTP/1.1\r\nHost: x\r\nOrigin: http://x\r\nConnection: close\r\n"
        f"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {len(form)}\r\n\r\n"
    ).encode()

    def status(address: str, *parts: bytes) -> bytes:
        with socket.create_connection(("127.0.0.1", usual.port), 30, (address, 0)) as connection:
            for part in parts:
                connection.sendall(part)
                time.sleep(0.2)
            return connection.recv(1 << 16).split(b" ")[1]

    with ExitStack() as stack:
        for _ in range(limits.STRANGERS_BODIES_BYTES_MAX // limits.BODY_BYTES_HELD_MIN // 2):
            stack.enter_context(connected(usual, head + form[:1]))
        deadline = time.monotonic() + limits.BODY_SECONDS_STRANGER * 0.8
        while status("127.0.0.1", head + form[:2], form[2:]) != b"503":
            assert time.monotonic() < deadline
            stack.enter_context(connected(usual, head + form[:1]))
        assert status("127.0.0.1", head + form) == b"303"
        assert status("127.0.0.2", head + form[:2], form[2:]) == b"303"
        with client(usual.url, usual.admin_key) as admin:
            recorded(admin.post(EVENTS, json=events(10_000, description="x" * 1_000)))


@pytest.mark.parametrize(
    ("path", "content_type", "size", "status"),
    [
        (EVENTS, "application/json", limits.BODY_BYTES_MAX + 1, 413),
        (EVENTS, "application/json", limits.BODY_BYTES_REFUSED_MAX, 413),
        (EVENTS, "text/plain", limits.BODY_BYTES_MAX, 415),
        (f"{EVENTS}?user=ann", "application/json", limits.BODY_BYTES_MAX, 400),
        ("/v1/erasures", "application/json", limits.BODY_BYTES_MAX, 413),
    ],
)
@pytest.mark.parametrize("chunked", [False, True], ids=["told", "chunked"])
def test_a_known_sender_of_a_large_body_reads_why_it_is_refused(
    usual: Server, path: str, content_type: str, size: int, status: int, *, chunked: bool
) -> None:
    """He need not look for an answer before he has sent all, and his connection goes on."""
    mib = 1024 * 1024
    pieces = [b" " * min(mib, size - at) for at in range(0, size, mib)]
    with closing(_Sender(usual)) as sender:
        answer = sender.post(iter(pieces) if chunked else b"".join(pieces), path, content_type)
        assert answer.status == status
        used = sender.connection.sock
        assert used is not None
        assert sender.post(json.dumps(event()).encode()).status == 201
        assert sender.connection.sock is used


@pytest.mark.parametrize(("path", "status"), [(EVENTS, 401), ("/v1/nowhere", 404), ("/health", 405)])
def test_so_does_a_stranger(usual: Server, path: str, status: int) -> None:
    with closing(_Sender(usual, key="ap_unknown")) as sender:
        for _ in range(2):
            assert sender.post(BIG, path).status == status


@pytest.mark.parametrize(
    ("headers", "at_least", "at_most"),
    [
        ({"Content-Length": "9", "Expect": "100-continue"}, 0.0, 5.0),
        ({"Content-Length": str(limits.BODY_BYTES_REFUSED_MAX + 1)}, 0.0, 5.0),
        ({"Content-Length": "9"}, 1.0, 10.0),
    ],
    ids=["who waits for leave", "far too much", "nothing comes"],
)
def test_a_refused_body_that_does_not_come_is_not_waited_for_long(
    hasty: Server, headers: dict[str, str], at_least: float, at_most: float
) -> None:
    sent = {"Host": "x", "X-Bindplane-Api-Key": hasty.admin_key, **headers}
    lines = "".join(f"{name}: {value}\r\n" for name, value in sent.items())
    began = time.monotonic()
    with connected(hasty, f"POST {EVENTS}?user=ann HTTP/1.1\r\n{lines}\r\n".encode()) as asking:
        assert asking.recv(1 << 16).startswith(b"HTTP/1.1 400 ")
    assert at_least <= time.monotonic() - began < at_most


class _Sender:
    """Sends a body whole before it looks for an answer, as many clients do."""

    def __init__(self, server: Server, key: str | None = None) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
        self._key = key or server.admin_key

    def post(
        self, body: bytes | Iterator[bytes], path: str = EVENTS, content_type: str = "application/json"
    ) -> http.client.HTTPResponse:
        headers = {"X-Bindplane-Api-Key": self._key, "Content-Type": content_type}
        self.connection.request("POST", path, body, headers)
        answer = self.connection.getresponse()
        answer.read()
        return answer

    def close(self) -> None:
        self.connection.close()


def _head_of_big(server: Server) -> bytes:
    return (
        f"POST {EVENTS} HTTP/1.1\r\nHost: x\r\nX-Bindplane-Api-Key: {server.admin_key}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(BIG)}\r\n\r\n"
    ).encode()


def _send(connection: socket.socket, data: bytes) -> None:
    with suppress(OSError):  # it may be refused before it has sent all
        connection.sendall(data)


def test_long_answers_are_bounded_for_each_account(usual: Server, tmp_path: Path) -> None:
    """One that begins more than its share is refused, another still reads."""
    _, key = make_key(usual.data, "reader", "greedy")
    _, writing = make_key(usual.data, "writer", "greedy")
    _, modest = make_key(usual.data, "reader", "modest")
    with client(usual.url, writing) as writer:
        for _ in range(4):
            recorded(writer.post(EVENTS, json=events(1_000, description="x" * 4_000)))
    head = f"GET {EVENTS} HTTP/1.1\r\nHost: x\r\nX-Bindplane-Api-Key: {key}\r\n\r\n".encode()
    with ExitStack() as stack:
        first = []
        for _ in range(limits.STREAMS_MAX // 2 + 20):
            made = socket.socket()
            made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            made.settimeout(30)
            made.connect(("127.0.0.1", usual.port))
            made.sendall(head)
            stack.enter_context(made)
            first.append(made)
        statuses = [made.recv(64).split(b" ")[1] for made in first]
        assert statuses.count(b"503") == 20
        assert statuses.count(b"200") == limits.STREAMS_MAX // 2
        with client(usual.url, modest) as reader:
            assert reader.get(EVENTS).status_code == 200


CACHES = """
import sys
import apsw
from pathlib import Path
from auditplane.store.sqlite.database import bound_caches, connect, fetch
if sys.argv[2]:
    bound_caches()
connections = [connect(Path(sys.argv[1]), durable=False) for _ in range(12)]
for connection in connections:
    fetch(connection, "SELECT sum(instr(data, x'0001')) FROM frame")
print(apsw.memory_used())
"""


def test_many_connections_keep_no_more_pages_than_all_may(tmp_path: Path) -> None:
    """Without the bound they keep far more."""
    path = big_trail(tmp_path / "data") / "accounts" / "default.db"
    bounded, free = (
        int(
            subprocess.run(
                [sys.executable, "-c", CACHES, path, given], capture_output=True, check=True
            ).stdout
        )
        for given in ("bounded", "")
    )
    assert bounded < limits.CACHES_BYTES_MAX * 1.1 < free


def test_heads_beyond_the_bound_are_refused(usual: Server) -> None:
    """Just below it they are answered."""
    for size, status in ((limits.HEADER_BYTES_MAX - 1_000, b"200"), (limits.HEADER_BYTES_MAX * 3, b"431")):
        head = b"GET /health HTTP/1.1\r\nHost: x\r\nX-Long: " + b"a" * size + b"\r\n\r\n"
        with connected(usual, head) as asking:
            assert asking.recv(64).split(b" ")[1] == status
