"""What goes on behind the recorders' backs: sealing, compaction, repacking, checkpoints.

Every step is one bounded transaction that leaves a store which reads the same as before. A step that is
lost in a crash is done again.
"""

from array import array
from heapq import merge
from itertools import pairwise
from typing import Final

import apsw

from auditplane.merkle import ENTRY_BYTES
from auditplane.store import Stored
from auditplane.store.sqlite import block
from auditplane.store.sqlite.account import QUERIES, AccountStore
from auditplane.store.sqlite.block import Header, Sealed
from auditplane.store.sqlite.database import one

SEAL_EVENTS: Final = 4_096
TAIL_KEPT_EVENTS: Final = 2_048
RUNS_MAX: Final = 6
MERGE_BLOCKS_MAX: Final = 32
TILE_ENTRIES: Final = 256
REPACK_ROWS_MAX: Final = 4_096
REPACK_ENTRIES: Final = 16 * TILE_ENTRIES
WAL_BYTES_MAX: Final = 64 * 1024 * 1024
WAL_BYTES_TO_COPY: Final = 4 * 1024 * 1024


def seal(store: AccountStore, *, everything: bool = False) -> bool:
    """Seals the oldest events of the tail when it holds enough; says whether it did."""
    want = SEAL_EVENTS if everything else SEAL_EVENTS + TAIL_KEPT_EVENTS
    with store.snapshot() as connection:
        rows = connection.execute(QUERIES["seal_rows"], (want,)).fetchall()
    if not rows or (len(rows) < want and not everything):
        return False
    events = [Stored(*row) for row in rows[:SEAL_EVENTS]]
    blocks = block.cut(events)
    with store.maintenance() as connection:
        connection.executemany(QUERIES["unseal"], [(event.key,) for event in events])
        for sealed in blocks:
            _add(store, connection, sealed, _free_run(connection, sealed))
    return True


def _free_run(connection: apsw.Connection, sealed: Sealed) -> int:
    """The lowest run in which a block overlaps nothing."""
    runs = len(connection.execute(QUERIES["runs"]).fetchall())
    for run in range(runs + 1):
        row = connection.execute(QUERIES["block_below"], (run, sealed.high)).fetchone()
        if not row or row[3] < sealed.low:
            return run
    raise AssertionError("an empty run overlaps nothing")


def _add(store: AccountStore, connection: apsw.Connection, sealed: Sealed, run: int) -> None:
    row = (
        run, sealed.low, sealed.high, sealed.count, sealed.last_index, sealed.guarded,
        sealed.docs_bytes, sealed.ends,
    )  # fmt: skip
    block_id = one(connection, QUERIES["add_block"], row)
    connection.execute(QUERIES["add_block_keys"], (block_id, sealed.keys, sealed.indexes)).fetchall()
    connection.execute(QUERIES["add_block_docs"], (block_id, sealed.docs)).fetchall()
    connection.execute(QUERIES["add_block_csv"], (block_id, sealed.csv)).fetchall()
    connection.execute(QUERIES["add_block_stamps"], (block_id, sealed.stamps)).fetchall()
    connection.execute(QUERIES["add_word"], (sealed.high, store.terms.of_words(sealed.text))).fetchall()


def compact(store: AccountStore) -> bool:
    """Joins some blocks of the two runs nearest in size when there are too many runs; says whether it did.

    The lowest block of the smaller run is merged with what it overlaps in the larger one. Where that is
    more than MERGE_BLOCKS_MAX, only what lies over the first of them is.
    """
    with store.snapshot() as connection:
        sizes = sorted(connection.execute(QUERIES["run_sizes"]).fetchall(), key=lambda row: row[1])
        if len(sizes) <= RUNS_MAX:
            return False
        (small, _), (large, _) = min(pairwise(sizes), key=lambda pair: pair[1][1] / pair[0][1])
        first = Header(*connection.execute(QUERIES["run_first"], (small,)).fetchone())
        overlapped = _overlapped(connection, large, first)
        bound = overlapped[MERGE_BLOCKS_MAX].low if len(overlapped) > MERGE_BLOCKS_MAX else first.high + 1
        sources = [(header, _events(store, connection, header)) for header in (first, *overlapped[:MERGE_BLOCKS_MAX])]
    events = sources[0][1]
    left = [event for event in events if event.key >= bound]
    joined = block.cut(list(merge(events[: len(events) - len(left)], *(more for _, more in sources[1:]))))
    texts = [block.text_of([event.doc for event in found]) for _, found in sources]
    with store.maintenance() as connection:
        if any(not connection.execute(QUERIES["has_block"], (header.id,)).fetchall() for header, _ in sources):
            return True
        for (header, _), text in zip(sources, texts, strict=True):
            _drop(store, connection, header, text)
        for sealed in joined:
            _add(store, connection, sealed, large)
        if left:
            _add(store, connection, block.seal(left), small)
    return True


def _overlapped(connection: apsw.Connection, run: int, header: Header) -> list[Header]:
    """The blocks of a run that a block overlaps, ascending, one more than are merged at the most."""
    below = connection.execute(QUERIES["block_below"], (run, header.low)).fetchone()
    start = below[2] if below and below[3] >= header.low else header.low
    bindings = (run, start, header.high, MERGE_BLOCKS_MAX + 1)
    return [Header(*row) for row in connection.execute(QUERIES["blocks_asc"], bindings).fetchall()]


def _events(store: AccountStore, connection: apsw.Connection, header: Header) -> list[Stored]:
    """The events of a block, ascending."""
    keys = store.block_keys(connection, header.id)
    indexes = block.unpack_numbers(store.data(connection, "block_indexes", header.id))
    docs = block.lines(store.data(connection, "block_docs", header.id))
    stamps = block.lines(store.data(connection, "block_stamps", header.id))
    return list(map(Stored, keys, indexes, reversed(docs), reversed(stamps)))


def _drop(store: AccountStore, connection: apsw.Connection, header: Header, text: str) -> None:
    for query in ("drop_block", "drop_block_keys", "drop_block_docs", "drop_block_csv", "drop_block_stamps"):
        connection.execute(QUERIES[query], (header.id,)).fetchall()
    connection.execute(QUERIES["drop_word"], (header.high, store.terms.of_words(text))).fetchall()


def repack(store: AccountStore) -> bool:
    """Joins the entries of many commits into rows of TILE_ENTRIES; says whether it did."""
    with store.snapshot() as connection:
        tiled = one(connection, QUERIES["tiled"])
        rows = connection.execute(QUERIES["entry_rows"], (tiled, REPACK_ROWS_MAX)).fetchall()
    if sum(row[1] for row in rows) < REPACK_ENTRIES:
        return False
    keys: array[int] = array("q")
    hashes = bytearray()
    for _, _, packed, hashed in rows:
        keys.extend(block.unpack_numbers(packed))
        hashes += hashed
    tiles = []
    for at in range(0, len(keys), TILE_ENTRIES):
        part = keys[at : at + TILE_ENTRIES]
        hashed = bytes(hashes[at * ENTRY_BYTES : (at + len(part)) * ENTRY_BYTES])
        tiles.append((tiled + at, len(part), block.pack_numbers(part), hashed))
    with store.maintenance() as connection:
        connection.execute(QUERIES["drop_entries"], (tiled, tiled + len(keys))).fetchall()
        connection.executemany(QUERIES["add_entries"], tiles)
        whole = len(keys) // TILE_ENTRIES * TILE_ENTRIES
        connection.execute(QUERIES["set_tiled"], (tiled + whole,)).fetchall()
    return True


def tend(store: AccountStore) -> bool:
    """One round of all that is due, each a bounded step; says whether there may be more to do."""
    busy = [seal(store), compact(store), repack(store)]
    if store.wal_bytes > WAL_BYTES_TO_COPY:
        store.checkpoint(whole=False)
    if store.wal_bytes > WAL_BYTES_MAX:
        store.checkpoint(whole=True)
    return any(busy)


def settle(store: AccountStore) -> None:
    """Leaves the smallest folder: everything sealed and copied out of the write-ahead log."""
    while seal(store, everything=True) or compact(store) or repack(store):
        pass
    store.checkpoint(whole=True)
