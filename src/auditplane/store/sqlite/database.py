"""Opening SQLite databases: settings, migrations, named queries, and errors in our own words."""

import errno
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

import apsw

from auditplane.errors import Damaged, NewerFormat, StorageFull, StoreError, Unavailable

BUSY_MS: Final = 10_000
PAGE_BYTES: Final = 8_192
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
    """A connection with our settings; `durable` ones sync the log of each commit to the disk."""
    with translated(path.parent):
        mode = apsw.SQLITE_OPEN_READONLY if readonly else apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE
        connection = apsw.Connection(str(path), flags=mode)
        connection.set_busy_timeout(BUSY_MS)
        settings = [
            f"cache_size = -{CACHE_KIB}",
            f"synchronous = {'FULL' if durable else 'NORMAL'}",
            "wal_autocheckpoint = 0",
            "temp_store = MEMORY",
        ]
        if not readonly:
            settings = [f"page_size = {PAGE_BYTES}", "journal_mode = WAL", *settings]
        for setting in settings:
            connection.execute(f"PRAGMA {setting}").fetchall()
        return connection


def migrate(connection: apsw.Connection, migrations: Sequence[str], what: str) -> None:
    """Brings a database to the newest format, all at once; raises NewerFormat when it is beyond that."""
    with translated(Path(what).parent):
        if _format(connection) == len(migrations):
            return
        connection.execute("BEGIN IMMEDIATE").fetchall()
        try:
            found = _format(connection)
            if found > len(migrations):
                raise NewerFormat(
                    f"{what} has format {found}, written by a newer version of Auditplane; "
                    f"this version knows formats up to {len(migrations)}. Update Auditplane to open it."
                )
            for script in migrations[found:]:
                connection.execute(script).fetchall()
            connection.execute(f"PRAGMA user_version = {len(migrations)}").fetchall()
            connection.execute("COMMIT").fetchall()
        except BaseException:
            connection.execute("ROLLBACK").fetchall()
            raise


def _format(connection: apsw.Connection) -> int:
    return int(one(connection, "PRAGMA user_version"))


def one(connection: apsw.Connection, sql: str, bindings: Sequence[Any] = ()) -> Any:
    """The only column of the only row."""
    row = connection.execute(sql, bindings).fetchone()
    assert row is not None
    return row[0]


@contextmanager
def translated(folder: Path) -> Iterator[None]:
    """Turns SQLite's errors into ours."""
    try:
        yield
    except apsw.FullError:
        raise _full(folder) from None
    except apsw.BusyError as error:
        raise Unavailable("The store is busy; try again in a moment.") from error
    except (apsw.CorruptError, apsw.NotADBError) as error:
        raise Damaged(f"The database in {folder} is damaged: {error}. Restore it from a backup.") from error
    except (apsw.IOError, apsw.CantOpenError) as error:
        if has_no_room(folder):
            raise _full(folder) from None
        raise StoreError(f"The disk failed to read or write {folder}: {error}.") from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise _full(folder) from None
        raise


def has_no_room(folder: Path) -> bool:
    """Whether the disk of the folder is as good as full."""
    return shutil.disk_usage(folder).free < ROOM_BYTES_MIN


def _full(folder: Path) -> StorageFull:
    return StorageFull(
        f"The disk that holds {folder} is full, so nothing was recorded; what is stored is safe. "
        "Free some room or enlarge the disk: recording goes on by itself."
    )


def sync_folder(folder: Path) -> None:
    """Makes the names in a folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
