"""Who asks for a page, by the cookie; and whether a change was asked for by a page of this server.

The cookie can't be read by scripts, is sent to this server only, and with what other sites start only when
that is a plain link. Where the request came by HTTPS, its name has a prefix with which browsers take it from
nobody but this very host.
"""

from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from auditplane import limits
from auditplane.access.key import Session
from auditplane.errors import Forbidden, NotAuthenticated
from auditplane.http.state import CALLER, State

COOKIE: Final = "auditplane_session"
SECURE_COOKIE: Final = "__Host-auditplane_session"
CSRF_FIELD: Final = "csrf"
CSRF_HEADER: Final = "X-CSRF-Token"


def session(request: Request, *, is_counted: bool = True) -> Session:
    """The session of a request; raises NotAuthenticated and TooManyRequests."""
    state: State = request.state.server
    found = state.access.session(token(request))
    if CALLER not in request.scope:  # some ask again while their answer is under way
        request.scope[CALLER] = found.key
        if is_counted:
            state.take_read(found.key)
    return found


def token(request: Request) -> str:
    """The token in the cookie; raises NotAuthenticated when there is none."""
    found = _last(request.headers.get("cookie", ""), _cookie(request))
    if not found:
        raise NotAuthenticated("You are not signed in.")
    return found


def _last(cookies: str, name: str) -> str:
    """The last cookie of a name, as browsers write them (RFC 6265, section 5.4); empty where there is none.

    Only that is looked for: anybody may send thousands of others, which take long to read.
    """
    _, _, found = (";" + cookies.replace("; ", ";")).rpartition(f";{name}=")
    return found.partition(";")[0]


def keep(request: Request, response: Response, token: str) -> None:
    """Has the browser keep a token."""
    response.set_cookie(
        _cookie(request),
        token,
        max_age=limits.SESSION_SECONDS,
        secure=by_https(request),
        httponly=True,
        samesite="lax",
    )


def drop(request: Request, response: Response) -> None:
    """Has the browser forget its token."""
    response.delete_cookie(_cookie(request), secure=by_https(request), httponly=True, samesite="lax")


def by_https(request: Request) -> bool:
    """Whether the browser spoke HTTPS, to this server or to a proxy before it.

    Anybody may claim that, and gains nothing: he gets a cookie that only comes back by HTTPS.
    """
    first, _, _ = request.headers.get("x-forwarded-proto", "").partition(",")  # each proxy adds its own
    return "https" in (request.scope["scheme"], first.strip().lower())


def check_csrf(request: Request, session: Session, form_value: str = "") -> None:
    """Raises Forbidden for a change that no page of this session asked for.

    `form_value` is the field `csrf` of its form; the header X-CSRF-Token may have it instead.
    """
    check_origin(request)
    if not session.is_own(form_value or request.headers.get(CSRF_HEADER, "")):
        raise Forbidden("This form is from before you signed in, or not from this page; load it again.")


def check_origin(request: Request) -> None:
    """Raises Forbidden for what another site has the browser send.

    Sec-Fetch-Site says it best, as no proxy changes what it is about; plain HTTP has the Origin only. What
    has neither comes from no browser of today.
    """
    site = request.headers.get("sec-fetch-site")
    origin = request.headers.get("origin")
    if site is not None:
        own = site in ("same-origin", "none")
    else:
        own = origin is None or origin.lower() in _own_origins(request)
    if not own:
        raise Forbidden("This was sent by another site; open the page of this server, and try there.")


def _own_origins(request: Request) -> set[str]:
    """Where this server's pages are. A proxy before it may speak HTTPS without saying so."""
    host = request.headers.get("host", "").lower()
    return {f"https://{host}"} if by_https(request) else {f"https://{host}", f"http://{host}"}


def _cookie(request: Request) -> str:
    return SECURE_COOKIE if by_https(request) else COOKIE
