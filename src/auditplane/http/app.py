"""The application of one worker: its routes, and its life from start to shutdown."""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from auditplane import __version__
from auditplane.config import Config
from auditplane.errors import AuditplaneError
from auditplane.http import events, keys, metrics, openapi, problems
from auditplane.http.state import State
from auditplane.store.sqlite.database import has_no_room


def clock() -> int:
    """The time in microseconds since 1970."""
    return time.time_ns() // 1000


def build(config: Config) -> ASGIApp:
    """The application of a worker."""
    document = openapi.document(config.kinds_extra)

    async def health(request: Request) -> Response:
        state: State = request.state.server
        if has_no_room(state.folder.path):
            return JSONResponse({"status": "the disk is full: nothing can be recorded"}, 503)
        return JSONResponse({"status": "ok"})

    async def version(_request: Request) -> Response:
        return JSONResponse({"version": __version__})

    async def exposition(_request: Request) -> Response:
        return Response(metrics.exposition(), media_type=metrics.CONTENT_TYPE)

    async def served_openapi(_request: Request) -> Response:
        return JSONResponse(document)

    routes = [
        Route("/v1/audit-events", events.record, methods=["POST"]),
        Route("/v1/audit-events", events.list_events),
        Route("/v1/audit-events/download", events.download),
        Route("/v1/audit-events/count", events.count),
        Route("/v1/audit-events/{id}", events.get),
        Route("/v1/api-keys", keys.list_keys),
        Route("/v1/api-keys", keys.create, methods=["POST"]),
        Route("/v1/api-keys/{id}", keys.revoke, methods=["DELETE"]),
        Route("/v1/version", version),
        Route("/health", health),
        Route("/metrics", exposition),
        Route("/openapi.json", served_openapi),
    ]

    @contextlib.asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[Mapping[str, Any]]:
        state = State(config, clock)
        _cut_streams_on_sigterm(state)
        yield {"server": state}
        await state.close()

    handlers = {
        AuditplaneError: problems.on_error,
        HTTPException: problems.on_http_exception,
        Exception: problems.on_bug,
    }
    app = Starlette(routes=routes, lifespan=lifespan, exception_handlers=handlers)
    app.router.redirect_slashes = False
    return _Measured(app)


def _cut_streams_on_sigterm(state: State) -> None:
    """On SIGTERM breaks off long answers, which would hold up the server's own shutdown, then begins that.

    The server handles SIGINT as SIGTERM, so its handler is reached through the former.
    """

    def stop() -> None:
        state.streams.cut()
        os.kill(os.getpid(), signal.SIGINT)

    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop)


class _Measured:
    """Counts requests and measures the time until their answers begin."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()

        async def measured(message: Message) -> None:
            if message["type"] == "http.response.start":
                endpoint = scope.get("endpoint")
                route = endpoint.__name__ if endpoint else "none"
                metrics.count_request(route, scope["method"], message["status"], time.perf_counter() - began)
            await send(message)

        await self._app(scope, receive, measured)
