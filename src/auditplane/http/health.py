"""Whether recording would succeed: what `/health` tells.

A disk may be full, read-only, fail, or not answer at all. So its room is looked at each time, and a small
file is written and synced, at most once in PROBE_SECONDS however often somebody asks.
"""

import asyncio
import os
import time
from pathlib import Path
from typing import Final

from auditplane.errors import AuditplaneError, StorageFull
from auditplane.http import problems
from auditplane.store.sqlite.database import has_no_room, translated

PROBE_SECONDS: Final = 5.0
AGAIN_SECONDS: Final = 0.5
"""Until what was found wrong is tried again."""
ANSWER_SECONDS_MAX: Final = 2.0
PROBE_FILE: Final = "health"
FULL: Final = "the disk is full: nothing can be recorded"


class Health:
    """Looks after the disk of a data folder; for the thread of the event loop."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._began = 0.0
        self._probe: asyncio.Task[str] | None = None

    async def trouble(self) -> str:
        """Why nothing can be recorded; empty when it can."""
        if self._probe is None or (self._probe.done() and self._is_old(self._probe.result())):
            self._began = time.monotonic()
            self._probe = asyncio.create_task(asyncio.to_thread(_probed, self._folder))
        done, _ = await asyncio.wait({self._probe}, timeout=ANSWER_SECONDS_MAX)
        if not done:
            waited = time.monotonic() - self._began
            return f"the disk has not answered for {waited:.0f} seconds: nothing can be recorded"
        return self._probe.result() or (FULL if has_no_room(self._folder) else "")

    def _is_old(self, found: str) -> bool:
        return time.monotonic() >= self._began + (AGAIN_SECONDS if found else PROBE_SECONDS)


def _probed(folder: Path) -> str:
    """Why the disk of a folder takes nothing; empty when it does."""
    try:
        with translated(folder):
            _write(folder / PROBE_FILE)
    except StorageFull:
        return FULL
    except AuditplaneError as error:
        return "; ".join(problems.told(error))
    return ""


def _write(path: Path) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.pwrite(descriptor, b"%d\n" % os.getpid(), 0)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
