"""A run: its size and folder, the systems that take part, and what they gave so far."""

import json
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from bench import peers_chdb, peers_duckdb, peers_postgresql
from bench.dataset import Dataset
from bench.in_process import InProcess
from bench.measure import Figure
from bench.processes import Failed, wait_until_quiet
from bench.servers import Auditplane, Bare, Ordinary
from bench.trail import Trail

# This server records the making of its own keys.
OWN_EVENTS_MAX: Final = 10
FAILURE_CHARS_MAX: Final = 500


@dataclass
class Run:
    """What the parts share. `folder` holds the stores, which later runs use again.

    `systems` are the names of those that take part beside the bare servers; all where it is empty.
    """

    dataset: Dataset
    folder: Path
    workers: int
    systems: frozenset[str] = frozenset()
    part: str = ""
    figures: list[Figure] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    _fingerprints: dict[str, str] = field(default_factory=dict)

    def begin(self, part: str) -> None:
        """Forgets what another part gave."""
        self.part = part
        self.figures, self.versions, self.failures, self.missing = [], {}, {}, {}

    def add(self, measure: str, system: str, *values: float) -> None:
        """Keeps a figure of the part."""
        self.figures.append(Figure(self.part, measure, system, values))

    def failed(self, system: str, error: Exception) -> None:
        """Keeps what went wrong with a system."""
        while isinstance(error, ExceptionGroup):
            error = error.exceptions[0]
        self.failures[system] = " ".join(f"{type(error).__name__}: {error}".split())[:FAILURE_CHARS_MAX]
        say(f"  {system} failed: {self.failures[system]}")

    @contextmanager
    def attempt(self, system: str) -> Iterator[None]:
        """What goes wrong within is the matter of this system; the others go on."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 - kept, shown, and in the exit status
            self.failed(system, error)

    # The systems.

    def auditplane(self, at: str = "") -> Auditplane:
        """This server, on its store or on another folder."""
        return Auditplane(self.folder / (at or "auditplane"), self._log("auditplane"), self.workers)

    def ordinary(self, at: str = "") -> Ordinary:
        """The ordinary server, on its store or on another folder."""
        return Ordinary(self.folder / (at or "ordinary"), self._log("ordinary"), self.workers)

    def bare(self, name: str, file: Path | None = None) -> Bare:
        """A bare server."""
        return Bare(name, self._log(name), self.workers, file)

    def trails(self) -> list[Trail]:
        """All that keep a trail."""
        return [
            self.auditplane(),
            self.ordinary(),
            InProcess(peers_duckdb.NAME, peers_duckdb.DuckDB, self.folder / "duckdb"),
            InProcess(peers_chdb.NAME, peers_chdb.ClickHouse, self.folder / "chdb"),
            peers_postgresql.PostgreSQL(self.folder / "postgresql", self._log("postgresql")),
        ]

    def _log(self, name: str) -> Path:
        return self.folder / "logs" / f"{name}.log"

    def present(self, trails: Sequence[Trail]) -> list[Trail]:
        """Those that are asked for and that this machine has."""
        trails = [trail for trail in trails if not self.systems or trail.name in self.systems]
        self.missing |= {trail.name: trail.missing for trail in trails if trail.missing}
        return [trail for trail in trails if not trail.missing]

    def alive(self, trails: Sequence[Trail]) -> list[Trail]:
        """Those that did not fail in this part."""
        return [trail for trail in trails if trail.name not in self.failures]

    @contextmanager
    def started(self, trails: Sequence[Trail]) -> Iterator[list[Trail]]:
        """Those that start, and stops them in the end."""
        up: list[Trail] = []
        try:
            for trail in trails:
                with self.attempt(trail.name):
                    trail.start()
                    up.append(trail)
                    self.versions[trail.name] = trail.version()
            yield up
        finally:
            for trail in up:
                with self.attempt(trail.name):
                    trail.stop()

    # Their stores.

    def filled(self, trails: Sequence[Trail]) -> list[Trail]:
        """Those of a machine whose stores hold the events: as they were left, or filled anew."""
        for trail in (present := self.present(trails)):
            if not self._is_filled(trail):
                say(f"  filling the store of {trail.name}")
                with self.attempt(trail.name):
                    self._fill(trail)
        return self.alive(present)

    def _fill(self, trail: Trail) -> None:
        self.empty(trail)
        trail.start()
        try:
            trail.record(self.dataset, range(self.dataset.batches), 1)
            wait_until_quiet(trail.pid)
            self.check_stored(trail)
        finally:
            trail.stop()
        self.mark_filled(trail)

    def check_stored(self, trail: Trail) -> None:
        """Raises Failed when a trail does not hold what was recorded."""
        surplus = trail.stored() - self.dataset.events
        if not 0 <= surplus <= OWN_EVENTS_MAX:
            raise Failed(f"{trail.name} holds {surplus:+} events beside the {self.dataset.events} recorded")

    def empty(self, trail: Trail) -> None:
        """Forgets a store, to be filled by the sources as they are now."""
        self._fingerprints[trail.name] = trail.fingerprint
        self._mark(trail).unlink(missing_ok=True)
        trail.clear()

    def mark_filled(self, trail: Trail) -> None:
        """To be told once a trail holds all events and was stopped in order."""
        self._mark(trail).write_text(json.dumps(self._fingerprints[trail.name]))

    def _is_filled(self, trail: Trail) -> bool:
        mark = self._mark(trail)
        return mark.exists() and json.loads(mark.read_text()) == trail.fingerprint

    def _mark(self, trail: Trail) -> Path:
        return self.folder / f"{trail.name}.filled"

    @contextmanager
    def scratch(self, name: str) -> Iterator[str]:
        """The name of a folder in `folder` that is not there before and after."""
        shutil.rmtree(self.folder / name, ignore_errors=True)
        try:
            yield name
        finally:
            shutil.rmtree(self.folder / name, ignore_errors=True)


def calm(pid: int) -> float:
    """Waits until a system rests and the disk has what it wrote; returns the seconds that it still worked."""
    busy = wait_until_quiet(pid)
    os.sync()
    return busy


def say(text: str) -> None:
    """Tells how far the run is."""
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)
