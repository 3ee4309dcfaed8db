"""Odd requests over real HTTP: whatever is sent, the answer is never 5xx, and the server stays up."""

import random
import re
import socket
from collections.abc import Iterator
from urllib.parse import quote_from_bytes

import httpx2
import pytest

from tenants import COUNT, DOWNLOAD, EVENTS, EVIDENCE, KEYS, Tenant, event, problems_of

PATHS = (
    EVENTS,
    DOWNLOAD,
    COUNT,
    f"{EVENTS}/x",
    KEYS,
    f"{KEYS}/x",
    "/v1/version",
    "/health",
    "/metrics",
    "/openapi.json",
)
METHODS = {
    EVENTS: "GET, HEAD, POST", DOWNLOAD: "GET, HEAD", COUNT: "GET, HEAD", f"{EVENTS}/x": "GET, HEAD",
    KEYS: "GET, HEAD, POST", f"{KEYS}/x": "DELETE", "/v1/version": "GET, HEAD", "/health": "GET, HEAD",
    "/metrics": "GET, HEAD", "/openapi.json": "GET, HEAD",
}  # fmt: skip


class Wire:
    """Sends bytes as they are, which no client would."""

    def __init__(self, tenant: Tenant) -> None:
        self._port = tenant.server.port
        self._key = tenant.admin.headers["X-Bindplane-Api-Key"].encode()

    def send(self, line: bytes, *headers: bytes, body: bytes = b"", host: bytes = b"Host: x") -> bytes:
        """The whole answer to a request with an admin's key."""
        own = [host, b"X-Bindplane-Api-Key: " + self._key, b"Connection: close"]
        return self.exchange(b"\r\n".join([line, *own, *headers, b"", body]))

    def exchange(self, request: bytes) -> bytes:
        """What comes back until the server closes."""
        found = b""
        with socket.create_connection(("127.0.0.1", self._port), timeout=10) as connection:
            connection.sendall(request)
            while more := connection.recv(65_536):
                found += more
        return found

    def status(self, line: bytes, *headers: bytes, body: bytes = b"", host: bytes = b"Host: x") -> int:
        """The status of the answer."""
        found = re.match(rb"HTTP/1\.[01] (\d{3}) ", self.send(line, *headers, body=body, host=host))
        assert found
        return int(found[1])


@pytest.fixture(scope="module")
def wire(empty: Tenant) -> Iterator[Wire]:
    yield Wire(empty)
    assert empty.reader.get("/health").json() == {"status": "ok"}
    assert "Traceback" not in empty.server.output


@pytest.mark.parametrize("path", PATHS)
def test_a_wrong_method_is_405_and_names_the_right_ones(empty: Tenant, path: str) -> None:
    for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW"):
        if method in METHODS[path].split(", "):
            continue
        answer = empty.admin.request(method, path)
        assert answer.headers["Allow"] == METHODS[path]
        if method != "HEAD":
            (sentence,) = problems_of(answer, 405)
            assert METHODS[path] in sentence


@pytest.mark.parametrize(
    "path",
    [
        "/v1", "/v1/", "/v1/audit-events/", "/v1/audit-events/download/", "//v1/audit-events",
        "/v1//audit-events",
        "/v1/audit-events/x/y", "/V1/audit-events", "/v1/audit-events%2Fdownload%2Fx", "/v2/audit-events",
        "/%00",
        "/../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "/v1/audit-events;x", "/docs",
        "/%ff%fe",
        "/v1/api-keys/", "/v1/api-keys/x/y", "/" + "a" * 20_000, "/%e2%98%83",
    ],
)  # fmt: skip
def test_an_unknown_path_is_404(empty: Tenant, path: str) -> None:
    """With the contract's error body, key or none."""
    for asker in (empty.admin, empty.client(None)):
        problems_of(
            asker.get(httpx2.URL(empty.server.url).copy_with(raw_path=path.encode("ascii", "ignore"))), 404
        )


ODD_TEXTS = [
    b"%00", b"%01%02%1f%7f", b"%ff", b"%c3%28", b"%ed%a0%80", b"%f4%90%80%80", b"%", b"%zz", b"%0",
    b"%u0041", b"%c2",
    b"\xc3\xa9", b"%EF%BB%BF", b"%E2%80%AE", b"%2500", b"+", b"%20", b"%0d%0aX-Evil:%201", b"'%20OR%201=1--",
    b"%22",
    b"*", b"u1", b"%5c", b"%F0%9F%98%80" * 50, b"a" * 5_000, b"-1", b"NaN", b"1e400", b"9" * 400, b"[]",
    b"%7b%7d",
]  # fmt: skip


@pytest.mark.parametrize("text", ODD_TEXTS)
def test_no_text_in_a_parameter_is_5xx(wire: Wire, text: bytes) -> None:
    """In every parameter of every route; what is not UTF-8 is 400."""
    names = [
        b"user", b"configuration-name", b"min-date", b"max-date", b"action", b"resource-kind",
        b"resource-name", b"q",
        b"order", b"after", b"limit", b"cursor", b"raw", b"",
    ]  # fmt: skip
    for path in (EVENTS, DOWNLOAD, COUNT, EVIDENCE):
        for name in names:
            line = b"GET %s?%s=%s HTTP/1.1" % (path.encode(), name, text)
            status = wire.status(line)
            assert status in (200, 400), line
            if re.search(rb"%ff|%c3%28|%ed%a0|%f4%90|%c2$", text):
                assert status == 400, line
    assert wire.status(b"GET %s?%s=1 HTTP/1.1" % (EVENTS.encode(), text)) == 400


def test_what_is_not_utf8_matches_nothing_by_accident(tenant: Tenant) -> None:
    """U+FFFD stands for no other bytes; a name without escapes, as curl sends it, is read as UTF-8."""
    tenant.record(event(user="Zo\ufffd"), event(user="Zoë"))
    asked = Wire(tenant)
    assert asked.status(b"GET %s?user=Zo%%ff HTTP/1.1" % COUNT.encode()) == 400
    for user in ("Zoë".encode(), b"Zo%c3%ab", b"zo%C3%8B", b"Zoe%CC%88", b"Zo%ef%bf%bd"):
        assert asked.send(b"GET %s?user=%s HTTP/1.1" % (COUNT.encode(), user)).endswith(b'{"count":1}')


@pytest.mark.parametrize("size", [8_000, 8_193, 60_000, 70_000, 500_000])
def test_a_very_long_url_is_400_or_414(wire: Wire, size: int) -> None:
    for name in (b"user", b"x", b"cursor"):
        status = wire.status(b"GET %s?%s=%s HTTP/1.1" % (EVENTS.encode(), name, b"a" * size))
        assert status in ((200, 400) if size < 8_192 else (400, 414, 431))


def test_very_many_parameters_are_400(wire: Wire) -> None:
    assert wire.status(b"GET %s?%s HTTP/1.1" % (EVENTS.encode(), b"&".join([b"user=a"] * 100))) == 200
    assert wire.status(b"GET %s?%s HTTP/1.1" % (EVENTS.encode(), b"&".join([b"user=a"] * 101))) == 400
    assert wire.status(b"GET %s?%s HTTP/1.1" % (EVENTS.encode(), b"&" * 8_000)) == 200
    assert wire.status(b"GET %s?%s HTTP/1.1" % (EVENTS.encode(), b"a&" * 4_000)) == 400


@pytest.mark.parametrize(
    "headers",
    [
        [b"Host: y"], [b"Accept: \xff"], [b"Accept: " + b"text/csv;q=0.5," * 500], [b"Accept: ;,;q=;=,/"],
        [b"Accept-Encoding: ;;,,q=1,zstd;q=x"], [b"Accept-Encoding: " + b"gzip," * 2_000],
        [b"Authorization: Bearer \xff"], [b"Authorization: "], [b"Authorization: Bearer " + b"x" * 9_000],
        [b"X-Bindplane-Api-Key: x"], [b"X-Bindplane-Account-ID: \xff\xfe"],
        [b"X-Bindplane-Account-ID: " + b"a" * 9_000],
        [b"Content-Type: \xff; ; ="], [b"Content-Encoding: \xff"],
        [b"Content-Length: 0", b"Content-Length: 0"], [b"Content-Length: " + b"0" * 5_000],
        [b"X-A: " + bytes([number]) for number in range(0x80, 0xA0)],
        [b"X-%d: y" % number for number in range(90)],
        [b"Range: bytes=0-1"], [b"If-None-Match: *"], [b"Cookie: " + b"a=b;" * 900],
        [b"Expect: 100-continue"],
        [b"Transfer-Encoding: chunked, gzip"], [b"Upgrade: websocket"],
        [b"Connection: upgrade", b"Upgrade: h2c"],
    ],
)  # fmt: skip
def test_no_header_is_5xx(wire: Wire, headers: list[bytes]) -> None:
    for path in (EVENTS, f"{EVENTS}?limit=1", DOWNLOAD, f"{DOWNLOAD}?x=1", KEYS, "/health", "/nowhere"):
        assert wire.status(b"GET %s HTTP/1.1" % path.encode(), *headers) < 500


@pytest.mark.parametrize(
    "host", [b"Host: [", b"Host: \xff", b"Host: ", b"Host: a:b:c", b"Host: x/../y?z", b"X-No-Host: x"]
)
def test_no_host_is_5xx(tenant: Tenant, host: bytes) -> None:
    """And a link never leads where a header of the request says."""
    tenant.record(event(), event())
    for path in (f"{EVENTS}?limit=1", f"{EVENTS}?limit=0", f"{DOWNLOAD}?x=1", "/nowhere"):
        answer = Wire(tenant).send(b"GET %s HTTP/1.1" % path.encode(), host=host)
        assert re.match(rb"HTTP/1\.[01] [234]", answer)
        assert b"link: <http" not in answer.lower()


def test_no_path_parameter_is_5xx(wire: Wire) -> None:
    for text in ODD_TEXTS:
        for method, path in ((b"GET", EVENTS), (b"DELETE", KEYS), (b"HEAD", EVENTS)):
            assert wire.status(b"%s %s/%s HTTP/1.1" % (method, path.encode(), text)) in (400, 404, 414)


def test_a_body_that_is_cut_off_is_not_recorded(empty: Tenant) -> None:
    """The client is gone in the middle of it, or says that there is less than there is."""
    key = empty.writer.headers["X-Bindplane-Api-Key"]
    head = f"POST {EVENTS} HTTP/1.1\r\nHost: x\r\nX-Bindplane-Api-Key: {key}\r\n"
    body = b'{"resourceName":"n","resourceKind":"Source","action":"a","user":"cut"}'
    for length in (len(body) + 10, len(body) + 1):
        with socket.create_connection(("127.0.0.1", empty.server.port)) as connection:
            connection.sendall(f"{head}Content-Length: {length}\r\n\r\n".encode() + body)
    with socket.create_connection(("127.0.0.1", empty.server.port)) as connection:
        connection.sendall(f"{head}Transfer-Encoding: chunked\r\n\r\n46\r\n".encode() + body + b"\r\n")
    assert Wire(empty).status(b"POST %s HTTP/1.1" % EVENTS.encode(), b"Content-Length: 60", body=body) == 400
    assert empty.docs(user="cut") == []


def test_a_length_with_very_many_zeros_is_read(tenant: Tenant) -> None:
    """Python reads no number of thousands of digits; whoever has no key sends none either."""
    body = b'{"resourceName":"n","resourceKind":"Source","action":"a","user":"zeros"}'
    wire = Wire(tenant)
    length = b"Content-Length: " + b"0" * 5_000
    post = b"POST %s HTTP/1.1" % EVENTS.encode()
    assert wire.status(post, length + b"%d" % len(body), body=body) == 201
    assert wire.status(post, length + b"99999999") == 413
    form = b"Content-Type: application/x-www-form-urlencoded"
    assert wire.status(b"POST /sign-in HTTP/1.1", form, length + b"5", body=b"key=x") == 401


def test_two_requests_on_one_connection_are_told_apart(tenant: Tenant) -> None:
    """Pipelined, the first refused before its body was read."""
    key = tenant.writer.headers["X-Bindplane-Api-Key"]
    body = b'{"resourceName":"n","resourceKind":"Source","action":"a","user":"u"}'
    head = (
        f"POST {EVENTS} HTTP/1.1\r\nHost: x\r\nX-Bindplane-Api-Key: {key}\r\nContent-Length: {len(body)}\r\n"
    )
    refused = (head + "Content-Type: text/plain\r\n\r\n").encode() + body
    taken = (head + "Connection: close\r\n\r\n").encode() + body
    answer = Wire(tenant).exchange(refused + taken)
    assert [int(status) for status in re.findall(rb"HTTP/1.1 (\d{3})", answer)] == [415, 201]
    assert len(tenant.docs()) == 1


def test_noise_is_never_5xx(wire: Wire) -> None:
    """Requests that are damaged in some places."""
    chosen = random.Random(11)
    whole = b"GET %s?user=bob&min-date=20260101&limit=5 HTTP/1.1" % EVENTS.encode()
    for _ in range(300):
        line = bytearray(whole)
        for _ in range(chosen.randrange(1, 4)):
            line[chosen.randrange(4, len(line) - 9)] = chosen.choice(
                [*b"%&=?#/\\;+ \t\x00\x7f\xff", chosen.randrange(256)]
            )
        found = re.match(rb"HTTP/1\.[01] (\d)", wire.send(bytes(line)))
        assert not found or found[1] in b"234", line
    for _ in range(200):
        query = quote_from_bytes(chosen.randbytes(chosen.randrange(40)), safe="=&").encode()
        assert wire.status(b"GET %s?%s HTTP/1.1" % (EVENTS.encode(), query)) < 500
