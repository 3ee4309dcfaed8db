"""The tree of commands."""

import cyclopts

from auditplane import __version__
from auditplane.cli import keys, server

app = cyclopts.App(
    name="auditplane",
    help="An audit-trail server: who changed what, and when.",
    version=f"auditplane {__version__}",
    help_format="plaintext",
)
app.command(server.serve)
app.command(server.demo)
app.command(keys.app)


@app.command
def version() -> None:
    """Print the version.

    For example:

        auditplane version
    """
    print(f"auditplane {__version__}")
