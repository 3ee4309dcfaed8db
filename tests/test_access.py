"""API keys: who gets in, with which right, until when; no secret is kept; the trail tells of keys."""

import json
import random
import re
import socket
import stat
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import apsw
import httpx2
import pytest

from auditplane import limits, ulid
from auditplane.access import Access
from auditplane.access.key import Role, is_well_formed, new_secret
from auditplane.access.stored import MIGRATIONS, QUERIES
from auditplane.errors import Conflict, InvalidInput, NotAuthenticated, NotFound
from auditplane.store.sqlite.database import fetch, one
from auditplane.store.sqlite.folder import NotedClock, note_clock
from auditplane.times import format_us
from folders import FreeFolder
from server import Server, make_key, revoke_key, run, start
from tenants import (
    COUNT,
    DOWNLOAD,
    EVENTS,
    EVIDENCE,
    KEYS,
    Json,
    Tenant,
    client,
    clock,
    event,
    events_of,
    opened,
    problems_of,
)

BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
SECOND_US = 1_000_000
ASK: dict[str, Callable[[httpx2.Client], httpx2.Response]] = {
    "list": lambda asker: asker.get(EVENTS),
    "page": lambda asker: asker.get(EVENTS, params={"limit": 1}),
    "download": lambda asker: asker.get(DOWNLOAD, headers={"Accept": "application/json"}),
    "count": lambda asker: asker.get(COUNT),
    "get": lambda asker: asker.get(f"{EVENTS}/01JQ00000000000000000000AB"),
    "record": lambda asker: asker.post(EVENTS, json=event()),
    "list keys": lambda asker: asker.get(KEYS),
    "create a key": lambda asker: asker.post(KEYS, json={"role": "reader"}),
    "revoke a key": lambda asker: asker.delete(f"{KEYS}/01JQ00000000000000000000AB"),
    "show the retention": lambda asker: asker.get("/v1/retention"),
    "set the retention": lambda asker: asker.put("/v1/retention", json={"days": None}),
    "list holds": lambda asker: asker.get("/v1/holds"),
    "place a hold": lambda asker: asker.post("/v1/holds", json={"reason": "x"}),
    "lift a hold": lambda asker: asker.delete("/v1/holds/01JQ00000000000000000000AB"),
    "erase": lambda asker: asker.post("/v1/erasures", json={"reason": "x", "user": "nobody"}),
}
READ = {"list", "page", "download", "count", "get"}
MAY = {"reader": READ, "writer": {"record"}, "admin": set(ASK)}


# The form of a key.


def test_a_key_has_256_random_bits_and_a_checksum() -> None:
    """`ap_`, 43 letters and digits, and six of CRC-32 over them, by which scanners know a leaked key."""
    seen = set()
    for _ in range(500):
        secret = new_secret()
        assert re.fullmatch(r"ap_[0-9A-Za-z]{49}", secret)
        body, checksum = secret[3:46], secret[46:]
        number = zlib.crc32(body.encode())
        assert checksum == "".join(BASE62[number // 62**place % 62] for place in reversed(range(6)))
        assert is_well_formed(secret)
        seen.add(body)
    assert len(seen) == 500
    for place in range(1, 43):
        assert len({body[place] for body in seen}) > 40, "each place takes all letters and digits"


@pytest.mark.parametrize("place", range(52))
def test_a_mistyped_key_is_no_key(place: int) -> None:
    secret = new_secret()
    for other in ("0", "z", "-", " ", "é", "\x00"):
        if secret[place] != other:
            assert not is_well_formed(secret[:place] + other + secret[place + 1 :])
    assert not is_well_formed(secret[:place] + secret[place + 1 :])
    assert not is_well_formed(secret[:place] + "0" + secret[place:])


# Who gets in.


@pytest.mark.parametrize("role", MAY)
@pytest.mark.parametrize("asked", ASK)
def test_a_role_may_do_what_it_is_for(shared: Tenant, role: str, asked: str) -> None:
    """And no more: 403 says which role is needed."""
    answer = ASK[asked](getattr(shared, role))
    if asked in MAY[role]:
        assert answer.status_code in (200, 201, 404)
    else:
        (sentence,) = problems_of(answer, 403)
        assert "admin" in sentence


@pytest.fixture(scope="module")
def shared(server: Server, access: Access) -> Iterator[Tenant]:
    made = Tenant(server, access, "shared-by-access")
    yield made
    made.close()


def wrong_headers(right: str) -> list[dict[str, str]]:
    return [
        {},
        {"X-Bindplane-Api-Key": ""},
        {"X-Bindplane-Api-Key": new_secret()},
        {"X-Bindplane-Api-Key": right[:-1]},
        {"X-Bindplane-Api-Key": right + "0"},
        {"X-Bindplane-Api-Key": right.lower()},
        {"X-Bindplane-Api-Key": "é" * 52},
        {"X-Bindplane-Api-Key": "x" * 10_000},
        {"X-Bindplane-Api-Key": f"Bearer {right}"},
        {"Authorization": right},
        {"Authorization": f"Basic {right}"},
        {"Authorization": "Bearer"},
        {"Authorization": f"Bearer {new_secret()}"},
        {"Authorization": f"Bearer {right}", "X-Bindplane-Api-Key": new_secret()},
        {"Cookie": f"X-Bindplane-Api-Key={right}"},
    ]


@pytest.mark.parametrize("asked", ASK)
def test_without_a_good_key_it_is_401(shared: Tenant, asked: str) -> None:
    """Whatever is asked, with the contract's error body and WWW-Authenticate; the key is never repeated."""
    right = shared.admin.headers["X-Bindplane-Api-Key"]
    stranger = shared.client(None)
    for headers in wrong_headers(right):
        stranger.headers = httpx2.Headers({name.encode(): value.encode() for name, value in headers.items()})
        answer = ASK[asked](stranger)
        problems_of(answer, 401)
        assert answer.headers["WWW-Authenticate"].startswith("Bearer")
        assert right not in answer.text


def test_a_key_in_the_url_is_no_key(shared: Tenant) -> None:
    """It would end up in logs."""
    secret = shared.admin.headers["X-Bindplane-Api-Key"]
    for name in ("key", "api-key", "access_token", "X-Bindplane-Api-Key"):
        problems_of(shared.client(None).get(EVENTS, params={name: secret}), 401)


def test_both_headers_carry_a_key(shared: Tenant) -> None:
    secret = shared.reader.headers["X-Bindplane-Api-Key"]
    for headers in (
        {"x-bindplane-api-key": secret}, {"X-BINDPLANE-API-KEY": secret},
        {"Authorization": f"Bearer {secret}"},
        {"authorization": f"bearer  {secret}"},
        {"Authorization": f"Bearer {secret}", "X-Bindplane-Api-Key": secret},
        {"Authorization": "Basic eDp5", "X-Bindplane-Api-Key": secret},
        {"Authorization": f"Bearer {secret}", "X-Bindplane-Api-Key": ""},
    ):  # fmt: skip
        assert shared.client(None).get(EVENTS, headers=headers).status_code == 200
    twice = [("X-Bindplane-Api-Key", secret), ("X-Bindplane-Api-Key", new_secret())]
    for both in (twice, twice[::-1], [("Authorization", f"Bearer {value}") for _, value in twice]):
        problems_of(shared.client(None).get(EVENTS, headers=both), 401)


@pytest.mark.parametrize("asked", ASK)
def test_an_account_header_of_another_account_is_403(shared: Tenant, asked: str) -> None:
    own, other = shared.account, "default"
    for values in ([other], [own.upper()], [own, other], [other, own], [own + " x"], ["é"]):
        secret = shared.admin.headers["X-Bindplane-Api-Key"].encode()
        accounts = [(b"X-Bindplane-Account-ID", value.encode()) for value in values]
        shared.admin.headers = httpx2.Headers([(b"X-Bindplane-Api-Key", secret), *accounts])
        problems_of(ASK[asked](shared.admin), 403)
    for value in (own, ""):
        shared.admin.headers["X-Bindplane-Account-ID"] = value
        assert ASK[asked](shared.admin).status_code in (200, 201, 404)
    del shared.admin.headers["X-Bindplane-Account-ID"]


def test_a_key_ends_when_it_expires(tenant: Tenant) -> None:
    _, secret = tenant.key("reader", expires_us=clock() + 2 * SECOND_US)
    asker = tenant.client(secret)
    assert asker.get(EVENTS).status_code == 200
    deadline = time.monotonic() + 10
    while asker.get(EVENTS).status_code == 200:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    problems_of(asker.get(EVENTS), 401)


# The routes of keys.


def test_a_key_is_shown_once(tenant: Tenant) -> None:
    """With everything about it; the list has it without the secret, for admins of its account only."""
    wanted = {
        "role": "reader",
        "description": "grafana “Ü”",
        "expires": "2099-01-01T00:00:00+01:00",
        "envelope": True,
    }
    answer = tenant.admin.post(KEYS, json=wanted)
    assert answer.status_code == 201
    assert answer.headers["Cache-Control"] == "no-store"
    made = answer.json()
    secret = made.pop("key")
    assert is_well_formed(secret)
    assert made == {
        "id": made["id"], "account": tenant.account, "role": "reader", "description": "grafana “Ü”",
        "envelope": True, "created": made["created"], "expires": "2098-12-31T23:00:00.000000Z",
    }  # fmt: skip
    assert "auditEvents" in tenant.client(secret).get(EVENTS).json()
    listed = tenant.admin.get(KEYS)
    assert made in listed.json()["apiKeys"]
    assert secret not in listed.text
    assert "key" not in {name for key in listed.json()["apiKeys"] for name in key}
    least = tenant.admin.post(KEYS, json={"role": "admin"}).json()
    assert (least["description"], least["envelope"], "expires" in least) == ("", False, False)


@pytest.mark.parametrize(
    "body",
    [
        {}, {"role": "root"}, {"role": None}, {"role": "reader", "account": "default"},
        {"role": "reader", "x": 1},
        {"role": "reader", "description": "d" * 257}, {"role": "reader", "description": "a\nb"},
        {"role": "reader", "description": "\x00"}, {"role": "reader", "description": 1},
        {"role": "reader", "expires": "2020-01-01T00:00:00Z"}, {"role": "reader", "expires": "90d"},
        {"role": "reader", "expires": "9999-12-31T23:59:59-23:59"}, {"role": "reader", "expires": 1},
        {"role": "reader", "envelope": "yes"}, [], "reader", None, 1,
    ],
)  # fmt: skip
def test_an_impossible_key_is_400_and_not_made(shared: Tenant, body: Any) -> None:
    before = shared.admin.get(KEYS).json()
    problems_of(shared.admin.post(KEYS, json=body), 400)
    assert [key["id"] for key in shared.admin.get(KEYS).json()["apiKeys"]] == [
        key["id"] for key in before["apiKeys"]
    ]


@pytest.mark.parametrize(
    "body", [b"", b"{", b"\xff", b'{"role":"reader","description":"\\ud800"}', b"[" * 10_000]
)
def test_a_body_that_is_no_json_is_400(shared: Tenant, body: bytes) -> None:
    problems_of(shared.admin.post(KEYS, content=body), 400)


def test_a_huge_body_is_413(shared: Tenant) -> None:
    problems_of(shared.admin.post(KEYS, content=b" " * (16 * 1024 * 1024 + 1)), 413)


def test_a_revoked_key_is_refused_at_once(tenant: Tenant) -> None:
    """On open connections too; the key stays in the list; a second time is 409, an unknown one 404."""
    key_id, secret = tenant.key("reader")
    asker = tenant.client(secret)
    assert asker.get(EVENTS).status_code == 200
    answer = tenant.admin.delete(f"{KEYS}/{key_id}")
    assert (answer.status_code, answer.content) == (204, b"")
    problems_of(asker.get(EVENTS), 401)
    (shown,) = [key for key in tenant.admin.get(KEYS).json()["apiKeys"] if key["id"] == key_id]
    assert shown["revoked"] >= shown["created"]
    problems_of(tenant.admin.delete(f"{KEYS}/{key_id}"), 409)
    for unknown in ("01JQ00000000000000000000AB", "x", key_id.lower(), "é", "%00", "%2e%2e"):
        problems_of(tenant.admin.delete(f"{KEYS}/{unknown}"), 404)


@pytest.fixture(scope="module")
def large(server: Server, access: Access) -> Iterator[Tenant]:
    """A trail of 14 MB, which hardly gets smaller when it is packed."""
    made = Tenant(server, access, "large-by-access")
    chosen = random.Random(2)
    for _ in range(10):
        made.record(*(event(details={"text": chosen.randbytes(7_000).hex()}) for _ in range(100)))
    yield made
    made.close()


@pytest.mark.parametrize("path", [DOWNLOAD, f"{EVENTS}?order=asc", EVIDENCE, "/v1/log/ACCOUNT/events"])
@pytest.mark.parametrize("ends", ["revoked", "expired"])
def test_a_long_answer_ends_with_its_key(large: Tenant, path: str, ends: str) -> None:
    """Who reads slowly, and would go on for hours, gets no more than was on its way; others go on."""
    tenant = large
    expires_us = clock() + 1_500_000 if ends == "expired" else None
    key_id, secret = tenant.key("reader", expires_us=expires_us)
    other_id, _ = tenant.key("reader")
    received = []
    for key in (secret, tenant.reader.headers["X-Bindplane-Api-Key"]):
        with slow_reader(tenant.server.port, path.replace("ACCOUNT", tenant.account), key) as connection:
            received.append(len(connection.recv(100)))
            if key == secret:
                time.sleep(max(0.0, ((expires_us or 0) - clock()) / 1_000_000))
                tenant.revoke(other_id if expires_us else key_id)
            received[-1] += read_on(connection)
    assert received[0] < received[1] * 0.8
    assert received[1] > 6_000_000
    assert "an answer broke off: The API key has expired, or was revoked" in tenant.server.output


def slow_reader(port: int, path: str, secret: str) -> socket.socket:
    """Has asked for something, with little room for what comes."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    connection.settimeout(30)
    connection.connect(("127.0.0.1", port))
    head = f"GET {path} HTTP/1.1\r\nHost: x\r\nX-Bindplane-Api-Key: {secret}\r\nConnection: close\r\n\r\n"
    connection.sendall(head.encode())
    return connection


def read_on(connection: socket.socket) -> int:
    """How many bytes still come."""
    received = 0
    try:
        while more := len(connection.recv(1 << 20)):
            received += more
    except ConnectionResetError:
        pass
    return received


def test_an_admin_may_revoke_its_own_key(tenant: Tenant) -> None:
    key_id, secret = tenant.key("admin")
    own = tenant.client(secret)
    assert own.delete(f"{KEYS}/{key_id}").status_code == 204
    problems_of(own.get(KEYS), 401)
    assert tenant.admin.get(KEYS).status_code == 200


def test_keys_are_events(tenant: Tenant) -> None:
    """Who made or revoked which key: kind APIKey, the id as the name, never the secret."""
    admin_id, admin_secret = tenant.key("admin", description="the boss")
    admin = tenant.client(admin_secret)
    made = admin.post(KEYS, json={"role": "writer", "description": "billing"}).json()
    admin.delete(f"{KEYS}/{made['id']}")
    created, deleted = events_of(admin.get(EVENTS, params={"resource-name": made["id"], "order": "recorded"}))
    for doc, action in ((created, "Created"), (deleted, "Deleted")):
        assert doc["resourceKind"] == "APIKey"
        assert doc["action"] == action
        assert doc["user"] == "the boss"
        assert doc["description"] == f"{action} writer API key {made['id']}: billing"
        assert doc["account"] == tenant.account
        assert doc["details"] == {
            "role": "writer",
            "description": "billing",
            "envelope": False,
            "expires": None,
            "key": admin_id,
        }
        assert made["key"] not in json.dumps(doc)


def test_making_keys_at_once_makes_each(tenant: Tenant) -> None:
    admin = tenant.admin
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: admin.post(KEYS, json={"role": "writer"}).json(), range(24)))
    assert len({key["key"] for key in made}) == 24
    assert {key["id"] for key in made} <= {key["id"] for key in admin.get(KEYS).json()["apiKeys"]}
    assert all(tenant.client(key["key"]).post(EVENTS, json=event()).status_code == 201 for key in made)


# Beside a server, and after it.


def test_keys_change_while_two_workers_serve(tmp_path_factory: pytest.TempPathFactory) -> None:
    """By the command line or the API: both workers know at once; no secret but admin.key's is in the folder;
    when it is stopped, the last use of each key is known."""
    data = tmp_path_factory.mktemp("workers") / "data"
    with start(data, "--workers", "2") as server:
        admin_secret = server.admin_key
        with client(server.url, admin_secret) as admin:
            secrets = [admin_secret]
            used: list[str] = []
            for number in range(4):
                by_cli = number % 2 == 0
                if by_cli:
                    key_id, secret = make_key(data, "reader", envelope=True)
                else:
                    made = admin.post(KEYS, json={"role": "reader", "envelope": True}).json()
                    key_id, secret = made["id"], made["key"]
                secrets.append(secret)
                assert statuses(server, secret) == {200}
                used.append(key_id)
                if by_cli:
                    revoke_key(data, key_id)
                else:
                    assert admin.delete(f"{KEYS}/{key_id}").status_code == 204
                assert statuses(server, secret) == {401}
            make_key(data, "writer", "other", expires="1d")
            admin.post(EVENTS, json=event())
        assert server.stop() == 0
        assert server.output.count(admin_secret) == 0
    assert_no_secret_is_kept(data, secrets)
    keys = {key["id"]: key for key in json.loads(run("keys", "list", "--data", data, "-o", "json").stdout)}
    for key_id in used:
        assert keys[key_id]["created"] < keys[key_id]["lastUsed"] < keys[key_id]["revoked"]
    (never,) = [key for key in keys.values() if key["role"] == "writer"]
    assert "lastUsed" not in never


def statuses(server: Server, secret: str) -> set[int]:
    """Of many connections, so that every worker answers some."""
    found = set()
    for _ in range(12):
        with client(server.url, secret) as asker:
            found.add(asker.get(EVENTS).status_code)
    return found


def assert_no_secret_is_kept(data: Path, secrets: list[str]) -> None:
    """Only admin.key holds a secret, its own; nobody else may read anything in the folder."""
    files = [path for path in data.rglob("*") if path.is_file()]
    assert {"admin.key", "control.db", "default.db"} <= {path.name for path in files}
    for path in files:
        text = path.read_bytes()
        for secret in secrets:
            own = path.name == "admin.key" and secret == secrets[0]
            assert own == (secret.encode() in text), path
            assert own == (secret[3:46].encode() in text), path
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path
    assert stat.S_IMODE((data / "admin.key").stat().st_mode) == 0o600
    assert stat.S_IMODE(data.stat().st_mode) == 0o700


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[Access]:
    """The keys of a folder that no server serves."""
    yield from opened(tmp_path / "data")


def made(access: Access, **options: Any) -> tuple[str, str]:
    key, secret = access.create(**{"account": "default", "role": Role.READER, "by": "tests", **options})
    return key.id, secret


def test_a_key_is_refused_from_the_microsecond_it_expires(tmp_path: Path) -> None:
    now = [1_800_000_000 * SECOND_US]
    folder = FreeFolder(tmp_path / "data")
    access = Access(folder, lambda: now[0])
    end = now[0] + 5
    _, secret = made(access, expires_us=end)
    for now[0] in (end - 5, end - 1):
        access.authenticate(secret)
    for now[0] in (end, end + 1):
        with pytest.raises(NotAuthenticated):
            access.authenticate(secret)
    access.close()
    folder.close()


def test_a_key_that_has_ended_is_refused_as_one_that_never_was(tmp_path: Path) -> None:
    """By the same sentence after the same statements, each time: nothing tells which it is."""
    now = [1_800_000_000 * SECOND_US]
    folder = FreeFolder(tmp_path / "data")
    access = Access(folder, lambda: now[0])
    revoked_id, revoked = made(access)
    access.revoke(revoked_id, account="default", by="tests")
    _, expired = made(access, expires_us=now[0] + 5)
    access.authenticate(expired)  # so that it is known
    now[0] += 5
    ran: list[str] = []

    def note(_cursor: apsw.Cursor, sql: str, _bindings: object) -> bool:
        ran.append(sql)
        return True

    for connected in (access._connection, access._changes):
        with connected.use() as connection:
            connection.exec_trace = note

    def refused(use: Callable[[str], object], secret: str) -> tuple[str, list[str]]:
        ran.clear()
        with pytest.raises(NotAuthenticated) as caught:
            use(secret)
        return str(caught.value), list(ran)

    for use in (access.authenticate, lambda secret: access.open_session(secret, address="192.0.2.1")):
        for _ in range(3):
            as_unknown = refused(use, new_secret())
            assert as_unknown[1]
            assert refused(use, revoked) == refused(use, expired) == as_unknown
    assert len(access._known) == 0
    access.close()
    folder.close()


def test_another_process_sees_changes_at_once(alone: Access, tmp_path: Path) -> None:
    for other in opened(tmp_path / "data"):
        for _ in range(20):
            key_id, secret = made(alone)
            assert other.authenticate(secret).id == key_id
            alone.revoke(key_id, account="default", by="tests")
            with pytest.raises(NotAuthenticated):
                other.authenticate(secret)
            with pytest.raises(NotAuthenticated):
                alone.authenticate(secret)


def test_last_use_is_written_and_only_goes_forward(alone: Access, tmp_path: Path) -> None:
    key_id, secret = made(alone)
    for other in opened(tmp_path / "data"):
        assert key_of(other, key_id).last_used_us is None
        alone.authenticate(secret)
        before = clock()
        other.authenticate(secret)
        other.write_last_use()
        alone.write_last_use()
        assert (key_of(other, key_id).last_used_us or 0) >= before
    with pytest.raises(NotAuthenticated):
        alone.authenticate(new_secret())
    alone.write_last_use()


def key_of(access: Access, key_id: str) -> Any:
    (found,) = [key for key in access.keys(None) if key.id == key_id]
    return found


def test_the_write_ahead_log_of_keys_stays_small(alone: Access, tmp_path: Path) -> None:
    """A server writes last uses every minute, for months."""
    secrets = [made(alone)[1] for _ in range(20)]
    for _ in range(300):
        for secret in secrets:
            alone.authenticate(secret)
        alone.write_last_use()
    assert (tmp_path / "data" / "control.db-wal").stat().st_size < 2_000_000


def test_working_keys_are_bounded(alone: Access, monkeypatch: pytest.MonkeyPatch) -> None:
    """For each account; those that have ended don't count."""
    monkeypatch.setattr(limits, "KEYS_MAX", 2)
    keys = [alone.create(account="a", role=Role.READER, by="tests")[0] for _ in range(2)]
    with pytest.raises(Conflict, match="2 API keys that work"):
        alone.create(account="a", role=Role.READER, by="tests")
    alone.create(account="b", role=Role.READER, by="tests")
    alone.revoke(keys[0].id, account="a", by="tests")
    alone.create(account="a", role=Role.READER, by="tests")


@dataclass
class Timed:
    """The keys of a folder on a clock of the test; each account keeps three that ended."""

    access: Access
    data: Path
    now: int = 1_800_000_000 * SECOND_US

    def key(self, account: str = "default", seconds: int | None = None) -> tuple[str, str]:
        """A new key, a second later than the last."""
        self.now += SECOND_US
        expires_us = None if seconds is None else self.now + seconds * SECOND_US
        return made(self.access, account=account, expires_us=expires_us)

    def ids(self, account: str | None = None) -> list[str]:
        """Of all keys that are listed."""
        return [key.id for key in self.access.keys(account)]


@pytest.fixture
def timed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Timed]:
    monkeypatch.setattr(limits, "KEYS_ENDED_MAX", 3)
    folder = FreeFolder(tmp_path / "data")
    access = Access(folder, lambda: found.now)
    found = Timed(access, folder.path)
    yield found
    access.close()
    folder.close()


def test_keys_that_ended_are_bounded(timed: Timed) -> None:
    """Those that ended first go when one is made, whether they were revoked or expired; none that works."""
    works = [timed.key()[0], timed.key(seconds=10_000)[0]]
    other = [timed.key("other", seconds=1)[0] for _ in range(6)][-4:]
    late = timed.key(seconds=100)[0]
    soon = timed.key(seconds=3)[0]
    revoked = [timed.key(seconds=5_000)[0] for _ in range(4)]
    for key_id in reversed(revoked):
        timed.now += SECOND_US
        timed.access.revoke(key_id, account="default", by="tests")
    timed.now += 200 * SECOND_US
    assert set(timed.ids("default")) == {*works, late, soon, *revoked}
    works.append(timed.key()[0])
    assert timed.ids("default") == sorted([*works, late, *revoked[:2]])
    assert timed.ids("other") == other
    works.append(timed.key()[0])
    assert timed.ids() == sorted([*works, late, *revoked[:2], *other])


def test_whoever_uses_a_key_that_was_dropped_is_told_that_it_ended(timed: Timed) -> None:
    """In the midst of a download, on the page, and by a link; nothing of them is left."""
    key_id, secret = timed.key()
    key = timed.access.authenticate(secret)
    token, _ = timed.access.open_session(secret)
    link = timed.access.make_link(key_id)
    check = timed.access.watch(key)
    check()
    timed.access.revoke(key_id, account="default", by="tests")
    for _ in range(5):
        timed.key(seconds=1)
    assert key_id not in timed.ids()
    for use in (
        check,
        timed.access.watch(key),
        lambda: timed.access.authenticate(secret),
        lambda: timed.access.session(token),
        lambda: timed.access.follow_link(link),
        lambda: timed.access.create(account="default", role=Role.READER, by="x", by_key=key_id),
    ):
        with pytest.raises(NotAuthenticated):
            use()
    timed.access.write_last_use()
    with pytest.raises(NotFound):
        timed.access.revoke(key_id, account="default", by="tests")
    with timed.access._changes.use() as connection:
        assert fetch(connection, "PRAGMA foreign_key_check") == []
        assert not fetch(connection, "SELECT 1 FROM session UNION ALL SELECT 1 FROM link")


def test_a_clock_that_is_not_trusted_drops_no_key(timed: Timed) -> None:
    """By one that is years ahead nearly all have ended."""
    keys = [timed.key(seconds=1_000)[0] for _ in range(5)]
    right = timed.now
    note_clock(timed.data, NotedClock(right, 5.0))
    timed.now += 10**6 * SECOND_US
    keys.append(timed.key()[0])
    assert timed.ids() == keys
    note_clock(timed.data, NotedClock(timed.now))
    keys.append(timed.key()[0])
    assert timed.ids() == keys[2:]


def test_what_an_account_lists_is_bounded(tenant: Tenant, access: Access) -> None:
    """However many keys were made to end at once, and were listed by an earlier version."""
    now = clock()
    rows = [
        (ulid.make((now + number) << 11, bytes(10)), b"%s %d" % (tenant.account.encode(), number),
         tenant.account, "reader", "", 0, now, now + 1)
        for number in range(limits.KEYS_ENDED_MAX + 500)
    ]  # fmt: skip
    admin = tenant.admin
    with access._changing() as connection:
        connection.executemany(QUERIES["add_key"], rows)
    assert len(admin.get(KEYS).json()["apiKeys"]) == len(rows) + 1
    new = admin.post(KEYS, json={"role": "reader"}).json()["id"]
    listed = [key["id"] for key in admin.get(KEYS).json()["apiKeys"]]
    assert len(listed) == limits.KEYS_ENDED_MAX + 2
    assert new in listed
    assert {row[0] for row in rows[-limits.KEYS_ENDED_MAX :]} <= set(listed)


@pytest.mark.parametrize("query", ["keys_of", "count_working_keys", "drop_ended_keys", "key_by_id"])
def test_no_key_of_another_account_is_looked_at(alone: Access, query: str) -> None:
    made(alone)
    with alone._connection.use() as connection:
        bindings = ["default", "x", 0][: QUERIES[query].count("?") or 1]
        plan = fetch(connection, f"EXPLAIN QUERY PLAN {QUERIES[query]}", bindings)
    assert plan
    assert not [step[-1] for step in plan if str(step[-1]).startswith("SCAN")], plan


def test_keys_of_an_older_format_are_kept(tmp_path: Path) -> None:
    with contextmanager(opened)(tmp_path / "data") as access:
        key_id, secret = made(access)
    control = apsw.Connection(str(tmp_path / "data" / "control.db"))
    fetch(control, "DROP INDEX api_key_of_account")
    fetch(control, "PRAGMA user_version = 1")
    control.close()
    with contextmanager(opened)(tmp_path / "data") as access:
        assert access.authenticate(secret).id == key_id
        assert [key.id for key in access.keys("default")] == [key_id]
        with access._connection.use() as connection:
            assert one(connection, "PRAGMA user_version") == len(MIGRATIONS)
            assert "api_key_of_account" in str(fetch(connection, "SELECT name FROM sqlite_schema"))


def test_an_expiry_is_shown_as_it_was_asked(alone: Access) -> None:
    end = clock() + 86_400 * SECOND_US
    key_id, _ = made(alone, expires_us=end)
    shown: Json = key_of(alone, key_id).shown()
    assert shown["expires"] == format_us(end)


@pytest.mark.parametrize(
    "name", ["", "A", "-a", "a_b", "a" * 64, "../x", "a/b", "é", "a\x00", "default.db", "a\n"]
)
def test_an_account_has_a_plain_name(alone: Access, tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidInput):
        made(alone, account=name)
    assert list((tmp_path / "data" / "accounts").iterdir()) == []
