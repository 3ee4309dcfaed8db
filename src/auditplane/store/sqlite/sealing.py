"""What goes on behind the recorders' backs: sealing, compaction, repacking, checkpoints.

Every step is one bounded transaction that leaves a store which reads the same as before. A step that is
lost in a crash is done again; one that another process was quicker with is given up.
"""

from array import array
from collections.abc import Iterator, Sequence
from contextlib import suppress
from heapq import merge
from itertools import chain, pairwise
from operator import attrgetter, itemgetter
from typing import Final

import apsw

from auditplane.event import Event, decode_docs
from auditplane.merkle import ENTRY_BYTES
from auditplane.query import searched_text
from auditplane.store import Stored
from auditplane.store.sqlite import block, postings, tree
from auditplane.store.sqlite.account import AccountStore
from auditplane.store.sqlite.block import Header, Sealed
from auditplane.store.sqlite.database import fetch, fetch_bytes, one
from auditplane.store.sqlite.statements import QUERIES
from auditplane.zstd import decompress

SEAL_EVENTS: Final = 4_096
SEAL_BYTES: Final = 16 * 1024 * 1024
TAIL_KEPT_EVENTS: Final = 2_048
RUNS_MAX: Final = 6
MERGE_BLOCKS_MAX: Final = 32
JOINED_PIECES: Final = 16
TILE_ENTRIES: Final = 1_024  # rows of 256 would leave more of their pages empty
REPACK_ROWS_MAX: Final = 4_096
REPACK_ENTRIES: Final = 16 * TILE_ENTRIES
REPACK_BYTES: Final = 4 * 1024 * 1024
FREE_PAGES_KEPT: Final = 1_024
FREE_PART_KEPT: Final = 8
WAL_BYTES_MAX: Final = 64 * 1024 * 1024
WAL_BYTES_TO_COPY: Final = 4 * 1024 * 1024


class Overtaken(Exception):
    """Another process did this step; nothing of it is stored twice."""


def seal(store: AccountStore, *, everything: bool = False) -> bool:
    """Seals the oldest events of the tail when it holds enough; says whether it did."""
    from auditplane.store.sqlite import columns

    with store.snapshot() as connection:
        enough = SEAL_EVENTS + TAIL_KEPT_EVENTS
        if not everything and not fetch(connection, QUERIES["tail_holds"], (enough - 1,)):
            return False
        size = one(connection, QUERIES["size"])
        rows, _ = fetch_bytes(
            connection, QUERIES["seal_rows"], (SEAL_EVENTS,), column=2, bytes_max=SEAL_BYTES
        )
    if not rows:
        return False
    # All that takes long comes before the transaction, for which those who record wait.
    blocks = block.cut([Stored(*row) for row in rows])
    words = [words_of(store, sealed.events) for sealed in blocks]
    events = [event for sealed in blocks for event in reversed(sealed.events)]
    tokens = list(map(store.terms.of_event, events))
    keys = [row[0] for row in rows]
    with store.snapshot() as connection:
        piece = columns.of_sealed(store, connection, events, [row[1] for row in rows])
    known = None
    with suppress(Overtaken), store.maintenance() as connection:
        changes = connection.total_changes()
        fetch(connection, QUERIES["unseal"], (keys[0], keys[-1], size))
        if connection.total_changes() - changes != len(rows):
            raise Overtaken
        ids = [add_block(connection, sealed, _free_run(connection, sealed)) for sealed in blocks]
        known = columns.add(connection, piece)
        # These come last: FTS5 writes out what it has gathered whenever another table is written to.
        connection.executemany(QUERIES["add_word"], list(zip(ids, words, strict=True)))
        crowded = postings.add(connection, keys, tokens)
        fetch(connection, QUERIES["set_sealed"], (len(rows), crowded))
    if known is not None:
        store.values.keep(*known)
    return True


def _free_run(connection: apsw.Connection, sealed: Sealed) -> int:
    """The lowest run in which a block overlaps nothing."""
    run = 0
    while any(row[3] >= sealed.low for row in fetch(connection, QUERIES["block_below"], (run, sealed.high))):
        run += 1
    return run


def add_block(connection: apsw.Connection, sealed: Sealed, run: int) -> int:
    """Adds a block, without its words; returns its id."""
    row = (
        run, sealed.low, sealed.high, sealed.count, sealed.first_index, sealed.last_index, sealed.guarded,
        sealed.docs_bytes,
    )  # fmt: skip
    fetch(connection, QUERIES["add_block"], row)
    block_id = connection.last_insert_rowid()
    fetch(connection, QUERIES["add_block_keys"], (block_id, sealed.keys, sealed.indexes))
    ids = block.frame_ids(block_id, 0, sealed.count)
    connection.executemany(QUERIES["add_frame"], list(zip(ids, sealed.frames, strict=True)))
    fetch(connection, QUERIES["add_block_csv"], (block_id, sealed.csv))
    fetch(connection, QUERIES["add_block_stamps"], (block_id, sealed.stamps))
    return block_id


def words_of(store: AccountStore, events: Sequence[Event]) -> str:
    return store.terms.of_words("\n".join(map(searched_text, events)))


def compact(store: AccountStore) -> bool:
    """Joins some blocks of the two runs nearest in size when there are too many runs; says whether it did.

    The lowest block of the smaller run is merged with what it overlaps in the larger one. Where that is
    more than MERGE_BLOCKS_MAX, only what lies over the first of them is.
    """
    with store.snapshot() as connection:
        if len(fetch(connection, QUERIES["runs"])) <= RUNS_MAX:
            return False
        small, large = _nearest_runs(connection)
        first = Header(*fetch(connection, QUERIES["run_first"], (small,))[0])
        overlapped = _overlapped(connection, large, first)
        bound = overlapped.pop().low if len(overlapped) > MERGE_BLOCKS_MAX else first.high + 1
        headers = [first, *overlapped]
        events = [events_of(store, connection, header) for header in headers]
    taken = [event for event in events[0] if event.key < bound]
    left = events[0][len(taken) :]
    joined = block.cut(list(merge(taken, chain.from_iterable(events[1:]), key=attrgetter("key"))))
    if left:
        joined.append(block.seal(left))
    texts = [words_of(store, decode_docs([event.doc for event in found])) for found in events]
    dropped = [(header.id, text) for header, text in zip(headers, texts, strict=True)]
    words = [words_of(store, sealed.events) for sealed in joined]
    with suppress(Overtaken), store.maintenance() as connection:
        for header in headers:
            drop_block(connection, header)
        runs = [large] * len(joined)
        if left:
            runs[-1] = small
        ids = [add_block(connection, sealed, run) for sealed, run in zip(joined, runs, strict=True)]
        connection.executemany(QUERIES["drop_word"], dropped)
        connection.executemany(QUERIES["add_word"], list(zip(ids, words, strict=True)))
    return True


def _nearest_runs(connection: apsw.Connection) -> tuple[int, int]:
    """The two runs, the smaller first, that are nearest in size."""
    sizes = sorted(fetch(connection, QUERIES["run_sizes"]), key=itemgetter(1))
    (small, _), (large, _) = min(pairwise(sizes), key=lambda pair: pair[1][1] / pair[0][1])
    return small, large


def _overlapped(connection: apsw.Connection, run: int, header: Header) -> list[Header]:
    """The blocks of a run that a block overlaps, ascending, one more than are merged at the most."""
    low = header.low
    for row in fetch(connection, QUERIES["block_below"], (run, low)):
        below = Header(*row)
        low = below.low if below.high >= low else low
    bindings = (run, low, header.high, MERGE_BLOCKS_MAX + 1)
    return [Header(*row) for row in fetch(connection, QUERIES["blocks_asc"], bindings)]


def events_of(store: AccountStore, connection: apsw.Connection, header: Header) -> list[Stored]:
    """The events of a block, ascending."""
    keys = store.block_keys(connection, header.id)
    indexes = block.unpack_numbers(store.data(connection, "block_indexes", header.id))
    frames = store.frames(connection, block.frame_ids(header.id, 0, header.count))
    docs = block.split(b"".join(map(decompress, frames)), header.count)
    stamps = block.lines(store.data(connection, "block_stamps", header.id), len(keys))
    return list(map(Stored, keys, indexes, reversed(docs), reversed(stamps)))


def drop_block(connection: apsw.Connection, header: Header) -> None:
    """Drops a block, without its words."""
    if not fetch(connection, QUERIES["has_block"], (header.id,)):
        raise Overtaken
    for query in ("drop_block", "drop_block_keys", "drop_block_csv", "drop_block_stamps"):
        fetch(connection, QUERIES[query], (header.id,))
    ids = block.frame_ids(header.id, 0, header.count)
    fetch(connection, QUERIES["drop_frames"], (ids.start, ids.stop))


def join(store: AccountStore) -> bool:
    """Joins some small pieces of columns when there are many; says whether it did."""
    with store.snapshot() as connection:
        if len(fetch(connection, QUERIES["pieces"])) < JOINED_PIECES:
            return False
    from auditplane.store.sqlite import columns

    return columns.join(store)


def repack(store: AccountStore) -> bool:
    """Joins the entries of many commits into rows of TILE_ENTRIES; says whether it did."""
    with store.snapshot() as connection:
        if one(connection, QUERIES["not_tiled"]) < REPACK_ENTRIES:
            return False
        tiled = one(connection, QUERIES["tiled"])
        markings = one(connection, QUERIES["markings"])
        bindings = (tiled, REPACK_ROWS_MAX)
        rows, _ = fetch_bytes(connection, QUERIES["entry_rows"], bindings, column=1, bytes_max=REPACK_BYTES)
    keys: array[int] = array("q")
    for packed, _ in rows:
        keys.extend(block.unpack_numbers(packed))
    hashes = b"".join([hashed for _, hashed in rows])
    with suppress(Overtaken), store.maintenance() as connection:
        if one(connection, QUERIES["tiled"]) != tiled or one(connection, QUERIES["markings"]) != markings:
            raise Overtaken
        fetch(connection, QUERIES["drop_entries"], (tiled, tiled + len(keys)))
        connection.executemany(QUERIES["add_entries"], list(_tiles(tiled, keys, hashes)))
        whole = len(keys) // TILE_ENTRIES * TILE_ENTRIES
        fetch(connection, QUERIES["set_tiled"], (tiled + whole,))
    return True


def _tiles(first: int, keys: "array[int]", hashes: bytes) -> Iterator[tuple[int, int, bytes, bytes]]:
    """Rows of TILE_ENTRIES entries, the last of what is left."""
    for at in range(0, len(keys), TILE_ENTRIES):
        part = keys[at : at + TILE_ENTRIES]
        hashed = hashes[at * ENTRY_BYTES : (at + len(part)) * ENTRY_BYTES]
        yield first + at, len(part), block.pack_numbers(part), hashed


def tend(store: AccountStore) -> bool:
    """One round of all that is due, each a bounded step; says whether there may be more to do."""
    busy = any([seal(store), compact(store), join(store), repack(store), tree.grow(store)]) or shrink(store)
    store.empty_wal()
    if store.wal_bytes_to_copy() > WAL_BYTES_TO_COPY:
        store.checkpoint(whole=False)
    # Not while a reader from outside keeps much from being copied: writers would wait in vain.
    if store.wal_bytes > WAL_BYTES_MAX and store.wal_bytes_to_copy() <= WAL_BYTES_TO_COPY:
        store.checkpoint(whole=True)
    return busy


def shrink(store: AccountStore) -> bool:
    """Gives some free pages of the file back to the disk when they are many; says whether it did."""
    with store.snapshot() as connection:
        free, pages = fetch(connection, QUERIES["freed"])[0]
    if free < max(FREE_PAGES_KEPT, pages // FREE_PART_KEPT):
        return False
    with store.maintenance() as connection:
        fetch(connection, QUERIES["give_back"])
    return True


def settle(store: AccountStore) -> None:
    """Leaves the smallest folder: everything sealed and copied out of the write-ahead log."""
    while seal(store, everything=True) or compact(store) or join(store) or repack(store) or tree.grow(store):
        pass
    while shrink(store):
        pass
    store.checkpoint(whole=True)
