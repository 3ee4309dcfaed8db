"""The web page: the trail for people, signed in with a key of theirs.

Its routes know people by a cookie and the JSON API knows programs by a key in a header; neither takes the
other's. Every change carries the `csrf` of the session, and every answer forbids what the page does not need.
"""

from starlette.routing import Route

from auditplane.http.page import (
    assets,
    exporting,
    keys,
    live,
    one_event,
    proving,
    retention,
    signing_in,
    storage,
    trail,
)


def routes() -> list[Route]:
    """All routes of the page."""
    return [
        Route("/", trail.show),
        Route("/rows", trail.rows),
        Route("/overview", trail.overview),
        Route("/suggestions", trail.suggestions),
        Route("/relax", trail.relax),
        Route("/live", live.live),
        Route("/export", exporting.show),
        Route("/export/{form}", exporting.export),
        Route("/events/{id}", one_event.show),
        Route("/events/{id}/proof", proving.page_proof),
        Route("/log/consistency", proving.page_consistency),
        Route("/keys", keys.show),
        Route("/keys", keys.create, methods=["POST"]),
        Route("/keys/{id}/revoke", keys.ask_to_revoke),
        Route("/keys/{id}/revoke", keys.revoke, methods=["POST"]),
        Route("/keeping", retention.show),
        Route("/keeping/retention", retention.set_retention, methods=["POST"]),
        Route("/keeping/holds", retention.place_hold, methods=["POST"]),
        Route("/keeping/holds/{id}/lift", retention.ask_to_lift),
        Route("/keeping/holds/{id}/lift", retention.lift_hold, methods=["POST"]),
        Route("/storage", storage.show),
        Route("/sign-in", signing_in.show),
        Route("/sign-in", signing_in.sign_in, methods=["POST"]),
        Route("/sign-in/{link}", signing_in.follow),
        Route("/sign-out", signing_in.sign_out, methods=["POST"]),
        Route("/static/{version}/{name:path}", assets.static_file),
        Route("/favicon.ico", assets.favicon),
    ]
