"""When `serve` looks at an account for what has expired, and goes on with destroying it.

What expires is hidden when its moment comes, a second later at the most, and destroyed in rounds. An account
is looked at when something of it is to expire and when it was written to: a command may have set another
retention. Nothing is done on one of which nothing is to expire, and which nobody writes to.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from typing import Final

from auditplane import keeping
from auditplane.log import Clock
from auditplane.store.sqlite import forgetting
from auditplane.store.sqlite.account import AccountStore
from auditplane.times import SECOND_US

ROUND_SECONDS_MIN: Final = 1_800.0
"""From the beginning of a round to that of the next one: each is an event of the log."""
LOOK_SECONDS_MIN: Final = 1.0
LOOK_SECONDS_MAX: Final = 3_600.0
"""The clock may be set: who waits for a moment of it looks again in time."""
WAL_SECONDS: Final = 1.0


@dataclass(slots=True)
class _Account:
    """What is known of an account; all times are those of `time.monotonic`."""

    looked: float = -inf
    due: float = inf
    round_began: float = -inf
    purging: bool = False
    waits_since: float = inf


class Expiry:
    """Hides and destroys what has expired in the accounts of a folder; for one thread."""

    def __init__(
        self, default_days: int, clock: Clock, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._default_days, self._clock, self._monotonic = default_days, clock, monotonic
        self._accounts: dict[str, _Account] = {}

    def is_due(self, name: str) -> bool:
        """Whether there is something to do on an account, though nobody has written to it."""
        known = self._accounts.get(name)
        return known is not None and known.due <= self._monotonic()

    def lag_seconds(self) -> float:
        """For how long the oldest of what has expired waits to be destroyed."""
        oldest = min((known.waits_since for known in self._accounts.values()), default=inf)
        return max(0.0, self._monotonic() - oldest)

    def tend(self, name: str, store: AccountStore) -> bool:
        """Hides what has expired, and does a step of destroying it; says whether there is more to do."""
        now = self._monotonic()
        known = self._accounts.setdefault(name, _Account())
        account = keeping.Account(name, store, self._clock)
        looking = now >= min(known.due, known.looked + LOOK_SECONDS_MIN)
        if looking:
            known.looked = now
            known.due = now + self._hide(account)
        elif not known.purging:
            known.due = min(known.due, known.looked + LOOK_SECONDS_MIN)
        if looking or known.purging:
            known.purging = self._purge(account, known, now)
            waits = known.purging or forgetting.is_waiting(store)
            known.waits_since = min(known.waits_since, now) if waits else inf
            if not store.empty_wal():
                known.due = min(known.due, now + WAL_SECONDS)
        return known.purging

    def _hide(self, account: keeping.Account) -> float:
        """Hides what has expired; returns in how many seconds more may have."""
        next_us = keeping.expire(account, self._default_days)
        if next_us is None:
            return inf
        seconds = (next_us - self._clock()) / SECOND_US
        return min(max(seconds, LOOK_SECONDS_MIN), LOOK_SECONDS_MAX)

    def _purge(self, account: keeping.Account, known: _Account, now: float) -> bool:
        """A step of destroying; a round begins when the last one began long enough ago."""
        next_round = known.round_began + ROUND_SECONDS_MIN
        may_begin = now >= next_round
        more = keeping.purge(account, may_begin=may_begin)
        if more and may_begin:
            known.round_began = now
        elif not more and not may_begin and forgetting.is_waiting(account.store):
            known.due = min(known.due, next_round)
        return more
