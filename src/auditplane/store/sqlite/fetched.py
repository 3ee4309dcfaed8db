"""The last checkpoint of an account's log that somebody fetched: a file beside the log.

The log knows the last one that was signed, but the page has them signed, too, and nobody keeps those.
"""

from pathlib import Path
from typing import Annotated

import msgspec

from auditplane.store.sqlite.folder import ACCOUNTS, write_secret

_Count = Annotated[int, msgspec.Meta(ge=0)]


class Fetched(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A checkpoint that was fetched: of how many entries, and when (µs since 1970) it was signed."""

    size: _Count
    at_us: _Count


def keep_fetched(folder: Path, account: str, fetched: Fetched) -> None:
    """Keeps it in place of the last, unless that is as large; raises StorageFull and StoreError."""
    last = last_fetched(folder, account)
    if last is None or last.size != fetched.size:
        write_secret(_file(folder, account), msgspec.json.encode(fetched).decode())


def last_fetched(folder: Path, account: str) -> Fetched | None:
    """The last one; None when nobody fetched any, or what is there is none."""
    try:
        return msgspec.json.decode(_file(folder, account).read_bytes(), type=Fetched)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def fetched_mark(folder: Path, account: str) -> tuple[int, int] | None:
    """Changes whenever another one was kept; None when there is none."""
    try:
        found = _file(folder, account).stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns


def _file(folder: Path, account: str) -> Path:
    return folder / ACCOUNTS / f"{account}.fetched"
