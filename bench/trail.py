"""What a system owes the benchmarks: a trail in a folder that can be filled, read out and looked at."""

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from bench.dataset import Dataset


class Trail(Protocol):
    """A system that keeps a trail in its folder.

    It records and answers between `start` and `stop`, which leaves all that was recorded on disk.
    """

    name: str
    folder: Path

    @property
    def missing(self) -> str:
        """Why it can't be had on this machine; empty when it can."""

    @property
    def fingerprint(self) -> str:
        """Changes with whatever makes stored trails of another kind."""

    @property
    def pid(self) -> int:
        """The process that does the work, or its parent."""

    def clear(self) -> None:
        """Removes what its folder holds; not while it is started."""

    def start(self) -> None:
        """Opens the trail in its folder; makes it when there is none."""

    def stop(self) -> None:
        """Ends cleanly."""

    def version(self) -> str:
        """What it is, as a person would name it, with the versions that matter."""

    def record(self, dataset: Dataset, which: range, connections: int) -> list[float]:
        """Records some batches, each durable before the next one of its connection is sent.

        Returns the seconds from the start to the end of each.
        """

    def drain_csv(self) -> float:
        """The seconds it takes to give the whole trail as CSV, newest first."""

    def stored(self) -> int:
        """How many events there are."""

    def disk_bytes(self) -> int:
        """The space of the trail, to be asked after `stop`."""


def folder_bytes(folder: Path) -> int:
    """The size of all files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def digest(paths: Iterable[Path], *more: str) -> str:
    """A short hash of some files and texts."""
    found = hashlib.sha256("\n".join(more).encode())
    for path in sorted(paths):
        found.update(path.read_bytes())
    return found.hexdigest()[:16]
