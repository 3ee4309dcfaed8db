"""The command line: commands, and what they exit with.

0 is success, 1 a failure that one line on standard error explains, 2 a command that was not understood.
"""

import sys
from typing import Final

import cyclopts

from auditplane import __version__
from auditplane.cli import keys, server
from auditplane.errors import AuditplaneError, InvalidConfig

FAILED: Final = 1
MISUSED: Final = 2

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

    Example:
        auditplane version
    """
    print(f"auditplane {__version__}")


def main() -> None:
    """Runs the command of the process's arguments."""
    try:
        app(exit_on_error=False, print_error=False)
    except cyclopts.CycloptsError as error:
        _end(f"{error}".strip().splitlines()[0] + " Try --help.", MISUSED)
    except InvalidConfig as error:
        _end(str(error), MISUSED)
    except AuditplaneError as error:
        _end(str(error), FAILED)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(FAILED)


def _end(message: str, status: int) -> None:
    print(f"auditplane: {message}", file=sys.stderr)
    sys.exit(status)
