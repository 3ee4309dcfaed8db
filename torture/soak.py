"""`python -m torture.soak`: an hour of mixed load on two workers, and whether anything grows or is lost.

Everything that can be done with a server is done meanwhile, at a pace that leaves a machine of two cores most
of its time. At the end all that was acknowledged must be there, in each account and once, what was erased or
has expired must be gone, the folder must verify, and the server must have logged no error.
"""

import argparse
import http.client
import json
import multiprocessing
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Final

from auditplane import limits, log
from auditplane.access import Access
from auditplane.access.key import Role
from auditplane.event import Rules, parse
from auditplane.store.sqlite import sealing
from auditplane.store.sqlite.folder import DataFolder
from auditplane.times import DAY_US, SECOND_US
from bench.processes import cpu_seconds
from server import PROGRAM, Server, environment, start
from torture import journal, mixed, watch
from torture.watch import MB, Usage

WORKERS: Final = 2
SAMPLES_MIN: Final = 40
SAMPLE_SECONDS_MAX: Final = 15.0
LINE_SECONDS: Final = 300.0
LINES_MIN: Final = 6
STOP_SECONDS_MAX: Final = 300.0
VERIFY_SECONDS_MAX: Final = 1_800.0
ARCHIVE_EVENTS: Final = 30_000
OLD_EVENTS: Final = 4_000
OLD_AT_ONCE: Final = 50
JUDGED_MINUTES_MIN: Final = 15.0
"""In a shorter run caches and pools still fill: what it takes is shown and not judged."""

COLUMNS: Final = (
    "Minute", "Memory, MB", "of it SQLite", "By process", "Threads", "Open files", "WAL, MB", "Folder, MB",
    "Processor", "Events", "Requests", "Recorded p50, ms", "p99", "Page p99", "View p99", "Wrong",
)  # fmt: skip

Json = dict[str, Any]


@dataclass(frozen=True)
class Sample:
    """What the server took at a moment."""

    at: float
    processes: Mapping[str, Usage]
    database_bytes: int
    wal: Mapping[str, int]
    folder_bytes: int
    cpu_seconds: float

    @property
    def memory_bytes(self) -> int:
        """That of all processes."""
        return sum(usage.memory_bytes for usage in self.processes.values())

    @property
    def own_bytes(self) -> int:
        """That of all processes without what SQLite holds, which grows with the databases up to its bound."""
        return self.memory_bytes - self.database_bytes

    @property
    def threads(self) -> int:
        """Those of all processes."""
        return sum(usage.threads for usage in self.processes.values())

    @property
    def handles(self) -> int:
        """Those of all processes."""
        return sum(usage.handles for usage in self.processes.values())

    @property
    def wal_bytes(self) -> int:
        """That of all databases."""
        return sum(self.wal.values())


@dataclass(frozen=True)
class Bound:
    """How much more of something the last quarter of a run may take than the second one."""

    what: str
    of: Callable[[Sample], int]
    share: float
    more: int
    unit: int = 1

    def broken(self, samples: Sequence[Sample]) -> str | None:
        """How it is exceeded, if it is: the medians of the quarters are compared."""
        quarter = len(samples) // 4
        before = median(map(self.of, samples[quarter : 2 * quarter]))
        after = median(map(self.of, samples[-quarter:]))
        if after <= before * (1 + self.share) + self.more:
            return None
        return f"{self.what} grew from {before / self.unit:,.1f} to {after / self.unit:,.1f}"


# The last is what `asyncio.to_thread` may have.
POOLED_THREADS: Final = (
    limits.READER_THREADS + limits.CHANGER_THREADS + limits.PARSER_THREADS + limits.WRITER_THREADS
    + limits.URGENT_THREADS + min(32, (os.cpu_count() or 1) + 4)
)  # fmt: skip
LOG_BYTES_MAX: Final = sealing.WAL_BYTES_MAX + 2 * sealing.WAL_BYTES_TO_COPY
"""Up to which a write-ahead log keeps the room that it once took, and what a step adds."""
DATABASES_BYTES_MAX: Final = (WORKERS + 1) * (limits.CACHES_BYTES_MAX + 4 * MB)
"""Which all processes together may hold in SQLite; what is in use is beyond the limit of what is kept."""
BOUNDS: Final = (
    Bound("memory in MB without that of SQLite", lambda sample: sample.own_bytes, 0.10, 16 * MB, MB),
    Bound("open files", lambda sample: sample.handles, 0.10, 8),
)


@dataclass
class Run:
    """What came of a run."""

    samples: list[Sample] = field(default_factory=list)
    told: journal.Told = field(default_factory=journal.Told)
    problems: list[str] = field(default_factory=list)


def main() -> int:
    """Loads a server; returns 1 when something grew, was lost or was wrong."""
    parser = argparse.ArgumentParser(prog="python -m torture.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--keep", type=Path, help="a new folder for data, journals and the log of the server")
    given = parser.parse_args()
    print(f"seed {given.seed}, {given.minutes:g} minutes, {WORKERS} workers\n", flush=True)
    with tempfile.TemporaryDirectory(prefix="auditplane-soak-") as folder:
        run = soaked(given.keep or Path(folder), given.minutes * 60, given.seed)
    return _verdict(run, given.minutes)


def soaked(folder: Path, seconds: float, seed: int) -> Run:
    """A run of so many seconds in a folder."""
    run, data = Run(), folder / "data"
    keys = made(data, seconds)
    with start(
        data, "--workers", str(WORKERS), env={"AUDITPLANE_AUDIT_TRAIL_RECORD_READS": "true"}
    ) as server:
        place = mixed.Place(data, server.port, keys, folder)
        began = time.monotonic()
        loads = _begun(place, seed, seconds)
        _watch(server, run, folder, began, seconds)
        for load in loads:
            load.join(STOP_SECONDS_MAX)
            if load.exitcode != 0:
                run.problems.append(f"{load.name} ended with {load.exitcode}")
                load.kill()
        run.told = journal.read(folder)
        run.problems += [text for _, text in run.told.problems]
        run.problems += compared(server, keys, run.told)
        if (status := server.stop()) != 0:
            run.problems.append(f"the server ended with {status}")
    run.problems += watch.complaints(server.log)
    run.problems += _verified(data)
    return run


# Before.


def made(data: Path, seconds: float) -> Mapping[str, str]:
    """A folder with all accounts; returns the secret of an admin's key for each."""
    folder = DataFolder(data)
    access = Access(folder, log.clock)
    access.ensure_admin_key()
    keys = {"default": (data / "admin.key").read_text().strip()}
    for account in mixed.OLD_ACCOUNTS:
        _record_old(folder, account, seconds)
    for account in (*mixed.ACCOUNTS[1:], *mixed.OLD_ACCOUNTS):
        _, keys[account] = access.create(account=account, role=Role.ADMIN, by="soak", description="soak")
    _record(folder, "archive", ARCHIVE_EVENTS, 1_000, log.clock)
    access.close()
    folder.close()
    return keys


def _record_old(folder: DataFolder, account: str, seconds: float) -> None:
    """Events that are a day old now, or will be in the course of the run."""
    now = log.clock() - DAY_US
    steps = OLD_EVENTS // OLD_AT_ONCE
    moments = iter(now + int((number / steps * 2 - 1) * seconds * SECOND_US) for number in range(steps))
    _record(folder, account, OLD_EVENTS, OLD_AT_ONCE, lambda: next(moments))


def _record(folder: DataFolder, account: str, events: int, at_once: int, clock: log.Clock) -> None:
    chosen = random.Random(account)
    with folder.account(account, may_begin=True) as store:
        for _ in range(events // at_once):
            batch = parse(
                json.dumps([_old_event(chosen) for _ in range(at_once)]).encode(), Rules(account=account)
            )
            (result,) = log.record(store, [log.Request(batch, "soak")], clock)
            if isinstance(result, Exception):
                raise result


def _old_event(chosen: random.Random) -> Json:
    return {
        "resourceName": f"otlp-{chosen.randrange(500)}",
        "resourceKind": "Agent",
        "action": "Modified",
        "user": f"user{chosen.randrange(40)}@example.com",
        "details": {"before": chosen.randbytes(60).hex()},
    }


# Meanwhile.


def _begun(place: mixed.Place, seed: int, seconds: float) -> Sequence[Any]:
    """The processes of the load; those who record have one to themselves, as they are measured."""
    spawning = multiprocessing.get_context("spawn")
    actors = {
        "recorders": mixed.RECORDERS,
        "readers": mixed.READERS,
        "people": (*mixed.PEOPLE, *mixed.operators(seconds)),
    }
    loads = [
        spawning.Process(target=mixed.act, args=(name, some, place, seed, seconds), name=name)
        for name, some in actors.items()
    ]
    for load in loads:
        load.start()
    return loads


def _watch(server: Server, run: Run, folder: Path, began: float, seconds: float) -> None:
    """Samples what the server takes until the time is over; prints a line now and then."""
    pause, line_seconds = (
        min(SAMPLE_SECONDS_MAX, seconds / SAMPLES_MIN),
        min(LINE_SECONDS, seconds / LINES_MIN),
    )
    first = began
    print(f"| {' | '.join(COLUMNS)} |\n| {' | '.join(['---:'] * len(COLUMNS))} |", flush=True)
    while (now := time.monotonic()) < began + seconds:
        if server.process.poll() is not None:
            run.problems.append(f"the server ended with {server.process.returncode}")
            return
        run.samples.append(_sample(server, now))
        time.sleep(max(0.0, min(now + pause, began + seconds) - time.monotonic()))
        if time.monotonic() >= min(first + line_seconds, began + seconds):
            run.told = journal.read(folder)
            print(_line(run, began, first, first + line_seconds), flush=True)
            first += line_seconds


def _sample(server: Server, now: float) -> Sample:
    return Sample(
        now,
        watch.processes(server),
        watch.database_bytes(server),
        watch.wal_bytes(server.data),
        watch.folder_bytes(server.data),
        cpu_seconds(server.process.pid),
    )


# After.


def _line(run: Run, began: float, first: float, last: float) -> str:
    samples = [sample for sample in run.samples if first <= sample.at < last]
    if not samples:
        return f"| {(last - began) / 60:.1f} | no sample |"
    spent = samples[-1].cpu_seconds - samples[0].cpu_seconds
    told = run.told
    recorded = told.seconds("record", first, last)
    requests = sum(first <= at < last for took in told.took.values() for at, _ in took)
    cells = [
        f"{(last - began) / 60:.1f}",
        f"{median(sample.memory_bytes for sample in samples) / MB:,.0f}",
        f"{median(sample.database_bytes for sample in samples) / MB:,.0f}",
        ", ".join(_by_process(samples)),
        f"{median(sample.threads for sample in samples):.0f}",
        f"{median(sample.handles for sample in samples):.0f}",
        f"{median(sample.wal_bytes for sample in samples) / MB:,.1f}",
        f"{samples[-1].folder_bytes / MB:,.0f}",
        f"{spent / ((samples[-1].at - samples[0].at) or 1):.0%}",
        f"{sum(events for at, events in told.acknowledged_at if first <= at < last):,}",
        f"{requests:,}",
        f"{median(recorded or [0.0]) * 1000:.1f}",
        *(
            f"{watch.p99(told.seconds(what, first, last)) * 1000:.1f}"
            for what in ("record", "page", "page view")
        ),
        f"{sum(first <= at < last for at, _ in told.problems):,}",
    ]
    return f"| {' | '.join(cells)} |"


def _by_process(samples: Sequence[Sample]) -> Iterator[str]:
    for name in sorted(samples[-1].processes):
        if not name.startswith("helper"):
            found = [sample.processes[name].memory_bytes for sample in samples if name in sample.processes]
            yield f"{name} {median(found) / MB:,.0f}"


def compared(server: Server, keys: Mapping[str, str], told: journal.Told) -> list[str]:
    """What is wrong with the trails of all accounts, after what the journals tell."""
    problems: list[str] = []
    for account in mixed.ACCOUNTS:
        ids = [event["id"] for event in trail(server, keys[account])]
        problems += differences(account, ids, told)
    return problems


def differences(account: str, ids: Sequence[str], told: journal.Told) -> Iterator[str]:
    """What is wrong with the ids of a trail in the order of its commits."""
    there = set(ids)
    acknowledged, erased = told.acknowledged[account], told.erased[account]
    if len(there) < len(ids):
        yield f"{account}: {len(ids) - len(there)} ids stand twice"
    if lost := set(acknowledged) - erased - there:
        yield f"{account}: {len(lost)} of {len(acknowledged)} acknowledged events are not there: {min(lost)}"
    if left := erased & there:
        yield f"{account}: {len(left)} erased events are there"
    fed = told.fed[account]
    if fed != list(ids[: len(fed)]):
        yield f"{account}: the feed missed events, or showed them twice"


def trail(server: Server, secret: str) -> Iterator[Json]:
    """All events of an account in the order of their commits."""
    headers = {mixed.KEY_HEADER: secret, "Accept": "application/x-ndjson"}
    with closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)) as connection:
        connection.request("GET", f"{mixed.EVENTS}?order=recorded", headers=headers)
        for line in connection.getresponse():
            yield json.loads(line)


def _verified(data: Path) -> list[str]:
    command: list[str | Path] = [
        PROGRAM,
        "verify",
        "--data",
        data,
        "--deep",
        "--state",
        data.with_name("state"),
    ]
    done = subprocess.run(
        command, env=environment(), capture_output=True, text=True, timeout=VERIFY_SECONDS_MAX, check=False
    )
    print(*re.findall(r"^\S+: .*|^  events .*|^Nothing .*", done.stdout, re.MULTILINE), sep="\n", flush=True)
    return [] if done.returncode == 0 else [f"verify: {done.stdout} {done.stderr}"]


def grown(samples: Sequence[Sample]) -> list[str]:
    """What exceeds its bound."""
    found = [broken for bound in BOUNDS if (broken := bound.broken(samples))]
    most = max(max(sample.wal.values(), default=0) for sample in samples)
    if most > LOG_BYTES_MAX:
        found.append(f"a write-ahead log had {most / MB:,.1f} MB")
    held = max(sample.database_bytes for sample in samples)
    if held > DATABASES_BYTES_MAX:
        found.append(f"SQLite held {held / MB:,.1f} MB")
    return [*found, *_too_many_threads(samples)]


def _too_many_threads(samples: Sequence[Sample]) -> Iterator[str]:
    """Which process had more threads than at its start and in all its pools, which fill when they need to."""
    for name, first in samples[0].processes.items():
        most = max(sample.processes[name].threads for sample in samples if name in sample.processes)
        allowed = first.threads + (POOLED_THREADS if name.startswith("worker") else 0)
        if most > allowed:
            yield f"{name} had {most} threads, at most {allowed} were to be"


def _verdict(run: Run, minutes: float) -> int:
    told = run.told
    events = sum(map(len, told.acknowledged.values()))
    print(
        f"\n{events:,} events acknowledged, {sum(map(len, told.erased.values())):,} erased, "
        f"{sum(map(len, told.took.values())):,} requests and commands answered as they should be."
    )
    print(f"each write-ahead log: at most {LOG_BYTES_MAX / MB:.0f} MB")
    print(f"SQLite: at most {DATABASES_BYTES_MAX / MB:.0f} MB")
    print(f"threads of a worker: at most {POOLED_THREADS} more than at its start; of others none")
    for bound in BOUNDS:
        print(f"{bound.what}: may grow by {bound.share:.0%} and {bound.more / bound.unit:g}")
    problems = [*run.problems]
    if minutes >= JUDGED_MINUTES_MIN:
        problems += grown(run.samples)
    else:
        print(f"Growth is not judged in less than {JUDGED_MINUTES_MIN:g} minutes.", flush=True)
    for problem, count in Counter(problems).most_common():
        print(f"{count} times: {problem}", file=sys.stderr, flush=True)
    print(
        "\nVerdict: " + ("nothing grew, nothing was lost." if not problems else f"{len(problems)} problems.")
    )
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
