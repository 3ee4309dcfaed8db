"""The database of the keys as a file: what it is called, and what is looked up in it without a server."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Final

import apsw

from auditplane.access import attempts
from auditplane.access.key import Key, key_of
from auditplane.store.sqlite.copying import copy_database
from auditplane.store.sqlite.database import (
    Connected,
    check_format,
    connect,
    fetch,
    load_migrations,
    load_queries,
    one,
    translated,
)
from auditplane.store.sqlite.syncing import SYNC_BYTES, failed_in

CONTROL_FILE: Final = "control.db"
SHARED_FILE: Final = "control.version"
# Its bytes: the version of the keys, and what is known of the syncs of their log.
VERSION: Final = slice(0, 8)
IN_CHANGE: Final = bytes(8)
SYNCS_AT: Final = 8
SHARED_BYTES: Final = SYNCS_AT + SYNC_BYTES

QUERIES: Final = load_queries("auditplane.access")
MIGRATIONS: Final = load_migrations("auditplane.access")


def copy_keys(path: Path, target: Path, key_ids: Sequence[str]) -> None:
    """Copies the keys of a data folder as they are now, but only those of these ids, to a file.

    An account comes to be with its first key, and is copied when one of its keys is. Nobody is signed in
    where the copy is served.
    """
    copy_database(path / CONTROL_FILE, target)
    copy = Connected(target, durable=True)
    try:
        with translated(target.parent), copy.use() as connection:
            for drop in ("drop_all_sessions", "drop_all_links", "drop_all_attempts"):
                fetch(connection, QUERIES[drop])
            fetch(connection, QUERIES["drop_other_keys"], (json.dumps(key_ids),))
            fetch(connection, QUERIES["drop_keyless_accounts"])
            connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
    finally:
        copy.close(copying=True)  # of nothing, but it removes the log


def sync_failed(folder: Path) -> bool:
    """Whether the disk failed to sync a change of the keys of a folder, which was not written again."""
    with translated(folder):
        return failed_in(folder / SHARED_FILE, SYNCS_AT)


def look_at(folder: Path) -> tuple[list[str], list[str]]:
    """The accounts that a folder has keys for, and what is wrong with the database of the keys.

    Nothing in the folder is changed.
    """
    with translated(folder):
        connection = connect(folder / CONTROL_FILE, durable=False, readonly=True)
        try:
            accounts = [row[0] for row in connection.execute(QUERIES["accounts"])]
            found = [row[0] for row in connection.execute("PRAGMA integrity_check(20)")]
        finally:
            connection.close()
    return accounts, [text for text in found if text != "ok"]


@dataclass(frozen=True, slots=True)
class Control:
    """What a folder has of keys, how many people are signed in, and how many attempts just failed."""

    accounts: Sequence[str]
    keys: Sequence[Key]
    sessions: int
    failed_attempts: int


def look_into(folder: Path, now_us: int) -> Control:
    """What a folder has of keys, which is not changed; raises StoreError and NewerFormat."""
    path = folder / CONTROL_FILE
    with translated(folder):
        path.stat()
        connection = connect(path, durable=False, readonly=True)
        try:
            check_format(connection, MIGRATIONS, str(path))
            return Control(
                [row[0] for row in fetch(connection, QUERIES["accounts"])],
                [key_of(row) for row in fetch(connection, QUERIES["keys"])],
                one(connection, QUERIES["count_sessions"], (now_us,)),
                one(connection, QUERIES["count_attempts"], (now_us - attempts.WINDOW_US,)),
            )
        finally:
            connection.close()


def opens(secret: str, folder: Path) -> str | None:
    """The id of the key of a secret, whether it works or not; None when there is none. Nothing is changed."""
    hashed = sha256(secret.encode("utf-8", "surrogatepass")).digest()
    with translated(folder):
        connection = connect(folder / CONTROL_FILE, durable=False, readonly=True)
        try:
            rows = fetch(connection, QUERIES["key_by_hash"], (hashed,))
        finally:
            connection.close()
    return str(rows[0][0]) if rows else None
