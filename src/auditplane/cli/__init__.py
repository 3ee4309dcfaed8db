"""The command line: commands, and what they exit with.

0 is success, 1 a failure that one line on standard error explains, 2 a command that was not understood,
130 one that was interrupted.
"""

import os
import sys
from typing import Final

from auditplane.errors import AuditplaneError, InvalidConfig, without_keys

FAILED: Final = 1
MISUSED: Final = 2
INTERRUPTED: Final = 130


def main() -> None:
    """Runs the command of the process's arguments."""
    try:
        _run()
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


def _run() -> None:
    # Here, as each worker of a server imports this module again, and needs nothing of it.
    import cyclopts

    from auditplane.cli.commands import app

    try:
        app(exit_on_error=False, print_error=False, result_action="return_value")
        sys.stdout.flush()
    except cyclopts.CycloptsError as error:
        _end(f"{error}".strip().splitlines()[0] + " Try --help.", MISUSED)
    except InvalidConfig as error:
        _end(" ".join(error.messages), MISUSED)
    except AuditplaneError as error:
        _end(str(error), FAILED)
    except UnicodeEncodeError:
        _end("What was given is not UTF-8.", MISUSED)
    except BrokenPipeError:
        # Nobody reads on: what Python would still write at its end goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(FAILED)
    except OSError as error:
        _end(f"{error.filename}: {error.strerror}" if error.filename else str(error), FAILED)


def _end(message: str, status: int) -> None:
    # Texts of others may stand in it, and a terminal obeys some characters.
    line = "".join(each if each.isprintable() or each.isspace() else "\ufffd" for each in message)
    print(f"auditplane: {without_keys(' '.join(line.split()))}", file=sys.stderr)
    sys.exit(status)
