"""What a server keeps and tells: no secret that it was sent, wherever that stood, and no line of a caller."""

import contextlib
import json
import logging
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from auditplane.access import Access
from auditplane.access.key import Role, new_secret
from auditplane.cli.server import AS_ROOT
from auditplane.http.lines import JsonLines
from auditplane.http.page.sessions import COOKIE
from routes import ROUTES
from server import Server, start
from tenants import DOWNLOAD, EVENTS, EVIDENCE, KEYS, Json, client, event, opened

STARTED = ("Auditplane ", "The key of its first admin is in ")
HOSTILE = 'x\r\n{"level":"error","message":"forged"}\x1b[2J\u2028\u0085\x00"\\'
"""Line ends, a line as the server writes them, and what a terminal would obey."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that logs requests and records who downloads."""
    data = tmp_path_factory.mktemp("told") / "data"
    env = {"AUDITPLANE_SERVER_LOG_REQUESTS": "true", "AUDITPLANE_AUDIT_TRAIL_RECORD_READS": "true"}
    with start(data, env=env) as started:
        yield started


@pytest.fixture(scope="module")
def access(server: Server) -> Iterator[Access]:
    yield from opened(server.data)


def places(url: str, secret: str) -> Iterator[tuple[str, str, Json]]:
    """Requests that carry a secret, where it belongs and where it does not."""
    key = {"X-Bindplane-Api-Key": secret}
    for route in ROUTES:
        path = re.sub(r"\{[^}]*\}", secret, route.path)
        yield route.method, path, {}
        yield route.method, path, {"headers": key}
        yield route.method, path, {"headers": {"Cookie": f"{COOKIE}={secret}", "Accept": "text/html"}}
        yield route.method, path, {"params": {"key": secret, secret: "x", "cursor": secret}, "headers": key}
    for name in ("user", "q", "resource-kind", "limit", "after", "order", "min-date", "cursor", secret):
        for path in (EVENTS, DOWNLOAD, EVIDENCE):
            yield "GET", path, {"params": {name: secret}}
            yield "GET", path, {"params": {name: secret}, "headers": key}
    for header in ("Authorization", "X-Api-Key", "Accept", "User-Agent", "Referer", "X-Bindplane-Account-ID"):
        for value in (secret, f"Bearer {secret}", f"Basic {secret}", f"{url}/?key={secret}"):
            yield "GET", EVENTS, {"headers": {header: value}}
            yield "GET", EVENTS, {"headers": {header: value, **key}}
    for headers in (
        {"Content-Type": secret},
        {"Content-Encoding": secret},
        {"Content-Type": "application/json"},
    ):
        yield "POST", EVENTS, {"content": secret, "headers": {**headers, **key}}
    for body in (
        {"role": secret},
        {"role": "reader", secret: 1},
        {"role": "reader", "expires": secret},
        secret,
    ):
        yield "POST", KEYS, {"json": body, "headers": key}
    for member in ("id", "timestamp", "resourceKind", "account", secret):
        yield "POST", EVENTS, {"json": event(**{member: secret}), "headers": key}
    yield "PUT", "/v1/retention", {"json": {"days": secret}, "headers": key}
    yield "POST", "/v1/holds", {"json": {"reason": "", "minDate": secret}, "headers": key}
    yield "POST", "/v1/erasures", {"json": {"reason": "x", "ids": [secret]}, "headers": key}
    for form in ({"key": secret}, {"key": f"{secret}x"}, {"key": secret, "csrf": secret}):
        yield "POST", "/sign-in", {"data": form}
    yield "GET", f"/sign-in/{secret}", {"headers": {"Accept": "text/html"}}


def raw(server: Server, *lines: bytes) -> None:
    """Sends what no client would, and waits for the end of the answer."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as connection:
        connection.sendall(b"\r\n".join([*lines, b"Host: x", b"Connection: close", b"", b""]))
        with contextlib.suppress(OSError):
            while connection.recv(65_536):
                pass


def test_no_secret_is_told_or_kept(server: Server, access: Access) -> None:
    """A key that works, one that does not, one that was revoked, the token of a session, and that of a link.

    None is in the log, in a metric, in an error, or in a file of the data folder.
    """
    key_id, revoked = made(access, Role.ADMIN)
    access.revoke(key_id, account="default", by="tests")
    reader_id, reader = made(access, Role.READER)
    session, _ = access.open_session(reader)
    secrets = [made(access, Role.ADMIN)[1], new_secret(), revoked, session, access.make_link(reader_id)]
    for secret in secrets:
        raw(server, f"{secret} {EVENTS} HTTP/1.1".encode())
        raw(server, f"GET {EVENTS}/{secret} HTTP/1.1".encode(), f"{secret}: x".encode())
        with client(server.url) as sender:
            for method, path, options in places(server.url, secret):
                if path == "/live":
                    continue
                answer = sender.request(method, path, **options)
                assert answer.status_code < 500, (method, path, options)
                if answer.status_code >= 400 and secret.startswith("ap_"):
                    assert secret[:20] not in answer.text, (method, path, options)
    with client(server.url) as anybody:
        kept = {"metrics": anybody.get("/metrics").content}
    access.write_last_use()
    server.stop()
    kept["log"] = server.log.read_bytes()
    kept |= {str(path): path.read_bytes() for path in server.data.rglob("*") if path.is_file()}
    assert len(kept) > 8
    for name, content in kept.items():
        assert not [secret for secret in secrets if secret.encode() in content], name


def lines_of(log: bytes) -> list[Json]:
    """The lines of a log, each one JSON object, but for what was said at the start."""
    log = log.replace(AS_ROOT.encode() + b"\n", b"")
    assert not re.search(rb"[\x00-\x09\x0b-\x1f\x7f]", log)
    lines = [line for line in log.decode().split("\n") if line and not line.startswith(STARTED)]
    found = [json.loads(line) for line in lines]
    assert all(isinstance(line, dict) for line in found)
    return found


def test_nobody_writes_lines_of_his_own(tmp_path: Path) -> None:
    """By path, query, method, header, body or key: each request is one line, and none has what was sent."""
    with start(tmp_path / "data", env={"AUDITPLANE_SERVER_LOG_REQUESTS": "true"}) as server:
        admin = {"X-Bindplane-Api-Key": server.admin_key}
        with client(server.url) as sender:
            before = len(lines_of(server.log.read_bytes()))
            sender.get(f"/{quote(HOSTILE)}", headers=admin)
            sender.get(EVENTS, params={"user": HOSTILE, HOSTILE: "x"}, headers=admin)
            sender.get(f"{EVENTS}/{quote(HOSTILE, safe='')}", headers=admin)
            sender.post(EVENTS, json=event(user=HOSTILE.replace("\x00", ""), action=HOSTILE), headers=admin)
            sender.post(KEYS, json={"role": "reader", "description": HOSTILE}, headers=admin)
            sender.post("/sign-in", data={"key": HOSTILE, "next": HOSTILE})
            sender.get(f"/sign-in/{quote(HOSTILE, safe='')}")
            for name in ("User-Agent", "Referer", "X-Forwarded-For", "X-Bindplane-Api-Key", "Cookie"):
                sender.get(EVENTS, headers={name.encode(): b"forged\t\x85"})
        raw(server, b"FORGED!#$%&'*+.^_`|~ /forged HTTP/1.1")
        raw(server, b"GET /\x1b[2Jforged HTTP/1.1", b"User-Agent: \x1b[2J")
        raw(server, b"GET /v1/version HTTP/1.1", b"X-A: forged\nX-B: forged")
        server.stop()
        told = lines_of(server.log.read_bytes())
    sent = told[before:]
    assert 12 <= len(sent) <= 20
    assert {line["message"] for line in sent} == {"request"}
    assert {line["route"] for line in sent} <= {"none", *(route.path for route in ROUTES)}
    assert {line["method"] for line in sent} <= {"GET", "POST", "other"}
    assert "forged" not in json.dumps(told).lower()


def test_whatever_is_logged_is_one_line_without_a_key() -> None:
    """A message, a name in it and a traceback, in which texts of callers may stand."""
    secret = new_secret()
    try:
        raise ValueError(f"{HOSTILE} {secret}")
    except ValueError as error:
        logged = (type(error), error, error.__traceback__)
    record = logging.LogRecord("x", logging.ERROR, "p", 1, "%s %r", (HOSTILE, secret), logged)
    line = JsonLines().format(record)
    assert lines_of(line.encode() + b"\n")[0]["level"] == "error"
    assert len(line.splitlines()) == 1
    assert secret[:12] not in line


def made(access: Access, role: Role) -> tuple[str, str]:
    key, secret = access.create(account="default", role=role, by="tests")
    return key.id, secret
