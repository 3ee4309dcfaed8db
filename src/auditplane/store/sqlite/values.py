"""The texts that the columns of sealed events name by numbers: users, kinds, actions and so on.

A value is here as long as an event in a piece has it, and `tally` says how many have. Resource names may all
be different: beyond NAMES_MAX of them, new ones have no number, and are neither counted nor suggested until
others are gone.
"""

import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import apsw

from auditplane.event import Event
from auditplane.query import configuration_name, fold
from auditplane.store import Member
from auditplane.store.sqlite.database import fetch, one
from auditplane.store.sqlite.statements import QUERIES

NAMES_MAX: Final = 16_384
CACHED_VALUES_MAX: Final = 65_536

USER: Final = 1
KIND: Final = 2
ACTION: Final = 3
CONFIGURATION: Final = 4
VERSION: Final = 5
NAME: Final = 6
COLUMNS: Final = (USER, KIND, ACTION, CONFIGURATION, VERSION, NAME)
NONE: Final = 0
"""The number of what an event has not, and of a resource name that has none."""

COLUMN_OF: Final = {
    Member.USER: USER,
    Member.KIND: KIND,
    Member.ACTION: ACTION,
    Member.CONFIGURATION: CONFIGURATION,
    Member.NAME: NAME,
}
LOOKED_AT_MAX: Final = 100_000
SURROGATES: Final = range(0xD800, 0xE000)

Value = tuple[int, str]
"""A column and a text in it."""


class KnownValues:
    """The numbers that this process found last, as sealing asks for the same ones again and again.

    They hold as long as nothing was destroyed, which the number of markings tells.
    """

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._markings = -1
        self._ids: dict[Value, int] = {}

    def of(self, connection: apsw.Connection) -> Mapping[Value, int]:
        """Those that hold in a view."""
        markings = one(connection, QUERIES["markings"])
        with self._mutex:
            return self._ids.copy() if markings == self._markings else {}

    def keep(self, markings: int, ids: Mapping[Value, int]) -> None:
        """Keeps those of a transaction that is committed, which saw so many markings."""
        with self._mutex:
            if markings != self._markings or len(self._ids) > CACHED_VALUES_MAX:
                self._ids = {}
            self._markings = markings
            self._ids |= ids


def split(configuration: str | None) -> tuple[str | None, str | None]:
    """Name and version of a configuration; None for what is not there."""
    if configuration is None:
        return None, None
    name = configuration_name(configuration)
    return name, None if name == configuration else configuration[len(name) + 1 :]


def texts_of(events: Sequence[Event]) -> dict[int, list[str | None]]:
    """The texts of some events by column, None for what an event has not."""
    both = [split(event.configuration) for event in events]
    return {
        USER: [event.user for event in events],
        KIND: [event.resourceKind for event in events],
        ACTION: [event.action for event in events],
        CONFIGURATION: [name for name, _ in both],
        VERSION: [version for _, version in both],
        NAME: [event.resourceName for event in events],
    }


def find(connection: apsw.Connection, value: Value) -> int | None:
    """The number of a value in a view."""
    column, text = value
    if not is_unicode(text):
        return None
    rows = fetch(connection, QUERIES["values_of"], (column, fold(text)))
    return next((found_id for found_id, found in rows if found == text), None)


def find_folded(connection: apsw.Connection, column: int, folded: str) -> list[int]:
    """The numbers of all values of a column that are the same without regard to case, in a view."""
    if not is_unicode(folded):
        return []
    return [row[0] for row in fetch(connection, QUERIES["values_of"], (column, folded))]


def found(
    connection: apsw.Connection, known: Mapping[Value, int], wanted: Iterable[Value]
) -> dict[Value, int]:
    """The numbers of those of some values that have one, in a view of which some are known."""
    ids: dict[Value, int] = {}
    for value in wanted:
        value_id = known.get(value) or find(connection, value)
        if value_id is not None:
            ids[value] = value_id
    return ids


def room_for_names(connection: apsw.Connection) -> int:
    """How many more resource names may have a number, in a view."""
    return NAMES_MAX - int(one(connection, QUERIES["values_count"], (NAME,)))


def add(connection: apsw.Connection, value: Value) -> int:
    """Gives a value a number."""
    column, text = value
    fetch(connection, QUERIES["add_value"], (column, text, fold(text)))
    return connection.last_insert_rowid()


def count(connection: apsw.Connection, counts: Iterable[tuple[int, int]]) -> None:
    """Adds to the tally of some numbers."""
    connection.executemany(QUERIES["tally"], counts)


def discount(connection: apsw.Connection, counts: Sequence[tuple[int, int]]) -> None:
    """Takes off the tally of some numbers, and forgets the values that no event has any more."""
    connection.executemany(QUERIES["tally"], [(value_id, -less) for value_id, less in counts])
    ids = [(value_id,) for value_id, _ in counts]
    connection.executemany(QUERIES["drop_empty_value"], ids)
    connection.executemany(QUERIES["drop_empty_tally"], ids)


def holding(connection: apsw.Connection, column: int, folded: str) -> dict[str, int]:
    """The values whose folded text holds another, with their tallies; of LOOKED_AT_MAX at the most."""
    if not is_unicode(folded):
        return {}
    return dict(fetch(connection, QUERIES["values_holding"], (column, folded, LOOKED_AT_MAX)))


def is_unicode(text: str) -> bool:
    """Whether an event could have a text: one of a URL may hold half of a character."""
    return text.isascii() or not any(ord(each) in SURROGATES for each in text)
