"""`log`: what an outsider needs to check the logs of a data folder, and what its operator does about them."""

import json
import os
from typing import TYPE_CHECKING, Annotated

import cyclopts
from cyclopts import Parameter

from auditplane import config
from auditplane.cli.folders import Data, opened, operator
from auditplane.cli.output import Output
from auditplane.errors import InvalidConfig, NotFound
from auditplane.event import DEFAULT_ACCOUNT

if TYPE_CHECKING:
    from auditplane.config import Config
    from auditplane.store.sqlite.folder import DataFolder

app = cyclopts.App(
    name="log", help="Show what proves that a log is whole; change the key.", help_format="plaintext"
)


@app.command
def key(
    *,
    data: Data = None,
    account: Annotated[str, Parameter(help="Whose log.")] = DEFAULT_ACCOUNT,
    every: Annotated[
        bool, Parameter(name="--all", negative="", help="The keys that signed before it, too.")
    ] = False,
    output: Output = "table",
) -> None:
    """Print the verifier key of a log. Keep it elsewhere: it tells its checkpoints from forged ones.

    For example:

        auditplane log key --data ./data
        auditplane log key --data ./data --account acme
        auditplane log key --data ./data --all
    """
    from auditplane.signing import log_key

    settings = config.load({"data": data}, os.environ)
    with opened(data) as (folder, _):
        _check_has_log(folder, account)
        current = log_key(settings.data, settings.log_name, settings.log_key).for_account(account).verifier
        if every:
            _print_keys(folder, account, str(current), output)
        elif output == "json":
            print(json.dumps({"key": str(current)}, indent=2))
        else:
            print(current)


def _print_keys(folder: "DataFolder", account: str, current: str, output: str) -> None:
    from auditplane.signing import retired_keys, verifier_for

    retired = retired_keys(folder.path)
    rows = [(str(verifier_for(each.key, account)), each.since, each.until, each.why) for each in retired]
    rows.append((current, retired[-1].until if retired else "-", "-", "signs"))
    if output == "json":
        print(
            json.dumps(
                [dict(zip(("key", "since", "until", "state"), row, strict=True)) for row in rows], indent=2
            )
        )
    else:
        # No table: it would cut the keys, which are there to be copied.
        for row in rows:
            print(*row)


@app.command
def rotate(
    *,
    data: Data = None,
    leaked: Annotated[
        bool,
        Parameter(negative="", help="Somebody else may have the old key: it does not vouch for the new one."),
    ] = False,
    lost: Annotated[
        bool, Parameter(negative="", help="There is no old key any more: make one for the same logs.")
    ] = False,
    reason: Annotated[str, Parameter(help="Why, for the event that every log gets.")] = "",
    name: Annotated[
        str | None,
        Parameter(help="With --lost: NAME in auditplane/NAME/ACCOUNT, if nothing in the folder tells."),
    ] = None,
) -> None:
    """Change the key that signs checkpoints, with the server running or not.

    The logs keep their names and everything in them. Each gets an event that tells the old key and the new
    one; unless the old key leaked or was lost, it vouches for the new one there.

    For example:

        auditplane log rotate --data ./data --reason "once a year"
        auditplane log rotate --data ./data --leaked
    """
    from auditplane.log import clock
    from auditplane.rotation import Why
    from auditplane.rotation import rotate as change_key
    from auditplane.signing import verifier_for

    if leaked and lost:
        raise InvalidConfig(
            "--leaked and --lost don't go together; where both happened it is --lost: nothing vouches then."
        )
    if name is not None and not lost:
        raise InvalidConfig("--name goes with --lost: the name of a log does not change.")
    settings = config.load({"data": data, "log.name": name}, os.environ)
    _check_own_key(settings)
    why = Why.LEAKED if leaked else Why.LOST if lost else Why.REPLACED
    with opened(data) as (folder, _):
        change = change_key(folder, operator(), clock, why=why, reason=reason, name=settings.log_name)
        accounts = folder.accounts()
    for account in accounts:
        print(verifier_for(change.new.verifier, account))
    if change.why is not Why.REPLACED:
        print("Nothing vouches for this key: give it to those who verify by a way that they trust.")


def _check_own_key(settings: "Config") -> None:
    """Raises InvalidConfig when the key is kept elsewhere: that place is not ours to write to."""
    if settings.log_key is not None:
        raise InvalidConfig(
            f"The setting log.key names {settings.log_key}, which is not in the data folder. Copy it to "
            f"{settings.data / 'log.key'}, run this without that setting, and then move the new "
            f"{settings.data / 'log.key'} to where the old key was: the server signs with it from then on."
        )


@app.command
def confirm(
    *,
    data: Data = None,
    account: Annotated[str | None, Parameter(help="Only the log of this account.")] = None,
) -> None:
    """Have restored logs go on from where their backup ended. Nothing is signed before that.

    Each log gets an event that tells it. Whoever keeps a checkpoint of what came after the backup will see
    that the log is not the continuation of it: tell them first.

    For example:

        auditplane log confirm --data ./data
    """
    from auditplane import log

    with opened(data) as (folder, _):
        if account is not None:
            _check_has_log(folder, account)
        for name in folder.accounts() if account is None else [account]:
            with folder.account(name) as store:
                restored = log.confirm(store, name, operator(), log.clock)
            if restored is not None:
                print(f"{name}: goes on after {restored.size:,} events.")
            elif account is not None:
                print(f"{name}: there was nothing to confirm.")


def _check_has_log(folder: "DataFolder", account: str) -> None:
    if not folder.has_log(account):
        raise NotFound(f"There is no account {account} in {folder.path}.")
