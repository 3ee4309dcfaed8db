"""The routes of `/v1/api-keys`, for admins of an account."""

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from auditplane import limits
from auditplane.access.key import Key, Right, Role
from auditplane.errors import InvalidInput
from auditplane.http import bodies
from auditplane.http.events import json_answer, no_parameters
from auditplane.http.problems import JSON
from auditplane.http.state import State
from auditplane.times import parse_rfc3339


class NewKey(msgspec.Struct, forbid_unknown_fields=True):
    """The body of a request for a key."""

    role: Role
    description: str = ""
    expires: str | None = None
    envelope: bool = False


async def list_keys(request: Request) -> Response:
    """`GET /v1/api-keys`: the keys of the account."""
    state: State = request.state.server
    key = state.key(request, Right.MANAGE)
    no_parameters(request)

    def listed() -> Response:
        return json_answer({"apiKeys": [each.shown() for each in state.access.keys(key.account)]})

    return state.whole(key, await state.streams.run(key.account, listed))


async def create(request: Request) -> Response:
    """`POST /v1/api-keys`: a new key of the account; its secret is in this answer only."""
    state: State = request.state.server
    key = state.key(request, Right.MANAGE)
    no_parameters(request)
    wanted = _new_key(await bodies.read(request, limits.CHANGE_BYTES_MAX))
    expires_us = None if wanted.expires is None else _moment(wanted.expires)

    def made() -> tuple[Key, str]:
        return state.access.create(
            account=key.account,
            role=wanted.role,
            by=key.name,
            by_key=key.id,
            description=wanted.description,
            expires_us=expires_us,
            envelope=wanted.envelope,
        )

    new, secret = await state.change(key, made)
    return json_answer({**new.shown(), "key": secret}, 201)


async def revoke(request: Request) -> Response:
    """`DELETE /v1/api-keys/{id}`: ends a key of the account; no rate that a thief used up is in the way."""
    state: State = request.state.server
    key = state.key(request, Right.MANAGE, is_counted=False)
    no_parameters(request)
    key_id: str = request.path_params["id"]
    await state.change_at_once(
        key, lambda: state.access.revoke(key_id, account=key.account, by=key.name, by_key=key.id)
    )
    return Response(None, 204)


def _new_key(body: bytes) -> NewKey:
    try:
        return msgspec.json.decode(body, type=NewKey)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidInput(
            f'The body must be such as {{"role": "reader", "description": "grafana"}} ({JSON}): {error}.'
        ) from None


def _moment(text: str) -> int:
    try:
        return parse_rfc3339(text)
    except ValueError:
        raise InvalidInput(
            f"expires: must be an RFC 3339 date and time such as 2027-01-01T00:00:00Z, is {text[:64]!r}."
        ) from None
