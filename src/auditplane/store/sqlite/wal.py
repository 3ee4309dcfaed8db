"""The write-ahead log of a database, as the file that it is: whether it is whole, what is behind its end, and
copying again what a copy of it may have lost.

SQLite reads it up to the first frame that is not what was written, and writes over the rest (SQLite,
"WAL-mode File Format", sections 1 to 4). After a power cut that is right: what follows was not synced, so
nobody was told of it. A bit that changed on the disk looks the same, and what follows had been acknowledged.
"""

import struct
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import BinaryIO, Final

import apsw

from auditplane.store.sqlite.database import CHECKSUMS_VFS, PAGE_BYTES, connect, one, translated

_SQLITE_HEADER_BYTES: Final = 100
_HEADER_BYTES: Final = 32
_FRAME_HEADER_BYTES: Final = 24
_FRAME_BYTES: Final = _FRAME_HEADER_BYTES + PAGE_BYTES
# Which filling of the log it is, in its header and in that of each frame, twice: a bit may have changed.
_SALTS: Final = (slice(16, 20), slice(20, 24))
_FRAME_SALTS: Final = (slice(8, 12), slice(12, 16))
_CHECKSUMS: Final = slice(24, 32)
_FRAME_CHECKSUMS: Final = slice(16, 24)
_CHECKED: Final = 8
"""Bytes of the header of a frame that its checksum covers, with the page."""
_BIG_ENDIAN: Final = b"\x37\x7f\x06\x83"
_WORD_MAX: Final = 0xFFFFFFFF
_FRAME_PAGE: Final = slice(0, 4)
# Of the last frame of a commit, how many pages the database has then; else zero.
_FRAME_COMMIT: Final = slice(4, 8)


def commits_behind(database: Path) -> int:
    """How many commits stand in the write-ahead log of a database behind the place where it breaks off.

    Nothing is changed. Nobody may have the database open: what is being written would count. Raises
    StoreError.
    """
    wal = database.with_name(database.name + "-wal")
    if not wal.exists() or not wal.stat().st_size:
        return 0
    with (
        translated(database.parent),
        closing(connect(database, durable=False, readonly=True)) as connection,
        wal.open("rb") as file,
    ):
        frames, _ = _frames(connection)
        return sum(_commits(file, frames))


def _commits(file: BinaryIO, at: int) -> Iterator[bool]:
    """Of each frame from a number on, whether it ends a commit of this filling of the log."""
    header = file.read(_HEADER_BYTES)
    while True:
        file.seek(_HEADER_BYTES + at * _FRAME_BYTES)
        frame = file.read(_FRAME_HEADER_BYTES)
        if len(frame) < _FRAME_HEADER_BYTES:
            return
        is_of_this = any(frame[one] == header[other] for one, other in zip(_FRAME_SALTS, _SALTS, strict=True))
        yield is_of_this and any(frame[_FRAME_COMMIT])
        at += 1


def is_whole(database: Path) -> bool:
    """Whether the file of the log of an open database has all frames that SQLite takes it to have.

    After a write that failed, the system may show again what stood there before. For who keeps others from
    writing meanwhile; it takes some seconds for 64 MB. Raises OSError and StoreError.

    SQLite says how many there are: to open and close the file in which it has that would drop its locks.
    """
    with closing(connect(database, durable=False)) as connection:
        frames, _ = _frames(connection)
    with suppress(FileNotFoundError), database.with_name(database.name + "-wal").open("rb") as file:
        return _has(file, frames)
    return not frames


def copy_again(database: Path, connection: apsw.Connection) -> None:
    """Writes the pages that were copied from the log into an open database once more, and syncs it.

    For who keeps all others from writing and from copying, with a log that is whole. Raises apsw.Error and
    OSError.

    The file is opened as SQLite does it: to close it otherwise would drop the locks of this process.
    """
    _, copied = _frames(connection)
    if not copied:
        return
    newest: dict[int, int] = {}
    with database.with_name(database.name + "-wal").open("rb") as log:
        for at in range(_HEADER_BYTES, _HEADER_BYTES + copied * _FRAME_BYTES, _FRAME_BYTES):
            log.seek(at)
            newest[int.from_bytes(log.read(_FRAME_HEADER_BYTES)[_FRAME_PAGE])] = at + _FRAME_HEADER_BYTES
        flags = [apsw.SQLITE_OPEN_MAIN_DB | apsw.SQLITE_OPEN_READWRITE, 0]
        file = apsw.VFSFile(CHECKSUMS_VFS, str(database), flags)
        try:
            file.xRead(_SQLITE_HEADER_BYTES, 0)  # has it see that pages carry checksums, which it makes
            for page, at in newest.items():
                log.seek(at)
                file.xWrite(log.read(PAGE_BYTES), (page - 1) * PAGE_BYTES)
            file.xSync(apsw.SQLITE_SYNC_NORMAL)
        finally:
            file.xClose()


def _frames(connection: apsw.Connection) -> tuple[int, int]:
    """How many frames the log has, and how many of them were copied into the database."""
    one(connection, "PRAGMA user_version")  # SQLite looks for the end
    return connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_NOOP)


def _has(file: BinaryIO, frames: int) -> bool:
    """Whether a log begins with so many frames whose checksums are right, each of which covers all before."""
    header = file.read(_HEADER_BYTES if frames else 0)
    order = ">" if header.startswith(_BIG_ENDIAN) else "<"
    sums = _summed(header[: _CHECKSUMS.start], order, (0, 0))
    if struct.pack(">2I", *sums) != header[_CHECKSUMS]:
        return not frames
    for _ in range(frames):
        frame = file.read(_FRAME_BYTES)
        if len(frame) < _FRAME_BYTES:
            return False
        sums = _summed(frame[:_CHECKED] + frame[_FRAME_HEADER_BYTES:], order, sums)
        if struct.pack(">2I", *sums) != frame[_FRAME_CHECKSUMS]:
            return False
    return True


def _summed(data: bytes, order: str, sums: tuple[int, int]) -> tuple[int, int]:
    """The checksums of some bytes after those of what came before (section 4.1)."""
    one, other = sums
    for first, second in struct.iter_unpack(f"{order}2I", data):
        one = (one + first + other) & _WORD_MAX
        other = (other + second + one) & _WORD_MAX
    return one, other


def told_of_commits_behind(commits: int) -> str:
    """What that means, for who looks after the server."""
    return (
        f"its write-ahead log breaks off, and {commits:,} commits behind that place can't be read. After a "
        "power cut that is as it should be: nobody was told of them. Else the disk has changed what was "
        "written, and acknowledged events are lost: keep a copy of the folder, and restore a backup."
    )
