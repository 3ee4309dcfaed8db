"""Retention, holds, erasure and recorded reads over real HTTP."""

import base64
import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from auditplane import keeping, log
from auditplane.event import Rules, parse
from auditplane.http.expiry import LOOK_SECONDS_MAX, ROUND_SECONDS_MIN, Expiry
from auditplane.query import Query
from auditplane.store.sqlite.folder import NotedClock
from auditplane.times import DAY_US, SECOND_US
from folders import FreeFolder
from keepers import record_old, wait_for, work
from server import Server, start
from tenants import (
    COUNT,
    DOWNLOAD,
    EVENTS,
    Json,
    Tenant,
    event,
    events,
    events_of,
    new_tenant,
    opened,
    problems_of,
)
from trails import made_folder

RETENTION, HOLDS, ERASURES = "/v1/retention", "/v1/holds", "/v1/erasures"
UNKNOWN = "01JQ0000000000000000000000"


def of_the_trail(tenant: Tenant, action: str) -> list[Json]:
    """The events of an account that tell of its trail, oldest first."""
    query = {"resource-kind": "AuditTrail", "action": action, "order": "recorded"}
    return events_of(tenant.reader.get(EVENTS, params=query))


def left(tenant: Tenant) -> list[str]:
    """The ids of the events that are no events of keys or of the trail, as recorded."""
    found = tenant.docs(order="recorded")
    return [each["id"] for each in found if each["resourceKind"] != "AuditTrail"]


def purges(tenant: Tenant) -> list[Json]:
    """The events that tell of purges."""
    return [each for each in of_the_trail(tenant, "Deleted") if "purgedBefore" in each["details"]]


def set_days(tenant: Tenant, days: int | None) -> Json:
    answer = tenant.admin.put(RETENTION, json={"days": days})
    assert answer.status_code == 200, answer.text
    found: Json = answer.json()
    return found


# Retention.


def test_what_expires_is_hidden_at_once_and_destroyed_soon(tenant: Tenant) -> None:
    """No answer shows it from that of the request on; the event of the purge says what went."""
    old = record_old(tenant.server.data, tenant.account, 400, events(10))
    young = record_old(tenant.server.data, tenant.account, 100, events(5))
    root = tenant.reader.get(f"{EVENTS}/{young[0]}/proof").json()["root"]
    assert len(base64.b64decode(root)) == 32
    assert set_days(tenant, 365) == {"days": 365, "inForce": 365}

    assert left(tenant) == young
    assert tenant.reader.get(COUNT, params={"resource-kind": "Source"}).json() == {"count": 5}
    assert not any(each in tenant.reader.get(DOWNLOAD).text for each in old)
    for path in (f"{EVENTS}/{old[0]}", f"{EVENTS}/{old[0]}/proof"):
        assert "expired" in problems_of(tenant.reader.get(path), 410)[0]

    (told,) = wait_for(lambda: purges(tenant))
    details = told["details"]
    assert (details["purgedBefore"], details["count"]) == (10, 10)
    assert details["size"] >= 16
    assert len(base64.b64decode(details["root"])) == 32
    assert details["oldest"] <= details["newest"] < told["timestamp"]
    assert told["user"] == "auditplane"
    assert left(tenant) == young
    assert tenant.reader.get(f"{EVENTS}/{young[0]}/proof").json()["index"] == 10
    problems_of(tenant.reader.get(f"{EVENTS}/{old[0]}"), 410)


def test_a_retention_is_told_of_and_can_be_taken_back(tenant: Tenant) -> None:
    """Who set it with which key; null is what the server has."""
    assert tenant.admin.get(RETENTION).json() == {"days": None, "inForce": 0}
    key_id, secret = tenant.key("admin", description="the boss")
    boss = tenant.client(secret)
    assert boss.put(RETENTION, json={"days": 90}).json() == {"days": 90, "inForce": 90}
    assert tenant.admin.get(RETENTION).json() == {"days": 90, "inForce": 90}
    assert set_days(tenant, None) == {"days": None, "inForce": 0}
    first, second = of_the_trail(tenant, "Updated")
    assert (first["user"], first["resourceName"]) == ("the boss", tenant.account)
    assert first["details"] == {"retentionDays": 90, "retentionDaysBefore": None, "key": key_id}
    assert second["details"]["retentionDaysBefore"] == 90


def test_what_expired_while_no_server_ran_is_never_shown(tmp_path: Path) -> None:
    """The first answer of a start is without it, by the setting of the server or that of the account."""
    data = made_folder(tmp_path / "data")
    accounts = {"default-days": 30, "own": 200, "for-ever": 0}
    old = {name: record_old(data, name, 100, events(3)) for name in accounts}
    for name in ("own", "for-ever"):
        work(data, name, lambda account: keeping.set_retention(account, accounts[account.name]))
    with (
        start(data, env={"AUDITPLANE_AUDIT_TRAIL_RETENTION_DAYS": "30"}) as server,
        contextmanager(opened)(server.data) as access,
    ):
        tenants = {name: Tenant(server, access, name) for name in accounts}
        try:
            assert left(tenants["default-days"]) == []
            assert left(tenants["own"]) == old["own"]
            assert left(tenants["for-ever"]) == old["for-ever"]
            for name, days in accounts.items():
                own = None if name == "default-days" else days
                assert tenants[name].admin.get(RETENTION).json() == {"days": own, "inForce": days}
            assert wait_for(lambda: purges(tenants["default-days"]))[0]["details"]["count"] == 3
            assert set_days(tenants["own"], None) == {"days": None, "inForce": 30}
            assert left(tenants["own"]) == []
            assert "Traceback" not in server.output
        finally:
            for each in tenants.values():
                each.close()


def test_what_expires_while_the_server_runs_is_hidden_by_itself(tenant: Tenant) -> None:
    """Nobody writes, nobody asks for it."""
    (soon,) = record_old(tenant.server.data, tenant.account, 10 - 4 / 86_400, [event()])
    assert set_days(tenant, 10) == {"days": 10, "inForce": 10}
    assert left(tenant) == [soon]
    wait_for(lambda: tenant.reader.get(f"{EVENTS}/{soon}").status_code == 410)
    assert left(tenant) == []


def test_recording_goes_on_while_much_is_purged(tenant: Tenant) -> None:
    """Each event is taken, nothing of it is lost, and the purge comes to its end."""
    for _ in range(4):
        record_old(tenant.server.data, tenant.account, 400, events(5_000))
    made: list[str] = []
    set_days(tenant, 365)

    def purged() -> list[Json]:
        made.extend(tenant.record(event()))
        return purges(tenant)

    (told,) = wait_for(purged)
    assert told["details"]["count"] == 20_000
    assert left(tenant) == made


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("PUT", RETENTION, {}),
        ("PUT", RETENTION, {"days": -1}),
        ("PUT", RETENTION, {"days": 36_501}),
        ("PUT", RETENTION, {"days": "30"}),
        ("PUT", RETENTION, {"days": 1, "more": 1}),
        ("POST", HOLDS, {}),
        ("POST", HOLDS, {"reason": ""}),
        ("POST", HOLDS, {"reason": "two\nlines"}),
        ("POST", HOLDS, {"reason": "x" * 501}),
        ("POST", HOLDS, {"reason": "x", "minDate": "tomorrow"}),
        ("POST", HOLDS, {"reason": "x", "minDate": ""}),
        ("POST", HOLDS, {"reason": "x", "maxDate": ""}),
        ("POST", HOLDS, {"reason": "x", "minDate": "20270101", "maxDate": "20260101"}),
        ("POST", HOLDS, {"reason": "x", "user": ""}),
        ("POST", ERASURES, {"reason": "x"}),
        ("POST", ERASURES, {"reason": "x", "ids": []}),
        ("POST", ERASURES, {"reason": "x", "ids": [UNKNOWN], "user": "a"}),
        ("POST", ERASURES, {"reason": " ", "ids": [UNKNOWN]}),
        ("POST", ERASURES, {"ids": [UNKNOWN]}),
    ],
)
def test_a_wrong_body_changes_nothing(empty: Tenant, method: str, path: str, body: Json) -> None:
    """400, and nothing is told of in the trail."""
    problems_of(empty.admin.request(method, path, json=body), 400)
    assert empty.admin.get(HOLDS).json() == {"holds": []}
    assert of_the_trail(empty, "Updated") == of_the_trail(empty, "Created") == []


# Holds.


def test_a_hold_keeps_until_it_is_lifted(tenant: Tenant) -> None:
    """From expiring and from erasure; both ends are told of."""
    first = event(user="Ann@example.com")
    old = record_old(tenant.server.data, tenant.account, 400, [first, *events(3, user="bob")])
    placed = tenant.admin.post(HOLDS, json={"reason": "case 4711", "user": "ann@example.com"})
    assert placed.status_code == 201
    hold = placed.json()
    assert {"id", "placed", "placedBy", "reason", "user"} == hold.keys()
    assert tenant.admin.get(HOLDS).json() == {"holds": [hold]}

    set_days(tenant, 365)
    assert left(tenant) == old[:1]
    assert wait_for(lambda: purges(tenant))[0]["details"]["count"] == 3
    assert tenant.reader.get(f"{EVENTS}/{old[0]}").json()["user"] == "Ann@example.com"
    for body in ({"ids": [old[0]]}, {"user": "ANN@example.com"}):
        answer = tenant.admin.post(ERASURES, json={**body, "reason": "request"})
        assert "hold" in problems_of(answer, 409)[0]

    assert tenant.admin.delete(f"{HOLDS}/{hold['id']}").status_code == 204
    assert left(tenant) == []
    problems_of(tenant.reader.get(f"{EVENTS}/{old[0]}"), 410)
    problems_of(tenant.admin.delete(f"{HOLDS}/{hold['id']}"), 404)
    assert tenant.admin.get(HOLDS).json() == {"holds": []}
    assert of_the_trail(tenant, "Created")[0]["details"]["hold"] == hold["id"]
    assert of_the_trail(tenant, "Updated")[-1]["details"]["hold"] == hold["id"]


def test_a_hold_between_dates_takes_the_dates_of_the_filters(tenant: Tenant) -> None:
    """A day is the whole day at both ends."""
    tenant.record(
        event(timestamp="2026-03-01T23:59:59.999999Z"),
        event(timestamp="2026-03-02T00:00:00Z"),
        event(timestamp="2026-03-03T23:59:59.999999Z"),
        event(timestamp="2026-03-04T00:00:00Z"),
    )
    made = left(tenant)
    body = {"reason": "case", "minDate": "20260302", "maxDate": "20260303"}
    hold = tenant.admin.post(HOLDS, json=body).json()
    assert (hold["minDate"], hold["maxDate"]) == (
        "2026-03-02T00:00:00.000000Z",
        "2026-03-03T23:59:59.999999Z",
    )
    statuses = [tenant.admin.post(ERASURES, json={"ids": [each], "reason": "x"}).status_code for each in made]
    assert statuses == [200, 409, 409, 200]


# Erasure.


def test_what_is_erased_is_gone_for_good(tenant: Tenant) -> None:
    """By ids and by user: 410, never to be recorded again, told of with reason, indexes and key."""
    made = tenant.record(*events(5, user="bob"), *events(3, user="Ann"))
    asked = {"ids": [made[1], made[3].lower(), made[1]], "reason": "request 4711"}
    answer = tenant.admin.post(ERASURES, json=asked)
    assert (answer.status_code, answer.json()) == (200, {"erased": 2})
    answer = tenant.admin.post(ERASURES, json={"user": "ANN", "reason": "she asked for it"})
    assert answer.json() == {"erased": 3}
    assert left(tenant) == [made[0], made[2], made[4]]
    for gone in (made[1], made[3], *made[5:]):
        for path in (f"{EVENTS}/{gone}", f"{EVENTS}/{gone}/proof"):
            assert "erased" in problems_of(tenant.reader.get(path), 410)[0]
        problems_of(tenant.writer.post(EVENTS, json=event(id=gone)), 409)
        problems_of(tenant.admin.post(ERASURES, json={"ids": [gone], "reason": "x"}), 410)
    first, second = of_the_trail(tenant, "Deleted")
    assert len(first["details"]["erased"]) == 2
    assert first["details"]["reason"] == "request 4711"
    assert first["details"]["key"] in tenant.admin.get("/v1/api-keys").text
    assert "she asked for it" in second["description"]
    assert tenant.reader.get(f"{EVENTS}/{made[0]}/proof").status_code == 200


def test_nothing_is_erased_when_one_of_them_can_not_be(tenant: Tenant) -> None:
    """All ids or none: unknown ones, those of the trail's own account of what is gone."""
    made = tenant.record(*events(3))
    problems_of(tenant.admin.post(ERASURES, json={"ids": [made[0], UNKNOWN], "reason": "x"}), 404)
    problems_of(tenant.admin.post(ERASURES, json={"user": "nobody", "reason": "x"}), 404)
    assert tenant.admin.post(ERASURES, json={"ids": made[:1], "reason": "x"}).status_code == 200
    (told,) = of_the_trail(tenant, "Deleted")
    problems_of(tenant.admin.post(ERASURES, json={"ids": [made[1], told["id"]], "reason": "x"}), 409)
    problems_of(tenant.admin.post(ERASURES, json={"user": told["user"], "reason": "x"}), 409)
    too_many = {"ids": [UNKNOWN] * 10_001, "reason": "x"}
    problems_of(tenant.admin.post(ERASURES, json=too_many), 413)
    assert left(tenant) == made[1:]


# Reads.


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server as it is when nothing is set."""
    env = {"AUDITPLANE_AUDIT_TRAIL_RECORD_READS": ""}
    with start(tmp_path_factory.mktemp("watched") / "data", env=env) as server:
        yield server


@pytest.fixture
def seen(watched: Server) -> Iterator[Tenant]:
    """A fresh account on it."""
    with contextmanager(opened)(watched.data) as access:
        yield from new_tenant(watched, access)


def test_a_download_is_told_of(seen: Tenant) -> None:
    """Who, when, what, with which key; it stands in the next answer, not in its own."""
    seen.record(*events(3, user="ann"))
    key_id, secret = seen.key("reader", description="grafana")
    reader = seen.client(secret)
    query = {"user": "ann", "min-date": "20260101", "raw": "true", "q": ""}
    answer = reader.get(DOWNLOAD, params=query)
    assert answer.status_code == 200
    (told,) = of_the_trail(seen, "Exported")
    assert (told["user"], told["resourceName"]) == ("grafana", seen.account)
    assert told["description"] == "Downloaded the audit trail as raw CSV: user=ann, min-date=20260101"
    size = int(answer.headers["Auditplane-Log-Size"])
    assert told["details"] == {
        "form": "raw",
        "filters": {"user": ["ann"], "min-date": ["20260101"]},
        "logSize": size,
        "key": key_id,
    }
    assert told["id"] not in answer.text
    proof = reader.get(f"{EVENTS}/{told['id']}/proof").json()
    assert json.loads(proof["stamp"])["by"] == "auditplane"
    assert proof["index"] == size

    whole = reader.get(DOWNLOAD).text
    assert told["id"] in whole
    assert [each["description"] for each in of_the_trail(seen, "Exported")][1:] == [
        "Downloaded the audit trail as CSV"
    ]


def test_evidence_is_told_of(seen: Tenant) -> None:
    """As a download is."""
    seen.record(*events(3, user="ann"))
    assert seen.reader.get(f"{EVENTS}/evidence", params={"user": "ann"}).content.startswith(b"PK")
    (told,) = of_the_trail(seen, "Exported")
    assert told["description"] == "Downloaded evidence from the audit trail: user=ann"
    assert (told["details"]["form"], told["details"]["filters"]) == ("evidence", {"user": ["ann"]})


def test_only_downloads_that_are_given_are_told_of(seen: Tenant) -> None:
    """No HEAD, no list, no wrong request."""
    seen.record(*events(3))
    seen.reader.head(DOWNLOAD)
    seen.reader.get(EVENTS)
    seen.reader.get(EVENTS, headers={"Accept": "text/csv"})
    seen.reader.get(COUNT)
    seen.reader.get(DOWNLOAD, params={"usr": "ann"})
    seen.writer.get(DOWNLOAD)
    assert of_the_trail(seen, "Exported") == []


@pytest.mark.parametrize(
    "value", [b"%00%1B[31m", b"a%0D%0Ab", b"%22" * 2_600, "é\u2028=1".encode(), b"\\" * 7_000, b"x" * 8_000]
)
def test_whatever_was_asked_for_can_be_told_of(seen: Tenant, value: bytes) -> None:
    """Control characters and long values are no way around it."""
    key = seen.reader.headers["X-Bindplane-Api-Key"].encode()
    head = (
        b"GET %s?user=ann&user=%s HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-Bindplane-Api-Key: %s\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", seen.server.port), timeout=30) as asked:
        asked.sendall(head % (DOWNLOAD.encode(), value, key))
        with asked.makefile("rb") as answer:
            assert answer.read().startswith(b"HTTP/1.1 200 ")
    (told,) = of_the_trail(seen, "Exported")
    assert told["description"].startswith("Downloaded the audit trail as CSV: user=ann, user=")
    assert len(told["description"]) <= 1_000
    details = told["details"]
    assert len(details["filters"]["user"]) + details.get("filtersLeftOut", 0) == 2


def test_it_can_be_turned_off(tenant: Tenant) -> None:
    """By the setting, as the servers of most tests have it."""
    tenant.record(*events(3))
    assert tenant.reader.get(DOWNLOAD).text.count("\r\n") >= 4
    assert of_the_trail(tenant, "Exported") == []


# When the server looks.


class Times:
    """Clocks that a test sets."""

    def __init__(self) -> None:
        self.seconds = 1_000.0
        self.began_us = 1_700_000_000_000_000

    def monotonic(self) -> float:
        return self.seconds

    def clock(self) -> int:
        return self.began_us + int(self.seconds * 1_000_000)


def test_an_account_is_looked_at_when_it_is_due(tmp_path: Path) -> None:
    """Never without retention; else when the next event expires, within an hour; a round each half hour."""
    times, days_seconds = Times(), 10 * DAY_US // SECOND_US
    expiry = Expiry(10, times.clock, NotedClock(times.clock()), times.monotonic)
    folder = FreeFolder(tmp_path)
    with folder.account("a") as store:

        def record() -> None:
            batch = parse(json.dumps(event()).encode(), Rules(account="a"))
            log.record(store, [log.Request(batch, "test")], times.clock)

        def after(seconds: float) -> tuple[bool, int, int]:
            """Whether it was due then, and after that what the log has and what is shown."""
            times.seconds += seconds
            due = expiry.is_due("a")
            while expiry.tend("a", store):
                pass
            return due, store.size(), len(log.page(store, Query(), 10)[0])

        assert after(0) == (False, 0, 0)
        record()
        assert after(2) == (False, 1, 1)
        assert after(58)[0] is False
        record()
        assert after(2) == (False, 2, 2)
        assert after(LOOK_SECONDS_MAX) == (True, 2, 2)  # the clock might have been set
        assert after(days_seconds - LOOK_SECONDS_MAX - 50) == (True, 3, 2)  # the first one, and its purge
        assert after(20) == (False, 3, 2)
        assert after(40) == (True, 3, 1)  # the second one is hidden, and waits for the next round
        assert after(ROUND_SECONDS_MIN) == (True, 4, 2)
        keeping.set_retention(keeping.Account("a", store, times.clock), 0)
        assert after(2)[1:] == (5, 3)
        after(ROUND_SECONDS_MIN)
        assert after(100 * days_seconds) == (False, 5, 3)
    folder.close()
