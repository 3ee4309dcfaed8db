"""The connections of this process: cutting off those that ask for nothing, and breaking off answers.

The server below waits for ever for the first byte of a connection. So who has no request under way is cut off
after a while, and soon where there are nearly as many as there may be.

It ends a body that was not finished as it should, but only once the reader has taken all that waits for it,
and a reader of HTTP/1.0 could not tell that from a whole one. So the connection is reset.

The system would keep megabytes for each reader who takes nothing or little, made for him at once, and for a
quarter of an hour or more, even where the server below has closed the connection. So the bytes and the time
are bounded before the first answer; later connections have that from the socket that listens.
"""

import asyncio
import fcntl
import logging
import os
import resource
import socket
import stat
import struct
import sys
import termios
import time
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from auditplane import limits
from auditplane.http.metrics import CONNECTIONS, CONNECTIONS_LIMIT, CUT_OFF

Address = Sequence[Any]
"""IP address and port, and what else an address may have."""
Peer = tuple[str, str]
"""IP address and port of who is connected."""
CROWDED_SHARE: Final = 0.75
LOOK_SECONDS: Final = 5.0
LOOK_SECONDS_CROWDED: Final = 1.0

_log = logging.getLogger(__name__)

# From the last look; a descriptor may be another's by now.
_seen: Final[dict[Peer, int]] = {}
# tcpi_bytes_acked in struct tcp_info of linux/tcp.h.
_TCP_BYTES_ACKED: Final = 120
_TCP_INFO_BYTES: Final = 128
_NO_LINGER: Final = struct.pack("ii", 1, 0)


def break_off(clients: Iterable[Address]) -> None:
    """Resets the connections from some addresses."""
    wanted = set(map(_peer, clients))
    # Most were there when they were last looked at: to go through thousands for each would take too long.
    # In one step each, as another thread looks again meanwhile.
    seen = [found for found in map(_seen.get, wanted) if found is not None]
    for descriptors in (seen, None):
        if not wanted:
            return
        for _, connection in _connections(descriptors=descriptors):
            with suppress(OSError):
                peer = _peer(connection.getpeername())
                if peer in wanted:
                    _reset(connection)
                    wanted.discard(peer)


def break_off_all(port: int) -> None:
    """Resets every connection to a port of this process."""
    for _, connection in _connections(port):
        _reset(connection)


@dataclass(frozen=True, slots=True)
class _Sending:
    """How many bytes a peer has taken of what was sent to him, and whether more waits for him."""

    taken: int
    waits: bool


class Connections:
    """Who is connected to a port of this process, and since when without a request; for one thread."""

    def __init__(self, port: int, connections_max: int, idle_seconds: int, stall_seconds: int) -> None:
        self._port, self._max, self._idle_seconds = port, connections_max, idle_seconds
        # A reader of a long answer may pause for longer than who asks for nothing.
        self._unread_seconds = max(idle_seconds, stall_seconds)
        self._is_first = True
        self._busy: Counter[Peer] = Counter()
        self._idle_since: dict[Peer, float] = {}
        self._taken: dict[Peer, int] = {}

    def begin(self, address: Address) -> None:
        """A request of this peer is under way."""
        if self._is_first:
            self._is_first = False
            _bound_unsent(self._port, self._unread_seconds)
        self._busy[_peer(address)] += 1

    def end(self, address: Address) -> None:
        """One less is."""
        peer = _peer(address)
        self._busy[peer] -= 1
        if not self._busy[peer]:
            del self._busy[peer]
            self._idle_since[peer] = time.monotonic()

    async def watch(self) -> None:
        """Cuts off who is idle, again and again."""
        CONNECTIONS_LIMIT.set(self._max)
        crowded = False
        while True:
            try:
                crowded = await self.cut_idle()
            except Exception:  # noqa: BLE001 - without it nobody would be cut off any more
                _log.exception("the connections could not be looked at")
            await asyncio.sleep(LOOK_SECONDS_CROWDED if crowded else LOOK_SECONDS)

    async def cut_idle(self) -> bool:
        """Resets who has been idle for too long; says whether there are nearly as many as there may be."""
        peers = await asyncio.to_thread(_look, self._port)
        now = time.monotonic()
        CONNECTIONS.set(len(peers))
        # Who has yet to take the end of an answer is not idle while he takes some of it.
        taken = {peer: state.taken for peer, state in peers.items() if state.waits}
        busy = {peer for peer, count in taken.items() if self._taken.get(peer) != count}
        self._taken = taken
        idle = [peer for peer in peers if peer not in self._busy]
        self._idle_since = {peer: now if peer in busy else self._idle_since.get(peer, now) for peer in idle}
        crowded = len(peers) > self._max * CROWDED_SHARE
        seconds = min(limits.IDLE_SECONDS_CROWDED, self._idle_seconds) if crowded else self._idle_seconds
        late = {peer for peer, since in self._idle_since.items() if now - since >= seconds}
        if late:
            await asyncio.to_thread(_break_off_idle, self._port, late, self._busy)
        return crowded


def _look(port: int) -> dict[Peer, _Sending]:
    """Who is connected to a port of this process, and what he has taken."""
    _seen.clear()
    found = {}
    for descriptor, connection in _connections(port):
        with suppress(OSError):  # it has just ended
            peer = _peer(connection.getpeername())
            _seen[peer] = descriptor
            found[peer] = _sending(connection)
    return found


def _sending(connection: socket.socket) -> _Sending:
    """What the system tells of it; where it does not, nothing waits."""
    try:
        told = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES)
        (waiting,) = struct.unpack("i", fcntl.ioctl(connection, termios.TIOCOUTQ, bytes(4)))
    except OSError:
        return _Sending(0, waits=False)
    acknowledged = told[_TCP_BYTES_ACKED : _TCP_BYTES_ACKED + 8]
    return _Sending(int.from_bytes(acknowledged, sys.byteorder), waits=waiting > 0)


def _bound_unsent(port: int, unread_seconds: int) -> None:
    """Bounds what the system keeps for each reader, now and later, and for how long it does (tcp(7))."""
    if sys.platform != "linux":
        return
    for copy in filter(None, map(_copy, _descriptors())):
        with copy, suppress(OSError):
            if _is_of(copy, port):
                copy.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, limits.UNSENT_BYTES_MAX)
                copy.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, unread_seconds * 1000)


def _break_off_idle(port: int, late: Container[Peer], busy: Container[Peer]) -> None:
    for _, connection in _connections(port):
        with suppress(OSError):
            peer = _peer(connection.getpeername())
            if peer in late and peer not in busy:  # who has just asked is no longer idle
                _reset(connection)
                CUT_OFF.labels("idle").inc()


def _peer(address: Address) -> Peer:
    return str(address[0]).partition("%")[0], str(address[1])


def _reset(connection: socket.socket) -> None:
    with suppress(OSError):  # it has just ended
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
        connection.shutdown(socket.SHUT_RD)  # the server sees an end and closes, which is the reset


def _connections(
    port: int | None = None, descriptors: Iterable[int] | None = None
) -> Iterator[tuple[int, socket.socket]]:
    """The connections of this process, to a port or all, and their descriptors; each until the next.

    Copies, as the server may close a descriptor meanwhile and use its number again.
    """
    if descriptors is None:
        descriptors = _descriptors()
    for descriptor in descriptors:
        copy = _copy(descriptor)
        if copy is not None:
            with copy:
                if _is_to(copy, port):
                    yield descriptor, copy


def _descriptors() -> Iterable[int]:
    """The descriptors of this process; all that it may have where the system does not show them."""
    try:
        return [int(path.name) for path in Path("/dev/fd").iterdir()]
    except FileNotFoundError:
        return range(resource.getrlimit(resource.RLIMIT_NOFILE)[0])


def _is_to(connection: socket.socket, port: int | None) -> bool:
    try:
        return _is_of(connection, port) and bool(connection.getpeername())
    except OSError:
        return False  # it listens, or has just ended


def _is_of(connection: socket.socket, port: int | None) -> bool:
    """Whether it is one of IP, and of this port."""
    return connection.family in (socket.AF_INET, socket.AF_INET6) and (
        port is None or connection.getsockname()[1] == port
    )


def _copy(descriptor: int) -> socket.socket | None:
    """The socket of a descriptor, if it is one."""
    try:
        if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
            return None
        return socket.socket(fileno=os.dup(descriptor))
    except OSError:
        return None
