"""The row that says where a log stands, against what the log holds; and the tables themselves."""

from pathlib import Path

import apsw

from auditplane.store.sqlite.checks import QUERIES, Problem, telling
from auditplane.store.sqlite.checks.blocks import Blocks
from auditplane.store.sqlite.checks.entries import Entries
from auditplane.store.sqlite.checks.events import Events
from auditplane.store.sqlite.checks.log_row import Log
from auditplane.store.sqlite.database import fetch
from auditplane.store.sqlite.forgetting import DROPPING
from auditplane.store.sqlite.statements import MIGRATIONS


def check_log(log: Log, entries: Entries, events: Events, blocks: Blocks, problem: Problem) -> None:
    """The row says what the events say; of those that are gone it may still know more."""
    is_whole = events.count == log.size
    newest = (log.newest_us, log.low, log.high, log.overflow_us)
    due = (events.newest_us, events.low, events.high, events.overflow_us)
    covers = newest[0] >= due[0] and newest[1] <= due[1] and newest[2] >= due[2] and newest[3] >= due[3]
    if newest != due if is_whole else not covers:
        problem(
            f"the row of the log has newest_us, low, high and overflow_us {newest}; "
            f"by the events they are {due}"
        )
    last = events.last_commit_us
    if log.at_us != last if is_whole or events.is_last_here else log.at_us < last:
        problem(f"the row of the log has the last commit at {log.at_us}; by the events it was at {last}")
    if log.live != events.count:
        problem(f"the row of the log counts {log.live} events; {events.count} are there")
    if log.size - log.sealed != blocks.tail:
        problem(f"the row of the log has {log.size - log.sealed} events in the tail; it holds {blocks.tail}")
    crowded = blocks.crowded
    if log.crowded not in (0, 1) or (log.crowded != crowded if is_whole else log.crowded < crowded):
        problem(
            f"the row of the log says {log.crowded} for wide rows of terms; by the events it is {crowded:d}"
        )
    if not 0 <= log.tiled <= log.size or not entries.is_boundary(log.tiled):
        problem(f"the row of the log says that the first {log.tiled} entries are in full rows; they are not")
    if not 0 <= log.purged <= log.expired <= log.size:
        problem(f"the row of the log says that {log.expired} entries expired and {log.purged} were purged")
    if events.hidden_high > log.expired_high:
        problem(
            f"the row of the log has {log.expired_high} for the greatest key of what has expired; "
            f"by the events it is {events.hidden_high}"
        )
    if log.markings < 0 or log.wal_due not in (0, 1) or (log.retention_days or 0) < 0:
        problem(
            f"the row of the log has markings, wal_due and retention_days {(log.markings, log.wal_due)} "
            f"and {log.retention_days}"
        )


def check_schema(connection: apsw.Connection, folder: Path, problem: Problem) -> None:
    """The tables, and what else the database has, are those that this version makes."""
    with telling(problem, "the schema of the database", folder):
        fresh = apsw.Connection(":memory:")
        try:
            for script in MIGRATIONS:
                fetch(fresh, script)
            due = set(fetch(fresh, QUERIES["schema"]))
        finally:
            fresh.close()
        found = set(fetch(connection, QUERIES["schema"]))
        if fetch(connection, QUERIES["dropping"], (DROPPING,)):  # a purge is about to have dropped it
            found = {row for row in found if row[0] != "table" or not row[1].startswith("old_term")}
        for kind, name, *_ in sorted(due ^ found, key=repr):
            problem(f"the {kind} {name} of the database is not as it was made")


def check_pages(connection: apsw.Connection, folder: Path, problem: Problem) -> None:
    """Every page of the database belongs where it stands, and its indexes are those of its tables."""
    with telling(problem, "the pages of the database", folder):
        for (text,) in fetch(connection, QUERIES["pages"]):
            if text != "ok":
                problem(f"the database is damaged: {text}")
