"""What sealed events are counted by: pieces of up to PIECE_EVENTS of them, in columns.

A piece holds, in the order of their time, the time and the index of each event and, for each member that is
counted, which of the values in the piece it has. Its summary holds the numbers of these values (see
`values`) and how many events have each: so a piece without the value that is looked for is passed over, and
one that counts as a whole needs not be opened. Sealing adds a piece for what it seals, and upkeep joins small
ones. What goes out of the blocks goes out of the pieces: what is erased at once, what a purge destroys in
steps of its own, until when the table `destroyed` names it.

Numpy is imported here and where pieces are counted, only when there is something to do: a command that does
not need it starts sooner without.
"""

import json
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import apsw

from auditplane.errors import Damaged
from auditplane.event import Event
from auditplane.store.sqlite import sealing, values
from auditplane.store.sqlite.account import AccountStore
from auditplane.store.sqlite.database import fetch, one
from auditplane.store.sqlite.numbers import Numbers, np
from auditplane.store.sqlite.statements import QUERIES
from auditplane.store.sqlite.values import COLUMNS, NAME, NONE, Value
from auditplane.times import parse_rfc3339
from auditplane.zstd import compress_small, decompress_exactly

PIECE_EVENTS: Final = 65_536
PIECE_BITS: Final = 4
SUMMARY: Final = 0
TIMES: Final = 7
INDEXES: Final = 8


@dataclass(frozen=True, slots=True)
class Header:
    """A row of the table `piece`."""

    id: int
    count: int
    low_us: int
    high_us: int
    first_index: int
    last_index: int

    def overlaps(self, first: int, last: int) -> bool:
        """Whether it may hold one of the indexes from `first` to `last`."""
        return self.first_index <= last and first <= self.last_index


class Columns:
    """The columns of a piece, each read when it is first asked for."""

    def __init__(self, connection: apsw.Connection, header: Header) -> None:
        self._connection = connection
        self.header = header
        self._read: dict[int, Numbers] = {}
        self._ids: dict[int, Numbers] = {}
        self._counts: dict[int, Numbers] = {}

    def _data(self, number: int) -> bytes:
        data: bytes | None = one(
            self._connection, QUERIES["piece_column"], (self.header.id << PIECE_BITS | number,)
        )
        if data is None:
            raise Damaged(f"The piece {self.header.id} lacks its column {number}. Restore it from a backup.")
        return data

    def _summarise(self) -> None:
        numbers = unpack(self._data(SUMMARY)).astype(np.int64)
        sizes = numbers[: len(COLUMNS)].tolist()
        if len(numbers) != len(COLUMNS) + 2 * sum(sizes):
            raise _wrong(self.header.id)
        ids, counts = numbers[len(COLUMNS) :].reshape(2, -1)
        at = 0
        for column, size in zip(COLUMNS, sizes, strict=True):
            self._ids[column], self._counts[column] = ids[at : at + size], counts[at : at + size]
            at += size

    def ids(self, column: int) -> Numbers:
        """The numbers of the values of a column in this piece."""
        if not self._ids:
            self._summarise()
        return self._ids[column]

    def counts(self, column: int) -> Numbers:
        """How many events have each of these."""
        if not self._counts:
            self._summarise()
        return self._counts[column]

    def codes(self, column: int) -> Numbers:
        """Which of these each event has, by its place in them."""
        return self._column(column)

    def _column(self, number: int) -> Numbers:
        numbers = self._read.get(number)
        if numbers is None:
            numbers = unpack(self._data(number))
            if len(numbers) != self.header.count:
                raise _wrong(self.header.id)
            self._read[number] = numbers
        return numbers

    def us(self) -> Numbers:
        """The time of each event, ascending."""
        return self._column(TIMES).cumsum(dtype=np.int64) + self.header.low_us

    def indexes(self) -> Numbers:
        """The index of each event."""
        steps = self._column(INDEXES).astype(np.int64)
        return ((steps >> 1) ^ -(steps & 1)).cumsum() + self.header.first_index

    def numbers(self, column: int) -> Numbers:
        """The number of the value of each event."""
        return self.ids(column)[self.codes(column)]


def _wrong(piece_id: int) -> Damaged:
    return Damaged(f"The piece {piece_id} does not hold what it should. Restore it from a backup.")


def pieces(connection: apsw.Connection) -> list[Header]:
    """The pieces in a view."""
    return [Header(*row) for row in fetch(connection, QUERIES["pieces"])]


# Numbers as bytes.


def pack(numbers: Numbers) -> bytes:
    """Numbers from zero on, in as few bytes each as the greatest needs; the first byte says how many.

    First comes the lowest byte of each, then the next of each: so like stands beside like.
    """
    top = int(numbers.max(initial=0))
    width = next(width for width in (1, 2, 4, 8) if top < 1 << 8 * width)
    planes = numbers.astype(f"<u{width}").view(np.uint8).reshape(-1, width).T
    return compress_small(bytes([width]) + planes.tobytes())


def unpack(packed: bytes) -> Numbers:
    """What `pack` packed; raises Damaged."""
    data = decompress_exactly(packed)
    width = data[0] if data else 0
    if width not in (1, 2, 4, 8) or (len(data) - 1) % width:
        raise Damaged("A stored column is not one. Restore it from a backup.")
    planes = np.frombuffer(data, np.uint8, offset=1).reshape(width, -1)
    return planes[0] if width == 1 else np.ascontiguousarray(planes.T).view(f"<u{width}").reshape(-1)


# Making pieces.


@dataclass(frozen=True, slots=True)
class Made:
    """A piece ready to be stored, but for its summary: columns by their numbers, counts of values."""

    row: tuple[int, int, int, int, int]
    data: dict[int, bytes]
    counts: dict[int, Numbers]


def _made(us: Numbers, indexes: Numbers, codes: dict[int, Numbers], sizes: dict[int, int]) -> Made:
    """A piece of events in the order of their time; `sizes` are the numbers of values of the columns."""
    steps = np.diff(indexes, prepend=indexes.min())
    data = {column: pack(codes[column]) for column in COLUMNS}
    data[TIMES] = pack(np.diff(us, prepend=us[0]))
    data[INDEXES] = pack((steps << 1) ^ (steps >> 63))
    counts = {column: np.bincount(codes[column], minlength=sizes[column]) for column in COLUMNS}
    row = (len(us), int(us[0]), int(us[-1]), int(indexes.min()), int(indexes.max()))
    return Made(row, data, counts)


def _store(connection: apsw.Connection, made: Made, ids: dict[int, Numbers]) -> None:
    """Adds a piece, of whose columns the values have these numbers."""
    fetch(connection, QUERIES["add_piece"], made.row)
    start = connection.last_insert_rowid() << PIECE_BITS
    sizes = np.array([len(ids[column]) for column in COLUMNS])
    summary = np.concatenate(
        [sizes, *(ids[column] for column in COLUMNS), *(made.counts[column] for column in COLUMNS)]
    )
    rows = [(start | SUMMARY, pack(summary))]
    rows += [(start | number, data) for number, data in made.data.items()]
    connection.executemany(QUERIES["add_piece_column"], rows)


@dataclass(frozen=True, slots=True)
class Sealed:
    """A piece of what is sealed; its values may have no numbers yet."""

    made: Made
    texts: dict[int, list[str | None]]
    ids: dict[Value, int]
    markings: int


def of_sealed(
    store: AccountStore, connection: apsw.Connection, events: Sequence[Event], indexes: Sequence[int]
) -> Sealed:
    """The piece of some events that are about to be sealed, made in a view of what is stored."""
    texts = values.texts_of(events)
    known = store.values.of(connection)
    wanted = {(column, text) for column in COLUMNS for text in texts[column] if text is not None}
    ids = values.found(connection, known, wanted)
    fresh = sorted({text for column, text in wanted if column == NAME and (column, text) not in ids})
    if fresh:
        left_out = set(fresh[max(0, values.room_for_names(connection)) :])
        texts[NAME] = [None if text in left_out else text for text in texts[NAME]]
    us = np.array([parse_rfc3339(event.timestamp or "") for event in events])
    order = np.lexsort((np.array(indexes), us))
    codes, distinct = {}, {}
    for column in COLUMNS:
        places = {text: at for at, text in enumerate(dict.fromkeys(texts[column]))}
        column_codes = np.fromiter(map(places.__getitem__, texts[column]), np.int64, len(events))
        codes[column], distinct[column] = column_codes[order], list(places)
    sizes = {column: len(distinct[column]) for column in COLUMNS}
    made = _made(us[order], np.array(indexes)[order], codes, sizes)
    return Sealed(made, distinct, ids, one(connection, QUERIES["markings"]))


def add(connection: apsw.Connection, sealed: Sealed) -> tuple[int, dict[Value, int]]:
    """Stores a piece with what is sealed; returns what `KnownValues` keeps of it."""
    markings = one(connection, QUERIES["markings"])
    known = sealed.ids if markings == sealed.markings else {}
    ids: dict[Value, int] = {}
    numbers = {}
    for column in COLUMNS:
        for text in sealed.texts[column]:
            value = (column, text or "")
            if text is not None:
                ids[value] = (
                    known.get(value) or values.find(connection, value) or values.add(connection, value)
                )
        numbers[column] = np.array(
            [NONE if text is None else ids[column, text] for text in sealed.texts[column]]
        )
    _store(connection, sealed.made, numbers)
    for column in COLUMNS:
        values.count(connection, _pairs(numbers[column], sealed.made.counts[column]))
    return markings, ids


def _pairs(ids: Numbers, counts: Numbers) -> list[tuple[int, int]]:
    """Numbers of values with their counts, of those that have one."""
    pairs = zip(ids.tolist(), counts.tolist(), strict=True)
    return [(value_id, count) for value_id, count in pairs if value_id != NONE and count]


def _drop(connection: apsw.Connection, header: Header) -> None:
    if not fetch(connection, QUERIES["has_piece"], (header.id,)):
        raise sealing.Overtaken
    fetch(connection, QUERIES["drop_piece"], (header.id,))
    start = header.id << PIECE_BITS
    fetch(connection, QUERIES["drop_piece_columns"], (start, start + (1 << PIECE_BITS)))


def _joined(parts: Sequence[Columns], kept: Sequence[Numbers | slice]) -> tuple[Made, dict[int, Numbers]]:
    """A piece of some events of others, and the numbers of its values."""
    us = np.concatenate([part.us()[rows] for part, rows in zip(parts, kept, strict=True)])
    indexes = np.concatenate([part.indexes()[rows] for part, rows in zip(parts, kept, strict=True)])
    order = np.lexsort((indexes, us))
    codes, ids = {}, {}
    for column in COLUMNS:
        numbers = [part.numbers(column)[rows] for part, rows in zip(parts, kept, strict=True)]
        ids[column], codes[column] = np.unique(np.concatenate(numbers)[order], return_inverse=True)
    sizes = {column: len(ids[column]) for column in COLUMNS}
    return _made(us[order], indexes[order], codes, sizes), ids


def join(store: AccountStore) -> bool:
    """Makes one piece of some small ones when there are many; says whether it did."""
    with store.snapshot() as connection:
        small = [header for header in pieces(connection) if header.count <= PIECE_EVENTS // 2]
        if len(small) < sealing.JOINED_PIECES:
            return False
        small.sort(key=lambda header: header.first_index)
        chosen: list[Header] = []
        for header in small[: sealing.JOINED_PIECES]:
            if sum(each.count for each in chosen) + header.count <= PIECE_EVENTS:
                chosen.append(header)
        parts = [Columns(connection, header) for header in chosen]
        made, ids = _joined(parts, [slice(None)] * len(parts))
    with suppress(sealing.Overtaken), store.maintenance() as connection:
        for header in chosen:
            _drop(connection, header)
        _store(connection, made, ids)
    return True


# Forgetting.


@dataclass(frozen=True, slots=True)
class Cut:
    """A piece without some of its events, and how many of them had which values."""

    header: Header
    left: tuple[Made, dict[int, Numbers]] | None
    gone: Sequence[tuple[int, int]]


def holding(connection: apsw.Connection, indexes: Collection[int]) -> dict[int, Header]:
    """The piece of each of some events, by their indexes; those of the tail are in none."""
    found: dict[int, Header] = {}
    if not indexes:
        return found
    wanted = np.array(sorted(indexes))
    for header in pieces(connection):
        if header.overlaps(wanted[0], wanted[-1]):
            here = np.intersect1d(Columns(connection, header).indexes(), wanted)
            found.update(dict.fromkeys(here.tolist(), header))
    return found


def cut(connection: apsw.Connection, header: Header, doomed: Numbers) -> Cut | None:
    """A piece without the events of some indexes; None when it has none of them."""
    part = Columns(connection, header)
    goes = np.isin(part.indexes(), doomed)
    if not goes.any():
        return None
    gone: list[tuple[int, int]] = []
    for column in COLUMNS:
        ids = part.ids(column)
        gone += _pairs(ids, np.bincount(part.codes(column)[goes], minlength=len(ids)))
    return Cut(header, None if goes.all() else _joined([part], [~goes]), gone)


def replace(connection: apsw.Connection, each: Cut) -> None:
    """Puts what is left of a piece in its place; raises `Overtaken` when the piece is not there."""
    _drop(connection, each.header)
    if each.left is not None:
        _store(connection, *each.left)
    values.discount(connection, each.gone)


def erase(connection: apsw.Connection, headers: Iterable[Header], indexes: Sequence[int]) -> None:
    """Takes events out of their pieces."""
    for header in headers:
        each = cut(connection, header, np.array(indexes))
        if each is not None:
            replace(connection, each)


def note_destroyed(connection: apsw.Connection, indexes: Sequence[int]) -> None:
    """Notes that sealed events are destroyed, which their pieces still hold."""
    if indexes:
        ascending = np.array(sorted(indexes))
        packed = pack(np.diff(ascending, prepend=ascending[0]))
        fetch(connection, QUERIES["add_destroyed"], (int(ascending[0]), int(ascending[-1]), packed))


def destroyed(connection: apsw.Connection) -> list[tuple[int, int, bytes]]:
    """What was noted so, in a view: the first and the last index, and all of them packed."""
    return fetch(connection, QUERIES["destroyed"])


def swept(connection: apsw.Connection, after_id: int, target: int) -> tuple[Header | None, Cut | None]:
    """The next piece that may hold destroyed events, with an index below `target`, and what is left of it."""
    noted = destroyed(connection)
    header = _to_sweep(connection, after_id, target) if noted else None
    if header is None:
        return None, None
    return header, cut(connection, header, destroyed_in(noted, header))


def destroyed_in(noted: Iterable[tuple[int, int, bytes]], header: Header) -> Numbers:
    """The indexes of those that a piece may hold."""
    found = [
        unpack(packed).cumsum(dtype=np.int64) + first
        for first, last, packed in noted
        if header.overlaps(first, last)
    ]
    return np.concatenate(found) if found else np.array([], np.int64)


def _to_sweep(connection: apsw.Connection, after_id: int, target: int) -> Header | None:
    """The next piece after one that may hold events with an index below `target`; None for no more."""
    found = [header for header in pieces(connection) if header.id > after_id and header.first_index < target]
    return found[0] if found else None


def texts(connection: apsw.Connection, ids: Sequence[int]) -> dict[int, str]:
    """The texts of some numbers in a view."""
    return dict(fetch(connection, QUERIES["values_in"], (json.dumps(ids),)))
