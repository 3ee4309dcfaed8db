"""`log`: what an outsider needs to check the log of a data folder."""

import os
from typing import Annotated

import cyclopts
from cyclopts import Parameter

from auditplane import config
from auditplane.cli.folders import Data, opened
from auditplane.errors import NotFound
from auditplane.event import DEFAULT_ACCOUNT

app = cyclopts.App(name="log", help="Show what proves that a log is whole.", help_format="plaintext")


@app.command
def key(
    *,
    data: Data = None,
    account: Annotated[str, Parameter(help="Whose log.")] = DEFAULT_ACCOUNT,
) -> None:
    """Print the verifier key of a log. Keep it elsewhere: it tells its checkpoints from forged ones.

    For example:

        auditplane log key --data ./data
        auditplane log key --data ./data --account acme
    """
    from auditplane.signing import log_key

    settings = config.load({"data": data}, os.environ)
    with opened(data) as (folder, _):
        if not folder.has_log(account):
            raise NotFound(f"There is no account {account} in {settings.data}.")
        print(log_key(settings.data, settings.log_name, settings.log_key).for_account(account).verifier)
