"""Whether recording would succeed: what `/health` tells.

It would not where the disk is full, read-only, fails or does not answer, where API keys can't be looked up,
and where no account can be recorded to. One account that is damaged is no reason: the others need the server.
The room on the disk is looked at each time. All else, which writes and syncs a small file, is done at most
once in PROBE_SECONDS, however often somebody asks.

Anybody may ask, so the answer names no path; what was found is logged whenever it changes.
"""

import asyncio
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from math import inf
from pathlib import Path
from typing import Final

from auditplane.access import Access
from auditplane.errors import StorageFull
from auditplane.recorder import Recorder
from auditplane.store.sqlite.database import has_no_room, translated
from auditplane.store.sqlite.folder import DataFolder

PROBE_SECONDS: Final = 5.0
AGAIN_SECONDS: Final = 0.5
"""Until what was found wrong is tried again."""
ANSWER_SECONDS_MAX: Final = 2.0
ACCOUNTS_SECONDS_MAX: Final = 1.0
PROBE_FILE: Final = "health"

FULL: Final = "the disk is full: nothing can be recorded"
FAILS: Final = "the disk takes no writes: nothing can be recorded"
SILENT: Final = "the disk does not answer: nothing can be recorded"
NO_KEYS: Final = "API keys can't be looked up: nothing can be recorded"
NO_ACCOUNT: Final = "no account can be recorded to"

_log = logging.getLogger(__name__)


class Trouble(Exception):
    """Nothing can be recorded: what is wrong in words for anybody, and why for the log."""

    def __init__(self, what: str, why: object = "") -> None:
        super().__init__(what)
        self.what, self.why = what, str(why)


class Health:
    """Looks after a data folder; `trouble` is for the thread of the event loop."""

    def __init__(
        self,
        folder: DataFolder,
        access: Access,
        recorder: Recorder,
        *,
        probe_seconds: float = PROBE_SECONDS,
        again_seconds: float = AGAIN_SECONDS,
    ) -> None:
        self._folder, self._access, self._recorder = folder, access, recorder
        self._probe_seconds, self._again_seconds = probe_seconds, again_seconds
        self._looking: asyncio.Task[Trouble | None] | None = None
        self._probed_at = -inf
        self._found: Trouble | None = None
        self._told = ""
        self._works = ""

    async def trouble(self) -> str:
        """Why nothing can be recorded; empty when it can."""
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(asyncio.to_thread(self._look))
        looking = self._looking  # others who ask meanwhile may begin another
        done, _ = await asyncio.wait({looking}, timeout=ANSWER_SECONDS_MAX)
        found = looking.result() if done else Trouble(SILENT)
        what = found.what if found else ""
        if what != self._told:
            self._told = what
            if found:
                _log.error("health: %s. %s", what, found.why)
            else:
                _log.info("health: events can be recorded again")
        return what

    def _look(self) -> Trouble | None:
        """Looks at everything that is due; one thread at a time does."""
        age = time.monotonic() - self._probed_at
        if age >= (self._again_seconds if self._found else self._probe_seconds):
            self._found = self._probed()
            self._probed_at = time.monotonic()
        try:
            return self._found or (Trouble(FULL) if has_no_room(self._folder.path) else None)
        except OSError as error:
            return Trouble(FAILS, error)

    def _probed(self) -> Trouble | None:
        try:
            with _telling(FAILS), translated(self._folder.path):
                _write(self._folder.path / PROBE_FILE)
            with _telling(NO_KEYS):
                self._access.check()
            with _telling(NO_ACCOUNT):
                self._check_accounts()
        except Trouble as trouble:
            return trouble
        return None

    def _check_accounts(self) -> None:
        """Raises why an account can't be recorded to, when none is found that can."""
        deadline = time.monotonic() + ACCOUNTS_SECONDS_MAX
        failure: Exception = Trouble(NO_ACCOUNT, "There is no log any more.")
        # The one that did the last time first, as others may be many.
        for name in sorted(self._folder.accounts(), key=lambda name: name != self._works):
            try:
                self._recorder.check(name)
                with self._folder.account(name) as store:
                    store.check_files()
                    store.size()
            except Exception as error:  # noqa: BLE001 - another account may do
                failure = error
            else:
                self._works = name
                return
            if time.monotonic() > deadline:
                break
        raise failure


@contextmanager
def _telling(what: str) -> Iterator[None]:
    """Says in words for anybody what can't be done when something fails."""
    try:
        yield
    except Trouble:
        raise
    except StorageFull as error:
        raise Trouble(FULL, error) from None
    except Exception as error:
        raise Trouble(what, error) from error


def _write(path: Path) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.pwrite(descriptor, b"%d\n" % os.getpid(), 0)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
