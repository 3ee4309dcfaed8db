"""Finding events and giving them out in order, one short step at a time.

A step looks at one consistent view, gives about CHUNK_BYTES, and remembers only how far it came: a key, or
an index in recorded order. So sealing, compaction and recording may go on between two steps.

Keys are walked downwards; for ascending order they are negated (`sign`), so that there is one way to walk.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Final

import apsw

from auditplane import limits, ulid
from auditplane.errors import Damaged
from auditplane.event import decode_doc
from auditplane.query import Order, Query, fold
from auditplane.store import Piece
from auditplane.store.sqlite import block
from auditplane.store.sqlite.account import KEY_MAX, QUERIES, AccountStore
from auditplane.store.sqlite.block import Header
from auditplane.store.sqlite.database import one

TAIL_ROWS_MAX: Final = 2_048
BLOCKS_MAX: Final = 16
CANDIDATE_BLOCKS_MAX: Final = 512
TERM_KEYS_MIN: Final = 128
TERM_KEYS_MAX: Final = 2_048
FEW_MATCHES: Final = 5_000
ENTRY_ROWS_MAX: Final = 64
FRAMES_KEPT_MAX: Final = 64
DOC_BYTES_TYPICAL: Final = 256


@dataclass(frozen=True, slots=True)
class Line:
    """One event found: where it stands, and its doc."""

    position: int
    doc: bytes


@dataclass(frozen=True, slots=True)
class Packed:
    """A whole block that can be given out as it is, newest first."""

    header: Header


class Reader:
    """The answer to one query.

    `size` is the size of the log that it shows: the one at its making, or the one that a cursor carries.
    `position` is where the next step goes on, as for `Cursor`.
    """

    def __init__(self, store: AccountStore, query: Query, *, csv: bool = False, raw: bool = False) -> None:
        self._store = store
        self._query = query
        self._csv, self._raw = csv, raw
        self._sign = -1 if query.order is Order.ASC else 1
        with store.snapshot() as connection:
            size, overflow_us = connection.execute(QUERIES["size"]).fetchone() or (0, 0)
            self._few = self._has_few_matches(connection)
            self._words = store.terms.match_words(query)
            self._no_block = bool(self._words) and not connection.execute(QUERIES["word_any"], (self._words,)).fetchall()
        self.size = min(size, query.cursor.size) if query.cursor else size
        self.bounds = low, high = self._bounds(overflow_us)
        self.check_times = overflow_us > 0 and (query.min_us is not None or query.max_us is not None)
        if query.cursor and query.order is Order.DESC:
            high = min(high, query.cursor.position - 1)
        elif query.cursor and query.order is Order.ASC:
            low = max(low, query.cursor.position + 1)
        # In walking order: from `_next` down to `_last`.
        self._next, self._last = (high, low) if self._sign > 0 else (-low, -high)
        if query.order is Order.RECORDED:
            start = query.cursor.position if query.cursor else -1 if query.after is None else query.after
            self._next, self._last = start + 1, self.size - 1
        self._keys_at_once = TERM_KEYS_MIN

    def _bounds(self, overflow_us: int) -> tuple[int, int]:
        query = self._query
        low = max(0, query.min_us or 0) << ulid.COUNTER_BITS
        if query.max_us is None:
            return min(low, KEY_MAX), KEY_MAX
        return min(low, KEY_MAX), min(((query.max_us + overflow_us + 1) << ulid.COUNTER_BITS) - 1, KEY_MAX)

    def _has_few_matches(self, connection: apsw.Connection) -> bool:
        match = self._store.terms.match(self._query)
        if not match or not self._query.words:
            return False
        found = connection.execute(QUERIES["term_desc"], (match, 0, KEY_MAX, FEW_MATCHES)).fetchall()
        return len(found) < FEW_MATCHES

    # Giving out.

    def pieces(self) -> Iterator[list[Piece]]:
        """The answer, in steps of about CHUNK_BYTES."""
        while not self._done():
            pieces: list[Piece] = []
            with self._store.snapshot() as connection:
                for packed, parts in groupby(self._step(connection, limits.CHUNK_BYTES), _is_packed):
                    if packed:
                        pieces.extend(self._piece(connection, part.header) for part in parts)
                    else:
                        pieces.append(Piece([line.doc for line in parts]))
            if pieces:
                yield pieces

    def count(self) -> int:
        """How many events the answer has."""
        found = 0
        while not self._done():
            with self._store.snapshot() as connection:
                for part in self._step(connection, limits.CHUNK_BYTES):
                    found += part.header.count if isinstance(part, Packed) else 1
        return found

    def page(self, limit: int, size_max: int) -> tuple[list[bytes], int | None]:
        """Up to `limit` docs of about `size_max` bytes at the most, and where the next page goes on, if at all."""
        docs: list[bytes] = []
        bytes_left = size_max
        last: int | None = None
        while not self._done():
            with self._store.snapshot() as connection:
                budget = min(limits.CHUNK_BYTES, (limit - len(docs) + 1) * DOC_BYTES_TYPICAL)
                for part in self._step(connection, budget):
                    found = [part] if isinstance(part, Line) else self._opened(connection, part.header)
                    for line in found:
                        if len(docs) == limit or bytes_left <= 0:
                            return docs, last
                        docs.append(line.doc)
                        bytes_left -= len(line.doc)
                        last = line.position
        return docs, None

    def _opened(self, connection: apsw.Connection, header: Header) -> list[Line]:
        """The lines of a whole block in the order of the query."""
        return sorted(self._lines(connection, header), key=self._walk, reverse=True)

    def _piece(self, connection: apsw.Connection, header: Header) -> Piece:
        if self._sign < 0 or (self._csv and self._raw and header.guarded):
            return Piece([line.doc for line in self._opened(connection, header)])
        return Piece([], self._store.data(connection, "block_csv" if self._csv else "block_docs", header.id))

    def _walk(self, line: Line) -> int:
        return line.position * self._sign

    def _done(self) -> bool:
        if self._query.order is Order.RECORDED:
            return self._next > self._last
        return self._next < self._last

    def _step(self, connection: apsw.Connection, budget: int) -> "list[Line | Packed]":
        if self._query.order is Order.RECORDED:
            return list(self._step_recorded(connection, budget))
        match = self._store.terms.match(self._query)
        if match and (self._few or not self._query.words):
            return list(self._step_terms(connection, match, budget))
        return self._step_blocks(connection, match, budget)

    def _passes(self, line: Line, *, whole: bool) -> bool:
        """Whether a line that the index gave matches; `whole` when the index did not look at all filters."""
        if whole:
            return self._may_hold_words(line.doc) and self._query.matches(decode_doc(line.doc))
        return not self.check_times or self._query.in_time(decode_doc(line.doc))

    def _may_hold_words(self, doc: bytes) -> bool:
        """Rules most docs out without decoding them."""
        if not self._words:
            return True
        text = fold(doc.decode())
        return any(all(word in text for word in words) for words in self._query.words)

    # By exact values: the terms hold the keys.

    def _step_terms(self, connection: apsw.Connection, match: str, budget: int) -> Iterator[Line]:
        low, high = sorted((self._next * self._sign, self._last * self._sign))
        order = "term_desc" if self._sign > 0 else "term_asc"
        want = max(TERM_KEYS_MIN, min(budget // DOC_BYTES_TYPICAL, self._keys_at_once))
        self._keys_at_once = min(self._keys_at_once * 2, TERM_KEYS_MAX)
        rows = connection.execute(QUERIES[order], (match, low, high, want)).fetchall()
        finder = _Finder(self._store, connection, self.size)
        for (key,) in rows:
            self._next = key * self._sign - 1
            doc = finder.doc(key)
            if doc is not None:
                line = Line(key, doc)
                if self._passes(line, whole=bool(self._query.words)):
                    yield line
        if len(rows) < want:
            self._next = self._last - 1

    # In commit order: the entries hold the keys.

    def _step_recorded(self, connection: apsw.Connection, budget: int) -> Iterator[Line]:
        finder = _Finder(self._store, connection, self.size)
        filtered = self._query.filtered or self._query.min_us is not None or self._query.max_us is not None
        rows = connection.execute(QUERIES["entries_from"], (self._next, ENTRY_ROWS_MAX)).fetchall()
        for first, count, packed in rows:
            if first + count <= self._next:
                continue
            for key in block.unpack_numbers(packed)[self._next - first :]:
                if self._next > self._last or budget <= 0:
                    return
                doc = finder.doc(key)
                if doc is not None:
                    line = Line(self._next, doc)
                    if not filtered or self._passes(line, whole=True):
                        yield line
                    budget -= len(doc)
                self._next += 1
        if not rows or rows[-1][0] + rows[-1][1] < self._next:
            raise Damaged(f"{self._store.path} lacks the entry {self._next}. Restore it from a backup.")

    # By time: blocks and tail, merged where they overlap.

    def _step_blocks(self, connection: apsw.Connection, match: str | None, budget: int) -> "list[Line | Packed]":
        tail, horizon = self._tail(connection, budget)
        headers, horizon = self._headers(connection, horizon)
        headers.sort(key=self._top, reverse=True)
        out: list[Line | Packed] = []
        at = 0
        while at < len(headers):
            cluster = [headers[at]]
            bottom = self._bottom(headers[at])
            at += 1
            while at < len(headers) and self._top(headers[at]) >= bottom:
                cluster.append(headers[at])
                bottom = min(bottom, self._bottom(headers[at]))
                at += 1
            above, tail = _split(tail, self._sign, self._top(cluster[0]))
            inside, tail = _split(tail, self._sign, bottom - 1)
            out.extend(above)
            budget -= sum(len(line.doc) for line in above)
            if len(cluster) == 1 and not inside and self._passes_whole(cluster[0], horizon):
                out.append(Packed(cluster[0]))
                budget -= cluster[0].docs_bytes
            else:
                merged = self._merged(connection, cluster, inside, horizon, match)
                out.extend(merged)
                budget -= sum(len(line.doc) for line in merged)
            if budget <= 0 and bottom > horizon:
                self._next = bottom - 1
                return out
        out.extend(tail)
        self._next = horizon - 1
        return out

    def _tail(self, connection: apsw.Connection, budget: int) -> tuple[list[Line], int]:
        """The tail's lines from `_next` down, and down to where they are all there are."""
        low, high = sorted((self._next * self._sign, self._last * self._sign))
        order = "tail_desc" if self._sign > 0 else "tail_asc"
        whole = self._query.filtered
        at_most = TAIL_ROWS_MAX if whole else min(TAIL_ROWS_MAX, max(budget // DOC_BYTES_TYPICAL, 1))
        rows = connection.execute(QUERIES[order], (low, high, at_most)).fetchall()
        lines = [Line(key, doc) for key, index, doc in rows if index < self.size]
        found = [line for line in lines if self._passes(line, whole=whole)]
        return found, rows[-1][0] * self._sign if len(rows) == at_most else self._last

    def _headers(self, connection: apsw.Connection, horizon: int) -> tuple[list[Header], int]:
        """The blocks between `_next` and the horizon, which rises where a run has more of them."""
        if self._no_block:
            return [], horizon
        at_most = CANDIDATE_BLOCKS_MAX if self._words else BLOCKS_MAX
        low, high = sorted((self._next * self._sign, self._last * self._sign))
        found: list[Header] = []
        for (run,) in connection.execute(QUERIES["runs"]).fetchall():
            start = low
            below = connection.execute(QUERIES["block_below"], (run, low)).fetchone()
            if below and below[3] >= low:
                start = below[2]
            order = "blocks_desc" if self._sign > 0 else "blocks_asc"
            rows = connection.execute(QUERIES[order], (run, start, high, at_most)).fetchall()
            headers = [Header(*row) for row in rows]
            if len(headers) == at_most:
                horizon = max(horizon, self._bottom(headers[-1]))
            found.extend(headers)
        found = [header for header in found if self._top(header) >= horizon]
        return self._with_words(connection, found), horizon

    def _with_words(self, connection: apsw.Connection, headers: list[Header]) -> list[Header]:
        """Those of the blocks that may hold the words."""
        if not headers or not self._words:
            return headers
        low, high = min(header.high for header in headers), max(header.high for header in headers)
        rows = connection.execute(QUERIES["word_rows"], (self._words, low, high)).fetchall()
        candidates = {row[0] for row in rows}
        return [header for header in headers if header.high in candidates]

    def _passes_whole(self, header: Header, horizon: int) -> bool:
        return (
            not self._query.filtered
            and not self.check_times
            and header.last_index < self.size
            and self._top(header) <= self._next
            and self._bottom(header) >= max(horizon, self._last)
        )

    def _merged(
        self,
        connection: apsw.Connection,
        cluster: Sequence[Header],
        inside: Sequence[Line],
        horizon: int,
        match: str | None,
    ) -> list[Line]:
        """The matching lines of overlapping blocks and of the tail between them, above the horizon."""
        lines = list(inside)
        whole = self._query.filtered
        for header in cluster:
            wanted: set[int] | None = None
            if match:
                rows = connection.execute(QUERIES["term_desc"], (match, header.low, header.high, KEY_MAX)).fetchall()
                wanted = {row[0] for row in rows}
            if wanted is None or wanted:
                lines.extend(
                    line
                    for line in self._lines(connection, header)
                    if max(horizon, self._last) <= self._walk(line) <= self._next
                    and (wanted is None or line.position in wanted)
                    and self._passes(line, whole=whole)
                )
        lines.sort(key=self._walk, reverse=True)
        return lines

    def _lines(self, connection: apsw.Connection, header: Header) -> Iterator[Line]:
        """The lines of a block that this answer may show."""
        store = self._store
        keys = store.block_keys(connection, header.id)
        docs = block.lines(store.data(connection, "block_docs", header.id))
        if header.last_index < self.size:
            return map(Line, reversed(keys), docs)
        indexes = block.unpack_numbers(store.data(connection, "block_indexes", header.id))
        shown = zip(reversed(keys), docs, reversed(indexes), strict=True)
        return (Line(key, doc) for key, doc, index in shown if index < self.size)

    def _top(self, header: Header) -> int:
        return header.high if self._sign > 0 else -header.low

    def _bottom(self, header: Header) -> int:
        return header.low if self._sign > 0 else -header.high


def _split(lines: list[Line], sign: int, bound: int) -> tuple[list[Line], list[Line]]:
    """Lines in walking order: those above `bound`, and the others."""
    for at, line in enumerate(lines):
        if line.position * sign <= bound:
            return lines[:at], lines[at:]
    return lines, []


class _Finder:
    """Docs by their keys in one view; frames that were just opened are kept at hand."""

    def __init__(self, store: AccountStore, connection: apsw.Connection, size: int) -> None:
        self._store, self._connection, self._size = store, connection, size
        self._headers: dict[int, Header] = {}
        self._frames: dict[tuple[int, int], list[bytes]] = {}
        self._runs = [row[0] for row in connection.execute(QUERIES["runs"]).fetchall()]
        row = connection.execute(QUERIES["tail_low"]).fetchone()
        self._tail_low = row[0] if row else KEY_MAX

    def doc(self, key: int) -> bytes | None:
        """The doc at a key, if it is one of those shown."""
        if key >= self._tail_low:
            row = self._connection.execute(QUERIES["tail_at"], (key,)).fetchone()
            if row:
                return row[1] if row[0] < self._size else None
        for run in self._runs:
            header = self._header(run, key)
            if header is not None:
                keys = self._store.block_keys(self._connection, header.id)
                line = block.line_of(keys, key)
                if line is not None:
                    return self._line(header, line, len(keys))
        return None

    def _header(self, run: int, key: int) -> Header | None:
        header = self._headers.get(run)
        if header is None or not header.low <= key <= header.high:
            row = self._connection.execute(QUERIES["block_below"], (run, key)).fetchone()
            if not row or row[3] < key:
                return None
            header = self._headers[run] = Header(*row)
        return header

    def _line(self, header: Header, line: int, count: int) -> bytes | None:
        store, connection = self._store, self._connection
        if header.last_index >= self._size:
            indexes = block.unpack_numbers(store.data(connection, "block_indexes", header.id))
            if indexes[count - 1 - line] >= self._size:
                return None
        number, at = divmod(line, block.FRAME_EVENTS)
        docs = self._frames.get((header.id, number))
        if docs is None:
            if len(self._frames) >= FRAMES_KEPT_MAX:
                del self._frames[next(iter(self._frames))]
            docs = block.frame(header, store.data(connection, "block_docs", header.id), number)
            self._frames[header.id, number] = docs
        return docs[at]


def count(store: AccountStore, query: Query) -> int:
    """How many events match, from what the engine keeps where that is enough."""
    reader = Reader(store, query)
    match = store.terms.match(query)
    if not query.words and not reader.check_times:
        with store.snapshot() as connection:
            if match:
                return int(one(connection, QUERIES["term_count"], (match, *reader.bounds)))
            if query.min_us is None and query.max_us is None:
                return int(one(connection, QUERIES["live"]))
    return reader.count()


def _is_packed(part: Line | Packed) -> bool:
    return isinstance(part, Packed)
