"""The page against those who attack it: other sites, hostile texts, a wrong Host, who comes after.

What the routes are comes from the table of all of them, so that a new form or page is attacked too.
"""

import asyncio
import re
import socket
from collections.abc import Iterator
from html.parser import HTMLParser
from urllib.parse import quote, urlencode

import httpx2
import pytest
from playwright.sync_api import expect
from starlette.types import Message, Receive, Scope, Send

from auditplane.access import Access
from auditplane.errors import NotAuthenticated
from auditplane.http.headers import WithHeaders
from auditplane.http.page.rendering import HEADERS
from browser import OpenPage
from people import sign_in
from routes import PAGE, ROUTES, Served, Things, cookie
from tenants import Json, Tenant, event, events_of

# Each would do something where it is not text: in HTML, an attribute, a script, a URL, a template.
HOSTILE = (
    '"><img src=x onerror=console.error(1)><script>console.error(2)</script>',
    "'-console.error(3)-'</title></textarea></style><svg onload=console.error(4)>",
    "javascript:console.error(5)//{{7*7}}{% raw %}${7*7}<!--",
    '<div hx-get="/sign-out" hx-trigger="load" data-hx-on:load="console.error(6)" autofocus onfocus=a()>',
    "\u202e\u2066<b>&lt;&#60;&amp;lt; %3Cscript%3E \\u003cscript\\u003e",
)


@pytest.fixture
def own(tenant: Tenant, access: Access) -> Things:
    return Things(tenant, access)


# What every answer tells the browser.


def answers_of(things: Things) -> Iterator[tuple[Served, httpx2.Response]]:
    """Of each route: to who may use it, to nobody, to a wrong method, to a wrong request; and of no route."""
    tenant, (token, session) = things.tenant, things.admin
    person, nobody = things.browser(token), things.browser()
    for route in ROUTES:
        asker = person if route.is_page else tenant.admin
        if route.path != "/sign-out":
            yield route, route.send(asker, things, session.csrf)
        yield route, route.send(nobody, things)
        url = route.url(id="x", account="x", path="x", form="x", link="x", version="x", name="x")
        for accept in ("text/html", "application/json", "*/*"):
            yield route, asker.request("PATCH", url, headers={"Accept": accept})
            if url != "/live":
                yield route, asker.get(url, params={"wrong": "x"}, headers={"Accept": accept})
                yield route, asker.get(f"{url}/nowhere", headers={"Accept": accept})


def test_every_answer_forbids_what_it_does_not_need(own: Things) -> None:
    """No sniffing, frame, script but the page's own, referrer to others, copy, or other origin."""
    pages = 0
    for route, answer in answers_of(own):
        found = answer.headers
        assert found["X-Content-Type-Options"] == "nosniff", route
        policy = found["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert found["Referrer-Policy"] in ("no-referrer", "same-origin")
        assert found["Cross-Origin-Resource-Policy"] == "same-origin"
        assert not [name for name in found if name.startswith("access-control-")]
        assert "Strict-Transport-Security" not in found  # RFC 6797, section 7.2: not by plain HTTP
        assert re.search("[0-9]", found.get("Server", "")) is None
        kept = "/tile/" in route.path or route.path in ("/favicon.ico", "/static/{version}/{name:path}")
        assert kept or found["Cache-Control"] == "no-store", route
        if found.get("Content-Type", "").startswith("text/html"):
            pages += 1
            assert all(found[name] == value for name, value in HEADERS.items()), route
    assert pages > 40


# Other sites.

FOREIGN: tuple[dict[str, str], ...] = (
    {"Origin": "https://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"}, {"Sec-Fetch-Site": ""}, {"Origin": ""},
    {"Origin": "http://evil.example", "Sec-Fetch-Site": "cross-site"},
)  # fmt: skip


@pytest.mark.parametrize("route", [each for each in PAGE.values() if each.changes], ids=str)
def test_no_other_site_changes_anything(own: Things, access: Access, route: Served) -> None:
    """By a form without the token of the session, or with one of another; or with it, from another site."""
    token, session = own.admin
    other, _ = own.signed_in("admin")
    person = own.browser(token)
    csrfs = ["", "x", session.csrf[:-1], access.session(other).csrf, token]
    if route.path == "/sign-in":
        csrfs = []  # a form before there is a session: its site is all that can be looked at
    fill, options = route.fill(own), {"data": {"a": "b", **route.options(own)["data"]}}
    before = state_of(own)
    attempts: list[tuple[str, dict[str, str]]] = [(csrf, {}) for csrf in csrfs]
    attempts += [(session.csrf, headers) for headers in FOREIGN]
    for csrf, headers in attempts:
        data = {**options["data"], **({"csrf": csrf} if csrf else {})}
        answer = person.post(route.url(**fill), data=data, headers=headers)
        assert answer.status_code == 403, (csrf, headers)
        assert "Set-Cookie" not in answer.headers
    for content in ("text/plain", "application/json", "multipart/form-data; boundary=x"):
        body = urlencode({**options["data"], "csrf": session.csrf})
        answer = person.post(route.url(**fill), content=body, headers={"Content-Type": content})
        assert answer.status_code == 415
    for method in ("GET", "PUT", "DELETE", "PATCH"):
        answer = person.request(method, route.url(**fill), params={**options["data"], "csrf": session.csrf})
        assert answer.status_code in (200, 303, 405)
    assert state_of(own) == before
    assert access.session(token) == session


def state_of(things: Things) -> Json:
    """All that a form could change."""
    admin = things.tenant.admin
    return {
        "events": len(events_of(admin.get("/v1/audit-events"))),
        "keys": [(key["id"], key.get("revoked")) for key in admin.get("/v1/api-keys").json()["apiKeys"]],
        "retention": admin.get("/v1/retention").json(),
        "holds": admin.get("/v1/holds").json(),
    }


def test_what_only_reads_changes_nothing_for_another_site(own: Things) -> None:
    """A link from elsewhere shows pages; it starts no export, of which the trail would tell."""
    person = own.browser(own.admin[0])
    before = state_of(own)
    for route in PAGE.values():
        if route.changes or route.path.endswith(("/live", "/{link}", "/lift", "/revoke")):
            continue  # these need something new each time, or are tried elsewhere
        answer = route.send(person, own, headers={"Sec-Fetch-Site": "cross-site", "Accept": "text/html"})
        others = {"/export/{form}": 403, "/sign-in": 303}
        assert answer.status_code == others.get(route.path, 200)
    assert state_of(own) == before


# Who the server is.

HOSTS = (
    b"evil.example", b"evil.example:80@x", b"x/evil", b"[evil", b"x onmouseover=evil", b'x"><script>evil',
    b"\xffevil", b"evil.example, x",
)  # fmt: skip
PLACES = ("/", "/keys", "/sign-in?next=/x", "/nowhere", "/events/x", "/v1/audit-events?limit=1", "/rows")


@pytest.mark.parametrize("host", HOSTS)
def test_no_answer_names_the_host_of_a_request(own: Things, host: bytes) -> None:
    """Whatever headers say of it: no page, link, redirect or cookie has it; nor does a page fail for it."""
    names = (b"Host", b"X-Forwarded-Host", b"X-Host", b"X-Original-Host", b"X-Rewrite-URL")
    key = own.tenant.admin.headers["X-Bindplane-Api-Key"].encode()
    for path in (
        "/",
        "/keys",
        "/sign-in?next=/x",
        "/nowhere",
        "/events/x",
        "/v1/audit-events?limit=1",
        "/rows",
    ):
        for token in (own.admin[0], "x"):
            lines = [
                f"GET {path} HTTP/1.1".encode(), *(name + b": " + host for name in names),
                b"Accept: text/html, */*",
                b"Forwarded: host=" + host, cookie(token)["Cookie"].encode().join([b"Cookie: ", b""]),
                b"X-Bindplane-Api-Key: " + key, b"Connection: close", b"", b"",
            ]  # fmt: skip
            with socket.create_connection(("127.0.0.1", own.tenant.server.port), timeout=10) as connection:
                connection.sendall(b"\r\n".join(lines))
                answer = b"".join(iter(lambda: connection.recv(65_536), b""))
            assert re.match(rb"HTTP/1\.1 [234]", answer), (path, answer[:200])
            assert b"evil" not in answer, path


# Sessions.


def test_who_signs_in_gets_a_session_that_nobody_knew_before(own: Things, access: Access) -> None:
    """A cookie that was there before is not taken over; a session that it stood for is over."""
    tenant = own.tenant
    secret = tenant.key("reader")[1]
    for former in ("chosen-by-an-attacker", own.reader[0], own.admin[0]):
        for path, form in (("/sign-in", {"key": secret}), (f"/sign-in/{own.new_link()}", None)):
            answer = own.browser(former).request("POST" if form else "GET", path, data=form)
            assert answer.status_code == 303
            token = answer.cookies["auditplane_session"]
            assert token != former
            assert access.session(token).key.account == tenant.account
            with pytest.raises(NotAuthenticated):
                access.session(former)


def test_a_failed_attempt_ends_no_session(own: Things, access: Access) -> None:
    person = own.browser(own.reader[0])
    assert person.post("/sign-in", data={"key": "wrong"}).status_code == 401
    assert person.get("/sign-in/wrong").status_code == 401
    assert access.session(own.reader[0]) == own.reader[1]


def test_nothing_is_seen_after_signing_out(open_page: OpenPage, own: Things) -> None:
    """Neither by going back nor by opening an address again; on each page."""
    watched = open_page(own.tenant.server.url)
    sign_in(watched, own.tenant.key("admin", description="seen-before")[1])
    page = watched.page
    for path in ("/", "/keys", "/keeping", "/storage", f"/events/{own.event_id}"):
        page.goto(path)
        expect(page.locator(".account-name")).to_have_text(own.account)
    page.locator(".who summary").click()
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_label("API key")).to_be_visible()
    for _ in range(5):
        page.go_back()
        expect(page.get_by_label("API key")).to_be_visible()
        assert own.account not in page.content()
    watched.allow("status of 401")
    assert page.request.get("/rows", max_redirects=0).status == 303


# Hostile texts.


def fill_with(things: Things, text: str) -> None:
    """Records a text in every member of an event, a key and a hold."""
    tenant = things.tenant
    tenant.record(
        *(
            event(
                user=text, action=text[:64], resourceName=text, configuration=configuration, description=text,
                details={"before": {text: text}, "after": {text: [text, {text: 1}]}, text: {text: [text]}},
            )
            for configuration in (text, f"{text}:1")
        )
    )  # fmt: skip
    printable = "".join(each for each in text if each.isprintable())
    tenant.key("reader", description=printable)
    hold = tenant.admin.post("/v1/holds", json={"reason": printable, "user": text})
    assert hold.status_code == 201, hold.text


def ways_in(things: Things, text: str) -> Iterator[str]:
    """Every page and part of one, with a text in each place of its URL where a caller can put one."""
    for route in PAGE.values():
        if route.changes or route.path in ("/live", "/export/{form}", "/favicon.ico", "/sign-in/{link}"):
            continue
        path = route.url(**route.fill(things))
        given = route.options(things).get("params", {})
        yield f"{path}?{urlencode(given)}"
        yield from (f"{path}?{urlencode({**given, name: text})}" for name in sorted({*route.names, "wrong"}))
        if "{" in route.path:
            yield route.url(**dict.fromkeys(re.findall(r"{(\w+)", route.path), quote(text, safe="")))
    yield from ("/?user=nobody", "/export?user=nobody", f"/{quote(text, safe='')}")
    yield f"/export/{quote(text, safe='')}"
    yield f"/sign-in?{urlencode({'next': '/' + text})}"


FIELDS = ("description", "role", "ends", "days", "reason", "user", "from")


class Elements(HTMLParser):
    """The elements of a page, each as its name and those of its attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: set[tuple[str, ...]] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.add((tag, *sorted(name for name, _ in attrs)))
        assert not (dict(attrs).get("href") or "").strip().lower().startswith("javascript:")


def elements(things: Things, text: str) -> set[tuple[str, ...]]:
    """Those of all pages of an account that is full of a text, asked for with it."""
    fill_with(things, text)
    token, session = things.admin
    person = things.browser(token, Accept="text/html")
    found: set[tuple[str, ...]] = set()
    for path in ways_in(things, text):
        answer = person.get(path)
        assert answer.status_code < 500, path
        if answer.headers.get("Content-Type", "").startswith("text/html"):
            found |= Elements(answer.text).found
    for route in PAGE.values():
        if route.changes and route.path != "/sign-out":
            names = {*route.options(things)["data"], *FIELDS}
            for name in sorted(names):
                data = {**route.options(things)["data"], name: text, "csrf": session.csrf}
                found |= Elements(person.post(route.url(**route.fill(things)), data=data).text).found
    return found


@pytest.mark.parametrize("text", HOSTILE)
def test_no_text_becomes_an_element(tenant: Tenant, neighbour: Tenant, access: Access, text: str) -> None:
    """On each page, with the text in each member, place of a URL and field: it has the elements, with the
    attributes, that it has with a harmless text."""
    harmless = elements(Things(neighbour, access), "harmless")
    assert len(harmless) > 100
    assert elements(Things(tenant, access), text) - harmless == set()


def test_no_text_does_anything_in_a_browser(open_page: OpenPage, own: Things) -> None:
    """On each page, and in live mode: no script runs, none is refused, nothing else is asked for."""
    for text in HOSTILE:
        fill_with(own, text)
    watched = open_page(own.tenant.server.url)
    watched.allow(r"status of 40\d")
    sign_in(watched, own.tenant.key("admin", description=HOSTILE[0])[1])
    page = watched.page
    paths = [route.url(**route.fill(own)) for route in PAGE.values() if shows_a_page(route)]
    events = own.tenant.docs(resource_kind="Source")
    paths += [f"/events/{each['id']}" for each in events[::2]]
    paths += [f"/?{urlencode({name: text})}" for text in HOSTILE for name in ("user", "order")]
    paths += [f"/{quote(text, safe='')}" for text in HOSTILE]
    for path in paths:
        page.goto(path)
        assert page.locator("img, [onload], [onerror], main script, [data-hx-on\\:load]").count() == 0, path
    page.goto("/")
    before = page.locator("#rows tr[id]").count()
    expect(page.locator(".chart canvas")).to_be_visible()
    fill_with(own, HOSTILE[0])
    page.locator("#live-switch").click()
    expect(page.locator("#rows tr[id]")).not_to_have_count(before)
    assert page.locator("img, [onload], [onerror]").count() == 0


def shows_a_page(route: Served) -> bool:
    """Whether a browser can go there."""
    no_page = ("/live", "/rows", "/overview", "/relax", "/suggestions", "/favicon.ico", "/log/consistency")
    return not (
        route.changes
        or route.path in no_page
        or route.path.startswith(("/static", "/export/", "/sign-in/"))
        or route.path.endswith("/proof")
    )


def test_a_file_is_a_file_and_never_a_page(own: Things, access: Access) -> None:
    """Whatever is in it and was asked for: browsers don't show its type, and its name is ours."""
    tenant = own.tenant
    tenant.record(*(event(user=text, description=text) for text in HOSTILE))
    person = own.browser(own.reader[0])
    names = r'attachment; filename="(audit-events|evidence)-[a-z0-9-]+\.(csv|ndjson|zip)"'
    for asker, paths in (
        (person, [f"/export/{form}" for form in ("csv", "ndjson", "evidence")]),
        (tenant.reader, [f"/v1/audit-events/{name}" for name in ("download", "evidence")]),
    ):
        for path in paths:
            for name in ("user", "q", "configuration-name", "action"):
                answer = asker.get(path, params={name: f'x"\r\nX-Evil: 1; filename=evil.html {HOSTILE[0]}'})
                assert answer.status_code in (200, 400)
                assert "x-evil" not in answer.headers
                if answer.status_code == 200:
                    assert re.fullmatch(names, answer.headers["Content-Disposition"])
                    assert "html" not in answer.headers["Content-Type"]
    for accept in ("text/html", "text/html, */*;q=0.1", "application/xhtml+xml"):
        answer = tenant.reader.get("/v1/audit-events", headers={"Accept": accept})
        assert answer.status_code in (200, 406)
        assert "html" not in answer.headers["Content-Type"]


def test_browsers_are_told_to_stay_with_tls_where_that_is_wanted() -> None:
    """By TLS only, and not where `tls.hsts` is off; what a route says of a header stands."""

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        headers = [(b"Cache-Control", b"public")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})

    def told(scheme: str, *, hsts: bool) -> dict[bytes, bytes]:
        sent: list[Message] = []

        async def send(message: Message) -> None:
            sent.append(message)

        asyncio.run(WithHeaders(app, hsts=hsts)({"type": "http", "scheme": scheme}, no_body, send))
        return dict(sent[0]["headers"])

    async def no_body() -> Message:
        raise AssertionError

    by_tls = told("https", hsts=True)
    assert by_tls[b"strict-transport-security"] == b"max-age=31536000"
    assert by_tls[b"Cache-Control"] == b"public"
    assert b"cache-control" not in by_tls
    for scheme, hsts in (("http", True), ("http", False), ("https", False)):
        assert b"strict-transport-security" not in told(scheme, hsts=hsts)
