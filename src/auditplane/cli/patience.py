"""Asking a server again when it can't be reached for a while."""

import sys
import time
from collections.abc import Callable
from typing import Final, TypeVar

from auditplane.errors import ConnectionLost, Refused

T = TypeVar("T")

FIRST_WAIT_SECONDS: Final = 0.5
WAIT_SECONDS_MAX: Final = 15.0


class Patience:
    """Repeats requests that may be repeated, from the first one on that was answered.

    It tells of it on standard error, and gives up after `seconds_max` seconds without an answer.
    """

    def __init__(self, seconds_max: float) -> None:
        self._seconds_max = seconds_max
        self._answered = False

    def ask(self, request: Callable[[], T]) -> T:
        """The answer to a request; raises what the last try raised."""
        wait, lost_at = FIRST_WAIT_SECONDS, 0.0
        while True:
            try:
                answer = request()
            except (ConnectionLost, Refused) as error:
                if not self._answered or (isinstance(error, Refused) and not error.may_pass):
                    raise
                now = time.monotonic()
                if now + wait > (lost_at or now) + self._seconds_max:
                    raise
                if not lost_at:
                    lost_at = now
                    _note(f"{error} Trying again.")
            else:
                if lost_at:
                    _note("The server answers again.")
                self._answered = True
                return answer
            time.sleep(wait)
            wait = min(wait * 2, WAIT_SECONDS_MAX)


def _note(text: str) -> None:
    print(f"auditplane: {text}", file=sys.stderr, flush=True)
