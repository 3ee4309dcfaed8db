"""One account's log in one SQLite database: connections, and the transaction that records."""

import fcntl
import mmap
import os
import threading
import time
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any, Final

import apsw

from auditplane import ulid
from auditplane.errors import Damaged, Gone, StoreError
from auditplane.store import Restored, Signed, State, Stored
from auditplane.store.sqlite import block
from auditplane.store.sqlite.block import Header
from auditplane.store.sqlite.database import (
    BUSY_MS,
    PAGE_BYTES,
    Connected,
    begun,
    check_format,
    connect,
    fetch,
    is_current,
    migrate,
    one,
    translated,
)
from auditplane.store.sqlite.ranges import Ranges
from auditplane.store.sqlite.shown import shown_in
from auditplane.store.sqlite.statements import MIGRATIONS, QUERIES
from auditplane.store.sqlite.syncing import SYNC_BYTES, Syncs, failed_in, locked, shared_bytes
from auditplane.store.sqlite.tail import TailIndex
from auditplane.store.sqlite.terms import Terms
from auditplane.store.sqlite.values import KnownValues
from auditplane.times import format_us
from auditplane.zstd import decompress

BLOCK_KEYS_CACHED_MAX: Final = 4_096
FULL_KEPT_MAX: Final = 4_096
EMPTY_WAIT_MS: Final = 100
SECRET_BYTES: Final = 32


def sync_failed(path: Path) -> bool:
    """Whether the disk failed to write or sync a log, and what was written then was not written again."""
    return failed_in(path.with_suffix(".lock"), 0)


class AccountStore:
    """The store of one account; safe to use from several threads, and beside other processes.

    `tail_events` is how many events were not sealed when the last transaction of this process began.
    One that is `readonly` changes nothing in the folder, and can't record: for what looks at a folder only.

    Raises StorageFull when the disk is full, Damaged when stored bytes are not what was written, and
    StoreError for all else that the disk or SQLite refuse.
    """

    def __init__(self, path: Path, *, readonly: bool = False) -> None:
        self.path = path
        self._readonly = readonly
        self._mutex = threading.Lock()
        self._keeper_mutex = threading.Lock()
        self._cache_mutex = threading.Lock()
        self._idle: list[apsw.Connection] = []
        self._writer = Connected(path, durable=True, readonly=readonly)
        self._keeper = Connected(path, durable=False)
        self._block_keys: dict[int, array[int]] = {}
        self.full = Ranges()
        self._last_opened: tuple[int, Sequence[int], Sequence[bytes]] = (0, (), ())
        self.tail = TailIndex()
        self.values = KnownValues()
        self.tail_events = 0
        with translated(path.parent), ExitStack() as undo:
            if readonly:
                self._lock_file = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)  # nobody writes here
                undo.callback(os.close, self._lock_file)
                self._shared = mmap.mmap(-1, SYNC_BYTES)
            else:
                lock = path.with_suffix(".lock")
                self._lock_file = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
                undo.callback(os.close, self._lock_file)
                self._shared = shared_bytes(self._lock_file, SYNC_BYTES)
            undo.callback(self._shared.close)
            self._syncs = Syncs(path, self._shared, 0)
            undo.callback(self._writer.close)
            if readonly:
                with self._writer.use() as writer:
                    check_format(writer, MIGRATIONS, str(path))
                    self.terms = Terms(self._secret(writer))
            else:
                with self._alone(), self._writer.use() as writer:
                    path.chmod(0o600)
                    # What can be read is, also where the disk fails.
                    with suppress(OSError, StoreError), self._copying_alone() as is_alone:
                        self._syncs.make_sure_at_start(upkeep_is_over=is_alone)
                    if not is_current(writer, MIGRATIONS):
                        with self._syncs.committing():
                            migrate(writer, MIGRATIONS, str(path))
                    self.terms = Terms(self._secret(writer))
            undo.pop_all()

    def _secret(self, connection: apsw.Connection) -> bytes:
        secret = one(connection, QUERIES["secret"])
        if not isinstance(secret, bytes) or len(secret) != SECRET_BYTES:
            raise self.lacks("the secret of its tokens")
        return secret

    def close(self) -> None:
        """Closes all connections; no call may be under way."""
        while self._idle:
            self._idle.pop().close()
        self._keeper.close()
        with self._alone():
            # The last one of all copies the write-ahead log into the database. One that is readonly must not
            # even sync it: nobody would hear from it that the disk failed.
            copying = not self._readonly and self._syncs.is_synced() and self._syncs.may_copy
            self._writer.close(copying=copying)
        self._shared.close()
        os.close(self._lock_file)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Holds the account against other writers, in this process and others."""
        with self._mutex, locked(self._lock_file):
            yield

    @contextmanager
    def transaction(self) -> Iterator["Transaction"]:
        """All that is added in it is on disk afterwards, or none of it, when it raises."""
        with self._durable() as connection:
            transaction = Transaction(self, connection)
            yield transaction
            transaction.write()

    @contextmanager
    def _durable(self) -> Iterator[apsw.Connection]:
        """A write transaction that is on disk afterwards."""
        with (
            translated(self.path.parent),
            self._alone(),
            self._keeping_no_lost_block(),
            self._writer.use() as connection,
            self._syncs.committing(),
            begun(connection, "BEGIN IMMEDIATE"),
        ):
            yield connection

    @contextmanager
    def _keeping_no_lost_block(self) -> Iterator[None]:
        """Forgets what is kept of blocks when a transaction is taken back: the ids of its own come again."""
        try:
            yield
        except BaseException:
            with self._cache_mutex:
                self._block_keys.clear()
            self._last_opened = (0, (), ())
            raise

    @contextmanager
    def maintenance(self) -> Iterator[apsw.Connection]:
        """A write transaction for work that need not survive a crash: only its order is kept."""
        with self._kept() as keeper, self._alone():
            self._writer.check_files()  # once more, as somebody else was waited for
            self._syncs.make_sure()
            with begun(keeper, "BEGIN IMMEDIATE"):
                yield keeper

    @contextmanager
    def _kept(self) -> Iterator[apsw.Connection]:
        """The connection for upkeep."""
        with translated(self.path.parent), self._keeper_mutex, self._syncs.noting():
            self._writer.check_files()
            with self._keeper.use() as connection:
                yield connection

    @contextmanager
    def snapshot(self) -> Iterator[apsw.Connection]:
        """A consistent view, to be held for a short time only."""
        with translated(self.path.parent):
            try:
                connection = self._idle.pop()
            except IndexError:
                connection = self._connect_reader()
            try:
                with begun(connection, "BEGIN"):
                    yield connection
            except (apsw.Error, StoreError):
                connection.close()
                raise
            except BaseException:
                self._idle.append(connection)
                raise
            self._idle.append(connection)

    def _connect_reader(self) -> apsw.Connection:
        self._writer.check_files()
        return connect(self.path, durable=False, readonly=self._readonly)

    @contextmanager
    def long_view(self) -> Iterator[apsw.Connection]:
        """A consistent view that may be held long, though the write-ahead log grows as long as it is.

        Its connection is of its own: FTS5 checks its tables against what a connection kept of them before.
        """
        with translated(self.path.parent):
            connection = self._connect_reader()
            try:
                with begun(connection, "BEGIN"):
                    yield connection
            finally:
                connection.close()

    def empty_wal(self) -> bool:
        """Empties the write-ahead log when that is due, as it may hold what was destroyed.

        Says whether nothing of that is left in it.
        Readers may keep it from that, for as long as a step of theirs takes.
        """
        with self.snapshot() as connection:
            if not one(connection, QUERIES["wal_due"]):
                return True
        with self._kept() as keeper, self._copying_alone() as is_alone:
            if not is_alone:
                time.sleep(EMPTY_WAIT_MS / 1_000)
                return False
            self._syncs.sync_before_copying()
            with self._alone():
                self._make_ready_to_copy(keeper)
                if not self._emptied(keeper):
                    return False
                # Nobody may destroy anything before this: it would not be due any more.
                with begun(keeper, "BEGIN IMMEDIATE"):
                    fetch(keeper, QUERIES["set_wal_due"], (0,))
        return True

    @property
    def wal_bytes(self) -> int:
        """The size of the write-ahead log."""
        try:
            return self.path.with_name(self.path.name + "-wal").stat().st_size
        except FileNotFoundError:
            return 0

    def wal_bytes_to_copy(self) -> int:
        """How much of the write-ahead log is not in the database yet."""
        with self._kept() as keeper:
            pages, copied = keeper.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_NOOP)
            return (pages - copied) * PAGE_BYTES

    def checkpoint(self, *, whole: bool) -> None:
        """Copies the write-ahead log into the database; with `whole` it is emptied, and writers wait.

        A copy of the log in the database is worth nothing without the log, so the disk has to have it first.
        """
        with self._kept() as keeper, self._copying_alone() as is_alone:
            if not is_alone:
                return
            self._syncs.sync_before_copying()
            with self._alone():
                self._make_ready_to_copy(keeper)
                if whole:
                    self._emptied(keeper)  # when a reader is in a step, the next round does it
                    return
            self._syncs.copy(keeper, apsw.SQLITE_CHECKPOINT_PASSIVE)

    def _make_ready_to_copy(self, keeper: apsw.Connection) -> None:
        """Has the log on the disk, and in the database what copies that failed may have lost."""
        self._syncs.sync()
        self._syncs.mend_copies(keeper)

    @contextmanager
    def _copying_alone(self) -> Iterator[bool]:
        """Keeps other processes from copying the log meanwhile; says whether none is at it.

        Its lock is another one than that of who writes to the log, on the same file.
        """
        try:
            fcntl.lockf(self._lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        try:
            yield True
        finally:
            fcntl.lockf(self._lock_file, fcntl.LOCK_UN)

    def _emptied(self, keeper: apsw.Connection) -> bool:
        """Empties the write-ahead log while nobody writes; says whether no reader kept it from that."""
        keeper.set_busy_timeout(EMPTY_WAIT_MS)
        try:
            self._syncs.copy(keeper, apsw.SQLITE_CHECKPOINT_TRUNCATE)
            return not self.wal_bytes
        finally:
            keeper.set_busy_timeout(BUSY_MS)

    def get(self, event_id: str) -> Stored | None:
        """The event of an id, or None; raises Gone when it expired or was erased."""
        with self.snapshot() as connection:
            stored = self.find(connection, event_id)
            if stored is None:
                self._check_not_gone(connection, event_id)
            return stored

    def _check_not_gone(self, connection: apsw.Connection, event_id: str) -> None:
        """Raises Gone for the id of an event that is gone, or as old as some that have expired."""
        for at_us, reason in fetch(connection, QUERIES["erasure"], (event_id.encode(),)):
            raise Gone(f"The event {event_id} was erased at {format_us(at_us)}: {reason}")
        key = ulid.key_of(event_id)
        if key is not None and key <= one(connection, QUERIES["gone_high"]):
            raise Gone(
                f"The event {event_id} has expired, if there was one: events are kept for a time only."
            )

    def check_files(self) -> None:
        """Raises StoreError when its files were moved away or replaced: nothing would be recorded."""
        self._writer.check_files()

    def size(self) -> int:
        """The next index."""
        with self.snapshot() as connection:
            return self.size_in(connection)

    def size_in(self, connection: apsw.Connection) -> int:
        """The next index in a view."""
        return int(one(connection, QUERIES["size"]))

    def expired_in(self, connection: apsw.Connection) -> int:
        """The index before which events have expired, unless a hold keeps them, in a view."""
        return int(one(connection, QUERIES["expired"]))

    def count_tail(self) -> int:
        """Counts anew how many events are not sealed."""
        with self.snapshot() as connection:
            size, sealed = fetch(connection, QUERIES["sealed"])[0]
        self.tail_events = size - sealed
        return self.tail_events

    def last_commit_us(self) -> int:
        """When something was last recorded, by the clock of that moment; microseconds since 1970."""
        with self.snapshot() as connection:
            return State(*fetch(connection, QUERIES["state"])[0][:3]).at_us

    def checkpoint_in(self, connection: apsw.Connection) -> Signed | None:
        """The newest signed checkpoint in a view."""
        rows = fetch(connection, QUERIES["checkpoint"])
        return Signed(*rows[0]) if rows else None

    def keep_checkpoint(self, signed: Signed) -> Signed:
        """Stores a checkpoint on the disk; returns the newest, which may be one of another process.

        Raises Damaged rather than contradict what was signed.
        """
        with self._durable() as connection:
            newest = self.checkpoint_in(connection)
            if newest is not None and newest.size > signed.size:
                return newest
            if newest is not None and newest.size == signed.size and newest.root != signed.root:
                raise Damaged(f"{self.path} has two roots of {signed.size} entries; nothing more is signed.")
            fetch(connection, QUERIES["set_checkpoint"], signed)
            return signed

    def restored_in(self, connection: apsw.Connection) -> Restored | None:
        """The mark of a log that was restored and is not confirmed, in a view."""
        rows = fetch(connection, QUERIES["restored"])
        return Restored(*rows[0]) if rows else None

    def restored(self) -> Restored | None:
        """The mark of a log that was restored and is not confirmed."""
        with self.snapshot() as connection:
            return self.restored_in(connection)

    def mark_restored(self, restored: Restored) -> None:
        """Marks the log on the disk as restored."""
        with self._durable() as connection:
            fetch(connection, QUERIES["set_restored"], restored)

    def find(self, connection: apsw.Connection, event_id: str) -> Stored | None:
        """The event of an id in a view, unless it has expired."""
        stored = self.find_stored(connection, event_id)
        if stored is None or not shown_in(connection).event(stored.index, stored.doc):
            return None
        return stored

    def find_stored(self, connection: apsw.Connection, event_id: str) -> Stored | None:
        """The event of an id in a view, also one that has expired and is not destroyed yet."""
        return next((stored for _, stored in self.find_each_stored(connection, [event_id])), None)

    def find_each_stored(
        self, connection: apsw.Connection, event_ids: Iterable[str]
    ) -> Iterator[tuple[str, Stored]]:
        """Those of some ids that are in a view, each with its id, as `find_stored` finds them.

        They come in the order in which they stand, so that each block and each of its frames is opened once.
        """
        keys = [(self._key_of(connection, event_id), event_id) for event_id in event_ids]
        ascending = sorted((key, event_id) for key, event_id in keys if key is not None)
        ids: dict[int, list[str]] = {}
        for key, event_id in ascending:
            ids.setdefault(key, []).append(event_id)
        for stored in self._at_each(connection, ids):
            for event_id in ids[stored.key]:
                if stored.doc.startswith(b'{"id":"%s"' % event_id.encode()):
                    yield event_id, stored

    def _key_of(self, connection: apsw.Connection, event_id: str) -> int | None:
        """The key at which the event of an id would be, in a view."""
        key: int | None = one(connection, QUERIES["given_key"], (event_id.encode(),))
        return ulid.key_of(event_id) if key is None else key

    def was_erased(self, connection: apsw.Connection, event_id: str) -> bool:
        """Whether an event of this id was erased, in a view."""
        return bool(fetch(connection, QUERIES["erasure"], (event_id.encode(),)))

    def at(self, connection: apsw.Connection, key: int) -> Stored | None:
        """The event at a key in a view."""
        return next(self._at_each(connection, [key]), None)

    def _at_each(self, connection: apsw.Connection, keys: Iterable[int]) -> Iterator[Stored]:
        """The events at some keys in a view: those of the tail, then those of each block."""
        sealed: list[tuple[int, int, int, Header]] = []
        for key in keys:
            rows = fetch(connection, QUERIES["tail_at"], (key,))
            if rows:
                yield Stored(key, *rows[0])
                continue
            for header in self.straddling(connection, key):
                line = block.line_of(self.block_keys(connection, header.id), key)
                if line is not None:
                    sealed.append((header.id, line, key, header))
                    break
        opened_id, text = -1, b""
        for block_id, line, key, header in sorted(sealed):  # no line of a block is there twice
            frame_id, at = block.frame_of(block_id, line)
            if frame_id != opened_id:
                (frame,) = self.frames(connection, range(frame_id, frame_id + 1))
                opened_id, text = frame_id, decompress(frame)
            indexes, stamps = self._indexes_and_stamps(connection, header)
            yield Stored(key, indexes[header.count - 1 - line], block.nth(text, at), stamps[line])

    def _indexes_and_stamps(
        self, connection: apsw.Connection, header: Header
    ) -> tuple[Sequence[int], Sequence[bytes]]:
        """Those of a block. Of the last one they are kept: an import that is repeated asks for each."""
        block_id, indexes, stamps = self._last_opened
        if block_id != header.id:
            indexes = block.unpack_numbers(self.data(connection, "block_indexes", header.id))
            stamps = block.lines(self.data(connection, "block_stamps", header.id), header.count)
            self._last_opened = (header.id, indexes, stamps)
        return indexes, stamps

    def straddling(self, connection: apsw.Connection, first: int, last: int | None = None) -> list[Header]:
        """Of each run, the last block that holds a key from `first` to `last` between its bounds."""
        rows = fetch(connection, QUERIES["straddling"], (first, first if last is None else last))
        return [Header(*row) for row in rows]

    def data(self, connection: apsw.Connection, query: str, block_id: int) -> bytes:
        """A column of a block."""
        data: bytes | None = one(connection, QUERIES[query], (block_id,))
        if data is None:
            raise self.lacks(f"a part of block {block_id}")
        return data

    def frames(self, connection: apsw.Connection, ids: range) -> list[bytes]:
        """Some frames of a block."""
        frames = [row[0] for row in fetch(connection, QUERIES["frames"], (ids.start, ids.stop))]
        if len(frames) != len(ids):
            raise self.lacks(f"one of the frames {list(ids)}")
        return frames

    def lacks(self, what: str) -> Damaged:
        """The error for a part that is missing."""
        return Damaged(f"{self.path} lacks {what}. Restore it from a backup.")

    def block_keys(self, connection: apsw.Connection, block_id: int) -> "array[int]":
        """The keys of a block, ascending. They are kept: a block never changes, nor is its id used again.

        But for an id of a transaction that is taken back, which `transaction` sees to.
        """
        keys = self._block_keys.get(block_id)
        if keys is None:
            keys = block.unpack_numbers(self.data(connection, "block_keys", block_id))
            with self._cache_mutex:
                if len(self._block_keys) >= BLOCK_KEYS_CACHED_MAX:
                    del self._block_keys[next(iter(self._block_keys))]
                self._block_keys[block_id] = keys
        return keys

    def keep_full(self, full: Ranges) -> None:
        """Keeps which microseconds have no free key, as they would be walked through again."""
        if len(self.full) > FULL_KEPT_MAX:
            self.full = Ranges()
        for start, end in full:
            self.full.add(start, end)


class Transaction:
    """Adds events to the log; what was added can be found before it is written."""

    def __init__(self, store: AccountStore, connection: apsw.Connection) -> None:
        self._store = store
        self.connection = connection
        size, newest_us, at_us, low, high, overflow_us, sealed = fetch(connection, QUERIES["state"])[0]
        store.tail_events = size - sealed
        self.state = State(size, newest_us, at_us)
        self._first = size
        self._low, self._high, self._overflow_us = low, high, overflow_us
        self._keys: list[int] = []
        self._docs: list[bytes] = []
        self._stamps: list[bytes] = []
        self._entries: list[bytes] = []
        self._given: dict[str, Stored] = {}
        self._tops: dict[int, int] = {}
        self._full = Ranges()

    def part(self) -> AbstractContextManager[None]:
        """What one of several requests does: its errors are ours, and need not be those of the others."""
        return translated(self._store.path.parent)

    def find(self, event_id: str) -> Stored | None:
        """The event of an id, stored or added here."""
        stored = self._given.get(event_id)
        return self._store.find(self.connection, event_id) if stored is None else stored

    def find_each_stored(self, event_ids: Iterable[str]) -> Iterator[tuple[str, Stored]]:
        """Those of some ids that are there, each with its id, also what has expired and is not destroyed yet.

        In the order in which they stand, not that of the ids.
        """
        left = []
        for event_id in event_ids:
            stored = self._given.get(event_id)
            if stored is None:
                left.append(event_id)
            else:
                yield event_id, stored
        yield from self._store.find_each_stored(self.connection, left)

    def was_erased(self, event_id: str) -> bool:
        """Whether an event of this id was erased."""
        return self._store.was_erased(self.connection, event_id)

    def restored(self) -> Restored | None:
        """The mark of a log that was restored and is not confirmed."""
        return self._store.restored_in(self.connection)

    def clear_restored(self) -> None:
        """Takes the mark away."""
        fetch(self.connection, QUERIES["clear_restored"])

    def place(self, us: int) -> int:
        """A free key for an event of `us`: the next in its microsecond, or in a later one that has room."""
        key = us << ulid.COUNTER_BITS
        if key > self._high:
            self._high = key
            self._low = min(self._low, key)
        else:
            key = self._free(us)
            self._low, self._high = min(self._low, key), max(self._high, key)
            self._overflow_us = max(self._overflow_us, (key >> ulid.COUNTER_BITS) - us)
        self._tops[key >> ulid.COUNTER_BITS] = key
        return key

    def place_all(self, moments: Sequence[int]) -> Sequence[int]:
        """A free key for each of some moments, ascending."""
        if moments[0] << ulid.COUNTER_BITS <= self._high:
            return [self.place(us) for us in moments]
        keys = [us << ulid.COUNTER_BITS for us in moments]
        self._low, self._high = min(self._low, keys[0]), keys[-1]
        self._tops.update(zip(moments, keys, strict=True))
        return keys

    def _free(self, first: int) -> int:
        """The first free key from a microsecond on. All that are full up to it are kept: none is asked for
        twice."""
        us = self._after_full(first)
        while True:
            start = us << ulid.COUNTER_BITS
            top = self._tops.get(us)
            if top is None:
                top = self._stored_top(start, start + ulid.COUNTERS)
            if top is None or top < start + ulid.COUNTERS - 1:
                break
            us = self._after_full(us + 1)
        if us != first:
            self._full.add(first, us)
        return start if top is None else top + 1

    def _after_full(self, us: int) -> int:
        """The microsecond itself, or one after some that are known to be full."""
        return self._store.full.after(self._full.after(us))

    def _stored_top(self, start: int, end: int) -> int | None:
        """The greatest stored key of a microsecond."""
        if end <= self._low or start > self._high:
            return None
        top: int | None = one(self.connection, QUERIES["tail_top"], (start, end))
        tops = [] if top is None else [top]
        for header in self._store.straddling(self.connection, start, end - 1):
            top = block.greatest_below(self._store.block_keys(self.connection, header.id), end)
            if top is not None and top >= start:
                tops.append(top)
        return max(tops, default=None)

    def add(
        self,
        keys: Sequence[int],
        docs: Sequence[bytes],
        stamps: Sequence[bytes],
        entries: Sequence[bytes],
        given: Mapping[int, str],
    ) -> None:
        """Adds complete events at the next indexes; `given` are the ids not made from keys, by position."""
        for at, event_id in given.items():
            self._given[event_id] = Stored(keys[at], self.state.size + at, docs[at], stamps[at])
        self._keys += keys
        self._docs += docs
        self._stamps += stamps
        self._entries += entries
        self.state.size += len(keys)

    def write(self) -> None:
        """Writes what was added."""
        keys, connection = self._keys, self.connection
        if not keys:
            return
        if not connection.in_transaction:
            raise StoreError(f"The disk failed while {self._store.path} was read; nothing was recorded.")
        rows = zip(keys, count(self._first), self._docs, self._stamps, strict=False)
        connection.executemany(QUERIES["add_tail"], rows)
        if self._given:
            # In place of the row of an event that has expired and is still stored.
            given = [(event_id.encode(), stored.key) for event_id, stored in self._given.items()]
            connection.executemany(QUERIES["add_given"], given)
        entries = (self._first, len(keys), block.pack_numbers(keys), b"".join(self._entries))
        fetch(connection, QUERIES["add_entries"], entries)
        state: tuple[Any, ...] = (self.state.size, self.state.newest_us, self.state.at_us)
        fetch(connection, QUERIES["set_state"], (*state, self._low, self._high, self._overflow_us))
        self._store.keep_full(self._full)
