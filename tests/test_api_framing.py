"""Where a request ends, over raw sockets: no framing makes the server run a request that stands in another.

A proxy before the server may find the end of a request elsewhere than the server does, and who knows both
rules could hide a request of his own in that of somebody else. So what can be read in two ways is refused,
and the connection ends, or it ends after the one answer.
"""

import contextlib
import re
import socket
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from auditplane.access import Access
from server import Server
from tenants import EVENTS, Tenant, event, events_of, new_tenant

LAST = b"GET /v1/version HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
"""Ends a connection that is still used after what was before it."""


def body_of(user: str) -> bytes:
    return b'{"resourceName":"n","resourceKind":"Source","action":"a","user":"%b"}' % user.encode()


OUTER = body_of("outer")
SIZE = len(OUTER)
CHUNK = b"%x\r\n%b\r\n" % (SIZE, OUTER)
CHUNKS = CHUNK + b"0\r\n\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"


def length(count: int) -> bytes:
    return b"Content-Length: %d\r\n" % count


@pytest.fixture(scope="module")
def asked(server: Server, access: Access) -> Iterator["Asked"]:
    """An account whose log tells what was run, and a connection for each test."""
    for tenant in new_tenant(server, access):
        yield Asked(server, tenant)
        assert tenant.reader.get("/health").status_code == 200
        assert "Traceback" not in server.output


class Asked:
    """Sends bytes, and says what came of them."""

    def __init__(self, server: Server, tenant: Tenant) -> None:
        self.server, self._tenant = server, tenant
        self.key = b"X-Bindplane-Api-Key: " + tenant.admin.headers["X-Bindplane-Api-Key"].encode() + b"\r\n"
        self.head = b"POST %b HTTP/1.1\r\nHost: x\r\n%b" % (EVENTS.encode(), self.key)
        inner = body_of("inner")
        self.inner = self.head + length(len(inner)) + b"\r\n" + inner

    def exchange(self, sent: bytes) -> list[int]:
        """The statuses of the answers until the server closes, which it must do."""
        found = b""
        with socket.create_connection(("127.0.0.1", self.server.port), timeout=5) as connection:
            connection.sendall(sent)
            try:
                while more := connection.recv(65_536):
                    found += more
            except ConnectionResetError:
                pass  # it closed before it had read everything
        return [int(status) for status in re.findall(rb"HTTP/1\.[01] (\d{3}) ", found)]

    def recorded(self, user: str) -> int:
        """How many events of a user there are."""
        return len(events_of(self._tenant.admin.get(EVENTS, params={"user": user})))


AMBIGUOUS = {
    "two encodings": CHUNKED + b"Transfer-Encoding: identity\r\n\r\n" + CHUNKS,
    "an unknown encoding": b"Transfer-Encoding: xchunked\r\n\r\n" + CHUNKS,
    "chunked before another": b"Transfer-Encoding: chunked, identity\r\n\r\n" + CHUNKS,
    "an encoding that is ignored": b"Transfer-Encoding: gzip, chunked\r\n\r\n" + CHUNKS,
    "an unknown one that is ignored": b"Transfer-Encoding: foo, chunked\r\n\r\n" + CHUNKS,
    "chunked twice": b"Transfer-Encoding: chunked, chunked\r\n\r\n" + CHUNKS,
    "chunked in two headers": CHUNKED + CHUNKED + b"\r\n" + CHUNKS,
    "an encoding in a header before": b"Transfer-Encoding: gzip\r\n" + CHUNKED + b"\r\n" + CHUNKS,
    "a quoted encoding": b'Transfer-Encoding: "chunked"\r\n\r\n' + CHUNKS,
    "a control character before it": b"Transfer-Encoding: \x0bchunked\r\n" + length(SIZE) + b"\r\n" + CHUNKS,
    "a blank before its colon": b"Transfer-Encoding : chunked\r\n" + length(SIZE) + b"\r\n" + CHUNKS,
    "a blank before its name": b" Transfer-Encoding: chunked\r\n" + length(SIZE) + b"\r\n" + OUTER,
    "a folded header": b"X-A: b\r\n Transfer-Encoding: chunked\r\n" + length(SIZE) + b"\r\n" + OUTER,
    "a folded encoding": b"Transfer-Encoding:\r\n chunked\r\n" + length(SIZE) + b"\r\n" + OUTER,
    "a bare CR": b"X-A: b\rTransfer-Encoding: chunked\r\n" + length(SIZE) + b"\r\n" + OUTER,
    "a NUL": b"X-A: b\x00c\r\n" + length(SIZE) + b"\r\n" + OUTER,
    "a name that is none": b"X@[]: y\r\n" + length(SIZE) + b"\r\n" + OUTER,
    "two lengths": length(SIZE) + length(SIZE + 1) + b"\r\n" + OUTER,
    "two lengths, the longer first": length(SIZE + 1) + length(SIZE) + b"\r\n" + OUTER,
    "a list of lengths": b"Content-Length: %d, %d\r\n\r\n" % (SIZE, SIZE) + OUTER,
    "a blank before the colon of a length": b"Content-Length : %d\r\n\r\n" % SIZE + OUTER,
    "a length with a plus": b"Content-Length: +%d\r\n\r\n" % SIZE + OUTER,
    "a negative length": b"Content-Length: -%d\r\n\r\n" % SIZE + OUTER,
    "a hexadecimal length": b"Content-Length: 0x%x\r\n\r\n" % SIZE + OUTER,
    "a fractional length": b"Content-Length: %d.0\r\n\r\n" % SIZE + OUTER,
    "a length beyond 64 bits": length(2**64 + SIZE) + b"\r\n" + OUTER,
    "an empty length": b"Content-Length: \r\n\r\n" + OUTER,
    "a length with an underscore": b"Content-Length: %d_%d\r\n\r\n" % divmod(SIZE, 10) + OUTER,
    "a chunk size that is none": CHUNKED + b"\r\nzz\r\n" + OUTER + b"\r\n0\r\n\r\n",
    "a negative chunk size": CHUNKED + b"\r\n-%x\r\n" % SIZE + OUTER + b"\r\n0\r\n\r\n",
    "a chunk size with a prefix": CHUNKED + b"\r\n0x%x\r\n" % SIZE + OUTER + b"\r\n0\r\n\r\n",
    "a chunk size beyond 64 bits": CHUNKED + b"\r\n1%016x\r\n" % SIZE + OUTER + b"\r\n0\r\n\r\n",
    "a line feed in a chunk extension": CHUNKED + b"\r\n%x;a\n" % SIZE + OUTER + b"\r\n0\r\n\r\n",
    "line feeds alone around chunks": CHUNKED + b"\r\n%x\n" % SIZE + OUTER + b"\n0\n\n",
    "no line end after a chunk": CHUNKED + b"\r\n%x\r\n" % SIZE + OUTER + b"XX0\r\n\r\n",
    "a huge chunk extension": CHUNKED + b"\r\n%x;a=%b\r\n" % (SIZE, b"b" * 40_000) + OUTER + b"\r\n0\r\n\r\n",
    "huge trailers": CHUNKED + b"\r\n" + CHUNK + b"0\r\n" + b"X-A: %b\r\n" % (b"b" * 40_000) + b"\r\n",
}  # fmt: skip


@pytest.mark.parametrize("case", AMBIGUOUS)
def test_what_can_be_read_in_two_ways_is_refused(asked: Asked, case: str) -> None:
    """With one 400 at the most; then the connection ends, and nothing is recorded."""
    sent = asked.head + AMBIGUOUS[case] + asked.inner + LAST
    assert asked.exchange(sent) in ([400], [])
    assert (asked.recorded("outer"), asked.recorded("inner")) == (0, 0)


@pytest.mark.parametrize("body", [b"zz\r\n" + OUTER, CHUNK[:-2] + b"XX", CHUNK[:9]])
def test_of_a_body_that_is_not_whole_no_more_is_said_than_is_known(asked: Asked, body: bytes) -> None:
    """A malformed chunk is not told from the end of a connection, which is still read from here."""
    with socket.create_connection(("127.0.0.1", asked.server.port), timeout=5) as connection:
        connection.sendall(asked.head + CHUNKED + b"\r\n" + body)
        connection.shutdown(socket.SHUT_WR)
        answer = b"".join(iter(lambda: connection.recv(65_536), b""))
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"the connection ended, or a chunk is malformed" in answer


@pytest.mark.parametrize("version", [b"HTTP/1.0", b"HTTP/1.2", b"HTTP/9", b"http/1.1", b""])
def test_chunks_are_of_http_1_1_only(asked: Asked, version: bytes) -> None:
    head = asked.head.replace(b"HTTP/1.1", version)
    assert asked.exchange(head + CHUNKED + b"\r\n" + CHUNKS + asked.inner) in ([400], [])
    assert (asked.recorded("outer"), asked.recorded("inner")) == (0, 0)


@pytest.mark.parametrize("hosts", [b"", b"Host: x\r\nHost: y\r\n", b"Host: x\r\nHost: x\r\n"])
def test_a_request_has_one_host(asked: Asked, hosts: bytes) -> None:
    head = asked.head.replace(b"Host: x\r\n", hosts)
    assert asked.exchange(head + length(SIZE) + b"\r\n" + OUTER + asked.inner) in ([400], [])
    assert (asked.recorded("outer"), asked.recorded("inner")) == (0, 0)


def test_who_speaks_http_1_0_need_not_name_the_host(asked: Asked) -> None:
    assert asked.exchange(b"GET /v1/version HTTP/1.0\r\n\r\n") == [200]


def both(first: bytes, second: bytes) -> bytes:
    return first + second + b"\r\n" + CHUNKS


LENGTH_AND_CHUNKS = {
    "the length first": both(length(SIZE), CHUNKED),
    "the chunks first": both(CHUNKED, length(SIZE)),
    "a length that is too short": both(length(4), CHUNKED),
    "a length with all that follows": both(length(100_000), CHUNKED),
    "after a line feed alone": b"X-A: b\nTransfer-Encoding: chunked\r\n" + length(SIZE) + b"\r\n" + CHUNKS,
}


@pytest.mark.parametrize("case", LENGTH_AND_CHUNKS)
def test_after_a_length_and_chunks_the_connection_ends(tenant: Tenant, case: str) -> None:
    """The chunks count (RFC 9112, section 6.3), and what stands behind them is not looked at."""
    own = Asked(tenant.server, tenant)
    assert own.exchange(own.head + LENGTH_AND_CHUNKS[case] + own.inner + LAST) == [201]
    assert (own.recorded("outer"), own.recorded("inner")) == (1, 0)


CLEAR = {
    "the same length twice": length(SIZE) * 2 + b"\r\n" + OUTER,
    "zeros before a length": b"Content-Length: 000%d\r\n\r\n" % SIZE + OUTER,
    "other words in Connection": length(SIZE) + b"Connection: content-length\r\n\r\n" + OUTER,
    "names with underscores":
        b"Content_Length: 3\r\nTransfer_Encoding: chunked\r\n" + length(SIZE) + b"\r\n" + OUTER,
    "a chunk extension": CHUNKED + b"\r\n%x;a=b\r\n" % SIZE + OUTER + b"\r\n0\r\n\r\n",
    "trailers":
        CHUNKED + b"\r\n" + CHUNK + b"0\r\nContent-Length: 5\r\nX-Bindplane-Account-ID: other\r\n\r\n",
}  # fmt: skip


@pytest.mark.parametrize("case", CLEAR)
def test_what_is_clear_is_taken_once(tenant: Tenant, case: str) -> None:
    """And the connection is then where both think that it is."""
    own = Asked(tenant.server, tenant)
    assert own.exchange(own.head + CLEAR[case] + LAST) == [201, 200]
    assert own.recorded("outer") == 1


@pytest.mark.parametrize(
    "line",
    [b"GET /v1/version", b"HEAD /v1/version", b"POST /nowhere", b"POST /v1/audit-events", b"DELETE /v1/x"],
)
@pytest.mark.parametrize("chunked", [False, True])
def test_a_request_in_a_body_is_never_run(asked: Asked, line: bytes, *, chunked: bool) -> None:
    """Though nobody reads the body: the route takes none, is none, or refuses before."""
    inner = asked.inner
    framed = CHUNKED + b"\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(inner), inner)
    head = line + b" HTTP/1.1\r\nHost: x\r\n"
    statuses = asked.exchange(head + (framed if chunked else length(len(inner)) + b"\r\n" + inner) + LAST)
    assert len(statuses) <= 2
    assert statuses[0] in (200, 401, 404)
    assert asked.recorded("inner") == 0


@pytest.mark.parametrize(
    "line",
    [
        b"GET http://evil.example/v1/version HTTP/1.1", b"GET /v1/version HTTP/1.1\r\nHost: evil.example",
        b"GET /v1/version HTTP/1.1\r\nX-Forwarded-Host: evil.example", b"CONNECT evil.example:80 HTTP/1.1",
        b"OPTIONS * HTTP/1.1", b"GET //evil.example/ HTTP/1.1", b"GET /\\evil.example HTTP/1.1",
    ],
)  # fmt: skip
def test_it_is_nobodys_proxy(asked: Asked, line: bytes) -> None:
    """Whatever host a request names, it is this server that answers, and no answer names that host."""
    with socket.create_connection(("127.0.0.1", asked.server.port), timeout=5) as connection:
        connection.sendall(line + b"\r\nHost: x\r\nConnection: close\r\n\r\n")
        answer = b"".join(iter(lambda: connection.recv(65_536), b""))
    assert re.match(rb"HTTP/1\.1 (200|404|405|400) ", answer)
    assert b"evil" not in answer


# HTTP/2, which is spoken by TLS, and to who begins with its preface.

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"
HEADERS, RESET, CONTINUATION = 1, 3, 9
END_STREAM, END_HEADERS = 1, 4


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """RFC 9113, section 4.1."""
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def number(value: int) -> bytes:
    """The length of a text (RFC 7541, section 5.1)."""
    if value < 127:
        return bytes([value])
    rest, more = value - 127, [127]
    while rest >= 128:
        more.append(rest % 128 + 128)
        rest //= 128
    return bytes([*more, rest])


def literal(name: bytes, value: bytes, *, kept: bool = False) -> bytes:
    """A header field (RFC 7541, section 6.2); one that is `kept` is meant by the byte 0xBE then."""
    return (b"\x40" if kept else b"\x00") + number(len(name)) + name + number(len(value)) + value


def start_of(path: bytes, method: bytes = b"POST") -> bytes:
    """The header fields that each request has."""
    return b"".join(
        literal(name, value)
        for name, value in (
            (b":method", method), (b":scheme", b"http"), (b":path", path), (b":authority", b"x"),
        )
    )  # fmt: skip


def memory_bytes(server: Server) -> int:
    """The most that a process of the server takes."""
    group = str(server.process.pid)
    taken = 0
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if path.joinpath("stat").read_text().rpartition(")")[2].split()[2] == group:
                taken = max(taken, int(path.joinpath("statm").read_text().split()[1]) * 4096)
        except OSError:
            continue  # it has ended
    return taken


def until_closed(connection: socket.socket) -> bytes:
    found = b""
    try:
        while more := connection.recv(65_536):
            found += more
    except (TimeoutError, ConnectionResetError):
        pass
    return found


def test_headers_that_unpack_to_much_cost_little(asked: Asked) -> None:
    """Ten kilobytes that mean 480 MB of header fields, of somebody without a key."""
    before = memory_bytes(asked.server)
    form = literal(b"content-type", b"application/x-www-form-urlencoded")
    kept = literal(b"a", b"v" * 4_000, kept=True)
    with socket.create_connection(("127.0.0.1", asked.server.port), timeout=1) as connection:
        connection.sendall(PREFACE)
        with contextlib.suppress(OSError):  # it may end the connection at once
            for stream in range(1, 60, 2):
                block = start_of(b"/sign-in") + form + (kept if stream == 1 else b"") + b"\xbe" * 4_000
                connection.sendall(frame(HEADERS, END_HEADERS, stream, block))
            until_closed(connection)
        assert memory_bytes(asked.server) < before + 64 * 1024 * 1024


def resets() -> Iterator[bytes]:
    """Requests that are taken back at once."""
    block = start_of(b"/v1/version", b"GET")
    for stream in range(1, 40_000, 2):
        yield frame(HEADERS, END_STREAM | END_HEADERS, stream, block)
        yield frame(RESET, 0, stream, struct.pack(">I", 8))


def continuations() -> Iterator[bytes]:
    """One request whose header fields never end."""
    yield frame(HEADERS, 0, 1, start_of(b"/v1/version", b"GET"))
    for at in range(20_000):
        yield frame(CONTINUATION, 0, 1, literal(b"b%d" % at, b"v" * 1_000))


def send_all(connection: socket.socket, frames: Iterator[bytes]) -> None:
    for each in frames:
        connection.sendall(each)


@pytest.mark.parametrize("flood", [resets, continuations])
def test_a_flood_of_frames_ends_the_connection(asked: Asked, flood: Callable[[], Iterator[bytes]]) -> None:
    """Long before all of it was sent, and it costs little."""
    before = memory_bytes(asked.server)
    with socket.create_connection(("127.0.0.1", asked.server.port), timeout=5) as connection:
        connection.sendall(PREFACE)
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            send_all(connection, flood())
    assert memory_bytes(asked.server) < before + 64 * 1024 * 1024


@pytest.mark.parametrize(
    "field",
    [
        (b"x-a", b"b\r\nX-Bindplane-Api-Key: x"), (b"x-a", b"b\nc"), (b"x-a", b"\x00"), (b"x\r\n", b"b"),
        (b"X-A", b"b"), (b"transfer-encoding", b"chunked"), (b"connection", b"close"),
        (b"content-length", b"1"),
    ],
)  # fmt: skip
def test_no_header_of_http_2_becomes_two(asked: Asked, field: tuple[bytes, bytes]) -> None:
    """What HTTP/1.1 would read otherwise is refused (RFC 9113, section 8.2); nothing is recorded."""
    block = start_of(EVENTS.encode()) + literal(*field)
    block += literal(b"x-bindplane-api-key", asked.key.split()[1])
    with socket.create_connection(("127.0.0.1", asked.server.port), timeout=0.25) as connection:
        connection.sendall(PREFACE + frame(HEADERS, END_HEADERS, 1, block) + frame(0, END_STREAM, 1, OUTER))
        until_closed(connection)
    assert asked.recorded("outer") == 0


def test_events_still_come_by_both_versions(tenant: Tenant) -> None:
    """The control: what the tests above send, without what is wrong with it, is recorded."""
    own = Asked(tenant.server, tenant)
    assert own.exchange(own.inner + LAST) == [201, 200]
    block = start_of(EVENTS.encode()) + literal(b"x-bindplane-api-key", own.key.split()[1])
    with socket.create_connection(("127.0.0.1", tenant.server.port), timeout=0.25) as connection:
        connection.sendall(PREFACE + frame(HEADERS, END_HEADERS, 1, block) + frame(0, END_STREAM, 1, OUTER))
        until_closed(connection)
    assert (own.recorded("outer"), own.recorded("inner")) == (1, 1)
    assert tenant.record(event())
