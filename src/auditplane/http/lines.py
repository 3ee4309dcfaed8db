"""What a server tells of itself while it runs: one JSON object a line, on standard error.

No line holds a key, a session or a link; whatever a caller sent stands in it as an escaped text, so that
nobody can write lines of his own. Nobody waits for who reads the lines, and those of several processes
stay apart.
"""

import json
import logging
import os
import select
import signal
import threading
import time
from collections import deque
from collections.abc import Mapping
from functools import cache
from typing import Any, Final

import msgspec

from auditplane.errors import without_keys
from auditplane.times import format_us

WAITING_MAX: Final = 10_000
PAUSE_SECONDS: Final = 0.05
FLUSH_SECONDS_MAX: Final = 1.0
STANDARD_ERROR: Final = 2
LEFT_OUT: Final = "lines were left out, as nobody read those before them"


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


class Lines:
    """Lines that a thread of its own writes to a descriptor.

    When nobody reads, what is beyond WAITING_MAX is left out, and a line says how much once somebody does.
    """

    def __init__(self, descriptor: int = STANDARD_ERROR) -> None:
        self._descriptor = descriptor
        self._waiting: deque[bytes] = deque()
        self._mutex = threading.Lock()
        self._urgent = threading.Event()
        self._busy = False
        self._thread: threading.Thread | None = None
        self._left_out = 0
        self.left_out_total = 0

    def start(self) -> None:
        """Begins the thread, which the first line would."""
        if self._thread is None:
            with self._mutex:
                if self._thread is None:
                    self._thread = threading.Thread(target=self._run, name="lines", daemon=True)
                    self._thread.start()

    def add(self, line: bytes, *, urgent: bool = False) -> None:
        """Takes a line without its end; one that is urgent is written at once."""
        self.start()
        with self._mutex:
            if len(self._waiting) < WAITING_MAX:
                self._waiting.append(line + b"\n")
            else:
                self._left_out += 1
                self.left_out_total += 1
        if urgent:
            self._urgent.set()

    def add_request(self, told: Mapping[str, Any]) -> None:
        """Takes what is told of a request."""
        self.add(msgspec.json.encode(told))

    def flush(self) -> None:
        """Returns when all lines are written, or when it is clear that nobody reads them."""
        deadline = time.monotonic() + FLUSH_SECONDS_MAX
        self._urgent.set()
        while (self._waiting or self._busy) and time.monotonic() < deadline:
            time.sleep(0.001)

    def _run(self) -> None:
        # Signals are for the thread that waits for them.
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        while True:
            self._urgent.wait(PAUSE_SECONDS)
            self._urgent.clear()
            while data := self._next():
                self._write(data)
            self._busy = False

    def _next(self) -> bytes:
        """Whole lines, as many as a pipe takes in one piece: other processes write to it, too."""
        with self._mutex:
            self._busy = bool(self._waiting)
            lines: list[bytes] = []
            size = 0
            while self._waiting and (not lines or size + len(self._waiting[0]) <= select.PIPE_BUF):
                lines.append(self._waiting.popleft())
                size += len(lines[-1])
            if self._left_out and not self._waiting:
                self._waiting.append(_left_out(self._left_out))
                self._left_out = 0
        return b"".join(lines)

    def _write(self, data: bytes) -> None:
        while data:
            try:
                data = data[os.write(self._descriptor, data) :]
            except BlockingIOError:  # whoever gave us the descriptor wants no waiting in it
                time.sleep(PAUSE_SECONDS)
            except OSError:
                return  # nobody will ever read it


def _left_out(count: int) -> bytes:
    told = {
        "time": format_us(time.time_ns() // 1000),
        "level": "warning",
        "message": LEFT_OUT,
        "left_out": count,
    }
    return msgspec.json.encode(told) + b"\n"


@cache
def standard_error() -> Lines:
    """The lines of this process."""
    return Lines()


class LinesHandler(logging.Handler):
    """Gives log records to the lines of this process."""

    def emit(self, record: logging.LogRecord) -> None:
        """Takes a record."""
        try:
            standard_error().add(self.format(record).encode(), urgent=True)
        except Exception:  # noqa: BLE001 - as each handler of `logging` does
            self.handleError(record)

    def flush(self) -> None:
        """Writes what is left; `logging` calls it at the end of the process."""
        standard_error().flush()
