"""How long the overview of a trail takes, by what it is filtered by: `python -m bench.looking`.

The log is filled in this process and read by a fresh store, as a worker of the server reads it.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Final

from auditplane import log
from auditplane.event import Rules, parse
from auditplane.overview import Overview, overview, suggestions
from auditplane.query import Query, fold
from auditplane.store import Member
from auditplane.store.sqlite import sealing
from auditplane.store.sqlite.account import AccountStore
from bench import dataset

LOOKS: Final = 7


def main() -> None:
    """Fills a log, and looks at it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=1_000_000)
    events = parser.parse_args().events
    with TemporaryDirectory(prefix="auditplane-looking-") as name:
        path = Path(name) / "log.db"
        _fill(path, Path(name) / "dataset", events)
        print(f"{events:,} events, {path.stat().st_size / events:.1f} bytes each")
        store = AccountStore(path)
        _look_at_all(store)
        store.close()


def _fill(path: Path, folder: Path, events: int) -> None:
    made, rules = dataset.load(folder, events), Rules()
    store = AccountStore(path)
    sealing_seconds = 0.0
    for lines in made.ndjson(range(made.batches)):
        log.record(store, [log.Request(parse(lines, rules, lines=True), "bench")], log.clock)
        sealing_seconds += _taken(lambda: _tend(store))
    sealing_seconds += _taken(lambda: sealing.settle(store))
    store.close()
    print(f"upkeep: {sealing_seconds / events * 1e6:.1f} us an event")


def _tend(store: AccountStore) -> None:
    while sealing.tend(store):
        pass


def _look_at_all(store: AccountStore) -> None:
    whole = overview(store, Query(), stacked=Member.ACTION)
    (kind, _), (user, _) = whole.tops[Member.KIND][0], whole.tops[Member.USER][0]
    (configuration, _), (action, _) = whole.tops[Member.CONFIGURATION][0], whole.tops[Member.ACTION][0]
    for what, query in (
        ("no filter", Query()),
        ("the most frequent kind", Query(kinds=(kind,))),
        ("the most frequent action", Query(actions=(action,))),
        ("the most frequent user", Query(users=(fold(user),))),
        ("the most frequent configuration", Query(configurations=(configuration,))),
        ("kind and user", Query(kinds=(kind,), users=(fold(user),))),
    ):
        _tell(what, lambda query=query: overview(store, query, stacked=Member.ACTION))  # type: ignore[misc]
    for member in Member:
        _tell(f"suggestions: {member.value}", lambda member=member: suggestions(store, member, ""))  # type: ignore[misc]


def _tell(what: str, look: Callable[[], Overview | list[tuple[str, int]]]) -> None:
    seconds = [_taken(look) for _ in range(LOOKS)]
    print(f"{what:40} median {median(seconds) * 1000:7.1f} ms, first {seconds[0] * 1000:7.1f} ms")


def _taken(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
