"""The tree of commands."""

import cyclopts

from auditplane import __version__
from auditplane.cli import accounts, holds, keys, logs, profiles, read, retention, server
from auditplane.cli.backups import backup, restore
from auditplane.cli.completion import completion
from auditplane.cli.download import download
from auditplane.cli.erase import erase
from auditplane.cli.evidence import evidence
from auditplane.cli.health import health
from auditplane.cli.importing import import_events
from auditplane.cli.record import record
from auditplane.cli.tail import tail
from auditplane.cli.verify import verify

app = cyclopts.App(
    name="auditplane",
    help="An audit-trail server: who changed what, and when.",
    version=f"auditplane {__version__}",
    help_format="plaintext",
)
app.command(server.serve)
app.command(server.demo)
app.command(health)
app.command(read.app)
app.command(read.count)
app.command(tail)
app.command(download)
app.command(evidence)
app.command(record)
app.command(import_events, name="import")
app.command(keys.app)
app.command(accounts.app)
app.command(logs.app)
app.command(retention.app)
app.command(holds.app)
app.command(erase)
app.command(backup)
app.command(restore)
app.command(verify)
app.command(profiles.app)
app.command(completion)


@app.command
def version() -> None:
    """Print the version.

    For example:

        auditplane version
    """
    print(f"auditplane {__version__}")
