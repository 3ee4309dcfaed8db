"""Requests that HTTP forbids and the server below lets through: refused before anything looks at them.

A proxy before the server may read them otherwise, and who knows both ways hides a request in another one
(RFC 9112, sections 3.2 and 6.1).

So are parameters that are too long, on every path and whoever sends them: to take them apart holds up all.
"""

from collections.abc import Sequence

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from auditplane import limits
from auditplane.errors import InvalidQuery
from auditplane.http.page import rendering
from auditplane.http.problems import JSON


class Framed:
    """An application that gets no request which can be read in two ways, or has too long parameters."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["http_version"].startswith("1"):
            wrong = _wrong(scope["http_version"], scope["headers"])
            if wrong:
                body = msgspec.json.encode({"errors": [wrong]})
                answer = Response(body, 400, {"Connection": "close", "Cache-Control": "no-store"}, JSON)
                await answer(scope, receive, send)
                return
        if scope["type"] == "http" and len(scope["query_string"]) > limits.QUERY_CHARS_MAX:
            error = InvalidQuery(f"The parameters may have at most {limits.QUERY_CHARS_MAX:,} characters.")
            refusal = await rendering.on_early_error(Request(scope), error)
            await refusal(scope, receive, send)
            return
        await self._app(scope, receive, send)


def _wrong(version: str, headers: Sequence[tuple[bytes, bytes]]) -> str:
    """What is wrong with a request; empty when nothing is."""
    hosts = [value for name, value in headers if name == b"host"]
    # The server below gives an empty one where there is none, which HTTP/1.0 lets pass.
    if len(hosts) > 1 or (version == "1.1" and hosts in ([], [b""])):
        return "A request must have one Host header, which names the server."
    codings = [value for name, value in headers if name == b"transfer-encoding"]
    if codings and b", ".join(codings).strip().lower() != b"chunked":
        shown = b", ".join(codings)[:64].decode("latin-1")
        return f"Transfer-Encoding must be chunked, is {shown!r}. Compress by Content-Encoding."
    return ""
