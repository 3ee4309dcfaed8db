"""Servers and accounts for the tests of the HTTP API: a plugin of conftest.py.

One server runs for all tests of a process. Each test gets an account of its own on it.
"""

import contextlib
import itertools
import socket
import ssl
import time
import uuid
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import pytest

from auditplane.access import Access
from auditplane.access.key import Role
from folders import FreeFolder
from server import Server, start

Json = dict[str, Any]
EVENTS = "/v1/audit-events"
DOWNLOAD = "/v1/audit-events/download"
COUNT = "/v1/audit-events/count"
EVIDENCE = "/v1/audit-events/evidence"
KEYS = "/v1/api-keys"
# Making the default one reads all certificates of the machine.
_NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def clock() -> int:
    """The time in microseconds since 1970."""
    return time.time_ns() // 1000


def client(
    url: str, secret: str | None = None, *, address: str | None = None, **headers: str
) -> httpx2.Client:
    """A client that sends a key with each request, and no header that was not asked for.

    It may have an address of its own, by which attempts to sign in are counted.
    """
    transport = httpx2.HTTPTransport(local_address=address, verify=_NO_TLS)
    made = httpx2.Client(base_url=url, timeout=60, transport=transport)
    del made.headers["Accept"], made.headers["Accept-Encoding"]
    made.headers.update(headers)
    if secret:
        made.headers["X-Bindplane-Api-Key"] = secret
    return made


class Tenant:
    """An account of a server, with its keys and clients."""

    def __init__(self, server: Server, access: Access, account: str) -> None:
        self.server, self.account = server, account
        self._access = access
        self._clients = contextlib.ExitStack()

    def close(self) -> None:
        """Closes its clients."""
        self._clients.close()

    def key(
        self, role: str, *, envelope: bool = False, expires_us: int | None = None, description: str = "test"
    ) -> tuple[str, str]:
        """The id and the secret of a new key."""
        key, secret = self._access.create(
            account=self.account,
            role=Role(role),
            by="tests",
            description=description,
            envelope=envelope,
            expires_us=expires_us,
        )
        return key.id, secret

    def revoke(self, key_id: str) -> None:
        """Revokes a key, as another process does."""
        self._access.revoke(key_id, account=self.account, by="tests")

    def client(self, secret: str | None, *, address: str | None = None, **headers: str) -> httpx2.Client:
        """A client that is closed with the test."""
        return self._clients.enter_context(client(self.server.url, secret, address=address, **headers))

    @cached_property
    def admin(self) -> httpx2.Client:
        """A client with a key of an admin."""
        return self.client(self.key("admin")[1])

    @cached_property
    def reader(self) -> httpx2.Client:
        """A client with a key of a reader."""
        return self.client(self.key("reader")[1])

    @cached_property
    def writer(self) -> httpx2.Client:
        """A client with a key of a writer."""
        return self.client(self.key("writer")[1])

    def record(self, *events: Json) -> list[str]:
        """Records events; returns their ids."""
        return recorded(self.writer.post(EVENTS, content=msgspec.json.encode(events)))

    def docs(self, path: str = EVENTS, **parameters: Any) -> list[Json]:
        """The events of a list, but for those that tell of keys."""
        query = {name.replace("_", "-"): value for name, value in parameters.items()}
        found = events_of(self.reader.get(path, params=query))
        return [event for event in found if event["resourceKind"] != "APIKey"]


def recorded(answer: httpx2.Response) -> list[str]:
    """The ids in the answer to a recording that went well."""
    assert answer.status_code == 201, answer.text
    ids: list[str] = answer.json()["ids"]
    return ids


def events_of(answer: httpx2.Response) -> list[Json]:
    """The events in the answer to a list that went well."""
    assert answer.status_code == 200, answer.text
    found: list[Json] = msgspec.json.decode(answer.content)
    return found


def problems_of(answer: httpx2.Response, status: int) -> list[str]:
    """The sentences of an error answer, which has the contract's form."""
    assert answer.status_code == status, (answer.status_code, answer.text)
    body = answer.json()
    assert list(body) == ["errors"]
    assert body["errors"]
    assert all(isinstance(sentence, str) and sentence for sentence in body["errors"])
    return list(body["errors"])


_numbers = itertools.count(1)


def event(**members: Any) -> Json:
    """A valid event; each is a little different."""
    number = next(_numbers)
    return {
        "resourceName": f"otlp-{number}",
        "resourceKind": "Source",
        "action": "Modified",
        "user": f"user{number % 7}@example.com",
        **members,
    }


def events(count: int, **members: Any) -> list[Json]:
    """Some valid events."""
    return [event(**members) for _ in range(count)]


def walk(reader: httpx2.Client, path: str, parameters: httpx2.QueryParams) -> Iterator[list[Json]]:
    """The pages of a list, by the Link header."""
    answer = reader.get(path, params=parameters)
    while True:
        yield events_of(answer)
        if "next" not in answer.links:
            return
        answer = reader.get(answer.links["next"]["url"])


def ids(docs: Sequence[Json]) -> list[str]:
    """The ids of events."""
    return [doc["id"] for doc in docs]


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with one worker."""
    with start(tmp_path_factory.mktemp("api") / "data") as started:
        yield started


@pytest.fixture(scope="session")
def access(server: Server) -> Iterator[Access]:
    """The keys of the server's folder, changed by this process."""
    yield from opened(server.data)


def opened(data: Path) -> Iterator[Access]:
    """The keys of a folder, until the iterator goes on."""
    folder = FreeFolder(data)
    found = Access(folder, clock)
    yield found
    found.close()
    folder.close()


@pytest.fixture
def tenant(server: Server, access: Access) -> Iterator[Tenant]:
    """A fresh account."""
    yield from new_tenant(server, access)


@pytest.fixture
def neighbour(server: Server, access: Access) -> Iterator[Tenant]:
    """Another fresh account on the same server."""
    yield from new_tenant(server, access)


@pytest.fixture(scope="session")
def empty(server: Server, access: Access) -> Iterator[Tenant]:
    """An account that tests share, into which nothing may be recorded."""
    yield from new_tenant(server, access)


def new_tenant(server: Server, access: Access) -> Iterator[Tenant]:
    """A fresh account, closed when the iterator goes on."""
    made = Tenant(server, access, f"a{uuid.uuid4().hex[:12]}")
    try:
        yield made
    finally:
        made.close()


def taken_to_the_end(reader: socket.socket) -> tuple[int, bool]:
    """How many bytes still come, and whether the connection was broken off."""
    taken = 0
    try:
        while part := reader.recv(1 << 16):
            taken += len(part)
    except ConnectionResetError:
        return taken, True
    return taken, False
