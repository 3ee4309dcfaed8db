"""Copies of databases, made while others write to them.

A copy is the database as it was in one moment. Nobody waits for it; but as long as it takes, what is written
stays in the write-ahead log.
"""

import os
from pathlib import Path
from typing import Final

import apsw

from auditplane.store.sqlite.database import begun, connect, fetch, make_empty, translated

STEP_PAGES: Final = 512
SYNC_STEPS: Final = 16


def copy_database(source: Path, target: Path) -> None:
    """Copies a database to a file that is not there yet; when it returns, the copy is on disk."""
    os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    reader = connect(source, durable=False)
    try:
        with translated(target.parent):
            _copy(reader, target)
    finally:
        reader.close()


def _copy(reader: apsw.Connection, target: Path) -> None:
    """Copies page by page what one view shows: without that view it would begin anew with each commit."""
    writer = apsw.Connection(str(target), flags=apsw.SQLITE_OPEN_READWRITE)
    descriptor = os.open(target, os.O_RDONLY | os.O_CLOEXEC)
    try:
        # A copy that was broken off is of no use anyway.
        for setting in ("journal_mode = OFF", "synchronous = OFF"):
            fetch(writer, f"PRAGMA {setting}")
        make_empty(writer)
        with begun(reader, "BEGIN"), writer.backup("main", reader, "main") as copying:
            fetch(reader, "SELECT 1 FROM sqlite_schema LIMIT 1")
            steps = 0
            while not copying.done:
                copying.step(STEP_PAGES)
                steps += 1
                # Now and then, so that recorders don't wait for very much at once.
                if steps % SYNC_STEPS == 0:
                    os.fsync(descriptor)
        writer.close()
        os.fsync(descriptor)
    finally:
        writer.close()
        os.close(descriptor)
