"""A key that is revoked ends at once: what was begun with it comes to nothing, and nothing holds that up."""

import http.client
import json
import os
import re
import socket
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlencode

import pytest

from engine_model import opened
from tenants import COUNT, EVENTS, KEYS, Tenant, clock, event, events, events_of, recorded, taken_to_the_end

REASON = "request 4711"
MANY = 12_000
FLOOD = 700


class Slow:
    """A request whose body has not come wholly."""

    def __init__(self, tenant: Tenant, method: str, path: str, body: bytes, **headers: str) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", tenant.server.port, timeout=30)
        self._rest = body[1:]
        self._connection.putrequest(method, path)
        for name, value in (headers | {"Content_Length": str(len(body))}).items():
            self._connection.putheader(name.replace("_", "-"), value)
        self._connection.endheaders(body[:1])

    def end(self) -> tuple[int, bytes]:
        """Sends the rest; the status and the body of the answer."""
        self._connection.send(self._rest)
        answer = self._connection.getresponse()
        found = answer.status, answer.read()
        self._connection.close()
        return found


def test_what_a_key_began_before_it_was_revoked_comes_to_nothing(tenant: Tenant) -> None:
    """However long its body takes: no event, no key, no change."""
    key_id, secret = tenant.key("admin")
    (kept,) = tenant.record(event())
    wanted = [
        ("POST", EVENTS, event()),
        ("POST", KEYS, {"role": "admin", "description": "persistent"}),
        ("PUT", "/v1/retention", {"days": 1}),
        ("POST", "/v1/holds", {"reason": REASON}),
        ("POST", "/v1/erasures", {"ids": [kept], "reason": REASON}),
    ]
    headers = {"X_Bindplane_Api_Key": secret, "Content_Type": "application/json"}
    begun = [
        Slow(tenant, method, path, json.dumps(body).encode(), **headers) for method, path, body in wanted
    ]
    time.sleep(0.3)  # each has been let in by then
    tenant.revoke(key_id)
    before = tenant.docs(), tenant.admin.get(KEYS).json()
    assert [slow.end()[0] for slow in begun] == [401] * len(begun)
    assert (tenant.docs(), tenant.admin.get(KEYS).json()) == before
    assert tenant.admin.get("/v1/holds").json() == {"holds": []}
    assert tenant.admin.get("/v1/retention").json()["days"] is None


def test_what_waits_to_be_recorded_when_its_key_ends_is_not_recorded(tenant: Tenant) -> None:
    """An account that is busy holds up who records: he has his answer by what his key is then."""
    expires_us = clock() + 3_000_000
    ending = tenant.client(tenant.key("writer", expires_us=expires_us)[1])
    (known,) = tenant.record(event())
    path = tenant.server.data / "accounts" / f"{tenant.account}.db"
    with ThreadPoolExecutor(4) as pool, opened(path) as log:
        with log.transaction():
            waiting = [pool.submit(ending.post, EVENTS, json=event()) for _ in range(2)]
            beside = [pool.submit(tenant.writer.post, EVENTS, json=event()) for _ in range(2)]
            while clock() <= expires_us:
                assert not any(each.done() for each in [*waiting, *beside])
                time.sleep(0.05)
        assert [each.result().status_code for each in waiting] == [401, 401]
        made = [each.result() for each in beside]
    assert {doc["id"] for doc in tenant.docs()} == {known, *(recorded(each)[0] for each in made)}


@pytest.mark.parametrize("query", ["", "?limit=10000"], ids=["a list", "a page"])
def test_an_answer_that_is_read_slowly_breaks_off(tenant: Tenant, query: str) -> None:
    """Neither a list nor a page of many MiB, made whole before, is given out for long after its key."""
    key_id, secret = tenant.key("reader")
    for _ in range(3):
        tenant.record(*(event(description=os.urandom(2_000).hex()) for _ in range(1_000)))
    with socket.socket() as reader:
        reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32 * 1024)
        reader.settimeout(30)
        reader.connect(("127.0.0.1", tenant.server.port))
        reader.sendall(
            f"GET {EVENTS}{query} HTTP/1.1\r\nHost: x\r\nX-Bindplane-Api-Key: {secret}\r\n\r\n".encode()
        )
        assert b" 200 " in reader.recv(10_000)
        time.sleep(0.5)
        tenant.revoke(key_id)
        time.sleep(1.0)
        taken, was_reset = taken_to_the_end(reader)
    assert was_reset
    assert taken < 4 * 1024 * 1024


def test_what_was_begun_on_the_page_before_signing_out_comes_to_nothing(tenant: Tenant) -> None:
    _, secret = tenant.key("admin")
    origin = {"Origin": tenant.server.url}
    browser = tenant.client(None)
    signed_in = browser.post("/sign-in", data={"key": secret, "next": "/"}, headers=origin)
    assert signed_in.status_code == 303, signed_in.text
    page = browser.get("/keys").text
    (token,) = set(re.findall(r'name="csrf" value="([^"]+)"', page))
    form = urlencode({"csrf": token, "role": "admin", "description": "persistent"}).encode()
    cookie = "; ".join(f"{name}={value}" for name, value in browser.cookies.items())
    slow = Slow(
        tenant, "POST", "/keys", form,
        Cookie=cookie, Origin=tenant.server.url, Content_Type="application/x-www-form-urlencoded",
    )  # fmt: skip
    time.sleep(0.3)
    assert browser.post("/sign-out", data={"csrf": token}, headers=origin).status_code == 303
    status, body = slow.end()
    assert status in (303, 401), body
    assert "persistent" not in tenant.admin.get(KEYS).text


def test_revoking_and_a_hold_do_not_wait_for_an_erasure_which_ends(tenant: Tenant) -> None:
    for _ in range(MANY // 2_000):
        tenant.record(*events(2_000, user="victim"))
    key_id, secret = tenant.key("admin")
    thief = tenant.client(secret)
    with ThreadPoolExecutor(1) as pool:
        erasure = pool.submit(thief.post, "/v1/erasures", json={"user": "victim", "reason": REASON})
        while tenant.reader.get(COUNT, params={"user": "victim"}).json()["count"] == MANY:
            assert not erasure.done()
            time.sleep(0.01)
        assert tenant.admin.delete(f"{KEYS}/{key_id}").status_code == 204
        hold = tenant.admin.post("/v1/holds", json={"user": "victim", "reason": "case 7"})
        assert hold.status_code == 201
        left = tenant.reader.get(COUNT, params={"user": "victim"}).json()["count"]
        assert erasure.result().status_code in (401, 409)
    assert left > 0
    assert tenant.reader.get(COUNT, params={"user": "victim"}).json()["count"] >= left - 256


def test_a_flood_of_holds_holds_up_neither_health_nor_revoking(tenant: Tenant) -> None:
    """What waits of a key is bounded, and other keys of the account don't wait for it."""
    key_id, secret = tenant.key("admin")
    body = json.dumps({"reason": REASON, "user": "nobody"}).encode()
    headers = {"X_Bindplane_Api_Key": secret, "Content_Type": "application/json"}
    flood = [Slow(tenant, "POST", "/v1/holds", body, **headers) for _ in range(FLOOD)]
    with ThreadPoolExecutor(FLOOD) as pool:
        ends = [pool.submit(slow.end) for slow in flood]
        health = [tenant.reader.get("/health").status_code for _ in range(5)]
        assert tenant.admin.delete(f"{KEYS}/{key_id}").status_code == 204
        health.append(tenant.reader.get("/health").status_code)
        statuses = Counter(end.result()[0] for end in ends)
    assert set(health) == {200}
    assert statuses.keys() <= {201, 401, 503}
    assert statuses[503], statuses
    assert len(tenant.admin.get("/v1/holds").json()["holds"]) == statuses[201]


def test_an_admin_cannot_erase_what_tells_of_him(tenant: Tenant) -> None:
    """Of his keys, exports, retention and holds; what a writer says in the same words can be erased."""
    admin = tenant.admin
    made = admin.post(KEYS, json={"role": "admin", "description": "backdoor"}).json()
    assert admin.put("/v1/retention", json={"days": 36_500}).status_code == 200
    hold = admin.post("/v1/holds", json={"reason": REASON, "user": "nobody"}).json()
    assert admin.delete(f"/v1/holds/{hold['id']}").status_code == 204
    told = [each for each in events_of(admin.get(EVENTS)) if each["resourceKind"] in ("APIKey", "AuditTrail")]
    assert len(told) >= 5
    for each in told:
        answer = admin.post("/v1/erasures", json={"ids": [each["id"]], "reason": REASON})
        assert answer.status_code == 409, each
        assert "the server's own" in answer.json()["errors"][0]
    claim = {"resourceKind": "APIKey", "resourceName": made["id"], "action": "Created", "user": "x"}
    (claimed,) = tenant.record(claim)
    assert admin.post("/v1/erasures", json={"ids": [claimed], "reason": REASON}).status_code == 200
