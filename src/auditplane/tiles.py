"""The tiles in which a log is kept and served (C2SP tlog-tiles). Pure.

A tile of level L has the hashes of up to 256 neighbouring nodes of level 8 * L (`merkle`): those of level 0
are the hashes of the leaves, each above is the root of a full tile of the level below. A bundle has the
entries of a tile of level 0.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from struct import iter_unpack
from typing import Final, NamedTuple

from auditplane.errors import ProofError
from auditplane.merkle import ENTRY_BYTES, HASH_BYTES, Nodes, level_above, root, tile_root

TILE_HASHES: Final = 256
TILES_KEPT: Final = 64
ENTRIES: Final = -1  # In place of a level: the entries themselves.

_LEVELS = 8  # Of the tree, in a tile.
_PREFIX = ENTRY_BYTES.to_bytes(2, "big")
_PATH = re.compile(
    r"tile/(entries|0|[1-9]|[1-5][0-9]|6[0-3])/((?:x[0-9]{3}/){0,6}[0-9]{3})(?:\.p/([1-9][0-9]{0,2}))?"
)


class Tile(NamedTuple):
    """The first `width` hashes of number `n` of the tiles of `level`; at the level ENTRIES, entries."""

    level: int
    n: int
    width: int = TILE_HASHES


def tile_width(level: int, n: int, size: int) -> int:
    """How many hashes this tile has in a log of `size` entries; none when it is not there."""
    hashes = size >> (_LEVELS * max(level, 0))
    return min(max(hashes - n * TILE_HASHES, 0), TILE_HASHES)


def tiles_of(size: int) -> Iterator[Tile]:
    """The tiles of hashes of a log of `size` entries, partial ones last in their level."""
    level, hashes = 0, size
    while hashes:
        for n in range(-(-hashes // TILE_HASHES)):
            yield Tile(level, n, tile_width(level, n, size))
        level, hashes = level + 1, hashes // TILE_HASHES


def tile_nodes(read: Callable[[Tile], bytes], size: int, kept: int = TILES_KEPT) -> Nodes:
    """The nodes of a log of `size` entries, from a function that reads the hashes of a tile, packed.

    The last `kept` tiles are kept (16 KiB each), so that many proofs read each of them once. ProofError tells
    of a tile that has not its width, and of a node that is not in the log.
    """

    @lru_cache(maxsize=kept)
    def levels(level: int, n: int) -> list[bytes]:
        tile = Tile(level, n, tile_width(level, n, size))
        made = [read(tile)]
        if len(made[0]) != tile.width * HASH_BYTES:
            raise ProofError(f"{tile_path(*tile)} has {len(made[0])} bytes.")
        for _ in range(1, _LEVELS):
            made.append(level_above(made[-1]))
        return made

    def nodes(level: int, index: int) -> bytes:
        if (index + 1) << level > size:
            raise ProofError(f"A log of {size} entries has no node {index} of level {level}.")
        tile_level, above = divmod(level, _LEVELS)
        tile, at = divmod(index, TILE_HASHES >> above)
        return levels(tile_level, tile)[above][at * HASH_BYTES : (at + 1) * HASH_BYTES]

    return nodes


class Frontier:
    """The end of a growing log: the last tile of each level, as long as it is not full.

    It is all that is needed to go on from `size` entries, whose root it gives. `edge` has the hashes of those
    tiles, packed, from level 0 up.
    """

    def __init__(self, size: int = 0, edge: Sequence[bytes] = ()) -> None:
        """Raises ProofError when the tiles have not the widths of this size."""
        widths = [len(packed) / HASH_BYTES for packed in edge]
        if size < 0 or widths != [width for width, _ in _edge_widths(size)]:
            raise ProofError(f"These are not the last tiles of a log of {size} entries.")
        self.size = size
        self._edge = list(edge)

    @property
    def edge(self) -> Sequence[bytes]:
        return tuple(self._edge)

    def copy(self) -> "Frontier":
        """Another one of the same entries, that grows by itself."""
        return Frontier(self.size, self._edge)

    def append(self, leaves: bytes) -> list[tuple[Tile, bytes]]:
        """Takes the hashes of the next leaves, packed; returns the tiles that are full now with theirs."""
        full: list[tuple[Tile, bytes]] = []
        at = 0
        while at < len(leaves):
            room = (TILE_HASHES - self.size % TILE_HASHES) * HASH_BYTES
            part = leaves[at : at + room]
            at += room
            self.size += len(part) // HASH_BYTES
            full += self._add(part)
        return full

    def _add(self, packed: bytes) -> Iterator[tuple[Tile, bytes]]:
        """Takes hashes of level 0 that fit into its last tile."""
        level = 0
        while packed:
            if level == len(self._edge):
                self._edge.append(b"")
            self._edge[level] += packed
            packed = b""
            if len(self._edge[level]) == TILE_HASHES * HASH_BYTES:
                full, self._edge[level] = self._edge[level], b""
                yield Tile(level, (self.size >> (_LEVELS * (level + 1))) - 1), full
                packed = tile_root(full)
                level += 1

    def tiles(self) -> Iterator[tuple[Tile, bytes]]:
        """The tiles that are not full, with their hashes."""
        for level, (packed, (width, n)) in enumerate(zip(self._edge, _edge_widths(self.size), strict=True)):
            if width:
                yield Tile(level, n, width), packed

    def root(self) -> bytes:
        """The root of the log."""
        return root(self.size, tile_nodes(lambda tile: self._edge[tile.level], self.size))


def _edge_widths(size: int) -> list[tuple[int, int]]:
    """Of each level: the width of its last tile, 0 when that is full, and how many full ones there are."""
    found = []
    while size:
        full, width = divmod(size, TILE_HASHES)
        found.append((width, full))
        size = full
    return found


def tile_path(level: int, n: int, width: int = TILE_HASHES) -> str:
    """Where a tile is served, below the prefix of the log: `tile/0/x001/x234/067.p/112`."""
    beginning, end = divmod(n, 1000)
    digits = f"{end:03}"
    while beginning:
        beginning, group = divmod(beginning, 1000)
        digits = f"x{group:03}/{digits}"
    name = "entries" if level == ENTRIES else str(level)
    return f"tile/{name}/{digits}" + (f".p/{width}" if width < TILE_HASHES else "")


def parse_tile_path(path: str) -> Tile | None:
    """The tile that is served at `path`; None when it is no such path, or written another way."""
    match = _PATH.fullmatch(path)
    if not match:
        return None
    level = ENTRIES if match[1] == "entries" else int(match[1])
    n = int(match[2].replace("x", "").replace("/", ""))
    tile = Tile(level, n, int(match[3] or TILE_HASHES))
    return tile if tile_path(*tile) == path else None


def entry_bundle(entries: bytes) -> bytes:
    """Packed entries as they are served: each after its length in two bytes."""
    return b"".join([_PREFIX + data for (data,) in iter_unpack("32s", entries)])


def parse_entry_bundle(bundle: bytes, width: int) -> bytes:
    """The entries, packed, of a bundle of `width`; raises ProofError."""
    step = len(_PREFIX) + ENTRY_BYTES
    entries = b"".join([bundle[at + len(_PREFIX) : at + step] for at in range(0, len(bundle), step)])
    if len(entries) != width * ENTRY_BYTES or entry_bundle(entries) != bundle:
        raise ProofError(f"The bundle is not {width} entries of {ENTRY_BYTES} bytes, each after its length.")
    return entries
