"""The web page: who changed what, and when, for people.

Rendered here, in whole pages that work without JavaScript; where it runs, parts of them are asked for as they are
needed. The page has no right that the key lacks with which its reader signed in.
"""

from pathlib import Path
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from auditplane.http.page import trail, one_event


async def static(request):
    return await StaticFiles(directory=Path(__file__).parent / "static").get_response(request.path_params["name"], request.scope)


def routes() -> list[BaseRoute]:
    """The routes of the page."""
    return [
        Route("/", trail.show),
        Route("/rows", trail.rows),
        Route("/overview", trail.overview),
        Route("/suggestions", trail.suggestions),
        Route("/events/{id}", one_event.show),
        Route("/static/{name:path}", static),
    ]
