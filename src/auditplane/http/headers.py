"""What every answer tells browsers, whatever route it is of: it is no page, no script, and for no other site.

The routes of the page say more of their own (`page.rendering`), and what a route says stands. By TLS of this
server's own, browsers are told to use nothing else for the host (RFC 6797). A proxy that speaks TLS for it
has to say that itself: it alone knows.
"""

from collections.abc import Sequence
from typing import Final, TypeAlias

from starlette.types import ASGIApp, Message, Receive, Scope, Send

Headers: TypeAlias = Sequence[tuple[bytes, bytes]]

DEFAULTS: Final[Headers] = (
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
)
BY_TLS: Final = (b"strict-transport-security", b"max-age=31536000")


class WithHeaders:
    """An application whose answers have them."""

    def __init__(self, app: ASGIApp, *, hsts: bool) -> None:
        self._app, self._hsts = app, hsts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        defaults = [*DEFAULTS, BY_TLS] if self._hsts and scope["scheme"] == "https" else DEFAULTS

        async def completed(message: Message) -> None:
            if message["type"] == "http.response.start":
                given = message.get("headers", ())
                names = {name.lower() for name, _ in given}
                message["headers"] = [*given, *(pair for pair in defaults if pair[0] not in names)]
            await send(message)

        await self._app(scope, receive, completed)
