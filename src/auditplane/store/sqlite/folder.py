"""The data folder: one server holds it, and each account has a database in it.

    DIR/lock               held by the one `serve`
    DIR/control.db         keys, accounts, settings (see `access`)
    DIR/accounts/NAME.db   the log of an account
    DIR/accounts/NAME.verified   what came of its last check, where that was kept
    DIR/accounts/NAME.fetched    the last checkpoint of it that somebody fetched, if anybody did
    DIR/admin.key          the key made at first start
    DIR/log.key            the key that signs checkpoints
    DIR/log.key.next       the next one, while it is changed
    DIR/log.retired        verifier keys of those that signed before it, if any
    DIR/log.lock           held by a backup, or by whoever changes that key
    DIR/backup.last        when the last backup was begun that came to its end
    DIR/clock.trusted      what the clock said when it was last trusted, see `NotedClock`
    DIR/restoring/         what is not yet restored; the folder is of no use as long as it is there

Folders have mode 0700, files 0600.
"""

import fcntl
import os
import re
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from auditplane import limits
from auditplane.errors import FolderInUse, LogMissing, NotFound, StoreError, Unavailable
from auditplane.store.sqlite.account import AccountStore
from auditplane.store.sqlite.database import make_folder, replaced, translated
from auditplane.store.sqlite.statements import MIGRATIONS
from auditplane.times import SECOND_US, format_us, parse_rfc3339

# The database header; `user_version` in it (SQLite, "Database File Format", section 1.3).
_HEADER_BYTES = 100
_FORMAT = slice(60, 64)

ACCOUNTS = "accounts"
RESTORING = "restoring"
BACKUP_FILE = "backup.last"
CLOCK_FILE = "clock.trusted"
ACCOUNT_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")


class DataFolder:
    """The stores of the accounts in a folder, a bounded number of them open."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._accounts = path / ACCOUNTS
        try:
            make_folder(self._accounts)
            path.chmod(0o700)
            self._accounts.chmod(0o700)
        except OSError as error:
            raise StoreError(f"The data folder {path} can't be used: {error.strerror}.") from error
        self._mutex = threading.Lock()
        self._open: OrderedDict[str, AccountStore] = OrderedDict()
        self._in_use: dict[str, int] = {}
        self._opening: dict[str, threading.Lock] = {}

    def accounts(self) -> list[str]:
        """The names of the accounts that have a log."""
        return accounts_in(self.path)

    def has_log(self, name: str) -> bool:
        """Whether an account has a log."""
        return ACCOUNT_NAME.fullmatch(name) is not None and (self._accounts / f"{name}.db").exists()

    def is_current(self, name: str) -> bool:
        """Whether the log of an account has the newest format for sure, by a glance at its file."""
        with self._mutex:
            if name in self._open:  # to close its file here would drop the locks that SQLite holds on it
                return True
            with (self._accounts / f"{name}.db").open("rb") as file:
                header = file.read(_HEADER_BYTES)
        return self.wal_mark(name)[1] == 0 and header[_FORMAT] == len(MIGRATIONS).to_bytes(4, "big")

    def wal_mark(self, name: str) -> tuple[int, int]:
        """Changes whenever something was written to the log of an account, to open and close it is no matter.

        Who closes it last copies the write-ahead log, of which the second number is the size, and removes it.
        """
        with suppress(FileNotFoundError):
            found = (self._accounts / f"{name}.db-wal").stat()
            if found.st_size:
                return found.st_mtime_ns, found.st_size
        with suppress(FileNotFoundError):
            return (self._accounts / f"{name}.db").stat().st_mtime_ns, 0
        return 0, 0

    def log_bytes(self, name: str) -> int:
        """The size of the files of an account's log; zero when it has none."""
        size = self.wal_mark(name)[1]
        with suppress(FileNotFoundError):
            size += (self._accounts / f"{name}.db").stat().st_size
        return size

    @contextmanager
    def account(self, name: str, *, may_begin: bool = False) -> Iterator[AccountStore]:
        """The store of an account; it stays open while it is used here.

        Raises LogMissing when there is none, unless a log `may_begin`: one that is lost must not begin anew.
        """
        store = self._borrow(name, may_begin)
        try:
            yield store
        finally:
            self._give_back(name)

    def _borrow(self, name: str, may_begin: bool) -> AccountStore:
        if not ACCOUNT_NAME.fullmatch(name):
            raise NotFound(f"{name!r} is not the name of an account.")
        with self._mutex:
            if name in self._open:
                return self._lent(name)
            opening = self._opening.setdefault(name, threading.Lock())
        # Who opens a log waits for whoever writes to it; others need not wait for that.
        with opening:
            with self._mutex:
                if name in self._open:
                    return self._lent(name)
            if not may_begin and not self.has_log(name):
                raise LogMissing(told_of_missing_log(self.path, name))
            store = AccountStore(self._accounts / f"{name}.db")
            with self._mutex:
                self._open[name] = store
                return self._lent(name)

    def _lent(self, name: str) -> AccountStore:
        """An open store, which is in use once more."""
        self._open.move_to_end(name)
        self._in_use[name] = self._in_use.get(name, 0) + 1
        return self._open[name]

    def _give_back(self, name: str) -> None:
        with self._mutex:
            self._in_use[name] -= 1
            if not self._in_use[name]:
                del self._in_use[name]
            surplus = max(0, len(self._open) - limits.ACCOUNTS_OPEN_MAX)
            idle = [name for name in self._open if name not in self._in_use]
            closing = [self._open.pop(name) for name in idle[:surplus]]
        for store in closing:  # others need not wait: it copies what its log still holds
            store.close()

    def close(self) -> None:
        """Closes all stores."""
        with self._mutex:
            while self._open:
                self._open.popitem()[1].close()


def told_of_missing_log(path: Path, name: str) -> str:
    """What is to be done where an account has API keys and no log."""
    log = path / ACCOUNTS / f"{name}.db"
    return (
        f"The log of the account {name} is missing: {log}. Put it back, or restore a backup. Is there none, "
        f"`touch {log}` has the log begin anew."
    )


def accounts_in(path: Path) -> list[str]:
    """The names of the accounts that have a log in a folder, which is not changed; raises StoreError."""
    names: list[str] = []
    with translated(path), suppress(FileNotFoundError):
        # Not `glob`, which takes a folder that can't be read for an empty one, in some versions of Python.
        names = [file.stem for file in (path / ACCOUNTS).iterdir() if file.suffix == ".db"]
    return sorted(name for name in names if ACCOUNT_NAME.fullmatch(name))


@contextmanager
def looked_at(path: Path, account: str) -> Iterator[AccountStore]:
    """The store of an account in a folder that is not changed.

    Raises Unavailable in the end when nobody had it open, and somebody wrote to it meanwhile.
    """
    file = path / "accounts" / f"{account}.db"
    wal = file.with_name(file.name + "-wal")
    was_open = wal.exists()
    before = file.stat()
    store = AccountStore(file, readonly=True)
    try:
        yield store
    finally:
        store.close()
    after = file.stat()
    same = (before.st_mtime_ns, before.st_size) == (after.st_mtime_ns, after.st_size)
    if not was_open and (wal.exists() or not same):
        raise Unavailable(f"Somebody opened {file} while it was looked at; try again.")


def hold(path: Path) -> int:
    """Holds the folder for one server until the descriptor is closed; raises FolderInUse and StoreError."""
    with translated(path), ExitStack() as undo:
        descriptor = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        undo.callback(os.close, descriptor)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise FolderInUse(
                f"Another server (process {_holder(descriptor)}) holds the data folder {path}. "
                "Stop it first, or give this one another folder with --data."
            ) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        undo.pop_all()
        return descriptor


def holder(path: Path) -> str | None:
    """The process that holds a folder, None when none does; nothing is changed."""
    try:
        descriptor = os.open(path / "lock", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _holder(descriptor)
    else:
        return None
    finally:
        os.close(descriptor)


def _holder(descriptor: int) -> str:
    return os.pread(descriptor, 32, 0).decode("ascii", "replace").strip() or "unknown"


def format_of(file: Path) -> int | None:
    """The format of a database as its file has it; None when the file is none.

    No connection of this process may be open to it: to close the file would drop its locks.
    """
    with file.open("rb") as opened:
        header = opened.read(_HEADER_BYTES)
    if len(header) < _HEADER_BYTES or not header.startswith(b"SQLite format 3\0"):
        return None
    return int.from_bytes(header[_FORMAT], "big")


def note_backup(path: Path, at_us: int) -> None:
    """Notes when a backup of the folder was begun that came to its end; raises StorageFull and StoreError."""
    write_secret(path / BACKUP_FILE, format_us(at_us))


def last_backup_us(path: Path) -> int | None:
    """When the last backup was begun, as far as that is known."""
    try:
        return parse_rfc3339((path / BACKUP_FILE).read_text("ascii").strip())
    except (OSError, ValueError):
        return None


class NotedClock(NamedTuple):
    """The newest moment that is surely past, in microseconds since 1970.

    `distrusted_seconds` tells for how long a server has distrusted a clock that says a later one, if it does.
    """

    us: int
    distrusted_seconds: float | None = None


def note_clock(path: Path, known: NotedClock) -> None:
    """Notes what is known of the clock; raises StorageFull and StoreError."""
    distrusted = "" if known.distrusted_seconds is None else f" {known.distrusted_seconds:.0f}"
    write_secret(path / CLOCK_FILE, format_us(known.us) + distrusted)


def noted_clock(path: Path) -> NotedClock | None:
    """What a server has noted of the clock, if one has."""
    try:
        at, *distrusted = (path / CLOCK_FILE).read_text("utf-8").split()
        return NotedClock(parse_rfc3339(at), *map(int, distrusted[:1]))
    except (OSError, ValueError):
        return None


def may_expire(path: Path, now_us: int) -> bool:
    """Whether a clock that says `now_us` is trusted, as far as the folder tells: with no note it is."""
    noted = noted_clock(path)
    if noted is None:
        return True
    return noted.distrusted_seconds is None and now_us <= noted.us + limits.CLOCK_OFF_SECONDS_MAX * SECOND_US


def last_write_us(path: Path) -> int | None:
    """When a database in the folder was last written to, as its file says; None when there is none."""
    written: list[int] = []
    for folder in (path, path / ACCOUNTS):
        for file in (*folder.glob("*.db"), *folder.glob("*.db-wal")):
            with suppress(OSError):  # whoever closes a database last removes its log
                written.append(file.stat().st_mtime_ns // 1_000)
    return max(written, default=None)


def write_secret(path: Path, secret: str) -> None:
    """Writes a file that only its owner can read, whole or not at all; raises StorageFull and StoreError."""
    with translated(path.parent), replaced(path) as (_, descriptor):
        left = f"{secret}\n".encode()
        while left:  # a disk that is nearly full takes a part
            left = left[os.write(descriptor, left) :]
