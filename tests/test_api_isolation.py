"""Accounts: whatever a key of one asks for, by any route, nothing of another ever shows or changes."""

import io
import itertools
import random
import zipfile
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import httpx2

from auditplane.query import Cursor, Order, Query, encode_cursor
from server import Server
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
    problems_of,
    recorded,
)

CANARY = "canary7f3a"  # Stands in everything of the neighbour, and in no request.


class Neighbour:
    """An account of which an attacker knows names, a key's id, cursors, and the first id of an event."""

    def __init__(self, tenant: Tenant) -> None:
        self.tenant = tenant
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
        hold = {"reason": CANARY, "user": "somebody"}
        self.hold = str(tenant.admin.post("/v1/holds", json=hold).json()["id"])
        self.key_id, self.secret = tenant.key("reader", description=CANARY)
        page = tenant.admin.get(EVENTS, params={"limit": 3})
        self.cursor = httpx2.URL(page.links["next"]["url"]).params["cursor"]
        self.recorded = [self._cursor(order) for order in ("recorded", "asc")]

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
        "Modified", "Source", "19700101", "99991231", "true", "moved", victim.cursor, *victim.recorded,
        victim.secret[3:],
    ]  # fmt: skip


def header_sets(victim: Neighbour) -> list[dict[str, str]]:
    account = victim.tenant.account
    return [
        {}, {"X-Bindplane-Account-ID": account}, {"X-Account": account, "X-Forwarded-User": victim.user},
        {"Accept": "text/csv"}, {"Accept": "application/x-ndjson", "Accept-Encoding": "zstd"},
        {"Host": f"{account}.example.com"}, {"X-Original-URL": f"{EVENTS}?account={account}"},
        {"X-HTTP-Method-Override": "DELETE"}, {"Authorization": f"Bearer {victim.key_id}"},
    ]  # fmt: skip


def bodies(victim: Neighbour) -> list[Any]:
    account = victim.tenant.account
    return [
        None, event(id=victim.ids[0]), event(account=account), [event(), event(account=account)],
        {"role": "admin"}, {"role": "admin", "account": account}, {"role": "reader", "description": account},
        {"days": 1}, {"days": 1, "account": account}, {"reason": account, "user": victim.user},
        {"reason": account, "ids": victim.ids[:1]}, {"reason": "x", "user": victim.user, "account": account},
    ]  # fmt: skip


def operations(server: Server) -> Iterator[tuple[str, str, list[str]]]:
    """Every method and path that is served, with its query parameters: new routes are attacked too."""
    with client(server.url) as anybody:
        document = anybody.get("/openapi.json").json()
    for path, item in document["paths"].items():
        for method, operation in item.items():
            yield (
                method.upper(),
                path,
                [each["name"] for each in operation["parameters"] if each["in"] == "query"],
            )


def filled(path: str, victim: Neighbour, values: list[str]) -> list[str]:
    """A path with each of some values as the id, or with the neighbour's account and others."""
    if "{account}" in path:
        whole = path.replace("{path}", "entries/000.p/1")
        accounts = [victim.tenant.account, "default", f"default%2f..%2f{victim.tenant.account}"]
        return [whole.replace("{account}", account) for account in accounts]
    return [path.replace("{id}", quote(value, safe="")) for value in values] if "{id}" in path else [path]


def requests(server: Server, victim: Neighbour) -> Iterator[tuple[str, str, Json]]:
    """Every parameter with every value, every id in every path, under every set of headers; then mixtures."""
    chosen = random.Random(17)
    values, headers = hostile_values(victim), header_sets(victim)
    for method, path, names in operations(server):
        paths = filled(path, victim, values)
        sent = bodies(victim) if method in ("POST", "PUT") else [None]
        for url, header, body in itertools.product(paths[:2], headers, sent):
            yield method, url, {"headers": header, "json": body}
        for url in paths:
            yield method, url, {"headers": chosen.choice(headers), "json": chosen.choice(sent)}
        for url, name, value in itertools.product(paths[:1], [*names, "account", "account-id"], values):
            yield method, url, {"params": {name: value}, "headers": chosen.choice(headers)}
        for _ in range(20 if names else 0):
            picked = chosen.sample(names, min(len(names), 3))
            query = {name: chosen.choice(values) for name in picked}
            yield method, chosen.choice(paths), {"params": query, "headers": chosen.choice(headers)}


def text_of(answer: httpx2.Response) -> str:
    """The text of an answer; that of all its members when it is a zip."""
    if answer.headers.get("Content-Type") != "application/zip" or not answer.content:
        return answer.text
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        return "".join(archive.read(name).decode("latin-1") for name in archive.namelist())


def test_nothing_of_another_account_shows_or_changes(tenant: Tenant, neighbour: Tenant) -> None:
    """Over every route, method, parameter, header, cursor and id, with keys of each role."""
    tenant.record(*(event(user="attacker") for _ in range(20)))
    victim = Neighbour(neighbour)
    before = victim.state()
    attackers = [
        tenant.admin,
        tenant.reader,
        tenant.writer,
        tenant.client(tenant.key("reader", envelope=True)[1]),
    ]
    chosen = random.Random(23)
    answered = dict.fromkeys(range(200, 600), 0)
    for method, path, options in requests(tenant.server, victim):
        attacker = attackers[0] if chosen.random() < 0.6 else chosen.choice(attackers)
        answer = attacker.request(method, path, **options)
        assert answer.status_code < 500, (method, path, options)
        text = text_of(answer)
        assert CANARY not in text, (method, path, options)
        assert CANARY not in str(answer.headers)
        assert not any(made in text for made in victim.ids[1:]), (method, path, options)
        answered[answer.status_code] += 1
    assert all(answered[status] > 10 for status in (200, 201, 400, 403, 404))
    assert victim.state() == before
    assert victim.tenant.client(victim.secret).get(EVENTS).status_code == 200


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
