"""Accounts: whatever a key or a session of one asks for, nothing of another ever shows or changes.

The attacks are made of the table of all routes (`routes.ROUTES`, which a test holds complete) and of the
parameters in the served OpenAPI, so that what is new is attacked too.
"""

import io
import itertools
import random
import re
import zipfile
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import httpx2
import pytest

from auditplane.access import Access
from auditplane.query import Cursor, Order, Query, encode_cursor
from routes import API, ROUTES, Served, Things, neutral
from server import Server, start
from tenants import (
    COUNT,
    DOWNLOAD,
    EVENTS,
    EVIDENCE,
    KEYS,
    Json,
    Tenant,
    client,
    event,
    events_of,
    ids,
    new_tenant,
    opened,
    problems_of,
    recorded,
)

CANARY = "canary7f3a"  # Stands in everything of the neighbour, and in no request.
ULID = "01JQ00000000000000000000AB"


class Neighbour:
    """An account of which an attacker knows names, a key's id, cursors, and the first id of an event.

    Of other events, keys and holds he knows nothing; CANARY stands in each member of them.
    """

    def __init__(self, tenant: Tenant, access: Access) -> None:
        self.tenant = tenant
        self.things = Things(tenant, access, CANARY)
        self.user, self.configuration, self.name = "victim@example.com", "vault:3", "victim-source"
        self.ids = tenant.record(
            *(
                event(
                    user=self.user,
                    configuration=self.configuration,
                    resourceName=self.name,
                    description=f"moved {CANARY}",
                    details={"a": CANARY},
                )
                for _ in range(30)
            )
        )
        self.hidden = [self.things.new_event() for _ in range(3)]
        self.hold, self.key_id = self.things.new_hold(), self.things.new_key()
        self.secret = tenant.key("reader", description=CANARY)[1]
        self.link = self.things.new_link()
        self.cursors = [self._cursor(order) for order in ("desc", "asc", "recorded")]

    def _cursor(self, order: str) -> str:
        page = self.tenant.admin.get(EVENTS, params={"limit": 3, "order": order})
        return str(httpx2.URL(page.links["next"]["url"]).params["cursor"])

    def state(self) -> Json:
        """All that others must not change."""
        admin = self.tenant.admin
        return {
            "events": events_of(admin.get(EVENTS)),
            "keys": without_use(admin.get(KEYS).json()["apiKeys"]),
            "retention": admin.get("/v1/retention").json(),
            "holds": admin.get("/v1/holds").json(),
        }

    def shows_in(self, answer: httpx2.Response) -> bool:
        """Whether an answer holds anything that the attacker did not know."""
        text = f"{text_of(answer)}{answer.headers}"
        return CANARY in text or any(made in text for made in [*self.ids[1:], *self.hidden])


def without_use(keys: list[Json]) -> list[Json]:
    return [{name: value for name, value in key.items() if name != "lastUsed"} for key in keys]


def hostile_values(victim: Neighbour) -> list[str]:
    """What an attacker who knows the neighbour puts into parameters."""
    account = victim.tenant.account
    return [
        victim.user, victim.configuration, "vault", victim.name, victim.ids[0], victim.key_id, account,
        victim.hold,
        "default",
        f"../{account}", f"{account}.db", f"{account}' OR '1'='1", "*", "%", "", "-1", "0", "10000",
        "recorded",
        "Modified", "Source", "19700101", "99991231", "true", "moved", *victim.cursors,
        victim.secret[3:], victim.things.admin[1].csrf, "1", "2",
    ]  # fmt: skip


def header_sets(victim: Neighbour) -> list[dict[str, str]]:
    account = victim.tenant.account
    return [
        {}, {"X-Bindplane-Account-ID": account}, {"X-Account": account, "X-Forwarded-User": victim.user},
        {"Accept": "text/csv"}, {"Accept": "application/x-ndjson", "Accept-Encoding": "zstd"},
        {"Host": f"{account}.example.com"}, {"X-Original-URL": f"{EVENTS}?account={account}"},
        {"X-HTTP-Method-Override": "DELETE"}, {"Authorization": f"Bearer {victim.key_id}"},
        {"If-None-Match": "*", "If-Modified-Since": "Sat, 01 Jan 2050 00:00:00 GMT"},
        {"Range": "bytes=0-9999", "If-Range": "*"}, {"X-CSRF-Token": victim.things.admin[1].csrf},
        {"HX-Request": "true", "HX-Current-URL": f"/?q={account}"},
        {"Last-Event-ID": "0", "Accept": "text/event-stream"},
    ]  # fmt: skip


def bodies(victim: Neighbour) -> list[Any]:
    account = victim.tenant.account
    return [
        None, event(id=victim.ids[0]), event(account=account), [event(), event(account=account)],
        {"role": "admin"}, {"role": "admin", "account": account}, {"role": "reader", "description": account},
        {"days": 1}, {"days": 1, "account": account}, {"reason": account, "user": victim.user},
        {"reason": account, "ids": victim.ids[:1]}, {"reason": "x", "user": victim.user, "account": account},
    ]  # fmt: skip


def forms(victim: Neighbour, csrf: str) -> list[Json]:
    """What an attacker sends to the forms of the page, with his own `csrf` or that of the neighbour."""
    own = {"csrf": csrf, "account": victim.tenant.account}
    return [
        own, {**own, "csrf": victim.things.admin[1].csrf}, {**own, "days": "1", "confirmed": "yes"},
        {**own, "role": "admin", "description": "x", "ends": ""}, {**own, "key": victim.key_id, "next": "/"},
        {**own, "reason": "x", "user": victim.user, "id": victim.hold}, {**own, "id": victim.key_id},
    ]  # fmt: skip


def parameters(server: Server) -> dict[tuple[str, str], list[str]]:
    """The query parameters of each operation, as the OpenAPI document that is served has them."""
    with client(server.url) as anybody:
        document = anybody.get("/openapi.json").json()
    return {
        (method.upper(), path): [each["name"] for each in operation["parameters"] if each["in"] == "query"]
        for path, item in document["paths"].items()
        for method, operation in item.items()
    }


def filled(route: Served, victim: Neighbour, values: list[str]) -> list[str]:
    """The path with each of some values as the id, or with the neighbour's account and others."""
    account = victim.tenant.account
    names = re.findall(r"\{(\w+)", route.path)
    if "account" in names:
        accounts = [account, "default", f"default%2f..%2f{account}", f"{account}%00", account.upper()]
        return [route.url(account=each, path="entries/000.p/1") for each in accounts]
    if names:
        known = {"form": "csv", "version": "x", "name": "page.css"}
        return [
            route.url(**{name: known.get(name, quote(value, safe="")) for name in names}) for value in values
        ]
    return [route.path]


def requests(server: Server, victim: Neighbour, csrf: str) -> Iterator[tuple[Served, str, Json]]:
    """Every parameter with every value, every id in every path, under every set of headers; then mixtures."""
    chosen = random.Random(17)
    values, headers = hostile_values(victim), header_sets(victim)
    described = parameters(server)
    for route in ROUTES:
        paths = filled(route, victim, values)
        names = [*described.get((route.method, route.url()), []), *route.names]
        sent: list[Json] = [{}]
        if route.method in ("POST", "PUT"):
            sent = [{"json": body} for body in bodies(victim)]
        if route.is_page and route.changes:
            sent = [{"data": form} for form in forms(victim, csrf)]
        some = headers if len(sent) == 1 else chosen.sample(headers, 7)
        for url, header, body in itertools.product(paths[:2], some, sent):
            yield route, url, {"headers": header, **body}
        for url in paths:
            yield route, url, {"headers": chosen.choice(headers), **chosen.choice(sent)}
        # The page reads the same view on many routes.
        tried = chosen.sample(values, 9) if route.is_page else values
        for url, name, value in itertools.product(paths[:1], [*names, "account", "account-id"], tried):
            yield route, url, {"params": {name: value}, "headers": chosen.choice(headers)}
        for _ in range(20 if names else 0):
            picked = chosen.sample(names, min(len(names), 3))
            query = {name: chosen.choice(values) for name in picked}
            yield route, chosen.choice(paths), {"params": query, "headers": chosen.choice(headers)}


def text_of(answer: httpx2.Response) -> str:
    """The text of an answer; that of all its members when it is a zip."""
    if answer.headers.get("Content-Type") != "application/zip" or not answer.content:
        return answer.text
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        return "".join(archive.read(name).decode("latin-1") for name in archive.namelist())


def asked(attacker: httpx2.Client, method: str, path: str, options: Json) -> httpx2.Response:
    """The answer; of a stream of events, what comes at once."""
    with attacker.stream(method, path, **options) as answer:
        if answer.headers.get("Content-Type", "").startswith("text/event-stream"):
            parts = answer.iter_bytes()
            answer._content = next(parts) + next(parts)
        else:
            answer.read()
    return answer


@pytest.fixture
def victim(neighbour: Tenant, access: Access) -> Neighbour:
    return Neighbour(neighbour, access)


def test_nothing_of_another_account_shows_or_changes(
    tenant: Tenant, access: Access, victim: Neighbour
) -> None:
    """Over every route, method, parameter, header, cursor and id, with keys and sessions of each role."""
    tenant.record(*(event(user="attacker") for _ in range(20)))
    own = Things(tenant, access)
    before = victim.state()
    keys = [
        tenant.admin,
        tenant.reader,
        tenant.writer,
        tenant.client(tenant.key("reader", envelope=True)[1]),
    ]
    people = [own.browser(token) for token in (own.admin[0], own.reader[0])]
    strangers = [own.browser(token) for token in ("x", own.admin[0]) for _ in range(20)]
    chosen = random.Random(23)
    answered = dict.fromkeys(range(200, 600), 0)
    for route, path, options in requests(tenant.server, victim, own.admin[1].csrf):
        if route.path in ("/sign-out", "/live"):
            continue  # these have tests of their own, as they end or never end
        attackers = keys if not route.is_page else strangers if "sign-in" in route.path else people
        attacker = attackers[0] if chosen.random() < 0.6 else chosen.choice(attackers)
        answer = asked(attacker, route.method, path, options)
        assert answer.status_code < 500, (route, path, options)
        assert not victim.shows_in(answer), (route, path, options)
        assert "Set-Cookie" not in answer.headers or route.path.startswith("/sign-in"), (route, path)
        answered[answer.status_code] += 1
    assert all(answered[status] > 9 for status in (200, 201, 303, 400, 403, 404)), answered
    assert victim.state() == before
    assert victim.tenant.client(victim.secret).get(EVENTS).status_code == 200
    assert access.session(victim.things.admin[0]).key.account == victim.tenant.account
    assert access.follow_link(victim.link)[1].key.account == victim.tenant.account


@pytest.mark.parametrize("route", [each for each in ROUTES if "{" in each.path], ids=str)
def test_what_another_account_has_is_as_what_nobody_has(
    tenant: Tenant, access: Access, victim: Neighbour, route: Served
) -> None:
    """An id or an account that is there and not the caller's gets, byte for byte, what one gets that is not
    there at all."""
    own = Things(tenant, access)
    there = {"id": victim.ids[0], "account": victim.tenant.account}
    if "keys" in route.path:
        there["id"] = victim.key_id
    if "holds" in route.path:
        there["id"] = victim.hold
    nowhere = {"id": ULID, "account": "nobody-has-this"}
    names = [name for name in re.findall(r"\{(\w+)", route.path) if name in there]
    if not names:
        return  # a file, a form of an export or a link is of no account
    callers = (
        [own.browser(token) for token in (own.admin[0], own.reader[0])]
        if route.is_page
        else [tenant.admin, tenant.reader, tenant.writer]
    )
    for caller, accept in itertools.product(callers, ("*/*", "text/html", "application/json")):
        answers = []
        for values in (there, nowhere):
            fill = {"path": "entries/000.p/1", **{name: values[name] for name in names}}
            options = {**route.options(own), "headers": {"Accept": accept}}
            if route.is_page and route.changes:
                options["data"] = {"csrf": own.admin[1].csrf}
            answer = caller.request(route.method, route.url(**fill), **options)
            answers.append(neutral(answer, values))
        assert answers[0] == answers[1]
        assert answers[0][0] in (403, 404, 406)


def test_an_account_in_a_body_is_as_one_that_is_not_there(tenant: Tenant, victim: Neighbour) -> None:
    """Whether such an account exists is told by nobody, whatever names it."""
    for path, body in (
        (EVENTS, event(account="NAME")), (KEYS, {"role": "reader", "account": "NAME"}),
        ("/v1/holds", {"reason": "x", "account": "NAME"}),
        ("/v1/erasures", {"reason": "x", "account": "NAME"}),
    ):  # fmt: skip
        answers = [
            neutral(tenant.admin.post(path, json={**body, "account": name}), {"account": name})
            for name in (victim.tenant.account, "nobody-has-this")
        ]
        assert answers[0] == answers[1]
    for route in API.values():
        if not route.who & {"admin"}:
            continue
        answers = []
        for name in (victim.tenant.account, "nobody-has-this"):
            headers = {"X-Bindplane-Account-ID": name}
            url = route.url(id=ULID, account=tenant.account, path="entries/000.p/1")
            answers.append(
                neutral(tenant.admin.request(route.method, url, headers=headers), {"account": name})
            )
        assert answers[0] == answers[1]
        assert answers[0][0] == 403


def test_the_stream_of_new_events_tells_of_none_of_another_account(
    tenant: Tenant, access: Access, victim: Neighbour
) -> None:
    """Wherever it is to begin."""
    own = Things(tenant, access)
    tenant.record(*(event() for _ in range(5)))
    for after in ("-1", "0", "3"):
        person = own.browser(own.reader[0])
        answer = asked(person, "GET", "/live", {"params": {"after": after, "user": ""}})
        assert b"event: news" in answer.content or b"event: at" in answer.content
        assert not victim.shows_in(answer)


def test_what_a_cache_keeps_is_of_one_account(tenant: Tenant) -> None:
    """Nothing may be kept but tiles, which differ by key, and files that hold nothing of any account."""
    tenant.record(*(event() for _ in range(3)))
    for route in API.values():
        if route.method != "GET" or "{id}" in route.path:
            continue
        url = route.url(account=tenant.account, path="entries/000.p/1")
        answer = tenant.admin.get(url, params={"from": 1, "to": 1} if "consistency" in url else {})
        assert answer.status_code == 200
        assert "ETag" not in answer.headers
        if "/tile/" in url:
            assert answer.headers["Cache-Control"].startswith("private")
            assert {"Authorization", "X-Bindplane-Api-Key"} <= set(answer.headers["Vary"].split(", "))
        else:
            assert answer.headers["Cache-Control"] == "no-store"


def test_a_public_log_shows_commitments_and_nothing_else(tmp_path_factory: pytest.TempPathFactory) -> None:
    """With `log.public`, to anybody and to keys of other accounts; the events stay with their account."""
    data = tmp_path_factory.mktemp("public") / "data"
    with start(data, env={"AUDITPLANE_LOG_PUBLIC": "true"}) as server:
        for access in opened(data):
            for tenant, other in zip(new_tenant(server, access), new_tenant(server, access), strict=True):
                victim = Neighbour(other, access)
                for asker in (tenant.client(None), tenant.admin, tenant.reader):
                    for route in API.values():
                        if "{account}" not in route.path:
                            continue
                        url = route.url(account=other.account, path="entries/000.p/20")
                        sizes = {"from": 1, "to": 20} if "consistency" in url else {}
                        answer = asker.get(url, params=sizes)
                        closed = 401 if asker is not tenant.admin and asker is not tenant.reader else 404
                        assert answer.status_code == (closed if url.endswith("/events") else 200)
                        assert not victim.shows_in(answer)
                        nowhere = asker.get(url.replace(other.account, "nobody-has-this"), params=sizes)
                        assert nowhere.status_code == (closed if url.endswith("/events") else 404)
                        for path in (
                            f"..%2f{other.account}",
                            f"{other.account}.db",
                            "..",
                            "%2e%2e%2faccounts",
                        ):
                            assert asker.get(url.replace(other.account, path)).status_code in (401, 404)


def test_an_id_of_another_account_is_unknown_and_free(tenant: Tenant, neighbour: Tenant) -> None:
    """Neither its content nor that it is taken can be found out."""
    (taken,) = neighbour.record(event(user="b"))
    problems_of(tenant.reader.get(f"{EVENTS}/{taken}"), 404)
    assert recorded(tenant.writer.post(EVENTS, json=event(id=taken, user="a"))) == [taken]
    assert tenant.reader.get(f"{EVENTS}/{taken}").json()["user"] == "a"
    assert neighbour.reader.get(f"{EVENTS}/{taken}").json()["user"] == "b"


def test_what_others_record_changes_no_answer(tenant: Tenant, neighbour: Tenant) -> None:
    """Neither sizes nor counts nor the next timestamps tell of other accounts."""
    tenant.record(*(event() for _ in range(5)))
    reader = tenant.reader

    def answers() -> list[Any]:
        listed = reader.get(EVENTS)
        download = reader.get(DOWNLOAD)
        evidence = reader.get(EVIDENCE)
        with zipfile.ZipFile(io.BytesIO(evidence.content)) as archive:
            members = [archive.read(name) for name in ("events.ndjson", "proof", "checkpoint")]
        return [
            *members, listed.content, listed.headers["Auditplane-Log-Size"], download.content,
            reader.get(COUNT).content, reader.get(EVENTS, params={"limit": 2}).links,
        ]  # fmt: skip

    before = answers()
    neighbour.record(*(event() for _ in range(50)))
    assert answers() == before


def test_a_cursor_of_another_account_is_refused(tenant: Tenant, neighbour: Tenant) -> None:
    """In each order; and a forged one shows nothing but the own account."""
    for each in (tenant, neighbour):
        each.record(*(event(user="same") for _ in range(20)))
    for order in ("desc", "asc", "recorded"):
        query = {"order": order, "limit": 3, "user": "same"}
        page = neighbour.reader.get(EVENTS, params=query)
        problems_of(tenant.reader.get(page.links["next"]["url"]), 400)
        own = tenant.reader.get(tenant.reader.get(EVENTS, params=query).links["next"]["url"])
        assert {doc["account"] for doc in events_of(own)} == {tenant.account}


def test_a_forged_cursor_is_a_cursor_of_the_own_account_at_most(tenant: Tenant, neighbour: Tenant) -> None:
    """Its digest is no secret: whoever knows how cursors are made can make one, and gains nothing."""
    made = tenant.record(*(event() for _ in range(20)))
    neighbour.record(*(event() for _ in range(500)))
    own = {*made, *ids(events_of(tenant.admin.get(EVENTS))), *ids(events_of(tenant.reader.get(EVENTS)))}
    big = (1 << 63) - 1
    for order, position, size in itertools.product(
        Order, (0, 1, 5, big // 2, big - 1, big), (0, 1, 7, 21, 1_000, big)
    ):
        cursor = encode_cursor(Cursor(position, size), Query(order=order), tenant.account)
        answer = tenant.reader.get(EVENTS, params={"order": order.value, "cursor": cursor, "limit": 100})
        found = events_of(answer)
        assert {doc["account"] for doc in found} <= {tenant.account}
        assert set(ids(found)) <= own
        assert int(answer.headers["Auditplane-Log-Size"]) <= 30
