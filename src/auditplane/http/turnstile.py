"""Lets through one at a time: a turn of the event loop begins the work of one, whatever else it does.

The event loop serves in the order of asking. Where hundreds ask at once a turn of it would take tens of
milliseconds, and an event that is recorded needs several turns. So what records goes by, and all else comes
through here: however much of it waits, a turn takes no longer than one of them.
"""

import asyncio
from collections import deque


class Turnstile:
    """For one event loop. Who comes when nobody waits goes through at once."""

    def __init__(self) -> None:
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._turning = False

    async def turn(self) -> None:
        """Returns when it is the caller's turn."""
        loop = asyncio.get_running_loop()
        if not self._turning:
            self._turning = True
            loop.call_soon(self._let_next_through)
            return
        mine = loop.create_future()
        self._waiting.append(mine)
        await mine

    def _let_next_through(self) -> None:
        while self._waiting:
            next_one = self._waiting.popleft()
            if not next_one.done():  # else who waited is gone
                next_one.set_result(None)
                asyncio.get_running_loop().call_soon(self._let_next_through)
                return
        self._turning = False
