"""`retention`: for how long events are kept, in the data folder, with the server running or not."""

import json
import os
from typing import Annotated

import cyclopts
from cyclopts import Parameter

from auditplane import config
from auditplane.cli.folders import Data, Whose, opened_account
from auditplane.cli.output import Output
from auditplane.errors import InvalidConfig
from auditplane.event import DEFAULT_ACCOUNT

app = cyclopts.App(
    name="retention", help="Show and set for how long events are kept.", help_format="plaintext"
)


@app.command
def show(*, data: Data = None, account: Whose = DEFAULT_ACCOUNT, output: Output = "table") -> None:
    """Show for how long the events of an account are kept.

    For example:

        auditplane retention show --data ./data
        auditplane retention show --data ./data --account acme -o json
    """
    from auditplane.store.sqlite import forgetting

    with opened_account(data, account) as opened:
        days = forgetting.retention_days(opened.store)
    _print(account, days, _of_the_server(data), output)


@app.command(name="set")
def set_retention(
    *,
    days: Annotated[
        int | None, Parameter(help="For how many days; 0 is for ever.", show_default=False)
    ] = None,
    default: Annotated[bool, Parameter(negative="", help="As the server is set.")] = False,
    data: Data = None,
    account: Whose = DEFAULT_ACCOUNT,
    output: Output = "table",
) -> None:
    """Set for how long the events of an account are kept. Older ones are hidden when this returns.

    They are destroyed soon, for good. The age of an event counts from when it was recorded.

    For example:

        auditplane retention set --days 365 --data ./data
        auditplane retention set --default --data ./data --account acme
    """
    from auditplane import keeping

    if (days is None) != default:
        raise InvalidConfig("Give either --days or --default.")
    with opened_account(data, account) as opened:
        keeping.set_retention(opened, days)
        if days is None:
            keeping.expire(opened, _of_the_server(data))
    _print(account, days, _of_the_server(data), output)


def _of_the_server(data: str | None) -> int:
    """The setting of the server, as far as this command sees it."""
    return config.load({"data": data}, os.environ).retention_days


def _print(account: str, own: int | None, default: int, output: Output) -> None:
    days = default if own is None else own
    if output == "json":
        print(json.dumps({"account": account, "days": own, "inForce": days}, indent=2))
        return
    kept = f"for {days:,} day{'s' * (days != 1)}" if days else "for ever"
    why = "as the server is set" if own is None else "set for this account"
    print(f"The events of {account} are kept {kept} ({why}).")
