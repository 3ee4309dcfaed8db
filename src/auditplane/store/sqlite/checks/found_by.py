"""What events are found by: the rows of `term` and `word` are exactly those that the events are due.

Of millions of pairs of a token and a row, sums of their hashes are compared, a sum for each of BUCKETS: what
is stored comes in the order of the tokens, what is due in that of the events. The hashes are those of this
process, which nobody can foresee. Where sums differ, the pairs of these buckets are looked at one by one.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

import apsw

from auditplane.event import Event
from auditplane.query import searched_text
from auditplane.store.sqlite import postings
from auditplane.store.sqlite.checks import QUERIES, Problem, telling
from auditplane.store.sqlite.database import fetch
from auditplane.store.sqlite.terms import Terms

BUCKETS: Final = 4_096
BUCKETS_LOOKED_INTO_MAX: Final = 16

_MASK: Final = BUCKETS - 1

Pair = tuple[str, int]


class _Table:
    """The sums over the pairs of a table, what is due less what is stored."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.sums = [0] * BUCKETS
        self.looked_into: set[int] = set()
        self.due: set[Pair] = set()

    def expect(self, pairs: Iterable[Pair]) -> None:
        sums = self.sums
        if self.looked_into:
            self.due.update(pair for pair in pairs if hash(pair) & _MASK in self.looked_into)
            return
        for hashed in map(hash, pairs):
            sums[hashed & _MASK] += hashed

    def subtract(self, connection: apsw.Connection) -> None:
        """Takes off the pairs that are stored."""
        sums = self.sums
        for hashed in map(hash, _stored(connection, self.name)):
            sums[hashed & _MASK] -= hashed

    def look_into(self) -> bool:
        """Chooses the buckets to look at, if there are any."""
        differing = [at for at, total in enumerate(self.sums) if total]
        self.looked_into = set(differing[:BUCKETS_LOOKED_INTO_MAX])
        return bool(self.looked_into)

    def differing(self, connection: apsw.Connection) -> tuple[set[Pair], list[Pair]]:
        """The pairs in these buckets that are missing, and those that are too many."""
        missing = set(self.due)
        surplus = []
        for pair in _stored(connection, self.name):
            if hash(pair) & _MASK in self.looked_into:
                if pair in missing:
                    missing.remove(pair)
                else:
                    surplus.append(pair)
        return missing, surplus


class FoundBy:
    """Compares both tables, while all sealed events are shown to it, once or twice."""

    def __init__(self, connection: apsw.Connection, folder: Path, terms: Terms, problem: Problem) -> None:
        self._connection, self._folder, self._problem = connection, folder, problem
        self._terms = terms
        self._term, self._word = _Table("term"), _Table("word")

    def expect(self, block_id: int, keys: Sequence[int], events: Sequence[Event]) -> None:
        """Takes up the events of a block."""
        of_event = self._terms.of_event
        self._term.expect(
            [
                (token, row)
                for row, event in zip(postings.rowids(keys), events, strict=True)
                for token in of_event(event).split()
            ]
        )
        words = self._terms.of_words("\n".join(map(searched_text, events)))
        self._word.expect([(token, block_id) for token in set(words.split())])

    def differs(self) -> bool:
        """Whether what is stored is something else; then all events must be shown once more."""
        differs = False
        for table in (self._term, self._word):
            with telling(self._problem, f"the table {table.name}", self._folder):
                for (segment,) in fetch(self._connection, QUERIES["stray_segments"].format(table.name)):
                    self._problem(f"the table {table.name} has half of a segment {segment}")
                table.subtract(self._connection)
                differs |= table.look_into()
        return differs

    def tell(self) -> None:
        """Says what differs, once all events were shown again."""
        for table, row_name in ((self._term, _event_at), (self._word, _block_at)):
            if not table.looked_into:
                continue
            with telling(self._problem, f"the table {table.name}", self._folder):
                missing, surplus = table.differing(self._connection)
                for token, row in sorted(missing):
                    self._problem(f"the table {table.name} lacks the token {token} of {row_name(row)}")
                for token, row in surplus:
                    self._problem(
                        f"the table {table.name} has a token for {row_name(row)} that is not due it: {token}"
                    )


def _event_at(row: int) -> str:
    return f"the event at the key {postings.key(row)}"


def _block_at(row: int) -> str:
    return f"block {row}"


def _stored(connection: apsw.Connection, table: str) -> Iterator[Pair]:
    fetch(connection, QUERIES["close_vocabulary"])
    fetch(connection, QUERIES["open_vocabulary"].format(table))
    try:
        yield from connection.execute(QUERIES["vocabulary"])
    finally:
        fetch(connection, QUERIES["close_vocabulary"])
