"""Whether the disk has what the write-ahead log of a database holds, also where a sync failed or never came.

SQLite shows a commit once it is synced. Two things can make it show one that is not: after a sync that failed
the system takes what it did not write for written, and the next sync says that all is well; and whoever opens
a database first takes all that stands in its log for committed, also what a killed process had not synced
yet. So the log is written once more before anything is recorded, taken for done, or copied from the log into
the database. All processes know that it has to be, those of the next start too, by bytes of a file beside the
database: one is set as long as a commit is under way, one since the disk failed, and one as long as upkeep
syncs, which tells those who open it, and the next upkeep, only whether that was broken off.

The database is synced when all of the log is copied into it. Where that fails, what earlier copies of a part
brought there may be lost, too, and SQLite copies only the rest again. A further byte, set as long as a copy
is under way or since one failed, has it all copied again.

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
from auditplane.store.sqlite.wal import copy_again, is_whole

REWRITTEN_BYTES: Final = 1024 * 1024
SYNC_BYTES: Final = 4
_UNDER_WAY: Final = 0
_FAILED: Final = 1
_SYNCING: Final = 2
_COPYING: Final = 3


class Syncs:
    """What is known of the log of a database; `shared` has the bytes, from `at` on."""

    def __init__(self, database: Path, shared: mmap.mmap, at: int) -> None:
        self._database = database
        self._wal = database.with_name(database.name + "-wal")
        self._shared, self._at = shared, at
        self._has_lost = False

    @property
    def failed(self) -> bool:
        """Whether the disk failed, in any process, and the log was not written again."""
        return self._is_set(_FAILED)

    @property
    def may_copy(self) -> bool:
        """Whether no copy is under way, or failed and was not made again."""
        return not self._is_set(_COPYING)

    @contextmanager
    def noting(self) -> Iterator[None]:
        """Notes when the disk fails in what is done, also where the error was translated within."""
        try:
            yield
        except BaseException as error:
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
        except Exception:
            self._set(_UNDER_WAY, 0)
            raise
        # One who was interrupted may not have heard of a failure: the mark stays.
        self._set(_UNDER_WAY, 0)
        if self.failed:  # somebody who copied the log meanwhile heard of what was to be told here
            self._write_again()

    def make_sure(self) -> None:
        """Writes the log again if the disk may lack some of it, while nobody else writes.

        Raises OSError, and StoreError where that can't be done any more.
        """
        if self._is_set(_UNDER_WAY) or self.failed:
            self._write_again()

    def make_sure_at_start(self, *, upkeep_is_over: bool) -> None:
        """The same for who opens the database: also if a sync of upkeep's was broken off by a kill."""
        if upkeep_is_over and (self._is_set(_SYNCING) or self._is_set(_COPYING)):
            self._write_again()
            self._set(_SYNCING, 0)
        self.make_sure()

    def sync(self) -> None:
        """Has all of the log on the disk, while nobody else writes; raises OSError."""
        self.make_sure()
        self.sync_early()

    def is_synced(self) -> bool:
        """Whether all of the log is on the disk now, while nobody else writes."""
        try:
            self.sync()
        except (apsw.Error, OSError, StoreError):
            return False
        return True

    def sync_early(self) -> None:
        """Syncs the log, whoever writes to it, so that less is left to be done later; raises OSError."""
        was_set = self._shared[self._at + _SYNCING]  # by one who may have been killed since
        self._set(_SYNCING, 1)
        with self.noting(), suppress(FileNotFoundError), _opened(self._wal) as descriptor:
            os.fdatasync(descriptor)
        self._set(_SYNCING, was_set)

    def sync_before_copying(self) -> None:
        """The same for upkeep, in one process at a time: one that a kill broke off may have failed."""
        if self._is_set(_SYNCING):
            self._set(_FAILED, 1)
            self._set(_SYNCING, 0)
        self.sync_early()

    def copy(self, connection: apsw.Connection, mode: int) -> None:
        """Copies the log into the database as far as others let it, unless a copy is to be made again.

        The disk has to have the log first. For one process at a time; raises apsw.Error.
        """
        if not self.may_copy:
            return
        self._set(_COPYING, 1)
        with suppress(apsw.BusyError):
            connection.wal_checkpoint(mode=mode)
        self._set(_COPYING, 0)

    def mend_copies(self, connection: apsw.Connection) -> None:
        """Copies again what copies of which one failed had brought into the database.

        While nobody else writes or copies, of a log that is synced. Raises apsw.Error and OSError.
        """
        if not self.may_copy:
            copy_again(self._database, connection)
            self._set(_COPYING, 0)

    def _write_again(self) -> None:
        # For good: what this process remembers of the database may be lost.
        self._has_lost = self._has_lost or not is_whole(self._database)
        if self._has_lost:
            raise StoreError(
                f"The disk failed, and {self._wal} lacks what was not acknowledged. Stop the server and "
                "start it again: what was acknowledged is there, and recording goes on behind it."
            )
        # First: what fails from now on counts, and a kill from now on.
        self._set(_UNDER_WAY, 1)
        self._set(_FAILED, 0)
        with self.noting(), suppress(FileNotFoundError), _opened(self._wal) as descriptor:
            at = 0
            while data := os.pread(descriptor, REWRITTEN_BYTES, at):
                at += os.pwrite(descriptor, data, at)
            os.fsync(descriptor)
        self._set(_UNDER_WAY, 0)

    def _is_set(self, which: int) -> bool:
        return self._shared[self._at + which] != 0

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
