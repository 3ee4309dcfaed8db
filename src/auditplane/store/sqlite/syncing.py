"""What is done once the disk failed to sync the write-ahead log of a database.

The system takes what it did not write then for written: the next sync says that all is well. So the log is
written once more before anything is recorded, taken for done, or copied from the log into the database, and
who closes the database meanwhile leaves the log as it is. All processes know of the failure, those of the
next start too, by a byte of a file beside the database.
"""

import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import apsw

REWRITTEN_BYTES: Final = 1024 * 1024
FINE: Final = 0
FAILED: Final = 1


class Syncs:
    """Whether what the write-ahead log of a database holds is on the disk, as far as its syncs have told.

    `shared` has a byte for it, at `at`.
    """

    def __init__(self, database: Path, shared: mmap.mmap, at: int) -> None:
        self._wal = database.with_name(database.name + "-wal")
        self._shared, self._at = shared, at

    @property
    def failed(self) -> bool:
        """Whether the disk failed, in any process, and the log was not written again."""
        return self._shared[self._at] != FINE

    @contextmanager
    def noting(self) -> Iterator[None]:
        """Notes when the disk fails in what is done."""
        try:
            yield
        except (apsw.IOError, OSError):
            self._shared[self._at] = FAILED
            raise

    def write_again(self) -> None:
        """Writes the log once more, and syncs it, while nobody else writes to it; raises OSError."""
        with suppress(FileNotFoundError):
            descriptor = os.open(self._wal, os.O_RDWR | os.O_CLOEXEC)
            try:
                at = 0
                while data := os.pread(descriptor, REWRITTEN_BYTES, at):
                    at += os.pwrite(descriptor, data, at)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        self._shared[self._at] = FINE


def shared_bytes(descriptor: int, size: int) -> mmap.mmap:
    """Bytes of an open file that all processes see at once, and change without a call that could fail.

    The file grows to that size by zeros. Raises OSError.
    """
    if (found := os.fstat(descriptor).st_size) < size:
        # On the disk now: to find it full when they are changed would end the process.
        os.pwrite(descriptor, bytes(size - found), found)
    return mmap.mmap(descriptor, size)


def failed_in(path: Path, at: int) -> bool:
    """The same as `Syncs.failed`, of the file that the shared bytes are in, which is not changed."""
    with suppress(FileNotFoundError), path.open("rb") as file:
        file.seek(at)
        return file.read(1) not in (b"", bytes([FINE]))
    return False
