"""What was measured, part by part, in a file for each day and size."""

from pathlib import Path
from typing import Final

import msgspec

from bench.measure import Figure
from bench.processes import ROOT

FOLDER: Final = ROOT / "bench" / "results"


class Part(msgspec.Struct):
    """The figures of a part, and what they were taken on; what went wrong, and what was not there."""

    at: str
    seconds: float
    machine: dict[str, str]
    versions: dict[str, str]
    figures: list[Figure]
    failures: dict[str, str]
    missing: dict[str, str]


class Results(msgspec.Struct):
    """The parts of a day at a size."""

    date: str
    events: int
    parts: dict[str, Part] = {}

    def figure(self, part: str, measure: str, system: str) -> Figure | None:
        """A figure, or None when there is none."""
        for figure in self.parts[part].figures if part in self.parts else ():
            if figure.measure == measure and figure.system == system:
                return figure
        return None

    def value(self, part: str, measure: str, system: str) -> float | None:
        """The median of a figure, or None when there is none."""
        figure = self.figure(part, measure, system)
        return None if figure is None else figure.value

    @property
    def path(self) -> Path:
        """Its file."""
        return FOLDER / f"{self.date}-{self.events}.json"

    def save(self) -> None:
        """Writes the file, whole or not at all."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = self.path.with_suffix(".unfinished")
        unfinished.write_bytes(msgspec.json.format(msgspec.json.encode(self), indent=1) + b"\n")
        unfinished.replace(self.path)


def load(date: str, events: int) -> Results:
    """The results of a day and size: empty ones when there are none yet."""
    new = Results(date, events)
    return _read(new.path) if new.path.exists() else new


def newest(events: int) -> Results | None:
    """The results of a size, each part from the newest file that has it; None when there are none."""
    found: Results | None = None
    for path in sorted(FOLDER.glob(f"????-??-??-{events}.json")):
        day = _read(path)
        found = Results(day.date, events, {**(found.parts if found else {}), **day.parts})
    return found


def sizes() -> list[int]:
    """The sizes of which there are results, smallest first."""
    return sorted({int(path.stem.rpartition("-")[2]) for path in FOLDER.glob("????-??-??-*.json")})


def _read(path: Path) -> Results:
    return msgspec.json.decode(path.read_bytes(), type=Results)
