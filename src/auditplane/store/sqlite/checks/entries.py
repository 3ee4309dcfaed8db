"""The entries of a log, the tree over them, and what is expected at each index."""

from array import array
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

import apsw

from auditplane import merkle
from auditplane.merkle import ENTRY_BYTES, HASH_BYTES, leaf_hash, leaf_hashes, tile_root
from auditplane.store.sqlite import block
from auditplane.store.sqlite.block import GONE
from auditplane.store.sqlite.checks import QUERIES, Problem, telling
from auditplane.store.sqlite.database import fetch
from auditplane.tiles import TILE_HASHES, Tile, tile_nodes

EXPECTED: Final = 0
SEEN: Final = 1
TAKEN_OUT: Final = 2
UNKNOWN: Final = 3
ENTRIES_CACHED_MAX: Final = 262_144

_TILE_BYTES: Final = TILE_HASHES * HASH_BYTES
_NO_ENTRY: Final = bytes(ENTRY_BYTES)


class Entries:
    """What the log says of each index below `size`.

    `states` has a byte for each: whether its event is EXPECTED, SEEN, TAKEN_OUT as the entry says, or UNKNOWN
    as the entry can't be read.
    """

    def __init__(self, connection: apsw.Connection, folder: Path, size: int, problem: Problem) -> None:
        self._connection, self._folder, self._problem = connection, folder, problem
        self.size = size
        self.states = bytearray(size)
        self._next = 0
        self._firsts = array("q")
        self._levels = [bytearray()]  # the hashes of each level of tiles; those of level 0 not in a tile yet
        self._leaves = bytearray()
        self._cached: OrderedDict[int, tuple[Sequence[int], bytes]] = OrderedDict()
        self._cached_entries = 0
        self._counts: list[tuple[int, int]] = []

    def walk(self) -> None:
        """Reads them all and makes their tree."""
        with telling(self._problem, "the table of the entries", self._folder):
            for first, count, packed, hashes in self._connection.execute(QUERIES["entries"]):
                self._take(first, count, packed, hashes)
        if self._next < self.size:
            self._lack(self.size)
        self._check_nodes()

    def _take(self, first: int, count: int, packed: bytes, hashes: bytes) -> None:
        last = first + len(hashes) // ENTRY_BYTES - 1
        if first < self._next or last >= self.size or last < first or len(hashes) % ENTRY_BYTES:
            self._problem(
                f"the row of entries from {first} on has {len(hashes)} bytes of hashes; the next entry is "
                f"{self._next}, and the log has {self.size}"
            )
            return
        if first > self._next:
            self._lack(first)
        keys: Sequence[int] = ()  # none are decoded when they can't be read
        with telling(self._problem, f"the keys of the entries from {first} to {last}", self._folder):
            keys = block.unpack_exactly(packed)
        if not count == len(keys) == last + 1 - first:
            self._problem(
                f"the row of entries from {first} on has {count} entries, {len(keys)} keys and "
                f"{last + 1 - first} hashes"
            )
        if len(keys) != last + 1 - first:
            self.states[first : last + 1] = bytes((UNKNOWN,)) * (last + 1 - first)
        else:
            self._firsts.append(first)
            self._note_gone(first, keys)
        self._note_count(last + 1 - first)
        self._add_leaves(hashes)
        self._next = last + 1

    def _note_gone(self, first: int, keys: Sequence[int]) -> None:
        if min(keys) < 0:
            for index, key in enumerate(keys, first):
                if key == GONE:
                    self.states[index] = TAKEN_OUT
                elif key < 0:
                    self.states[index] = UNKNOWN
                    self._problem(f"the entry {index} has {key} for a key")

    def _note_count(self, count: int) -> None:
        if not self._counts or self._counts[-1][0] != count:
            self._counts.append((count, 1))
        else:
            self._counts[-1] = (count, self._counts[-1][1] + 1)

    def is_boundary(self, index: int) -> bool:
        """Whether all rows before an index have the same number of entries, and one ends there."""
        if index == 0:
            return True
        count, rows = self._counts[0] if self._counts else (0, 0)
        return count > 0 and index % count == 0 and index <= count * rows

    def _lack(self, end: int) -> None:
        """Takes up that the entries up to one are not there; what stands for them leads to another root."""
        lacking = end - self._next
        self._problem(f"the entries from {self._next} to {end - 1} are missing")
        self.states[self._next : end] = bytes((UNKNOWN,)) * lacking
        for _ in range(lacking // TILE_HASHES):
            self._add_leaves(_NO_ENTRY * TILE_HASHES)
        self._add_leaves(_NO_ENTRY * (lacking % TILE_HASHES))
        self._next = end

    # The tree.

    def _add_leaves(self, hashes: bytes) -> None:
        self._leaves += leaf_hashes(hashes)
        whole = len(self._leaves) // _TILE_BYTES * _TILE_BYTES
        for at in range(0, whole, _TILE_BYTES):
            self._add_node(1, tile_root(bytes(self._leaves[at : at + _TILE_BYTES])))
        del self._leaves[:whole]

    def _add_node(self, level: int, hashed: bytes) -> None:
        if level == len(self._levels):
            self._levels.append(bytearray())
        hashes = self._levels[level]
        hashes += hashed
        if len(hashes) % _TILE_BYTES == 0:
            self._add_node(level + 1, tile_root(bytes(hashes[-_TILE_BYTES:])))

    def _check_nodes(self) -> None:
        """The stored nodes are those of the tree, without gaps."""
        following: dict[int, int] = {}
        with telling(self._problem, "the table of the tree's nodes", self._folder):
            for level, n, hashed in self._connection.execute(QUERIES["nodes"]):
                known = self._levels[level] if 0 < level < len(self._levels) else b""
                if n < 0 or bytes(known[n * HASH_BYTES : (n + 1) * HASH_BYTES]) != hashed or not hashed:
                    self._problem(
                        f"the node {n} of level {level} of the tree is not the hash of the entries below it"
                    )
                elif n != following.get(level, 0):
                    self._problem(f"the nodes of level {level} of the tree lack some before {n}")
                following[level] = n + 1

    def root(self, size: int) -> bytes:
        """The root of the first `size` entries."""
        return merkle.root(size, tile_nodes(self._tile, size))

    def _tile(self, tile: Tile) -> bytes:
        start, end = tile.n * TILE_HASHES, tile.n * TILE_HASHES + tile.width
        if tile.level:
            return bytes(self._levels[tile.level][start * HASH_BYTES : end * HASH_BYTES])
        return b"".join([leaf_hash(self.at(index)[1]) for index in range(start, end)])

    # Single entries.

    def at(self, index: int) -> tuple[int, bytes]:
        """Key and hash of an entry; GONE and zeros where they can't be read."""
        row = bisect_right(self._firsts, index) - 1
        if row >= 0:
            first = self._firsts[row]
            keys, hashes = self._row(first)
            if index - first < len(keys):
                at = index - first
                return keys[at], hashes[at * ENTRY_BYTES : (at + 1) * ENTRY_BYTES]
        return GONE, self._hash_alone(index)

    def _hash_alone(self, index: int) -> bytes:
        """The hash of an entry whose keys can't be read."""
        for first, hashes in fetch(self._connection, QUERIES["hashes_below"], (index,)):
            return bytes(hashes[(index - first) * ENTRY_BYTES :][:ENTRY_BYTES]).ljust(ENTRY_BYTES, b"\0")
        return _NO_ENTRY

    def _row(self, first: int) -> tuple[Sequence[int], bytes]:
        found = self._cached.get(first)
        if found is None:
            packed, hashes = fetch(self._connection, QUERIES["entry"], (first,))[0]
            found = self._cached[first] = (block.unpack_numbers(packed), hashes)
            self._cached_entries += len(found[0])
            while self._cached_entries > ENTRIES_CACHED_MAX and len(self._cached) > 1:
                _, (keys, _) = self._cached.popitem(last=False)
                self._cached_entries -= len(keys)
        else:
            self._cached.move_to_end(first)
        return found

    def of(self, indexes: Sequence[int]) -> tuple[list[int], bytes]:
        """Keys and hashes, packed, of some entries, all below `size`."""
        keys: list[int] = []
        hashes: list[bytes] = []
        at = 0
        while at < len(indexes):
            index = indexes[at]
            row = bisect_right(self._firsts, index) - 1
            first = self._firsts[row] if row >= 0 else 0
            row_keys, row_hashes = self._row(first) if row >= 0 else ((), b"")
            start = index - first
            if start >= len(row_keys):
                keys.append(GONE)
                hashes.append(self._hash_alone(index))
                at += 1
                continue
            run = _run(indexes, at, len(row_keys) - start)
            keys += row_keys[start : start + run]
            hashes.append(row_hashes[start * ENTRY_BYTES : (start + run) * ENTRY_BYTES])
            at += run
        return keys, b"".join(hashes)

    def mark_seen(self, indexes: Sequence[int]) -> bool:
        """Marks some as SEEN if all of them are EXPECTED, each once; says whether they were."""
        first, end = indexes[0], indexes[-1] + 1
        if end - first == len(indexes) == _run(indexes, 0, len(indexes)):
            if self.states.count(EXPECTED, first, end) != len(indexes):
                return False
            self.states[first:end] = bytes((SEEN,)) * len(indexes)
            return True
        states = self.states
        if any(map(states.__getitem__, indexes)) or len(set(indexes)) != len(indexes):
            return False
        for index in indexes:
            states[index] = SEEN
        return True

    def where(self, state: int) -> Iterable[int]:
        """The indexes in a state."""
        at = self.states.find(state)
        while at >= 0:
            yield at
            at = self.states.find(state, at + 1)


def _run(indexes: Sequence[int], at: int, at_most: int) -> int:
    """How many of some indexes follow each other from a position on."""
    first = indexes[at]
    end = min(at + at_most, len(indexes))
    if at + 1 >= end or indexes[at + 1] != first + 1:
        return 1
    if indexes[end - 1] - first == end - 1 - at and _is_range(indexes, at, end):
        return end - at
    run = 1
    while at + run < end and indexes[at + run] == first + run:
        run += 1
    return run


def _is_range(indexes: Sequence[int], at: int, end: int) -> bool:
    first = indexes[at]
    return list(indexes[at:end]) == list(range(first, first + end - at))
