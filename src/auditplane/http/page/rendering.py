"""Stand-in."""
from collections.abc import Awaitable, Callable
from functools import wraps
from typing import Any
import jinja2
from starlette.requests import Request
from starlette.responses import Response
from auditplane.errors import AuditplaneError
from auditplane.http import problems

ENV = jinja2.Environment(loader=jinja2.PackageLoader("auditplane.http.page"), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
ENV.globals["asset"] = lambda name: f"/static/{name}"
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; font-src 'self'; manifest-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}

def html(request: Request, template: str, status: int = 200, **values: Any) -> Response:
    return Response(ENV.get_template(template).render(request=request, **values), status, HEADERS, "text/html; charset=utf-8")

def page_route(handler):
    @wraps(handler)
    async def handled(request):
        try:
            return await handler(request)
        except AuditplaneError as error:
            return html(request, "error.html", problems.status_of(error), messages=error.messages, status=problems.status_of(error))
    return handled

from auditplane.access import Right
from auditplane.http.page import texts
from auditplane.times import format_us
ENV.globals.update(MANAGE=Right.MANAGE, format_us=format_us, tone=texts.tone, length_of=texts.length, url_of=texts.trail_url)
