"""Which sealed events hold which exact values: the table `term`.

FTS5 stores the difference of one rowid to the next, so small rowids are small on the disk. That of an event
is its key with three of the eleven bits of the counter: 36 bytes an event in place of 42 (200,000 events).
An event whose counter needs more has a wide row instead: its key, moved to the negative numbers. So every
event has a row of its own, and both kinds are in the order of the keys.
"""

from collections.abc import Iterable, Sequence
from heapq import merge
from typing import Final

import apsw

from auditplane.store.sqlite.database import fetch, one
from auditplane.store.sqlite.statements import KEY_MAX, QUERIES
from auditplane.ulid import COUNTER_BITS

_BITS: Final = 3
_WIDE: Final = -1 - KEY_MAX
_COUNTER: Final = (1 << COUNTER_BITS) - 1
NARROW_COUNTERS: Final = 1 << _BITS


def add(connection: apsw.Connection, keys: Sequence[int], tokens: Iterable[str]) -> bool:
    """Adds the tokens of some events; says whether one of them has a wide row."""
    rows = rowids(keys)
    connection.executemany(QUERIES["add_term"], zip(rows, tokens, strict=True))
    return min(rows) < 0


def rowids(keys: Sequence[int]) -> list[int]:
    """The rows of some events."""
    return [_rowid(key) for key in keys]


def keys(
    connection: apsw.Connection, match: str, low: int, high: int, *, at_most: int, upwards: bool = False
) -> list[int]:
    """The keys from `low` to `high` of events that match, the greatest `at_most` of them in falling order.

    With `upwards` the least of them, in rising order.
    """
    query = QUERIES["term_asc" if upwards else "term_desc"]
    found = [
        [_key(row[0]) for row in fetch(connection, query, (match, *bounds, at_most))]
        for bounds in _ranges(connection, low, high)
    ]
    return found[0] if len(found) == 1 else list(merge(*found, reverse=not upwards))[:at_most]


def count(connection: apsw.Connection, match: str, low: int, high: int) -> int:
    """How many events from `low` to `high` match."""
    return sum(
        one(connection, QUERIES["term_count"], (match, *bounds)) for bounds in _ranges(connection, low, high)
    )


def _ranges(connection: apsw.Connection, low: int, high: int) -> list[tuple[int, int]]:
    """The rows of the keys from `low` to `high`; the wide ones only where there are any."""
    if low > high:
        return []
    narrow = (_narrow(low - 1) + 1, _narrow(high))
    if not one(connection, QUERIES["crowded"]):
        return [narrow]
    return [narrow, (low + _WIDE, high + _WIDE)]


def _rowid(key: int) -> int:
    return key + _WIDE if key & _COUNTER >= NARROW_COUNTERS else _narrow(key)


def _narrow(key: int) -> int:
    """The greatest narrow row of a key up to this one."""
    return key >> COUNTER_BITS << _BITS | min(key & _COUNTER, NARROW_COUNTERS - 1)


def _key(rowid: int) -> int:
    if rowid < 0:
        return rowid - _WIDE
    return rowid >> _BITS << COUNTER_BITS | rowid & (1 << _BITS) - 1
