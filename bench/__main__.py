"""`python -m bench`: runs the parts that are asked for, prints their tables, and keeps the figures.

The exit status is 1 when something failed, 2 when it can't begin.
"""

import argparse
import fcntl
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Final

from bench import dataset, load, machine, peers_chdb, peers_duckdb, peers_postgresql, report, results
from bench.measures import PARTS
from bench.parts import disk, export, query, record_batches, record_single
from bench.processes import ROOT, Failed
from bench.run import Run, say
from bench.servers import AUDITPLANE, ORDINARY

DATA: Final = ROOT / "bench" / ".data"

RUN: Final[dict[str, Callable[[Run], None]]] = {
    "record_batches": record_batches.run,
    "disk": disk.run,
    "export": export.run,
    "query": query.run,
    "record_single": record_single.run,
}

SYSTEMS: Final = (AUDITPLANE, ORDINARY, peers_duckdb.NAME, peers_chdb.NAME, peers_postgresql.NAME)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs; returns the exit status."""
    given = _arguments(arguments)
    if not sys.platform.startswith("linux"):
        print("The benchmarks run on Linux only: they read /proc.", file=sys.stderr)
        return 2
    # What was started is ended on the way out.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    signal.signal(signal.SIGHUP, lambda *_: sys.exit(128 + signal.SIGHUP))
    DATA.mkdir(parents=True, exist_ok=True)
    lock = os.open(DATA / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print("Another run is under way.", file=sys.stderr)
        return 2
    return _run(given.events, given.parts, given.workers, given.systems)


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__.partition("\n")[0])
    parser.add_argument("--events", type=_events, default=1_000_000, help="how many, a multiple of 10,000")
    parser.add_argument("--parts", type=_parts, default=list(RUN), help=f"some of {','.join(RUN)}")
    parser.add_argument("--workers", type=int, default=1, help="processes of each server (default: 1)")
    parser.add_argument(
        "--systems", type=_systems, default=frozenset(), help=f"some of {','.join(SYSTEMS)} (default: all)"
    )
    return parser.parse_args(arguments)


def _events(text: str) -> int:
    try:
        record_batches.check_events(int(text))
    except (ValueError, Failed) as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return int(text)


def _systems(text: str) -> frozenset[str]:
    wanted = frozenset(text.split(","))
    if unknown := wanted - set(SYSTEMS):
        raise argparse.ArgumentTypeError(
            f"there is no system {', '.join(sorted(unknown))}; there are {', '.join(SYSTEMS)}"
        )
    return wanted


def _parts(text: str) -> list[str]:
    wanted = text.split(",")
    if unknown := set(wanted) - set(RUN):
        raise argparse.ArgumentTypeError(
            f"there is no part {', '.join(sorted(unknown))}; there are {', '.join(RUN)}"
        )
    return [name for name in RUN if name in wanted]


def _run(events: int, parts: Sequence[str], workers: int, systems: frozenset[str]) -> int:
    date = datetime.now(UTC).date().isoformat()
    say(f"{events:,} events, parts {', '.join(parts)}")
    folder = DATA / str(events)
    folder.mkdir(parents=True, exist_ok=True)
    run = Run(dataset.load(DATA, events), folder, workers, systems)
    whole = True
    for name in parts:
        say(PARTS[name])
        part = _part(run, name)
        whole = whole and not part.failures
        found = results.load(date, events)
        found.parts[name] = part
        found.save()
    found = results.load(date, events)
    print(
        f"\n{report.tables(found, parts)}\n\n### What was to reach\n\n"
        f"{report.targets_table(found, results.newest(1_000_000))}\n"
    )
    report.write_page()
    say(f"kept in {found.path.relative_to(ROOT)}; docs/benchmarks.md is written")
    return 0 if whole else 1


def _part(run: Run, name: str) -> results.Part:
    """Runs a part. What goes wrong in all of it is kept too, and the next part goes on."""
    run.begin(name)
    at = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    described = {**machine.describe(run.folder), "workers": str(run.workers), "client": load.client()}
    began = time.monotonic()
    with run.attempt("bench"):
        RUN[name](run)
    taken = time.monotonic() - began
    say(f"  {taken:.0f} s")
    return results.Part(at, taken, described, run.versions, run.figures, run.failures, run.missing)


if __name__ == "__main__":
    sys.exit(main())
