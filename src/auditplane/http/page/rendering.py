"""Templates to answers, and errors to pages.

Every answer forbids the browser what the page does not need: no script, style or form but those of this
server, no frame around it, no copy in a cache. In templates every value is escaped, and one that is missing
is an error. What would turn the direction of a text is shown in its place, but where a value is to be sent
back or copied: it has the filter `data` there.
"""

from collections.abc import Awaitable, Callable, Mapping
from functools import cache, partial, wraps
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from auditplane.access.key import Key
from auditplane.errors import AuditplaneError, InvalidInput, NotAcceptable, NotAuthenticated
from auditplane.http import negotiation, problems
from auditplane.http.page import assets, paths, sessions, texts
from auditplane.http.state import CALLER, NOBODY, State
from auditplane.http.streams import encoded
from auditplane.times import format_us

if TYPE_CHECKING:
    from jinja2 import Environment

HTML: Final = "text/html"
ENCODED_BYTES_MIN: Final = 1_024
PART_HEADER: Final = "hx-request"
# A form that is sent under `no-referrer` has no Origin either.
REFERRER: Final = "same-origin"
_POLICY: Final = {
    "default-src": "'none'",
    "script-src": "'self'",
    "style-src": "'self'",
    "img-src": "'self'",
    "connect-src": "'self'",
    "font-src": "'self'",
    "manifest-src": "'self'",
    "form-action": "'self'",
    "base-uri": "'none'",
    "frame-ancestors": "'none'",
}
_FEATURES: Final = (
    "accelerometer", "autoplay", "camera", "display-capture", "encrypted-media", "fullscreen", "geolocation",
    "gyroscope", "hid", "magnetometer", "microphone", "midi", "payment", "publickey-credentials-get",
    "screen-wake-lock", "serial", "usb", "xr-spatial-tracking",
)  # fmt: skip
HEADERS: Final[Mapping[str, str]] = {
    "Content-Security-Policy": "; ".join(f"{name} {value}" for name, value in _POLICY.items()),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": REFERRER,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": ", ".join(f"{feature}=()" for feature in _FEATURES),
    "Cache-Control": "no-store",
    "Vary": "Accept-Encoding, Sec-Fetch-Site",
}

Handler: TypeAlias = Callable[[Request], Awaitable[Response]]


async def html(request: Request, template: str, status: int = HTTPStatus.OK, **values: Any) -> Response:
    """A page, made of a template and its values on a thread: a large one takes milliseconds.

    It is sent like other large answers, and breaks off when the session ends. `headers` are those of the
    answer. Raises Unavailable.
    """
    state: State = request.state.server
    key: Key | None = request.scope.get(CALLER)
    account = NOBODY if key is None else key.account
    make = partial(_page, request, template, status, **values)
    answer = await state.streams.run(account, make)
    # What is for nobody in particular is small.
    return answer if key is None else state.streams.whole(account, answer, partial(sessions.session, request))


def _page(
    request: Request,
    template: str,
    status: int = HTTPStatus.OK,
    *,
    headers: Mapping[str, str] | None = None,
    **values: Any,
) -> Response:
    body = rendered(template, **values).encode()
    encoding = _encoding(request) if len(body) >= ENCODED_BYTES_MIN else None
    more = {"Content-Encoding": encoding} if encoding else {}
    return Response(encoded(body, encoding), status, {**HEADERS, **more, **(headers or {})}, HTML)


def is_for_part(request: Request) -> bool:
    """Whether a page asks for a part of itself."""
    return PART_HEADER in request.headers


def rendered(template: str, **values: Any) -> str:
    """The text of a template."""
    return _templates().get_template(template).render(**values)


def _encoding(request: Request) -> str | None:
    """How an answer is compressed: only where no other site made the browser ask.

    One that could, and that saw how long the answers are, would learn their texts from what it puts in.
    """
    if request.headers.get("sec-fetch-site") not in ("same-origin", "none"):
        return None
    return negotiation.encoding(request.headers.getlist("accept-encoding"))


def redirect(path: str, headers: Mapping[str, str] | None = None) -> Response:
    """Sends the browser to a path of this server, which it gets by GET."""
    return RedirectResponse(path, HTTPStatus.SEE_OTHER, {**HEADERS, **(headers or {})})


# What every template may use.
_GLOBALS: Final[Mapping[str, Any]] = {
    # Where the server is: what a request says of that is not believed. The browser knows (static/copying.js).
    "SERVER": "https://SERVER",
    "FEW_EVENTS": 3,  # so few are those of keys, and somebody looks for how to begin
    "ROW_CHARS": 512,  # of a description in the table; the event's own page has all of it
    "asset": assets.url,
    "format_us": format_us,
    "length_of": texts.length,
    "manages": texts.manages,
    "size_of": texts.size,
    "tone": texts.tone,
    "url_of": texts.trail_url,
}


def page_route(handler: Handler) -> Handler:
    """A route that answers its errors with pages."""

    @wraps(handler)
    async def answered(request: Request) -> Response:
        try:
            return await handler(request)
        except AuditplaneError as error:
            return await _problem(request, error)
        except HTTPException:
            raise
        except Exception as error:  # noqa: BLE001 - nothing above answers with a page
            problems.log_bug(request, error)
            return error_page(request, HTTPStatus.INTERNAL_SERVER_ERROR, problems.BUG_MESSAGE)

    return answered


def error_page(
    request: Request, status: HTTPStatus, *messages: str, headers: Mapping[str, str] | None = None
) -> Response:
    """A page that says what is wrong."""
    return _page(request, "error.html", status, headers=headers, heading=status.phrase, messages=messages)


async def on_http_exception(request: Request, error: Exception) -> Response:
    """The answer to unknown paths and methods: JSON, unless a browser asks."""
    assert isinstance(error, HTTPException)  # noqa: S101 - what it is registered for
    if _best(request, problems.JSON, HTML) != HTML:
        return await problems.on_http_exception(request, error)
    status = HTTPStatus(error.status_code)
    if status == HTTPStatus.NOT_FOUND:
        return error_page(request, status, "There is no page at this address.")
    allowed = {"Allow": problems.methods(request)} if status == HTTPStatus.METHOD_NOT_ALLOWED else {}
    return error_page(request, status, "This address can't be used so.", headers=allowed)


async def on_early_error(request: Request, error: AuditplaneError) -> Response:
    """The answer to what is refused before it has a route: JSON, unless a browser asks."""
    if _best(request, problems.JSON, HTML) != HTML:
        return await problems.on_error(request, error)
    return error_page(request, problems.status_of(error), *problems.told(error))


async def _problem(request: Request, error: AuditplaneError) -> Response:
    if _best(request, HTML, problems.JSON, "text/event-stream") != HTML:
        answer = await problems.on_error(request, error)
        answer.headers.update(HEADERS)
        return answer
    if isinstance(error, NotAuthenticated):
        return _sign_in_first(request, error)
    problems.log_failure(request, error)
    return error_page(
        request, problems.status_of(error), *problems.told(error), headers=problems.advice(error)
    )


def _sign_in_first(request: Request, error: NotAuthenticated) -> Response:
    """To where one signs in, and back then; a part of a page is asked for by htmx, which knows a header."""
    if is_for_part(request):
        headers = {**HEADERS, **problems.CHALLENGE, "HX-Redirect": paths.sign_in(paths.shown(request))}
        return Response(None, HTTPStatus.UNAUTHORIZED, headers)
    if request.method in ("GET", "HEAD"):
        return redirect(paths.sign_in(paths.asked(request)))
    return error_page(request, HTTPStatus.UNAUTHORIZED, *error.messages, headers=problems.CHALLENGE)


def _best(request: Request, *offered: str) -> str:
    """The media type that suits the caller best, the first where none does."""
    try:
        return negotiation.media_type(request.headers.getlist("accept"), offered)
    except (InvalidInput, NotAcceptable):
        return offered[0]


@cache
def _templates() -> "Environment":
    # Not with the module: it takes 80 ms, for which no worker waits at its start.
    from jinja2 import Environment, PackageLoader, StrictUndefined  # noqa: PLC0415
    from markupsafe import Markup, escape  # noqa: PLC0415

    def shown(value: object) -> object:
        return texts.visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value

    made = Environment(
        loader=PackageLoader("auditplane.http.page"),
        autoescape=True,
        finalize=shown,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    made.globals.update(_GLOBALS)
    made.filters["data"] = escape
    return made
