"""Who waits for whom where keys are changed: nobody for the log of another account, readers for nobody."""

import fcntl
import json
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

import apsw
import httpx2
import pytest

from auditplane import log
from auditplane.access import Access
from auditplane.access.key import Role
from auditplane.errors import StorageFull, StoreError
from auditplane.event import Rules, decode_docs, parse
from auditplane.query import Order, Query
from auditplane.store.sqlite.account import Transaction
from auditplane.store.sqlite.folder import DataFolder
from tenants import EVENTS, KEYS, Tenant, clock, event, events_of, opened

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


def test_while_a_change_of_keys_waits_all_that_reads_is_answered(tenant: Tenant, neighbour: Tenant) -> None:
    """Also the page of an event, which tells the name of a key to admins: the event loop does not wait."""
    key_id, secret = tenant.key("admin", description="the name of the key")
    browser = signed_in(tenant, secret)
    asker = tenant.client(secret)
    asker.timeout = browser.timeout
    (event_id,) = asker.post(EVENTS, json=event()).json()["ids"]
    changers = tenant.client(None), neighbour.admin
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


def test_while_a_log_is_held_the_keys_of_other_accounts_change(tenant: Tenant, neighbour: Tenant) -> None:
    """A commit that takes long holds up what is told in its log, and nobody's sign-in; then both are done."""
    (key_id, secret), (doomed_id, doomed) = tenant.key("admin"), neighbour.key("writer")
    victim_id, victim = tenant.key("reader")
    _, neighbours_secret = neighbour.key("admin")
    changers = tenant.client(secret), tenant.client(secret)
    asker = tenant.client(victim)
    tenant.record(event())  # so that the server has it open
    other = neighbour.client(neighbours_secret)
    asker.timeout = other.timeout = httpx2.Timeout(SECONDS_MAX)
    lock = tenant.server.data / "accounts" / f"{tenant.account}.lock"
    with ThreadPoolExecutor(2) as pool, under_way(lock) as waiting:
        waiting.append(pool.submit(changers[0].delete, f"{KEYS}/{victim_id}"))
        waiting.append(pool.submit(changers[1].post, KEYS, json={"role": "reader"}))
        time.sleep(0.3)  # each waits for the lock by then
        signed_in(neighbour, neighbours_secret)
        signed_in(tenant, secret)
        assert other.post(KEYS, json={"role": "reader"}).status_code == 201
        assert other.delete(f"{KEYS}/{doomed_id}").status_code == 204
        assert other.get(EVENTS, headers={"X-Bindplane-Api-Key": doomed}).status_code == 401
        assert asker.get(EVENTS).status_code == 200
    assert [each.result().status_code for each in waiting] == [204, 201]
    assert asker.get(EVENTS).status_code == 401
    told = events_of(changers[0].get(EVENTS, params={"resource-name": victim_id}))
    assert {doc["action"] for doc in told} == {"Created", "Deleted"}
    assert all(doc["details"].get("key") in (None, key_id) for doc in told)


# What is on the disk first, and what comes of a failure.


@pytest.fixture
def keys(tmp_path: Path) -> Iterator[Access]:
    """The keys of a folder that no server serves."""
    yield from opened(tmp_path / "data")


def new_key(access: Access, account: str = "default") -> str:
    return access.create(account=account, role=Role.READER, by="tests")[0].id


def told_of(data: Path, account: str = "default") -> list[str]:
    """What the log of an account tells, as another process reads it."""
    folder = DataFolder(data)
    try:
        with folder.account(account) as store:
            docs = decode_docs(log.page(store, Query(order=Order.RECORDED), 100)[0])
    finally:
        folder.close()
    return [f"{doc.action} {doc.resourceName}" for doc in docs]


def test_the_event_is_committed_before_the_key_works_or_ends(keys: Access, tmp_path: Path) -> None:
    """Looked at from within SQLite, when it is about to commit the change of the key."""
    seen: list[list[str]] = []

    def about_to_commit() -> bool:
        seen.append(told_of(tmp_path / "data"))
        return False

    first = new_key(keys)
    with keys._changes.use() as connection:
        connection.set_commit_hook(about_to_commit)
    second = new_key(keys)
    keys.revoke(first, account="default", by="tests")
    whole = [f"Created {first}", f"Created {second}", f"Deleted {first}"]
    assert seen == [whole[:2], whole]


def test_a_key_whose_event_cannot_be_recorded_is_not_changed(
    keys: Access, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = new_key(keys)

    def full(_transaction: Transaction) -> None:
        raise apsw.FullError("the disk is full")

    with monkeypatch.context() as failing:
        failing.setattr(Transaction, "write", full)
        for change in (
            lambda: new_key(keys),
            lambda: new_key(keys, "new"),
            lambda: keys.revoke(first, account="default", by="tests"),
        ):
            with pytest.raises(StorageFull):
                change()
    assert [(key.id, key.revoked_us) for key in keys.keys(None)] == [(first, None)]
    assert keys.accounts() == ["default"]
    assert told_of(tmp_path / "data") == [f"Created {first}"]
    keys.revoke(first, account="default", by="tests")
    assert new_key(keys, "new")


def test_a_change_that_fails_after_its_event_is_not_acknowledged(keys: Access, tmp_path: Path) -> None:
    """The trail then tells of a key that does not work: rather that than one that works untold."""
    first = new_key(keys)
    with keys._changes.use() as connection:
        connection.set_commit_hook(lambda: True)
    with pytest.raises(StoreError):
        new_key(keys)
    assert [key.id for key in keys.keys(None)] == [first]
    assert len(told_of(tmp_path / "data")) == 2
    second = new_key(keys)  # the connection is a new one by now
    assert [key.id for key in keys.keys(None)] == [first, second]


def test_changes_in_two_processes_never_wait_for_each_other_for_good(tmp_path: Path) -> None:
    """In accounts that begin, too, while all of them record, sign in and are looked at."""
    data = tmp_path / "data"
    folders = [DataFolder(data) for _ in range(2)]
    both = [Access(folder, clock) for folder in folders]

    def work(number: int) -> None:
        access, account = both[number % 2], f"a{number % 3}"
        for _ in range(8):
            key, secret = access.create(account=account, role=Role.READER, by="tests")
            access.open_session(secret)
            batch = parse(json.dumps(event()).encode(), Rules(account=account))
            with folders[number % 2].account(account) as store:
                (result,) = log.record(store, [log.Request(batch, key.id)], clock)
            assert not isinstance(result, Exception)
            assert access.key(key.id, account) in access.keys(account)
            access.revoke(key.id, account=account, by="tests")

    threads = [Thread(target=work, args=(number,), daemon=True) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SECONDS_MAX * 4)
    assert not any(thread.is_alive() for thread in threads)
    assert [key.revoked_us is None for key in both[0].keys(None)] == [False] * 96
    for access, folder in zip(both, folders, strict=True):
        access.close()
        folder.close()
    assert [len(told_of(data, f"a{number}")) for number in range(3)] == [96] * 3
