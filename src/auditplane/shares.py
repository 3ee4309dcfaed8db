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
        """Takes so much, if the account may have it; what is zero is always taken."""
        with self._mutex:
            if amount and self._held.get(account, 0) + amount > self._room - self._total:
                return False
            self._add(account, amount)
            return True

    def give_back(self, account: str, amount: int) -> None:
        """Gives back so much of what was taken."""
        with self._mutex:
            self._add(account, -amount)

    def _add(self, account: str, amount: int) -> None:
        self._total += amount
        held = self._held.pop(account, 0) + amount
        if held:
            self._held[account] = held
