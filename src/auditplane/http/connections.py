"""Breaking off connections by force.

The server below ends a body that was not finished as it should, but only once the reader has taken all that
waits for it, and a reader of HTTP/1.0 could not tell that from a whole one. So the connection is reset.
"""

import os
import socket
import stat
import struct
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Final

Address = Sequence[Any]
"""IP address and port, and what else an address may have."""

_NO_LINGER: Final = struct.pack("ii", 1, 0)


def break_off(clients: Iterable[Address]) -> None:
    """Resets the connections from some addresses."""
    wanted = set(map(_text, clients))
    if wanted:
        _reset(lambda connection: _text(connection.getpeername()) in wanted)


def break_off_all(port: int) -> None:
    """Resets every connection to a port of this process."""
    _reset(lambda connection: bool(connection.getpeername()) and connection.getsockname()[1] == port)


def _text(address: Address) -> tuple[str, str]:
    return str(address[0]).partition("%")[0], str(address[1])


def _reset(wanted: Callable[[socket.socket], bool]) -> None:
    for path in list(Path("/dev/fd").iterdir()):
        # On a copy, as the server may close a descriptor meanwhile and use its number again.
        copy = _copy(int(path.name))
        if copy is None:
            continue
        with copy:
            try:
                if copy.family in (socket.AF_INET, socket.AF_INET6) and wanted(copy):
                    copy.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
                    copy.shutdown(socket.SHUT_RD)  # the server sees an end and closes, which is the reset
            except OSError:
                continue  # it listens, or has just ended


def _copy(descriptor: int) -> socket.socket | None:
    """The socket of a descriptor, if it is one."""
    try:
        if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
            return None
        return socket.socket(fileno=os.dup(descriptor))
    except OSError:
        return None
