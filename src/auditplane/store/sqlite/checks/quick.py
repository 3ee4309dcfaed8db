"""A quick look at the pages of a log: for as long as somebody has time."""

import time
from typing import Final

import apsw

from auditplane.store.sqlite.account import AccountStore
from auditplane.store.sqlite.checks import QUERIES, Problem, telling
from auditplane.store.sqlite.database import fetch

STEPS: Final = 1_000
"""Of SQLite's, between two looks at the clock."""


def check_pages_quickly(store: AccountStore, problem: Problem, seconds: float) -> bool:
    """Each page is what was written and belongs where it stands; says whether there was time for all."""
    deadline = time.monotonic() + seconds
    with telling(problem, "the pages of the database", store.path.parent), store.long_view() as connection:
        connection.set_progress_handler(lambda: time.monotonic() > deadline, STEPS)
        try:
            for (text,) in fetch(connection, QUERIES["pages_quickly"]):
                if text != "ok":
                    problem(f"the database is damaged: {text}")
        except apsw.InterruptError:
            return False
        finally:
            connection.set_progress_handler(None)
    return True
