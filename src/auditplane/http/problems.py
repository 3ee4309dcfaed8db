"""Exceptions to answers: one status table, found by ancestry, and the contract's error body."""

import logging
import re
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Final

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match

from auditplane import errors
from auditplane.http import metrics

STATUS: Final[Mapping[type[errors.AuditplaneError], HTTPStatus]] = {
    errors.InvalidInput: HTTPStatus.BAD_REQUEST,
    errors.NotAuthenticated: HTTPStatus.UNAUTHORIZED,
    errors.Forbidden: HTTPStatus.FORBIDDEN,
    errors.TooManyRequests: HTTPStatus.TOO_MANY_REQUESTS,
    errors.NotFound: HTTPStatus.NOT_FOUND,
    errors.Gone: HTTPStatus.GONE,
    errors.MethodNotAllowed: HTTPStatus.METHOD_NOT_ALLOWED,
    errors.NotAcceptable: HTTPStatus.NOT_ACCEPTABLE,
    errors.RequestTimeout: HTTPStatus.REQUEST_TIMEOUT,
    errors.Conflict: HTTPStatus.CONFLICT,
    errors.Unconfirmed: HTTPStatus.CONFLICT,
    errors.TooLarge: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    errors.UnsupportedMedia: HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    errors.Unavailable: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.StorageFull: HTTPStatus.INSUFFICIENT_STORAGE,
    errors.AuditplaneError: HTTPStatus.INTERNAL_SERVER_ERROR,
}
RETRY_AFTER_SECONDS: Final = 1
CHALLENGE: Final[Mapping[str, str]] = {"WWW-Authenticate": 'Bearer realm="auditplane"'}
DOWNLOAD_PATH: Final = "/v1/audit-events/download"
BUG_MESSAGE: Final = "The server failed on this request; its log says why."
METHOD_CHARS_SHOWN: Final = 32
OCTETS: Final = "application/octet-stream"
JSON: Final = "application/json"
_FOLDERS: Final = re.compile(r"(?<![^\s'\"])/\S*/(?=\S)")

_log = logging.getLogger(__name__)


def status_of(error: errors.AuditplaneError) -> HTTPStatus:
    """The status of the nearest ancestor in the table."""
    return next(STATUS[kind] for kind in type(error).__mro__ if kind in STATUS)


async def on_error(request: Request, error: Exception) -> Response:
    """The answer to one of our own errors."""
    assert isinstance(error, errors.AuditplaneError)  # noqa: S101 - what it is registered for
    log_failure(request, error)
    return problem(request, status_of(error), told(error), advice(error))


def told(error: errors.AuditplaneError) -> Sequence[str]:
    """The sentences of an error for a caller. Where the server's files lie is for its log."""
    return [_FOLDERS.sub("…/", message) if is_own(error) else message for message in error.messages]


def is_own(error: errors.AuditplaneError) -> bool:
    """Whether it is the server that failed."""
    return status_of(error) >= HTTPStatus.INTERNAL_SERVER_ERROR


def advice(error: errors.AuditplaneError) -> Mapping[str, str]:
    """The headers that say what the caller can do: show a key, or try again later."""
    if isinstance(error, errors.TooManyRequests):
        return {"Retry-After": str(error.retry_after_seconds)}
    match status_of(error):
        case HTTPStatus.UNAUTHORIZED:
            return CHALLENGE
        case HTTPStatus.SERVICE_UNAVAILABLE | HTTPStatus.INSUFFICIENT_STORAGE:
            return {"Retry-After": str(RETRY_AFTER_SECONDS)}
    return {}


def log_failure(request: Request, error: errors.AuditplaneError) -> None:
    """Counts an error that is the server's own, and logs it unless it only has too much to do."""
    if is_own(error):
        metrics.count_failure(error)
    if is_own(error) and not isinstance(error, errors.Unavailable):
        _log.error("%s %s: %d, %s", request.method, _route(request), status_of(error), error)


def log_bug(request: Request, error: Exception) -> None:
    """Logs and counts what should not have happened."""
    metrics.count_failure(error)
    _log.error("%s %s failed", request.method, _route(request), exc_info=error)


def _route(request: Request) -> str:
    """The route as the API names it: a path may hold what is nobody's business."""
    endpoint = request.scope.get("endpoint")
    routes = request.app.routes if endpoint else ()
    return next((route.path for route in routes if route.endpoint is endpoint), "none")


async def on_http_exception(request: Request, error: Exception) -> Response:
    """The answer to what Starlette refuses: unknown paths and methods."""
    assert isinstance(error, HTTPException)  # noqa: S101 - what it is registered for
    status = HTTPStatus(error.status_code)
    headers = dict(error.headers or {})
    if status == HTTPStatus.NOT_FOUND:
        message = "There is nothing at this path; /openapi.json lists what there is."
    elif status == HTTPStatus.METHOD_NOT_ALLOWED:
        headers["Allow"] = methods(request)
        method = errors.without_keys(request.method)[:METHOD_CHARS_SHOWN]
        message = f"{method} can't be used here; these can: {headers['Allow']}."
    else:
        message = error.detail
    return problem(request, status, [message], headers)


def methods(request: Request) -> str:
    """The methods of all routes of a path."""
    routes = request.app.routes
    found = [route.methods for route in routes if route.matches(request.scope)[0] is not Match.NONE]
    return ", ".join(sorted(set().union(*found)))


async def on_bug(request: Request, error: Exception) -> Response:
    """The answer to what should not have happened; it tells the caller nothing of the inside."""
    log_bug(request, error)
    return problem(request, HTTPStatus.INTERNAL_SERVER_ERROR, [BUG_MESSAGE])


def problem(
    request: Request, status: HTTPStatus, messages: Sequence[str], headers: Mapping[str, str] | None = None
) -> Response:
    """An error answer in the contract's form.

    The errors of the download carry the content type that the contract gives them, unless the caller asks
    for JSON.
    """
    wants_json = JSON in request.headers.get("accept", "")
    media = OCTETS if request.scope["path"] == DOWNLOAD_PATH and not wants_json else JSON
    body = msgspec.json.encode({"errors": messages})
    return Response(body, status, {**(headers or {}), "Cache-Control": "no-store"}, media)
