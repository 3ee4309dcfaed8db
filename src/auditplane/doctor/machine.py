"""The machine, and what Auditplane is made of there."""

import platform
import re
import resource
import ssl
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

import zstandard

from auditplane import __version__
from auditplane.doctor.finding import Finding, Look, moment, ok, warn, wrong
from auditplane.store.sqlite.database import SQLITE_VERSION
from auditplane.times import parse_rfc3339

OPEN_FILES_MIN: Final = 4_096
MADE_US: Final = parse_rfc3339("2025-01-01T00:00:00Z")
"""No machine that runs this version has an earlier time."""


def check_versions(_look: Look) -> Iterator[Finding]:
    """What it is made of, for whoever reads a report of this."""
    zstd = ".".join(map(str, zstandard.ZSTD_VERSION))
    yield ok(
        "versions",
        f"Auditplane {__version__}, Python {platform.python_version()}, SQLite {SQLITE_VERSION}, "
        f"zstd {zstd}, {ssl.OPENSSL_VERSION}, {platform.system()} {platform.release()}.",
    )


def check_clock(look: Look) -> Iterator[Finding]:
    """The clock may be right."""
    if look.now_us < MADE_US:
        yield wrong("clock", f"It says {moment(look.now_us)}.", "Set it, and have NTP keep it right.")
    else:
        yield ok("clock", f"It says {moment(look.now_us)}.")


def check_open_files(look: Look) -> Iterator[Finding]:
    """A server may have enough files open: each connection is one."""
    limit = _limit_of(look.holder) if look.holder else None
    whose = f"The server (process {look.holder})" if limit is not None else "A server started here"
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1] if limit is None else limit
    if 0 <= limit < OPEN_FILES_MIN:
        yield warn(
            "open files",
            f"{whose} may have {limit:,} open, and each connection takes one.",
            f"Allow at least {OPEN_FILES_MIN:,}: LimitNOFILE= in a systemd unit, or `ulimit -Hn`.",
        )
    else:
        yield ok("open files", f"{whose} may have {'any number' if limit < 0 else f'{limit:,}'} open.")


def _limit_of(process: str) -> int | None:
    """How many files a process may have open, as far as the system tells."""
    with suppress(OSError):
        text = Path(f"/proc/{process}/limits").read_text()
        found = re.search(r"^Max open files +\d+ +(\d+|unlimited)", text, re.MULTILINE)
        if found:
            return -1 if found[1] == "unlimited" else int(found[1])
    return None
