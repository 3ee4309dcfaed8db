"""What a server tells of itself while it runs: one JSON object a line, on standard error.

No line holds a key, a session or a link; whatever a caller sent stands in it as an escaped text, so that
nobody can write lines of his own.
"""

import json
import logging
import os
import threading
from collections import deque
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from auditplane.errors import without_keys
from auditplane.times import format_us

WAITING_MAX: Final = 10_000
PAUSE_SECONDS: Final = 0.05
STANDARD_ERROR: Final = 2


class JsonLines(logging.Formatter):
    """Log records as lines with `time`, `level`, `message` and, of a bug, `exception`."""

    def format(self, record: logging.LogRecord) -> str:
        """The line of a record."""
        told = {
            "time": format_us(int(record.created * 1_000_000)),
            "level": record.levelname.lower(),
            "message": record.getMessage(),
        }
        if record.exc_info:
            told["exception"] = self.formatException(record.exc_info)
        return without_keys(json.dumps(told))


class RequestLog:
    """Lines that a thread of its own writes, some at a time: no request waits for who reads them.

    When nobody does, what is beyond WAITING_MAX is left out, and the next line tells how much that was.
    """

    def __init__(self, descriptor: int = STANDARD_ERROR) -> None:
        self._descriptor = descriptor
        self._waiting: deque[bytes] = deque()
        self._left_out = 0
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="request-log", daemon=True)
        self._thread.start()

    def add(self, told: Mapping[str, Any]) -> None:
        """Takes a line; only the thread of the event loop may call this."""
        if len(self._waiting) >= WAITING_MAX:
            self._left_out += 1
            return
        left_out, self._left_out = self._left_out, 0
        self._waiting.append(msgspec.json.encode({**told, "left_out": left_out} if left_out else told))

    def close(self) -> None:
        """Writes what is left, unless nobody reads it."""
        self._closing.set()
        self._thread.join(timeout=1.0)

    def _run(self) -> None:
        while not self._closing.wait(PAUSE_SECONDS):
            self._write()
        self._write()

    def _write(self) -> None:
        lines = []
        while self._waiting:
            lines += [self._waiting.popleft(), b"\n"]
        data = b"".join(lines)
        try:
            while data:
                data = data[os.write(self._descriptor, data) :]
        except OSError:
            pass  # nobody will ever read it
