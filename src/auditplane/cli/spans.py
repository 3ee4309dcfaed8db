"""Spans of time as people write them: 30m, 12h, 90d, 2w."""

import re

from auditplane.times import DAY_US, SECOND_US

_UNITS = {"m": 60 * SECOND_US, "h": 3600 * SECOND_US, "d": DAY_US, "w": 7 * DAY_US}


def span_us(text: str) -> int | None:
    """The microseconds of a span; None when the text is none."""
    match = re.fullmatch(r"([0-9]{1,6})([mhdw])", text, re.ASCII)
    return int(match[1]) * _UNITS[match[2]] if match else None
