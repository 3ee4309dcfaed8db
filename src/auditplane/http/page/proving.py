"""What the page asks for to verify an event in the browser; `static/proof.js` checks it.

The answers are those of `/v1/audit-events/{id}/proof` and `/v1/log/{account}/consistency`, for whoever is
signed in, and of no account but that of the session.
"""

from functools import partial

from starlette.requests import Request
from starlette.responses import Response

from auditplane.access.key import Right
from auditplane.http import logs
from auditplane.http.events import json_answer, no_parameters
from auditplane.http.page.sessions import session
from auditplane.http.state import State
from auditplane.times import format_us


async def page_proof(request: Request) -> Response:
    """`GET /events/{id}/proof`: an event with its proof.

    And with the verifier key (`key`), and when the checkpoint was signed (`signed`). Raises NotAuthenticated,
    Forbidden, NotFound and Gone.
    """
    state: State = request.state.server
    reader = session(request).key
    reader.require(Right.READ)
    no_parameters(request)
    signer = state.log_key.for_account(reader.account)
    found = await logs.proven(state, reader.account, request.path_params["id"], signer)
    more = {"key": str(signer.verifier), "signed": format_us(found.signed.at_us)}
    answer = json_answer(logs.proof_members(found) | more)
    return state.streams.whole(reader.account, answer, partial(session, request))


async def page_consistency(request: Request) -> Response:
    """`GET /log/consistency?from=&to=`: proves that the session's log is the beginning of a later one.

    Raises NotAuthenticated, Forbidden, InvalidQuery and NotFound.
    """
    reader = session(request).key
    reader.require(Right.VERIFY)
    return await logs.consistency_answer(request, reader.account)
