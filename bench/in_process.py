"""Databases without a server, each in a process of its own, so that memory and threads are its own."""

import multiprocessing
import os
import shutil
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

from bench.dataset import Dataset
from bench.trail import digest

R = TypeVar("R")


class Engine(Protocol):
    """A database that is open in this process."""

    def version(self) -> str:
        """What it is."""

    def record(self, dataset: Dataset, which: range) -> list[float]:
        """Records some batches, each durable before the next; returns the seconds from the start to each."""

    def drain_csv(self) -> float:
        """The seconds it takes to write the trail to /dev/null as CSV, newest first."""

    def stored(self) -> int:
        """How many events there are."""

    def disk_bytes(self) -> int:
        """The space of the trail."""

    def close(self) -> None:
        """Closes it, with all on disk."""


# In the process of the engine: the engine.
_engines: Final[list[Any]] = []


def _open(make: Callable[[Path], Engine], folder: Path) -> int:
    folder.mkdir(parents=True, exist_ok=True)
    _engines.append(make(folder))
    return os.getpid()


def _call(method: Callable[..., R], *args: Any) -> R:
    return method(_engines[0], *args)


class InProcess:
    """A trail (`bench.trail.Trail`) in an engine, opened by `make(folder)` in a process of its own."""

    missing = ""

    def __init__(self, name: str, make: type[Engine], folder: Path) -> None:
        self.name, self.folder = name, folder
        self.pid = 0
        self._make = make
        self._process: ProcessPoolExecutor | None = None

    @property
    def fingerprint(self) -> str:
        """Changes with the module of the engine."""
        return digest([Path(str(sys.modules[self._make.__module__].__file__))])

    def clear(self) -> None:
        """Removes the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def start(self) -> None:
        """Opens it."""
        self._process = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))
        self.pid = self._process.submit(_open, self._make, self.folder).result()

    def stop(self) -> None:
        """Closes it and ends its process."""
        process, self._process = self._process, None
        if process is not None:
            try:
                process.submit(_call, self._make.close).result()
            finally:
                process.shutdown()

    def call(self, method: Callable[..., R], *args: Any) -> R:
        """The result of a method of the engine."""
        if self._process is None:
            raise RuntimeError(f"{self.name} was not started")
        return self._process.submit(_call, method, *args).result()

    def version(self) -> str:
        """As the engine has it, and so the others."""
        return self.call(self._make.version)

    def record(self, dataset: Dataset, which: range, connections: int) -> list[float]:  # noqa: ARG002 - there are none
        """Records some batches."""
        return self.call(self._make.record, dataset, which)

    def drain_csv(self) -> float:
        """Writes all to /dev/null."""
        return self.call(self._make.drain_csv)

    def stored(self) -> int:
        """The number of events."""
        return self.call(self._make.stored)

    def disk_bytes(self) -> int:
        """The space of the trail; opens it to ask."""
        self.start()
        try:
            return self.call(self._make.disk_bytes)
        finally:
            self.stop()
