"""Every route of the server: who may use it, and a request that it takes. Tests of access go through all.

`test_every_route_is_in_the_table` holds the table equal to what the application serves: who adds a route says
here who may use it, and it is attacked with all others.
"""

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, TypeAlias

import httpx2

from auditplane import config
from auditplane.access import Access
from auditplane.access.key import Role, Session
from auditplane.http.app import routes
from auditplane.http.page import assets
from auditplane.http.page.sessions import COOKIE
from tenants import Json, Tenant, event

_addresses = itertools.count()
ANYBODY: Final = frozenset({"anybody"})


class Things:
    """An account with something of each kind, of which requests can name the ids.

    What a request uses up is made anew for each.
    """

    def __init__(self, tenant: Tenant, access: Access, text: str = "something") -> None:
        self.tenant, self.access, self.text = tenant, access, text
        self.event_id = self.new_event()
        self.reader = self.signed_in("reader")
        self.admin = self.signed_in("admin")

    @property
    def account(self) -> str:
        """The name of the account."""
        return self.tenant.account

    def signed_in(self, role: str) -> tuple[str, Session]:
        """The token of a new session, and the session."""
        secret = self.tenant.key(role, description=self.text)[1]
        return self.access.open_session(secret)

    def browser(self, token: str = "", **headers: str) -> httpx2.Client:
        """One at an address of its own: who fails to sign in there keeps nobody else from it."""
        number = next(_addresses)
        address = f"127.2.{number // 250}.{number % 250 + 1}"
        return self.tenant.client(None, address=address, **{**cookie(token), **headers})

    def new_event(self) -> str:
        """The id of a new event, in each member of which the text stands."""
        text = self.text
        members = {"user": text, "action": text[:64], "resourceName": text, "configuration": f"{text}:1"}
        details = {"before": {text: text}, "after": [text], text: text}
        return self.tenant.record(event(**members, description=text, details=details))[0]

    def new_key(self) -> str:
        """The id of a new key."""
        return self.tenant.key("reader", description=self.text)[0]

    def new_hold(self) -> str:
        """The id of a new hold, of nobody's events."""
        body = {"reason": self.text, "user": f"{self.text} nobody"}
        return str(self.tenant.admin.post("/v1/holds", json=body).json()["id"])

    def new_link(self) -> str:
        """What a link that signs in ends with."""
        key = self.access.create(account=self.account, role=Role.READER, by="tests", description=self.text)[0]
        return self.access.make_link(key.id)


Make: TypeAlias = Callable[[Things], Json]


@dataclass(frozen=True)
class Served:
    """A route with one of its methods.

    `fill` gives values for the names in the path, `options` those of the request (`params`, `json`, `data`).
    `names` are further parameters that it takes.
    """

    method: str
    path: str
    who: frozenset[str]
    status: int
    fill: Make = field(default=lambda _things: {})
    options: Make = field(default=lambda _things: {})
    names: tuple[str, ...] = ()

    @property
    def is_page(self) -> bool:
        """Whether people use it, by a cookie, and not programs, by a key."""
        return (self.method, self.path) in PAGE

    @property
    def changes(self) -> bool:
        """Whether it changes something."""
        return self.method not in ("GET", "HEAD")

    def url(self, **values: str) -> str:
        """Its path with some values in it."""
        path = self.path.replace(":path}", "}")
        for name, value in values.items():
            path = path.replace(f"{{{name}}}", value)
        return path

    def send(self, asker: httpx2.Client, things: Things, csrf: str = "", **more: Any) -> httpx2.Response:
        """The answer to a request that it takes; of a stream, only the beginning."""
        options = {**self.options(things), **more}
        if "data" in options:
            options["data"] = {**options["data"], "csrf": csrf}
        with asker.stream(self.method, self.url(**self.fill(things)), **options) as answer:
            if answer.headers.get("content-type", "").startswith("text/event-stream"):
                answer._content = next(answer.iter_bytes())
            else:
                answer.read()
        return answer

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


def _params(**values: str) -> Make:
    return lambda _things: {"params": {name.replace("_", "-"): value for name, value in values.items()}}


def _form(**values: str) -> Make:
    return lambda _things: {"data": values}


def _event_id(things: Things) -> Json:
    return {"id": things.event_id}


def _account(things: Things) -> Json:
    return {"account": things.account}


def _api() -> Iterator[Served]:
    read, record = frozenset({"reader", "admin"}), frozenset({"writer", "admin"})
    manage, verify = frozenset({"admin"}), frozenset({"reader", "writer", "admin"})
    one = _params(**{"from": "1", "to": "1"})
    yield Served("GET", "/v1/audit-events", read, 200)
    yield Served("POST", "/v1/audit-events", record, 201, options=lambda _: {"json": event()})
    for name in ("download", "count", "evidence"):
        yield Served("GET", f"/v1/audit-events/{name}", read, 200)
    yield Served("GET", "/v1/audit-events/{id}", read, 200, _event_id)
    yield Served("GET", "/v1/audit-events/{id}/proof", read, 200, _event_id)
    for name in ("key", "checkpoint"):
        yield Served("GET", f"/v1/log/{{account}}/{name}", verify, 200, _account)
    yield Served("GET", "/v1/log/{account}/consistency", verify, 200, _account, one)
    yield Served("GET", "/v1/log/{account}/events", read, 200, _account)
    yield Served(
        "GET", "/v1/log/{account}/tile/{path:path}", verify, 200,
        lambda things: {"account": things.account, "path": "entries/000.p/1"},
    )  # fmt: skip
    yield Served("GET", "/v1/api-keys", manage, 200)
    yield Served("POST", "/v1/api-keys", manage, 201, options=lambda _: {"json": {"role": "writer"}})
    yield Served("DELETE", "/v1/api-keys/{id}", manage, 204, lambda things: {"id": things.new_key()})
    yield Served("GET", "/v1/retention", manage, 200)
    yield Served("PUT", "/v1/retention", manage, 200, options=lambda _: {"json": {"days": None}})
    yield Served("GET", "/v1/holds", manage, 200)
    yield Served(
        "POST", "/v1/holds", manage, 201, options=lambda _: {"json": {"reason": "x", "user": "nobody"}}
    )
    yield Served("DELETE", "/v1/holds/{id}", manage, 204, lambda things: {"id": things.new_hold()})
    yield Served(
        "POST", "/v1/erasures", manage, 200,
        options=lambda things: {"json": {"reason": "x", "ids": [things.new_event()]}},
    )  # fmt: skip
    for path in ("/v1/version", "/health", "/health/live", "/metrics", "/openapi.json"):
        yield Served("GET", path, ANYBODY, 200)


VIEW: Final = (
    "user", "configuration-name", "action", "resource-kind", "resource-name", "q", "min-date", "max-date",
    "order", "cursor", "chart",
)  # fmt: skip


def _page() -> Iterator[Served]:
    read, manage = frozenset({"reader", "admin"}), frozenset({"admin"})
    for path in ("/", "/rows", "/overview", "/relax", "/export"):
        yield Served("GET", path, read, 200, names=VIEW)
    yield Served("GET", "/suggestions", read, 200, options=_params(member="user"), names=("member", "text"))
    yield Served("GET", "/live", read, 200, options=_params(after="-1"), names=(*VIEW, "after"))
    yield Served("GET", "/export/{form}", read, 200, lambda _: {"form": "csv"}, names=VIEW)
    yield Served("GET", "/events/{id}", read, 200, _event_id, names=VIEW)
    yield Served("GET", "/events/{id}/proof", read, 200, _event_id)
    one = _params(**{"from": "1", "to": "1"})
    yield Served("GET", "/log/consistency", read, 200, options=one, names=("from", "to"))
    yield Served("GET", "/keys", manage, 200, names=("revoked",))
    yield Served("POST", "/keys", manage, 200, options=_form(role="reader", description="made", ends=""))
    new_key: Make = lambda things: {"id": things.new_key()}  # noqa: E731 - as the other makers are
    new_hold: Make = lambda things: {"id": things.new_hold()}  # noqa: E731
    yield Served("GET", "/keys/{id}/revoke", manage, 200, new_key)
    yield Served("POST", "/keys/{id}/revoke", manage, 303, new_key, _form())
    yield Served("GET", "/keeping", manage, 200, names=("done",))
    yield Served("POST", "/keeping/retention", manage, 303, options=_form(days="", confirmed="yes"))
    yield Served("POST", "/keeping/holds", manage, 303, options=_form(reason="made", user="nobody"))
    yield Served("GET", "/keeping/holds/{id}/lift", manage, 200, new_hold)
    yield Served("POST", "/keeping/holds/{id}/lift", manage, 303, new_hold, _form())
    yield Served("GET", "/storage", manage, 200)
    yield Served("GET", "/sign-in", ANYBODY, 200, names=("next",))
    yield Served(
        "POST", "/sign-in", ANYBODY, 303,
        options=lambda things: {"data": {"key": things.tenant.key("reader")[1]}},
    )  # fmt: skip
    yield Served("GET", "/sign-in/{link}", ANYBODY, 303, lambda things: {"link": things.new_link()})
    yield Served("POST", "/sign-out", ANYBODY, 303, options=_form())
    yield Served(
        "GET", "/static/{version}/{name:path}", ANYBODY, 200,
        lambda _: {"version": assets.VERSION, "name": "page.css"},
    )  # fmt: skip
    yield Served("GET", "/favicon.ico", ANYBODY, 200)


API: Final = {(each.method, each.path): each for each in _api()}
PAGE: Final = {(each.method, each.path): each for each in _page()}
ROUTES: Final = [*API.values(), *PAGE.values()]


def served() -> set[tuple[str, str]]:
    """The methods and paths of the application."""
    return {
        (method, route.path)
        for route in routes(config.load({}, {}))
        for method in route.methods or ()
        if method != "HEAD"
    }


def cookie(token: str) -> dict[str, str]:
    """The headers of a browser that is signed in."""
    return {"Cookie": f"{COOKIE}={token}"}


Neutral: TypeAlias = tuple[int, bytes, tuple[tuple[str, str], ...]]


def neutral(answer: httpx2.Response, values: Mapping[str, str] = MappingProxyType({})) -> Neutral:
    """All of an answer but the time, what was asked for by `values`, and whether the connection goes on.

    It may end where a body was not there yet when it was refused.
    """
    body = answer.content
    for name, value in values.items():
        body = body.replace(value.encode(), name.encode())
    passing = {"date", "connection"} | ({"content-length"} if body != answer.content else set())
    headers = [pair for pair in answer.headers.multi_items() if pair[0] not in passing]
    return answer.status_code, body, tuple(headers)
