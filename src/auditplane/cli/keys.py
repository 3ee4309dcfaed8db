"""`keys`: API keys, made and revoked in the data folder, with the server running or not."""

import getpass
import json
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

import cyclopts
from cyclopts import Parameter
from rich import box
from rich.console import Console
from rich.table import Table

from auditplane.access import Access, Role
from auditplane.errors import InvalidInput, NotFound
from auditplane.event import DEFAULT_ACCOUNT
from auditplane.store.sqlite.folder import DataFolder
from auditplane.times import DAY_US, SECOND_US, format_us, parse_rfc3339

app = cyclopts.App(name="keys", help="Make, list and revoke API keys.", help_format="plaintext")

Data = Annotated[Path, Parameter(help="The data folder.", env_var="AUDITPLANE_DATA")]
Output = Annotated[Literal["table", "json"], Parameter(name=["--output", "-o"], help="How to print it.")]

_UNITS = {"m": 60 * SECOND_US, "h": 3600 * SECOND_US, "d": DAY_US}


@app.command
def create(
    *,
    data: Data,
    role: Annotated[Literal["reader", "writer", "admin"], Parameter(help="What the key may do.")],
    account: Annotated[
        str, Parameter(help="Whose trail; it comes to be with its first key.")
    ] = DEFAULT_ACCOUNT,
    description: Annotated[str, Parameter(help="What the key is for.")] = "",
    expires: Annotated[
        str | None, Parameter(help="When it ends: RFC 3339, or from now on such as 90d, 12h, 30m.")
    ] = None,
    envelope: Annotated[
        bool,
        Parameter(
            negative="", help='Lists come as {"auditEvents": […]}, as the Bindplane receiver wants them.'
        ),
    ] = False,
    output: Output = "table",
) -> None:
    """Make an API key. It is shown once: only a hash of it is kept.

    Examples:
        auditplane keys create --data ./data --role writer --description "billing service"
        auditplane keys create --data ./data --role reader --envelope --expires 365d -o json
    """
    with _access(data) as access:
        key, secret = access.create(
            account=account,
            role=Role(role),
            by=_me(),
            description=description,
            expires_us=_moment(expires) if expires else None,
            envelope=envelope,
        )
    if output == "json":
        print(json.dumps({**key.shown(), "key": secret}, indent=2))
    else:
        print(f"id   {key.id}\nkey  {secret}\nKeep the key now: it is not shown again.")


@app.command(name="list")
def list_keys(
    *,
    data: Data,
    account: Annotated[str | None, Parameter(help="Only the keys of this account.")] = None,
    output: Output = "table",
) -> None:
    """List API keys, without their secrets.

    Example:
        auditplane keys list --data ./data
    """
    with _access(data) as access:
        keys = access.keys(account)
    if output == "json":
        print(json.dumps([key.shown() for key in keys], indent=2))
        return
    table = Table(
        "ID", "ACCOUNT", "ROLE", "DESCRIPTION", "CREATED", "EXPIRES", "LAST USED", "STATE", box=box.SIMPLE
    )
    now = _now()
    for key in keys:
        state = "revoked" if key.revoked_us else "works" if key.works_at(now) else "expired"
        role = f"{key.role.value}, envelope" if key.envelope else key.role.value
        times = (_day(key.created_us), _day(key.expires_us), _day(key.last_used_us))
        table.add_row(key.id, key.account, role, key.description, *times, state)
    Console(soft_wrap=True).print(table)


@app.command
def revoke(key_id: Annotated[str, Parameter(name="ID", help="The id of the key.")], *, data: Data) -> None:
    """Revoke an API key: it is refused from the next request on.

    Example:
        auditplane keys revoke 01JQ0000000000000000000000 --data ./data
    """
    with _access(data) as access:
        key = access.revoke(key_id, account=access.account_of(key_id), by=_me())
    print(f"Revoked {key.id}{f' ({key.description})' if key.description else ''}.")


@contextmanager
def _access(data: Path) -> Iterator[Access]:
    if not (data / "control.db").exists():
        raise NotFound(f"There is no data folder at {data}; `auditplane serve --data {data}` makes one.")
    folder = DataFolder(data)
    access = Access(folder, _now)
    try:
        yield access
    finally:
        access.close()
        folder.close()


def _now() -> int:
    return time.time_ns() // 1000


def _me() -> str:
    return f"{getpass.getuser()} (command line)"


def _moment(text: str) -> int:
    if match := re.fullmatch(r"([0-9]{1,6})([mhd])", text):
        return _now() + int(match[1]) * _UNITS[match[2]]
    try:
        return parse_rfc3339(text)
    except ValueError:
        raise InvalidInput(
            f"--expires: write 2027-01-01T00:00:00Z, or 90d, 12h or 30m, not {text!r}."
        ) from None


def _day(us: int | None) -> str:
    return "-" if us is None else format_us(us)[:16].replace("T", " ")
