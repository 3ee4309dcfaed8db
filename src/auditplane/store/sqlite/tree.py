"""The Merkle tree of a log: its tiles, read from the entries and from the nodes above them.

Nodes are added by upkeep, in bounded steps: recording waits for none of them. What is missing is made from
the entries when it is read, so that the tree is always that of all that is committed.
"""

from typing import Final

import apsw

from auditplane.merkle import ENTRY_BYTES, Nodes, leaf_hashes, tile_root
from auditplane.store.sqlite.account import AccountStore
from auditplane.store.sqlite.database import fetch, one
from auditplane.store.sqlite.statements import QUERIES
from auditplane.tiles import ENTRIES, TILE_HASHES, Tile, tile_nodes

GROWN_AT_ONCE: Final = 64


class Tree:
    """The tree in one view."""

    def __init__(self, store: AccountStore, connection: apsw.Connection) -> None:
        self._store, self._connection = store, connection

    def nodes(self, size: int) -> Nodes:
        """The nodes of the first `size` entries."""
        return tile_nodes(self.tile, size)

    def tile(self, tile: Tile) -> bytes:
        """The hashes of a tile, or the entries of a bundle, packed; all of them must be committed."""
        start, end = tile.n * TILE_HASHES, tile.n * TILE_HASHES + tile.width
        if tile.level == ENTRIES:
            return self.entries(start, end)
        if tile.level == 0:
            return leaf_hashes(self.entries(start, end))
        found = [row[0] for row in fetch(self._connection, QUERIES["nodes"], (tile.level, start, end))]
        below = (Tile(tile.level - 1, n) for n in range(start + len(found), end))
        return b"".join([*found, *(tile_root(self.tile(each)) for each in below)])

    def entries(self, start: int, end: int) -> bytes:
        """The entries from `start` to before `end`, packed."""
        packed = b""
        for first, hashes in fetch(self._connection, QUERIES["entry_hashes"], (start, end)):
            packed += hashes[max(0, start - first) * ENTRY_BYTES : (end - first) * ENTRY_BYTES]
        if len(packed) != (end - start) * ENTRY_BYTES:
            raise self._store.lacks(f"some of the entries from {start} to {end - 1}")
        return packed


def grow(store: AccountStore) -> bool:
    """Adds nodes over whole tiles, the lowest level first; says whether it did."""
    with store.snapshot() as connection:
        tree = Tree(store, connection)
        below = int(one(connection, QUERIES["size"]))
        rows: list[tuple[int, int, bytes]] = []
        level = 0
        while below >= TILE_HASHES and not rows:
            level += 1
            first = int(one(connection, QUERIES["next_node"], (level,)))
            below //= TILE_HASHES
            wanted = range(first, min(below, first + GROWN_AT_ONCE))
            rows = [(level, n, tile_root(tree.tile(Tile(level - 1, n)))) for n in wanted]
    if not rows:
        return False
    with store.maintenance() as connection:
        if one(connection, QUERIES["next_node"], (level,)) != rows[0][1]:
            return True  # another process was quicker
        connection.executemany(QUERIES["add_node"], rows)
    return True
