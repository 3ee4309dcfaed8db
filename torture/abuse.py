"""Load and abuse: a server as users run it is attacked in many ways while somebody records at an even pace.

Quiet and attacked periods alternate, so that what else the machine does falls on both. Attackers come last of
all who want the processors; where an attack is work for the machine all the same, it is aimed at a server
that does nothing in further periods: what recording suffers then is the machine's part. After each scenario
all that was acknowledged meanwhile must be there, each request must have been answered or cut off within its
limit, and memory must have stayed within its bound.
"""

import contextlib
import http.client
import json
import multiprocessing
import os
import resource
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any, Final

from auditplane import log
from auditplane.access import Access
from auditplane.access.key import Role
from auditplane.store.sqlite.folder import DataFolder
from server import Server, start
from torture import attackers, dummy, recorder, watch
from torture.attackers import OPEN, Attack, Outcome, Scene
from torture.http1 import Target
from torture.recorder import Try
from torture.watch import MB
from trails import big_trail

MEMORY_BYTES_MAX: Final = 400 * MB
RATIO_MAX: Final = 3.0
REFUSED_SHARE_MAX: Final = 0.01
ATTACKERS: Final = 2
ROUNDS: Final = 3
QUIET_SECONDS: Final = 3.0
ATTACK_SECONDS: Final = 6.0
SETTLE_SECONDS: Final = 0.5
SAMPLE_SECONDS: Final = 0.1
ANSWER_SECONDS_MAX: Final = 180.0
STALL_SECONDS: Final = 5
OVERLOADED: Final = "503"
COLUMNS: Final = (
    "Scenario", "Memory, MB", "p99 quiet, ms", "machine", "attacked", "Ratio", "Rate kept", "Requests",
    "Longest, s", "Wrong",
)  # fmt: skip

_SPAWNING: Final = multiprocessing.get_context("spawn")


@dataclass(frozen=True)
class Scenario:
    """An attack, for how long it goes on, and what is expected of it."""

    name: str
    what: str
    attack: Attack
    seconds: float = ATTACK_SECONDS
    rounds: int = ROUNDS
    patience_seconds: float = 20.0
    """For how long after the end of the attack its last requests may wait for their answers."""
    by_machine: bool = True
    """Whether it is aimed at a server that does nothing, too."""
    prepare: Callable[[], object] = bool
    """Makes what is sent, before anything is measured."""
    account: str = "default"
    env: Mapping[str, str] = field(default_factory=dict)


_STALL: Final = {"AUDITPLANE_LIMITS_STALL_SECONDS": str(STALL_SECONDS)}
# Once, and as long as the limit of time that is tried.
_long = partial(Scenario, rounds=1, patience_seconds=0.0, by_machine=False)

SCENARIOS: Final = (
    _long("silence", "10,000 connections that say nothing", attackers.silence, seconds=75.0),
    _long("idle", "10,000 idle connections of four kinds", attackers.idleness, seconds=75.0),
    Scenario("churn", "connections opened and closed", attackers.churn),
    Scenario("active", "1,000 active connections", attackers.activity, account="flood"),
    Scenario("slow-readers", "200 slow readers of the whole trail", attackers.slow_readers),
    _long("stopped-readers", f"200 readers that stop, stall_seconds = {STALL_SECONDS}",
          attackers.stopped_readers, seconds=20.0, env=_STALL),
    _long("stopped-pages", f"200 readers of 16 MiB pages that stop, stall_seconds = {STALL_SECONDS}",
          attackers.stopped_pages, seconds=70.0, env=_STALL),
    _long("unread-answers", "5,000 strangers who read no answer", attackers.unread_answers, seconds=110.0),
    Scenario("broken-downloads", "downloads closed at once", attackers.broken_downloads),
    _long("trickles", "200 bodies of a byte a second", attackers.trickles, seconds=70.0),
    _long("half-bodies", "64 bodies of 16 MiB without their end", attackers.half_bodies, seconds=70.0),
    _long("no-bodies", "500 bodies that do not begin", attackers.no_bodies, seconds=70.0),
    Scenario("heads", "long addresses and headers, thousands of headers", attackers.heads),
    Scenario("hard-bodies", "16 bodies of 16 MiB at a time that are hard to read", attackers.hard_bodies,
             prepare=attackers.hard_texts),
    Scenario("bombs", "16 zip bombs at a time, gzip and zstd", attackers.bombs,
             prepare=attackers.packed_bombs),
    Scenario("overload", "64 connections that send batches of 1,000", attackers.batches, account="flood"),
    Scenario("large-batches", "16 connections that send batches of 10,000, 13 MB each",
             attackers.large_batches, prepare=attackers.large_batch, account="flood"),
    Scenario("neighbour-downloads", "16 whole downloads at a time", attackers.downloads),
    Scenario("neighbour-pages", "64 pages of 16 MiB at a time", attackers.pages),
    Scenario("neighbour-queries", "64 expensive queries at a time", attackers.queries),
    Scenario("neighbour-views", "16 views of the page at a time", attackers.views),
    Scenario("listeners", "2,100 open pages", attackers.listeners, seconds=15.0, rounds=1, by_machine=False),
    Scenario("wrong-keys", "32 who sign in with wrong keys", attackers.wrong_keys),
)  # fmt: skip


@dataclass
class Result:
    """What came of a scenario."""

    memory_bytes: int = 0
    quiet: list[tuple[float, float]] = field(default_factory=list)
    machine: list[tuple[float, float]] = field(default_factory=list)
    attacked: list[tuple[float, float]] = field(default_factory=list)
    """Periods, from when to when."""
    tries: list[Try] = field(default_factory=list)
    outcome: Outcome = field(default_factory=Outcome)
    problems: list[str] = field(default_factory=list)

    def p99_ms(self, periods: Sequence[tuple[float, float]]) -> float:
        """What one in a hundred of those who record at fixed moments waits for longer."""
        paced = [[1e3 * each.seconds for each in self._within(one) if each.how != "eager"] for one in periods]
        return median([watch.p99(some) for some in paced] or [0.0])

    def rate(self, periods: Sequence[tuple[float, float]]) -> float:
        """Events acknowledged a second."""
        return median(
            [sum(each.status == 201 for each in self._within(one)) / (one[1] - one[0]) for one in periods]
            or [0.0]
        )

    @property
    def ratio(self) -> float:
        """How many times its quiet value the p99 is under attack."""
        return self.p99_ms(self.attacked) / (self.p99_ms(self.quiet) or 1.0)

    @property
    def machine_ratio(self) -> float:
        """How many times it is where the attack is aimed at a server that does nothing."""
        return self.p99_ms(self.machine) / (self.p99_ms(self.quiet) or 1.0)

    def refused(self, periods: Sequence[tuple[float, float]]) -> tuple[int, int]:
        """How many of those who record evenly were refused or not answered, and of how many."""
        tries = [each for one in periods for each in self._within(one)]
        return sum(each.status != 201 for each in tries), len(tries)

    def _within(self, period: tuple[float, float]) -> list[Try]:
        return [each for each in self.tries if period[0] <= each.at < period[1]]


def tried(scenario: Scenario, base: Path, keys: Mapping[str, str]) -> Result:
    """A scenario on a copy of a folder."""
    result = Result()
    with tempfile.TemporaryDirectory(prefix="auditplane-abuse-") as name:
        data = Path(name) / "data"
        shutil.copytree(base, data)
        env = {"AUDITPLANE_AUDIT_TRAIL_RECORD_READS": "true", **scenario.env}
        with start(data, env=env) as server, _memory_watched(server, result):
            with _recording(Target(server.port, keys["steady"]), result), _crew(scenario) as crew:
                _alternate(scenario, server, keys, crew, result)
            result.problems += _after(server, keys["steady"], result.tries)
            if (status := server.stop()) != 0:
                result.problems.append(f"the server ended with {status}")
        result.problems += watch.complaints(server.log)
    result.problems += judged(result)
    return result


def judged(result: Result) -> Iterator[str]:
    """What exceeds its bound."""
    if result.memory_bytes > MEMORY_BYTES_MAX:
        yield f"memory of {result.memory_bytes / MB:,.0f} MB"
    if result.ratio > RATIO_MAX * max(1.0, result.machine_ratio):
        yield f"p99 of recording {result.ratio:.1f} times its quiet value"
    refused, tries = result.refused(result.attacked)
    if refused > REFUSED_SHARE_MAX * tries:
        yield f"{refused} of {tries} evenly recorded events were refused or not answered"
    for how, count in result.outcome.ended.items():
        if how == OPEN:
            yield f"{count} requests were neither answered nor cut off"
        if how[0] == "5" and how != OVERLOADED:
            yield f"{count} requests were answered with {how}"
    yield from result.outcome.problems


def made(path: Path, events: int) -> Mapping[str, str]:
    """A folder with a big trail; returns the secrets of its accounts' keys."""
    big_trail(path, events)
    folder = DataFolder(path)
    access = Access(folder, log.clock)
    keys = {"default": (path / "admin.key").read_text().strip()}
    for account in ("steady", "flood"):
        _, keys[account] = access.create(account=account, role=Role.ADMIN, by="abuse", description="abuse")
    access.close()
    folder.close()
    return keys


# The parts of a run.


def _alternate(
    scenario: Scenario, server: Server, keys: Mapping[str, str], crew: "Crew", result: Result
) -> None:
    """Quiet and attacked periods, and such in which something else is attacked."""
    target = Target(server.port, keys[scenario.account])
    time.sleep(2 * SETTLE_SECONDS)
    for _ in range(scenario.rounds):
        result.quiet.append(_passed(QUIET_SECONDS))
        if scenario.by_machine:
            with _dummy() as port:
                period, _ = crew.attack(scenario, Target(port, target.secret), scenario.seconds / 2)
            result.machine.append(period)
            time.sleep(SETTLE_SECONDS)
        period, outcome = crew.attack(scenario, target, scenario.seconds)
        result.attacked.append(period)
        result.outcome.add(outcome)
        time.sleep(2 * SETTLE_SECONDS)
    result.quiet.append(_passed(QUIET_SECONDS))


def _passed(seconds: float) -> tuple[float, float]:
    began = time.monotonic()
    time.sleep(seconds)
    return began, time.monotonic()


@dataclass
class Crew:
    """Processes that attack at once."""

    pipes: Sequence["Connection[Any, Any]"]

    def attack(
        self, scenario: Scenario, target: Target, seconds: float
    ) -> tuple[tuple[float, float], Outcome]:
        """Attacks for so long; returns from when to when, and how the requests ended."""
        began = time.monotonic()
        for share, pipe in enumerate(self.pipes):
            scene = Scene(target, began + seconds, scenario.patience_seconds, share, len(self.pipes))
            pipe.send((scenario.attack, scene))
        outcome = Outcome()
        for pipe in self.pipes:
            if not pipe.poll(seconds + scenario.patience_seconds + ANSWER_SECONDS_MAX):
                outcome.problems.append("the attackers did not come to an end")
                break
            outcome.add(pipe.recv())
        return (began, began + seconds), outcome


@contextlib.contextmanager
def _crew(scenario: Scenario) -> Iterator[Crew]:
    pairs = [_SPAWNING.Pipe() for _ in range(ATTACKERS)]
    processes = [_SPAWNING.Process(target=_attacker, args=(far, scenario.prepare)) for _, far in pairs]
    for process in processes:
        process.start()
    try:
        for near, _ in pairs:
            near.recv()
        yield Crew([near for near, _ in pairs])
    finally:
        for process in processes:
            process.kill()
            process.join()


def _attacker(pipe: "Connection[Any, Any]", prepare: Callable[[], object]) -> None:
    """Runs in a process of its own: one attack after the other.

    It comes last of all who want the processors: attackers have machines of their own.
    """
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    os.nice(19)
    prepare()
    pipe.send(None)
    while True:
        attack, scene = pipe.recv()
        pipe.send(attackers.run(attack, scene))


@contextlib.contextmanager
def _recording(target: Target, result: Result) -> Iterator[None]:
    near, far = _SPAWNING.Pipe()
    process = _SPAWNING.Process(target=recorder.run, args=(target, far))
    process.start()
    try:
        yield
        near.send("end")
        result.tries = near.recv()
    finally:
        process.kill()
        process.join()


@contextlib.contextmanager
def _dummy() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0), backlog=4096) as listening:
        process = _SPAWNING.Process(target=dummy.run, args=(listening,))
        process.start()
        try:
            time.sleep(SETTLE_SECONDS)
            yield listening.getsockname()[1]
        finally:
            process.kill()
            process.join()


@contextlib.contextmanager
def _memory_watched(server: Server, result: Result) -> Iterator[None]:
    ended = threading.Event()

    def look() -> None:
        while not ended.wait(SAMPLE_SECONDS):
            result.memory_bytes = max(result.memory_bytes, watch.memory_bytes(server))

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _after(server: Server, secret: str, tries: Sequence[Try]) -> Iterator[str]:
    """Whether the server is well, and what it lacks of what it acknowledged."""
    with closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)) as connection:
        connection.request("GET", "/health")
        health = connection.getresponse()
        if health.status != http.HTTPStatus.OK or health.read() != b'{"status":"ok"}':
            yield f"the health is {health.status}"
        connection.request("GET", attackers.EVENTS, headers={"X-Bindplane-Api-Key": secret})
        ids = [event["id"] for event in json.loads(connection.getresponse().read())]
    if len(set(ids)) < len(ids):
        yield "an event stands twice"
    if lost := {each.id for each in tries if each.id} - set(ids):
        yield f"{len(lost)} acknowledged events are not there"


# The table.


def header() -> str:
    """The head of the table."""
    return f"| {' | '.join(COLUMNS)} |\n| {' | '.join(['---'] + ['---:'] * (len(COLUMNS) - 1))} |"


def row(scenario: Scenario, result: Result) -> str:
    """A scenario in the table."""
    ended = sorted(result.outcome.ended.items(), key=lambda each: -each[1])
    cells = [
        scenario.what,
        f"{result.memory_bytes / MB:,.0f}",
        f"{result.p99_ms(result.quiet):.1f}",
        f"{result.p99_ms(result.machine):.1f}" if result.machine else "",
        f"{result.p99_ms(result.attacked):.1f}",
        f"{result.ratio:.1f}",
        f"{result.rate(result.attacked) / (result.rate(result.quiet) or 1.0):.0%}",
        ", ".join(f"{count:,} {how}" for how, count in ended),
        f"{result.outcome.longest_seconds:.1f}",
        f"{len(result.problems)}",
    ]
    return f"| {' | '.join(cells)} |"
