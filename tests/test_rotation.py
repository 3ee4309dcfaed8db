"""The key that signs can be changed: logs go on, each key verifies what it signed, a crash loses nothing."""

import base64
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from auditplane import log, merkle, rotation, signing
from auditplane.checkpoint import (
    SignerKey,
    VerifierKey,
    open_checkpoint,
    open_endorsement,
    parse_verifier_key,
    sign_endorsement,
    sign_note,
)
from auditplane.errors import FolderInUse, Gone, InvalidConfig, InvalidInput, NotFound, ProofError, StoreError
from auditplane.event import decode_doc
from auditplane.query import Order, Query
from auditplane.rotation import Why
from auditplane.store import Signed
from auditplane.store.sqlite.account import AccountStore
from auditplane.store.sqlite.database import sync_folder
from auditplane.store.sqlite.folder import DataFolder, write_secret
from engine_model import START_US, record, spec
from folders import FreeFolder
from server import make_key, run, start
from test_api_log import ask, checkpoint, got, recorded, verifier

ACCOUNTS = ("acme", "default")
NAME = "auditplane/test"


def clock() -> int:
    return START_US


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[DataFolder]:
    """Two logs with checkpoints by their first key."""
    folder = FreeFolder(tmp_path / "data")
    signing.make_log_key(folder.path, "test")
    for name in ACCOUNTS:
        with folder.account(name) as store:
            record(store, [spec(1), spec(2)])
            log.checkpoint(store, key_of(folder).for_account(name), clock)
    yield folder
    folder.close()


def key_of(folder: DataFolder) -> signing.LogKey:
    return signing.log_key(folder.path, None, None)


def changes(folder: DataFolder, account: str) -> list[dict[str, Any]]:
    """The events of the log about the trail itself, oldest first."""
    with folder.account(account) as store:
        docs, _, _ = log.page(store, Query(order=Order.RECORDED), 1_000)
    events = map(decode_doc, docs)
    return [json.loads(bytes(event.details)) for event in events if event.resourceKind == "AuditTrail"]


def open_with(folder: DataFolder, account: str, key: VerifierKey) -> int:
    """The size of a checkpoint that is made now, and which that key has signed."""
    with folder.account(account) as store:
        signed = log.checkpoint(store, key_of(folder).for_account(account), clock)
    return open_checkpoint(signed.note, key.name, [key]).size


# What a key says of the next.


def test_an_endorsement_names_the_next_key_of_the_same_log() -> None:
    """The old key verifies it, and nothing else is taken for one."""
    old, new = SignerKey("a/b", bytes(32)), SignerKey("a/b", b"1" * 32)
    note = sign_endorsement(old, new.verifier)
    assert open_endorsement(note, old.verifier) == new.verifier
    for key in (new.verifier, SignerKey("a/c", bytes(32)).verifier):
        with pytest.raises(ProofError):
            open_endorsement(note, key)
    with pytest.raises(ProofError):
        sign_endorsement(old, SignerKey("a/c", b"1" * 32).verifier)
    with pytest.raises(ProofError):
        open_checkpoint(note, "a/b", [old.verifier])
    header = note.decode().partition("\n")[0]
    other = SignerKey("a/c", b"1" * 32).verifier
    for text in ("a/b\n", f"{header}\n", f"{header}\na/c\n{new.verifier}\n", f"{header}\na/b\n{other}\n"):
        with pytest.raises(ProofError):
            open_endorsement(sign_note(text, [old]), old.verifier)


# A change.


def test_every_log_tells_the_change_and_the_old_key_vouches_for_the_new(folder: DataFolder) -> None:
    """Old checkpoints are still verified with the old key, and are the beginning of those by the new one."""
    old = key_of(folder)
    before = {}
    for name in ACCOUNTS:
        with folder.account(name) as store:
            before[name] = log.checkpoint(store, old.for_account(name), clock)
    change = rotation.rotate(folder, "ann", clock, reason="once a year")
    new = key_of(folder)
    assert new.signer == change.new != old.signer
    assert new.signer.name == NAME
    assert (folder.path / "log.key").stat().st_mode & 0o777 == 0o600
    for name in ACCOUNTS:
        old_key, new_key = old.for_account(name).verifier, new.for_account(name).verifier
        (details,) = changes(folder, name)
        assert details == {
            "oldKey": str(old_key),
            "newKey": str(new_key),
            "why": "replaced",
            "reason": "once a year",
            "endorsement": details["endorsement"],
        }
        assert open_endorsement(details["endorsement"].encode(), old_key) == new_key
        with folder.account(name) as store:
            after = log.checkpoint(store, new.for_account(name), clock)
            path = log.consistency(store, before[name].size, after.size)
        with pytest.raises(ProofError):
            open_checkpoint(after.note, old_key.name, [old_key])
        assert open_checkpoint(after.note, new_key.name, [new_key]).size == 3
        assert open_checkpoint(before[name].note, old_key.name, [old_key]).size == 2
        merkle.verify_consistency(2, 3, path, before[name].root, after.root)


def test_the_server_itself_says_so_and_no_secret_is_said(folder: DataFolder) -> None:
    """The stamp is not that of an API key; seeds are in no event, and in no file but that of the key."""
    secrets = [key_of(folder).signer]
    rotation.rotate(folder, "ann (command line)", clock)
    secrets.append(key_of(folder).signer)
    with folder.account("acme") as store:
        docs, _, _ = log.page(store, Query(order=Order.RECORDED), 9)
        event = decode_doc(docs[-1])
        stored = store.get(event.id or "")
    assert stored is not None
    assert json.loads(stored.stamp)["by"] == "auditplane"
    assert (event.user, event.action, event.account) == ("ann (command line)", "Updated", "acme")
    assert event.resourceName == f"{NAME}/acme"
    folder.close()
    for path in folder.path.rglob("*"):
        if path.is_file() and path.name != "log.key":
            content = path.read_bytes()
            for key in secrets:
                assert key.seed not in content
                assert base64.b64encode(key.seed).strip(b"=")[4:40] not in content
                assert key.secret.encode()[-30:] not in content


def test_a_key_that_leaked_vouches_for_nothing(folder: DataFolder) -> None:
    rotation.rotate(folder, "ann", clock, why=Why.LEAKED)
    (details,) = changes(folder, "default")
    assert details["why"] == "leaked"
    assert "endorsement" not in details


def test_keys_that_sign_no_more_are_kept(folder: DataFolder) -> None:
    """In the order of their use, with when and why."""
    keys = [key_of(folder).verifier]
    for at, why in enumerate((Why.REPLACED, Why.LEAKED)):
        rotation.rotate(folder, "ann", lambda at=at: START_US + at, why=why)  # type: ignore[misc]
        keys.append(key_of(folder).verifier)
    found = signing.retired_keys(folder.path)
    assert [each.key for each in found] == keys[:2]
    assert [each.why for each in found] == ["replaced", "leaked"]
    assert found[0].since == "-"
    assert found[1].since == found[0].until < found[1].until
    assert (folder.path / "log.retired").stat().st_mode & 0o777 == 0o600


def test_what_can_not_be_changed(folder: DataFolder, tmp_path: Path) -> None:
    """Is said, and nothing has changed then."""
    before = key_of(folder)
    with pytest.raises(InvalidInput, match="one line"):
        rotation.rotate(folder, "ann", clock, reason="a\nb")
    with pytest.raises(InvalidInput, match="not lost"):
        rotation.rotate(folder, "ann", clock, why=Why.LOST)
    with pytest.raises(InvalidConfig, match=r"log\.name"):
        rotation.rotate(folder, "ann", clock, name="other")
    with rotation.alone(folder.path), pytest.raises(FolderInUse):
        rotation.rotate(folder, "ann", clock)
    (folder.path / "log.retired").write_text("nonsense\n")
    with pytest.raises(StoreError, match=r"log\.retired"):
        rotation.rotate(folder, "ann", clock)
    assert key_of(folder) == before
    assert changes(folder, "default") == []
    assert not (folder.path / "log.key.next").exists()
    (folder.path / "log.key").unlink()
    with pytest.raises(NotFound, match="--lost"):
        rotation.rotate(folder, "ann", clock)


# Crashes.


class CrashError(Exception):
    """The process ends here."""


def crash_at(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Has the change end before one of its steps is done: 0 is the first."""
    steps = 0

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **members: Any) -> Any:
            nonlocal steps
            steps += 1
            if steps > step:
                raise CrashError
            return function(*args, **members)

        return call

    monkeypatch.setattr("auditplane.rotation.write_secret", counted(write_secret))
    monkeypatch.setattr("auditplane.signing.write_secret", counted(write_secret))
    monkeypatch.setattr("auditplane.rotation.sync_folder", counted(sync_folder))
    monkeypatch.setattr(log, "record", counted(log.record))


STEPS = 1 + len(ACCOUNTS) + 1 + 1 + 1  # next, events, retired, key, the removal


@pytest.mark.parametrize("ended_by", ["rotate", "serve", "leaked"])
@pytest.mark.parametrize("step", range(STEPS + 1))
def test_a_crash_at_any_step(
    folder: DataFolder, monkeypatch: pytest.MonkeyPatch, step: int, ended_by: str
) -> None:
    """The key that signs is told of in every log before; what was begun is ended once, not twice."""
    old = key_of(folder)
    with monkeypatch.context() as patch:
        crash_at(patch, step)
        if step < STEPS:
            with pytest.raises(CrashError):
                rotation.rotate(folder, "ann", clock)
        else:
            rotation.rotate(folder, "ann", clock)
    for name in ACCOUNTS:
        if key_of(folder) != old:
            assert changes(folder, name)[-1]["newKey"] == str(key_of(folder).for_account(name).verifier)
        open_with(folder, name, key_of(folder).for_account(name).verifier)
    pending = rotation._begun(folder.path)
    assert (pending is not None) == (0 < step < STEPS - 1)
    if ended_by == "serve":
        rotation.prepare(folder, None, None, clock)
    else:
        change = rotation.rotate(
            folder, "ann", clock, why=Why.REPLACED if ended_by == "rotate" else Why.LEAKED
        )
        assert (change == pending) == (ended_by == "rotate" and pending is not None)
    assert not (folder.path / "log.key.next").exists()
    expected = {"serve": int(step > 0), "rotate": 1 + int(step >= STEPS - 1), "leaked": 1 + int(step > 0)}
    assert len(signing.retired_keys(folder.path)) == expected[ended_by]
    for name in ACCOUNTS:
        told = changes(folder, name)
        assert len(told) == expected[ended_by]
        keys = [str(old.for_account(name).verifier), *(each["newKey"] for each in told)]
        assert [each["oldKey"] for each in told] == keys[:-1]
        assert keys[-1] == str(key_of(folder).for_account(name).verifier)
        for each in told:
            if each["why"] == "replaced":
                open_endorsement(each["endorsement"].encode(), parse_verifier_key(each["oldKey"]))


KILLED = """
import os, signal, sys
from pathlib import Path
from auditplane import log, rotation
from auditplane.store.sqlite.folder import DataFolder
steps = int(sys.argv[2])
def traced(frame, event, _):
    global steps
    if event == "call" and frame.f_code.co_filename.endswith(("rotation.py", "signing.py", "folder.py")):
        steps -= 1
        if not steps:
            os.kill(os.getpid(), signal.SIGKILL)
sys.setprofile(traced)
rotation.rotate(DataFolder(Path(sys.argv[1])), "killed", log.clock)
"""


def test_a_process_that_is_killed_anywhere(folder: DataFolder) -> None:
    """Leaves a change that is ended by the next, or none: keys follow one another in every log, each once."""
    first = key_of(folder)
    folder.close()
    killed = 0
    for steps in range(1, 160, 9):
        done = subprocess.run([sys.executable, "-c", KILLED, str(folder.path), str(steps)], check=False)
        assert done.returncode in (0, -signal.SIGKILL)
        killed += done.returncode != 0
    assert killed > 5
    opened = FreeFolder(folder.path)
    rotation.rotate(opened, "ann", clock)
    retired = len(signing.retired_keys(opened.path))
    for name in ACCOUNTS:
        told = changes(opened, name)
        assert len(told) == retired
        keys = [str(first.for_account(name).verifier), *(each["newKey"] for each in told)]
        assert [each["oldKey"] for each in told] == keys[:-1]
        assert len(set(keys)) == len(keys) > 2
        assert keys[-1] == str(key_of(opened).for_account(name).verifier)
        assert all(each["endorsement"] for each in told)
    opened.close()


def test_an_account_that_comes_to_be_meanwhile(folder: DataFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Gets the event too, before the new key signs."""
    recording = rotation._record

    def record_and_more(*args: Any) -> None:
        recording(*args)
        with folder.account("late") as store:
            if not store.size():
                record(store, [spec()])

    monkeypatch.setattr(rotation, "_record", record_and_more)
    rotation.rotate(folder, "ann", clock)
    assert changes(folder, "late")[0]["endorsement"]


def test_a_change_that_was_begun_long_ago_is_ended(
    folder: DataFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where what was recorded of it may have expired, it is told once more."""
    with monkeypatch.context() as patch:
        crash_at(patch, 2)
        with pytest.raises(CrashError):
            rotation.rotate(folder, "ann", clock)

    def expired(store: AccountStore, event_id: str) -> None:
        raise Gone("It has expired.")

    monkeypatch.setattr(AccountStore, "get", expired)
    rotation.prepare(folder, None, None, clock)
    assert not (folder.path / "log.key.next").exists()
    key = str(key_of(folder).for_account("default").verifier)
    assert [each["newKey"] for each in changes(folder, "default")] == [key]


def test_a_key_that_was_put_there_meanwhile_is_kept(
    folder: DataFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was begun from another one is not ended over it; a server starts with it all the same."""
    with monkeypatch.context() as patch:
        crash_at(patch, 2)
        with pytest.raises(CrashError):
            rotation.rotate(folder, "ann", clock)
    signing.make_log_key(folder.path, "test")
    put = key_of(folder)
    with pytest.raises(StoreError, match=r"log\.key\.next"):
        rotation.rotate(folder, "ann", clock)
    rotation.prepare(folder, None, None, clock)
    assert key_of(folder) == put


WRONG_TYPES = '{"id": "x", "at": 1, "user": "a", "reason": "b", "why": "replaced", "old": 1, "new": 1}'


@pytest.mark.parametrize("content", ["", "nonsense", "{}", '{"id": 1}', "[]", "[" * 9_000, WRONG_TYPES])
def test_a_next_key_that_can_not_be_read(folder: DataFolder, content: str) -> None:
    """Is said to be removed, without a word of what is in it."""
    (folder.path / "log.key.next").write_text(content)
    with pytest.raises(StoreError, match="Remove it"):
        rotation.rotate(folder, "ann", clock)
    rotation.prepare(folder, None, None, clock)


# A key that is lost.


def test_a_missing_key_is_not_replaced_by_itself(folder: DataFolder) -> None:
    """Logs that have signed something keep their name; a server says what to do."""
    (folder.path / "log.key").unlink()
    with pytest.raises(StoreError, match="--lost"):
        rotation.prepare(folder, None, None, clock)
    assert not (folder.path / "log.key").exists()
    with pytest.raises(InvalidInput, match=NAME):
        rotation.rotate(folder, "ann", clock, why=Why.LOST, name="other")
    rotation.rotate(folder, "ann", clock, why=Why.LOST)
    assert key_of(folder).signer.name == NAME
    (details,) = changes(folder, "acme")
    assert (details["why"], details["oldKey"]) == ("lost", None)
    assert "endorsement" not in details
    rotation.prepare(folder, None, None, clock)
    assert open_with(folder, "acme", key_of(folder).for_account("acme").verifier) == 3


def test_a_lost_key_of_which_nothing_tells(tmp_path: Path) -> None:
    """Its name must be said. A server makes a key for logs that have signed nothing."""
    folder = FreeFolder(tmp_path / "data")
    with folder.account("default") as store:
        record(store, [spec()])
    with pytest.raises(InvalidInput, match="--name"):
        rotation.rotate(folder, "ann", clock, why=Why.LOST)
    rotation.rotate(folder, "ann", clock, why=Why.LOST, name="told")
    assert key_of(folder).signer.name == "auditplane/told"
    (folder.path / "log.key").unlink()
    rotation.prepare(folder, "new", None, clock)
    assert key_of(folder).signer.name == "auditplane/new"
    folder.close()


# The key of a server that runs.


def test_a_note_of_another_process_by_the_key_before_is_not_passed_on(
    folder: DataFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It had read the old key a moment before, and stored its note a moment later: this one signs again."""
    old = key_of(folder).for_account("acme")
    rotation.rotate(folder, "ann", clock)
    new = key_of(folder).for_account("acme")
    keep = AccountStore.keep_checkpoint

    with folder.account("acme") as store:

        def overtaken(store: AccountStore, signed: Signed) -> Signed:
            monkeypatch.undo()
            record(store, [spec(5)])
            log.checkpoint(store, old, clock, size_min=4)
            return keep(store, signed)

        monkeypatch.setattr(AccountStore, "keep_checkpoint", overtaken)
        signed = log.checkpoint(store, new, clock)
        assert open_checkpoint(signed.note, new.name, [new.verifier]).size == 4


def test_the_key_file_is_read_when_it_is_another_one(folder: DataFolder) -> None:
    """One that can't be used signs nothing, until one that can is there."""
    keys = signing.KeyFile(folder.path, None, None)
    path = folder.path / "log.key"
    first = keys.current()
    assert keys.current() is first
    rotation.rotate(folder, "ann", clock)
    second = keys.current()
    assert second == key_of(folder) != first
    good = path.read_text()
    path.unlink()
    with pytest.raises(StoreError):
        keys.current()
    path.write_text("nonsense")
    with pytest.raises(StoreError):
        keys.current()
    signing.make_log_key(folder.path, "other")
    with pytest.raises(StoreError, match="other"):
        keys.current()
    path.write_text(good)
    assert keys.current() == second


def test_a_change_under_a_server_that_records(tmp_path: Path) -> None:
    """Both workers sign with the new key from then on, nothing recorded is lost, and the log goes on."""
    data = tmp_path / "data"
    with start(data, "--workers", "2") as server:
        admin = server.admin_key
        recorded(server, admin, 10)
        old_key, old = verifier(server, "default", admin), checkpoint(server, "default", admin)
        ids: list[str] = []
        done = threading.Event()

        def go_on() -> None:
            while not done.is_set():
                ids.extend(recorded(server, admin, 5))

        threads = [threading.Thread(target=go_on) for _ in range(3)]
        for thread in threads:
            thread.start()
        printed = run("log", "rotate", "--data", data, "--reason", "a test")
        seen = {got(server, "/v1/log/default/key", admin) for _ in range(40)}
        notes = [got(server, "/v1/log/default/checkpoint", admin) for _ in range(40)]
        done.set()
        for thread in threads:
            thread.join()
        assert (printed.returncode, printed.stderr) == (0, "")
        (text,) = seen
        assert text.decode() == printed.stdout
        new_key = parse_verifier_key(text.decode().strip())
        assert new_key.name == old_key.name
        assert new_key != old_key
        *_, new = [open_checkpoint(note, new_key.name, [new_key]) for note in notes]
        path = json.loads(got(server, f"/v1/log/default/consistency?from={old.size}&to={new.size}", admin))[
            "path"
        ]
        hashes = [base64.b64decode(each) for each in path]
        merkle.verify_consistency(old.size, new.size, hashes, old.root, new.root)
        query = "/v1/audit-events?resource-kind=AuditTrail&action=Updated"
        (event,) = json.loads(got(server, query, admin))
        assert open_endorsement(event["details"]["endorsement"].encode(), old_key) == new_key
        count = json.loads(got(server, "/v1/audit-events/count?resource-kind=Agent", admin))["count"]
        assert count == 10 + len(ids)
        assert "PRIVATE" not in server.output + printed.stdout + printed.stderr
    listed = run("log", "key", "--data", data, "--all", "-o", "json")
    rows = json.loads(listed.stdout)
    assert [row["key"] for row in rows] == [str(old_key), str(new_key)]
    assert [row["state"] for row in rows] == ["replaced", "signs"]
    assert str(old_key) in run("log", "key", "--data", data, "--all").stdout


def test_a_key_that_is_kept_elsewhere_is_changed_as_the_message_says(tmp_path: Path) -> None:
    data, kept = tmp_path / "data", tmp_path / "kept.key"
    with start(data):
        pass
    (data / "log.key").rename(kept)
    env = {"AUDITPLANE_LOG_KEY": str(kept)}
    with start(data, env=env) as server:
        _, key = make_key(data, "reader")
        old = checkpoint(server, "default", key)
        refused = run("log", "rotate", "--data", data, env=env)
        assert (refused.returncode, refused.stdout) == (2, "")
        assert str(kept) in refused.stderr
        (data / "log.key").write_text(kept.read_text())
        assert run("log", "rotate", "--data", data).returncode == 0
        (data / "log.key").rename(kept)
        new_key = verifier(server, "default", key)
        note = got(server, "/v1/log/default/checkpoint", key)
        assert open_checkpoint(note, new_key.name, [new_key]).size > old.size
        kept.unlink()
        status, _, body = ask(server, "/v1/log/default/checkpoint", key)
        assert status == 500
        assert "log key" in json.loads(body)["errors"][0]
        assert got(server, "/v1/audit-events", key)


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--leaked", "--lost"], "don't go together"),
        (["--name", "x"], "--lost"),
        (["--lost", "--name", "a/b"], "letters, digits"),
    ],
)
def test_flags_that_make_no_sense(tmp_path: Path, flags: list[str], told: str) -> None:
    done = run("log", "rotate", "--data", tmp_path, *flags)
    assert (done.returncode, done.stdout) == (2, "")
    assert told in done.stderr
