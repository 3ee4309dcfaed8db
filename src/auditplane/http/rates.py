"""How often a key may ask and how much it may record: a rate a minute, which all workers share.

The generic cell rate algorithm (ITU-T I.371, annex A). Of each key a moment is kept, up to which its rate is
used up. Whoever comes when that lies a minute ahead is refused until it does not any more. The moments lie in
a small file that all workers map into memory; what two of them do to one key at one instant may count once.
"""

import mmap
import os
import struct
import time
from hashlib import blake2b
from math import ceil
from pathlib import Path
from typing import Final

from auditplane.errors import TooManyRequests

RATES_FILE: Final = "rates"
SLOTS: Final = 4_096
SLOTS_TRIED: Final = 8
WINDOW_SECONDS: Final = 60.0
ROUNDING_SECONDS: Final = 1e-6

_SLOT: Final = struct.Struct("=8sd")


def prepare(folder: Path) -> None:
    """Makes the file anew, before the workers start; it lies on the disk wholly, or there is none."""
    path = folder / RATES_FILE
    try:
        path.unlink(missing_ok=True)
        path.write_bytes(bytes(SLOTS * _SLOT.size))
    except OSError:
        path.unlink(missing_ok=True)  # on a full disk each worker counts by itself


class Rates:
    """The moments of all keys; for one thread. Keys that have not asked for a minute give their place up."""

    def __init__(self, folder: Path) -> None:
        try:
            descriptor = os.open(folder / RATES_FILE, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            self._slots = mmap.mmap(-1, SLOTS * _SLOT.size)
            return
        try:
            self._slots = mmap.mmap(descriptor, SLOTS * _SLOT.size)
        finally:
            os.close(descriptor)

    def take(self, what: str, key_id: str, per_minute: int) -> None:
        """Takes one of a key's rate of something; 0 is no bound. Raises TooManyRequests.

        What it is a rate of is said as in "events a minute".
        """
        self.check(what, key_id, per_minute)
        self.add(what, key_id, 1, per_minute)

    def check(self, what: str, key_id: str, per_minute: int) -> None:
        """Raises TooManyRequests when a key's rate of something is used up."""
        if not per_minute:
            return
        now = time.monotonic()
        _, _, until = self._find(what, key_id, now)
        late = until - now + WINDOW_SECONDS / per_minute - WINDOW_SECONDS
        if late > ROUNDING_SECONDS:
            raise TooManyRequests(
                f"This API key has used up its {per_minute:,} {what}; try again later.",
                retry_after_seconds=ceil(late),
            )

    def add(self, what: str, key_id: str, amount: int, per_minute: int) -> None:
        """Counts so much of what a key does, beyond its rate, too; a negative amount takes it back."""
        if per_minute:
            now = time.monotonic()
            offset, tag, until = self._find(what, key_id, now)
            used_up = max(until, now) + amount * WINDOW_SECONDS / per_minute
            _SLOT.pack_into(self._slots, offset, tag, used_up)

    def _find(self, what: str, key_id: str, now: float) -> tuple[int, bytes, float]:
        """Where the moment of a key stands, with its tag, and the moment."""
        tag = blake2b(f"{what} {key_id}".encode(), digest_size=_SLOT.size // 2).digest()
        offset, until = self._slot(tag, now)
        return offset, tag, until

    def _slot(self, tag: bytes, now: float) -> tuple[int, float]:
        """The slot of a tag and its moment, or the one near it that was not used for longest."""
        first = int.from_bytes(tag, "big")
        oldest = (0, float("inf"))
        for step in range(SLOTS_TRIED):
            offset = (first + step) % SLOTS * _SLOT.size
            found, until = _SLOT.unpack_from(self._slots, offset)
            if found == tag:
                return offset, until
            if until < oldest[1]:
                oldest = (offset, until)
        return oldest[0], now

    def close(self) -> None:
        """Lets go of the file."""
        self._slots.close()
