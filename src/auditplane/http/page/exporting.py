"""Exporting a view: how many events it has, and the files of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from auditplane import log
from auditplane import query as queries
from auditplane.errors import NotFound
from auditplane.http import events, evidence
from auditplane.http.page import sessions
from auditplane.http.page.rendering import html, is_for_part, page_route
from auditplane.http.page.trail import asked_view, on_thread, reader
from auditplane.query import Order
from auditplane.render import Form

EVIDENCE: Final = "evidence"


@dataclass(frozen=True, slots=True)
class File:
    """A form that can be had: what it is called, and what it is for."""

    form: str
    name: str
    purpose: str


FILES: Final = (
    File("csv", "CSV", "For a spreadsheet: no cell is taken for a formula."),
    File("ndjson", "NDJSON", "For programs: one JSON object a line, as it was recorded."),
    File(EVIDENCE, "Evidence", "For an auditor: a zip that proves itself, without this server."),
)
_FORMS: Final = {"csv": Form.CSV, "ndjson": Form.NDJSON}


@page_route
async def show(request: Request) -> Response:
    """`GET /export`: what can be exported of a view, and how many events that is."""
    state, key = reader(request)
    view = asked_view(request, state, key)
    count = await on_thread(state, key.account, lambda store: log.count(store, view.query))
    template = "export.html" if is_for_part(request) else "export_page.html"
    session = sessions.session(request)
    return await html(request, template, session=session, view=view, count=count, files=FILES)


@page_route
async def export(request: Request) -> Response:
    """`GET /export/{form}`: the events of a view as a file, of which the trail tells.

    Not where another site has the browser ask: it would tell of a person who did nothing.
    """
    sessions.check_origin(request)
    state, key = reader(request)
    view = asked_view(request, state, key)
    form: str = request.path_params["form"]
    if form == EVIDENCE:
        return await evidence.as_zip(request, key, view.query, view.filters)
    if form not in _FORMS:
        raise NotFound(f"There is no export of this form; there are {_listed()}.")
    told: Sequence[tuple[str, str]] = view.filters
    if view.query.order is Order.ASC:
        told = [*told, (queries.ORDER, Order.ASC.value)]
    return await events.as_file(request, key, view.query, _FORMS[form], told)


def _listed() -> str:
    *others, last = (each.form for each in FILES)
    return f"{', '.join(others)} and {last}"
