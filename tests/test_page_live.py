"""Live mode: pages hear of what is recorded, once each, as long as they are signed in."""

import contextlib
import http.client
import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import expect

from auditplane import limits
from auditplane.access import Access
from browser import OpenPage, check_accessibility
from people import sign_in, signed_in
from server import Server, start
from tenants import Tenant, client, events, new_tenant, opened

WAIT_SECONDS = 10.0
Message = dict[str, str]


class Stream:
    """A stream of server-sent events, read as a browser does."""

    def __init__(self, server: Server, cookie: str, path: str, **headers: str) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=WAIT_SECONDS)
        self._connection.request("GET", path, headers={"Cookie": cookie, **headers})
        self.answer = self._connection.getresponse()

    def close(self) -> None:
        self.answer.close()
        self._connection.close()

    def next(self) -> Message:
        """The next message that is of any type; EOFError at the end."""
        message: Message = {}
        while True:
            line = self.answer.readline().decode()
            if not line:
                raise EOFError
            name, _, value = line.rstrip("\n").partition(": ")
            if name in ("id", "event", "data"):
                message[name] = value
            elif not name and "event" in message:
                return message

    def news(self, number: int) -> list[str]:
        """The ids of so many new events, in the order of their messages."""
        found: list[str] = []
        while len(found) < number:
            message = self.next()
            if message["event"] == "news":
                data = json.loads(message["data"])
                ids = re.findall(r'<tr id="e-(\w+)"', data["html"])
                assert len(ids) == data["number"]
                found += reversed(ids)
        assert len(found) == number
        return found


@pytest.fixture
def streams() -> Iterator[contextlib.ExitStack]:
    with contextlib.ExitStack() as stack:
        yield stack


def cookie_of(tenant: Tenant, secret: str | None = None) -> str:
    """The cookie of somebody who has signed in."""
    with client(tenant.server.url) as browser:
        answer = browser.post("/sign-in", data={"key": secret or tenant.key("reader")[1]})
    assert answer.status_code == 303
    return answer.headers["set-cookie"].partition(";")[0]


def follow(streams: contextlib.ExitStack, tenant: Tenant, cookie: str, path: str, **headers: str) -> Stream:
    stream = Stream(tenant.server, cookie, path, **headers)
    streams.callback(stream.close)
    assert stream.answer.status == 200, stream.answer.read()
    return stream


def size_of(tenant: Tenant) -> int:
    return int(tenant.reader.get("/v1/audit-events", params={"limit": 1}).headers["Auditplane-Log-Size"])


def test_a_stream_tells_of_each_match_once_also_after_it_was_resumed(
    tenant: Tenant, streams: contextlib.ExitStack
) -> None:
    cookie = cookie_of(tenant)
    path = f"/live?user=ann&after={size_of(tenant) - 1}"
    stream = follow(streams, tenant, cookie, path)
    assert stream.answer.headers["content-type"].startswith("text/event-stream")
    first = tenant.record(*events(3, user="Ann"), *events(2, user="bob"))[:3]
    assert stream.news(3) == first
    tenant.record(*events(4, user="bob"))
    message = stream.next()
    assert message["event"] == "at"
    stream.close()
    missed = tenant.record(*events(2, user="ann"), *events(1, user="bob"))[:2]
    resumed = follow(streams, tenant, cookie, path, **{"Last-Event-ID": message["id"]})
    assert resumed.news(2) == missed
    more = tenant.record(*events(1, user="ann"))
    assert resumed.news(1) == more


def test_many_at_once_are_counted_and_not_sent(tenant: Tenant, streams: contextlib.ExitStack) -> None:
    stream = follow(streams, tenant, cookie_of(tenant), f"/live?user=ann&after={size_of(tenant) - 1}")
    tenant.record(*events(150, user="ann"), *events(30, user="bob"))
    found = 0
    while found < 150:
        message = stream.next()
        if message["event"] == "news":
            data = json.loads(message["data"])
            assert data["html"] == "" or data["number"] <= 100
            found += data["number"]
    assert found == 150


def test_nothing_is_told_after_the_session_is_over(tenant: Tenant, streams: contextlib.ExitStack) -> None:
    """Neither when the key is revoked, nor after signing out; and nobody else hears of it."""
    key_id, secret = tenant.key("reader")
    revoked = follow(streams, tenant, cookie_of(tenant, secret), "/live?after=-1")
    tenant.revoke(key_id)
    tenant.record(*events(1, user="secret"))
    texts = []
    with contextlib.suppress(EOFError):
        while True:
            texts.append(revoked.next())
    assert texts[-1]["event"] == "over"
    assert "secret" not in json.dumps(texts)


def test_who_is_not_signed_in_or_of_another_account_hears_nothing(
    tenant: Tenant, neighbour: Tenant, streams: contextlib.ExitStack
) -> None:
    anybody = Stream(tenant.server, "", "/live?after=-1", Accept="text/event-stream")
    streams.callback(anybody.close)
    assert anybody.answer.status == 401
    other = follow(streams, neighbour, cookie_of(neighbour), f"/live?q=otlp&after={size_of(neighbour) - 1}")
    tenant.record(*events(2, user="secret"))
    (own,) = neighbour.record(*events(1))
    assert other.news(1) == [own]


def test_a_session_has_so_many_streams_at_the_most(tenant: Tenant, streams: contextlib.ExitStack) -> None:
    cookie = cookie_of(tenant)
    for _ in range(limits.SESSION_LISTENERS_MAX):
        follow(streams, tenant, cookie, "/live?after=-1")
    refused = Stream(tenant.server, cookie, "/live?after=-1", Accept="text/event-stream")
    streams.callback(refused.close)
    assert refused.answer.status == 429
    assert b"too many pages open" in refused.answer.read()


@pytest.mark.parametrize("after", ["x", "", "1e3", "9" * 30])
def test_a_wrong_index_is_refused(tenant: Tenant, streams: contextlib.ExitStack, after: str) -> None:
    stream = Stream(tenant.server, cookie_of(tenant), f"/live?after={after}", Accept="text/event-stream")
    streams.callback(stream.close)
    assert stream.answer.status == 400


@pytest.fixture(scope="module")
def two_workers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with start(tmp_path_factory.mktemp("live") / "data", "--workers", "2") as server:
        yield server


@pytest.fixture(scope="module")
def their_access(two_workers: Server) -> Iterator[Access]:
    yield from opened(two_workers.data)


@pytest.fixture
def shared(two_workers: Server, their_access: Access) -> Iterator[Tenant]:
    yield from new_tenant(two_workers, their_access)


def test_all_workers_tell_of_what_one_of_them_recorded(shared: Tenant, streams: contextlib.ExitStack) -> None:
    cookie = cookie_of(shared)
    after = size_of(shared) - 1
    followed = [follow(streams, shared, cookie, f"/live?user=ann&after={after}") for _ in range(6)]
    recorded = shared.record(*events(3, user="ann"))
    assert [stream.news(3) for stream in followed] == [recorded] * 6


def test_open_streams_do_not_hold_up_the_end_of_the_server(
    tmp_path: Path, streams: contextlib.ExitStack
) -> None:
    with start(tmp_path / "data") as server:
        with client(server.url) as browser:
            answer = browser.post("/sign-in", data={"key": server.admin_key})
        cookie = answer.headers["set-cookie"].partition(";")[0]
        for _ in range(5):
            stream = Stream(server, cookie, "/live?after=-1")
            streams.callback(stream.close)
        began = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - began < 4


# In a browser.


def test_new_events_are_announced_and_shown_at_their_place(open_page: OpenPage, tenant: Tenant) -> None:
    tenant.record(*events(3, user="ann"))
    page = signed_in(open_page, tenant).page
    page.goto("/?user=ann")
    old = tenant.record(*events(1, user="ann", timestamp="2026-01-01T00:00:00Z"))
    new = tenant.record(*events(2, user="ann"))
    expect(page.locator("#news")).to_have_text("3 new")
    check_accessibility(page)
    page.locator("#news").click()
    rows = page.locator("#rows tr[id]")
    expect(rows).to_have_count(6)
    expect(rows.first).to_have_id(f"e-{new[1]}")
    expect(rows.last).to_have_id(f"e-{old[0]}")
    expect(page.locator("#news")).to_be_hidden()
    page.keyboard.press("l")
    expect(page.locator("#live-switch")).to_have_attribute("aria-pressed", "true")
    newest = tenant.record(*events(1, user="ann"), *events(1, user="bob"))
    expect(rows.first).to_have_id(f"e-{newest[0]}")
    expect(rows).to_have_count(7)
    check_accessibility(page)


def test_the_first_event_of_a_trail_shows_up_by_itself(open_page: OpenPage, tmp_path: Path) -> None:
    with start(tmp_path / "data") as server:
        key = server.admin_key
    for path in (tmp_path / "data" / "accounts").iterdir():  # that of the key was there
        path.unlink()
    (tmp_path / "data" / "accounts" / "default.db").touch()  # or it would be missed
    with start(tmp_path / "data") as server, client(server.url, key) as recorder:
        watched = open_page(server.url)
        sign_in(watched, key)
        page = watched.page
        page.goto("/")
        expect(page.get_by_text("Nothing has been recorded yet")).to_be_visible()
        expect(page.locator("pre").first).to_contain_text(f"{server.url}/v1/audit-events")
        check_accessibility(page)
        recorder.post("/v1/audit-events", json=events(1, user="first"))
        expect(page.locator("#rows tr[id]")).to_have_count(1)
        watched.close()


def test_a_lost_server_is_told_and_comes_back_by_itself(open_page: OpenPage, tmp_path: Path) -> None:
    with start(tmp_path / "data") as server:
        watched = open_page(server.url)
        watched.allow(r"net::ERR_|Failed to load resource|htmx:")
        sign_in(watched, server.admin_key)
        page = watched.page
        page.goto("/")
        with client(server.url, server.admin_key) as recorder:
            recorder.post("/v1/audit-events", json=events(1, user="before"))
            expect(page.locator("#news")).to_have_text("1 new")
            server.kill()
            expect(page.locator("#lost")).to_be_visible(timeout=WAIT_SECONDS * 1000)
            check_accessibility(page)
        with start(server.data, port=server.port), client(server.url, server.admin_key) as recorder:
            recorder.post("/v1/audit-events", json=events(2, user="after"))
            expect(page.locator("#lost")).to_be_hidden(timeout=WAIT_SECONDS * 1000)
            expect(page.locator("#news")).to_have_text("3 new", timeout=WAIT_SECONDS * 1000)
            page.locator("#news").click()
            expect(page.locator("#rows tr[id]")).to_have_count(4)


def test_a_page_whose_session_is_over_asks_to_sign_in(open_page: OpenPage, tenant: Tenant) -> None:
    key_id, secret = tenant.key("reader")
    watched = open_page(tenant.server.url)
    watched.allow("status of 401")
    sign_in(watched, secret)
    watched.page.goto("/")
    tenant.revoke(key_id)
    expect(watched.page.get_by_label("API key")).to_be_visible(timeout=WAIT_SECONDS * 1000)
    assert urlsplit(watched.page.url).path == "/sign-in"
