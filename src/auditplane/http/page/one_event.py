"""One event: the drawer beside the trail, which is the page at `/events/<id>` too."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from auditplane import log, merkle
from auditplane.access import Access
from auditplane.access.key import Key, Right
from auditplane.errors import NotFound
from auditplane.event import Event, decode_doc, decode_docs
from auditplane.http.page.details import Line, Node, comparison, tree
from auditplane.http.page.rendering import html, is_for_part, page_route
from auditplane.http.page.trail import asked_view, on_thread, reader, show_trail
from auditplane.query import Cursor, Order, Query, configuration_name
from auditplane.store import Stored
from auditplane.store.sqlite.account import AccountStore
from auditplane.times import SECOND_US, parse_rfc3339

DRIFT_US: Final = 300 * SECOND_US
NEIGHBOURS: Final = 5


@dataclass(frozen=True, slots=True)
class Recorded:
    """When an event was recorded and by which key; `drift_us`: how much later than its timestamp, if much."""

    at: str
    by: str
    drift_us: int | None


@dataclass(frozen=True, slots=True)
class Shown:
    """An event with all that the drawer says of it.

    `earlier` and `later` are events of the same resource, the nearest first.
    """

    event: Event
    doc: str
    index: int
    entry: str
    recorded: Recorded
    nodes: Sequence[Node]
    lines: Sequence[Line]
    earlier: Sequence[Event]
    later: Sequence[Event]

    @property
    def details(self) -> str:
        """Its details as JSON."""
        return bytes(self.event.details).decode()

    @property
    def configuration_name(self) -> str | None:
        """The name of its configuration, without the version."""
        return configuration_name(self.event.configuration) if self.event.configuration else None


@page_route
async def show(request: Request) -> Response:
    """`GET /events/{id}`: the drawer of an event, with the trail beside it unless it is asked for alone."""
    state, key = reader(request)
    event_id: str = request.path_params["id"]

    def found(store: AccountStore) -> tuple[Shown, str | None]:
        shown = _shown(store, event_id)
        return shown, _key_name(state.access, key, shown.recorded.by)

    shown, key_name = await on_thread(state, key.account, found)
    values = {
        "shown": shown,
        "key_name": key_name,
        "log_name": state.log_key.for_account(key.account).name,
    }
    if not is_for_part(request):
        return await show_trail(request, values)
    return await html(request, "event.html", view=asked_view(request, state, key), drawer=values)


def _shown(store: AccountStore, event_id: str) -> Shown:
    stored = log.stored(store, event_id)
    event = decode_doc(stored.doc)
    details = bytes(event.details)
    return Shown(
        event=event,
        doc=stored.doc.decode(),
        index=stored.index,
        entry=merkle.entry(stored.doc, stored.stamp).hex(),
        recorded=_recorded(event, stored),
        nodes=tree(details) if details else (),
        lines=comparison(details) if details else (),
        earlier=_neighbours(store, event, stored.key, Order.DESC),
        later=_neighbours(store, event, stored.key, Order.ASC),
    )


def _recorded(event: Event, stored: Stored) -> Recorded:
    stamp: dict[str, Any] = json.loads(stored.stamp)
    drift = parse_rfc3339(stamp["at"]) - parse_rfc3339(event.timestamp or "")
    return Recorded(stamp["at"], stamp["by"], drift if abs(drift) > DRIFT_US else None)


def _neighbours(store: AccountStore, event: Event, key: int, order: Order) -> Sequence[Event]:
    """The events of the same resource before or after one, the nearest first."""
    same = Query(names=(event.resourceName,), kinds=(event.resourceKind,), order=order)
    docs, _, _ = log.page(store, replace(same, cursor=Cursor(key, store.size())), NEIGHBOURS)
    return decode_docs(docs)


def _key_name(access: Access, reader: Key, key_id: str) -> str | None:
    """What a key is called, for those who may see the keys."""
    if not reader.may(Right.MANAGE):
        return None
    try:
        return access.key(key_id, reader.account).name
    except NotFound:  # it is the server itself
        return None
