"""The page of what is kept: for how long, and what must not go."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from auditplane import keeping, limits
from auditplane.access.key import Session
from auditplane.errors import InvalidInput, NotFound
from auditplane.http.events import parameters
from auditplane.http.page.administration import admin, change, on_account
from auditplane.http.page.rendering import html, page_route, redirect
from auditplane.http.state import State
from auditplane.query import parse_date
from auditplane.store import Hold
from auditplane.store.sqlite import forgetting
from auditplane.times import DAY_US

PAGE: Final = "/keeping"
_NOTHING: Final[Mapping[str, str]] = {}


@dataclass(frozen=True, slots=True)
class Kept:
    """For how many days events are kept, 0 for ever: the account's own, if any, and what is in force."""

    own: int | None
    in_force: int
    holds: Sequence[Hold]


@page_route
async def show(request: Request) -> Response:
    """`GET /keeping`: the retention, and the holds in force."""
    state, session = admin(request)
    return await _page(request, state, session)


@page_route
async def set_retention(request: Request) -> Response:
    """`POST /keeping/retention`: sets the retention, after it was said what would expire at once."""
    state, session, fields = await change(request)
    try:
        days = _days(fields.get("days", ""))
    except InvalidInput as error:
        return await _page(request, state, session, 400, fields, retention_problems=error.messages)
    default = state.config.retention_days
    in_force = default if days is None else days
    before_us = state.clock() - in_force * DAY_US
    if "confirmed" not in fields:
        count = 0
        if in_force:
            count = await on_account(
                state, session, lambda account: forgetting.count_expiring(account.store, before_us)
            )
        return await html(
            request,
            "retention.html",
            session=session,
            given=fields.get("days", "").strip(),
            days=in_force,
            count=count,
            before_us=before_us,
        )

    def work(account: keeping.Account) -> None:
        keeping.set_retention(account, days)
        keeping.expire(account, default)

    await on_account(state, session, work)
    return redirect(f"{PAGE}?done=retention")


@page_route
async def place_hold(request: Request) -> Response:
    """`POST /keeping/holds`: places a hold."""
    state, session, fields = await change(request)
    try:
        min_us, max_us = (_date(fields, name, end) for name, end in (("from", 0), ("to", 1)))
        await on_account(
            state,
            session,
            lambda account: keeping.place_hold(
                account,
                reason=fields.get("reason", "").strip(),
                user=fields.get("user", "").strip() or None,
                min_us=min_us,
                max_us=max_us,
            ),
            at_once=True,
        )
    except InvalidInput as error:
        return await _page(request, state, session, 400, fields, hold_problems=error.messages)
    return redirect(f"{PAGE}?done=placed")


@page_route
async def ask_to_lift(request: Request) -> Response:
    """`GET /keeping/holds/{id}/lift`: asks whether a hold shall be lifted."""
    state, session = admin(request)
    kept = await _kept(state, session)
    hold = next((hold for hold in kept.holds if hold.id == request.path_params["id"]), None)
    if hold is None:
        raise NotFound("There is no hold of this id.")
    return await html(request, "lift.html", session=session, hold=hold, covered=keeping.covered(hold))


@page_route
async def lift_hold(request: Request) -> Response:
    """`POST /keeping/holds/{id}/lift`: lifts a hold."""
    state, session, _ = await change(request)
    hold_id: str = request.path_params["id"]
    await on_account(state, session, lambda account: keeping.lift_hold(account, hold_id))
    return redirect(f"{PAGE}?done=lifted")


async def _kept(state: State, session: Session) -> Kept:
    def read(account: keeping.Account) -> Kept:
        own = forgetting.retention_days(account.store)
        in_force = state.config.retention_days if own is None else own
        return Kept(own, in_force, forgetting.holds(account.store))

    return await on_account(state, session, read)


async def _page(
    request: Request,
    state: State,
    session: Session,
    status: int = 200,
    fields: Mapping[str, str] = _NOTHING,
    *,
    retention_problems: Sequence[str] = (),
    hold_problems: Sequence[str] = (),
) -> Response:
    kept = await _kept(state, session)
    return await html(
        request,
        "keeping.html",
        status,
        session=session,
        kept=kept,
        default=state.config.retention_days,
        covered={hold.id: keeping.covered(hold) for hold in kept.holds},
        done=dict(parameters(request)).get("done"),
        fields=fields,
        retention_problems=retention_problems,
        hold_problems=hold_problems,
    )


def _days(text: str) -> int | None:
    """A retention as it was typed, None for the server's; raises InvalidInput."""
    text = text.strip()
    if not text:
        return None
    if not text.isascii() or not text.isdigit() or len(text) > 9 or int(text) > limits.RETENTION_DAYS_MAX:
        raise InvalidInput(f"Days must be a whole number from 0 to {limits.RETENTION_DAYS_MAX:,}.")
    return int(text)


def _date(fields: Mapping[str, str], name: str, end: int) -> int | None:
    text = fields.get(name, "").strip()
    return parse_date(text, name.capitalize())[end] if text else None
