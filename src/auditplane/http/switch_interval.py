"""How long a thread keeps the interpreter's lock that others want: shorter beside other work than recording.

Who records changes threads some times for each commit, and while another thread computes, each change takes
so long. At other times a short one would only make commits smaller: 64 connections recorded a seventh less.
"""

import sys
import threading
from typing import Final

SWITCH_SECONDS: Final = 0.001
SWITCH_SECONDS_SHORT: Final = 0.0002


class _Shortened:
    """It is short as long as this is entered, on whatever threads."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._entered = 0

    def __enter__(self) -> None:
        with self._mutex:
            self._entered += 1
            sys.setswitchinterval(SWITCH_SECONDS_SHORT)

    def __exit__(self, *_: object) -> None:
        with self._mutex:
            self._entered -= 1
            if not self._entered:
                sys.setswitchinterval(SWITCH_SECONDS)


short_switch_interval: Final = _Shortened()
