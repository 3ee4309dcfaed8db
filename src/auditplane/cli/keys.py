"""`keys`: API keys, made and revoked in the data folder, with the server running or not."""

import json
import os
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal

import cyclopts
from cyclopts import Parameter

from auditplane import config, ulid
from auditplane.cli.folders import Data, opened, operator
from auditplane.cli.output import Layout, Output, print_fitting
from auditplane.cli.spans import span_us
from auditplane.errors import InvalidConfig, InvalidInput
from auditplane.event import DEFAULT_ACCOUNT
from auditplane.times import format_us, parse_rfc3339

if TYPE_CHECKING:
    from auditplane.access.key import Key

app = cyclopts.App(name="keys", help="Make, list and revoke API keys.", help_format="plaintext")


@app.command
def create(
    *,
    data: Data = None,
    role: Annotated[Literal["reader", "writer", "admin"], Parameter(help="What the key may do.")],
    account: Annotated[
        str, Parameter(help="Whose trail; it comes to be with its first key.")
    ] = DEFAULT_ACCOUNT,
    description: Annotated[str, Parameter(help="What the key is for.")] = "",
    expires: Annotated[
        str | None, Parameter(help="When it ends: RFC 3339, or from now on such as 90d, 12h, 30m, 2w.")
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

    For example:

        auditplane keys create --data ./data --role writer --description billing
        auditplane keys create --role reader --envelope --expires 365d -o json
    """
    from auditplane.access.key import Role

    with opened(data) as (_, access):
        key, secret = access.create(
            account=account,
            role=Role(role),
            by=operator(),
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
    data: Data = None,
    account: Annotated[str | None, Parameter(help="Only the keys of this account.")] = None,
    output: Output = "table",
) -> None:
    """List API keys, without their secrets.

    On a narrow terminal the table leaves out when keys were made and used.

    For example:

        auditplane keys list --data ./data
        auditplane keys list --data ./data --account default -o json
    """
    with opened(data) as (_, access):
        keys = access.keys(account)
    if output == "json":
        print(json.dumps([key.shown() for key in keys], indent=2))
    else:
        _print_table(keys)


@app.command
def link(
    key_id: Annotated[str, Parameter(name="ID", help="The id of a reader's or an admin's key.")],
    /,
    *,
    data: Data = None,
    url: Annotated[
        str | None,
        Parameter(
            help="Where people reach the server. Default: as the settings of this machine have it.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Print a link that signs in to the page with a key: once, within 15 minutes.

    Whoever opens it acts with that key until the session ends, so give it to nobody else.

    For example:

        auditplane keys link 01JQ0000000000000000000000 --data ./data
        auditplane keys link 01JQ0000000000000000000000 --url https://audit.local
    """
    at = config.load({"data": data}, os.environ).own_url if url is None else _page_url(url)
    with opened(data) as (_, access):
        print(f"{at}/sign-in/{access.make_link(key_id)}")


@app.command
def revoke(
    key_id: Annotated[str, Parameter(name="ID", help="The id of the key.")],
    /,
    *,
    data: Data = None,
    output: Output = "table",
) -> None:
    """Revoke an API key: it is refused from the next request on.

    For example:

        auditplane keys revoke 01JQ0000000000000000000000 --data ./data
    """
    with opened(data) as (_, access):
        account = access.account_of(key_id)
        access.revoke(key_id, account=account, by=operator())
        key = access.key(key_id, account)
    if output == "json":
        print(json.dumps(key.shown(), indent=2))
    else:
        print(f"Revoked {key.id}{f' ({key.description})' if key.description else ''}.")


def _page_url(text: str) -> str:
    """The address of a server without a slash at its end; raises InvalidConfig."""
    if not re.fullmatch(r"https?://[^\s/?#@\\]+/?", text):
        raise InvalidConfig(f"--url: must be an address such as https://audit.example.com, is {text!r}.")
    return text.rstrip("/")


def _print_table(keys: "Sequence[Key]") -> None:
    """All in one line; where that is too wide the description below the id and no times of day; else less."""
    from auditplane.log import clock

    now = clock()
    wide, lower, narrow = [], [], []
    for key in keys:
        role, state = _role(key), _state(key, now)
        moments = (key.created_us, key.expires_us, key.last_used_us)
        wide.append((key.id, key.account, role, key.description, *map(_minute, moments), state))
        head = (f"{key.id}\n{key.description}".rstrip(), key.account, role.replace(" ", "\n"))
        lower.append((*head, *map(_day, moments), state))
        narrow.append((*head, _day(key.expires_us), state))
    both, times = "ID, DESCRIPTION", ("CREATED", "EXPIRES", "LAST USED")
    least = {both: ulid.CHARS, "ACCOUNT": 8}
    print_fitting(
        (
            Layout(("ID", "ACCOUNT", "ROLE", "DESCRIPTION", *times, "STATE"), wide, {"DESCRIPTION": 16}),
            Layout((both, "ACCOUNT", "ROLE", *times, "STATE"), lower, {both: ulid.CHARS}),
            Layout((both, "ACCOUNT", "ROLE", "EXPIRES", "STATE"), narrow, least, dense=True),
        )
    )


def _role(key: "Key") -> str:
    return f"{key.role.value}, envelope" if key.envelope else key.role.value


def _state(key: "Key", now: int) -> str:
    return "revoked" if key.revoked_us else "works" if key.works_at(now) else "expired"


def _moment(text: str) -> int:
    from auditplane.log import clock

    span = span_us(text)
    if span is not None:
        return clock() + span
    try:
        return parse_rfc3339(text)
    except ValueError:
        raise InvalidInput(
            f"--expires: write 2027-01-01T00:00:00Z, or 90d, 12h, 30m or 2w, not {text!r}."
        ) from None


def _minute(us: int | None) -> str:
    return "-" if us is None else format_us(us)[:16].replace("T", " ")


def _day(us: int | None) -> str:
    return "-" if us is None else format_us(us)[:10]
