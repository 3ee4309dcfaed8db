"""Who waits for whom where keys are changed: nobody for the log of another account, readers for nobody."""

import fcntl
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx2

from tenants import EVENTS, KEYS, Tenant, event

SECONDS_MAX = 15.0
"""Within which those must be answered who wait for no lock; they are within a fraction of it."""


@contextmanager
def held(path: Path) -> Iterator[None]:
    """A lock that processes hold while they change something, held as by one more of them."""
    with path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def signed_in(tenant: Tenant, secret: str) -> httpx2.Client:
    browser = tenant.client(None)
    browser.timeout = httpx2.Timeout(SECONDS_MAX)
    answer = browser.post("/sign-in", data={"key": secret}, headers={"Origin": tenant.server.url})
    assert answer.status_code == 303, answer.text
    return browser


@contextmanager
def under_way(lock: Path) -> Iterator[list[Future[httpx2.Response]]]:
    """Requests that can't be answered while a lock is held: they are in the end."""
    waiting: list[Future[httpx2.Response]] = []
    with held(lock):
        yield waiting
        assert not any(each.done() for each in waiting)


def test_while_a_change_of_keys_waits_all_that_reads_is_answered(tenant: Tenant) -> None:
    """Also the page of an event, which tells the name of a key to admins: the event loop does not wait."""
    key_id, secret = tenant.key("admin", description="the name of the key")
    browser = signed_in(tenant, secret)
    asker = tenant.client(secret)
    asker.timeout = browser.timeout
    (event_id,) = asker.post(EVENTS, json=event()).json()["ids"]
    changers = tenant.client(None), tenant.client(secret)
    with ThreadPoolExecutor(2) as pool, under_way(tenant.server.data / "control.version") as waiting:
        waiting.append(pool.submit(changers[0].post, "/sign-in", data={"key": secret}))
        waiting.append(pool.submit(changers[1].post, KEYS, json={"role": "reader"}))
        time.sleep(0.3)  # each waits for the lock by then
        for headers in ({}, {"HX-Request": "true"}):
            assert "the name of the key" in browser.get(f"/events/{event_id}", headers=headers).text
        assert browser.get(f"/keys/{key_id}/revoke").status_code == 200
        assert browser.get("/keys").status_code == 200
        assert asker.get(KEYS).status_code == 200
        assert asker.post(EVENTS, json=event()).status_code == 201
        assert asker.get("/health/live").status_code == 200
    assert [each.result().status_code for each in waiting] == [303, 201]
