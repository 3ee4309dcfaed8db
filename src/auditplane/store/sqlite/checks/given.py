"""Ids that callers gave: each leads to the event that has it, and no other is kept."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import apsw

from auditplane.store.sqlite.account import AccountStore
from auditplane.store.sqlite.checks import QUERIES, Problem, telling
from auditplane.store.sqlite.database import fetch, one


class Given:
    """The table of given ids."""

    def __init__(self, connection: apsw.Connection, problem: Problem) -> None:
        self._connection, self._problem = connection, problem
        self._rows: int | None = None
        self._found = 0

    def keys(self, ids: Sequence[str]) -> Mapping[str, int]:
        """The keys that those of some ids lead to which were given."""
        if self._rows is None:
            self._rows = int(one(self._connection, QUERIES["given_count"]))
        if not self._rows:
            return {}
        found: Mapping[str, int] = dict(fetch(self._connection, QUERIES["given_in"], (json.dumps(ids),)))
        self._found += len(found)
        return found

    def check_rest(self, store: AccountStore, folder: Path) -> None:
        """Tells of those that no event has, once the ids of all events were looked for."""
        with telling(self._problem, "the table of given ids", folder):
            if self._found == int(one(self._connection, QUERIES["given_count"])):
                return
            for event_id, key in self._connection.execute(QUERIES["given"]):
                stored = store.at(self._connection, key)
                if stored is None or not stored.doc.startswith(b'{"id":"%b"' % event_id):
                    text = event_id.decode("ascii", "replace")
                    self._problem(f"the id {text} is kept as given, and no event at its key has it")
