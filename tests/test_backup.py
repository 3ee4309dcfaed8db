"""Backups are whole or say that they are not; what is restored is signed only when that is confirmed."""

import base64
import json
import os
import shutil
import stat
import subprocess
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import apsw
import pytest

from auditplane import backup, log, merkle, rotation, signing
from auditplane.access import Access
from auditplane.access.key import Role
from auditplane.access.stored import look_at
from auditplane.checkpoint import open_checkpoint
from auditplane.errors import (
    AuditplaneError,
    Damaged,
    FolderInUse,
    InvalidInput,
    NewerFormat,
    NotFound,
    ProofError,
    StorageFull,
    StoreError,
    Unconfirmed,
)
from auditplane.event import Rules, decode_doc, parse
from auditplane.http import problems
from auditplane.query import Order, Query
from auditplane.store.sqlite import sealing
from auditplane.store.sqlite.account import AccountStore
from auditplane.store.sqlite.copying import copy_database
from auditplane.store.sqlite.database import fetch
from auditplane.store.sqlite.folder import accounts_in, write_secret
from engine_model import START_US, spec
from folders import FreeFolder
from server import make_key, run, start
from test_api_log import ask, checkpoint, got, recorded, verifier

ACCOUNTS = {"acme": 3, "default": 40}


def clock() -> int:
    return START_US


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data folder with two logs, an API key and checkpoints."""
    folder = FreeFolder(tmp_path / "data")
    signing.make_log_key(folder.path, "test")
    access = Access(folder, clock)
    for name, count in ACCOUNTS.items():
        with folder.account(name) as store:
            record_in(store, name, count)
        access.create(account=name, role=Role.ADMIN, by="tests", description=name)
        with folder.account(name) as store:
            log.checkpoint(store, signing.log_key(folder.path, None, None).for_account(name), clock)
            if name == "default":
                sealing.settle(store)
    access.close()
    folder.close()
    return folder.path


def record_in(store: AccountStore, account: str, count: int) -> list[str]:
    """Records events in the log of an account; returns their ids."""
    events = [spec(at) for at in range(count)]
    batch = parse(json.dumps(events).encode(), Rules(account=account))
    (result,) = log.record(store, [log.Request(batch, "tests")], clock)
    assert not isinstance(result, Exception)
    return list(result)


def made(data: Path, target: Path, *, with_key: bool = False) -> backup.Manifest:
    """A backup, made in this process."""
    folder = FreeFolder(data)
    access = Access(folder, clock)
    try:
        with backup.begun(folder, access, clock) as wanted:
            key = signing.log_key(data, None, None) if (data / "log.key").exists() else None
            return backup.make(data, wanted, target, key, with_key=with_key)
    finally:
        access.close()
        folder.close()


def docs_of(data: Path, account: str) -> list[bytes]:
    folder = FreeFolder(data)
    try:
        with folder.account(account) as store:
            return log.page(store, Query(order=Order.RECORDED), 1_000)[0]
    finally:
        folder.close()


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# A backup.


def test_an_account_that_comes_to_be_meanwhile_is_not_in_it(data: Path, tmp_path: Path) -> None:
    """Neither its log nor its keys nor its name: what is restored lacks nothing that it speaks of."""
    folder = FreeFolder(data)
    access = Access(folder, clock)
    with backup.begun(folder, access, clock) as wanted:
        access.create(account="newcomer", role=Role.ADMIN, by="tests")
        key = signing.log_key(data, None, None)
        backup.make(data, wanted, tmp_path / "backup", key, with_key=True)
    access.close()
    folder.close()
    backup.restore(tmp_path / "backup", tmp_path / "restored", clock)
    assert look_at(tmp_path / "restored") == (sorted(ACCOUNTS), [])
    assert accounts_in(tmp_path / "restored") == sorted(ACCOUNTS)


def test_a_small_file_is_written_wholly_where_the_disk_takes_a_part_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one that is nearly full does: a manifest was cut off, and the backup said to be whole."""
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:7]))
    write_secret(tmp_path / "file", "x" * 100)
    assert (tmp_path / "file").read_text() == "x" * 100 + "\n"


def test_a_backup_holds_what_there_is_and_restores_to_it(data: Path, tmp_path: Path) -> None:
    """Events, keys and checkpoints; for its owner alone, and with nothing that was not meant to be in it."""
    (data / "admin.key").write_text("ap_not_copied")
    before = os.umask(0)
    try:
        manifest = made(data, tmp_path / "backup")
        backup.restore(tmp_path / "backup", tmp_path / "restored", clock)
    finally:
        os.umask(before)
    assert contents(tmp_path / "backup").keys() == {
        "backup.json",
        "control.db",
        "accounts/acme.db",
        "accounts/default.db",
    }
    assert {account.name: account.size for account in manifest.accounts} == {"acme": 4, "default": 41}
    assert manifest.key == str(signing.log_key(data, None, None).verifier)
    for folder in (tmp_path / "backup", tmp_path / "restored"):
        for path in (folder, *folder.rglob("*")):
            assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path
    for name in ACCOUNTS:
        assert docs_of(data, name) == docs_of(tmp_path / "restored", name)
    opened = FreeFolder(tmp_path / "restored")
    access = Access(opened, clock)
    assert sorted(key.description for key in access.keys(None)) == sorted(ACCOUNTS)
    access.close()
    opened.close()
    assert not (tmp_path / "restored" / "log.key").exists()


def test_the_key_that_signs_is_in_it_when_asked_for(data: Path, tmp_path: Path) -> None:
    """So are, always, the verifier keys of those before it."""
    folder = FreeFolder(data)
    rotation.rotate(folder, "ann", clock)
    folder.close()
    secret = (data / "log.key").read_text()
    made(data, tmp_path / "without")
    made(data, tmp_path / "with", with_key=True)
    assert secret.strip().encode() not in b"".join(contents(tmp_path / "without").values())
    for name, with_key in (("without", False), ("with", True)):
        backup.restore(tmp_path / name, tmp_path / f"{name}-restored", clock)
        restored = tmp_path / f"{name}-restored"
        assert (restored / "log.key").exists() == with_key
        assert (restored / "log.retired").read_text() == (data / "log.retired").read_text()
    assert (tmp_path / "with-restored" / "log.key").read_text() == secret
    (data / "log.key").unlink()
    assert made(data, tmp_path / "none").key == ""
    with pytest.raises(NotFound):
        made(data, tmp_path / "no", with_key=True)


@pytest.mark.parametrize("inside", [False, True])
def test_a_backup_goes_to_a_place_of_its_own(data: Path, tmp_path: Path, *, inside: bool) -> None:
    """Not over other things, and not into what it is a backup of."""
    target = data / "backup" if inside else tmp_path / "full"
    if not inside:
        target.mkdir()
        (target / "mine").write_text("mine")
    before = contents(tmp_path)
    with pytest.raises(InvalidInput, match="data folder" if inside else "not empty"):
        made(data, target)
    assert contents(tmp_path).keys() - before.keys() <= {"data/log.lock", "data/control.version"}
    empty = tmp_path / "empty"
    empty.mkdir(mode=0o755)
    made(data, empty)
    assert stat.S_IMODE(empty.stat().st_mode) == 0o700


def test_a_backup_and_a_change_of_the_key_wait_for_each_other(data: Path, tmp_path: Path) -> None:
    """Else the logs could be of before the change, and the key of after it."""
    with rotation.alone(data), pytest.raises(FolderInUse):
        made(data, tmp_path / "backup")
    assert not (tmp_path / "backup").exists()


def test_a_backup_of_what_is_damaged_is_none(data: Path, tmp_path: Path) -> None:
    """It says why, leaves what it has copied, and can't be restored."""
    connection = apsw.Connection(str(data / "accounts" / "acme.db"))
    fetch(connection, "UPDATE tail SET doc = CAST(replace(CAST(doc AS TEXT), 'ann', 'eve') AS BLOB)")
    connection.close()
    target = tmp_path / "backup"
    with pytest.raises(Damaged, match="no use") as caught:
        made(data, target)
    assert "acme" in str(caught.value)
    assert "acme" in (target / "UNFINISHED").read_text()
    assert (target / "accounts" / "default.db").exists()
    assert not (target / "backup.json").exists()
    with pytest.raises(Damaged, match="never finished"):
        backup.restore(target, tmp_path / "restored", clock)
    assert not (tmp_path / "restored").exists()
    done = run("backup", tmp_path / "again", "--data", data)
    assert (done.returncode, done.stdout) == (1, "")
    assert "acme" in done.stderr


def test_keys_made_meanwhile_are_not_in_it_and_revoked_ones_stay_revoked(data: Path, tmp_path: Path) -> None:
    """No key works that the trail in the backup does not show."""
    folder = FreeFolder(data)
    access = Access(folder, clock)
    kept, revoked, late = (
        access.create(account="acme", role=Role.READER, by="tests", description=name)[0]
        for name in ("kept", "revoked", "late")
    )
    with backup.begun(folder, access, clock) as begun:
        wanted = replace(begun, key_ids=[key for key in begun.key_ids if key != late.id])
        access.revoke(revoked.id, account="acme", by="tests")
        backup.make(data, wanted, tmp_path / "backup", None, with_key=False)
    access.close()
    folder.close()
    backup.restore(tmp_path / "backup", tmp_path / "restored", clock)
    folder = FreeFolder(tmp_path / "restored")
    access = Access(folder, clock)
    found = {key.id: key.revoked_us for key in access.keys("acme") if key.description != "acme"}
    access.close()
    folder.close()
    assert found == {kept.id: None, revoked.id: START_US}


def test_a_full_disk_leaves_an_unfinished_backup(data: Path, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=200k", "none", str(small)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(
            f"needs a small disk, and mounting one is not permitted: {mounted.stderr.decode().strip()}"
        )
    try:
        with pytest.raises(StorageFull, match="not finished"):
            made(data, small / "backup")
        assert (small / "backup" / "UNFINISHED").exists()
        assert not (small / "backup" / "backup.json").exists()
    finally:
        subprocess.run(["umount", "-l", str(small)], check=True)


def test_a_copy_is_of_one_moment(tmp_path: Path) -> None:
    """However much is committed while it is made, and without beginning anew for it."""
    path = tmp_path / "source.db"
    connection = apsw.Connection(str(path))
    fetch(connection, "PRAGMA journal_mode = WAL")
    fetch(connection, "CREATE TABLE t (x, y)")
    fetch(connection, "CREATE TABLE filler AS SELECT randomblob(60000000) AS x")
    done = threading.Event()
    written = 0

    def write() -> None:
        nonlocal written
        other = apsw.Connection(str(path))
        other.set_busy_timeout(10_000)
        while not done.is_set():
            written += 1
            fetch(other, "BEGIN IMMEDIATE")
            fetch(other, "INSERT INTO t VALUES (?, 1)", (written,))
            fetch(other, "UPDATE t SET y = ?", (written,))
            fetch(other, "COMMIT")
        other.close()

    thread = threading.Thread(target=write)
    thread.start()
    try:
        while written < 3:
            time.sleep(0.001)
        for number in range(3):
            before = written
            copy_database(path, tmp_path / f"{number}.db")
            copied = apsw.Connection(str(tmp_path / f"{number}.db"))
            ((most, lowest, highest, count),) = fetch(
                copied, "SELECT max(x), min(y), max(y), count(*) FROM t"
            )
            assert most == lowest == highest == count
            assert before - 1 <= count <= written
            assert fetch(copied, "PRAGMA integrity_check") == [("ok",)]
            copied.close()
    finally:
        done.set()
        thread.join()
        connection.close()


# A restore.


def test_a_restore_is_over_nothing(data: Path, tmp_path: Path) -> None:
    made(data, tmp_path / "backup")
    before = contents(data)
    with pytest.raises(InvalidInput, match="not empty"):
        backup.restore(tmp_path / "backup", data, clock)
    assert contents(data) == before
    for source in (data, tmp_path / "nowhere"):
        with pytest.raises(NotFound, match=r"backup\.json"):
            backup.restore(source, tmp_path / "restored", clock)
    assert not (tmp_path / "restored").exists()


@pytest.mark.parametrize("name", ["control.db", "accounts/acme.db", "accounts/default.db", "log.key"])
@pytest.mark.parametrize("how", ["edited", "cut", "missing"])
def test_an_edited_backup_is_refused_and_the_file_named(
    data: Path, tmp_path: Path, name: str, how: str
) -> None:
    """What was copied stays in a folder of its own, and no server takes it."""
    made(data, tmp_path / "backup", with_key=True)
    path = tmp_path / "backup" / name
    content = bytearray(path.read_bytes())
    if how == "missing":
        path.unlink()
    elif how == "cut":
        path.write_bytes(content[:-1])
    else:
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    restored = tmp_path / "restored"
    with pytest.raises(StoreError, match=name.replace(".", r"\.")):
        backup.restore(tmp_path / "backup", restored, clock)
    assert [path.name for path in restored.iterdir()] == ["restoring"]
    refused = run("serve", "--data", restored)
    assert refused.returncode == 1
    assert "restore the backup again" in refused.stderr


def rewrite(folder: Path, change: Any) -> None:
    """Changes the manifest, and has it fit the files."""
    manifest = json.loads((folder / "backup.json").read_text())
    change(manifest)
    for name in manifest["files"]:
        if (folder / name).exists():
            found = backup._file(folder / name)
            manifest["files"][name] = {"bytes": found.bytes, "sha256": found.sha256}
    (folder / "backup.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize("what", ["tail", "size", "root", "swapped"])
def test_a_log_that_is_another_one_is_refused(data: Path, tmp_path: Path, what: str) -> None:
    """Also by somebody who has the hashes of the files fit."""
    folder = tmp_path / "backup"
    made(data, folder)
    if what == "tail":
        connection = apsw.Connection(str(folder / "accounts" / "acme.db"))
        fetch(connection, "UPDATE tail SET doc = CAST(replace(CAST(doc AS TEXT), 'ann', 'eve') AS BLOB)")
        connection.close()
    if what == "swapped":
        shutil.copy(folder / "accounts" / "default.db", folder / "accounts" / "acme.db")

    def change(manifest: Any) -> None:
        if what == "size":
            manifest["accounts"][0]["size"] += 1
        if what == "root":
            manifest["accounts"][0]["root"] = base64.b64encode(bytes(32)).decode()

    rewrite(folder, change)
    with pytest.raises(Damaged, match="acme"):
        backup.restore(folder, tmp_path / "restored", clock)
    assert [path.name for path in (tmp_path / "restored").iterdir()] == ["restoring"]


CHANGES: list[tuple[str, Any]] = [
    ("version", "x"),
    ("version", None),
    ("at", "yesterday"),
    ("key", "nonsense"),
    ("withKey", True),
    ("accounts", []),
    ("accounts", [{"name": "../x", "size": 0, "root": "", "origin": "", "key": ""}]),
    ("files", {}),
    ("files", {"../control.db": {"bytes": 0, "sha256": ""}}),
    ("more", 1),
]


@pytest.mark.parametrize(("name", "value"), CHANGES)
def test_a_manifest_that_is_none(data: Path, tmp_path: Path, name: str, value: Any) -> None:
    """Is refused before anything is written."""
    folder = tmp_path / "backup"
    made(data, folder)
    manifest = json.loads((folder / "backup.json").read_text())
    manifest[name] = value
    (folder / "backup.json").write_text(json.dumps(manifest))
    with pytest.raises(Damaged, match=r"backup\.json"):
        backup.restore(folder, tmp_path / "restored", clock)
    assert not (tmp_path / "restored").exists()


def test_a_backup_by_a_newer_version(data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "backup"
    made(data, folder)
    (folder / "backup.json").write_text('{"version": 2, "unknown": []}')
    with pytest.raises(NewerFormat):
        backup.restore(folder, tmp_path / "restored", clock)
    for text in ("", "[]", "{}", '"x"'):
        (folder / "backup.json").write_text(text)
        with pytest.raises(Damaged):
            backup.restore(folder, tmp_path / "restored", clock)


# What was restored, until it is confirmed.


def test_nothing_is_signed_until_it_is_confirmed(data: Path, tmp_path: Path) -> None:
    """Confirming is an event of the log, once; recording and reading go on before it."""
    manifest = made(data, tmp_path / "backup", with_key=True)
    backup.restore(tmp_path / "backup", tmp_path / "restored", lambda: START_US + 9)
    folder = FreeFolder(tmp_path / "restored")
    key = signing.log_key(folder.path, None, None).for_account("acme")
    with folder.account("acme") as store:
        (event_id,) = record_in(store, "acme", 1)
        for sign in (
            lambda: log.checkpoint(store, key, clock),
            lambda: log.proof(store, event_id, key, clock),
        ):
            with pytest.raises(Unconfirmed, match="log confirm"):
                sign()
        restored = log.confirm(store, "acme", "ann", clock)
        assert restored is not None
        assert (restored.size, restored.key) == (4, str(key.verifier))
        assert log.confirm(store, "acme", "ann", clock) is None
        event = decode_doc(log.page(store, Query(order=Order.RECORDED), 99)[0][-1])
        assert (event.resourceKind, event.action, event.user) == ("AuditTrail", "Updated", "ann")
        root = base64.b64encode(manifest.accounts[0].root).decode()
        assert f"with 4 events, root {root}" in (event.description or "")
        assert json.loads(bytes(event.details))["root"] == root
        stored = store.get(event.id or "")
        assert stored is not None
        assert json.loads(stored.stamp)["by"] == "auditplane"
        signed = log.checkpoint(store, key, clock, size_min=6)
        assert open_checkpoint(signed.note, key.name, [key.verifier]).size == 6
    with folder.account("default") as store, pytest.raises(Unconfirmed):
        log.checkpoint(store, signing.log_key(folder.path, None, None).for_account("default"), clock)
    folder.close()
    assert problems.status_of(Unconfirmed()) == 409


def test_a_confirmation_that_fails_leaves_the_mark(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The event and the end of the mark are one commit."""
    made(data, tmp_path / "backup")
    backup.restore(tmp_path / "backup", tmp_path / "restored", clock)
    folder = FreeFolder(tmp_path / "restored")
    with folder.account("acme") as store:
        with monkeypatch.context() as patch:
            patch.setattr("auditplane.store.sqlite.account.Transaction.write", lambda _: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                log.confirm(store, "acme", "ann", clock)
        assert store.restored() is not None
        assert store.size() == 4
    folder.close()


def test_a_log_whose_key_was_not_in_the_backup_and_is_lost(data: Path, tmp_path: Path) -> None:
    """A server says so; the next key is one for the same logs, and the event names the one that is lost."""
    old = signing.log_key(data, None, None)
    made(data, tmp_path / "backup")
    restored = tmp_path / "restored"
    backup.restore(tmp_path / "backup", restored, clock)
    refused = run("serve", "--data", restored)
    assert refused.returncode == 1
    assert "--lost" in refused.stderr
    assert run("log", "rotate", "--lost", "--data", restored).returncode == 0
    found = signing.log_key(restored, None, None)
    assert found.signer.name == old.signer.name
    assert [each.key for each in signing.retired_keys(restored)] == [old.verifier]
    event = decode_doc(docs_of(restored, "acme")[-1])
    details = json.loads(bytes(event.details))
    assert details["oldKey"] == str(old.for_account("acme").verifier)
    confirmed = run("log", "confirm", "--data", restored, "--account", "acme")
    assert (confirmed.returncode, confirmed.stdout.count("\n")) == (0, 1)
    assert "acme" in confirmed.stdout
    assert "nothing" in run("log", "confirm", "--data", restored, "--account", "acme").stdout
    assert run("log", "confirm", "--data", restored, "--account", "nobody").returncode == 1
    with start(restored) as server:
        _, key = make_key(restored, "reader", "acme")
        assert checkpoint(server, "acme", key).size > 4
        _, other = make_key(restored, "reader", "default")
        assert ask(server, "/v1/log/default/checkpoint", other)[0] == 409


# A real server.


@pytest.fixture(scope="module")
def backed_up(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A backup made while a server of two workers recorded, and what was known of it then."""
    folder = tmp_path_factory.mktemp("backed-up")
    known: dict[str, Any] = {}
    with start(folder / "data", "--workers", "2") as server:
        admin = server.admin_key
        known["ids"] = recorded(server, admin, 300)
        _, other = make_key(server.data, "admin", "acme")
        known["acme"], known["acme-ids"] = other, recorded(server, other, 7)
        known["early"] = checkpoint(server, "default", admin)
        done = threading.Event()

        def go_on(ids: list[str]) -> None:
            while not done.is_set():
                ids += recorded(server, admin, 3)

        waiting: list[list[str]] = [[] for _ in range(4)]
        threads = [threading.Thread(target=go_on, args=(ids,)) for ids in waiting]
        for thread in threads:
            thread.start()
        while min(map(len, waiting)) < 30:
            time.sleep(0.01)
        known["ids"] += [event_id for ids in waiting for event_id in list(ids)]
        made_it = run("backup", folder / "backup", "--data", server.data, "--with-key")
        done.set()
        for thread in threads:
            thread.join()
        assert (made_it.returncode, made_it.stderr) == (0, ""), made_it
        known["revoked"], known["revoked-secret"] = make_key(server.data, "reader")
        recorded(server, admin, 10)
        time.sleep(1.1)  # a checkpoint may be a second old
        known["late"] = checkpoint(server, "default", admin)
        known["key"], known["admin"] = verifier(server, "default", admin), admin
        assert server.output.count("\n") == 2
    return folder, known


def restored_from(backed_up: tuple[Path, dict[str, Any]], tmp_path: Path) -> Path:
    folder, _ = backed_up
    done = run("restore", folder / "backup", "--data", tmp_path / "restored")
    assert (done.returncode, done.stderr) == (0, ""), done
    assert "log confirm" in done.stdout
    return tmp_path / "restored"


def test_what_was_acknowledged_before_the_backup_began_is_in_it(
    backed_up: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    """The restored folder serves it, to the same keys, with proofs by the same key once that is confirmed."""
    _, known = backed_up
    data = restored_from(backed_up, tmp_path)
    admin = known["admin"]
    with start(data) as server:
        feed = json.loads(got(server, "/v1/audit-events?order=recorded&limit=10000", admin))
        assert set(known["ids"]) <= {event["id"] for event in feed}
        acme = json.loads(got(server, "/v1/audit-events", known["acme"]))
        assert set(known["acme-ids"]) <= {event["id"] for event in acme}
        assert ask(server, "/v1/audit-events", known["revoked-secret"])[0] == 401
        (new,) = recorded(server, admin, 1)
        for path in ("/v1/log/default/checkpoint", f"/v1/audit-events/{new}/proof"):
            status, _, body = ask(server, path, admin)
            assert status == 409
            assert "log confirm" in json.loads(body)["errors"][0]
        early = known["early"]
        assert got(server, f"/v1/log/default/consistency?from=1&to={early.size}", admin)
        done = run("log", "confirm", "--data", data)
        assert (done.returncode, done.stdout.count("\n")) == (0, 2)
        signed = checkpoint(server, "default", admin)
        assert verifier(server, "default", admin) == known["key"]
        path = json.loads(
            got(server, f"/v1/log/default/consistency?from={early.size}&to={signed.size}", admin)
        )
        hashes = [base64.b64decode(each) for each in path["path"]]
        merkle.verify_consistency(early.size, signed.size, hashes, early.root, signed.root)
        assert got(server, f"/v1/audit-events/{new}/proof", admin)


def test_an_outsider_sees_that_later_events_are_gone(
    backed_up: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    """A checkpoint from after the backup is not the beginning of the restored log, shorter or longer."""
    _, known = backed_up
    data = restored_from(backed_up, tmp_path)
    late, admin = known["late"], known["admin"]
    assert run("log", "confirm", "--data", data).returncode == 0
    with start(data) as server:
        path = f"/v1/log/default/consistency?from={late.size}&to="
        signed = checkpoint(server, "default", admin)
        assert signed.size < late.size
        assert ask(server, f"{path}{signed.size}", admin)[0] == 404
        recorded(server, admin, late.size)
        time.sleep(1.1)
        signed = checkpoint(server, "default", admin)
        hashes = [
            base64.b64decode(each) for each in json.loads(got(server, f"{path}{signed.size}", admin))["path"]
        ]
        with pytest.raises(ProofError):
            merkle.verify_consistency(late.size, signed.size, hashes, late.root, signed.root)


def test_backups_and_restored_folders_are_verified_as_others_are(data: Path, tmp_path: Path) -> None:
    """Also where the stored checkpoint is by the key before the one that signs now."""
    folder = FreeFolder(data)
    old = signing.log_key(data, None, None).for_account("acme").verifier
    rotation.rotate(folder, "ann", clock)
    folder.close()
    made(data, tmp_path / "backup", with_key=True)
    backup.restore(tmp_path / "backup", tmp_path / "restored", clock)
    before = contents(tmp_path / "backup")
    for path in (data, tmp_path / "backup", tmp_path / "restored"):
        done = run("verify", "--data", path, "--deep", env={"XDG_STATE_HOME": str(tmp_path / "state")})
        assert (done.returncode, done.stderr) == (0, ""), done
        assert f"by {old}\n" in done.stdout
    assert contents(tmp_path / "backup") == before


def test_the_command_line_refuses_in_one_line(data: Path, tmp_path: Path) -> None:
    assert run("backup", tmp_path / "backup", "--data", data).returncode == 0
    for command, folder, to in (
        ("backup", tmp_path / "backup", data),
        ("backup", tmp_path / "other", tmp_path / "nowhere"),
        ("restore", tmp_path / "backup", data),
        ("restore", data, tmp_path / "other"),
    ):
        done = run(command, folder, "--data", to)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1), done
    (data / "log.key").write_text("nonsense")
    assert run("backup", tmp_path / "other", "--data", data).returncode == 2


def test_every_error_here_is_one_of_ours(data: Path, tmp_path: Path) -> None:
    """A folder that can't be written to is said so."""
    (tmp_path / "file").touch()
    with pytest.raises(AuditplaneError):
        made(data, tmp_path / "file")
    with pytest.raises(AuditplaneError):
        made(data, tmp_path / "file" / "below")
    made(data, tmp_path / "backup")
    with pytest.raises(AuditplaneError):
        backup.restore(tmp_path / "backup", tmp_path / "file", clock)
