"""`auditplane verify --data`: what it prints, what it exits with, what it remembers, what it leaves alone."""

import itertools
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from subprocess import CompletedProcess

import apsw
import pytest

from auditplane import log
from auditplane.checkpoint import SignerKey
from auditplane.event import Rules, parse
from auditplane.signing import log_key, make_log_key
from auditplane.store.sqlite import sealing
from engine_model import memory_folder
from folders import FreeFolder
from server import run, start
from trails import made_folder

Tree = dict[str, tuple[int, int, bytes]]

CLOCKS = itertools.count()


def record(path: Path, events: int, *, sign: bool = True, account: str = "default") -> None:
    """Adds events to a folder, and signs a checkpoint of them."""
    folder = FreeFolder(path)
    body = ",".join(
        f'{{"resourceName":"n{n}","resourceKind":"Source","action":"A","user":"u"}}' for n in range(events)
    )
    with folder.account(account) as store:
        batch = parse(f"[{body}]".encode(), Rules(account=account))
        (result,) = log.record(store, [log.Request(batch, "key")], log.clock)
        assert not isinstance(result, Exception)
        sealing.settle(store)
        if sign:
            later_us = next(CLOCKS) * 2 * log.CHECKPOINT_US  # else the last one would be new enough
            key = log_key(path, None, None).for_account(account)
            log.checkpoint(store, key, lambda: log.clock() + later_us)
    folder.close()


@pytest.fixture(scope="module")
def original() -> Iterator[Path]:
    with memory_folder() as folder:
        path = made_folder(folder / "data")
        make_log_key(path, "test")
        record(path, 1_500)
        yield path


@pytest.fixture
def data(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "data"))


def tree(path: Path) -> Tree:
    """Every file of a folder: mode, time, and what is in it."""
    return {
        str(file): (
            file.stat().st_mode,
            file.stat().st_mtime_ns,
            file.read_bytes() if file.is_file() else b"",
        )
        for file in [path, *path.rglob("*")]
    }


def verify(data: Path, *args: str | Path) -> CompletedProcess[str]:
    return run("verify", "--data", data, *args, env={"XDG_STATE_HOME": str(data.parent / "home")})


def change(data: Path, statement: str, account: str = "default") -> None:
    connection = apsw.Connection(str(data / "accounts" / f"{account}.db"))
    connection.execute(statement).fetchall()
    connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
    connection.close()


@pytest.mark.parametrize("flags", [[], ["--deep"], ["--account", "default"]])
def test_a_whole_folder_is_told_and_left_as_it_is(data: Path, flags: list[str]) -> None:
    """Size, events, checkpoint; exit 0; and not a file is made or changed."""
    before = tree(data)
    done = verify(data, *flags)
    assert (done.returncode, done.stderr) == (0, ""), done
    lines = done.stdout.splitlines()
    assert lines[0] == "default: whole"
    assert lines[1].startswith("  size       1,501 entries, ")
    assert lines[3] == "  events     1,501 there, 0 gone"
    assert lines[4].startswith("  checkpoint of 1,501 entries, signed 20")
    assert lines[-1] == f"Nothing is wrong with 1 log in {data}."
    assert tree(data) == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_can_not_be_written_is_checked_as_owner(data: Path) -> None:
    for file in (data, data / "accounts"):
        file.chmod(0o500)
    try:
        assert verify(data).returncode == 0
    finally:
        for file in (data, data / "accounts"):
            file.chmod(0o700)


def test_each_problem_is_a_line_and_the_exit_is_1(data: Path) -> None:
    change(data, "UPDATE log SET live = live + 1")
    done = verify(data)
    assert done.returncode == 1
    assert done.stdout.startswith("default: problems: 1\n")
    assert "default: the row of the log counts 1502 events; 1501 are there\n" in done.stdout
    assert done.stderr.startswith(f"auditplane: Problems found in {data}: 1, each named above. ")


def test_a_checkpoint_is_remembered_and_held_against_the_log(data: Path) -> None:
    """Yesterday's file, put back today, is shorter than what this machine remembers."""
    yesterday = (data / "accounts" / "default.db").read_bytes()
    assert "continues" not in verify(data).stdout
    record(data, 10)
    done = verify(data)
    assert "  continues  the checkpoint of 1501 entries remembered at " in done.stdout
    (data / "accounts" / "default.db").write_bytes(yesterday)
    done = verify(data)
    assert done.returncode == 1
    assert "default: the log is shorter than the checkpoint of 1511 entries remembered at " in done.stdout
    # What was found wrong is not remembered in place of what was right.
    assert verify(data).returncode == 1
    assert verify(data, "--state", data.parent / "other").returncode == 0
    assert (data.parent / "other" / "auditplane_test_default.checkpoint").exists()


def test_what_another_key_signed_is_compared_too(data: Path) -> None:
    """A folder made anew under the same name, with a key of its own, is not the log that is remembered."""
    verify(data)
    shutil.rmtree(data)
    made_folder(data)
    make_log_key(data, "test")
    record(data, 1_600)
    done = verify(data)
    assert done.returncode == 1
    assert "is signed by another key, and compared all the same" in done.stdout
    assert "the log is not the continuation of the checkpoint of 1501 entries remembered at" in done.stdout


def test_the_key_that_was_kept_tells_a_log_signed_by_another(data: Path, tmp_path: Path) -> None:
    """As text, or as the file it is in."""
    verifier = log_key(data, None, None).for_account("default").verifier
    file = tmp_path / "log.vkey"
    file.write_text(f"{verifier}\n")
    for key in (str(verifier), file):
        assert verify(data, "--key", key).returncode == 0
    other = SignerKey(verifier.name, bytes(32)).verifier
    done = verify(data, "--key", str(other))
    assert done.returncode == 1
    assert "default: the last checkpoint is not signed by the key of the log: No known key" in done.stdout
    assert verify(data, "--key", "nothing").returncode == 2
    assert verify(data, "--key", "a+b+c").returncode == 2


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda data: b"", "default: "),
        (lambda data: b"not a database at all" * 1_000, "default: The database in"),
        (lambda data: data[: len(data) // 2], "default: "),
        (
            lambda data: data[:16_384] + bytes(8_192) + data[24_576:],
            "default: ",
        ),  # the second is a map of pages
    ],
)
def test_a_file_that_is_no_database_is_a_problem(data: Path, damage: object, says: str) -> None:
    """One line, no traceback."""
    file = data / "accounts" / "default.db"
    assert callable(damage)
    file.write_bytes(damage(file.read_bytes()))
    for flags in ([], ["--deep"]):
        done = verify(data, *flags)
        assert done.returncode == 1, done
        assert says in done.stdout
        assert "Traceback" not in done.stderr
        assert done.stderr.startswith("auditplane: ")


def test_a_log_that_is_missing_is_told(data: Path) -> None:
    """The keys of its account tell that it was there."""
    record(data, 3, account="acme")
    (data / "accounts" / "default.db").unlink()
    done = verify(data)
    assert done.returncode == 1
    assert "default: it has API keys, which its log recorded, and the log is missing\n" in done.stdout
    assert "acme: whole\n" in done.stdout
    assert verify(data, "--account", "default").returncode == 1
    assert "There is no data folder" in verify(data.parent / "nowhere").stderr


def test_damage_in_the_database_of_the_keys_is_told(data: Path) -> None:
    content = bytearray((data / "control.db").read_bytes())
    content[8_192:8_292] = bytes(100)
    (data / "control.db").write_bytes(content)
    done = verify(data, "--deep")
    assert done.returncode == 1
    assert done.stdout.startswith("control.db: ")


def test_a_log_of_a_newer_format_is_not_guessed_at(data: Path) -> None:
    change(data, "PRAGMA user_version = 99")
    done = verify(data)
    assert done.returncode == 1
    assert "has format 99, written by a newer version" in done.stdout


def test_it_works_beside_a_server(tmp_path: Path) -> None:
    """Which goes on recording, and whose log it checks as it was at the start."""
    with start(tmp_path / "data") as server:
        for _ in range(3):
            server_data = tmp_path / "data"
            record(server_data, 200, sign=False)
            done = verify(server_data, "--deep")
            assert (done.returncode, done.stderr) == (0, ""), done
        assert server.process.poll() is None
