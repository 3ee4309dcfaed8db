"""Makes constants of the engine small, so that few events meet all edges."""

from collections.abc import Callable
from types import ModuleType
from typing import Final

from auditplane import keeping, limits, overview, ulid
from auditplane.store.sqlite import (
    account,
    block,
    columns,
    counting,
    finder,
    forgetting,
    postings,
    reader,
    sealing,
    tail,
    values,
)

_OWNERS: Final[dict[ModuleType, str]] = {
    sealing: "SEAL_EVENTS TAIL_KEPT_EVENTS RUNS_MAX MERGE_BLOCKS_MAX TILE_ENTRIES REPACK_ENTRIES "
    "REPACK_ROWS_MAX REPACK_BYTES SEAL_BYTES JOINED_PIECES WAL_BYTES_TO_COPY WAL_BYTES_MAX FREE_PAGES_KEPT",
    columns: "PIECE_EVENTS",
    values: "NAMES_MAX",
    counting: "VALUES_COUNTED_MAX CELLS_KEPT_MAX MERGED_AT_ONCE",
    overview: "SAMPLE_EVENTS TEXTS_AT_ONCE",
    block: "BLOCK_EVENTS FRAME_EVENTS BLOCK_BYTES",
    reader: "TAIL_ROWS_MAX BLOCKS_MAX CANDIDATE_BLOCKS_FIRST CANDIDATE_BLOCKS_MAX TERM_KEYS_MIN "
    "TERM_KEYS_MAX FEW_MATCHES FEW_BLOCKS ENTRY_ROWS_MAX DOC_BYTES_TYPICAL STEP_BYTES",
    finder: "KEYS_AT_ONCE LOADED_BYTES_MAX",
    postings: "NARROW_COUNTERS",
    tail: "ONE_BY_ONE_MAX INDEXED_EVENTS_MAX SCANNED_AT_ONCE",
    account: "BLOCK_KEYS_CACHED_MAX FULL_KEPT_MAX",
    forgetting: "TAIL_ROWS_AT_ONCE BLOCKS_AT_ONCE ENTRIES_AT_ONCE ERASED_AT_ONCE GIVEN_BACK_PART "
    "MOVED_EVENTS_MAX MERGED_PAGES DROPPED_ROWS PIECES_AT_ONCE",
    keeping: "ERASED_PAGE_EVENTS",
    limits: "CHUNK_BYTES PAGE_BYTES_MAX",
    ulid: "COUNTERS",
}


def shrink(put: Callable[[ModuleType, str, int], None], **sizes: int) -> None:
    """Sets constants by their names, with `put(module, name, size)`; raises ValueError for an unknown one."""
    known = {name: module for module, names in _OWNERS.items() for name in names.split()}
    for name, size in sizes.items():
        if name not in known:
            raise ValueError(f"{name} is not a constant that can be made small")
        put(known[name], name, size)
