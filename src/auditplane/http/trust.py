"""Whether the system's clock can be trusted to say what has expired: what is destroyed does not come back.

A clock that is ahead would hide and destroy what should be kept for long yet. So it is compared with what it
said before and the time that has passed since, by a clock that nobody sets. One that is ahead of that is not
trusted until it was set back, or has stayed so for long enough. One that is behind does no harm.
"""

import time
from collections.abc import Callable
from typing import Final

from auditplane import limits
from auditplane.log import Clock
from auditplane.store.sqlite.folder import NotedClock
from auditplane.times import SECOND_US

_STEP_US: Final = limits.CLOCK_STEP_SECONDS_MAX * SECOND_US
_OFF_US: Final = limits.CLOCK_OFF_SECONDS_MAX * SECOND_US


def since_boot() -> float:
    """Seconds that nobody sets, and that go on while the machine is suspended, where the system has them."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class ClockTrust:
    """Compares a clock with one that nobody sets; for one thread.

    It begins with what is known from before: the newest moment that surely is past, and for how long a later
    one has been distrusted since.
    """

    def __init__(self, clock: Clock, monotonic: Callable[[], float], known: NotedClock) -> None:
        self._clock, self._monotonic = clock, monotonic
        self._looked, self._clock_us = monotonic(), clock()
        self._known_us, self._slack_us = known.us, _OFF_US
        self._waited = known.distrusted_seconds
        self.is_ahead = False

    def look(self) -> int | None:
        """What the clock says, in microseconds since 1970; None while it is not trusted."""
        now, now_us = self._monotonic(), self._clock()
        passed = now - self._looked
        passed_us = round(passed * SECOND_US)
        stepped = now_us - self._clock_us - passed_us > _STEP_US
        self._looked, self._clock_us = now, now_us
        self._known_us += passed_us
        self.is_ahead = now_us > self._known_us + self._slack_us
        if self.is_ahead or now_us < self._known_us - _STEP_US:
            self._waited = 0.0 if self._waited is None or stepped else self._waited + passed
            if self._waited < limits.CLOCK_TRUST_SECONDS:
                return None if self.is_ahead else now_us
        self.is_ahead = False
        self._waited = None
        self._known_us, self._slack_us = now_us, _STEP_US
        return now_us

    @property
    def ahead_seconds(self) -> float:
        """How far the clock was ahead of what was reckoned with when it was looked at."""
        return (self._clock_us - self._known_us) / SECOND_US

    @property
    def known(self) -> NotedClock:
        """What to begin with the next time."""
        return NotedClock(self._known_us, self._waited if self.is_ahead else None)
