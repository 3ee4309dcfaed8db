"""The web page of the server: what a browser asks for."""

from starlette.routing import Route

from auditplane.http.page import assets


def routes() -> list[Route]:
    """The routes of the page."""
    return [
        Route("/static/{version}/{name:path}", assets.static_file),
        Route("/favicon.ico", assets.favicon),
    ]
