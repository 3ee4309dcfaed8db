"""For how long accounts have had events that no checkpoint covers which somebody fetched.

Such events could be changed unnoticed. An account counts once a checkpoint of its log was fetched: many keep
none. It is opened only when it was written to, or when another checkpoint of it was fetched.
"""

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from auditplane import log
from auditplane.store.sqlite.account import AccountStore
from auditplane.store.sqlite.fetched import fetched_mark, last_fetched
from auditplane.times import SECOND_US

LOOK_SECONDS: Final = 5.0


@dataclass(slots=True)
class _Account:
    """What is known of an account.

    `since_us` is when the first event was recorded that a checkpoint of `size` entries does not cover, None
    when there is no such event, or no checkpoint.
    """

    mark: tuple[int, int] | None
    look_at: float
    size: int = 0
    since_us: int | None = None


class Checkpoints:
    """Finds the oldest event of a folder that waits for a checkpoint to be fetched; for one thread."""

    def __init__(
        self, folder: Path, clock: log.Clock, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._folder, self._clock, self._monotonic = folder, clock, monotonic
        self._accounts: dict[str, _Account] = {}

    def is_due(self, name: str) -> bool:
        """Whether another checkpoint of an account was fetched since it was looked at."""
        known = self._accounts.get(name)
        if known is None or self._monotonic() < known.look_at:
            return False
        if fetched_mark(self._folder, name) != known.mark:
            return True
        known.look_at = self._monotonic() + LOOK_SECONDS
        return False

    def look(self, name: str, store: AccountStore) -> None:
        """Sees whether an account has events that wait, and since when."""
        found = _Account(fetched_mark(self._folder, name), self._monotonic() + LOOK_SECONDS)
        fetched = None if found.mark is None else last_fetched(self._folder, name)
        if fetched is not None and store.size() > fetched.size:
            known = self._accounts.get(name)
            found.size = fetched.size
            if known is not None and known.size == found.size and known.since_us is not None:
                found.since_us = known.since_us
            else:
                since_us = log.recorded_us(store, found.size)
                # One that is gone came after the checkpoint.
                found.since_us = fetched.at_us if since_us is None else since_us
        self._accounts[name] = found

    def forget_all_but(self, names: Collection[str]) -> None:
        """Forgets what was noted of accounts that are gone."""
        for name in self._accounts.keys() - set(names):
            del self._accounts[name]

    def lag_seconds(self) -> float:
        """For how long the oldest event that is not covered waits; 0 when there is none."""
        now_us = self._clock()
        waiting = (known.since_us for known in self._accounts.values() if known.since_us is not None)
        return max(0.0, (now_us - min(waiting, default=now_us)) / SECOND_US)
