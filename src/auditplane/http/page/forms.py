"""Forms, as a page sends them (URL Standard, application/x-www-form-urlencoded)."""

from typing import Final
from urllib.parse import parse_qsl

from starlette.requests import Request

from auditplane import limits
from auditplane.errors import InvalidInput, UnsupportedMedia
from auditplane.http import bodies

FORM: Final = "application/x-www-form-urlencoded"


async def read(request: Request) -> dict[str, str]:
    """The fields of a form, each of which it has once.

    Raises UnsupportedMedia, TooLarge beyond FORM_BYTES_MAX, RequestTimeout, and InvalidInput.
    """
    media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media != FORM or request.headers.get("content-encoding", "identity") != "identity":
        raise UnsupportedMedia(f"Content-Type must be {FORM}, without a Content-Encoding.")
    body = await bodies.read(request, limits.FORM_BYTES_MAX)
    fields = _fields(body)
    found = dict(fields)
    if len(found) < len(fields):
        raise InvalidInput("The form has a field twice.")
    return found


def _fields(body: bytes) -> list[tuple[str, str]]:
    if not body:
        return []
    try:
        return parse_qsl(
            body.decode("ascii"),
            keep_blank_values=True,
            strict_parsing=True,
            errors="strict",
            max_num_fields=limits.FORM_FIELDS_MAX,
        )
    except ValueError:
        raise InvalidInput("The form can't be read.") from None
