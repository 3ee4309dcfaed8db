"""Signing in to the page: who gets in, until when, how often one may try; and only its own forms count."""

import contextlib
import itertools
import re
import stat
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from http.cookies import Morsel, SimpleCookie
from pathlib import Path

import httpx2
import pytest

from auditplane import limits
from auditplane.access import Access
from auditplane.access.attempts import sources
from auditplane.access.key import Role, Session, new_secret
from auditplane.access.stored import copy_keys
from auditplane.errors import (
    AuditplaneError,
    Conflict,
    Forbidden,
    NotAuthenticated,
    NotFound,
    TooManyAttempts,
)
from auditplane.store.sqlite.database import fetch, one
from auditplane.times import SECOND_US
from folders import FreeFolder
from server import Server, run, start
from tenants import EVENTS, client, clock, opened, problems_of

COOKIE = "auditplane_session"
START_US = 1_800_000_000 * SECOND_US
HOURS_12_US = 12 * 3600 * SECOND_US
_networks = itertools.count(1)


# Sessions, on a clock of the test.


@dataclass
class Opened:
    """The keys of a folder, twice, as two workers have them, on one clock."""

    data: Path
    now: int = START_US
    workers: list[Access] = field(default_factory=list)

    def key(self, role: str = "reader", expires_us: int | None = None) -> tuple[str, str]:
        """The id and the secret of a new key."""
        key, secret = self.workers[0].create(
            account="default", role=Role(role), by="tests", expires_us=expires_us
        )
        return key.id, secret


@pytest.fixture
def both(tmp_path: Path) -> Iterator[Opened]:
    made = Opened(tmp_path / "data")
    folders = [FreeFolder(made.data) for _ in range(2)]
    made.workers = [Access(folder, lambda: made.now) for folder in folders]
    yield made
    for access, folder in zip(made.workers, folders, strict=True):
        access.close()
        folder.close()


def is_over(access: Access, token: str) -> bool:
    try:
        access.session(token)
    except NotAuthenticated:
        return True
    return False


def test_a_session_ends_in_the_microsecond_it_is_due(both: Opened) -> None:
    """After 12 hours, or with its key, whichever is first; in each worker, cached or not."""
    _, lasting = both.key()
    _, ending = both.key(expires_us=START_US + 5)
    for secret, end in ((lasting, START_US + HOURS_12_US), (ending, START_US + 5)):
        both.now = START_US
        token, session = both.workers[0].open_session(secret)
        assert session.expires_us == end
        for both.now in (START_US, end - 1):
            assert [access.session(token) for access in both.workers] == [session, session]
        for both.now in (end, end + 1):
            assert all(is_over(access, token) for access in both.workers)


def test_a_session_ends_with_its_key_and_by_signing_out_in_all_workers_at_once(both: Opened) -> None:
    one, other = both.workers
    for _ in range(10):
        key_id, secret = both.key()
        left, stays = one.open_session(secret)[0], one.open_session(secret)[0]
        assert not any(is_over(access, token) for access in both.workers for token in (left, stays))
        other.close_session(left)
        assert [is_over(access, token) for access in both.workers for token in (left, stays)] == [
            True, False, True, False,
        ]  # fmt: skip
        other.revoke(key_id, account="default", by="tests")
        assert is_over(one, stays)
        assert is_over(other, stays)
    one.close_session("never was one")


def test_only_who_may_read_signs_in(both: Opened) -> None:
    access = both.workers[0]
    for role in ("reader", "admin"):
        assert access.open_session(both.key(role)[1])[1].key.role.value == role
    key_id, secret = both.key("writer")
    with pytest.raises(Forbidden, match=r"writer's key can't sign in; use one of a reader or an admin"):
        access.open_session(secret)
    with pytest.raises(Forbidden, match="writer"):
        access.make_link(key_id)
    for wrong in ("", "x", new_secret(), secret[:-1], "\ud800", "é" * 60_000):
        with pytest.raises(NotAuthenticated):
            access.open_session(wrong)
        assert is_over(access, wrong)


def test_a_session_is_a_use_of_its_key(both: Opened) -> None:
    one, other = both.workers
    _, secret = both.key()
    token, _ = one.open_session(secret)
    both.now += 7 * SECOND_US
    other.session(token)
    other.write_last_use()
    assert [key.last_used_us for key in one.keys(None)] == [both.now]


def test_ended_sessions_are_removed_and_the_oldest_of_too_many(
    both: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of one key; those of others stay."""
    monkeypatch.setattr(limits, "SESSIONS_PER_KEY_MAX", 3)
    access = both.workers[0]
    _, secret = both.key()
    kept, _ = access.open_session(both.key()[1])
    tokens = []
    for _ in range(5):
        both.now += 1
        tokens.append(access.open_session(secret)[0])
    for worker in both.workers:
        assert [is_over(worker, token) for token in tokens] == [True, True, False, False, False]
        assert not is_over(worker, kept)
    both.now += HOURS_12_US
    access.open_session(secret)
    assert rows(access, "session") == 1


def rows(access: Access, table: str) -> int:
    with access._changes.use() as connection:
        count = one(connection, f"SELECT count(*) FROM {table}")  # noqa: S608 - its own tables
    assert isinstance(count, int)
    return count


def test_the_token_of_forms_belongs_to_one_session(both: Opened) -> None:
    """It is the same in all workers, and no part of the session's token."""
    one, other = both.workers
    _, secret = both.key()
    (first, session), (second, another) = one.open_session(secret), one.open_session(secret)
    assert other.session(first).csrf == session.csrf == one.session(first).csrf
    assert session.is_own(session.csrf)
    for wrong in ("", another.csrf, session.csrf[:-1], session.csrf + "0", "é", "\ud800", first, second):
        assert not session.is_own(wrong)
    assert len(session.csrf) == 64
    assert len(first) == len(second) == 43


# Links.


def test_a_link_works_once_and_for_15_minutes(both: Opened) -> None:
    one, other = both.workers
    key_id, _ = both.key()
    link = one.make_link(key_id)
    both.now += 15 * 60 * SECOND_US - 1
    token, session = other.follow_link(link)
    assert one.session(token) == session
    assert session.key.id == key_id
    late = one.make_link(key_id)
    both.now += 15 * 60 * SECOND_US
    for dead in (link, late, "", "never was one", token):
        with pytest.raises(NotAuthenticated, match="15 minutes"):
            one.follow_link(dead)
    one.make_link(key_id)
    assert rows(one, "link") == 1


def test_a_link_is_followed_once_whoever_else_follows_it(both: Opened) -> None:
    """At the same time, in two workers."""
    key_id, _ = both.key()

    def followed(link: str, access: Access) -> bool:
        try:
            access.follow_link(link)
        except NotAuthenticated:
            return False
        return True

    for _ in range(8):
        link = both.workers[0].make_link(key_id)
        with ThreadPoolExecutor(4) as pool:
            assert sum(pool.map(followed, [link] * 4, both.workers * 2)) == 1
        both.now += 11 * 60 * SECOND_US


def test_a_link_ends_with_its_key(both: Opened) -> None:
    access = both.workers[0]
    key_id, _ = both.key()
    link = access.make_link(key_id)
    access.revoke(key_id, account="default", by="tests")
    with pytest.raises(NotAuthenticated):
        access.follow_link(link)
    with pytest.raises(Conflict, match="revoked"):
        access.make_link(key_id)
    with pytest.raises(NotFound):
        access.make_link("x")


# Attempts.


def outcome(access: Access, secret: str, address: str | None) -> type[AuditplaneError] | None:
    try:
        access.open_session(secret, address=address)
    except AuditplaneError as error:
        return type(error)
    return None


def test_failures_of_an_address_are_limited_in_all_workers(both: Opened) -> None:
    """From then on a right key is refused too; nothing more is written; after ten minutes it works again."""
    _, secret = both.key()
    for number in range(20):
        assert outcome(both.workers[number % 2], new_secret(), "192.0.2.1") is NotAuthenticated
        assert outcome(both.workers[0], secret, "192.0.2.1") is (None if number < 19 else TooManyAttempts)
    written = rows(both.workers[0], "attempt")
    both.now += 60 * SECOND_US
    for access in both.workers:
        for tried in (secret, new_secret()):
            assert outcome(access, tried, "192.0.2.1") is TooManyAttempts
            with pytest.raises(TooManyAttempts) as caught:
                access.follow_link(tried, address="::ffff:192.0.2.1")
            assert caught.value.retry_after_seconds == 540
            assert "9 minutes" in str(caught.value)
    assert rows(both.workers[0], "attempt") == written
    assert outcome(both.workers[1], secret, "192.0.2.2") is None
    assert outcome(both.workers[1], secret, None) is None
    both.now = START_US + 600 * SECOND_US - 1
    assert outcome(both.workers[1], secret, "192.0.2.1") is TooManyAttempts
    both.now += 1
    assert outcome(both.workers[1], secret, "192.0.2.1") is None
    assert outcome(both.workers[1], new_secret(), "192.0.2.1") is NotAuthenticated
    assert rows(both.workers[0], "attempt") == 2


def test_failures_with_keys_that_begin_alike_are_limited_wherever_they_come_from(both: Opened) -> None:
    _, secret = both.key()
    wrong = secret[:11] + new_secret()[11:]
    for number in range(10):
        assert outcome(both.workers[number % 2], wrong, f"192.0.2.{number}") is NotAuthenticated
    for tried in (wrong, secret):
        assert outcome(both.workers[1], tried, "198.51.100.1") is TooManyAttempts
    assert outcome(both.workers[1], both.key()[1], "192.0.2.1") is None


def test_failures_at_once_do_not_go_beyond_the_limit(both: Opened) -> None:
    """Who asks 40 times at the same time has no more tries than who asks one after the other."""
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda n: outcome(both.workers[n % 2], new_secret(), "192.0.2.1"), range(40)))
    assert found.count(NotAuthenticated) == 20
    assert found.count(TooManyAttempts) == 20


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("2001:db8::1", "2001:db8::ffff:1:2:3", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("192.0.2.1", "::ffff:192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("fe80::1%eth0", "fe80::2", True),
        ("", "unix", False),
    ],
)
def test_an_ipv6_network_counts_as_one_address(one: str, other: str, same: bool) -> None:
    assert (sources(one, "x") == sources(other, "x")) == same


# Copies.


def test_a_copy_of_the_keys_signs_nobody_in(both: Opened, tmp_path: Path) -> None:
    """And of what was dropped there is not a byte left."""
    access = both.workers[0]
    key_id, secret = both.key()
    token, _ = access.open_session(secret)
    access.make_link(key_id)
    outcome(access, new_secret(), "192.0.2.1")
    kept = "SELECT hash FROM session UNION SELECT hash FROM link UNION SELECT source FROM attempt"
    with access._changes.use() as connection:
        hashed = [row[0] for row in fetch(connection, kept)]
    copied = tmp_path / "copy"
    copied.mkdir()
    copy_keys(both.data, copied / "control.db", [key_id])
    found = b"".join(path.read_bytes() for path in copied.iterdir())
    assert len(hashed) == 4
    for each in hashed:
        assert isinstance(each, bytes)
        assert each not in found
    for other in opened(copied):
        assert other.authenticate(secret).id == key_id
        assert is_over(other, token)
        assert [rows(other, table) for table in ("session", "link", "attempt")] == [0, 0, 0]


# The routes, on a server with two workers.


@dataclass
class Site:
    """A server, its keys, and everything secret that was used with it."""

    server: Server
    access: Access
    secrets: list[str] = field(default_factory=list)
    _browsers: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    def key(self, role: str = "reader") -> tuple[str, str]:
        """The id and the secret of a new key."""
        key, secret = self.access.create(account="default", role=Role(role), by="tests")
        self.secrets.append(secret)
        return key.id, secret

    def browser(self, **headers: str) -> httpx2.Client:
        """One that does not follow redirects, from an address that no other test has."""
        number = next(_networks)
        made = httpx2.Client(
            base_url=self.server.url,
            transport=httpx2.HTTPTransport(local_address=f"127.1.{number // 250}.{number % 250 + 1}"),
            headers={"Accept": "text/html,application/xhtml+xml,*/*;q=0.8", **headers},
        )
        self._browsers.callback(made.close)
        return made

    def close(self) -> None:
        """Closes all browsers."""
        self._browsers.close()

    @cached_property
    def shared(self) -> httpx2.Client:
        """A browser that is signed in, for tests that leave it so."""
        return self.signed_in()[0]

    def signed_in(self, role: str = "reader") -> tuple[httpx2.Client, Session, str]:
        """A browser with a cookie, its session, and its token."""
        browser = self.browser()
        answer = browser.post("/sign-in", data={"key": self.key(role)[1]})
        assert answer.status_code == 303, answer.text
        token = cookie(answer).value
        self.secrets.append(token)
        return browser, self.access.session(token), token


def cookie(answer: httpx2.Response) -> "Morsel[str]":
    """The one cookie that an answer sets."""
    (value,) = answer.headers.get_list("set-cookie")
    ((_, morsel),) = SimpleCookie(value).items()
    return morsel


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """At the end: no secret of any test is in the folder or in the server's log."""
    data = tmp_path_factory.mktemp("page") / "data"
    with start(data, "--workers", "2") as server:
        folder = FreeFolder(data)
        access = Access(folder, clock)
        made = Site(server, access)
        yield made
        made.close()
        access.close()
        folder.close()
        assert server.stop() == 0
        assert made.secrets
        files = [path for path in data.rglob("*") if path.is_file()]
        texts = {path: path.read_bytes() for path in files} | {server.log: server.log.read_bytes()}
        for path, text in texts.items():
            assert not [secret for secret in made.secrets if secret.encode() in text], path
        assert stat.S_IMODE((data / "control.db").stat().st_mode) == 0o600


def all_workers(site: Site, token: str) -> set[int]:
    """What `/sign-in` answers a cookie on many connections: 303 when signed in, else 200."""
    found = set()
    for _ in range(10):
        with client(site.server.url) as browser:
            found.add(browser.get("/sign-in", headers={"Cookie": f"{COOKIE}={token}"}).status_code)
    return found


def assert_safe(answer: httpx2.Response) -> None:
    """The headers that every answer of the page has."""
    policy = dict(part.split(" ", 1) for part in answer.headers["Content-Security-Policy"].split("; "))
    assert policy == {
        "default-src": "'none'", "script-src": "'self'", "style-src": "'self'", "img-src": "'self'",
        "connect-src": "'self'", "font-src": "'self'", "manifest-src": "'self'", "form-action": "'self'",
        "base-uri": "'none'", "frame-ancestors": "'none'",
    }  # fmt: skip
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["X-Frame-Options"] == "DENY"
    assert answer.headers["Referrer-Policy"] in ("same-origin", "no-referrer")
    assert answer.headers["Cross-Origin-Opener-Policy"] == "same-origin"
    assert answer.headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert "camera=()" in answer.headers["Permissions-Policy"]
    assert answer.headers["Cache-Control"] == "no-store"


def sentence(answer: httpx2.Response, status: int) -> str:
    """What is wrong, as the page says it."""
    assert answer.status_code == status, answer.text
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    assert_safe(answer)
    (found,) = re.findall(r'<p class="error"[^>]*>(.*?)</p>', answer.text)
    return str(found)


def test_who_signs_in_gets_a_cookie_that_nobody_else_can_use(site: Site) -> None:
    """HttpOnly, SameSite, for the whole host, for 12 hours; by HTTPS Secure and with the prefix."""
    _, secret = site.key()
    with site.browser() as browser:
        for headers, name in (({}, COOKIE), ({"X-Forwarded-Proto": "https"}, f"__Host-{COOKIE}")):
            answer = browser.post("/sign-in", data={"key": f" {secret}\n"}, headers=headers)
            assert (answer.status_code, answer.headers["Location"]) == (303, "/")
            assert_safe(answer)
            assert secret not in f"{answer.headers}{answer.text}"
            got = cookie(answer)
            site.secrets.append(got.value)
            assert got.key == name
            assert (got["path"], got["domain"], got["max-age"]) == ("/", "", "43200")
            assert (got["httponly"], got["samesite"].lower()) == (True, "lax")
            assert got["secure"] == (True if headers else "")
            sent = {**headers, "Cookie": f"{name}={got.value}"}
            assert browser.get("/sign-in", headers=sent).headers["Location"] == "/"
            other = f"{COOKIE}={got.value}" if headers else f"__Host-{COOKIE}={got.value}"
            assert browser.get("/sign-in", headers={**headers, "Cookie": other}).status_code == 200


def test_the_form_asks_for_a_key_and_shows_none(site: Site) -> None:
    with site.browser() as browser:
        answer = browser.get("/sign-in", params={"next": '/x?a="><script>'})
        assert answer.status_code == 200
        assert_safe(answer)
        (key,) = re.findall(r'<input id="key".*?>', answer.text, re.DOTALL)
        for wanted in ('type="password"', "autofocus", "required", 'autocomplete="current-password"'):
            assert wanted in key
        assert "value" not in key
        assert not re.search(r'<script(?! src="/static/)', answer.text)
        assert "style=" not in answer.text


@pytest.mark.parametrize("role", ["writer", "stranger", "revoked", "nobody"])
def test_who_may_not_sign_in_gets_the_form_again(site: Site, role: str) -> None:
    key_id, secret = site.key("writer" if role == "writer" else "reader")
    if role == "revoked":
        site.access.revoke(key_id, account="default", by="tests")
    given = {"stranger": new_secret(), "nobody": " "}.get(role, secret)
    with site.browser() as browser:
        answer = browser.post("/sign-in", data={"key": given, "next": "/x"})
        told = sentence(answer, 403 if role == "writer" else 401)
        assert ("writer" in told) == (role == "writer")
        assert given == " " or given not in answer.text
        assert 'name="next" value="/x"' in answer.text
        assert "Set-Cookie" not in answer.headers


@pytest.mark.parametrize(
    ("wanted", "leads"),
    [
        ("/events?a=b&c=%20d#e", "/events?a=b&c=%20d#e"), ("/", "/"), ("", "/"), ("events", "/"),
        ("//evil.test", "/"), ("///evil.test", "/"), ("/\\evil.test", "/"), ("\\\\evil.test", "/"),
        ("https://evil.test", "/"), ("javascript:alert(1)", "/"), ("/\t/evil.test", "/"), ("/a\\b", "/"),
        ("/\r\nSet-Cookie: a=b", "/"), ("/a\x00", "/"), (" //evil.test", "/"), ("/é", "/"),
        ("/" + "a" * 2_048, "/"), ("/\u2028", "/"),
    ],
)  # fmt: skip
def test_nobody_is_sent_to_another_site(site: Site, wanted: str, leads: str) -> None:
    """Neither after the form, nor when he is signed in already."""
    assert site.shared.get("/sign-in", params={"next": wanted}).headers["Location"] == leads
    answer = site.browser().post("/sign-in", data={"key": site.key()[1], "next": wanted})
    assert answer.headers["Location"] == leads
    site.secrets.append(cookie(answer).value)


def test_signing_out_ends_the_session_in_all_workers(site: Site) -> None:
    browser, session, token = site.signed_in()
    assert all_workers(site, token) == {303}
    answer = browser.post("/sign-out", data={"csrf": session.csrf})
    assert (answer.status_code, answer.headers["Location"]) == (303, "/sign-in")
    assert cookie(answer)["max-age"] == "0"
    assert_safe(answer)
    assert all_workers(site, token) == {200}
    again = browser.post("/sign-out", data={"csrf": session.csrf})
    assert (again.status_code, again.headers["Location"]) == (303, "/sign-in")


def test_a_revoked_key_signs_out_in_all_workers(site: Site) -> None:
    _, session, token = site.signed_in()
    assert all_workers(site, token) == {303}
    site.access.revoke(session.key.id, account="default", by="tests")
    assert all_workers(site, token) == {200}


def test_only_the_page_can_change_something(site: Site) -> None:
    """Without the token of the session, with a wrong one, or from another site, nothing is done."""
    browser, session, token = site.signed_in()
    _, other, _ = site.signed_in()
    csrf = {"csrf": session.csrf}
    port = site.server.port
    cases: list[tuple[dict[str, str], dict[str, str]]] = [
        ({}, {}), ({"csrf": ""}, {}), ({"csrf": "x"}, {}), ({"csrf": other.csrf}, {}), ({"csrf": "é"}, {}),
        ({}, {"X-CSRF-Token": other.csrf}), ({"csrf": other.csrf}, {"X-CSRF-Token": session.csrf}),
        (csrf, {"Origin": "https://evil.example"}), (csrf, {"Origin": "null"}),
        (csrf, {"Origin": "http://127.0.0.1"}), (csrf, {"Origin": f"http://127.0.0.1:{port}.evil.example"}),
        (csrf, {"Origin": f"http://127.0.0.1:{port}", "X-Forwarded-Proto": "https"}),
        (csrf, {"Sec-Fetch-Site": "cross-site"}), (csrf, {"Sec-Fetch-Site": "same-site"}),
    ]  # fmt: skip
    for form, headers in cases:
        with_cookie = {**headers, "Cookie": f"{COOKIE}={token}; __Host-{COOKIE}={token}"}
        answer = browser.post("/sign-out", data={"a": "b", **form}, headers=with_cookie)
        sentence(answer, 403)
        assert "Set-Cookie" not in answer.headers
    assert browser.post("/sign-out", json=csrf).status_code == 415
    assert all_workers(site, token) == {303}
    headers = {"X-CSRF-Token": session.csrf, "Origin": f"http://127.0.0.1:{port}"}
    assert browser.post("/sign-out", data={"a": "b"}, headers=headers).status_code == 303
    assert all_workers(site, token) == {200}


def test_no_other_site_can_sign_somebody_in(site: Site) -> None:
    _, secret = site.key()
    foreign = (("Origin", "https://evil.test"), ("Origin", "null"), ("Sec-Fetch-Site", "cross-site"))
    with site.browser() as browser:
        for name, value in foreign:
            headers = {name: value}
            answer = browser.post("/sign-in", data={"key": secret}, headers=headers)
            assert "another site" in sentence(answer, 403)
            assert "Set-Cookie" not in answer.headers
        own = {"Origin": site.server.url, "Sec-Fetch-Site": "same-origin"}
        answer = browser.post("/sign-in", data={"key": secret}, headers=own)
        assert answer.status_code == 303
        site.secrets.append(cookie(answer).value)


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"key=a&key=b", 400), (b"key", 400), (b"key=%ff", 400), (b"key=\xc3\xa9", 400), (b"&", 400),
        (b"a=b&" * 99 + b"a=b&a=b", 400), (b"key=" + b"a" * 65_536, 413), (b"", 401), (b"key=a", 401),
    ],
)  # fmt: skip
def test_a_form_is_read_within_bounds(site: Site, content: bytes, status: int) -> None:
    media = {"Content-Type": "application/x-www-form-urlencoded"}
    for sent in (content, iter([content])):  # on connections of their own: a body that is not read ends one
        with site.browser(**media) as browser:
            sentence(browser.post("/sign-in", content=sent), status)


def test_a_form_of_another_kind_is_refused(site: Site) -> None:
    with site.browser() as browser:
        for headers in (
            {"Content-Type": "multipart/form-data; boundary=x"},
            {"Content-Type": "application/json"},
            {"Content-Type": "application/x-www-form-urlencoded", "Content-Encoding": "gzip"},
        ):
            sentence(browser.post("/sign-in", content=b"key=a", headers=headers), 415)


def test_a_link_signs_in_once(site: Site) -> None:
    """By the command line; a look ahead does not use it up; nobody learns where one came from."""
    key_id, _ = site.key()
    done = run("keys", "link", key_id, "--data", site.server.data, "--url", f"{site.server.url}/")
    assert (done.returncode, done.stderr) == (0, "")
    url = done.stdout.strip()
    assert url.startswith(f"{site.server.url}/sign-in/")
    site.secrets.append(url.rpartition("/")[2])
    with site.browser() as browser:
        assert browser.head(url).status_code == 403
        assert browser.get(url, headers={"Sec-Purpose": "prefetch;prerender"}).status_code == 403
        answer = browser.get(url)
        assert (answer.status_code, answer.headers["Location"]) == (303, "/")
        assert answer.headers["Referrer-Policy"] == "no-referrer"
        assert_safe(answer)
        token = cookie(answer).value
        site.secrets.append(token)
        assert site.access.session(token).key.id == key_id
        assert all_workers(site, token) == {303}
        for _ in range(4):
            again = browser.get(url)
            assert "was used" in sentence(again, 401)
            assert 'name="key"' in again.text
    with_default = run("keys", "link", key_id, "--data", site.server.data, env={"AUDITPLANE_PORT": "4711"})
    assert with_default.stdout.startswith("http://127.0.0.1:4711/sign-in/")
    site.secrets.append(with_default.stdout.strip().rpartition("/")[2])


def test_attempts_are_limited_across_workers(site: Site) -> None:
    """By address: 20 failures on many connections, then 429 for everything from there, and nowhere else."""
    _, secret = site.key()
    statuses = []
    address = site.browser()
    headers = {"Accept": "text/html"}
    for _ in range(22):
        statuses.append(address.post("/sign-in", data={"key": new_secret()}, headers=headers).status_code)
        address._transport.close()  # so that the next one is another connection, and may be another worker
    assert statuses == [401] * 20 + [429] * 2
    refused = address.post("/sign-in", data={"key": secret})
    assert "minutes" in sentence(refused, 429)
    assert 0 < int(refused.headers["Retry-After"]) <= 600
    assert 'name="key"' in refused.text
    assert "minutes" in sentence(address.get("/sign-in/nothing"), 429)
    api = address.get(EVENTS, headers={"X-Bindplane-Api-Key": secret, "Accept": "*/*"})
    assert api.status_code == 200
    with site.browser() as other:
        answer = other.post("/sign-in", data={"key": secret}, headers={"X-Forwarded-For": "192.0.2.1"})
        assert answer.status_code == 303
        site.secrets.append(cookie(answer).value)


def test_the_api_takes_no_cookie(site: Site) -> None:
    """Nor does it set one; and the page takes no key in a header."""
    browser, session, token = site.signed_in("admin")
    for path in (EVENTS, f"{EVENTS}/download", "/v1/api-keys", "/v1/retention"):
        headers = {
            "Accept": "application/json",
            "Cookie": f"{COOKIE}={token}; __Host-{COOKIE}={token}",
            "X-CSRF-Token": session.csrf,
        }
        problems_of(browser.get(path, headers=headers), 401)
    with site.browser(**{"X-Bindplane-Api-Key": site.secrets[0]}) as keyed:
        answer = keyed.get(EVENTS, headers={"Accept": "*/*"})
        assert "Set-Cookie" not in answer.headers
        assert keyed.get("/sign-in").status_code == 200


def test_an_unknown_path_is_a_page_for_browsers_only(site: Site) -> None:
    with site.browser() as browser:
        for path in ("/nothing", "/v1/nothing", "/sign-in/a/b", "/<script>"):
            assert "no page" in sentence(browser.get(path), 404)
            for accept in ("*/*", "application/json", "application/json, text/html;q=0.9", "image/png"):
                problems_of(browser.get(path, headers={"Accept": accept}), 404)
        wrong = browser.get("/sign-out")
        sentence(wrong, 405)
        assert wrong.headers["Allow"] == "POST"
        problems_of(browser.delete("/sign-in", headers={"Accept": "*/*"}), 405)


def test_by_tls_the_cookie_is_a_secure_one(tmp_path: Path) -> None:
    """Without any header that says so."""
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days",
         "2", "-subj", "/CN=x", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", cert],
        check=True, capture_output=True,
    )  # fmt: skip
    with start(tmp_path / "data", "--tls-cert", cert, "--tls-key", key) as server:
        with httpx2.Client(base_url=server.url, verify=False) as browser:
            headers = {"Origin": server.url}
            answer = browser.post("/sign-in", data={"key": server.admin_key}, headers=headers)
            got = cookie(answer)
            assert (got.key, got["secure"], got["path"]) == (f"__Host-{COOKIE}", True, "/")
            assert browser.get("/sign-in").status_code == 303
            for path in ("/", "/v1/audit-events", "/health", "/nowhere", "/favicon.ico"):
                assert browser.get(path).headers["Strict-Transport-Security"] == "max-age=31536000"
            plain = {"Cookie": f"{COOKIE}={got.value}"}
        with httpx2.Client(base_url=server.url, verify=False, headers=plain) as browser:
            assert browser.get("/sign-in").status_code == 200
