"""`erase`: destroys events for good, in the data folder, with the server running or not."""

import json
import sys
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from auditplane.cli.filters import Texts
from auditplane.cli.folders import Data, Whose, opened_account
from auditplane.cli.output import Output
from auditplane.errors import AuditplaneError, InvalidConfig, NotFound
from auditplane.event import DEFAULT_ACCOUNT

if TYPE_CHECKING:
    from auditplane.keeping import Account


def erase(
    *,
    ids: Annotated[Texts, Parameter(name="--id", help="The id of an event; may be repeated.")] = (),
    user: Annotated[
        str | None, Parameter(help="All events of this user, in any case.", show_default=False)
    ] = None,
    reason: Annotated[str, Parameter(help="Why: one line, kept in the log. It must not repeat what goes.")],
    yes: Annotated[bool, Parameter(negative="", help="Don't ask.")] = False,
    data: Data = None,
    account: Whose = DEFAULT_ACCOUNT,
    output: Output = "table",
) -> None:
    """Erase events for good: their texts are destroyed, their hashes and all proofs stay.

    For example:

        auditplane erase --id 01JQ0000000000000000000000 --reason "request 4711"
        auditplane erase --user ann@example.com --reason "request 4711" --yes
    """
    from auditplane import keeping

    if bool(ids) == bool(user):
        raise InvalidConfig("Give either --id or --user.")
    if not yes and not sys.stdin.isatty():
        raise InvalidConfig("Erasing can't be undone, and there is no terminal to ask; give --yes.")
    with opened_account(data, account) as opened:
        if not yes and not _agreed(_count(opened, ids, user or "")):
            raise AuditplaneError("Nothing was erased.")
        erased = (
            keeping.erase(opened, ids, reason=reason)
            if ids
            else keeping.erase_user(opened, user or "", reason=reason)
        )
    if not erased:
        raise _none_of(user or "")
    if output == "json":
        print(json.dumps({"erased": erased}, indent=2))
    else:
        print(f"Erased {_events(erased)}.")


def _count(account: "Account", ids: tuple[str, ...], user: str) -> int:
    """How many events would go; raises NotFound and Gone when there is none."""
    from auditplane import log
    from auditplane.query import Query, fold

    if ids:
        return len({log.stored(account.store, each).index for each in ids})
    count = log.count(account.store, Query(users=(fold(user),)))
    if not count:
        raise _none_of(user)
    return count


def _agreed(count: int) -> bool:
    print(f"Erase {_events(count)} for good? [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _events(count: int) -> str:
    return f"{count:,} event{'s' * (count != 1)}"


def _none_of(user: str) -> NotFound:
    return NotFound(f"There is no event of {user}.")
