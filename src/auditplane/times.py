"""Moments as whole microseconds since 1970 UTC, and the texts that name them. Pure.

The one written form is RFC 3339 in UTC with six decimals and `Z`: `2026-03-18T18:21:09.000001Z`.
"""

import calendar
import re
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final

SECOND_US: Final = 1_000_000
DAY_US: Final = 86_400 * SECOND_US

_RFC3339 = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})[Tt]([0-9]{2}):([0-9]{2}):([0-9]{2})(?:\.([0-9]{1,30}))?"
    r"(?:([Zz])|([+-])([0-9]{2}):([0-9]{2}))"
)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST_SECOND, _LAST_SECOND = -62_135_596_800, 253_402_300_799  # Of the years 1 to 9999.
_CANONICAL_CHARS = 27
_DAYS_IN_MONTH = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)


def format_us(us: int) -> str:
    """The RFC 3339 text of `us` microseconds since 1970."""
    second, fraction = divmod(us, SECOND_US)
    return f"{_second_text(second)}.{fraction:06d}Z"


def format_all(moments: Iterable[int]) -> list[str]:
    """`format_us` of many moments."""
    made = []
    latest, text = None, ""
    for us in moments:
        second, fraction = divmod(us, SECOND_US)
        if second != latest:
            latest, text = second, _second_text(second)
        made.append(f"{text}.{fraction:06d}Z")
    return made


@lru_cache(maxsize=4096)
def _second_text(second: int) -> str:
    return (_EPOCH + timedelta(seconds=second)).isoformat()[:19]


@lru_cache(maxsize=4096)
def _second_of(text: str) -> int:
    """Seconds since 1970 of `YYYY-MM-DDTHH:MM:SS`; ValueError when there is no such moment."""
    if match := _RFC3339.fullmatch(text + "Z"):
        return epoch_seconds(*(int(match[i]) for i in range(1, 7)))
    raise ValueError(text)


def parse_rfc3339(text: str) -> int:
    """Microseconds since 1970 of an RFC 3339 date-time; digits beyond the sixth decimal are cut off.

    Raises ValueError for any other text, and for dates that don't exist.
    """
    if len(text) == _CANONICAL_CHARS and text[19] == "." and text[26] == "Z":
        digits = text[20:26]
        if digits.isascii() and digits.isdigit():
            return _second_of(text[:19]) * SECOND_US + int(digits)
    match = _RFC3339.fullmatch(text)
    if not match:
        raise ValueError(text)
    second = epoch_seconds(*(int(match[i]) for i in range(1, 7)))
    if match[9]:
        second = in_calendar(second - offset_seconds(match[9], match[10], match[11]))
    return second * SECOND_US + int((match[7] or "0")[:6].ljust(6, "0"))


def epoch_seconds(year: int, month: int, day: int, hour: int = 0, minute: int = 0, second: int = 0) -> int:
    """Seconds since 1970 of a UTC moment, negative before; ValueError when there is no such moment."""
    if not (year >= 1 and 1 <= month <= 12 and 1 <= day <= _DAYS_IN_MONTH[month - 1]):
        raise ValueError("no such day")
    if month == 2 and day == 29 and not calendar.isleap(year):
        raise ValueError("no such day")
    if hour > 23 or minute > 59 or second > 59:
        raise ValueError("no such time of day")
    return calendar.timegm((year, month, day, hour, minute, second))


def offset_seconds(sign: str, hours: str, minutes: str | None) -> int:
    """Seconds east of UTC of an offset such as `+02:00`; ValueError when out of range."""
    h, m = int(hours), int(minutes or 0)
    if h > 23 or m > 59:
        raise ValueError("no such offset")
    return (h * 3600 + m * 60) * (-1 if sign == "-" else 1)


def in_calendar(second: int) -> int:
    """The same second since 1970; ValueError outside the years 1 to 9999, where an offset may lead."""
    if not _FIRST_SECOND <= second <= _LAST_SECOND:
        raise ValueError("no such year")
    return second
