"""Attempts to sign in that failed, counted in the database and so by all workers together.

Keys and links can't be guessed; this keeps those who try all the same from keeping the server busy. Nothing
is written but failures, and none of a source that has reached its limit.
"""

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from math import ceil
from typing import Final, Self

import apsw

from auditplane import limits
from auditplane.errors import TooManyAttempts
from auditplane.store.sqlite.database import fetch, load_queries, one
from auditplane.times import SECOND_US

PREFIX_CHARS: Final = 11
IPV6_NETWORK_BITS: Final = 64
WINDOW_US: Final = limits.ATTEMPT_SECONDS * SECOND_US

_QUERIES = load_queries("auditplane.access")


@dataclass(frozen=True, slots=True)
class Source:
    """What attempts are counted by, and how many of it may fail within ATTEMPT_SECONDS."""

    hash: bytes
    failures_max: int

    @classmethod
    def of_address(cls, address: str) -> Self:
        """Where they come from. IPv6 counts by /64, as one machine has all addresses of such a network."""
        return cls(_hashed("address", _network(address)), limits.ATTEMPTS_PER_ADDRESS_MAX)

    @classmethod
    def of_secret(cls, secret: str) -> Self:
        """How what was given begins, so that a key is not tried from many places."""
        return cls(_hashed("secret", secret[:PREFIX_CHARS]), limits.ATTEMPTS_PER_KEY_MAX)


def sources(address: str | None, secret: str) -> Sequence[Source]:
    """What an attempt is counted by; it has no address where it did not come over the network."""
    of_secret = Source.of_secret(secret)
    return [of_secret] if address is None else [Source.of_address(address), of_secret]


def refuse_many(connection: apsw.Connection, tried: Sequence[Source], now_us: int) -> None:
    """Raises TooManyAttempts when any of the sources has failed too often."""
    for source in tried:
        bindings = (source.hash, now_us - WINDOW_US, source.failures_max - 1)
        at_us = one(connection, _QUERIES["attempt_before"], bindings)
        if at_us is not None:
            seconds = ceil((at_us + WINDOW_US - now_us) / SECOND_US)
            raise TooManyAttempts(
                f"Signing in failed too often. Try again in {ceil(seconds / 60)} minutes.",
                retry_after_seconds=seconds,
            )


def add_failure(connection: apsw.Connection, tried: Sequence[Source], now_us: int) -> None:
    """Counts a failure, and forgets those that count no more."""
    fetch(connection, _QUERIES["drop_old_attempts"], (now_us - WINDOW_US,))
    for source in tried:
        fetch(connection, _QUERIES["add_attempt"], (source.hash, now_us))


def _network(address: str) -> str:
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(ip, ipaddress.IPv4Address):
        return str(ip)
    return str(ip.ipv4_mapped or ipaddress.ip_network((ip, IPV6_NETWORK_BITS), strict=False))


def _hashed(kind: str, text: str) -> bytes:
    return sha256(f"{kind} {text}".encode("utf-8", "surrogatepass")).digest()
