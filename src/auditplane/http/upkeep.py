"""The thread that keeps the logs of a folder in order while workers record to them.

It looks at every account that was written to, or on which something is due, and seals, compacts, checkpoints
and forgets a little at a time; one that fails is tried again, and keeps the others from nothing.
"""

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from auditplane.errors import AuditplaneError
from auditplane.http.checkpoints import Checkpoints
from auditplane.http.expiry import Expiry
from auditplane.store.sqlite import sealing, tree
from auditplane.store.sqlite.account import AccountStore
from auditplane.store.sqlite.folder import DataFolder, note_clock
from auditplane.times import SECOND_US

PAUSE_SECONDS: Final = 0.05
LOOK_SHARE_MAX: Final = 0.05
RETRY_SECONDS: Final = 1.0
MEASURE_SECONDS: Final = 0.5
FIRST_LOOK_SECONDS_MAX: Final = 1.0
CLOCK_NOTE_SECONDS: Final = 600.0
DUE_SECONDS_MAX: Final = 0.25
SETTLE_SECONDS_MAX: Final = 1.5

_log = logging.getLogger(__name__)


class Keeper:
    """A thread that seals, compacts and checkpoints what the workers record, and forgets what has expired."""

    def __init__(
        self, folder: DataFolder, expiry: Expiry, checkpoints: Checkpoints, tls_ends_us: int = 0
    ) -> None:
        self._folder, self._expiry, self._checkpoints = folder, expiry, checkpoints
        self._tls_ends_us = tls_ends_us
        self._seen: dict[str, tuple[int, int]] = {}
        self._again: set[str] = set()
        self._retry_at: dict[str, float] = {}
        self._troubles: dict[str, str] = {}
        self._unsealed: dict[str, int] = {}
        self._wal_bytes: dict[str, int] = {}
        self._clock_was_ahead = False
        self._clock_noted = -CLOCK_NOTE_SECONDS
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="keeper")

    def look_first(self) -> None:
        """Hides what has expired while no server ran; where there are very many accounts, in the first ones.

        The thread comes to the others at once. To open an account takes a millisecond.
        """
        self._look_at_clock()
        deadline = time.monotonic() + FIRST_LOOK_SECONDS_MAX
        for name in self._folder.accounts():
            mark = self._folder.wal_mark(name)
            if not mark[1]:
                self._seen[name] = mark
            if time.monotonic() > deadline or self._tend(name, partial(self._expiry.tend, name)):
                self._again.add(name)

    def start(self) -> None:
        """Begins."""
        self._thread.start()

    def stop(self) -> None:
        """Ends, and settles the accounts that were written to, as far as the time allows."""
        self._stopping.set()
        self._thread.join()
        self._note_clock()
        deadline = time.monotonic() + SETTLE_SECONDS_MAX
        for name in self._folder.accounts():
            if time.monotonic() > deadline:
                return
            if self._folder.wal_mark(name)[1]:
                self._tend(name, partial(_settle, deadline=deadline))

    def _run(self) -> None:
        from auditplane.http import metrics  # noqa: PLC0415 - after there is room for them

        process = metrics.Process()
        metrics.START_TIME.set(time.time())
        metrics.TLS_EXPIRY.set(self._tls_ends_us / SECOND_US)
        pause = PAUSE_SECONDS
        measured = -MEASURE_SECONDS
        while not self._stopping.wait(pause):
            began = time.monotonic()
            try:
                worked, more = self._look_around()
            except Exception:  # noqa: BLE001 - the keeper goes on
                _log.exception("upkeep failed")
                pause = RETRY_SECONDS
            else:
                # Looking through very many accounts must not keep a processor busy.
                spent = 0.0 if worked else time.monotonic() - began
                pause = 0.0 if more else max(PAUSE_SECONDS, spent / LOOK_SHARE_MAX)
                metrics.UPKEEP_TIME.set(time.time())
            if time.monotonic() >= measured + MEASURE_SECONDS:
                measured = time.monotonic()
                process.measure()
                metrics.ACCOUNTS.set(len(self._wal_bytes))
                metrics.WAL.set(sum(self._wal_bytes.values()))
                metrics.UNSEALED.set(sum(self._unsealed.values()))
                metrics.PURGE_LAG.set(self._expiry.lag_seconds())
                metrics.CHECKPOINT_LAG.set(self._checkpoints.lag_seconds())
                metrics.UPKEEP_FAILING.set(len(self._troubles))

    def _look_around(self) -> tuple[bool, bool]:
        """Tends every account that was written to since it was last in order, or that something is due on.

        Says whether there was one, and whether there is more to do at once.
        """
        worked = more = False
        began = time.monotonic()
        self._look_at_clock()
        names = self._folder.accounts()
        self._forget_all_but(names)
        for name in names:
            mark = self._folder.wal_mark(name)
            self._wal_bytes[name] = mark[1]
            if self._stopping.is_set():
                break
            written = self._seen.get(name, (0, 0)) != mark
            if (written or self._is_due(name)) and time.monotonic() >= self._retry_at.get(name, 0.0):
                worked = True
                if not written and time.monotonic() > began + DUE_SECONDS_MAX:
                    more = True  # who was written to must not wait for all others
                    continue
                self._seen[name] = mark
                self._again.discard(name)
                if self._tend(name, partial(self._keep, name)):
                    more = True
                    self._again.add(name)
        return worked, more

    def _is_due(self, name: str) -> bool:
        """Whether there is something to do on an account, though nobody has written to it."""
        return name in self._again or self._expiry.is_due(name) or self._checkpoints.is_due(name)

    def _look_at_clock(self) -> None:
        """Sees whether the clock is trusted, and notes that where it changes, and now and then."""
        is_ahead = self._expiry.look_at_clock() is None
        if is_ahead != self._clock_was_ahead or time.monotonic() >= self._clock_noted + CLOCK_NOTE_SECONDS:
            self._clock_was_ahead = is_ahead
            self._note_clock()

    def _note_clock(self) -> None:
        """Notes what is known of the clock, for the next start and for who sets a retention."""
        self._clock_noted = time.monotonic()
        with contextlib.suppress(AuditplaneError):  # what is older is as safe
            note_clock(self._folder.path, self._expiry.known)

    def _forget_all_but(self, names: Sequence[str]) -> None:
        """Forgets what was noted of accounts that are gone."""
        if self._wal_bytes.keys() != set(names):
            self._wal_bytes = {name: self._wal_bytes.get(name, 0) for name in names}
            self._checkpoints.forget_all_but(names)
            for noted in (self._unsealed, self._troubles):
                for name in noted.keys() - self._wal_bytes.keys():
                    del noted[name]

    def _keep(self, name: str, store: AccountStore) -> bool:
        """A round of upkeep of an account, and a step of forgetting."""
        return any([sealing.tend(store), self._expiry.tend(name, store)])

    def _tend(self, name: str, work: Callable[[AccountStore], bool | None]) -> bool:
        """Works on an account; says whether there is more to do. What goes wrong is logged once."""
        try:
            with self._folder.account(name) as store:
                more = bool(work(store))
                self._unsealed[name] = store.count_tail()
                self._checkpoints.look(name, store)
        except Exception as error:  # noqa: BLE001 - the other accounts must not suffer
            if self._troubles.get(name) != str(error):
                self._troubles[name] = str(error)
                _log.warning(
                    "upkeep of the account %s failed: %s",
                    name,
                    error,
                    exc_info=None if isinstance(error, AuditplaneError) else error,
                )
            self._retry_at[name] = time.monotonic() + RETRY_SECONDS
            return True
        self._troubles.pop(name, None)
        return more


def _settle(store: AccountStore, deadline: float) -> None:
    """Seals and joins what there is until the deadline, and copies it out of the write-ahead log."""
    while time.monotonic() < deadline and (
        sealing.seal(store, everything=True)
        or sealing.compact(store)
        or sealing.repack(store)
        or tree.grow(store)
    ):
        pass
    store.checkpoint(whole=True)
