"""SIGKILL: a server is killed at random moments, again and again, while many record and export.

It purges meanwhile. Nothing that was acknowledged may be lost, no request be there by half, and each start
must go on by itself.
"""

import contextlib
import csv
import http.client
import itertools
import json
import os
import random
import signal
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from auditplane import checking, keeping, log, ulid
from auditplane.event import Rules, parse
from auditplane.store.sqlite.folder import DataFolder
from auditplane.times import DAY_US
from server import Server, start
from torture.session import MEMORY

RECORDERS: Final = 64
EXPORTERS: Final = 4
OLD_EVENTS: Final = 20_000
OLD_USER: Final = "old"
RETENTION_DAYS: Final = 30
KILLS_IN_A_LIFE: Final = 10
BATCH_EVENTS_MAX: Final = 60
EVENTS_PATH: Final = "/v1/audit-events"
ALONE_SHARE: Final = 0.4

Json = dict[str, Any]


@dataclass
class Sent:
    """A request as it was sent, and the ids that it was answered with, if it was."""

    name: str
    events: list[Json]
    ids: list[str] | None = None


@dataclass
class Crowd:
    """Threads that record and export until the server is gone."""

    chosen: random.Random
    recorders: int = RECORDERS
    exporters: int = EXPORTERS
    sent: list[Sent] = field(default_factory=list)
    exported: int = 0
    problems: list[str] = field(default_factory=list)
    numbers: "itertools.count[int]" = field(default_factory=itertools.count)

    def run(self, server: Server, seconds: float) -> None:
        """Has them work, and kills the server after so many seconds."""
        works = [self._record] * self.recorders + [self._export] * self.exporters
        threads = [
            threading.Thread(target=work, args=(server, self.chosen.randrange(1 << 32))) for work in works
        ]
        for thread in threads:
            thread.start()
        time.sleep(seconds / 2)
        if len(workers(server)) > 1:
            os.kill(self.chosen.choice(workers(server)), signal.SIGKILL)
        time.sleep(seconds / 2)
        if self.chosen.random() < ALONE_SHARE:
            os.kill(server.process.pid, signal.SIGKILL)  # the workers then end by themselves
        else:
            os.killpg(server.process.pid, signal.SIGKILL)
        server.process.wait()
        for thread in threads:
            thread.join()
        _require(not self.problems, f"{self.problems[:3]}")

    def _record(self, server: Server, seed: int) -> None:
        chosen = random.Random(seed)
        headers = {"X-Bindplane-Api-Key": server.admin_key, "Content-Type": "application/json"}
        with _until_killed(server) as connection:
            while True:
                request = self._next(chosen)
                connection.request("POST", EVENTS_PATH, json.dumps(request.events), headers)
                answer = connection.getresponse()
                body = answer.read()
                if answer.status != http.HTTPStatus.CREATED:
                    self.problems.append(f"recording was answered with {answer.status}: {body!r}")
                    return
                request.ids = json.loads(body)["ids"]

    def _export(self, server: Server, _seed: int) -> None:
        headers = {"X-Bindplane-Api-Key": server.admin_key}
        with _until_killed(server) as connection:
            while True:
                due = [sent for sent in list(self.sent) if sent.ids is not None]
                connection.request("GET", f"{EVENTS_PATH}/download", headers=headers)
                answer = connection.getresponse()
                rows = csv.DictReader(answer.read().decode().splitlines())
                found = {row.get("resourceName") for row in rows}
                lost = [event for sent in due for event in sent.events if event["resourceName"] not in found]
                if answer.status != http.HTTPStatus.OK or lost:
                    self.problems.append(f"an export was answered with {answer.status} and lacks {lost[:3]}")
                    return
                self.exported += 1

    def _next(self, chosen: random.Random) -> Sent:
        """A new request, or one again whose answer did not come, as a careful recorder does."""
        unsure = [sent for sent in self.sent[-20:] if sent.ids is None and "id" in sent.events[0]]
        if unsure and chosen.random() < 0.3:
            return chosen.choice(unsure)
        name = f"r{next(self.numbers)}"
        count = 1 if chosen.random() < 0.5 else chosen.randrange(2, BATCH_EVENTS_MAX)
        own_ids, own_times = chosen.random() < 0.3, chosen.random() < 0.2
        events = [_event(chosen, f"{name}/{number}/{count}") for number in range(count)]
        for event in events:
            if own_ids:
                event["id"] = ulid.make(chosen.getrandbits(63), chosen.randbytes(12))
            if own_times:
                event["timestamp"] = f"2025-0{chosen.randrange(1, 10)}-0{chosen.randrange(1, 10)}T00:00:00Z"
        sent = Sent(name, events)
        self.sent.append(sent)
        return sent


@contextlib.contextmanager
def _until_killed(server: Server) -> Iterator[http.client.HTTPConnection]:
    """A connection, whose end is that of the work."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    try:
        with contextlib.suppress(OSError, http.client.HTTPException):
            yield connection
    finally:
        connection.close()


def _event(chosen: random.Random, name: str) -> Json:
    return {
        "resourceName": name,
        "resourceKind": "Source",
        "action": "Modified",
        "user": f"user{chosen.randrange(5)}",
    }


def workers(server: Server) -> list[int]:
    """The processes that serve."""
    children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text().split()
    return [int(pid) for pid in children if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def check(trail: Sequence[Json], sent: Sequence[Sent]) -> None:
    """The whole trail in recorded order against what was sent; raises AssertionError."""
    found = [event for event in trail if event["resourceKind"] == "Source" and event["user"] != OLD_USER]
    at = {event["id"]: position for position, event in enumerate(found)}
    _require(len(at) == len(found), "an id stands twice")
    stored: dict[str, list[Json]] = {}
    for event in found:
        stored.setdefault(event["resourceName"].partition("/")[0], []).append(event)
    for each in sent:
        _check_request(each, stored.pop(each.name, []), at)
    _require(not stored, "there is what nobody sent")
    with_time = {event["resourceName"] for each in sent for event in each.events if "timestamp" in event}
    times = [event["timestamp"] for event in found if event["resourceName"] not in with_time]
    _require(all(a < b for a, b in itertools.pairwise(times)), "assigned timestamps do not rise")


def _check_request(sent: Sent, events: Sequence[Json], at: dict[str, int]) -> None:
    names = [event["resourceName"] for event in events]
    _require(names in ([], [event["resourceName"] for event in sent.events]), "a request is stored by half")
    if sent.ids is not None:
        _require([event["id"] for event in events] == sent.ids, "what was acknowledged is not there")
        first = at[sent.ids[0]]
        _require(
            [at[each] for each in sent.ids] == list(range(first, first + len(events))),
            "the events of a request are not in one piece",
        )
    for given, event in zip(sent.events, events, strict=False):
        _require(given.items() <= {**event, "timestamp": given.get("timestamp")}.items(), "an event changed")


def _require(holds: bool, what: str) -> None:
    if not holds:
        raise AssertionError(what)


@dataclass
class Outcome:
    """What came of many kills."""

    kills: int = 0
    acknowledged: int = 0
    exported: int = 0
    purged: int = 0


def try_some(kills: int, worker_count: int, seed: int, outcome: Outcome) -> None:
    """Kills servers so often, and counts in `outcome`; raises AssertionError when something is lost."""
    while outcome.kills < kills:
        with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as folder:
            _live(Path(folder) / "data", worker_count, random.Random(f"{seed} {outcome.kills}"), outcome)


def _live(data: Path, worker_count: int, chosen: random.Random, outcome: Outcome) -> None:
    """The life of a folder, with several kills; the first ones while it purges."""
    start(data).stop()
    _record_old(data)
    crowd = Crowd(chosen)
    for _ in range(KILLS_IN_A_LIFE):
        with start(data, "--workers", str(worker_count)) as server:
            crowd.run(server, 0.05 + chosen.random())
            _require("Traceback" not in server.output, server.output)
        outcome.kills += 1
    with start(data) as server:
        trail = _trail(server)
        check(trail, crowd.sent)
        server.stop()
    outcome.acknowledged += sum(len(sent.events) for sent in crowd.sent if sent.ids is not None)
    outcome.exported += crowd.exported
    outcome.purged += _verify(data)


def _record_old(data: Path) -> None:
    """Events that have expired when the server starts."""
    folder = DataFolder(data)
    event = {"user": OLD_USER, "action": "Modified", "resourceKind": "Source", "resourceName": "old"}
    with folder.account("old", may_begin=True) as store:
        batch = parse(json.dumps([event] * 1_000).encode(), Rules(account="old"))
        for _ in range(OLD_EVENTS // 1_000):
            log.record(store, [log.Request(batch, "key")], lambda: log.clock() - 2 * RETENTION_DAYS * DAY_US)
        keeping.set_retention(keeping.Account("old", store, log.clock), RETENTION_DAYS)
    folder.close()


def _trail(server: Server) -> list[Json]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    headers = {"X-Bindplane-Api-Key": server.admin_key, "Accept": "application/x-ndjson"}
    connection.request("GET", f"{EVENTS_PATH}?order=recorded", headers=headers)
    lines = connection.getresponse().read().splitlines()
    connection.close()
    return [json.loads(line) for line in lines]


def _verify(data: Path) -> int:
    """Verifies all logs; returns how many events were purged."""
    folder = DataFolder(data)
    gone = 0
    for name in folder.accounts():
        with folder.account(name) as store:
            findings = checking.check(store, deep=True)
            _require(not findings.problems, f"{name} does not verify: {findings.problems}")
            gone += findings.gone + findings.being_purged
    folder.close()
    return gone
