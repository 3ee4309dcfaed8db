"""Where a request ends, over raw sockets: no framing makes the server run a request that stands in another.

A proxy before the server may find the end of a request elsewhere than the server does, and who knows both
rules could hide a request of his own in that of somebody else. So what can be read in two ways is refused,
and the connection ends, or it ends after the one answer.
"""

import re
import socket
from collections.abc import Iterator

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


# HTTP/2, with which a stranger could hold a hundred answers a connection.


def test_http_2_is_not_spoken(asked: Asked) -> None:
    """Neither to who begins with its preface, nor to who asks for it in HTTP/1.1."""
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    upgrade = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n"
    for sent, told in (
        (preface, rb"HTTP/1\.1 (400|505) |$"),
        (b"GET /health/live HTTP/1.1\r\nHost: x\r\n" + upgrade + b"\r\n", rb"HTTP/1\.1 200 "),
    ):
        with socket.create_connection(("127.0.0.1", asked.server.port), timeout=5) as connection:
            connection.sendall(sent)
            assert re.match(told, connection.recv(65_536))


def test_events_still_come(tenant: Tenant) -> None:
    """The control: what the tests above send, without what is wrong with it, is recorded."""
    own = Asked(tenant.server, tenant)
    assert own.exchange(own.inner + LAST) == [201, 200]
    assert own.recorded("inner") == 1
    assert tenant.record(event())
