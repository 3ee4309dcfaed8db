"""Counts what a query matches in one view: in the columns of sealed events, and among those of the tail.

Pieces are counted one by one, and each takes about a millisecond: so the threads that share the interpreter
get their turn.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, Protocol, TypeAlias

import apsw

from auditplane.event import Event
from auditplane.query import Query, configuration_name, fold
from auditplane.store import Hold, Member
from auditplane.store.sqlite import columns, values
from auditplane.store.sqlite.account import AccountStore
from auditplane.store.sqlite.columns import Columns, Header
from auditplane.store.sqlite.database import one
from auditplane.store.sqlite.numbers import Numbers, np
from auditplane.store.sqlite.shown import holds_in, shown_in
from auditplane.store.sqlite.statements import QUERIES
from auditplane.store.sqlite.values import ACTION, COLUMN_OF, CONFIGURATION, KIND, NONE, USER, VERSION
from auditplane.times import parse_rfc3339

COUNTED: Final = (USER, CONFIGURATION, KIND, ACTION)
ALL: Final = slice(None)
VALUES_COUNTED_MAX: Final = 100_000
CELLS_KEPT_MAX: Final = 200_000
MERGED_AT_ONCE: Final = 65_536

TextsOf: TypeAlias = Callable[[Sequence[int]], dict[int, str]]
"""Gives the texts of the numbers of values."""

Rows: TypeAlias = slice | Numbers
"""Some rows of a piece, in the order of their time."""


class Part(Protocol):
    """Some events in columns: those of a piece, or others."""

    def ids(self, column: int) -> Numbers: ...
    def counts(self, column: int) -> Numbers: ...
    def codes(self, column: int) -> Numbers: ...
    def us(self) -> Numbers: ...


class Others:
    """Events that are in no piece, as columns. Texts without a number are given one beyond all that are."""

    def __init__(self, connection: apsw.Connection, events: Sequence[Event], texts: dict[int, str]) -> None:
        moments = np.array([parse_rfc3339(event.timestamp or "") for event in events], np.int64)
        order = np.argsort(moments, kind="stable")
        self._us = moments[order]
        self._ids: dict[int, Numbers] = {}
        self._codes: dict[int, Numbers] = {}
        next_id = max(one(connection, QUERIES["value_last"]), *texts, NONE) + 1
        found = values.texts_of(events)
        for column in COUNTED:
            places = {text: at for at, text in enumerate(dict.fromkeys(found[column]))}
            codes = np.fromiter(map(places.__getitem__, found[column]), np.int64, len(events))
            ids = []
            for text in places:
                value_id = NONE if text is None else values.find(connection, (column, text))
                if text is not None and value_id is None:
                    value_id = next_id
                    next_id += 1
                    texts[value_id] = text
                ids.append(value_id)
            self._ids[column], self._codes[column] = np.array(ids, np.int64), codes[order]

    def ids(self, column: int) -> Numbers:
        return self._ids[column]

    def counts(self, column: int) -> Numbers:
        return np.bincount(self._codes[column], minlength=len(self._ids[column]))

    def codes(self, column: int) -> Numbers:
        return self._codes[column]

    def us(self) -> Numbers:
        return self._us


Found: TypeAlias = tuple[Part, Rows, int, tuple[int, int]]
"""Some rows of a part, how many they are, and two times between which they lie."""


class Counts:
    """How many events have which numbers. Once there are more than `at_most` of them, nothing is added."""

    def __init__(self, at_most: int) -> None:
        self._at_most = at_most
        self._numbers, self._sums = np.zeros(0, np.int64), np.zeros(0, np.int64)
        self._added: list[tuple[Numbers, Numbers]] = []
        self._waiting = 0
        self._is_over = False

    def add(self, numbers: Numbers, counts: Numbers) -> None:
        """Counts some numbers, of which each is there once."""
        if not self._is_over:
            self._added.append((numbers, counts))
            self._waiting += len(numbers)
            if self._waiting > max(MERGED_AT_ONCE, len(self._numbers)):
                self._merge()

    @property
    def is_over(self) -> bool:
        """Whether there are more numbers than it holds, so that counts are too small, and numbers missing."""
        self._merge()
        return self._is_over

    def all(self) -> tuple[Numbers, Numbers]:
        """The numbers, ascending, and their counts."""
        self._merge()
        return self._numbers, self._sums

    def _merge(self) -> None:
        if self._added:
            numbers = np.concatenate([self._numbers, *(numbers for numbers, _ in self._added)])
            counts = np.concatenate([self._sums, *(counts for _, counts in self._added)])
            self._added, self._waiting = [], 0
            self._numbers, places = np.unique(numbers, return_inverse=True)
            self._sums = np.zeros(len(self._numbers), np.int64)
            np.add.at(self._sums, places, counts)
            self._is_over = len(self._numbers) > self._at_most


class Counted:
    """Events by the values that they have, and those of one member also by the buckets they lie in.

    These begin at some times, ascending. `found` gives what is counted, and may be asked again.
    """

    def __init__(self, found: Callable[[], Iterable[Found]], starts: Sequence[int], stacked: Member) -> None:
        self.events = 0
        self._found, self._buckets = found, _Buckets(starts, COLUMN_OF[stacked])
        self._sums = {column: Counts(VALUES_COUNTED_MAX) for column in COUNTED}
        self._cells = Counts(CELLS_KEPT_MAX)
        for part, rows, events, bounds in found():
            self.events += events
            for column, sums in self._sums.items():
                _add(sums, part, rows, column)
            self._buckets.add(self._cells, part, rows, bounds)

    @property
    def is_over(self) -> bool:
        """Whether a member has more than VALUES_COUNTED_MAX values, so that only `events` is right."""
        return any(sums.is_over for sums in self._sums.values())

    def top(self, member: Member, at_most: int) -> list[tuple[int, int]]:
        """The most frequent values, by their numbers, with all as frequent as the last; and their counts."""
        ids, sums = self._sums[COLUMN_OF[member]].all()
        if len(ids) > at_most:
            held = sums >= np.partition(sums, -at_most)[-at_most]
            ids, sums = ids[held], sums[held]
        return list(zip(ids.tolist(), sums.tolist(), strict=True))

    def series(self, ids: Sequence[int]) -> list[list[int]]:
        """A count for each bucket of each of some values, and of all others together."""
        cells, size = self._cells, len(self._buckets.starts)
        if cells.is_over:
            cells = Counts((len(ids) + 1) * size)
            only = np.array(ids, np.int64)
            for part, rows, _, bounds in self._found():
                self._buckets.add(cells, part, rows, bounds, only)
        table = np.zeros((len(ids) + 1, size), np.int64)
        numbers, counts = cells.all()
        held, buckets = np.divmod(numbers, size)
        others = np.ones(len(held), bool)
        for line, value_id in enumerate(ids):
            is_one = held == value_id
            table[line, buckets[is_one]] = counts[is_one]
            others &= ~is_one
        np.add.at(table[-1], buckets[others], counts[others])
        return [[int(count) for count in row] for row in table]


def _add(sums: Counts, part: Part, rows: Rows, column: int) -> None:
    """Counts the values of a column that some rows of a part have."""
    ids = part.ids(column)
    if isinstance(rows, slice) and rows == ALL:
        counts = part.counts(column)
    else:
        counts = np.bincount(part.codes(column)[rows], minlength=len(ids))
    held = np.flatnonzero((counts > 0) & (ids != NONE))
    sums.add(ids[held], counts[held])


@dataclass(frozen=True, slots=True)
class _Wanted:
    """The filters of a query as numbers; None for any, a pair for a configuration in a version."""

    columns: dict[int, Numbers]
    names: Numbers
    versions: Sequence[tuple[int, int]]
    configured: bool


def _wanted(connection: apsw.Connection, query: Query) -> _Wanted:
    def found(column: int, texts: Iterable[str]) -> Numbers:
        ids = (values.find(connection, (column, text)) for text in texts)
        return np.array([value_id for value_id in ids if value_id is not None], np.int64)

    chosen: dict[int, Numbers] = {}
    if query.users:
        users = [each for user in query.users for each in values.find_folded(connection, USER, user)]
        chosen[USER] = np.array(users, np.int64)
    if query.kinds:
        chosen[KIND] = found(KIND, query.kinds)
    if query.actions:
        chosen[ACTION] = found(ACTION, query.actions)
    versions = []
    for text in query.configurations:
        name = configuration_name(text)
        if name != text:
            name_id = values.find(connection, (CONFIGURATION, name))
            version_id = values.find(connection, (VERSION, text[len(name) + 1 :]))
            if name_id is not None and version_id is not None:
                versions.append((name_id, version_id))
    names = found(CONFIGURATION, query.configurations)
    return _Wanted(chosen, names, versions, bool(query.configurations))


class View:
    """What a query matches in a view, in columns."""

    def __init__(self, store: AccountStore, connection: apsw.Connection, query: Query) -> None:
        self._store, self._connection, self._query = store, connection, query
        self._shown = shown_in(connection)
        self._noted = columns.destroyed(connection)
        self._holds = self._held_values() if self._shown.held else {}
        self._wanted = _wanted(connection, query)
        self._pieces = [header for header in columns.pieces(connection) if self._may_match(header)]
        self._texts: dict[int, str] = {}
        rows = store.tail.rows(connection)
        shown, matches = self._shown, query.matches
        self._tail = Others(
            connection,
            [event for index, event in rows if shown.decoded(index, event) and matches(event)],
            self._texts,
        )

    def _held_values(self) -> dict[int | None, list[Hold]]:
        """The holds by the numbers of the users that they are of; None for any user."""
        found: dict[int | None, list[Hold]] = {}
        for hold in holds_in(self._connection):
            users: Sequence[int | None] = (
                [None] if hold.user is None else values.find_folded(self._connection, USER, fold(hold.user))
            )
            for user in users:
                found.setdefault(user, []).append(hold)
        return found

    def _may_match(self, header: Header) -> bool:
        query = self._query
        return (query.min_us is None or query.min_us <= header.high_us) and (
            query.max_us is None or query.max_us >= header.low_us
        )

    # Which rows of a piece match.

    def _rows(self, part: Columns) -> Rows | None:
        """Those that match and are shown; None for none."""
        mask = self._matching(part)
        if mask is not None and not mask.any():
            return None
        shown = self._shown_rows(part)
        if shown is not None:
            mask = shown if mask is None else mask & shown
        low, high = self._between(part)
        if mask is None:
            return None if low >= high else ALL if high - low == part.header.count else slice(low, high)
        rows = np.flatnonzero(mask[low:high]) + low
        return rows if len(rows) else None

    def _between(self, part: Columns) -> tuple[int, int]:
        """Where the rows between the dates begin and end."""
        query, header = self._query, part.header
        low, high = 0, header.count
        if query.min_us is not None and query.min_us > header.low_us:
            low = int(np.searchsorted(part.us(), query.min_us, "left"))
        if query.max_us is not None and query.max_us < header.high_us:
            high = int(np.searchsorted(part.us(), query.max_us, "right"))
        return low, high

    def _matching(self, part: Columns) -> Numbers | None:
        """Which rows pass the filters; None for all."""
        mask: Numbers | None = None
        for column, wanted in self._wanted.columns.items():
            passes = np.isin(part.ids(column), wanted)
            if not passes.any():
                return np.zeros(1, bool)
            if not passes.all():
                mask = _both(mask, passes[part.codes(column)])
        return _both(mask, self._configured(part)) if self._wanted.configured else mask

    def _configured(self, part: Columns) -> Numbers:
        ids = part.ids(CONFIGURATION)
        passes = np.isin(ids, self._wanted.names)
        pairs = [
            (np.flatnonzero(ids == name), np.flatnonzero(part.ids(VERSION) == version))
            for name, version in self._wanted.versions
        ]
        pairs = [(name, version) for name, version in pairs if len(name) and len(version)]
        if not pairs and not passes.any():
            return np.zeros(1, bool)
        codes = part.codes(CONFIGURATION)
        mask = passes[codes]
        for name, version in pairs:
            mask |= (codes == name[0]) & (part.codes(VERSION) == version[0])
        return mask

    def _shown_rows(self, part: Columns) -> Numbers | None:
        """Which rows are shown; None for all."""
        header, shown = part.header, self._shown
        destroyed = columns.destroyed_in(self._noted, header)
        may_hide = shown.hides and header.overlaps(shown.purged, shown.expired - 1)
        if not may_hide and not len(destroyed):
            return None
        indexes = part.indexes()
        mask = np.ones(header.count, bool)
        if may_hide:
            mask = (indexes < shown.purged) | (indexes >= shown.expired)
            mask |= np.isin(indexes, np.array(sorted(shown.told), np.int64))
            for user, holds in self._holds.items():
                mask |= _kept(part, user, holds)
        return mask & ~np.isin(indexes, destroyed) if len(destroyed) else mask

    # Counting.

    def extent(self) -> tuple[int, int] | None:
        """The time of the oldest and of the newest match; None when there is none."""
        ends = [self._end(newest=False), self._end(newest=True)]
        tail = self._tail.us()
        oldest = [us for us in (ends[0], *tail[:1].tolist()) if us is not None]
        newest = [us for us in (ends[1], *tail[-1:].tolist()) if us is not None]
        return (min(oldest), max(newest)) if oldest and newest else None

    def _end(self, *, newest: bool) -> int | None:
        """The time of the oldest match in a piece, or of the newest; opens no more pieces than needed."""
        best: int | None = None
        sign = -1 if newest else 1
        for header in sorted(self._pieces, key=lambda header: sign * _bound(header, newest)):
            if best is not None and sign * _bound(header, newest) >= sign * best:
                break
            part = Columns(self._connection, header)
            rows = self._rows(part)
            if rows is None:
                continue
            is_whole = isinstance(rows, slice) and rows == ALL
            us = _bound(header, newest) if is_whole else int(part.us()[rows][-1 if newest else 0])
            best = us if best is None else sign * min(sign * best, sign * us)
        return best

    def count(self, starts: Sequence[int], stacked: Member) -> Counted:
        """Counts all matches, the stacked member also by the buckets that begin at some times, ascending."""
        return Counted(self._found, starts, stacked)

    def _found(self) -> Iterator[Found]:
        """What matches of each piece, and of the tail."""
        for header in self._pieces:
            part = Columns(self._connection, header)
            rows = self._rows(part)
            if rows is not None:
                is_whole = isinstance(rows, slice) and rows == ALL
                events = header.count if is_whole else len(part.codes(USER)[rows])
                yield part, rows, events, (header.low_us, header.high_us)
        yield from _whole(self._tail)

    def all_values(self, member: Member) -> Mapping[str, int]:
        """The values of a member that matches have, and how many have each.

        They are all when there are not more than VALUES_COUNTED_MAX.
        """
        sums = Counts(VALUES_COUNTED_MAX)
        for part, rows, _, _ in self._found():
            _add(sums, part, rows, COLUMN_OF[member])
        ids, counts = (numbers.tolist() for numbers in sums.all())
        texts = self.texts(ids)
        return {texts[value_id]: count for value_id, count in zip(ids, counts, strict=True)}

    def texts(self, ids: Sequence[int]) -> dict[int, str]:
        """The texts of some numbers."""
        return _texts(self._connection, ids, self._texts)


def _texts(connection: apsw.Connection, ids: Sequence[int], others: Mapping[int, str]) -> dict[int, str]:
    """The texts of some numbers, of which others are not stored."""
    stored = columns.texts(connection, ids)
    return stored | {value_id: others[value_id] for value_id in ids if value_id in others}


def _bound(header: Header, newest: bool) -> int:
    return header.high_us if newest else header.low_us


def _both(mask: Numbers | None, other: Numbers) -> Numbers:
    return other if mask is None else mask & other


def _kept(part: Columns, user: int | None, holds: Sequence[Hold]) -> Numbers:
    """Which rows of a piece the holds of a user keep."""
    mask = np.zeros(part.header.count, bool)
    place = np.flatnonzero(part.ids(USER) == user) if user is not None else None
    if place is not None and not len(place):
        return mask
    us = part.us()
    for hold in holds:
        low = 0 if hold.min_us is None else int(np.searchsorted(us, hold.min_us, "left"))
        high = len(us) if hold.max_us is None else int(np.searchsorted(us, hold.max_us, "right"))
        mask[low:high] = True
    return mask if place is None else mask & (part.codes(USER) == place[0])


@dataclass(frozen=True, slots=True)
class _Buckets:
    """Where buckets begin, and the column that is counted in each."""

    starts: Sequence[int]
    column: int

    def add(
        self, cells: Counts, part: Part, rows: Rows, bounds: tuple[int, int], only: Numbers | None = None
    ) -> None:
        """Counts some rows of a part that lie between two times, each value in each bucket.

        All values but `only` these are one, if they are given.
        """
        ids = part.ids(self.column)
        first, last = np.searchsorted(self.starts, bounds, "right") - 1
        if first == last and isinstance(rows, slice) and rows == ALL:
            self._add_cell(cells, int(first), ids, part.counts(self.column), only)
            return
        codes, us = part.codes(self.column)[rows], part.us()[rows]
        cuts = [0, *np.searchsorted(us, self.starts[first + 1 : last + 1]).tolist(), len(us)]
        for bucket, (start, end) in enumerate(pairwise(cuts), int(first)):
            if start < end:
                counts = np.bincount(codes[start:end], minlength=len(ids))
                self._add_cell(cells, bucket, ids, counts, only)

    def _add_cell(
        self, cells: Counts, bucket: int, ids: Numbers, counts: Numbers, only: Numbers | None
    ) -> None:
        held = counts > 0
        if only is not None:
            told = held & np.isin(ids, only)
            cells.add(np.array([NONE * len(self.starts) + bucket]), counts[held & ~told].sum(keepdims=True))
            held = told
        cells.add(ids[held] * len(self.starts) + bucket, counts[held])


def _whole(others: Others) -> Iterator[Found]:
    us = others.us()
    if len(us):
        yield others, ALL, len(us), (int(us[0]), int(us[-1]))


def count_events(
    connection: apsw.Connection, events: Sequence[Event], starts: Sequence[int], stacked: Member
) -> tuple[Counted, TextsOf]:
    """Counts events that are given as `View.count` does; and what gives the texts of numbers."""
    texts: dict[int, str] = {}
    others = Others(connection, events, texts)
    return Counted(lambda: _whole(others), starts, stacked), lambda ids: _texts(connection, ids, texts)


def values_holding(
    store: AccountStore, connection: apsw.Connection, member: Member, folded: str
) -> Mapping[str, int]:
    """The values of a member whose folded text holds another, and how many events in a view have each.

    While events that have expired are not destroyed yet, resource names are those of the tail only.
    """
    shown = shown_in(connection)
    if not shown.hides and not columns.destroyed(connection):
        found = Counter(values.holding(connection, COLUMN_OF[member], folded))
    elif member is Member.NAME:
        found = Counter()
    else:
        return _hold(View(store, connection, Query()).all_values(member), folded)
    rows = store.tail.rows(connection)
    tail = values.texts_of([event for index, event in rows if shown.decoded(index, event)])
    found.update(_hold(Counter(text for text in tail[COLUMN_OF[member]] if text is not None), folded))
    return found


def _hold(counts: Mapping[str, int], folded: str) -> Mapping[str, int]:
    return {text: count for text, count in counts.items() if folded in fold(text)}
