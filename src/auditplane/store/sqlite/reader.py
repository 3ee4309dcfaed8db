"""Finding events and giving them out in order, one short step at a time.

A step looks at one consistent view, gives about CHUNK_BYTES, and remembers only how far it came: a key, or
an index in recorded order. So sealing, compaction and recording may go on between two steps.

Keys are walked downwards; for ascending order they are negated (`sign`), so that there is one way to walk.
"""

import json
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from heapq import merge
from itertools import chain, count, starmap
from typing import Final

import apsw

from auditplane import limits, ulid
from auditplane.event import decode_docs
from auditplane.query import Order, Query, fold
from auditplane.store import Piece
from auditplane.store.sqlite import block, postings
from auditplane.store.sqlite.account import AccountStore
from auditplane.store.sqlite.block import Header
from auditplane.store.sqlite.database import fetch, fetch_bytes, one
from auditplane.store.sqlite.finder import Finder
from auditplane.store.sqlite.shown import Shown, shown_in
from auditplane.store.sqlite.statements import KEY_MAX, QUERIES
from auditplane.zstd import decompress

TAIL_ROWS_MAX: Final = 2_048
BLOCKS_MAX: Final = 64
CANDIDATE_BLOCKS_FIRST: Final = 32
CANDIDATE_BLOCKS_MAX: Final = 512
STEP_BYTES: Final = 8 * 1024 * 1024
TERM_KEYS_MIN: Final = 32
TERM_KEYS_FIRST: Final = 128
TERM_KEYS_MAX: Final = 2_048
FEW_MATCHES: Final = 5_000
FEW_BLOCKS: Final = 256
ENTRY_ROWS_MAX: Final = 64
DOC_BYTES_TYPICAL: Final = 384


@dataclass(slots=True)
class Line:
    """One event found: where it stands, and its doc."""

    position: int
    doc: bytes


@dataclass(slots=True)
class Packed:
    """A whole block that can be given out as it is, newest first."""

    header: Header


class Reader:
    """The answer to one query.

    `size` is the size of the log that it shows: the one at its making, or the one that a cursor carries.
    """

    def __init__(self, store: AccountStore, query: Query, *, csv: bool = False, raw: bool = False) -> None:
        self._store = store
        self._query = query
        self._csv, self._raw = csv, raw
        self._sign = -1 if query.order is Order.ASC else 1
        self._match = store.terms.match(query)
        self._words = store.terms.match_words(query)
        with store.snapshot() as connection:
            size, overflow_us = fetch(connection, QUERIES["size"])[0]
            self._by_terms = self._has_few_matches(connection)
        self.size: int = min(size, query.cursor.size) if query.cursor else size
        self.bounds = self._bounds(overflow_us)
        self.check_times = overflow_us > 0 and (query.min_us is not None or query.max_us is not None)
        self._next, self._last = self._walk_bounds()
        self._shown: Shown
        self._keys_at_once = TERM_KEYS_FIRST
        self._candidates_at_once = CANDIDATE_BLOCKS_FIRST

    def _bounds(self, overflow_us: int) -> tuple[int, int]:
        """The least and the greatest key that an event between the dates can have."""
        query = self._query
        low = max(0, query.min_us or 0) << ulid.COUNTER_BITS
        if query.max_us is None:
            return min(low, KEY_MAX), KEY_MAX
        return min(low, KEY_MAX), min(((query.max_us + overflow_us + 1) << ulid.COUNTER_BITS) - 1, KEY_MAX)

    def _walk_bounds(self) -> tuple[int, int]:
        """Where the walk begins and ends: downwards by `sign` times the key, or upwards by the index."""
        query, (low, high) = self._query, self.bounds
        position = query.cursor.position if query.cursor else None
        if query.order is Order.RECORDED:
            before = position if position is not None else -1 if query.after is None else query.after
            return before + 1, self.size - 1
        if query.order is Order.ASC:
            return -(low if position is None else max(low, position + 1)), -high
        return high if position is None else min(high, position - 1), low

    def _has_few_matches(self, connection: apsw.Connection) -> bool:
        """Whether it is cheaper to look at each event that the terms give than to look for words."""
        if not self._words or self._match is None:
            return True
        return len(postings.keys(connection, self._match, 0, KEY_MAX, at_most=FEW_MATCHES)) < FEW_MATCHES

    # Giving out.

    def pieces(self, docs_bytes: int = limits.CHUNK_BYTES) -> Iterator[list[Piece]]:
        """The answer, in steps of docs of about `docs_bytes`; what stands together is one piece."""
        while not self._done():
            pieces = self._pieces(docs_bytes)
            if pieces:
                yield pieces

    def _pieces(self, docs_bytes: int) -> list[Piece]:
        pieces: list[Piece] = []
        with self._store.snapshot() as connection:
            parts = self._step(connection, docs_bytes)
            csv = self._csv_frames(connection, parts)
            for part in parts:
                docs, frames = (
                    ([part.doc], []) if isinstance(part, Line) else self._whole(connection, part, csv)
                )
                if not pieces or bool(pieces[-1].docs) != bool(docs):
                    pieces.append(Piece([], []))
                pieces[-1].docs.extend(docs)
                pieces[-1].frames.extend(frames)
        return pieces

    def docs(self) -> Iterator[list[bytes]]:
        """The docs of the answer step by step, also of a step that has found none."""
        while not self._done():
            docs: list[bytes] = []
            with self._store.snapshot() as connection:
                for part in self._step(connection, limits.CHUNK_BYTES):
                    found = (part,) if isinstance(part, Line) else self._opened(connection, part.header)
                    docs.extend(line.doc for line in found)
            yield docs

    def count(self, up_to: int = KEY_MAX) -> int:
        """How many events the answer has with a key up to `up_to`; its order is the newest first."""
        self._next = min(self._next, up_to)
        if up_to < KEY_MAX:
            self._by_terms = False  # blocks of which nothing is shown are passed over whole
        found = 0
        while not self._done():
            with self._store.snapshot() as connection:
                for part in self._step(connection, limits.CHUNK_BYTES):
                    found += part.header.count if isinstance(part, Packed) else 1
        return found

    def page(self, limit: int, size_max: int) -> tuple[list[bytes], int | None]:
        """Up to `limit` docs of about `size_max` bytes, and where the next page goes on, if there is one."""
        docs: list[bytes] = []
        bytes_left = size_max
        last: int | None = None
        step_bytes = (limit + 1) * DOC_BYTES_TYPICAL
        while not self._done():
            with self._store.snapshot() as connection:
                budget = min(limits.CHUNK_BYTES, step_bytes)
                step_bytes = budget * 2  # steps that find nothing must not stay small
                for part in self._step(connection, budget):
                    found = (part,) if isinstance(part, Line) else self._opened(connection, part.header)
                    for line in found:
                        if len(docs) == limit or bytes_left <= 0:
                            return docs, last
                        docs.append(line.doc)
                        bytes_left -= len(line.doc)
                        last = line.position
        return docs, None

    def _opened(self, connection: apsw.Connection, header: Header) -> Iterable[Line]:
        """The lines of a whole block in the order of the query."""
        lines = self._lines(connection, header, header.low, header.high)
        return lines if self._sign > 0 else reversed(list(lines))

    def _csv_frames(self, connection: apsw.Connection, parts: "Sequence[Line | Packed]") -> dict[int, bytes]:
        """The CSV of the whole blocks of a step, by their ids, where it is wanted as it is stored."""
        if not self._csv or self._sign < 0:
            return {}
        ids = [
            part.header.id
            for part in parts
            if isinstance(part, Packed) and not (self._raw and part.header.guarded)
        ]
        frames: dict[int, bytes] = dict(fetch(connection, QUERIES["csv_in"], (json.dumps(ids),)))
        if len(frames) != len(ids):
            raise self._store.lacks(f"the CSV of one of the blocks {ids}")
        return frames

    def _whole(
        self, connection: apsw.Connection, part: Packed, csv: Mapping[int, bytes]
    ) -> tuple[list[bytes], list[bytes]]:
        """The docs of a whole block, or its frames."""
        header = part.header
        if header.id in csv:
            return [], [csv[header.id]]
        if self._csv or self._sign < 0:
            return [line.doc for line in self._opened(connection, header)], []
        return [], self._store.frames(connection, block.frame_ids(header.id, 0, header.count))

    def _done(self) -> bool:
        if self._query.order is Order.RECORDED:
            return self._next > self._last
        return self._next < self._last

    def _step(self, connection: apsw.Connection, budget: int) -> "Sequence[Line | Packed]":
        self._shown = shown_in(connection, self.size)
        if self._query.order is Order.RECORDED:
            return self._step_recorded(connection, budget)
        if self._by_terms and self._match is not None:
            return self._step_terms(connection, self._match, budget)
        return self._step_blocks(connection, budget)

    def _passing(self, lines: list[Line], *, whole: bool, held: bool = False) -> list[Line]:
        """The lines that match; `whole` when no index has looked at all filters.

        `held` when those without the words were ruled out before.
        """
        if not whole and not self.check_times:
            return lines
        if whole and self._words and not held:
            held_at = self._holding_words(b"\n".join([line.doc for line in lines]))
            lines = [lines[at] for at in held_at]
        matches = self._query.matches if whole else self._query.in_time
        events = decode_docs([line.doc for line in lines])
        return [line for line, event in zip(lines, events, strict=True) if matches(event)]

    def _holding_words(self, docs: bytes) -> Sequence[int]:
        """Which of some docs, one a line, may hold the words: most are ruled out without decoding them."""
        text = fold(docs.decode())
        found: set[int] = set()
        for words in self._query.words:
            if all(word in text for word in words):
                lines = text.split("\n")
                candidates: Sequence[int] = range(len(lines))
                for word in words:
                    candidates = [at for at in candidates if word in lines[at]]
                found.update(candidates)
        return sorted(found)

    # By exact values: the terms hold the keys.

    def _step_terms(self, connection: apsw.Connection, match: str, budget: int) -> list[Line]:
        want = max(TERM_KEYS_MIN, min(budget // DOC_BYTES_TYPICAL, self._keys_at_once))
        self._keys_at_once = min(self._keys_at_once * 2, TERM_KEYS_MAX)
        keys, complete = self._term_keys(connection, match, want)
        docs = Finder(self._store, connection, self._shown).docs(keys)
        lines = []
        bytes_left = limits.CHUNK_BYTES
        for key, doc in zip(keys, docs, strict=True):
            self._next = key * self._sign - 1
            if doc is not None:
                lines.append(Line(key, doc))
                bytes_left -= len(doc)
                if bytes_left <= 0:
                    break
        else:
            if complete:
                self._next = self._last - 1
        return self._passing(lines, whole=bool(self._words))

    def _term_keys(self, connection: apsw.Connection, match: str, at_most: int) -> tuple[list[int], bool]:
        """The next keys that the terms give, and whether these are all."""
        low, high = self._range()
        upwards = self._sign < 0
        sealed = postings.keys(connection, match, low, high, at_most=at_most, upwards=upwards)
        tail = self._store.tail.keys(connection, self._query, self.size)
        tail = tail[bisect_left(tail, low) : bisect_right(tail, high)]
        keys = list(merge(sealed, tail if upwards else reversed(tail), reverse=not upwards))
        return keys[:at_most], len(keys) < at_most

    def _range(self) -> tuple[int, int]:
        """The least and the greatest key that are left to walk."""
        return (self._last, self._next) if self._sign > 0 else (-self._next, -self._last)

    # In commit order: the entries hold the keys.

    def _step_recorded(self, connection: apsw.Connection, budget: int) -> list[Line]:
        finder = Finder(self._store, connection, self._shown)
        lines = []
        found = starmap(finder.docs, self._recorded_keys(connection))
        for doc in chain.from_iterable(found):
            if doc is not None:
                lines.append(Line(self._next, doc))
                budget -= len(doc)
            self._next += 1
            if budget <= 0 or self._done():
                break
        query = self._query
        return self._passing(
            lines, whole=query.filtered or query.min_us is not None or query.max_us is not None
        )

    def _recorded_keys(self, connection: apsw.Connection) -> Iterator[tuple[Sequence[int], int]]:
        """The keys of some rows of entries from `_next` on, and the first index of each; one at the least."""
        start = at = self._next
        for first, entries, packed in fetch(connection, QUERIES["entries_from"], (at, ENTRY_ROWS_MAX)):
            if not first <= at < first + entries:
                break
            yield block.unpack_numbers(packed)[at - first :].tolist(), at
            at = first + entries
        if at == start:
            raise self._store.lacks(f"the entry {at}")

    # By time: blocks and tail, merged where they overlap. A step knows all there is from `_next` down to its
    # horizon, and gives out that much, or less when the budget is spent.

    def _step_blocks(self, connection: apsw.Connection, budget: int) -> "list[Line | Packed]":
        tail, horizon = self._tail(connection, budget)
        headers, horizon = self._headers(connection, horizon)
        self._candidates_at_once = min(self._candidates_at_once * 2, CANDIDATE_BLOCKS_MAX)
        tail, _ = self._split(tail, horizon)
        out: list[Line | Packed] = []
        for cluster, bottom in self._clusters(headers):
            above, tail = self._split(tail, self._top(cluster[0]) + 1)
            inside, tail = self._split(tail, bottom)
            found: list[Line | Packed] = [*above]
            if len(cluster) == 1 and not inside and self._passes_whole(cluster[0], horizon):
                found.append(Packed(cluster[0]))
            else:
                found.extend(self._merged(connection, cluster, inside, horizon))
            out.extend(found)
            budget -= sum(
                part.header.docs_bytes if isinstance(part, Packed) else len(part.doc) for part in found
            )
            if budget <= 0 and bottom > horizon:
                self._next = bottom - 1
                return out
        self._next = horizon - 1
        return [*out, *tail]

    def _tail(self, connection: apsw.Connection, budget: int) -> tuple[list[Line], int]:
        """The tail's lines from `_next` down, and down to where they are all there are."""
        whole = self._query.filtered
        at_most = TAIL_ROWS_MAX if whole else min(TAIL_ROWS_MAX, max(budget // DOC_BYTES_TYPICAL, 1))
        order = "tail_desc" if self._sign > 0 else "tail_asc"
        bindings = (*self._range(), at_most)
        bytes_max = STEP_BYTES if whole else budget
        rows, complete = fetch_bytes(connection, QUERIES[order], bindings, column=2, bytes_max=bytes_max)
        lines = [Line(key, doc) for key, index, doc in rows if self._shown.event(index, doc)]
        horizon = self._last if complete and len(rows) < at_most else rows[-1][0] * self._sign
        return self._passing(lines, whole=whole), horizon

    def _headers(self, connection: apsw.Connection, horizon: int) -> tuple[list[Header], int]:
        """The blocks between `_next` and the horizon, which rises where a run has more of them.

        It also rises where they hold more than STEP_BYTES. They come in the order of the walk.
        """
        few = self._few_with_words(connection)
        if few is not None:
            found = few
        else:
            found, horizon = self._all_headers(connection, horizon)
            found = self._with_words(connection, found)
        found = [header for header in found if self._top(header) >= horizon and not self._shown.none(header)]
        found.sort(key=self._top, reverse=True)
        bytes_left = STEP_BYTES
        for at, header in enumerate(found):
            bytes_left -= header.docs_bytes
            if bytes_left < 0 and self._top(header) < self._next:
                return found[:at], self._top(header) + 1
        return found, horizon

    def _few_with_words(self, connection: apsw.Connection) -> list[Header] | None:
        """The blocks between `_next` and the end that may hold the words; None when there are many."""
        if not self._words:
            return None
        ids = [row[0] for row in fetch(connection, QUERIES["word_few"], (self._words, FEW_BLOCKS + 1))]
        if len(ids) > FEW_BLOCKS:
            return None
        low, high = self._range()
        headers = [Header(*row) for row in fetch(connection, QUERIES["blocks_in"], (json.dumps(ids),))]
        return [header for header in headers if header.low <= high and header.high >= low]

    def _all_headers(self, connection: apsw.Connection, horizon: int) -> tuple[list[Header], int]:
        """Those of all runs, and the horizon."""
        found: list[Header] = []
        for (run,) in fetch(connection, QUERIES["runs"]):
            headers, complete = self._headers_of(connection, run)
            if not complete:
                horizon = max(horizon, self._bottom(headers[-1]))
            found.extend(headers)
        return found, horizon

    def _headers_of(self, connection: apsw.Connection, run: int) -> tuple[list[Header], bool]:
        """Blocks of a run from `_next` down, and whether these are all."""
        low, high = self._range()
        for row in fetch(connection, QUERIES["block_below"], (run, low)):
            below = Header(*row)
            low = below.low if below.high >= low else low
        at_most = self._candidates_at_once if self._words else BLOCKS_MAX
        order = "blocks_desc" if self._sign > 0 else "blocks_asc"
        rows = fetch(connection, QUERIES[order], (run, low, high, at_most))
        return [Header(*row) for row in rows], len(rows) < at_most

    def _with_words(self, connection: apsw.Connection, headers: list[Header]) -> list[Header]:
        """Those of the blocks that may hold the words."""
        if not headers or not self._words:
            return headers
        ids = [header.id for header in headers]
        bindings = (self._words, min(ids), max(ids))
        candidates = {row[0] for row in fetch(connection, QUERIES["word_rows"], bindings)}
        return [header for header in headers if header.id in candidates]

    def _clusters(self, headers: Sequence[Header]) -> Iterator[tuple[list[Header], int]]:
        """Blocks in the order of the walk, those that overlap together, and the bottom of each cluster."""
        cluster: list[Header] = []
        bottom = 0
        for header in headers:
            if cluster and self._top(header) < bottom:
                yield cluster, bottom
                cluster = []
            bottom = min(bottom, self._bottom(header)) if cluster else self._bottom(header)
            cluster.append(header)
        if cluster:
            yield cluster, bottom

    def _passes_whole(self, header: Header, horizon: int) -> bool:
        return (
            not self._query.filtered
            and not self.check_times
            and self._shown.whole(header)
            and self._top(header) <= self._next
            and self._bottom(header) >= horizon
        )

    def _merged(
        self, connection: apsw.Connection, cluster: Sequence[Header], inside: Sequence[Line], horizon: int
    ) -> list[Line]:
        """The matching lines of overlapping blocks and of the tail between them, above the horizon."""
        low, high = sorted((self._next * self._sign, horizon * self._sign))
        lines = list(inside)
        for header in cluster:
            lines.extend(self._matching(connection, header, low, high))
        lines.sort(key=self._walk, reverse=True)
        return lines

    def _matching(self, connection: apsw.Connection, header: Header, low: int, high: int) -> list[Line]:
        """The matching lines of a block between two keys."""
        if self._match is None:
            lines = list(self._lines(connection, header, low, high))
            return self._passing(lines, whole=self._query.filtered, held=True)
        bounds = max(low, header.low), min(high, header.high)
        wanted = set(postings.keys(connection, self._match, *bounds, at_most=KEY_MAX))
        found = self._lines(connection, header, low, high) if wanted else ()
        return self._passing([line for line in found if line.position in wanted], whole=True, held=True)

    def _lines(self, connection: apsw.Connection, header: Header, low: int, high: int) -> Iterator[Line]:
        """The lines of a block between two keys, newest first, that this answer may show and may match."""
        store = self._store
        keys = store.block_keys(connection, header.id)
        indexes = self._indexes(connection, header)
        first, end = header.count - bisect_right(keys, high), header.count - bisect_left(keys, low)
        newest_first = keys[::-1]
        starts = count(first // block.FRAME_EVENTS * block.FRAME_EVENTS, block.FRAME_EVENTS)
        frames = store.frames(connection, block.frame_ids(header.id, first, end))
        for at, frame in zip(starts, frames, strict=False):
            text = decompress(frame)
            here = newest_first[at : at + block.FRAME_EVENTS]
            candidates = self._holding_words(text[:-1]) if self._words else range(len(here))
            if candidates:
                docs = block.split(text, len(here))
                for line in candidates:
                    if low <= here[line] <= high and (
                        indexes is None or self._shown.event(indexes[at + line], docs[line])
                    ):
                        yield Line(here[line], docs[line])

    def _indexes(self, connection: apsw.Connection, header: Header) -> Sequence[int] | None:
        """The indexes of a block's lines; None when this answer shows them all."""
        if self._shown.whole(header):
            return None
        return block.unpack_numbers(self._store.data(connection, "block_indexes", header.id))[::-1]

    def _split(self, lines: list[Line], bound: int) -> tuple[list[Line], list[Line]]:
        """Lines in the order of the walk: those down to `bound`, and the others."""
        at = bisect_right(lines, -bound, key=lambda line: -self._walk(line))
        return lines[:at], lines[at:]

    def _walk(self, line: Line) -> int:
        return line.position * self._sign

    def _top(self, header: Header) -> int:
        return header.high if self._sign > 0 else -header.low

    def _bottom(self, header: Header) -> int:
        return header.low if self._sign > 0 else -header.high


def count_matching(store: AccountStore, query: Query) -> int:
    """How many events match, from what the engine keeps where that is enough."""
    query = replace(query, order=Order.DESC, after=None, cursor=None)
    reader = Reader(store, query)
    match = store.terms.match(query)
    if not query.words and not reader.check_times:
        with store.snapshot() as connection:
            shown = shown_in(connection)
            if match:
                low, high = reader.bounds
                if shown.hides:
                    low = max(low, shown.high + 1)
                tail = store.tail.keys(connection, query, KEY_MAX)
                in_tail = bisect_right(tail, high) - bisect_left(tail, low)
                counted = max(0, in_tail) + postings.count(connection, match, low, high)
                return counted + reader.count(shown.high) if shown.hides else counted
            if query.min_us is None and query.max_us is None and not shown.hides:
                return int(one(connection, QUERIES["live"]))
    return reader.count()
