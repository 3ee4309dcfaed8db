"""`hold`: what neither expires nor can be erased, in the data folder, with the server running or not."""

import json
from typing import Annotated

import cyclopts
from cyclopts import Parameter

from auditplane.cli.filters import DATE_HELP, Date
from auditplane.cli.folders import Data, Whose, opened_account
from auditplane.cli.output import Output, print_table
from auditplane.event import DEFAULT_ACCOUNT

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
        print(f"Placed the hold {hold.id} on {keeping.covered(hold)}.")


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
        print(f"Lifted the hold {hold.id} on {keeping.covered(hold)}.")


@app.command(name="list")
def list_holds(*, data: Data = None, account: Whose = DEFAULT_ACCOUNT, output: Output = "table") -> None:
    """List the holds of an account.

    For example:

        auditplane hold list --data ./data
        auditplane hold list --data ./data --account acme -o json
    """
    from auditplane import keeping
    from auditplane.store.sqlite import forgetting
    from auditplane.times import format_us

    with opened_account(data, account) as opened:
        held = forgetting.holds(opened.store)
    if output == "json":
        print(json.dumps([keeping.shown_hold(hold) for hold in held], indent=2))
        return
    rows = [
        (
            hold.id,
            keeping.covered(hold),
            hold.reason,
            format_us(hold.placed_us)[:16].replace("T", " "),
            hold.placed_by,
        )
        for hold in held
    ]
    print_table(("ID", "COVERS", "REASON", "PLACED", "BY"), rows)
