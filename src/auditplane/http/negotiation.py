"""What the caller accepts: representations and content encodings (RFC 9110, sections 12.4 and 12.5)."""

import re
from collections.abc import Mapping, Sequence
from typing import Final

from auditplane import limits
from auditplane.errors import InvalidInput, NotAcceptable
from auditplane.render import Form

_QUALITY = re.compile(r"[qQ]=(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)")

MEDIA_TYPES: Final = {
    Form.JSON: "application/json",
    Form.ENVELOPE: "application/json",
    Form.NDJSON: "application/x-ndjson",
    Form.CSV: "text/csv; charset=utf-8",
}
_OFFERED: Final = (
    ("application/json", Form.JSON),
    ("application/x-ndjson", Form.NDJSON),
    ("application/ndjson", Form.NDJSON),
    ("text/csv", Form.CSV),
)
_ENCODINGS: Final = ("zstd", "gzip")


def form(accept: Sequence[str]) -> Form:
    """The form that suits the `Accept` headers best; raises NotAcceptable when none does."""
    return dict(_OFFERED)[media_type(accept, [media for media, _ in _OFFERED])]


def media_type(accept: Sequence[str], offered: Sequence[str]) -> str:
    """The one of some media types that suits the headers best, the first of equals; raises NotAcceptable."""
    if not any(accept):
        return offered[0]
    ranges: dict[str, float] = {}
    for name, quality in _weighted(accept):
        ranges[name] = max(quality, ranges.get(name, 0.0))
    best = max(offered, key=lambda media: _media_quality(media, ranges))
    if not _media_quality(best, ranges):
        *others, last = offered
        raise NotAcceptable(f"Accept: {', '.join(others)} and {last} can be had here.")
    return best


def _media_quality(media: str, ranges: Mapping[str, float]) -> float:
    """The quality of the most specific range that covers a media type."""
    major = media.partition("/")[0]
    for pattern in (media, f"{major}/*", "*/*"):
        if pattern in ranges:
            return ranges[pattern]
    return 0.0


def encoding(accept_encoding: Sequence[str]) -> str | None:
    """`zstd` or `gzip` when the `Accept-Encoding` headers prefer them, or None for plain bytes."""
    if not accept_encoding:
        return None
    named = dict(_weighted(accept_encoding))
    best = max(_ENCODINGS, key=lambda name: named.get(name, 0.0))
    quality = named.get(best, 0.0)
    return best if quality > 0 and quality >= named.get("identity", 0.0) else None


def _weighted(headers: Sequence[str]) -> list[tuple[str, float]]:
    """The values of some headers of one name, which are one list, with their weights; raises InvalidInput."""
    found = []
    text = ",".join(headers).lower()
    if len(text) > limits.ACCEPT_CHARS_MAX:
        raise InvalidInput(f"What is accepted may have at most {limits.ACCEPT_CHARS_MAX:,} characters.")
    for item in text.split(","):
        name, *parameters = (part.strip() for part in item.split(";"))
        weights = [match[1] for part in parameters if (match := _QUALITY.fullmatch(part))]
        found.append((name, float(weights[0]) if weights else 1.0))
    return found
