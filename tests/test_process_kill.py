import contextlib
import http.client
import itertools
import json
import os
import random
import signal
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import pytest

from auditplane import ulid
from server import Server, start
from tenants import EVENTS, Json, client

pytestmark = pytest.mark.xdist_group("kill")

KILLS = 30
RECORDERS = 4
BATCH_EVENTS_MAX = 60


@dataclass
class Sent:
    """A request as it was sent, and the ids that it was answered with, if it was."""

    name: str
    events: list[Json]
    ids: list[str] | None = None


@dataclass
class Recorders:
    """Threads that record until the server is gone."""

    chosen: random.Random
    sent: list[Sent] = field(default_factory=list)
    numbers: "itertools.count[int]" = field(default_factory=itertools.count)

    def run(self, server: Server, seconds: float) -> None:
        """Has them record, and kills the server after so many seconds."""
        threads = [threading.Thread(target=self._record, args=(server, seed)) for seed in self._seeds()]
        for thread in threads:
            thread.start()
        time.sleep(seconds / 2)
        if len(workers(server)) > 1:
            os.kill(self.chosen.choice(workers(server)), signal.SIGKILL)
        time.sleep(seconds / 2)
        if self.chosen.random() < 0.4:
            os.kill(server.process.pid, signal.SIGKILL)  # the workers then end by themselves
        else:
            os.killpg(server.process.pid, signal.SIGKILL)
        server.process.wait()
        for thread in threads:
            thread.join()

    def _seeds(self) -> list[int]:
        return [self.chosen.randrange(1 << 32) for _ in range(RECORDERS)]

    def _record(self, server: Server, seed: int) -> None:
        chosen = random.Random(seed)
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
        headers = {"X-Bindplane-Api-Key": server.admin_key, "Content-Type": "application/json"}
        try:
            while True:
                request = self._next(chosen)
                connection.request("POST", EVENTS, json.dumps(request.events), headers)
                answer = connection.getresponse()
                body = answer.read()
                assert answer.status == 201, body
                request.ids = json.loads(body)["ids"]
        except (OSError, http.client.HTTPException):
            pass  # the server was killed
        finally:
            connection.close()

    def _next(self, chosen: random.Random) -> Sent:
        """A new request, or one again whose answer did not come, as a careful recorder does."""
        unsure = [sent for sent in self.sent[-20:] if sent.ids is None and "id" in sent.events[0]]
        if unsure and chosen.random() < 0.3:
            return chosen.choice(unsure)
        name = f"r{next(self.numbers)}"
        count = 1 if chosen.random() < 0.5 else chosen.randrange(2, BATCH_EVENTS_MAX)
        own_ids, own_times = chosen.random() < 0.3, chosen.random() < 0.2
        events = [self._event(chosen, f"{name}/{number}/{count}") for number in range(count)]
        for event in events:
            if own_ids:
                event["id"] = ulid.make(chosen.getrandbits(63), chosen.randbytes(12))
            if own_times:
                event["timestamp"] = f"2025-0{chosen.randrange(1, 10)}-0{chosen.randrange(1, 10)}T00:00:00Z"
        sent = Sent(name, events)
        self.sent.append(sent)
        return sent

    def _event(self, chosen: random.Random, name: str) -> Json:
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


def check(trail: list[Json], recorders: Recorders) -> None:
    """The whole trail in recorded order against what was sent."""
    found = [event for event in trail if event["resourceKind"] != "APIKey"]
    at = {event["id"]: position for position, event in enumerate(found)}
    assert len(at) == len(found), "an id stands twice"
    stored: dict[str, list[Json]] = {}
    for event in found:
        stored.setdefault(event["resourceName"].partition("/")[0], []).append(event)
    for sent in recorders.sent:
        events = stored.pop(sent.name, [])
        names = [event["resourceName"] for event in events]
        assert names in ([], [event["resourceName"] for event in sent.events]), "a request is stored by half"
        if sent.ids is not None:
            assert [event["id"] for event in events] == sent.ids, "what was acknowledged is not there"
            first = at[sent.ids[0]]
            assert [at[each] for each in sent.ids] == list(range(first, first + len(events)))
        for given, event in zip(sent.events, events, strict=False):
            assert given.items() <= {**event, "timestamp": given.get("timestamp")}.items()
    assert not stored, "there is what nobody sent"
    all_sent = [event for sent in recorders.sent for event in sent.events]
    with_time = {event["resourceName"] for event in all_sent if "timestamp" in event}
    times = [event["timestamp"] for event in found if event["resourceName"] not in with_time]
    assert all(earlier < later for earlier, later in itertools.pairwise(times))


def listed(
    admin: httpx2.Client, accept: str = "application/json", **parameters: Any
) -> tuple[list[Json], int]:
    """A list, and the size of the log that it shows."""
    answer = admin.get(EVENTS, params=parameters, headers={"Accept": accept})
    assert answer.status_code == 200, answer.text
    size = int(answer.headers["Auditplane-Log-Size"])
    if accept == "application/json":
        return msgspec.json.decode(answer.content), size
    return [msgspec.json.decode(line) for line in answer.content.splitlines()], size


@pytest.mark.timeout(900)  # it starts many servers: slow on a busy machine
def test_nothing_acknowledged_is_lost_by_a_kill(tmp_path: Path) -> None:
    """Thirty times: every acknowledged event is there, none twice, no request by half, no index missing."""
    recorders = Recorders(random.Random(20_260_101))
    with contextlib.ExitStack() as ends:
        for turn in range(KILLS):
            server = ends.enter_context(start(tmp_path / "data", "--workers", "2" if turn % 4 == 3 else "1"))
            with client(server.url, server.admin_key) as admin:
                trail, size = listed(admin, order="recorded")
                assert len(trail) == size
                check(trail, recorders)
                some = recorders.chosen.randrange(size)
                assert listed(admin, order="recorded", after=some)[0] == trail[some + 1 :]
            recorders.run(server, 0.02 + recorders.chosen.random() * 0.5)
            assert "Traceback" not in server.output, server.output
        server = ends.enter_context(start(tmp_path / "data"))
        with client(server.url, server.admin_key) as admin:
            trail, size = listed(admin, order="recorded")
            check(trail, recorders)
            by_time, _ = listed(admin, accept="application/x-ndjson")
            assert sorted(by_time, key=str) == sorted(trail, key=str)
            assert admin.get(f"{EVENTS}/count").json()["count"] == size == len(trail)
        assert server.stop() == 0
    acknowledged = sum(len(sent.events) for sent in recorders.sent if sent.ids is not None)
    assert acknowledged > KILLS * 100


def test_workers_end_when_their_parent_is_killed(tmp_path: Path) -> None:
    """Nobody else would end them; a new server waits for that, and has the folder to itself."""
    with start(tmp_path / "data", "--workers", "2") as server:
        group = server.process.pid
        os.kill(group, signal.SIGKILL)
        server.process.wait()
        with start(tmp_path / "data", port=server.port) as again:
            deadline = time.monotonic() + 5
            while _alive(group):
                assert time.monotonic() < deadline
                time.sleep(0.02)
            with client(again.url, again.admin_key) as admin:
                assert admin.get(EVENTS).status_code == 200


def _alive(group: int) -> bool:
    """Whether a process of a group is left."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True
