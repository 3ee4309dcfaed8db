"""What a route of the page answers when it fails: a page, or what a script of the page can use."""

import asyncio
import html as html_module
import logging
from collections.abc import Mapping

import msgspec
import pytest
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from auditplane.errors import (
    AuditplaneError,
    Forbidden,
    InvalidQuery,
    NotAuthenticated,
    StoreError,
    TooManyAttempts,
    Unavailable,
)
from auditplane.http.page.rendering import HEADERS, page_route, redirect, rendered

BROWSER = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}


def answer(
    error: Exception, headers: Mapping[str, str] = BROWSER, *, method: str = "GET", target: str = "/"
) -> Response:
    """What a route answers that fails so."""

    @page_route
    async def route(_request: Request) -> Response:
        raise error

    async def answered() -> Response:
        return await route(asked(headers, method=method, target=target))

    return asyncio.run(answered())


def asked(headers: Mapping[str, str] = BROWSER, *, method: str = "GET", target: str = "/") -> Request:
    path, _, query = target.partition("?")
    return Request(
        {
            "type": "http",
            "method": method,
            "path": path,
            "query_string": query.encode(),
            "headers": [(name.lower().encode(), value.encode()) for name, value in headers.items()],
        }
    )


@pytest.mark.parametrize(
    ("target", "leads"),
    [
        ("/", "/sign-in"),
        ("/events", "/sign-in?next=%2Fevents"),
        ("/events?q=a%20b&user=c", "/sign-in?next=%2Fevents%3Fq%3Da%2520b%26user%3Dc"),
        ("/é", "/sign-in?next=%2F%25C3%25A9"),
        ("//evil.test", "/sign-in"),
        ("/" + "a" * 3_000, "/sign-in"),
    ],
)
def test_who_is_not_signed_in_is_sent_there_and_back(target: str, leads: str) -> None:
    for method in ("GET", "HEAD"):
        found = answer(NotAuthenticated("x"), method=method, target=target)
        assert (found.status_code, found.headers["Location"]) == (303, leads)
        assert all(found.headers[name] == value for name, value in HEADERS.items())


def test_a_form_of_somebody_signed_out_is_not_sent_on() -> None:
    found = answer(NotAuthenticated("You are not signed in."), method="POST")
    assert found.status_code == 401
    assert found.headers["WWW-Authenticate"].startswith("Bearer")
    assert b"You are not signed in." in found.body


@pytest.mark.parametrize(
    ("shown", "leads"),
    [
        ("http://127.0.0.1:3001/events?a=b", "/sign-in?next=%2Fevents%3Fa%3Db"),
        ("http://127.0.0.1:3001//evil.test", "/sign-in"),
        ("", "/sign-in"),
        ("http://[x", "/sign-in"),
    ],
)
def test_htmx_is_told_by_a_header(shown: str, leads: str) -> None:
    """It would put the form to sign in where the part of the page was to go."""
    found = answer(NotAuthenticated("x"), {"HX-Request": "true", "HX-Current-URL": shown, "Accept": "*/*"})
    assert (found.status_code, found.headers["HX-Redirect"], found.body) == (401, leads, b"")


@pytest.mark.parametrize("accept", ["application/json", "text/event-stream"])
def test_a_script_is_told_in_json(accept: str) -> None:
    for error, status in ((NotAuthenticated("x"), 401), (InvalidQuery("x"), 400)):
        found = answer(error, {"Accept": accept})
        assert found.status_code == status
        assert msgspec.json.decode(found.body) == {"errors": ["x"]}
        assert found.headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize(
    ("error", "status", "headers"),
    [
        (Forbidden("a <b>"), 403, {}),
        (InvalidQuery("a <b>", "second"), 400, {}),
        (Unavailable("a <b>"), 503, {"Retry-After": "1"}),
        (TooManyAttempts("a <b>", retry_after_seconds=9), 429, {"Retry-After": "9"}),
        (AuditplaneError("a <b>"), 500, {}),
    ],
)
def test_an_error_is_a_page_with_its_sentences(
    error: AuditplaneError, status: int, headers: dict[str, str]
) -> None:
    """Escaped, with the status of the API, and the headers of every page."""
    for accept in (BROWSER, {}, {"Accept": "*/*"}, {"Accept": "image/png"}):
        found = answer(error, accept)
        assert found.status_code == status
        assert all(found.headers[name] == value for name, value in {**HEADERS, **headers}.items())
        assert b"a &lt;b&gt;" in found.body
        assert all(message.encode() in found.body for message in error.messages[1:])


def test_a_bug_tells_nothing_of_the_inside(caplog: pytest.LogCaptureFixture) -> None:
    found = answer(KeyError("inside"))
    assert found.status_code == 500
    assert b"inside" not in found.body
    assert "inside" in caplog.text


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("The disk that holds /var/lib/audit/data is full.", "The disk that holds …/data is full."),
        (
            "The database in /srv/x/accounts is damaged: a page.",
            "The database in …/accounts is damaged: a page.",
        ),
        ("Is a directory: '/srv/x/yep.lock'", "Is a directory: '…/yep.lock'"),
        ("/etc/audit plane/log.key can't be read", "…/audit plane/log.key can't be read"),
        ("Ask for /sign-in or a/b, at 1/2.", "Ask for /sign-in or a/b, at 1/2."),
    ],
)
def test_where_the_files_lie_is_for_the_log(
    message: str, shown: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A failure of the server's own tells a caller no path; what is wrong with a request is told as it is."""
    for accept in (BROWSER, {"Accept": "application/json"}):
        found = answer(StoreError(message), accept)
        body = html_module.unescape(bytes(found.body).decode())
        assert found.status_code == 500
        assert shown in body
        assert shown == message or message not in body
        assert message in caplog.text
        assert message in html_module.unescape(bytes(answer(InvalidQuery(message), accept).body).decode())


@pytest.mark.parametrize("error", [StoreError("the disk failed"), KeyError("x")])
def test_a_link_that_fails_is_not_logged(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    """Who reads the log could use it."""
    caplog.set_level(logging.DEBUG)
    assert answer(error, target="/sign-in/TOKEN?x=TOKEN").status_code == 500
    assert "500" in caplog.text or "failed" in caplog.text
    assert "TOKEN" not in caplog.text


def test_what_starlette_refuses_goes_on_to_it() -> None:
    with pytest.raises(HTTPException):
        answer(HTTPException(404))


def test_a_template_escapes_everything_and_misses_nothing() -> None:
    """A value that is not given is a mistake, not an empty place."""
    found = rendered("error.html", heading="<i>", messages=["\"'&<"])
    assert "<i>" not in found
    assert "&#34;&#39;&amp;&lt;" in found
    with pytest.raises(Exception, match="is undefined"):
        rendered("error.html")
    assert redirect("/x").headers["Location"] == "/x"
