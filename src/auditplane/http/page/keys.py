"""The page of the API keys: what there is, one more, one less."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from auditplane.access.key import Key, Role, Session
from auditplane.errors import InvalidInput, NotFound, Unavailable
from auditplane.http.events import parameters
from auditplane.http.page.administration import admin, change
from auditplane.http.page.rendering import html, page_route, redirect
from auditplane.http.state import State
from auditplane.times import DAY_US

ENDS: Final = {"": "Never", "1": "In a day", "30": "In 30 days", "90": "In 90 days", "365": "In a year"}
"""When a new key can end: days, and what it is called."""
_NOTHING: Final[Mapping[str, str]] = {}


@page_route
async def show(request: Request) -> Response:
    """`GET /keys`: the keys of the account."""
    state, session = admin(request)
    return await _page(request, state, session)


@page_route
async def create(request: Request) -> Response:
    """`POST /keys`: a new key, whose secret this answer alone shows."""
    state, session, fields = await change(request)
    try:
        new = _asked(fields)
        made = await state.change(
            session.key,
            lambda: state.access.create(
                account=session.key.account,
                by=session.key.name,
                by_key=session.key.id,
                expires_us=_expires_us(fields, state.clock()),
                **new,
            ),
        )
    except InvalidInput as error:
        return await _page(request, state, session, 400, fields, error.messages)
    try:
        return await _page(request, state, session, made=made)
    except Unavailable:  # a long list may have to wait, but the secret is shown only here
        return await _page(request, state, session, made=made, keys=[made[0]])


@page_route
async def ask_to_revoke(request: Request) -> Response:
    """`GET /keys/{id}/revoke`: asks whether a key shall be revoked."""
    state, session = admin(request)
    keys = await _keys(state, session)
    key = next((key for key in keys if key.id == request.path_params["id"] and key.revoked_us is None), None)
    if key is None:
        raise NotFound("There is no API key of this id that could be revoked.")
    admins = [each for each in keys if each.role is Role.ADMIN and each.works_at(state.clock())]
    return await html(
        request,
        "revoke.html",
        session=session,
        key=key,
        is_own=key.id == session.key.id,
        is_last=admins == [key],
    )


@page_route
async def revoke(request: Request) -> Response:
    """`POST /keys/{id}/revoke`: ends a key."""
    state, session, _ = await change(request)
    key_id: str = request.path_params["id"]
    key = session.key
    await state.change_at_once(
        key, lambda: state.access.revoke(key_id, account=key.account, by=key.name, by_key=key.id)
    )
    return redirect(f"/keys?revoked={key_id}")


async def _keys(state: State, session: Session) -> Sequence[Key]:
    return await state.streams.run(session.key.account, lambda: state.access.keys(session.key.account))


async def _page(
    request: Request,
    state: State,
    session: Session,
    status: int = 200,
    fields: Mapping[str, str] = _NOTHING,
    problems: Sequence[str] = (),
    made: tuple[Key, str] | None = None,
    keys: Sequence[Key] | None = None,
) -> Response:
    if keys is None:
        keys = list(reversed(await _keys(state, session)))
    now = state.clock()
    revoked = dict(parameters(request)).get("revoked")
    return await html(
        request,
        "keys.html",
        status,
        session=session,
        keys=[key for key in keys if key.works_at(now)],
        ended=[key for key in keys if not key.works_at(now)],
        revoked=next((key for key in keys if key.id == revoked and key.revoked_us is not None), None),
        ends=ENDS,
        roles=[role.value for role in Role],
        fields=fields,
        problems=problems,
        made=made,
    )


def _asked(fields: Mapping[str, str]) -> dict[str, Any]:
    """What a form asks of a new key; raises InvalidInput."""
    role = fields.get("role", "")
    if role not in {each.value for each in Role}:
        raise InvalidInput("Choose a role: reader, writer or admin.")
    return {
        "role": Role(role),
        "description": fields.get("description", "").strip(),
        "envelope": "envelope" in fields,
    }


def _expires_us(fields: Mapping[str, str], now_us: int) -> int | None:
    days = fields.get("ends", "")
    if days not in ENDS:
        raise InvalidInput("Choose when the key ends.")
    return now_us + int(days) * DAY_US if days else None
