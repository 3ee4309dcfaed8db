"""Events in the order of their commits, each with its index and stamp: what proofs are made and checked of.

A step looks at one consistent view and gives about CHUNK_BYTES of docs. Events that are gone, because they
expired or were erased, are left out: their indexes are missing.
"""

from array import array
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import apsw

from auditplane import limits
from auditplane.event import decode_docs
from auditplane.query import Query
from auditplane.store import Stored
from auditplane.store.sqlite import block
from auditplane.store.sqlite.account import AccountStore
from auditplane.store.sqlite.block import GONE, Header
from auditplane.store.sqlite.database import fetch
from auditplane.store.sqlite.shown import shown_in
from auditplane.store.sqlite.statements import QUERIES
from auditplane.zstd import decompress

ENTRY_ROWS_MAX: Final = 64
BLOCKS_OPEN_MAX: Final = 16


@dataclass(frozen=True, slots=True)
class _Opened:
    """A whole block; all in the ascending order of the keys."""

    keys: "array[int]"
    indexes: Sequence[int]
    docs: Sequence[bytes]
    stamps: Sequence[bytes]

    def at(self, key: int, index: int) -> Stored | None:
        """The event of a key, when it is the one of this index."""
        at = bisect_left(self.keys, key)
        if at == len(self.keys) or self.keys[at] != key or self.indexes[at] != index:
            return None
        return Stored(key, index, self.docs[at], self.stamps[at])


class Recorded:
    """The events that match a query, its order and cursor aside, with an index from `start` to before `end`.

    `next` is the index that the next step begins with.
    """

    def __init__(self, store: AccountStore, query: Query, start: int, end: int) -> None:
        self._store, self._query = store, query
        self.next, self._end = start, end
        self._all = not query.filtered and query.min_us is None and query.max_us is None
        self._opened: OrderedDict[int, _Opened] = OrderedDict()

    def __iter__(self) -> Iterator[list[Stored]]:
        """The events of each step, which may be none."""
        while self.next < self._end:
            with self._store.snapshot() as connection:
                found = self._step(connection)
            yield self._matching(found)

    def _matching(self, found: list[Stored]) -> list[Stored]:
        if self._all:
            return found
        events = decode_docs([stored.doc for stored in found])
        matches = self._query.matches
        return [stored for stored, event in zip(found, events, strict=True) if matches(event)]

    def _step(self, connection: apsw.Connection) -> list[Stored]:
        for block_id in list(self._opened):  # what was dropped since may hold what was erased
            if not fetch(connection, QUERIES["has_block"], (block_id,)):
                del self._opened[block_id]
        shown = shown_in(connection, self._end)
        found = []
        bytes_left = limits.CHUNK_BYTES
        for key in self._keys(connection):
            hidden = key == GONE or not shown.may_show(self.next)
            stored = None if hidden else self._find(connection, key, self.next)
            self.next += 1
            if stored is not None and shown.event(stored.index, stored.doc):
                found.append(stored)
                bytes_left -= len(stored.doc)
            if bytes_left <= 0 or self.next >= self._end:
                break
        return found

    def _keys(self, connection: apsw.Connection) -> Iterator[int]:
        """The keys of the entries from `next` on, of some rows; of one at the least."""
        start = at = self.next
        for first, entries, packed in fetch(connection, QUERIES["entries_from"], (at, ENTRY_ROWS_MAX)):
            if not first <= at < first + entries:
                break
            yield from block.unpack_numbers(packed)[at - first :]
            at = first + entries
        if at == start:
            raise self._store.lacks(f"the entry {at}")

    def _find(self, connection: apsw.Connection, key: int, index: int) -> Stored | None:
        for opened in reversed(self._opened.values()):
            stored = opened.at(key, index)
            if stored is not None:
                return stored
        for found_index, doc, stamp in fetch(connection, QUERIES["tail_at"], (key,)):
            if found_index == index:
                return Stored(key, index, doc, stamp)
        for header in self._store.straddling(connection, key):
            if header.id not in self._opened:
                self._open(connection, header)
            stored = self._opened[header.id].at(key, index)
            if stored is not None:
                self._opened.move_to_end(header.id)
                return stored
        return None

    def _open(self, connection: apsw.Connection, header: Header) -> None:
        store = self._store
        frames = store.frames(connection, block.frame_ids(header.id, 0, header.count))
        docs = block.split(b"".join(map(decompress, frames)), header.count)
        stamps = block.lines(store.data(connection, "block_stamps", header.id), header.count)
        self._opened[header.id] = _Opened(
            store.block_keys(connection, header.id),
            block.unpack_numbers(store.data(connection, "block_indexes", header.id)),
            docs[::-1],
            stamps[::-1],
        )
        while len(self._opened) > BLOCKS_OPEN_MAX:
            self._opened.popitem(last=False)
