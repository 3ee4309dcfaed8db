"""What events are counted by: the pieces of columns say of each sealed event what its doc says, and no more.

All pieces are read first, and kept as a number for each event; then the sealed events are compared with that
as they come.
"""

from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Final

import apsw

from auditplane.event import Event
from auditplane.query import fold
from auditplane.store.sqlite import columns, values
from auditplane.store.sqlite.checks import QUERIES, Problem, ranges, telling
from auditplane.store.sqlite.columns import PIECE_BITS, Columns, Header
from auditplane.store.sqlite.database import fetch
from auditplane.store.sqlite.statements import KEY_MAX
from auditplane.store.sqlite.values import COLUMNS, NAME, NONE
from auditplane.times import parse_rfc3339

NOWHERE: Final = 0
_KEY_MIN: Final = -1 - KEY_MAX
_PARTS: Final = (columns.SUMMARY, *COLUMNS, columns.TIMES, columns.INDEXES)


class Counted:
    """Compares the pieces of a log of `size` entries with its sealed events, while all of these are shown."""

    def __init__(self, connection: apsw.Connection, folder: Path, size: int, problem: Problem) -> None:
        self._connection, self._folder, self._problem = connection, folder, problem
        self._texts: dict[int, tuple[int, str]] = {}
        self._tallies: Counter[int] = Counter()
        # By index: a hash of what a piece says of the event, and of its name.
        self._said = array("q", bytes(8 * size))
        self._names = array("q", bytes(8 * size))
        self._wrong: list[int] = []
        with telling(problem, "the tables of the columns", folder):
            self._read()

    def expect(self, indexes: Sequence[int], events: Sequence[Event]) -> None:
        """Takes up some sealed events."""
        for index, row in zip(indexes, _rows(events), strict=True):
            said, name = self._said[index], self._names[index]
            if said != _number(row[:-1]) or name not in (NOWHERE, _number(row[-1:])):
                self._wrong.append(index)
            self._said[index] = NOWHERE

    def tell(self) -> None:
        """Says what differs, once all sealed events were shown."""
        for first, last in ranges(sorted(self._wrong)):
            self._problem(f"the columns don't say of the events {first} to {last} what these say")
        with telling(self._problem, "the table destroyed", self._folder):
            destroyed = set(self._destroyed())
            left = [
                index for index, said in enumerate(self._said) if said != NOWHERE and index not in destroyed
            ]
            for first, last in ranges(left):
                self._problem(f"the columns count the events {first} to {last}, which are not sealed")

    def _destroyed(self) -> Iterator[int]:
        """What a purge has destroyed that pieces may still hold."""
        for first, last, packed in columns.destroyed(self._connection):
            found = (columns.unpack(packed).cumsum() + first).tolist()
            if found[-1] != last:
                self._problem("a row of the table destroyed does not end as it says")
            yield from found

    # Reading.

    def _read(self) -> None:
        headers = columns.pieces(self._connection)
        self._check_parts(headers)
        for value_id, member, text, folded in fetch(self._connection, QUERIES["values"]):
            self._texts[value_id] = (member, text)
            if folded != fold(text) or member not in COLUMNS:
                self._problem(f"the value {value_id} is not as it was made")
        self._check_found_by_index()
        for header in headers:
            with telling(self._problem, f"the piece {header.id} of the columns", self._folder):
                self._read_piece(header)
        due = {value_id: count for value_id, count in self._tallies.items() if value_id != NONE}
        if due != dict(fetch(self._connection, QUERIES["tallies"])) or due.keys() != self._texts.keys():
            self._problem("the tallies of the values are not those of the columns")

    def _check_parts(self, headers: Sequence[Header]) -> None:
        """Each piece has its columns, and no column is of none."""
        ids = [header.id for header in headers]
        due = [piece_id << PIECE_BITS | number for piece_id in ids for number in _PARTS]
        found = [row[0] for row in fetch(self._connection, QUERIES["column_ids"])]
        if found != due:
            strays = sorted(set(due) ^ set(found))
            self._problem(f"the rows {strays[:3]} of piece_column are missing, or of no piece")
        last = fetch(self._connection, QUERIES["last_piece"])[0][0]
        if ids and (last is None or last < ids[-1]):
            self._problem(f"the number of the last piece is kept as {last}; it is {ids[-1]}")

    def _check_found_by_index(self) -> None:
        """The index by which values are found leads to each of them; none is there twice."""
        if fetch(self._connection, QUERIES["values_by_index"]) != fetch(
            self._connection, QUERIES["values_sorted"]
        ):
            self._problem("the index of the values is not that of their table")
        if len(set(self._texts.values())) != len(self._texts):
            self._problem("a value is there twice")

    def _read_piece(self, header: Header) -> None:
        piece = Columns(self._connection, header)
        us, indexes = piece.us().tolist(), piece.indexes().tolist()
        found = [len(us), us[0], us[-1], min(indexes), max(indexes)]
        due = [header.count, header.low_us, header.high_us, header.first_index, header.last_index]
        if found != due or any(before > after for before, after in pairwise(us)):
            self._problem(f"the piece {header.id} says {due}; its columns say {found}")
        texts = []
        for column in COLUMNS:
            ids = piece.numbers(column).tolist()
            counts = Counter(ids)
            self._tallies.update(counts)
            said = dict(zip(piece.ids(column).tolist(), piece.counts(column).tolist(), strict=True))
            if {value_id: count for value_id, count in said.items() if count} != counts:
                self._problem(f"the summary of the piece {header.id} is not that of its column {column}")
            texts.append([self._text(column, value_id) for value_id in ids])
        for index, *row in zip(indexes, us, *texts, strict=True):
            if self._said[index] != NOWHERE:
                self._problem(f"the event {index} is in two pieces")
            self._said[index] = _number(row[:-1])
            self._names[index] = NOWHERE if row[-1] is None else _number(row[-1:])

    def _text(self, column: int, value_id: int) -> str | None:
        if value_id == NONE:
            return None
        member, text = self._texts[value_id]
        if member != column:
            raise ValueError(f"its column {column} has the value {value_id}, which is of another")
        return text


def _rows(events: Sequence[Event]) -> Iterator[Sequence[object]]:
    """Time and texts of events in the order of the columns, the name last."""
    texts = values.texts_of(events)
    us = [parse_rfc3339(event.timestamp or "") for event in events]
    return zip(us, *(texts[column] for column in COLUMNS), strict=True)


def _number(row: Sequence[object]) -> int:
    """A number for a row, never that for no row; nobody outside of this process can foresee it."""
    return hash(tuple(row)) or 1


assert COLUMNS[-1] == NAME  # noqa: S101 - rows end with it
