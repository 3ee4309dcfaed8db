"""The routes of `/v1/retention`, `/v1/holds` and `/v1/erasures`, for admins of an account."""

from collections.abc import Callable
from functools import partial
from typing import TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from auditplane import keeping, limits
from auditplane.access.key import Key, Right
from auditplane.errors import InvalidInput, NotFound, TooLarge
from auditplane.http import bodies
from auditplane.http.events import json_answer, no_parameters
from auditplane.http.problems import JSON
from auditplane.http.state import State
from auditplane.query import parse_date
from auditplane.store import Hold
from auditplane.store.sqlite import forgetting

T = TypeVar("T")


class Retention(msgspec.Struct, forbid_unknown_fields=True):
    """The body that sets a retention."""

    days: int | None


class NewHold(msgspec.Struct, forbid_unknown_fields=True):
    """The body of a request for a hold."""

    reason: str
    user: str | None = None
    minDate: str | None = None  # noqa: N815 - as members are written
    maxDate: str | None = None  # noqa: N815


class Erasure(msgspec.Struct, forbid_unknown_fields=True):
    """The body of a request to erase events."""

    reason: str
    ids: list[str] | None = None
    user: str | None = None


async def show_retention(request: Request) -> Response:
    """`GET /v1/retention`: for how many days events are kept."""
    key = _admin(request)
    return await _retention(request, key, lambda _account: None)


async def set_retention(request: Request) -> Response:
    """`PUT /v1/retention`: sets for how many days they are; what has expired then is hidden at once."""
    state: State = request.state.server
    key = _admin(request)
    wanted = _decoded(await bodies.read(request, limits.CHANGE_BYTES_MAX), Retention, '{"days": 365}')

    def change(account: keeping.Account) -> None:
        keeping.set_retention(account, wanted.days)
        keeping.expire(account, state.config.retention_days)

    return await _retention(request, key, change)


async def _retention(request: Request, key: Key, change: Callable[[keeping.Account], None]) -> Response:
    state: State = request.state.server

    def work(account: keeping.Account) -> int | None:
        change(account)
        return forgetting.retention_days(account.store)

    days = await _run(state, key, work)
    return json_answer({"days": days, "inForce": state.config.retention_days if days is None else days})


async def list_holds(request: Request) -> Response:
    """`GET /v1/holds`: the holds that are in force."""
    state: State = request.state.server
    key = _admin(request)

    def listed(account: keeping.Account) -> Response:
        return json_answer({"holds": [keeping.shown_hold(hold) for hold in forgetting.holds(account.store)]})

    return state.whole(key, await _run(state, key, listed))


async def place_hold(request: Request) -> Response:
    """`POST /v1/holds`: keeps events from expiring and from erasure."""
    state: State = request.state.server
    key = _admin(request)
    wanted = _decoded(await bodies.read(request, limits.CHANGE_BYTES_MAX), NewHold, '{"reason": "case 4711"}')
    min_us = parse_date(wanted.minDate, "minDate")[0] if wanted.minDate is not None else None
    max_us = parse_date(wanted.maxDate, "maxDate")[1] if wanted.maxDate is not None else None

    def place(account: keeping.Account) -> Hold:
        return keeping.place_hold(
            account, reason=wanted.reason, user=wanted.user, min_us=min_us, max_us=max_us
        )

    return json_answer(keeping.shown_hold(await _run(state, key, place, at_once=True)), 201)


async def lift_hold(request: Request) -> Response:
    """`DELETE /v1/holds/{id}`: lifts a hold."""
    state: State = request.state.server
    key = _admin(request)
    hold_id: str = request.path_params["id"]
    await _run(state, key, lambda account: keeping.lift_hold(account, hold_id))
    return Response(None, 204)


async def erase(request: Request) -> Response:
    """`POST /v1/erasures`: erases events, by their ids or all of a user."""
    state: State = request.state.server
    key = _admin(request)
    body = await bodies.read(request, limits.ERASURE_BYTES_MAX)
    wanted = _decoded(body, Erasure, '{"ids": ["…"], "reason": "request 4711"}')
    if bool(wanted.ids) == bool(wanted.user):
        raise InvalidInput("Give the `ids` of events or a `user`, one of them.")
    if wanted.ids and len(wanted.ids) > limits.BATCH_EVENTS_MAX:
        raise TooLarge(f"At most {limits.BATCH_EVENTS_MAX:,} ids can be given at a time.")
    erased = await _run(state, key, lambda account: _erased(account, wanted))
    return json_answer({"erased": erased})


def _erased(account: keeping.Account, wanted: Erasure) -> int:
    if wanted.ids:
        return keeping.erase(account, wanted.ids, reason=wanted.reason)
    erased = keeping.erase_user(account, wanted.user or "", reason=wanted.reason)
    if not erased:
        raise NotFound("There is no event of this user.")
    return erased


def _admin(request: Request) -> Key:
    state: State = request.state.server
    key = state.key(request, Right.MANAGE)
    no_parameters(request)
    return key


async def _run(state: State, key: Key, work: Callable[[keeping.Account], T], *, at_once: bool = False) -> T:
    """Works on the account of a key, on a thread."""
    change = state.change_at_once if at_once else state.change
    return await change(key, partial(state.on_account, key, work))


def _decoded(body: bytes, kind: type[T], example: str) -> T:
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidInput(f"The body must be such as {example} ({JSON}): {error}.") from None
