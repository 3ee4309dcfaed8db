"""A stand-in until the sessions of the page are merged: the cookie is the API key itself."""

from dataclasses import dataclass
from typing import Final

from starlette.requests import Request

from auditplane import access
from auditplane.http.state import State

COOKIE: Final = "auditplane"


@dataclass(frozen=True)
class Session:
    """Who is signed in."""

    key: access.Key


def session(request: Request) -> Session:
    """The session of a request; raises NotAuthenticated."""
    state: State = request.state.server
    return Session(state.access.authenticate(request.cookies.get(COOKIE)))
