"""What a stranger has the event loop read: each request is refused or read at the same small cost."""

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest
from starlette.requests import Request

from auditplane import limits
from auditplane.errors import InvalidQuery
from auditplane.http import events, framing
from auditplane.http.page import assets, paths, sessions
from routes import ROUTES, Served
from tenants import Tenant, problems_of

SIZE = 60_000
TOO_LONG = ("%61&" * SIZE)[: limits.QUERY_CHARS_MAX + 1]
SENTENCES = ["The parameters may have at most 8,192 characters."]


def asked(headers: dict[str, str] | None = None, path: str = "/", query: str = "") -> Request:
    """A request as the routes see it."""
    raw = [(name.encode(), value.encode("latin-1")) for name, value in (headers or {}).items()]
    scope = {"type": "http", "method": "GET", "scheme": "http", "path": path, "headers": raw}
    return Request({**scope, "query_string": query.encode()})


def calls(work: Callable[[], Any]) -> int:
    """How many functions are called meanwhile, those of C among them."""
    count = 0

    def note(_frame: FrameType, what: str, _arg: Any) -> None:
        nonlocal count
        count += what in ("call", "c_call")

    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(None)
    return count


# Parameters.


@pytest.mark.parametrize("route", ROUTES, ids=str)
def test_too_long_parameters_are_refused_on_every_path(empty: Tenant, route: Served) -> None:
    """Before anybody looks who asks, and what for; by whichever method."""
    stranger = empty.client(None)
    url = route.url(id="x", account="x", path="x", form="x", link="x", version="x", name="x")
    assert problems_of(stranger.request(route.method, f"{url}?{TOO_LONG}"), 400) == SENTENCES
    assert problems_of(stranger.request("BREW", f"{url}?{TOO_LONG}"), 400) == SENTENCES


def test_there_are_none_too_long_where_there_is_nothing(empty: Tenant) -> None:
    assert problems_of(empty.client(None).get(f"/nowhere?{TOO_LONG}"), 400) == SENTENCES
    assert empty.client(None).get(f"/sign-in?x={'a' * (limits.QUERY_CHARS_MAX - 2)}").status_code == 200


def test_a_browser_is_told_by_a_page(empty: Tenant) -> None:
    answer = empty.client(None).get(f"/?{TOO_LONG}", headers={"Accept": "text/html,*/*;q=0.8"})
    assert (answer.status_code, answer.headers["Content-Type"]) == (400, "text/html; charset=utf-8")
    assert SENTENCES[0] in answer.text


def test_too_many_parameters_are_refused_before_they_are_read(empty: Tenant) -> None:
    def refused() -> None:
        with pytest.raises(InvalidQuery, match="At most 100 parameters can be given, not 2,048"):
            events.parameters(asked(query="%61&" * 2_048))

    assert calls(refused) < 1_000
    page = empty.client(None).get(f"/sign-in?{'%61&' * 101}")
    assert page.status_code == 400
    assert empty.client(None).get(f"/sign-in?{'%61&' * 100}").status_code == 200


# Headers.


def wrong_coding(count: int) -> Any:
    return framing._wrong("1.1", [(b"host", b"x"), (b"transfer-encoding", b"a," * count + b"chunked")])


LOOKS: dict[str, Callable[[int], Any]] = {
    "cookies": lambda count: sessions._last(';a="\\1"' * count, sessions.COOKIE),
    "our cookie again and again": lambda count: sessions._last(
        f"{sessions.COOKIE}=x; " * count, sessions.COOKIE
    ),
    "tags": lambda count: assets._answer(
        asked({"if-none-match": "," * count}), assets.ASSETS["page.css"], "x"
    ),
    "codings": wrong_coding,
    "a path": lambda count: paths.asked(asked(path="/é" * count)),
}


@pytest.mark.parametrize("what", LOOKS)
def test_more_of_it_is_not_more_work(what: str) -> None:
    look = LOOKS[what]
    look(1)
    assert calls(lambda: look(3_000)) <= calls(lambda: look(1)) + 10


@pytest.mark.parametrize(
    ("cookies", "found"),
    [
        ("", ""),
        ("n=v", "v"),
        ("a=b; n=v; c=d", "v"),
        ("a=b;n=v;c=d", "v"),
        ("n=v1; n=v2", "v2"),
        ("n=a=b", "a=b"),
        ("n=", ""),
        ("n", ""),
        ("an=v; na=v; n.=v", ""),
        # Another name to browsers, which let anybody set it: what stands before it is part of it.
        ("a=b n=v", ""),
        ("a=b,n=v", ""),
        ("a b n=v", ""),
        ("\xa0n=v; \x85n=v; \u00c2\xa0n=v; \tn=v", ""),
        ('a="; n=v', "v"),
    ],
)
def test_a_cookie_is_found_under_its_name_alone(cookies: str, found: str) -> None:
    assert sessions._last(cookies, "n") == found


def test_who_is_signed_in_stays_so_beside_the_cookies_of_other_programs(tenant: Tenant) -> None:
    """However many there are: browsers send those of all ports of a host."""
    own = tenant.client(None)
    answer = own.post("/sign-in", data={"key": tenant.key("reader")[1]})
    token = answer.cookies[sessions.COOKIE]
    own.cookies.clear()
    others = "; ".join(f"other{number}=x" for number in range(4_000))
    for cookies in (f"{others}; {sessions.COOKIE}={token}", f"{sessions.COOKIE}={token}; {others}"):
        assert own.get("/", headers={"Cookie": cookies}).status_code == 200
    assert own.get("/", headers={"Cookie": others}).status_code == 303


def test_what_is_not_utf8_is_refused_on_the_page_too(empty: Tenant) -> None:
    assert empty.client(None).get("/sign-in?next=%ff").status_code == 400
