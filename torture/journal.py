"""What clients in several processes write down: lines of a file, from which is told what came of them."""

import json
import os
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class Journal:
    """A file to which each client of a process appends."""

    path: Path

    def __post_init__(self) -> None:
        self._descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def took(self, what: str, seconds: float) -> None:
        """A request was answered as it should be, after so many seconds."""
        self._write("took", what, seconds)

    def problem(self, text: str) -> None:
        """Something was not as it should be."""
        self._write("problem", text)

    def acknowledged(self, account: str, ids: Sequence[str]) -> None:
        """Events were recorded, by the server's word."""
        self._write("acknowledged", account, list(ids))

    def erased(self, account: str, ids: Sequence[str]) -> None:
        """Events were erased, by the server's word."""
        self._write("erased", account, list(ids))

    def fed(self, account: str, ids: Sequence[str]) -> None:
        """A program that must miss nothing got these, in this order."""
        self._write("fed", account, list(ids))

    def _write(self, kind: str, *said: object) -> None:
        os.write(self._descriptor, json.dumps([time.monotonic(), kind, *said]).encode() + b"\n")


@dataclass
class Told:
    """All that the journals tell."""

    took: dict[str, list[tuple[float, float]]] = field(default_factory=lambda: defaultdict(list))
    """By request: when it was answered, and after how many seconds."""
    problems: list[tuple[float, str]] = field(default_factory=list)
    acknowledged: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    acknowledged_at: list[tuple[float, int]] = field(default_factory=list)
    """When how many events were."""
    erased: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    fed: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    def seconds(self, what: str, began: float, ended: float) -> list[float]:
        """How long the requests of a kind took that were answered between two moments."""
        return [taken for at, taken in self.took[what] if began <= at < ended]


def read(folder: Path) -> Told:
    """What all journals in a folder tell."""
    told = Told()
    for at, kind, *said in _lines(folder):
        match kind, said:
            case "took", [what, seconds]:
                told.took[what].append((at, seconds))
            case "problem", [text]:
                told.problems.append((at, text))
            case "acknowledged", [account, ids]:
                told.acknowledged[account] += ids
                told.acknowledged_at.append((at, len(ids)))
            case "erased", [account, ids]:
                told.erased[account].update(ids)
            case "fed", [account, ids]:
                told.fed[account] += ids
    return told


def _lines(folder: Path) -> Iterator[list[Any]]:
    for path in sorted(folder.glob("*.journal")):
        for line in path.read_bytes().splitlines(keepends=True):
            if line.endswith(b"\n"):  # the last may be under way
                yield json.loads(line)
