"""The routes of `/v1/log/{account}`, and the proofs of single events.

Paths below `/v1/log/{account}` are those of C2SP tlog-tiles. What they serve are commitments, which show
nothing of the events: any key of the account may ask for them, and anybody where `log.public` is set. But for
`events`: it serves what the commitments are made of, to a key of the account that may read, and to no other.
"""

import base64
from contextlib import suppress
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from auditplane import log
from auditplane.access.key import Right
from auditplane.checkpoint import Proof, SignerKey, format_proof
from auditplane.errors import AuditplaneError, InvalidQuery, NotFound
from auditplane.http import negotiation
from auditplane.http.events import LOG_SIZE_HEADER, PRIVATE, json_answer, no_parameters, parameters
from auditplane.http.problems import JSON, OCTETS
from auditplane.http.state import CALLER, State
from auditplane.http.streams import Steps, gzipped
from auditplane.render import Form
from auditplane.store import Signed
from auditplane.store.sqlite.fetched import Fetched, keep_fetched
from auditplane.tiles import parse_tile_path

TEXT: Final = "text/plain; charset=utf-8"
PUBLIC_TURN: Final = "*public"
"""No name of an account."""
NDJSON: Final = negotiation.MEDIA_TYPES[Form.NDJSON]
EXPIRED_HEADER: Final = "Auditplane-Expired"
PUBLIC: Final = {"Cache-Control": "public, max-age=31536000, immutable"}
OWN: Final = {
    "Cache-Control": "private, max-age=31536000, immutable",
    # Programs that share a cache may have keys of different accounts.
    "Vary": "Authorization, X-Bindplane-Api-Key, X-Bindplane-Account-ID",
}


async def key(request: Request) -> Response:
    """`GET /v1/log/{account}/key`: the verifier key of the log, to be kept elsewhere."""
    state: State = request.state.server
    account = _account(request, state)
    no_parameters(request)
    text = f"{state.log_key.for_account(account).verifier}\n"
    return Response(text, headers=PRIVATE, media_type=TEXT)


async def checkpoint(request: Request) -> Response:
    """`GET /v1/log/{account}/checkpoint`: a signed checkpoint (C2SP tlog-checkpoint)."""
    state: State = request.state.server
    account = _account(request, state)
    no_parameters(request)

    def signed() -> Signed:
        with state.folder.account(account) as store:
            found = log.checkpoint(store, state.log_key.for_account(account), state.clock)
        if request.method != "HEAD":
            with suppress(AuditplaneError):  # it is for a metric only
                keep_fetched(state.folder.path, account, Fetched(found.size, found.at_us))
        return found

    found = await state.streams.run(_turn(request, account), signed)
    return Response(found.note, headers=PRIVATE, media_type=TEXT)


async def tile(request: Request) -> Response:
    """`GET /v1/log/{account}/tile/…`: a tile or an entry bundle (C2SP tlog-tiles)."""
    state: State = request.state.server
    account = _account(request, state)
    no_parameters(request)
    wanted = parse_tile_path("tile/" + request.path_params["path"])
    if wanted is None:
        raise NotFound("This is not the path of a tile.")

    def read() -> bytes:
        with state.folder.account(account) as store:
            return log.tile(store, wanted)

    cached = PUBLIC if state.config.log_public else OWN
    return Response(await state.streams.run(_turn(request, account), read), headers=cached, media_type=OCTETS)


async def consistency(request: Request) -> Response:
    """`GET /v1/log/{account}/consistency`: proves that a log is the beginning of a later one."""
    state: State = request.state.server
    return await consistency_answer(request, _account(request, state))


async def consistency_answer(request: Request, account: str) -> Response:
    """A consistency proof for one who may see the log of the account; the sizes are those of the request."""
    state: State = request.state.server
    old, new = _sizes(request)

    def path() -> list[bytes]:
        with state.folder.account(account) as store:
            return log.consistency(store, old, new)

    hashes = [
        base64.b64encode(each).decode() for each in await state.streams.run(_turn(request, account), path)
    ]
    return json_answer({"from": old, "to": new, "path": hashes})


async def events(request: Request) -> Response:
    """`GET /v1/log/{account}/events`: events in the order of their commits, with their stamps."""
    state: State = request.state.server
    account: str = request.path_params["account"]
    reader = state.key(request, Right.READ)
    if reader.account != account:
        raise NotFound("The API key is of another account than this log.")
    given = _numbers(request)
    start, end = given.get("from", 0), given.get("to")
    encoding = negotiation.encoding(request.headers.getlist("accept-encoding"))
    made: list[log.Entries] = []

    def steps(_step_bytes: int) -> Steps:
        with state.folder.account(account) as store:
            found = log.Entries(store, start, end, packed=encoding == "zstd")
            made.append(found)
            yield from gzipped(found) if encoding == "gzip" else found

    headers = {**PRIVATE, **({"Content-Encoding": encoding} if encoding else {})}
    answer = await state.stream(reader, steps, headers, NDJSON)
    answer.headers[LOG_SIZE_HEADER] = str(made[0].size)
    answer.headers[EXPIRED_HEADER] = str(made[0].expired)
    return answer


async def proof(request: Request) -> Response:
    """`GET /v1/audit-events/{id}/proof`: an event with its proof, or the proof alone (C2SP tlog-proof)."""
    state: State = request.state.server
    reader = state.key(request, Right.READ)
    no_parameters(request)
    media = negotiation.media_type(request.headers.getlist("accept"), (JSON, "text/plain"))
    signer = state.log_key.for_account(reader.account)
    found = await proven(state, reader.account, request.path_params["id"], signer)
    if media != JSON:
        text = format_proof(Proof(found.stored.index, tuple(found.path), found.signed.note))
        return Response(text, headers=PRIVATE, media_type=TEXT)
    return state.whole(reader, json_answer(proof_members(found)))


async def proven(state: State, account: str, event_id: str, signer: SignerKey) -> log.Proven:
    """An event of an account and its proof, signed by the key of its log; raises NotFound and Gone."""

    def read() -> log.Proven:
        with state.folder.account(account) as store:
            return log.proof(store, event_id, signer, state.clock)

    return await state.streams.run(account, read)


def proof_members(found: log.Proven) -> dict[str, Any]:
    """The members of a proof's JSON."""
    return {
        "doc": found.stored.doc.decode(),
        "stamp": found.stored.stamp.decode(),
        "index": found.stored.index,
        "size": found.signed.size,
        "root": base64.b64encode(found.signed.root).decode(),
        "path": [base64.b64encode(each).decode() for each in found.path],
        "checkpoint": found.signed.note.decode(),
    }


def _turn(request: Request, account: str) -> str:
    """Who waits in turn: where no key was shown, all who show none, not the account that they ask for."""
    return account if CALLER in request.scope else PUBLIC_TURN


def _account(request: Request, state: State) -> str:
    """The account of the path, when the caller may see its log; raises NotFound when there is none to see."""
    account: str = request.path_params["account"]
    if state.config.log_public:
        if not state.folder.has_log(account):
            raise NotFound("There is no log of this name.")
    elif state.key(request, Right.VERIFY).account != account:
        raise NotFound("The API key is of another account than this log.")
    return account


def _sizes(request: Request) -> tuple[int, int]:
    found = _numbers(request)
    if len(found) != 2:
        raise InvalidQuery("Give the sizes `from` and `to`, once each, and nothing else.")
    return found["from"], found["to"]


def _numbers(request: Request) -> dict[str, int]:
    """`from` and `to`, as far as they are given; raises InvalidQuery."""
    given = parameters(request)
    found = dict(given)
    if len(given) != len(found) or not found.keys() <= {"from", "to"}:
        raise InvalidQuery("Give the sizes `from` and `to`, once each, and nothing else.")
    for name, text in found.items():
        if not text.isascii() or not text.isdigit() or len(text) > 18:
            raise InvalidQuery(f"{name}: must be a number of entries, is {text[:32]!r}.")
    return {name: int(text) for name, text in found.items()}
