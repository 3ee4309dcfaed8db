"""The routes by which people sign in, with a key or by a link, and out."""

from contextlib import suppress
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from auditplane.errors import AuditplaneError, Forbidden, NotAuthenticated, TooManyAttempts
from auditplane.http import problems
from auditplane.http.events import parameters
from auditplane.http.page import forms, paths, sessions
from auditplane.http.page.rendering import html, page_route, redirect
from auditplane.http.state import NOBODY, State

_REFUSALS: Final = (NotAuthenticated, Forbidden, TooManyAttempts)


@page_route
async def show(request: Request) -> Response:
    """`GET /sign-in`: the form; who is signed in is sent on."""
    then = paths.local(dict(parameters(request)).get("next", paths.HOME))
    with suppress(NotAuthenticated):
        sessions.session(request)
        return redirect(then)
    return await _form(request, then)


@page_route
async def sign_in(request: Request) -> Response:
    """`POST /sign-in`: with the fields `key` and `next`; the form again when that fails."""
    state: State = request.state.server
    then = paths.HOME
    try:
        sessions.check_origin(request)
        fields = await forms.read(request)
        then = paths.local(fields.get("next", paths.HOME))
        secret = fields.get("key", "").strip()
        if not secret:
            raise NotAuthenticated("Give an API key.")
        address = _address(request)
        token, _ = await state.streams.run(NOBODY, lambda: state.access.open_session(secret, address=address))
    except _REFUSALS as error:
        return await _form(request, then, error)
    return await _signed_in(request, token, redirect(then))


@page_route
async def follow(request: Request) -> Response:
    """`GET /sign-in/{link}`: signs in, once."""
    state: State = request.state.server
    if request.method == "HEAD" or "prefetch" in request.headers.get("sec-purpose", ""):
        raise Forbidden("A link signs in once it is opened.")  # to look ahead would use it up
    link, address = request.path_params["link"], _address(request)
    try:
        token, _ = await state.streams.run(NOBODY, lambda: state.access.follow_link(link, address=address))
    except _REFUSALS as error:
        return await _form(request, paths.HOME, error)
    return await _signed_in(request, token, redirect(paths.HOME, {"Referrer-Policy": "no-referrer"}))


@page_route
async def sign_out(request: Request) -> Response:
    """`POST /sign-out`: ends the session; who is not signed in is out already."""
    state: State = request.state.server
    sessions.check_origin(request)
    answer = redirect(paths.SIGN_IN)
    with suppress(NotAuthenticated):
        session, token = sessions.session(request, is_counted=False), sessions.token(request)
        fields = await forms.read(request)
        sessions.check_csrf(request, session, fields.get(sessions.CSRF_FIELD, ""))
        await state.streams.run(NOBODY, lambda: state.access.close_session(token))
    sessions.drop(request, answer)
    return answer


async def _signed_in(request: Request, token: str, answer: Response) -> Response:
    """An answer that signs in; the session that the browser had until now is over."""
    state: State = request.state.server
    with suppress(NotAuthenticated):
        former = sessions.token(request)
        state.access.session(former)
        await state.streams.run(NOBODY, lambda: state.access.close_session(former))
    sessions.keep(request, answer, token)
    return answer


async def _form(request: Request, then: str, error: AuditplaneError | None = None) -> Response:
    """The form to sign in, with what was wrong."""
    if error is None:
        return await html(request, "sign_in.html", next=then, message="")
    return await html(
        request,
        "sign_in.html",
        problems.status_of(error),
        headers=problems.advice(error),
        next=then,
        message=str(error),
    )


def _address(request: Request) -> str:
    """Where a request comes from. What proxies tell of that is not believed: anybody may say it."""
    return request.client.host if request.client else ""
