"""Requests to the whole application of a worker, and what a client makes of the answers of any server.

The application is that of a worker with its data folder, without the network: a request is a line, headers,
an empty line and a body. The client is the real one, down to the bytes that come from the connection.
"""

import asyncio
import json
import re
from collections.abc import Callable, MutableMapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote

import httpcore2
import httpx2
from httpcore2 import MockBackend

from auditplane import config, rotation, tiles, verifying
from auditplane.access import Access
from auditplane.access.key import Role
from auditplane.client import Client, Filter, transport
from auditplane.errors import ConnectionLost, InvalidConfig, ProofError, Refused
from auditplane.http import app
from auditplane.log import clock
from auditplane.store.sqlite.folder import DataFolder
from torture.inputs import Parser

EVENT_ID: Final = "01JQ0000000000000000000000"
EVENT: Final = json.dumps(
    {
        "id": EVENT_ID, "resourceName": "otlp", "resourceKind": "Source", "action": "Modified", "user": "ann",
        "details": {"before": {"a": 1}, "after": {"a": 2}},
    }
).encode()  # fmt: skip
SERVED: Final = (*range(200, 205), *range(300, 309))
DECLINED: Final = range(400, 500)

Message = MutableMapping[str, Any]


def parsers(stack: ExitStack, folder: Path) -> list[Parser]:
    """The application of a worker on a folder, and the client."""
    served = Served(folder)
    stack.callback(served.close)
    answers, requests = _answers(), [*_requests(), *_page_requests()]
    return [
        Parser("requests", served.feed, (Declined,), requests, _words(), bytes_max=6_000, share=0.1),
        Parser("answers", _answer, (Refused, ConnectionLost, ProofError), answers, bytes_max=900, share=0.2),
        Parser(
            "addresses of servers",
            _address,
            (InvalidConfig, ConnectionLost),
            [
                b"http://127.0.0.1:3001\nap_x",
                b"http://[::1]:3001/a/b\nap_y",
                b"http://user:x@xn--a.example:80/?\n",
            ],
            bytes_max=200,
            share=0.2,
        ),
    ]


class Declined(Exception):
    """The answer is a 4xx."""


class Served:
    """The application, with two keys and a session."""

    def __init__(self, path: Path) -> None:
        settings = config.load({"data": str(path)}, {})
        folder = DataFolder(path)
        rotation.prepare(folder, None, None, clock)
        access = Access(folder, clock)
        _, admin = access.create(account="default", role=Role.ADMIN, by="test")
        _, writer = access.create(account="acme", role=Role.WRITER, by="test")
        token, session = access.open_session(admin)
        access.close()
        folder.close()
        self._stands_for = {
            b"ADMIN": admin.encode(), b"WRITER": writer.encode(), b"SESSION": token.encode(),
            b"CSRF": session.csrf.encode(),
        }  # fmt: skip
        self._loop = asyncio.new_event_loop()
        self._app = app.build(settings)
        self._state: dict[str, Any] = {}
        self._said: asyncio.Queue[str] = asyncio.Queue()
        self._ending = asyncio.Event()
        self._life = self._loop.create_task(self._live())
        self._loop.run_until_complete(self._said.get())
        self.feed(b"POST /v1/audit-events\nx-bindplane-api-key: ADMIN\n\n" + EVENT)

    async def _live(self) -> None:
        async def receive() -> Message:
            if not self._state:
                return {"type": "lifespan.startup"}
            await self._ending.wait()
            return {"type": "lifespan.shutdown"}

        async def send(message: Message) -> None:
            await self._said.put(message["type"])

        await self._app({"type": "lifespan", "state": self._state}, receive, send)

    def close(self) -> None:
        """Ends it."""
        self._ending.set()
        self._loop.run_until_complete(self._life)
        self._loop.run_until_complete(self._loop.shutdown_default_executor())
        self._loop.close()

    def feed(self, data: bytes) -> None:
        """Makes a request; AssertionError for an answer that is the fault of the server, or none."""
        for name, value in self._stands_for.items():
            data = data.replace(name, value)
        head, _, body = data.partition(b"\n\n")
        line, *headers = head.split(b"\n")
        self._loop.run_until_complete(self._request(line, headers, body))

    async def _request(self, line: bytes, headers: Sequence[bytes], body: bytes) -> None:
        scope = _scope(line, headers, self._state)
        parts = [body, None]
        sent: list[Message] = []

        async def receive() -> Message:
            part = parts.pop(0) if parts else None
            return {"type": "http.disconnect"} if part is None else {"type": "http.request", "body": part}

        async def send(message: Message) -> None:
            sent.append(message)

        await self._app(scope, receive, send)
        _check(sent)


def _check(sent: Sequence[Message]) -> None:
    """Raises Declined for a 4xx, and AssertionError for what is none of what may be answered."""
    status = sent[0]["status"] if sent else 0
    for name, value in sent[0]["headers"] if sent else ():
        if re.search(rb"[\r\n\0]", name + value):
            raise AssertionError(f"the header {name!r} has a line end")
    if status in DECLINED:
        raise Declined
    if status not in SERVED:
        raise AssertionError(f"the answer is {status}")


def _scope(line: bytes, headers: Sequence[bytes], state: dict[str, Any]) -> dict[str, Any]:
    """What granian makes of a request."""
    method, _, target = line.partition(b" ")
    path, _, query = target.partition(b"?")
    pairs = [header.partition(b":") for header in headers]
    given = [(name.strip().lower(), value.strip()) for name, _, value in pairs]
    if not any(name == b"host" for name, _ in given):
        given.append((b"host", b"127.0.0.1:3001"))
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": method.decode("latin-1"),
        "scheme": "http",
        "path": unquote(path.decode("utf-8", "replace"), errors="replace"),
        "raw_path": path,
        "query_string": query,
        "root_path": "",
        "headers": given,
        "client": ("127.0.0.1", "1"),
        "server": ("127.0.0.1", "3001"),
        "state": state.copy(),
        "extensions": {},
    }


_KEY: Final = b"\nx-bindplane-api-key: ADMIN\n"
_COOKIE: Final = b"\nhost: 127.0.0.1:3001\ncookie: auditplane_session=SESSION\naccept: text/html\n"


def _requests() -> list[bytes]:
    """Right requests to the API."""
    event_path = b"/v1/audit-events/" + EVENT_ID.encode()
    gets = [
        b"/v1/audit-events?user=ann&limit=2&order=asc", b"/v1/audit-events?order=recorded&after=-1&limit=1",
        b"/v1/audit-events/download?raw=true&min-date=20260101", b"/v1/audit-events/count?q=otlp",
        b"/v1/audit-events/evidence?action=Modified", event_path, event_path + b"/proof",
        b"/v1/log/default/key",
        b"/v1/log/default/checkpoint", b"/v1/log/default/tile/0/000.p/1",
        b"/v1/log/default/tile/entries/000.p/1",
        b"/v1/log/default/consistency?from=0&to=1", b"/v1/log/default/events?from=0&to=1", b"/v1/api-keys",
        b"/v1/retention", b"/v1/holds", b"/v1/version", b"/health", b"/metrics", b"/openapi.json",
    ]  # fmt: skip
    accept = b"accept: text/csv, text/plain;q=0.5, */*;q=0.1\naccept-encoding: gzip, zstd;q=0\n"
    account = b"content-type: application/json\nx-bindplane-account-id: default\n"
    posts = [
        (b"POST /v1/audit-events", b"content-type: application/x-ndjson\n", EVENT),
        (b"POST /v1/audit-events", account, EVENT),
        (b"POST /v1/api-keys", b"", b'{"role":"reader","envelope":true,"expires":"2099-01-01T00:00:00Z"}'),
        (b"DELETE /v1/api-keys/" + EVENT_ID.encode(), b"", b""),
        (b"PUT /v1/retention", b"", b'{"days":365}'),
        (b"POST /v1/holds", b"", b'{"reason":"case","user":"ann","minDate":"20260101","maxDate":null}'),
        (b"DELETE /v1/holds/" + EVENT_ID.encode(), b"", b""),
        (b"POST /v1/erasures", b"", b'{"ids":["01JQ0000000000000000000001"],"reason":"x"}'),
        (b"POST /v1/erasures", b"", b'{"user":"nobody","reason":"x"}'),
    ]  # fmt: skip
    bearer = b"\nauthorization: Bearer WRITER\ncontent-length: 2\n\n{}"
    return [
        *(b"GET " + path + _KEY + accept + b"\n" for path in gets),
        *(line + _KEY + headers + b"\n" + body for line, headers, body in posts),
        b"POST /v1/audit-events" + bearer,
        b"HEAD /v1/audit-events" + _KEY + b"\n",
    ]


def _page_requests() -> list[bytes]:
    """Right requests to the page."""
    gets = [
        b"/?user=ann&chart=kind", b"/rows?order=asc", b"/overview?chart=action",
        b"/suggestions?member=user&text=a",
        b"/relax?user=ann&q=x", b"/live?after=0", b"/export?user=ann", b"/export/csv?user=ann",
        b"/export/evidence", b"/events/" + EVENT_ID.encode(), b"/events/" + EVENT_ID.encode() + b"/proof",
        b"/log/consistency?from=0&to=1", b"/keys?revoked=x", b"/keys/x/revoke", b"/keeping?done=placed",
        b"/keeping/holds/x/lift", b"/storage", b"/sign-in?next=%2Fkeys", b"/sign-in/abc",
        b"/static/x/page.css",
    ]  # fmt: skip
    forms = [
        (b"/keys", b"role=reader&description=x&ends=30&envelope=on"),
        (b"/keys/x/revoke", b""),
        (b"/keeping/retention", b"days=36&confirmed=yes"),
        (b"/keeping/holds", b"reason=case&user=ann&from=20260101&to="),
        (b"/sign-in", b"key=WRITER&next=/keys"),
    ]
    form = b"content-type: application/x-www-form-urlencoded\norigin: http://127.0.0.1:3001\n"
    headers = b"hx-request: true\nhx-current-url: http://127.0.0.1:3001/?user=ann\nlast-event-id: 1\n"
    return [
        *(b"GET " + path + _COOKIE + b"\n" for path in gets),
        b"GET /rows" + _COOKIE + headers + b"sec-fetch-site: same-origin\n\n",
        *(b"POST " + path + _COOKIE + form + b"\ncsrf=CSRF&" + body for path, body in forms),
        b"POST /keys" + _COOKIE + form + b"x-csrf-token: CSRF\n\nrole=writer&ends=",
    ]


def _words() -> list[bytes]:
    return [
        b"ADMIN", b"WRITER", b"SESSION", b"CSRF", EVENT_ID.encode(), b"GET", b"HEAD", b"PUT", b"DELETE",
        b"OPTIONS",
        b"\ncontent-encoding: gzip", b"\nauthorization: Basic x", b"\nx-forwarded-proto: https",
        b"\ncontent-length: " + b"0" * 4_400 + b"2", b"\nrange: bytes=0-1", b"\nif-none-match: *",
        b"\nx-http-method-override: DELETE",
        b"\ncookie: __Host-auditplane_session=SESSION", b"\nsec-purpose: prefetch", b"\nhost: evil.example\\",
        b"/v1/", b"/..", b"%2f", b"?x=1",
    ]  # fmt: skip


# The client.


class _Wire(httpx2.HTTPTransport):
    """A connection from which some bytes come."""

    def __init__(self, answer: bytes) -> None:
        # Not that of the base, which reads the certificates of the machine.
        self._pool = httpcore2.ConnectionPool(network_backend=MockBackend([answer[:9], answer[9:]]))


def _answers() -> list[bytes]:
    """What comes back, after a letter for the method of the client that asks."""
    event = EVENT + b"\n"
    line = b'{"index":0,"event":{},"stamp":{}}\n'
    bodies = {
        b"a": (b"application/json", b'{"ids":["x"]}'),
        b"b": (b"application/json", EVENT),
        b"c": (b"application/json", b'{"count":5}'),
        b"d": (b"application/x-ndjson", event * 2),
        b"e": (b"application/x-ndjson\r\nAuditplane-Next-After: 4\r\nAuditplane-Log-Size: 5", event),
        b"f": (b"application/octet-stream", b"id,timestamp\r\n"),
        b"g": (b"text/plain", b"note\n\n\xe2\x80\x94 x y\n"),
        b"h": (b"application/json", b'{"from":1,"to":2,"path":["AAAA"]}'),
        b"i": (b"application/octet-stream", bytes(64)),
        b"j": (b"application/x-ndjson\r\nAuditplane-Expired: 4", b""),
        b"k": (b"application/x-ndjson", line),
        b"l": (b'application/x-ndjson\r\nLink: </v1/audit-events?cursor=abc>; rel="next"', event),
    }
    found = [name + _http(b"200 OK", media, body) for name, (media, body) in bodies.items()]
    errors = b'{"errors":["The API key is unknown."]}'
    chunked = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    return [
        *found,
        b"c" + _http(b"401 Unauthorized", b"application/json", errors),
        b"a" + _http(b"503 Service Unavailable", b"application/json\r\nRetry-After: 3", errors),
        b"c" + chunked + b'5\r\n{"cou\r\n5\r\nnt":1\r\n1\r\n}\r\n0\r\n\r\n',
        b"b" + _http(b"302 Found", b"text/html\r\nLocation: http://evil.example/", b""),
        b"b"
        + _http(
            b"200 OK",
            b"application/json\r\nContent-Encoding: zstd",
            b"\x28\xb5\x2f\xfd\x04\x00\x11\x00\x00{}",
        ),
        b"b" + _http(b"200 OK", b"application/json\r\nContent-Encoding: gzip", b"\x1f\x8b\x08"),
    ]


def _http(status: bytes, media: bytes, body: bytes) -> bytes:
    head = b"HTTP/1.1 %s\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n"
    return head % (status, media, len(body)) + body


_ASKS: Final[dict[bytes, Callable[[Client], object]]] = {
    b"a": lambda client: client.record([{"id": EVENT_ID}]),
    b"b": lambda client: client.get("x/../é"),
    b"c": lambda client: client.count(Filter(users=("ann",))),
    b"d": lambda client: list(client.events()),
    b"e": lambda client: client.recorded_after(3),
    b"f": lambda client: list(client.download()),
    b"g": lambda client: client.checkpoint("default"),
    b"h": lambda client: client.consistency("default", 1, 2),
    b"i": lambda client: client.tile("default", tiles.Tile(0, 0, 2)),
    b"j": lambda client: client.expired_before("default"),
    b"k": lambda client: [*map(verifying.parse_entry_line, client.entry_lines("default", 0, 1))],
    b"l": lambda client: list(client.lines(limit=20)),
}


def _answer(data: bytes) -> None:
    """Has the method that a letter names read the answer behind it."""
    ask = _ASKS.get(data[:1], _ASKS[b"c"])
    with _client("http://127.0.0.1:1", "ap_x", data[1:]) as client:
        ask(client)


def _address(data: bytes) -> None:
    url, key, *_ = [*data.decode("utf-8", "surrogateescape").split("\n"), ""]
    with _client(url, key, _http(b"200 OK", b"application/json", b'{"count":5}')) as client:
        client.count()


def _client(url: str, key: str, answer: bytes) -> Client:
    """A client to which a server gives some bytes, on each of its connections."""
    setattr(transport, "RETRY_SECONDS_MAX", 0.0)  # noqa: B010 - it is a constant
    client = Client(url, key)
    client._transport._http._transport = _Wire(answer)  # noqa: SLF001 - all else is the real one
    return client
