"""What the pages for admins share: who may see them, and how a change is asked for."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import TypeVar

from starlette.requests import Request

from auditplane import keeping
from auditplane.access.key import Right, Session
from auditplane.http.page import forms, sessions
from auditplane.http.state import State

T = TypeVar("T")


def admin(request: Request) -> tuple[State, Session]:
    """The server and the session of an admin; raises NotAuthenticated and Forbidden."""
    session = sessions.session(request)
    session.key.require(Right.MANAGE)
    return request.state.server, session


async def change(request: Request) -> tuple[State, Session, Mapping[str, str]]:
    """The same for a change, with the fields of its form; raises Forbidden for one of another site, too."""
    state, session = admin(request)
    fields = await forms.read(request)
    sessions.session(request, is_counted=False)  # it may have ended while the form was sent
    sessions.check_csrf(request, session, fields.get(sessions.CSRF_FIELD, ""))
    return state, session, fields


async def on_account(
    state: State, session: Session, work: Callable[[keeping.Account], T], *, at_once: bool = False
) -> T:
    """What some work on the account of a session gives, done on a thread."""
    change = state.change_at_once if at_once else state.change
    return await change(session.key, partial(state.on_account, session.key, work))
