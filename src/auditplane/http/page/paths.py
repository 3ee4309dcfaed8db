"""Where the page sends people: only ever to places of its own."""

import re
from typing import Final
from urllib.parse import quote, urlencode, urlsplit

from starlette.requests import Request

HOME: Final = "/"
SIGN_IN: Final = "/sign-in"
PATH_CHARS_MAX: Final = 2_048

# A second slash, or a backslash, which browsers take for one, would name another host.
_LOCAL = re.compile(r"/(?![/\\])[!-\[\]-~]*")


def local(text: str) -> str:
    """A path of this server, or that of its first page where the text is no such path."""
    return text if len(text) <= PATH_CHARS_MAX and _LOCAL.fullmatch(text) else HOME


def sign_in(then: str) -> str:
    """Where to sign in, to go to a path of this server then."""
    return SIGN_IN if then == HOME else f"{SIGN_IN}?{urlencode({'next': then})}"


def asked(request: Request) -> str:
    """The path and the query of a request."""
    if len(request.scope["path"]) > PATH_CHARS_MAX:
        return HOME
    query = request.scope["query_string"].decode("latin-1")
    return local(quote(request.scope["path"]) + (f"?{query}" if query else ""))


def shown(request: Request) -> str:
    """The path and the query of the page that asks for a part of itself by htmx."""
    try:
        parts = urlsplit(request.headers.get("hx-current-url", ""))
    except ValueError:
        return HOME
    return local(parts.path + (f"?{parts.query}" if parts.query else ""))
