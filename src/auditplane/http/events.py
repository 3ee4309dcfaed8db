"""The routes of `/v1/audit-events`."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Final
from urllib.parse import parse_qsl, urlencode

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from auditplane import limits, log, render
from auditplane import query as queries
from auditplane.access.key import Key, Right
from auditplane.errors import InvalidQuery, UnsupportedMedia
from auditplane.event import Batch, Rules, parse
from auditplane.http import bodies, negotiation, reads
from auditplane.http.metrics import EVENTS_RECORDED
from auditplane.http.problems import JSON, OCTETS
from auditplane.http.state import State
from auditplane.http.streams import Steps, StreamedAnswer, encoded, gzipped
from auditplane.query import Cursor, Order, Query, encode_cursor, parse_query
from auditplane.render import Form
from auditplane.times import format_us

NDJSON_TYPES: Final = ("application/x-ndjson", "application/ndjson", "application/jsonl")
LIST_PATH: Final = "/v1/audit-events"
INLINE_BYTES_MAX: Final = 16 * 1024
LOG_SIZE_HEADER: Final = "Auditplane-Log-Size"
NEXT_AFTER_HEADER: Final = "Auditplane-Next-After"
PRIVATE: Final = {"Cache-Control": "no-store", "Vary": "Accept, Accept-Encoding"}


async def record(request: Request) -> Response:
    """`POST /v1/audit-events`: records the events of the body, all or none."""
    state: State = request.state.server
    key = state.key(request, Right.RECORD)
    no_parameters(request)
    media = request.headers.get("content-type", JSON).partition(";")[0].strip().lower()
    if media != JSON and media not in NDJSON_TYPES:
        raise UnsupportedMedia(f"Content-Type must be {JSON} or {NDJSON_TYPES[0]}, is {media[:64]!r}.")
    body = await bodies.read(request)
    state.check_events(key)
    encoding = request.headers.get("content-encoding", "")
    rules = state.rules(key.account)
    reading = partial(_parse, body, encoding, rules, lines=media != JSON)
    small = len(body) <= INLINE_BYTES_MAX and not encoding
    batch, size = reading() if small else await state.parse(key.account, reading)
    state.check(request)
    bodies.hold(request.scope, max(0, size - len(body)))
    del body, reading
    with state.counted_events(key, len(batch.events)):
        ids = await state.record(key.account, batch, key.id, partial(state.check, request))
    EVENTS_RECORDED.inc(len(ids))
    return Response(msgspec.json.encode({"ids": ids}), 201, media_type=JSON)


def _parse(body: bytes, encoding: str, rules: Rules, *, lines: bool) -> tuple[Batch, int]:
    """The events of a body, and how many bytes they are without its encoding."""
    text = bodies.decode(body, encoding)
    return parse(text, rules, lines=lines), len(text)


async def list_events(request: Request) -> Response:
    """`GET /v1/audit-events`: the events that match, as the caller accepts them."""
    state: State = request.state.server
    key = state.key(request, Right.READ)
    query = filtered(request, state, key, queries.LIST_PARAMETERS)
    form = negotiation.form(request.headers.getlist("accept"))
    if form is Form.JSON and key.envelope:
        form = Form.ENVELOPE
    if query.limit is not None or query.cursor is not None:
        return await _page(request, state, key, query, form)
    return await _stream(request, state, key, query, form, negotiation.MEDIA_TYPES[form], {})


async def download(request: Request) -> Response:
    """`GET /v1/audit-events/download`: the events that match, as a CSV file."""
    state: State = request.state.server
    key = state.key(request, Right.READ)
    query = filtered(request, state, key, queries.DOWNLOAD_PARAMETERS)
    given = [(name, value) for name, value in parameters(request) if value]
    raw = queries.flag(dict(given).get(queries.RAW), queries.RAW)
    form = Form.CSV_RAW if raw else Form.CSV
    filters = [(name, value) for name, value in given if name != queries.RAW]
    return await as_file(request, key, query, form, filters)


_FILES: Final = {
    Form.CSV: ("CSV", "csv", "csv", OCTETS),
    Form.CSV_RAW: ("raw CSV", "raw", "csv", OCTETS),
    Form.NDJSON: ("NDJSON", "ndjson", "ndjson", negotiation.MEDIA_TYPES[Form.NDJSON]),
}
"""What the forms of a download are called, in words, in the trail and as files; and their media types."""


async def as_file(
    request: Request, key: Key, query: Query, form: Form, filters: Sequence[tuple[str, str]]
) -> Response:
    """What matches, to be saved as a file, of which the trail tells; `filters` as they were given."""
    state: State = request.state.server
    words, told_as, ending, media_type = _FILES[form]
    name = file_name("audit-events", key.account, query, ending)
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    answer = await _stream(request, state, key, query, form, media_type, headers)
    await reads.tell(
        request,
        key,
        answer,
        what=f"Downloaded the audit trail as {words}",
        form=told_as,
        filters=filters,
        size=int(answer.headers[LOG_SIZE_HEADER]),
    )
    return answer


async def count(request: Request) -> Response:
    """`GET /v1/audit-events/count`: how many events match."""
    state: State = request.state.server
    key = state.key(request, Right.READ)
    query = filtered(request, state, key, queries.COUNT_PARAMETERS)

    def counted() -> int:
        with state.folder.account(key.account) as store:
            return log.count(store, query)

    return json_answer({"count": await state.streams.run(key.account, counted)})


async def get(request: Request) -> Response:
    """`GET /v1/audit-events/{id}`: one event."""
    state: State = request.state.server
    key = state.key(request, Right.READ)
    no_parameters(request)
    event_id: str = request.path_params["id"]

    def found() -> bytes:
        with state.folder.account(key.account) as store:
            return log.get(store, event_id)

    return Response(await state.streams.run(key.account, found), headers=PRIVATE, media_type=JSON)


def json_answer(value: object, status: int = 200) -> Response:
    """A JSON answer that nobody may keep."""
    return Response(msgspec.json.encode(value), status, PRIVATE, JSON)


def filtered(request: Request, state: State, key: Key, allowed: tuple[str, ...]) -> Query:
    """The query of a request; raises InvalidQuery."""
    kinds = state.rules(key.account).kinds
    return parse_query(parameters(request), account=key.account, allowed=allowed, kinds=kinds)


def no_parameters(request: Request) -> None:
    """Refuses parameters where there are none; raises InvalidQuery."""
    if request.scope["query_string"]:
        name = next((name for name, _ in parameters(request)), "")
        raise InvalidQuery(f"{name[:64]!r} is not a parameter of this; it takes none.")


def parameters(request: Request) -> list[tuple[str, str]]:
    """The parameters in their order. Starlette would read UTF-8 that is not escaped as Latin-1, and put other
    characters where there is none; raises InvalidQuery instead."""
    text: bytes = request.scope["query_string"]  # no longer than QUERY_CHARS_MAX, see `framing`
    count = len(list(filter(None, text.split(b"&"))))
    if count > limits.QUERY_VALUES_MAX:
        raise InvalidQuery(f"At most {limits.QUERY_VALUES_MAX} parameters can be given, not {count:,}.")
    try:
        return parse_qsl(text.decode(), keep_blank_values=True, errors="strict")
    except UnicodeDecodeError:
        raise InvalidQuery("The parameters must be UTF-8, percent-encoded.") from None


async def _page(request: Request, state: State, key: Key, query: Query, form: Form) -> Response:
    """At most `limit` events, and a Link to the next page when there is one (RFC 8288)."""
    limit = query.limit or limits.PAGE_EVENTS_MAX
    encoding = negotiation.encoding(request.headers.getlist("accept-encoding"))

    def made() -> tuple[bytes, Cursor | None, int]:
        with state.folder.account(key.account) as store:
            docs, cursor, size = log.page(store, query, limit)
        body = render.end(render.head(form) + render.body(docs, form), form)
        return encoded(body, encoding), cursor, size

    body, cursor, size = await state.streams.run(key.account, made)
    headers = {**PRIVATE, LOG_SIZE_HEADER: str(size)}
    if encoding:
        headers["Content-Encoding"] = encoding
    if query.order is Order.RECORDED:
        headers[NEXT_AFTER_HEADER] = str(_next_after(query, cursor, size))
    if cursor:
        items = [(name, value) for name, value in parameters(request) if name != queries.CURSOR and value]
        items.append((queries.CURSOR, encode_cursor(cursor, query, key.account)))
        headers["Link"] = f'<{LIST_PATH}?{urlencode(items)}>; rel="next"'
    answer = Response(body, headers=headers, media_type=negotiation.MEDIA_TYPES[form])
    return state.whole(key, answer)


def _next_after(query: Query, cursor: Cursor | None, size: int) -> int:
    """The index after which a feed goes on; never one before that which was asked for."""
    return cursor.position if cursor else max(size - 1, -1 if query.after is None else query.after)


async def _stream(
    request: Request,
    state: State,
    key: Key,
    query: Query,
    form: Form,
    media_type: str,
    headers: Mapping[str, str],
) -> StreamedAnswer:
    """Everything that matches, made while it is sent."""
    encoding = negotiation.encoding(request.headers.getlist("accept-encoding"))
    sizes: list[int] = []

    def steps(step_bytes: int) -> Steps:
        with state.folder.account(key.account) as store:
            answer = log.Answer(store, query, form, packed=encoding == "zstd", step_bytes=step_bytes)
            sizes.append(answer.size)
            yield from gzipped(answer) if encoding == "gzip" else answer

    all_headers = {**PRIVATE, **headers}
    if encoding:
        all_headers["Content-Encoding"] = encoding
    answer = await state.stream(key, steps, all_headers, media_type)
    answer.headers[LOG_SIZE_HEADER] = str(sizes[0])
    return answer


def file_name(what: str, account: str, query: Query, ending: str) -> str:
    """Tells whose trail it is, and of which time: `audit-events-default-from-20260101-to-20260331.csv`."""
    dates = [
        "from-" + _day(query.min_us) if query.min_us is not None else "",
        "to-" + _day(query.max_us) if query.max_us is not None else "",
    ]
    return "-".join([what, account, *filter(None, dates)]) + f".{ending}"


def _day(us: int) -> str:
    return format_us(us)[:10].replace("-", "")
