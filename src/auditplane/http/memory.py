"""The memory of a process of the server: glibc keeps what is freed, and gives it back now and then.

Other C libraries have no such settings.
"""

import contextlib
import ctypes
import threading
import time
from typing import Final

GIVE_BACK_SECONDS: Final = 60.0

# M_ARENA_MAX, M_MMAP_THRESHOLD and M_TRIM_THRESHOLD of malloc.h; bytes.
_MALLOC: Final = {-8: 1, -3: 32 * 1024 * 1024, -1: 64 * 1024 * 1024}


def keep() -> None:
    """Has freed memory kept for what comes next, in one heap for all threads.

    Each part of a long answer would be given back, and got again with a page fault every 4 KiB: that was two
    fifths of the time of a JSON answer.
    """
    with contextlib.suppress(AttributeError, OSError):
        mallopt = ctypes.CDLL(None).mallopt
        for setting, value in _MALLOC.items():
            mallopt(setting, value)


def give_back() -> None:
    """Gives all that is free back to the system, also between what is in use; takes some milliseconds."""
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)


def give_back_regularly() -> None:
    """Does that once a minute until the process ends, from a thread of its own.

    What is free between what is in use would stay with the process, and grow for hours.
    """

    def run() -> None:
        while True:
            time.sleep(GIVE_BACK_SECONDS)
            give_back()

    threading.Thread(target=run, name="memory", daemon=True).start()
