"""Who may use which route: every route with every kind of credential, against one explicit table.

The table is `routes.ROUTES`; a route that is not in it, or no more, fails here.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from auditplane.access import Access
from auditplane.access.key import new_secret
from auditplane.http.openapi import document
from routes import ANYBODY, API, PAGE, ROUTES, Served, Things, cookie, neutral, served
from server import Server
from tenants import Tenant, client, clock, event, problems_of

HEADER = "X-Bindplane-Api-Key"


@dataclass
class Caller:
    """Somebody with a credential; `role` is what he is for one kind of route, and nobody for the other."""

    headers: dict[str, str]
    api_role: str = ""
    page_role: str = ""
    csrf: str = ""


@dataclass
class Scene:
    """An account with callers of every kind."""

    things: Things
    callers: dict[str, Caller] = field(default_factory=dict)


@pytest.fixture(scope="module")
def scene(server: Server, access: Access) -> Iterator[Scene]:
    tenant = Tenant(server, access, "roles")
    made = Scene(Things(tenant, access))
    made.callers = callers(made.things, tenant, access)
    yield made
    tenant.close()


def callers(things: Things, tenant: Tenant, access: Access) -> dict[str, Caller]:
    """Everybody, with the csrf of an admin who is signed in where he has none of his own."""
    secrets = {role: tenant.key(role)[1] for role in ("reader", "writer", "admin")}
    csrf = things.admin[1].csrf
    found = {role: Caller({HEADER: secret}, api_role=role, csrf=csrf) for role, secret in secrets.items()}
    found["bearer"] = Caller({"Authorization": f"Bearer {secrets['admin']}"}, api_role="admin", csrf=csrf)
    for role, (token, session) in (("reader", things.reader), ("admin", things.admin)):
        found[f"{role}, signed in"] = Caller(cookie(token), page_role=role, csrf=session.csrf)

    revoked_id, revoked = tenant.key("admin")
    revoked_session = access.open_session(revoked)
    tenant.revoke(revoked_id)
    ended, _ = things.signed_in("admin")
    access.close_session(ended)
    _, expired = tenant.key("admin", expires_us=clock() + 200_000)
    expired_session = access.open_session(expired)
    while clock() < expired_session[1].expires_us:
        pass
    nobodies = {
        "nobody": {},
        "unknown key": {HEADER: new_secret()},
        "revoked key": {HEADER: revoked},
        "expired key": {HEADER: expired},
        "half a key": {HEADER: secrets["admin"][:-1]},
        "key as a cookie": cookie(secrets["admin"]),
        "key in a cookie of its own": {"Cookie": f"{HEADER}={secrets['admin']}"},
        "key with Basic": {"Authorization": f"Basic {secrets['admin']}"},
        "session as a key": {HEADER: things.admin[0]},
        "csrf as a key": {HEADER: csrf},
        "csrf as a cookie": cookie(csrf),
        "signed out": cookie(ended),
        "session of a revoked key": cookie(revoked_session[0]),
        "session of an expired key": cookie(expired_session[0]),
        "session under another name": {"Cookie": f"__Host-auditplane_session={things.admin[0]}"},
        "two keys": {HEADER: secrets["admin"], "Authorization": f"Bearer {new_secret()}"},
    }
    return found | {name: Caller(headers, csrf=csrf) for name, headers in nobodies.items()}


def expected(route: Served, caller: Caller) -> set[int]:
    """The statuses that a caller may get from a route."""
    role = caller.page_role if route.is_page else caller.api_role
    if route.who == ANYBODY:
        return {303} if route.path == "/sign-in" and role else {route.status}
    if role:
        return {route.status if role in route.who else 403}
    if route.is_page and not route.changes and not route.path.endswith(("/proof", "/consistency")):
        return {303}
    return {401}


def test_every_route_is_in_the_table() -> None:
    """And each of the API, with each of its methods, in the served OpenAPI."""
    assert served() == API.keys() | PAGE.keys()
    described = {
        (method.upper(), path) for path, item in document(()).get("paths", {}).items() for method in item
    }
    assert {(method, path.replace(":path}", "}")) for method, path in API} == {
        (method, path) for method, path in described if method != "HEAD"
    }


@pytest.mark.parametrize("route", ROUTES, ids=str)
def test_a_route_is_for_those_it_is_for(scene: Scene, route: Served) -> None:
    """Whatever else somebody has: all others are refused, and nothing is done for them."""
    for name, caller in scene.callers.items():
        if route.path == "/sign-out" and caller.page_role:
            continue  # it would end what the others need; test_page_sessions.py has it
        with client(scene.things.tenant.server.url, **caller.headers) as asker:
            answer = route.send(asker, scene.things, caller.csrf)
            assert answer.status_code in expected(route, caller), name
            if route.method == "GET" and route.path not in ("/sign-in/{link}", "/live"):
                head = asker.head(route.url(**route.fill(scene.things)), **route.options(scene.things))
                assert head.status_code == answer.status_code, name
        if answer.status_code == 401 and not route.is_page:
            problems_of(answer, 401)


def test_refused_keys_are_told_apart_by_nothing(scene: Scene) -> None:
    """An unknown key, half a key, a revoked and an expired one: each route gives all the same bytes."""
    names = ("unknown key", "revoked key", "expired key", "half a key", "session as a key", "csrf as a key")
    for route in API.values():
        if route.who == ANYBODY:
            continue
        answers = set()
        for name in names:
            with client(scene.things.tenant.server.url, **scene.callers[name].headers) as asker:
                answers.add(neutral(route.send(asker, scene.things)))
        assert len(answers) == 1, route
    pages = set()
    for name in ("signed out", "session of a revoked key", "session of an expired key", "csrf as a cookie"):
        with client(scene.things.tenant.server.url, **scene.callers[name].headers) as asker:
            pages.add(neutral(asker.get("/", headers={"Accept": "text/html"})))
    assert len(pages) == 1


def test_a_writer_changes_nothing_but_the_trail(scene: Scene) -> None:
    """The control of the table: what it lets a writer do works, and he sees nothing of it."""
    writer = scene.things.tenant.writer
    assert writer.post("/v1/audit-events", json=event()).status_code == 201
    assert [route.path for route in API.values() if "writer" in route.who and route.changes] == [
        "/v1/audit-events"
    ]
