"""Bounded room that accounts share so that none is shut out: dynamic thresholds (Choudhury and Hahne, 1998).

An account may hold as much as is still free. So one alone has up to half of the room, two have up to a third
each, and however many there are, some is left for the next one. Pure but for its counts.
"""

import threading


class Shares:
    """Room of some amount; safe to use from several threads."""

    def __init__(self, room: int) -> None:
        self._room = room
        self._held: dict[str, int] = {}
        self._total = 0
        self._mutex = threading.Lock()

    @property
    def total(self) -> int:
        """How much is held by all."""
        return self._total

    def take(self, account: str, amount: int) -> bool:
        """Takes so much, if the account may have it."""
        with self._mutex:
            held = self._held.get(account, 0) + amount
            if held > self._room - self._total:
                return False
            self._held[account] = held
            self._total += amount
            return True

    def give_back(self, account: str, amount: int) -> None:
        """Gives back so much of what was taken."""
        with self._mutex:
            self._total -= amount
            self._held[account] -= amount
            if not self._held[account]:
                del self._held[account]
