"""Which events of the tail hold which exact values, and what is counted of them.

Both are kept in memory, and brought up to date when asked.

Events are indexed for good when they are sealed, which recording needs not wait for. Each process keeps its
own index of those that are not: rows only ever come, at the next indexes, or go when they are sealed or
destroyed. A tail that has become very long, as more is recorded than can be sealed, is looked through at each
question.
"""

import threading
from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import reduce
from itertools import islice
from operator import and_
from sys import intern
from typing import Final

import apsw

from auditplane.event import Event, decode_docs
from auditplane.query import Query, configuration_name, fold
from auditplane.store.sqlite import block
from auditplane.store.sqlite.database import fetch
from auditplane.store.sqlite.statements import QUERIES

ONE_BY_ONE_MAX: Final = 500
INDEXED_EVENTS_MAX: Final = 50_000
SCANNED_AT_ONCE: Final = 1_000

Row = tuple[int, Event]
"""The index of an event, and the event without what is not counted."""

Value = tuple[str, str]
"""A member of the event and what is looked for in it."""


class TailIndex:
    """The tail as it was when this was last asked."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._size = 0
        self._sealed = 0
        self._indexes: dict[int, int] = {}
        self._keys: defaultdict[Value, list[int]] = defaultdict(list)
        self._events: dict[int, Event] = {}

    def keys(self, connection: apsw.Connection, query: Query, size: int) -> list[int]:
        """The keys, ascending, of what the exact filters of a query match in a view, below index `size`."""
        view_size, view_sealed = fetch(connection, QUERIES["sealed"])[0]
        if view_size - view_sealed > INDEXED_EVENTS_MAX:
            return _scanned(connection, query, size)
        with self._mutex:
            if view_sealed >= self._sealed:
                self.follow(connection, view_size, view_sealed)
                return self.found(query, min(size, view_size))
        return _fresh(connection, view_size, view_sealed).found(query, min(size, view_size))

    def rows(self, connection: apsw.Connection) -> list[Row]:
        """All events of the tail in a view."""
        view_size, view_sealed = fetch(connection, QUERIES["sealed"])[0]
        if view_size - view_sealed > INDEXED_EVENTS_MAX:
            return _all_rows(connection)
        with self._mutex:
            if view_sealed >= self._sealed:
                self.follow(connection, view_size, view_sealed)
                return self.held(view_size)
        return _fresh(connection, view_size, view_sealed).held(view_size)

    def held(self, size: int) -> list[Row]:
        """All events below an index, as of when this was brought up to date."""
        events = self._events
        return [(index, events[key]) for key, index in self._indexes.items() if index < size]

    def found(self, query: Query, size: int) -> list[int]:
        """The keys of what matches below an index, ascending, as of then."""
        choices = [set().union(*(self._keys.get(value, ()) for value in wanted)) for wanted in _wanted(query)]
        found = reduce(and_, choices)
        return sorted(key for key in found if self._indexes[key] < size)

    def follow(self, connection: apsw.Connection, size: int, sealed: int) -> None:
        """Brings it up to date with a view."""
        if sealed > self._sealed:
            self._forget(connection)
            self._sealed = sealed
        if size > self._size:
            self._learn(connection, size)
            self._size = size

    def _forget(self, connection: apsw.Connection) -> None:
        """Forgets what is no longer in the tail; the key of an event that was destroyed may be used again."""
        rows = dict(fetch(connection, QUERIES["tail_keys"]))
        self._indexes = {key: index for key, index in self._indexes.items() if rows.get(key) == index}
        left = {value: [key for key in keys if key in self._indexes] for value, keys in self._keys.items()}
        self._keys = defaultdict(list, {value: keys for value, keys in left.items() if keys})
        self._events = {key: self._events[key] for key in self._indexes}

    def _learn(self, connection: apsw.Connection, size: int) -> None:
        """Takes up what has come."""
        if size - self._size > ONE_BY_ONE_MAX:
            rows = fetch(connection, QUERIES["tail_from"], (self._size,))
        else:
            rows = [
                (key, index, doc)
                for key in _recorded(connection, self._size, size)
                for index, doc, _ in fetch(connection, QUERIES["tail_at"], (key,))
            ]
        for (key, index, _), event in zip(rows, decode_docs([row[2] for row in rows]), strict=True):
            self._indexes[key] = index
            self._events[key] = _counted(event)
            for value in _values(event):
                self._keys[value].append(key)


def _fresh(connection: apsw.Connection, size: int, sealed: int) -> TailIndex:
    """For a view that was opened before something was sealed that another one has shown us."""
    fresh = TailIndex()
    fresh.follow(connection, size, sealed)
    return fresh


def _all_rows(connection: apsw.Connection) -> list[Row]:
    """What `TailIndex.rows` gives, without keeping anything."""
    found: list[Row] = []
    rows = connection.execute(QUERIES["tail_from"], (0,))
    while some := list(islice(rows, SCANNED_AT_ONCE)):
        events = decode_docs([row[2] for row in some])
        found += [(row[1], _counted(event)) for row, event in zip(some, events, strict=True)]
    return found


def _counted(event: Event) -> Event:
    """An event without what is not counted; of texts that are alike one is kept."""
    return Event(
        timestamp=event.timestamp,
        resourceName=intern(event.resourceName),
        resourceKind=intern(event.resourceKind),
        configuration=event.configuration and intern(event.configuration),
        action=intern(event.action),
        user=intern(event.user),
    )


def _scanned(connection: apsw.Connection, query: Query, size: int) -> list[int]:
    """What `TailIndex.keys` gives, without an index."""
    wanted = [set(values) for values in _wanted(query)]
    found = []
    rows = connection.execute(QUERIES["tail_from"], (0,))
    while some := list(islice(rows, SCANNED_AT_ONCE)):
        events = decode_docs([row[2] for row in some])
        for (key, index, _), event in zip(some, events, strict=True):
            values = _values(event)
            if index < size and all(not choice.isdisjoint(values) for choice in wanted):
                found.append(key)
    return found


def _recorded(connection: apsw.Connection, start: int, end: int) -> Iterator[int]:
    """The keys of the indexes from `start` to before `end`."""
    for first, _, packed in fetch(connection, QUERIES["entries_from"], (start, end - start)):
        yield from block.unpack_numbers(packed)[max(0, start - first) : end - first]


def _values(event: Event) -> list[Value]:
    values = [
        ("user", fold(event.user)),
        ("kind", event.resourceKind),
        ("action", event.action),
        ("name", event.resourceName),
    ]
    if event.configuration:
        values.append(("configuration", event.configuration))
        values.append(("configuration", configuration_name(event.configuration)))
    return values


def _wanted(query: Query) -> list[list[Value]]:
    """For each exact filter, the values any of which it lets through."""
    choices: list[tuple[str, Sequence[str]]] = [
        ("user", query.users),
        ("kind", query.kinds),
        ("action", query.actions),
        ("name", query.names),
        ("configuration", query.configurations),
    ]
    return [[(member, text) for text in texts] for member, texts in choices if texts]
