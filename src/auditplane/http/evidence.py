"""The route of `/v1/audit-events/evidence`."""

from collections.abc import Sequence
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from auditplane import query as queries
from auditplane.access.key import Key, Right
from auditplane.evidence import Asked, Evidence
from auditplane.http import reads
from auditplane.http.events import LOG_SIZE_HEADER, PRIVATE, file_name, filtered, parameters
from auditplane.http.state import State
from auditplane.http.streams import Steps
from auditplane.query import Query

ZIP: Final = "application/zip"


async def evidence(request: Request) -> Response:
    """`GET /v1/audit-events/evidence`: the events that match, with what proves them, as a zip."""
    state: State = request.state.server
    key = state.key(request, Right.READ)
    query = filtered(request, state, key, queries.FILTERS)
    given = [(name, value) for name, value in parameters(request) if value]
    return await as_zip(request, key, query, given)


async def as_zip(request: Request, key: Key, query: Query, given: Sequence[tuple[str, str]]) -> Response:
    """The evidence for what matches, of which the trail tells; `given` are the filters as they were given."""
    state: State = request.state.server
    asked = Asked(key.account, key.id, key.description, query, given)
    signer = state.log_key.for_account(key.account)
    sizes: list[int] = []

    def steps(_step_bytes: int) -> Steps:
        with state.folder.account(key.account) as store:
            made = Evidence(store, asked, signer, state.clock)
            sizes.append(made.size)
            yield from made

    name = file_name("evidence", key.account, query, "zip")
    headers = {**PRIVATE, "Content-Disposition": f'attachment; filename="{name}"'}
    answer = await state.stream(key, steps, headers, ZIP)
    answer.headers[LOG_SIZE_HEADER] = str(sizes[0])
    what = "Downloaded evidence from the audit trail"
    await reads.tell(request, key, answer, what=what, form="evidence", filters=given, size=sizes[0])
    return answer
