"""Whether the disk has what the write-ahead log of a database holds, also where a sync failed or never came.

SQLite shows a commit once it is synced. Two things can make it show one that is not: after a sync that failed
the system takes what it did not write for written, and the next sync says that all is well; and whoever opens
a database first takes all that stands in its log for committed, also what a killed process had not synced
yet. So the log is written once more before anything is recorded, taken for done, or copied from the log into
the database. All processes know that it has to be, those of the next start too, by two bytes of a file beside
the database: one is set as long as a commit is under way, the other one since the disk failed.

Two processes that commit keep each other out by a lock on that file, not by that of SQLite, which ends before
the bytes are set.
"""

import fcntl
import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import apsw

from auditplane.errors import StoreError
from auditplane.store.sqlite.wal import is_whole

REWRITTEN_BYTES: Final = 1024 * 1024
SYNC_BYTES: Final = 2
_UNDER_WAY: Final = 0
_FAILED: Final = 1


class Syncs:
    """What is known of the log of a database; `shared` has the two bytes, from `at` on."""

    def __init__(self, database: Path, shared: mmap.mmap, at: int) -> None:
        self._database = database
        self._wal = database.with_name(database.name + "-wal")
        self._shared, self._at = shared, at
        self._has_lost = False

    @property
    def failed(self) -> bool:
        """Whether the disk failed, in any process, and the log was not written again."""
        return self._shared[self._at + _FAILED] != 0

    @contextmanager
    def noting(self) -> Iterator[None]:
        """Notes when the disk fails in what is done, also where the error was translated within."""
        try:
            yield
        except Exception as error:
            if _is_of_the_disk(error):
                self._set(_FAILED, 1)
            raise

    @contextmanager
    def committing(self) -> Iterator[None]:
        """For a commit while nobody else writes: at the end the disk has it. Raises OSError."""
        self.make_sure()
        self._set(_UNDER_WAY, 1)
        try:
            with self.noting():
                yield
        finally:
            self._set(_UNDER_WAY, 0)
        if self.failed:  # somebody who copied the log meanwhile heard of what was to be told here
            self._write_again()

    def make_sure(self) -> None:
        """Writes the log again if the disk may lack some of it, while nobody else writes.

        Raises OSError, and StoreError where that can't be done any more.
        """
        if self._shared[self._at + _UNDER_WAY] or self.failed:
            self._write_again()

    def sync(self) -> None:
        """Has all of the log on the disk, while nobody else writes; raises OSError."""
        self.make_sure()
        self.sync_early()

    def is_synced(self) -> bool:
        """Whether all of the log is on the disk now, while nobody else writes."""
        try:
            self.sync()
        except (OSError, StoreError):
            return False
        return True

    def sync_early(self) -> None:
        """Syncs the log, whoever writes to it, so that less is left to be done later; raises OSError."""
        with self.noting(), suppress(FileNotFoundError), _opened(self._wal) as descriptor:
            os.fdatasync(descriptor)

    def _write_again(self) -> None:
        # For good: what this process remembers of the database may be lost.
        self._has_lost = self._has_lost or not is_whole(self._database)
        if self._has_lost:
            raise StoreError(
                f"The disk failed, and {self._wal} lacks what was not acknowledged. Stop the server and "
                "start it again: what was acknowledged is there, and recording goes on behind it."
            )
        self._set(_FAILED, 0)  # first: what fails from now on counts
        with self.noting(), suppress(FileNotFoundError), _opened(self._wal) as descriptor:
            at = 0
            while data := os.pread(descriptor, REWRITTEN_BYTES, at):
                at += os.pwrite(descriptor, data, at)
            os.fsync(descriptor)
        self._set(_UNDER_WAY, 0)

    def _set(self, which: int, value: int) -> None:
        self._shared[self._at + which] = value


def _is_of_the_disk(error: BaseException | None) -> bool:
    """Whether an error is one of the disk, or was raised for one; once too often costs little."""
    while error is not None:
        if isinstance(error, apsw.IOError | OSError):
            return True
        error = error.__context__
    return False


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def locked(descriptor: int) -> Iterator[None]:
    """Holds a file against all others who lock it, in this process by another descriptor and in others."""
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        yield
    finally:
        fcntl.flock(descriptor, fcntl.LOCK_UN)


def shared_bytes(descriptor: int, size: int) -> mmap.mmap:
    """Bytes of an open file that all processes see at once, and change without a call that could fail.

    The file grows to that size by zeros. Raises OSError.
    """
    with locked(descriptor):
        found = os.fstat(descriptor).st_size
        if found < size:
            # On the disk now: to find it full when they are changed would end the process.
            os.pwrite(descriptor, bytes(size - found), found)
    return mmap.mmap(descriptor, size)


def failed_in(path: Path, at: int) -> bool:
    """The same as `Syncs.failed`, of the file that the shared bytes are in, which is not changed."""
    with suppress(FileNotFoundError), path.open("rb") as file:
        file.seek(at + _FAILED)
        return file.read(1) not in (b"", b"\0")
    return False
