"""Words and signs of the page: how actions are toned, lengths of time said, and controls shown. Pure."""

import re
from typing import Final
from urllib.parse import urlencode

from auditplane.access.key import Key, Right
from auditplane.times import SECOND_US

# What turns the text beside it (Unicode Standard Annex 9, section 2); letters that are written from right to
# left need none of it. static/elements.js has it too, and static/proof_view.js reads it back.
_TURNING: Final = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_TONES: Final = {
    "good": (
        "created",
        "started",
        "resumed",
        "enabled",
        "added",
        "approved",
        "restored",
        "completed",
        "succeeded",
    ),
    "bad": ("deleted", "failed", "removed", "revoked", "denied", "rejected", "stopped", "disabled", "error"),
    "plain": ("modified", "updated", "changed", "edited", "renamed"),
    "wait": ("pending", "paused", "waiting", "scheduled"),
    "read": ("downloaded", "exported", "login", "logout", "viewed", "read"),
}
_TONE_OF: Final = {word: tone for tone, words in _TONES.items() for word in words}
_LENGTHS: Final = (("year", 365 * 86_400), ("day", 86_400), ("hour", 3_600), ("minute", 60), ("second", 1))


def tone(action: str) -> str:
    """How an action is coloured; the text says it as well."""
    return _TONE_OF.get(action.casefold(), "other")


def visible(text: str) -> str:
    """A text in which what would turn its direction stands as the command line shows it: `\\u202e`."""
    return _TURNING.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def length(us: int) -> str:
    """A length of time in its largest unit: `3 days`."""
    seconds = abs(us) // SECOND_US
    for unit, size in _LENGTHS:
        if seconds >= size:
            count = seconds // size
            return f"{count:,} {unit}{'' if count == 1 else 's'}"
    return "less than a second"


def size(count: float) -> str:
    """A number of bytes: `1.5 GB`."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1_000:
            return f"{count:.0f} {unit}" if unit == "bytes" or count >= 100 else f"{count:.1f} {unit}"
        count /= 1_000
    return f"{count:,.1f} TB"


def trail_url(*pairs: str) -> str:
    """The URL of the trail with some filters: names and values in turn."""
    return "/?" + urlencode(list(zip(pairs[::2], pairs[1::2], strict=True)))


def manages(key: Key) -> bool:
    """Whether a key may see what only admins see."""
    return key.may(Right.MANAGE)
