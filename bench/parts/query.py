"""The newest 100 events by one filter and by three, one request after the other on one connection."""

import json
import random
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final

from bench.client import Connection
from bench.dataset import Dataset, Event, change_of, has_change
from bench.measure import REPEATS, percentile
from bench.measures import BY_ONE_FILTER
from bench.processes import Failed
from bench.run import Run, calm, say
from bench.servers import Auditplane, Ordinary

LIMIT: Final = 100
QUERIES: Final = 300
WINDOW_SHARE: Final = 0.01

Filters = Mapping[str, str]
Server = Auditplane | Ordinary


def run(run: Run) -> None:
    """Asks both servers the same questions in turns."""
    ours, ordinary = run.auditplane(), run.ordinary()
    servers: dict[str, Server] = {ours.name: ours, ordinary.name: ordinary}
    with run.started(run.filled([ours, ordinary])) as started:
        up = [servers[trail.name] for trail in run.alive(started)]
        for server in up:
            calm(server.pid)
        requests = {}
        for server in up:
            with run.attempt(server.name):
                requests[server.name] = _requests(server, run.dataset)
        for measure in ("newest", *BY_ONE_FILTER, "three", "word-nowhere"):
            say(f"  {measure}")
            _measure(
                run, measure, [server for server in up if measure in requests.get(server.name, {})], requests
            )


def _measure(
    run: Run, measure: str, servers: Sequence[Server], requests: Mapping[str, Mapping[str, Sequence[bytes]]]
) -> None:
    found: dict[str, list[tuple[float, float]]] = {server.name: [] for server in servers}
    for _ in range(REPEATS):
        for server in servers:
            if server.name not in run.failures:
                with run.attempt(server.name):
                    taken = _taken_ms(server, requests[server.name][measure])
                    found[server.name].append((percentile(taken, 0.50), percentile(taken, 0.99)))
    for name, rounds in found.items():
        if rounds:
            run.add(f"{measure}-p50", name, *(p50 for p50, _ in rounds))
            run.add(f"{measure}-p99", name, *(p99 for _, p99 in rounds))


def _taken_ms(server: Server, requests: Sequence[bytes]) -> list[float]:
    taken = []
    with Connection(server.target.port) as connection:
        connection.ask(requests[0])  # the connection is warm
        for request in requests:
            began = time.perf_counter()
            connection.ask(request)
            taken.append((time.perf_counter() - began) * 1_000)
    return taken


def _requests(server: Server, dataset: Dataset) -> dict[str, list[bytes]]:
    """The requests of each kind that a server has the filters for."""
    made: dict[str, list[bytes]] = {}
    for measure, questions in {**_questions(dataset), "dates": _windows(server)}.items():
        paths = [server.newest({**filters, "limit": str(LIMIT)}) for filters in questions]
        if None not in paths:
            made[measure] = [server.target.get(path) for path in paths if path]
    return made


def _questions(dataset: Dataset) -> dict[str, list[Filters]]:
    """What users would look for: the values of events, popular ones more often."""

    def drawn(seed: int) -> list[Event]:
        return dataset.sample(QUERIES, seed)

    def configured(seed: int) -> list[Event]:
        return dataset.sample(QUERIES, seed, lambda event: "configuration" in event)

    return {
        "newest": [{} for _ in range(QUERIES)],
        "user": [{"user": event["user"]} for event in drawn(1)],
        "configuration": [{"configuration-name": _name(event)} for event in configured(2)],
        "version": [{"configuration-name": event["configuration"]} for event in configured(3)],
        "kind": [{"resource-kind": event["resourceKind"]} for event in drawn(4)],
        "action": [{"action": event["action"]} for event in drawn(5)],
        "name": [{"resource-name": event["resourceName"]} for event in drawn(6)],
        "word-common": [{"q": event["action"]} for event in drawn(7)],
        "word-rare": [{"q": change_of(event)} for event in dataset.sample(QUERIES, 8, has_change)],
        "word-nowhere": [{"q": f"nowhere{number}"} for number in range(QUERIES)],
        # Values of different events, each of them popular, that seldom meet in one.
        "three": [
            {"user": one["user"], "configuration-name": _name(other), "action": third["action"]}
            for one, other, third in zip(drawn(9), configured(10), drawn(11), strict=True)
        ],
    }


def _name(event: Event) -> str:
    return event["configuration"].partition(":")[0]


def _windows(server: Server) -> list[Filters]:
    """A hundredth of the trail's time each, up to an event anywhere in it."""
    first, last = _moment(server, {"order": "asc"}), _moment(server, {})
    draw = random.Random(12)
    found: list[Filters] = []
    for _ in range(QUERIES):
        end = _moment(server, {"max-date": _text(first + draw.random() * (last - first))})
        start = max(first, end - WINDOW_SHARE * (last - first))
        found.append({"min-date": _text(start), "max-date": _text(end)})
    return found


def _moment(server: Server, filters: Filters) -> datetime:
    """The time of the first event of a list, UTC without saying so."""
    path = server.newest({**filters, "limit": "1"})
    if path is None:
        raise Failed(f"{server.name} has no filter for {filters}")
    events = json.loads(server.get(path))
    return datetime.fromisoformat(events[0]["timestamp"].removesuffix("Z"))


def _text(moment: datetime) -> str:
    return moment.isoformat(timespec="microseconds") + "Z"
