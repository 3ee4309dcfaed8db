"""When `serve` looks at an account for what has expired, and goes on with destroying it.

What expires is hidden when its moment comes, a second later at the most, and destroyed in rounds. An account
is looked at when something of it is to expire and when it was written to: a command may have set another
retention. Nothing is done on one of which nothing is to expire, and which nobody writes to.

All of this waits while the clock is not trusted (see `trust`), and goes on when it is again.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from typing import Final

from auditplane import keeping, limits
from auditplane.http.trust import ClockTrust, since_boot
from auditplane.log import Clock
from auditplane.store.sqlite import forgetting
from auditplane.store.sqlite.account import AccountStore
from auditplane.store.sqlite.folder import NotedClock
from auditplane.times import SECOND_US, format_us

ROUND_SECONDS_MIN: Final = 1_800.0
"""From the beginning of a round to that of the next one: each is an event of the log."""
LOOK_SECONDS_MIN: Final = 1.0
LOOK_SECONDS_MAX: Final = 3_600.0
"""The clock may be set: who waits for a moment of it looks again in time."""
WAL_SECONDS: Final = 1.0
_HOUR_SECONDS: Final = 3_600

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Account:
    """What is known of an account; all times are those of the clock that nobody sets."""

    looked: float = -inf
    due: float = inf
    round_began: float = -inf
    purging: bool = False
    put_off: bool = False
    waits_since: float = inf


class Expiry:
    """Hides and destroys what has expired in the accounts of a folder; for one thread.

    `known` is what is known of the clock from before.
    """

    def __init__(
        self,
        default_days: int,
        clock: Clock,
        known: NotedClock,
        monotonic: Callable[[], float] = since_boot,
    ) -> None:
        self._default_days, self._clock, self._monotonic = default_days, clock, monotonic
        self._trust = ClockTrust(clock, monotonic, known)
        self._accounts: dict[str, _Account] = {}

    @property
    def known(self) -> NotedClock:
        """What is known of the clock."""
        return self._trust.known

    def look_at_clock(self) -> int | None:
        """The time, None while it is not trusted; where that changes, the server's log tells."""
        was_ahead = self._trust.is_ahead
        now_us = self._trust.look()
        if self._trust.is_ahead and not was_ahead:
            _log.warning(
                "expiry waits: the clock is %.1f hours ahead of what it should say by what is known of it; "
                "where it is wrong, set it right; where it is right, expiry goes on after %.0f hours",
                self._trust.ahead_seconds / _HOUR_SECONDS,
                (limits.CLOCK_TRUST_SECONDS - (self.known.distrusted_seconds or 0)) / _HOUR_SECONDS,
            )
        elif now_us is not None and was_ahead:
            _log.warning("expiry goes on: the clock, which says %s, is trusted again", format_us(now_us))
        return now_us

    def is_due(self, name: str) -> bool:
        """Whether there is something to do on an account, though nobody has written to it."""
        known = self._accounts.get(name)
        if known is None:
            return False
        return known.due <= self._monotonic() or (known.put_off and not self._trust.is_ahead)

    def lag_seconds(self) -> float:
        """For how long the oldest of what has expired waits to be destroyed."""
        oldest = min((known.waits_since for known in self._accounts.values()), default=inf)
        return max(0.0, self._monotonic() - oldest)

    def tend(self, name: str, store: AccountStore) -> bool:
        """Hides what has expired, and does a step of destroying it; says whether there is more to do."""
        now = self._monotonic()
        known = self._accounts.setdefault(name, _Account())
        now_us = self.look_at_clock()
        looking = now >= min(known.due, known.looked + LOOK_SECONDS_MIN)
        if looking:
            known.looked = now
            known.due = now + (inf if now_us is None else self._hide(name, store, now_us))
        elif not known.purging:
            known.due = min(known.due, known.looked + LOOK_SECONDS_MIN)
        if looking or known.purging:
            known.put_off = now_us is None
            known.purging = not known.put_off and self._purge(name, store, known, now)
            waits = known.purging or forgetting.is_waiting(store)
            known.waits_since = min(known.waits_since, now) if waits else inf
            if not store.empty_wal():
                known.due = min(known.due, now + WAL_SECONDS)
        return known.purging

    def _hide(self, name: str, store: AccountStore, now_us: int) -> float:
        """Hides what has expired; returns in how many seconds more may have."""
        # Not by the clock itself, which may have been set since it was looked at.
        next_us = keeping.expire(keeping.Account(name, store, lambda: now_us), self._default_days)
        if next_us is None:
            return inf
        seconds = (next_us - now_us) / SECOND_US
        return min(max(seconds, LOOK_SECONDS_MIN), LOOK_SECONDS_MAX)

    def _purge(self, name: str, store: AccountStore, known: _Account, now: float) -> bool:
        """A step of destroying; a round begins when the last one began long enough ago."""
        account = keeping.Account(name, store, self._clock)
        next_round = known.round_began + ROUND_SECONDS_MIN
        may_begin = now >= next_round
        more = keeping.purge(account, may_begin=may_begin)
        if more and may_begin:
            known.round_began = now
        elif not more and not may_begin and forgetting.is_waiting(account.store):
            known.due = min(known.due, next_round)
        return more
