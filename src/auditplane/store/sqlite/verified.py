"""When the log of an account was last checked as a whole, and what came of it: a file beside the log.

Who checks leaves it there only when asked to, as checking changes nothing else in the folder.
"""

from pathlib import Path

import msgspec

from auditplane.store.sqlite.folder import ACCOUNTS, write_secret


class Verified(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A check that has ended: when (microseconds since 1970), of how many entries, with how many problems."""

    at_us: int
    size: int
    deep: bool
    problems: int


def keep_verified(folder: Path, account: str, verified: Verified) -> None:
    """Keeps the outcome of a check, in place of the last; raises StoreError."""
    write_secret(_file(folder, account), msgspec.json.encode(verified).decode())


def last_verified(folder: Path, account: str) -> Verified | None:
    """The last check of the log of an account; None when nobody kept one, or what is there is none."""
    try:
        return msgspec.json.decode(_file(folder, account).read_bytes(), type=Verified)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def _file(folder: Path, account: str) -> Path:
    return folder / ACCOUNTS / f"{account}.verified"
