"""`hold`: what neither expires nor can be erased, in the data folder, with the server running or not."""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import cyclopts
from cyclopts import Parameter

from auditplane import ulid
from auditplane.cli.filters import DATE_HELP, Date
from auditplane.cli.folders import Data, Whose, opened_account
from auditplane.cli.output import Layout, Output, on_one_line, print_fitting
from auditplane.event import DEFAULT_ACCOUNT

if TYPE_CHECKING:
    from auditplane.store import Hold

app = cyclopts.App(name="hold", help="Keep events from expiring and from erasure.", help_format="plaintext")


@app.command
def place(
    *,
    reason: Annotated[str, Parameter(help="Why: one line. It is kept in the log.")],
    user: Annotated[str | None, Parameter(help="Only the events of this user.", show_default=False)] = None,
    min_date: Annotated[Date, Parameter(help=f"Only events not earlier: {DATE_HELP}")] = None,
    max_date: Annotated[Date, Parameter(help="Only events not later; in the same forms.")] = None,
    data: Data = None,
    account: Whose = DEFAULT_ACCOUNT,
    output: Output = "table",
) -> None:
    """Place a hold: what it covers is kept until the hold is lifted, and can't be erased.

    For example:

        auditplane hold place --reason "case 4711" --user ann@example.com
        auditplane hold place --reason audit --min-date 20260101 --max-date 20261231
    """
    from auditplane import keeping
    from auditplane.cli.filters import date
    from auditplane.query import parse_date

    first, last = date(min_date), date(max_date)
    min_us = parse_date(first, "--min-date")[0] if first is not None else None
    max_us = parse_date(last, "--max-date")[1] if last is not None else None
    with opened_account(data, account) as opened:
        hold = keeping.place_hold(opened, reason=reason, user=user, min_us=min_us, max_us=max_us)
    if output == "json":
        print(json.dumps(keeping.shown_hold(hold), indent=2))
    else:
        print(f"Placed the hold {hold.id} on {on_one_line(keeping.covered(hold))}.")


@app.command
def lift(
    hold_id: Annotated[str, Parameter(name="ID", help="The id of the hold.")],
    /,
    *,
    data: Data = None,
    account: Whose = DEFAULT_ACCOUNT,
    output: Output = "table",
) -> None:
    """Lift a hold. What it alone kept, though it has expired, is hidden when this returns.

    For example:

        auditplane hold lift 01JQ0000000000000000000000 --data ./data
    """
    from auditplane import keeping

    with opened_account(data, account) as opened:
        hold = keeping.lift_hold(opened, hold_id)
    if output == "json":
        print(json.dumps(keeping.shown_hold(hold), indent=2))
    else:
        print(f"Lifted the hold {hold.id} on {on_one_line(keeping.covered(hold))}.")


@app.command(name="list")
def list_holds(*, data: Data = None, account: Whose = DEFAULT_ACCOUNT, output: Output = "table") -> None:
    """List the holds of an account.

    For example:

        auditplane hold list --data ./data
        auditplane hold list --data ./data --account acme -o json
    """
    from auditplane import keeping
    from auditplane.store.sqlite import forgetting

    with opened_account(data, account) as opened:
        held = forgetting.holds(opened.store)
    if output == "json":
        print(json.dumps([keeping.shown_hold(hold) for hold in held], indent=2))
        return
    _print_table(held)


def _print_table(holds: "Sequence[Hold]") -> None:
    """All in one line; where that is too wide the reason below the id, and no times of day."""
    from auditplane.keeping import covered
    from auditplane.times import format_us

    wide, lower = [], []
    for hold in holds:
        placed = format_us(hold.placed_us)[:16].replace("T", " ")
        covers, reason, by = map(on_one_line, (covered(hold), hold.reason, hold.placed_by))
        wide.append((hold.id, covers, reason, placed, by))
        lower.append((f"{hold.id}\n{reason}", covers, placed[:10], by))
    both = "ID, REASON"
    print_fitting(
        (
            Layout(("ID", "COVERS", "REASON", "PLACED", "BY"), wide, {"REASON": 24}),
            Layout(
                (both, "COVERS", "PLACED", "BY"), lower, {"COVERS": 27, both: ulid.CHARS, "BY": 8}, dense=True
            ),
        )
    )
