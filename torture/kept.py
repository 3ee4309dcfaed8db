"""Whose connections the system (Linux) still keeps, even where the server has closed them."""

import socket
import struct
from pathlib import Path
from typing import Final

_TIME_WAIT: Final = "06"


def peers(port: int) -> set[tuple[str, int]]:
    """Addresses and ports of those connected to a port of this machine over IPv4 (proc(5), /proc/net/tcp)."""
    found = set()
    for row in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, ours, theirs, state, *_ = row.split()
        if state != _TIME_WAIT and _address(ours)[1] == port:
            found.add(_address(theirs))
    return found


def _address(written: str) -> tuple[str, int]:
    host, _, port = written.partition(":")
    return socket.inet_ntoa(struct.pack("=I", int(host, 16))), int(port, 16)
