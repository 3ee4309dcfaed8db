"""Durable batches of 1,000 events: all systems are filled, a tenth each in turn.

So they are measured at every size up to the full one. The tenths go over one and over two connections in an
order that reads the same from both ends: neither has the smaller stores.
"""

import os
from collections.abc import Sequence
from typing import Final

from bench import peers_chdb
from bench.dataset import BATCH_EVENTS
from bench.in_process import InProcess
from bench.measure import last_rate, rate
from bench.processes import Failed, watching_memory
from bench.run import Run, calm, say
from bench.servers import HttpServer
from bench.trail import Trail

CONNECTIONS: Final = (1, 2, 1, 2, 1, 1, 2, 1, 2, 1)
ENDS_BATCHES: Final = 100
LOOK_SECONDS: Final = 0.5


def run(run: Run) -> None:
    """Fills every system anew."""
    trails = run.present(run.trails())
    for trail in trails:
        run.empty(trail)
    with run.started(trails) as started:
        progress = {trail.name: _Progress(trail) for trail in started}
        for tenth, connections in enumerate(CONNECTIONS):
            say(f"  tenth {tenth + 1} of {len(CONNECTIONS)}")
            for trail in run.alive(started):
                with run.attempt(trail.name):
                    progress[trail.name].record(run, tenth, connections)
        for trail in run.alive(started):
            with run.attempt(trail.name):
                run.check_stored(trail)
                progress[trail.name].report(run)
        _unsynced(run, run.alive(started))
    for trail in run.alive(trails):
        run.mark_filled(trail)


class _Progress:
    """What the tenths of a system gave so far."""

    def __init__(self, trail: Trail) -> None:
        self._trail = trail
        self._marks: list[Sequence[float]] = []
        self._upkeep_seconds: list[float] = []
        self._memory_bytes = 0

    def record(self, run: Run, tenth: int, connections: int) -> None:
        """Records a tenth and waits until its upkeep is done."""
        size = run.dataset.batches // len(CONNECTIONS)
        which = range(tenth * size, (tenth + 1) * size)
        with watching_memory(self._trail.pid, LOOK_SECONDS) as peak:
            self._marks.append(self._trail.record(run.dataset, which, connections))
        self._upkeep_seconds.append(calm(self._trail.pid))
        self._memory_bytes = max(self._memory_bytes, peak.bytes)

    def report(self, run: Run) -> None:
        """Adds the figures."""
        name = self._trail.name
        over_http = isinstance(self._trail, HttpServer)
        rates = [rate(marks, BATCH_EVENTS) for marks in self._marks]
        ones = [each for each, connections in zip(rates, CONNECTIONS, strict=True) if connections == 1]
        twos = [each for each, connections in zip(rates, CONNECTIONS, strict=True) if connections == 2]
        run.add("rate-1", name, *(ones if over_http else rates))
        if over_http:
            run.add("rate-2", name, *twos)
            run.add("memory", name, self._memory_bytes / 1e6)
        first, last = self._marks[0], self._marks[-1]
        run.add("rate-first", name, rate(first[:ENDS_BATCHES], BATCH_EVENTS))
        run.add("rate-last", name, last_rate(last, ENDS_BATCHES, BATCH_EVENTS))
        events = sum(map(len, self._marks)) * BATCH_EVENTS
        seconds = sum(map(max, self._marks)) + sum(self._upkeep_seconds)
        run.add("rate-all-in", name, events / seconds)


def _unsynced(run: Run, trails: Sequence[Trail]) -> None:
    """ClickHouse again, as it is when nobody tells it to sync."""
    for trail in trails:
        if isinstance(trail, InProcess) and trail.name == peers_chdb.NAME:
            which = range(min(ENDS_BATCHES, run.dataset.batches))
            with run.attempt(trail.name):
                marks = trail.call(peers_chdb.ClickHouse.record_unsynced, run.dataset, which)
                run.add("rate-unsynced", trail.name, rate(marks, BATCH_EVENTS))
    os.sync()


def check_events(events: int) -> None:
    """Raises Failed when a size can't be cut into tenths of whole batches."""
    least = len(CONNECTIONS) * BATCH_EVENTS
    if events < least or events % least:
        raise Failed(f"EVENTS must be a multiple of {least}, is {events}")
