"""Walks all stored events: the blocks, with what was rendered of them, and the tail."""

from collections.abc import Callable, Iterator, Sequence
from itertools import islice, pairwise
from operator import ge
from pathlib import Path
from typing import Final

import apsw

from auditplane.event import Event
from auditplane.render import csv_lines
from auditplane.store.sqlite import block, postings
from auditplane.store.sqlite.block import FRAME_BITS, Header
from auditplane.store.sqlite.checks import QUERIES, Problem, telling
from auditplane.store.sqlite.checks.events import Events
from auditplane.store.sqlite.database import fetch, one
from auditplane.store.sqlite.statements import KEY_MAX
from auditplane.store.sqlite.statements import QUERIES as ENGINE
from auditplane.zstd import decompress_exactly

TAIL_AT_ONCE: Final = 1_024

_KEY_MIN: Final = -1 - KEY_MAX

Seen = Callable[[int, Sequence[int], Sequence[int], Sequence[Event]], None]
"""Takes the id of a block, and the keys, indexes and events of its lines, newest first."""


class Blocks:
    """The sealed events of a log, and those of its tail."""

    def __init__(
        self, connection: apsw.Connection, folder: Path, events: Events, seen: Seen, problem: Problem
    ) -> None:
        self._connection, self._folder, self._problem = connection, folder, problem
        self._events, self._seen = events, seen
        self._open: list[tuple[int, int, set[int]]] = []
        self._tail_keys: set[int] = set()
        self.tail = 0
        self.crowded = False

    def walk(self, report: Callable[[], None]) -> None:
        """Checks all of them; calls `report` after each group."""
        headers: list[Header] = []
        with telling(self._problem, "the tail", self._folder):
            self._tail_keys = {row[0] for row in self._connection.execute(QUERIES["tail_keys"])}
        with telling(self._problem, "the table of the blocks", self._folder):
            headers.extend(Header(*row) for row in self._connection.execute(QUERIES["headers"]))
            self._check_order(headers)
        with telling(self._problem, "a table of the parts of blocks", self._folder):
            self._check_orphans([header.id for header in headers])
        for header in sorted(headers, key=lambda header: (header.low, header.run)):
            with telling(self._problem, f"block {header.id}", self._folder):
                self._check_block(header)
            report()
        self._open.clear()
        with telling(self._problem, "the tail", self._folder):
            self._check_tail(report)

    # What belongs to which block.

    def _check_order(self, headers: Sequence[Header]) -> None:
        """The blocks of a run don't overlap, and the index that reads use leads to each of them."""
        ordered = sorted((header.run, header.low, header.id) for header in headers)
        if list(self._connection.execute(QUERIES["ordered_headers"])) != ordered:
            self._problem("the index of the blocks is not that of their table")
        by_id = {header.id: header for header in headers}
        before: Header | None = None
        for run, _, block_id in ordered:
            header = by_id[block_id]
            if before is not None and before.run == run and before.high >= header.low:
                self._problem(f"blocks {before.id} and {header.id} overlap, which are of the run {run}")
            before = header
        last, rows = fetch(self._connection, QUERIES["last_block"])[0]
        if headers and (rows != 1 or last < headers[-1].id):
            self._problem(f"the number of the last block is kept as {last}; it is {headers[-1].id}")

    def _check_orphans(self, ids: Sequence[int]) -> None:
        """No part belongs to a block that is not there."""
        for before, after in pairwise([_KEY_MIN, *ids, KEY_MAX]):
            if before + 1 == after:
                continue
            for table in ("block_keys", "block_csv", "block_stamps"):
                bounds = (before + (before > _KEY_MIN), after)
                self._tell_orphans(table, bounds)
            frames = (max((before + 1) << FRAME_BITS, _KEY_MIN), min(after << FRAME_BITS, KEY_MAX))
            self._tell_orphans("frame", frames)

    def _tell_orphans(self, table: str, bounds: tuple[int, int]) -> None:
        for (row,) in fetch(self._connection, QUERIES[f"{table}_between"], bounds):
            self._problem(f"the row {row} of {table} belongs to no block")

    def _check_tail(self, report: Callable[[], None]) -> None:
        rows = self._connection.execute(QUERIES["tail"])
        while some := list(islice(rows, TAIL_AT_ONCE)):
            keys, indexes, docs, stamps = zip(*some, strict=True)
            self.tail += len(keys)
            with telling(self._problem, f"the tail from the key {keys[0]} on", self._folder):
                self._events.take(keys, indexes, docs, stamps)
            report()

    # One block.

    def _check_block(self, header: Header) -> None:
        name = f"block {header.id}"
        keys = block.unpack_exactly(self._part("block_keys", header.id))
        indexes = block.unpack_exactly(self._part("block_indexes", header.id))
        docs = self._docs(header)
        stamps = _lines(decompress_exactly(self._part("block_stamps", header.id)))
        if not header.count == len(keys) == len(indexes) == len(docs) == len(stamps) > 0:
            self._problem(
                f"{name} has {header.count} events, {len(keys)} keys, {len(indexes)} indexes, "
                f"{len(docs)} texts and {len(stamps)} stamps"
            )
            return
        self._check_header(header, keys, indexes, docs)
        self.crowded = self.crowded or postings.has_wide(keys)
        docs.reverse()
        stamps.reverse()
        events = self._events.take(keys, indexes, docs, stamps)
        if events is not None:
            events.reverse()
            self._check_csv(header, events)
            self._seen(header.id, keys[::-1], indexes[::-1], events)

    def _part(self, query: str, block_id: int) -> bytes:
        queries = ENGINE if query in ENGINE else QUERIES
        data: bytes | None = one(self._connection, queries[query], (block_id,))
        if data is None:
            raise ValueError(f"it lacks its row of {query}")
        return data

    def _docs(self, header: Header) -> list[bytes]:
        """The docs, newest first; each frame has its lines."""
        start, end = header.id << FRAME_BITS, (header.id + 1) << FRAME_BITS
        rows = fetch(self._connection, QUERIES["frames"], (start, end))
        if [row[0] for row in rows] != list(
            block.frame_ids(header.id, 0, min(header.count, end - start << 10))
        ):
            raise ValueError(f"its frames are {[row[0] - start for row in rows]}")
        docs: list[bytes] = []
        for at, (frame_id, data) in enumerate(rows):
            found = _lines(decompress_exactly(data))
            due = min(block.FRAME_EVENTS, header.count - at * block.FRAME_EVENTS)
            if len(found) != due:
                raise ValueError(f"its frame {frame_id - start} has {len(found)} lines in place of {due}")
            docs += found
        return docs

    def _check_header(
        self, header: Header, keys: Sequence[int], indexes: Sequence[int], docs: Sequence[bytes]
    ) -> None:
        name = f"block {header.id}"
        if any(map(ge, keys, keys[1:])):
            self._problem(f"{name}: its keys don't rise")
        due = (keys[0], keys[-1], min(indexes), max(indexes), sum(map(len, docs)) + len(docs))
        found = (header.low, header.high, header.first_index, header.last_index, header.docs_bytes)
        if found != due:
            self._problem(
                f"{name}: its row says low, high, first and last index and bytes {found}; they are {due}"
            )
        for _, other, others in self._overlapping(header, keys):
            twice = others.intersection(keys)
            if twice:
                self._problem(
                    f"{name}: {len(twice)} of its keys, {min(twice)} the first, are in block {other} too"
                )
        if not self._tail_keys.isdisjoint(keys):
            self._problem(
                f"{name}: {len(self._tail_keys.intersection(keys))} of its keys are in the tail too"
            )

    def _overlapping(self, header: Header, keys: Sequence[int]) -> Iterator[tuple[int, int, set[int]]]:
        """Those walked before whose keys go beyond the first of this one."""
        self._open = [each for each in self._open if each[0] >= keys[0]]
        yield from self._open
        self._open.append((keys[-1], header.id, set(keys)))

    def _check_csv(self, header: Header, events: Sequence[Event]) -> None:
        csv, guarded = csv_lines(events, guard=True)
        if header.guarded != guarded:
            self._problem(
                f"block {header.id}: its row says {header.guarded} for guarded cells; it is {guarded:d}"
            )
        found = decompress_exactly(self._part("block_csv", header.id))
        if found != csv:
            at = next(
                (at for at, lines in enumerate(zip(found.split(b"\r\n"), csv.split(b"\r\n"), strict=False))
                 if lines[0] != lines[1]),
                len(events),
            )  # fmt: skip
            event_id = events[min(at, len(events) - 1)].id
            self._problem(
                f"block {header.id}: its CSV is not that of its events; it differs first at or after that of "
                f"the event {event_id}"
            )


def _lines(text: bytes) -> list[bytes]:
    if not text.endswith(b"\n"):
        raise ValueError("its text does not end with a line feed")
    return text[:-1].split(b"\n")
