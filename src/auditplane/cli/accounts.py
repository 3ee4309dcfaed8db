"""`accounts`: whose trails a data folder holds."""

import json

import cyclopts

from auditplane.cli.folders import Data, opened
from auditplane.cli.output import Output, print_table

app = cyclopts.App(name="accounts", help="List accounts.", help_format="plaintext")


@app.command(name="list")
def list_accounts(*, data: Data = None, output: Output = "table") -> None:
    """List the accounts of a data folder: how many events each has, and the bytes they take.

    For example:

        auditplane accounts list --data ./data
        auditplane accounts list -o json
    """
    with opened(data) as (folder, access):
        found = []
        for name in sorted({*access.accounts(), *folder.accounts()}):
            events = 0
            if folder.has_log(name):
                with folder.account(name) as store:
                    events = store.size()
            found.append({"name": name, "events": events, "bytes": folder.log_bytes(name)})
    if output == "json":
        print(json.dumps(found, indent=2))
    else:
        rows = [(str(row["name"]), f"{row['events']:,}", f"{row['bytes']:,}") for row in found]
        print_table(("NAME", "EVENTS", "BYTES"), rows)
