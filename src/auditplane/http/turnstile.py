"""Lets through a few at a time: a turn of the event loop begins the work of few, whatever else it does.

The event loop serves in the order of asking. Where hundreds ask at once a turn of it would take tens of
milliseconds, and an event that is recorded needs several turns. So what records goes by, and all else comes
through here: one a turn, or as many as went by since the last one, so that neither keeps the other out.
"""

import asyncio
from collections import deque

from auditplane.http.switch_interval import short_switch_interval


class Turnstile:
    """For one event loop. Who comes when nobody waits goes through at once."""

    def __init__(self) -> None:
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._went_by = 0
        self._turning = False

    def go_by(self) -> None:
        """Counts one who does not wait for a turn."""
        self._went_by += 1

    async def turn(self) -> None:
        """Returns when it is the caller's turn."""
        loop = asyncio.get_running_loop()
        if not self._turning:
            self._turning = True
            self._went_by = 0
            loop.call_soon(self._let_through)
            return
        mine = loop.create_future()
        self._waiting.append(mine)
        with short_switch_interval:
            await mine

    def _let_through(self) -> None:
        left = max(1, self._went_by)
        self._went_by = 0
        while self._waiting and left:
            first = self._waiting.popleft()
            if not first.done():  # else who waited is gone
                first.set_result(None)
                left -= 1
        self._turning = not left
        if self._turning:
            asyncio.get_running_loop().call_soon(self._let_through)
