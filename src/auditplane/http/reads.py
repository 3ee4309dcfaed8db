"""Who took the trail, told in the trail: an event for each download, on disk before the first byte is sent.

The evidence is a download as well. The event is not part of the answer that it tells of. Where it can't be
recorded, nothing is sent.
"""

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any, Final

from starlette.requests import Request

from auditplane import limits
from auditplane.access.key import Key
from auditplane.errors import without_keys
from auditplane.event import Rules, parse
from auditplane.forgotten import KIND, SYSTEM
from auditplane.http.metrics import EVENTS_RECORDED
from auditplane.http.state import State
from auditplane.http.streams import StreamedAnswer

EXPORTED: Final = "Exported"
FILTERS_BYTES_MAX: Final = 8 * 1024
WHAT_CHARS_MAX: Final = 1_000

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


async def tell(
    request: Request,
    key: Key,
    answer: StreamedAnswer,
    *,
    what: str,
    form: str,
    filters: Sequence[tuple[str, str]],
    size: int,
) -> None:
    """Records that a key was given an answer, which shows a log of `size` events in a form.

    `what` says it in words; `filters` are names and values as they were given. Nothing is recorded of HEAD,
    which shows no event, nor where `audit_trail.record_reads` is off. When it can't be recorded, the answer
    is let go of, and why is raised.
    """
    state: State = request.state.server
    if request.method == "HEAD" or not state.config.record_reads:
        return
    try:
        event = _event(key, what, form, filters, size)
        batch = parse(json.dumps(event).encode(), Rules(account=key.account))
        await state.record(key.account, batch, SYSTEM)
    except BaseException:
        answer.abandon()
        raise
    EVENTS_RECORDED.inc()


def _event(key: Key, what: str, form: str, filters: Sequence[tuple[str, str]], size: int) -> dict[str, Any]:
    clean = [(name, _CONTROL.sub("\ufffd", without_keys(value))) for name, value in filters]
    told = ", ".join(f"{name}={value}" for name, value in clean)
    description = f"{what}: {told}" if told else what
    if len(description) > WHAT_CHARS_MAX:
        description = description[: WHAT_CHARS_MAX - 1] + "…"
    kept = list(_bounded(clean))
    grouped: dict[str, list[str]] = {}
    for name, value in kept:
        grouped.setdefault(name, []).append(value)
    left_out = {"filtersLeftOut": len(clean) - len(kept)} if len(kept) < len(clean) else {}
    return {
        "resourceName": key.account,
        "resourceKind": KIND,
        "action": EXPORTED,
        "user": key.name[: limits.NAME_CHARS_MAX],
        "description": description,
        "details": {"form": form, "filters": grouped, **left_out, "logSize": size, "key": key.id},
    }


def _bounded(filters: Sequence[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """As many filters as the details of an event have room for."""
    room = FILTERS_BYTES_MAX
    for name, value in filters:
        room -= len(json.dumps([name, value], ensure_ascii=False).encode())
        if room >= 0:
            yield name, value
