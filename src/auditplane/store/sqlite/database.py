"""Opening SQLite databases: settings, migrations, named queries, and errors in our own words."""

import errno
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from functools import cache, partial
from importlib.resources import files
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import apsw
from apsw import sqlite_extra

from auditplane import limits
from auditplane.errors import Damaged, NewerFormat, StorageFull, StoreError, Unavailable

SQLITE_VERSION: Final = apsw.sqlite_lib_version()
BUSY_MS: Final = 10_000
SYNCHRONOUS: Final = {True: "FULL", False: "NORMAL"}
PAGE_BYTES: Final = 8_192
CHECKSUM_BYTES: Final = 8
CHECKSUMS_EXTENSION: Final = "cksumvfs"
CHECKSUMS_VFS: Final = "cksmvfs"
CACHE_KIB: Final = 16_384
ROOM_BYTES_MIN: Final = 1024 * 1024

_NAMED = re.compile(r"^-- name: (\w+)\n(.*?);$", re.MULTILINE | re.DOTALL)


def load_queries(package: str, name: str = "queries.sql") -> dict[str, str]:
    """The statements of an `.sql` file of `package`, by the names in their `-- name:` lines."""
    return dict(_NAMED.findall(files(package).joinpath(name).read_text("utf-8")))


def load_migrations(package: str) -> list[str]:
    """The migrations of `package`, oldest first: the n-th brings a database to format n."""
    folder = files(package).joinpath("migrations")
    return [path.read_text("utf-8") for path in sorted(folder.iterdir(), key=lambda p: p.name)]


def connect(path: Path, *, durable: bool, readonly: bool = False) -> apsw.Connection:
    """A connection with our settings; `durable` ones sync the log of each commit to the disk.

    A `durable` one makes the files, while nobody else does, and has their names on the disk; a `readonly` one
    changes nothing, and makes no files where nobody else has the database open. None copies the log into the
    database by itself, neither after a commit nor when it is closed: SQLite tells nobody when the disk fails
    in that.

    Raises StoreError for a symbolic link: SQLite would keep the log beside the file that it leads to.
    """
    _check_pages()
    with translated(path.parent):
        if path.is_symlink():
            raise StoreError(
                f"{path} is a symbolic link, beside which its write-ahead log would not be found. Put the "
                "file itself there, or make the whole folder a link or a mount."
            )
        if readonly:
            connection = _open_readonly(path)
        else:
            if durable and not _is_there(path):
                _make(path)
            connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)
        connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        connection.set_busy_timeout(BUSY_MS)
        settings = [
            f"cache_size = -{CACHE_KIB}",
            f"synchronous = {SYNCHRONOUS[durable]}",
            "wal_autocheckpoint = 0",
            "temp_store = MEMORY",
        ]
        if not readonly:
            # What is deleted is overwritten, and the file can be made smaller.
            settings = ["journal_mode = WAL", "secure_delete = ON", *settings]
        try:
            if not readonly and not one(connection, "PRAGMA page_count"):
                raise StoreError(f"{path} is empty; it is not the file that it was.")
            for setting in settings:
                fetch(connection, f"PRAGMA {setting}")
            if durable and not readonly:
                one(connection, "PRAGMA user_version")  # makes the log
                sync_folder(path.parent)  # SQLite does, too, and drops what the disk says
        except BaseException:
            connection.close()
            raise
        return connection


def bound_caches() -> None:
    """Has all connections of this process keep CACHES_BYTES_MAX of pages, not CACHE_KIB each."""
    apsw.soft_heap_limit(limits.CACHES_BYTES_MAX)


def memory_bytes() -> int:
    """What SQLite holds in this process: nearly all of it are those pages."""
    return apsw.memory_used()


def make_empty(connection: apsw.Connection) -> None:
    """Writes the first page of a database, which says what all pages are like, into an empty file."""
    connection.reserve_bytes(reserve=CHECKSUM_BYTES)
    for setting in (f"page_size = {PAGE_BYTES}", "auto_vacuum = INCREMENTAL", "user_version = 0"):
        fetch(connection, f"PRAGMA {setting}")


def _is_there(path: Path) -> bool:
    """Whether there is a database at all: an empty file is none."""
    with suppress(FileNotFoundError):
        return path.stat().st_size > 0
    return False


def _make(path: Path) -> None:
    """Makes a database without tables, whole or not at all. Raises apsw.Error and OSError.

    Were SQLite to make it in its place, it would tell nobody that the disk failed to sync the folder, and a
    power cut could leave half a page; and it would remove the log of a file that is gone, with what was
    recorded last. Raises StoreError where there is one.
    """
    log = path.with_name(path.name + "-wal")
    if log.exists() and log.stat().st_size:
        raise StoreError(
            f"{path} is missing or empty, and {log} has what was recorded last in it. Put the file back, or "
            f"restore a backup. Is there none, remove {log}, too: then all begins anew."
        )
    with replaced(path) as (unfinished, _):
        with closing(apsw.Connection(str(unfinished), flags=apsw.SQLITE_OPEN_READWRITE)) as connection:
            for setting in ("journal_mode = OFF", "synchronous = OFF"):
                fetch(connection, f"PRAGMA {setting}")
            make_empty(connection)
            fetch(connection, "PRAGMA journal_mode = WAL")
        # Else SQLite would take it, of a file that is gone, for its own.
        path.with_name(path.name + "-journal").unlink(missing_ok=True)
        sync_folder(path.parent)


@cache
def _check_pages() -> None:
    """Has SQLite put a checksum at the end of each page, and look at it whenever it reads one.

    SQLite, "The Checksum VFS Shim": it holds for all connections of the process from here on.
    """
    with closing(apsw.Connection(":memory:")) as connection:
        sqlite_extra.load(connection, CHECKSUMS_EXTENSION)  # part of the wheels of apsw


class Connected:
    """A connection for one user at a time, who gets a new one once the disk failed under the last.

    SQLite keeps a file open for reading only when it can't be opened for writing at that moment, and all
    writing would fail for good. Where the file was moved away or replaced it is of no use either: what is
    written would be gone with the process. So it is with its write-ahead log, and with the index of that: who
    opens the database then makes another, and both write to the same places.
    """

    def __init__(self, path: Path, *, durable: bool, readonly: bool = False) -> None:
        self._open = partial(connect, path, durable=durable, readonly=readonly)
        self._connection: apsw.Connection | None = None
        self._path = path
        self._file: tuple[int, int] | None = None
        self._log, self._index = (path.with_name(path.name + end) for end in ("-wal", "-shm"))
        # Of the connection: once nobody has the database open they are removed, and others are made.
        self._beside: dict[Path, tuple[int, int] | None] = {}

    @contextmanager
    def use(self) -> Iterator[apsw.Connection]:
        """The connection, which nobody else uses meanwhile; raises StoreError when the file is another."""
        self.check_files()
        if self._connection is None:
            self._connection = self._open()
            self._beside = {path: _file_at(path) for path in (self._log, self._index)}
        if self._file is None:
            self._file = _file_at(self._path)
        try:
            yield self._connection
        except (apsw.Error, StoreError):
            self.close()
            raise

    def check_files(self) -> None:
        """Raises StoreError when the file is not the one that was opened first, or one beside it is not."""
        for path, file in [(self._path, self._file), *self._beside.items()]:
            if file is not None and _file_at(path) != file:
                raise StoreError(
                    f"{path} was moved away or replaced while it was in use. Put the file back, or stop the "
                    "server and start it again."
                )

    def close(self, *, copying: bool = False) -> None:
        """Closes it; who uses it next gets a new one.

        The last of all that are closed may copy the log into the database, once the disk surely has it; not
        where others made another index of it, which may tell of more than this one.
        """
        connection, self._connection = self._connection, None
        beside, self._beside = self._beside, {}
        if connection is not None:
            if copying and _file_at(self._index) in (beside.get(self._index), None):
                connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 0)
            connection.close()


def _file_at(path: Path) -> tuple[int, int] | None:
    """Which file it is, whatever it is called; None when there is none."""
    with suppress(FileNotFoundError):
        found = path.stat()
        return found.st_dev, found.st_ino
    return None


def _open_readonly(path: Path) -> apsw.Connection:
    """A connection that writes nothing.

    Without a write-ahead log beside it the database is all there is, and SQLite is told that nobody changes
    it: else it would make one.
    """
    uri = f"file:{quote(str(path.absolute()))}?mode=ro"
    if not path.with_name(path.name + "-wal").exists():
        uri += "&immutable=1"
    return apsw.Connection(uri, flags=apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI)


def is_current(connection: apsw.Connection, migrations: Sequence[str]) -> bool:
    """Whether a database has the newest format."""
    return _format(connection) == len(migrations)


def migrate(connection: apsw.Connection, migrations: Sequence[str], what: str) -> None:
    """Brings a database to the newest format, all at once.

    Raises NewerFormat when it is beyond that, and apsw.Error: whoever calls this notes that a sync failed.
    """
    with begun(connection, "BEGIN IMMEDIATE"):
        found = _format(connection)
        if found > len(migrations):
            raise _newer(what, found, len(migrations))
        for script in migrations[found:]:
            fetch(connection, script)
        fetch(connection, f"PRAGMA user_version = {len(migrations)}")


def check_format(connection: apsw.Connection, migrations: Sequence[str], what: str) -> None:
    """Raises NewerFormat, or StoreError of an older format, where nothing may be changed."""
    with translated(Path(what).parent):
        found = _format(connection)
    if found > len(migrations):
        raise _newer(what, found, len(migrations))
    if found < len(migrations):
        raise StoreError(
            f"{what} has format {found}; this version reads format {len(migrations)}, which the server makes "
            "of it when it is started."
        )


def _newer(what: str, found: int, known: int) -> NewerFormat:
    return NewerFormat(
        f"{what} has format {found}, written by a newer version of Auditplane; "
        f"this version knows formats up to {known}. Update Auditplane to open it."
    )


def _format(connection: apsw.Connection) -> int:
    return int(one(connection, "PRAGMA user_version"))


@contextmanager
def begun(connection: apsw.Connection, begin: str) -> Iterator[None]:
    """A transaction, taken back when it ends with an error."""
    fetch(connection, begin)
    try:
        yield
        fetch(connection, "COMMIT")
    except BaseException:
        if connection.in_transaction:  # SQLite ends it by itself after some failures
            fetch(connection, "ROLLBACK")
        raise


def fetch(connection: apsw.Connection, sql: str, bindings: Sequence[Any] = ()) -> list[Any]:
    """All rows of a statement, which is run to its end only so."""
    return connection.execute(sql, bindings).fetchall()


def fetch_bytes(
    connection: apsw.Connection, sql: str, bindings: Sequence[Any], *, column: int, bytes_max: int
) -> tuple[list[Any], bool]:
    """Rows until their values in a column come to `bytes_max`, and whether these are all."""
    cursor = connection.execute(sql, bindings)
    rows = []
    for row in cursor:
        rows.append(row)
        bytes_max -= len(row[column])
        if bytes_max <= 0:
            cursor.close(force=True)
            return rows, False
    return rows, True


def one(connection: apsw.Connection, sql: str, bindings: Sequence[Any] = ()) -> Any:
    """The first column of the first row, or None."""
    rows = fetch(connection, sql, bindings)
    return rows[0][0] if rows else None


@contextmanager
def translated(folder: Path) -> Iterator[None]:
    """Turns errors of SQLite and of the disk into ours."""
    try:
        yield
    except apsw.FullError:
        raise _full(folder) from None
    except apsw.BusyError as error:
        raise Unavailable("The store is busy; try again in a moment.") from error
    except (apsw.CorruptError, apsw.NotADBError) as error:
        raise Damaged(f"The database in {folder} is damaged: {error}. Restore it from a backup.") from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise _full(folder) from None
        raise _failed(folder, error) from error
    except apsw.Error as error:
        if getattr(error, "extendedresult", 0) == apsw.SQLITE_IOERR_DATA:
            raise Damaged(
                f"The database in {folder} is damaged: a page is not what was written. "
                "Restore it from a backup."
            ) from error
        if isinstance(error, apsw.IOError | apsw.CantOpenError) and has_no_room(folder):
            raise _full(folder) from None
        raise _failed(folder, error) from error


def has_no_room(folder: Path) -> bool:
    """Whether the disk of the folder is as good as full."""
    return shutil.disk_usage(folder).free < ROOM_BYTES_MIN


def _full(folder: Path) -> StorageFull:
    return StorageFull(
        f"The disk that holds {folder} is full, so nothing was recorded; what is stored is safe. "
        "Free some room or enlarge the disk: recording goes on by itself."
    )


def _failed(folder: Path, error: Exception) -> StoreError:
    return StoreError(f"The disk failed to read or write {folder}: {error}.")


def make_folder(path: Path) -> None:
    """Makes a folder, and those above it that are missing; they survive a power cut.

    One that is there may have been made a moment ago by somebody who was killed: it is synced again.
    """
    if not path.parent.is_dir():
        make_folder(path.parent)
    path.mkdir(mode=0o700, exist_ok=True)
    for folder in (path.parent, path.parent.parent):
        with suppress(PermissionError):  # of what is far above, only the names may be known
            sync_folder(folder)


@contextmanager
def replaced(path: Path) -> Iterator[tuple[Path, int]]:
    """A new file, to be written, and its descriptor: at the end it is at `path`, and on the disk.

    Only its owner can read it. Where anything fails, `path` is what it was. Raises OSError.
    """
    unfinished = path.with_name(path.name + ".new")
    unfinished.unlink(missing_ok=True)
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        yield unfinished, descriptor
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    unfinished.rename(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Makes the names in a folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
