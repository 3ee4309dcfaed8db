"""ULIDs that hold the key of their event. Pure.

A ULID is 128 bits in 26 letters of Crockford's base 32 (github.com/ulid/spec): 48 bits of milliseconds and
80 bits of randomness. In one made here the first 21 of those 80 are the microsecond (10) and the counter
(11) of the event's key, so that an event is found by its id without an index; 59 are random.
"""

import re
from collections.abc import Iterable
from typing import Final

COUNTER_BITS: Final = 11
COUNTERS: Final = 1 << COUNTER_BITS
RANDOM_BYTES: Final = 12
CHARS: Final = 26

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_TO_INT32 = str.maketrans(_ALPHABET, "0123456789abcdefghijklmnopqrstuv")
_ULID = re.compile(f"[0-7][{_ALPHABET}]{{25}}")
_PAIRS = tuple(a + b for a in _ALPHABET for b in _ALPHABET)
_HALVES = (_ALPHABET[:16], _ALPHABET[16:])
_BYTE_TO_CHAR = bytes(ord(_ALPHABET[i & 31]) for i in range(256))


def is_ulid(text: str) -> bool:
    """Whether `text` is a ULID in capital letters."""
    return _ULID.fullmatch(text) is not None


def _time_chars(ms: int) -> str:
    """The first ten letters: milliseconds since 1970."""
    return "".join([_PAIRS[(ms >> shift) & 1023] for shift in (40, 30, 20, 10, 0)])


def make(key: int, randomness: bytes) -> str:
    """The ULID of the event at `key`; `randomness` is RANDOM_BYTES bytes, of which 59 bits count."""
    return make_all((key,), randomness)[0]


def make_all(keys: Iterable[int], randomness: bytes) -> list[str]:
    """The ULIDs of some events; `randomness` is RANDOM_BYTES bytes for each."""
    letters = randomness.translate(_BYTE_TO_CHAR).decode("ascii")
    made = []
    latest, time = -1, ""
    at = 0
    for key in keys:
        ms, us_of_ms = divmod(key >> COUNTER_BITS, 1000)
        if ms != latest:
            latest, time = ms, _time_chars(ms)
        counter = key & (COUNTERS - 1)
        middle = _HALVES[counter & 1][randomness[at] & 15]
        made.append(
            f"{time}{_PAIRS[us_of_ms]}{_PAIRS[counter >> 1]}{middle}{letters[at + 1 : at + RANDOM_BYTES]}"
        )
        at += RANDOM_BYTES
    return made


def key_of(ulid: str) -> int | None:
    """The key that a ULID made here holds; None when it was made elsewhere for certain."""
    bits = int(ulid.translate(_TO_INT32), 32)
    us_of_ms = (bits >> 70) & 1023
    if us_of_ms >= 1000:
        return None
    key = (((bits >> 80) * 1000 + us_of_ms) << COUNTER_BITS) | ((bits >> 59) & (COUNTERS - 1))
    return key if key < 1 << 63 else None
