"""The application of one worker: its routes, and its life from start to shutdown."""

import asyncio
import contextlib
import hmac
import signal
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from auditplane import __version__, limits
from auditplane.access.key import Key
from auditplane.config import Config, token
from auditplane.errors import AuditplaneError, NotAuthenticated
from auditplane.http import bodies, events, evidence, keys, logs, metrics, openapi, page, problems, retention
from auditplane.http.connections import Connections, break_off_all
from auditplane.http.framing import Framed
from auditplane.http.headers import WithHeaders
from auditplane.http.lines import Lines, standard_error
from auditplane.http.page import rendering
from auditplane.http.state import CALLER, State
from auditplane.http.turnstile import Turnstile
from auditplane.log import clock
from auditplane.times import format_us

FLUSH_SECONDS: Final = 0.3
WITHOUT_A_TURN: Final = {("POST", events.LIST_PATH), ("GET", "/health"), ("GET", "/health/live")}


def routes(config: Config) -> Sequence[Route]:
    """Everything that is served."""
    document = msgspec.json.encode(openapi.document(config.kinds_extra))
    metrics_token = token(config.metrics_token)

    async def health(request: Request) -> Response:
        state: State = request.state.server
        trouble = await state.health.trouble()
        return JSONResponse({"status": trouble or "ok"}, 503 if trouble else 200)

    async def alive(_request: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def version(_request: Request) -> Response:
        return JSONResponse({"version": __version__})

    async def exposition(request: Request) -> Response:
        state: State = request.state.server
        _check_token(request, metrics_token)
        metrics.HEALTHY.set(not await state.health.trouble())
        return Response(await state.exposition(), media_type=metrics.CONTENT_TYPE)

    async def served_openapi(_request: Request) -> Response:
        return Response(document, media_type=problems.JSON)

    return [
        Route("/v1/audit-events", events.record, methods=["POST"]),
        Route("/v1/audit-events", events.list_events),
        Route("/v1/audit-events/download", events.download),
        Route("/v1/audit-events/count", events.count),
        Route("/v1/audit-events/evidence", evidence.evidence),
        Route("/v1/audit-events/{id}", events.get),
        Route("/v1/audit-events/{id}/proof", logs.proof),
        Route("/v1/log/{account}/key", logs.key),
        Route("/v1/log/{account}/checkpoint", logs.checkpoint),
        Route("/v1/log/{account}/consistency", logs.consistency),
        Route("/v1/log/{account}/events", logs.events),
        Route("/v1/log/{account}/tile/{path:path}", logs.tile),
        Route("/v1/api-keys", keys.list_keys),
        Route("/v1/api-keys", keys.create, methods=["POST"]),
        Route("/v1/api-keys/{id}", keys.revoke, methods=["DELETE"]),
        Route("/v1/retention", retention.show_retention),
        Route("/v1/retention", retention.set_retention, methods=["PUT"]),
        Route("/v1/holds", retention.list_holds),
        Route("/v1/holds", retention.place_hold, methods=["POST"]),
        Route("/v1/holds/{id}", retention.lift_hold, methods=["DELETE"]),
        Route("/v1/erasures", retention.erase, methods=["POST"]),
        Route("/v1/version", version),
        Route("/health", health),
        Route("/health/live", alive),
        Route("/metrics", exposition),
        Route("/openapi.json", served_openapi),
        *page.routes(),
    ]


def build(config: Config) -> ASGIApp:
    """The application of a worker."""
    served = routes(config)

    @contextlib.asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[Mapping[str, Any]]:
        state = State(config, clock, turnstile, lambda: measured.under_way)
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, _stop, state, measured)
        watch = asyncio.create_task(connections.watch())
        yield {"server": state}
        watch.cancel()
        await state.close()
        standard_error().flush()

    handlers = {
        AuditplaneError: problems.on_error,
        HTTPException: rendering.on_http_exception,
        Exception: problems.on_bug,
    }
    app = Starlette(routes=served, lifespan=lifespan, exception_handlers=handlers)
    app.router.redirect_slashes = False
    lines = standard_error() if config.log_requests else None
    guarded = WithHeaders(Framed(app), hsts=config.tls_hsts)
    paths = {route.endpoint: route.path for route in served}
    connections = Connections(config.port, config.connections, config.idle_seconds, config.stall_seconds)
    turnstile = Turnstile()
    measured = _Measured(guarded, paths, lines, connections, turnstile)
    return measured


def _check_token(request: Request, wanted: str | None) -> None:
    """Raises NotAuthenticated for who lacks the token of the metrics, where there is one."""
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    if wanted is not None and not (
        scheme.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), wanted.encode())
    ):
        raise NotAuthenticated(
            "The token in the file of the setting metrics.token is needed: send it as Authorization: Bearer."
        )


def _stop(state: State, measured: "_Measured") -> None:
    """On SIGTERM: breaks off long answers, and begins the server's own shutdown.

    That is what the server does on SIGINT, which is blocked, as a terminal sends it to all processes.
    """
    state.streams.cut()
    measured.draining = asyncio.get_running_loop().create_task(_drain(state, measured))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    signal.raise_signal(signal.SIGINT)


async def _drain(state: State, measured: "_Measured") -> None:
    """Breaks off what is still connected once all requests are answered, or the time for that is over.

    The server itself would wait for requests that were sent by half, and for readers that stopped reading.
    """
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(limits.DRAIN_SECONDS_MAX):
            await measured.idle.wait()
    await asyncio.sleep(FLUSH_SECONDS)
    break_off_all(state.config.port)


class _Measured:
    """Counts requests, measures the time until their answers begin, and logs them at their end.

    Those that record begin at once, as does who asks whether the server is well; all others in their turns.
    """

    def __init__(
        self,
        app: ASGIApp,
        paths: Mapping[Any, str],
        lines: Lines | None,
        connections: Connections,
        turnstile: Turnstile,
    ) -> None:
        self._app, self._paths, self._lines = app, paths, lines
        self._connections, self._turnstile = connections, turnstile
        self.idle = asyncio.Event()
        self.idle.set()
        self.under_way = 0
        self.draining: asyncio.Task[None] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        status = sent_bytes = 0
        is_whole = False
        has_body = scope["method"] != "HEAD"  # the server below drops what is sent all the same

        async def measured(message: Message) -> None:
            nonlocal status, sent_bytes, is_whole
            if message["type"] == "http.response.start":
                status = message["status"]
                if status >= HTTPStatus.BAD_REQUEST:
                    await bodies.read_on(scope, receive)
                metrics.count_request(
                    self._route(scope), scope["method"], status, time.perf_counter() - began
                )
            elif has_body:
                sent_bytes += len(message.get("body", b""))
            is_whole = message["type"] == "http.response.body" and not message.get("more_body", False)
            await send(message)

        self.under_way += 1
        self.idle.clear()
        self._connections.begin(scope["client"])
        try:
            if (scope["method"], scope["path"]) in WITHOUT_A_TURN:
                self._turnstile.go_by()
            else:
                await self._turnstile.turn()
            await self._app(scope, receive, measured)
        finally:
            self._connections.end(scope["client"])
            bodies.let_go(scope)
            self.under_way -= 1
            if not self.under_way:
                self.idle.set()
            if self._lines is not None:
                seconds = time.perf_counter() - began
                self._lines.add_request(self._told(scope, status, sent_bytes, is_whole, seconds))

    def _route(self, scope: Scope) -> str:
        """The route as the API names it: a path may hold what is nobody's business."""
        return self._paths.get(scope.get("endpoint"), "none")

    def _told(
        self, scope: Scope, status: int, sent_bytes: int, is_whole: bool, seconds: float
    ) -> Mapping[str, Any]:
        """What is logged of a request; a query may hold what is nobody's business, too."""
        key: Key | None = scope.get(CALLER)
        return {
            "time": format_us(clock()),
            "level": "info",
            "message": "request",
            "method": metrics.known_method(scope["method"]),
            "route": self._route(scope),
            "status": status,
            "seconds": round(seconds, 6),
            "bytes": sent_bytes,
            "whole": is_whole,
            "client": scope["client"][0],
            **({} if key is None else {"key": key.id, "account": key.account}),
        }
