"""What stands behind the end of a write-ahead log is told of, before it is written over."""

import os
import random
import shutil
from contextlib import closing
from pathlib import Path

import pytest

from auditplane import checking
from auditplane.errors import StoreError
from auditplane.store.sqlite.account import AccountStore, sync_failed
from auditplane.store.sqlite.wal import commits_behind, copy_again, is_whole
from engine_model import opened, record, spec
from server import run, start
from tenants import EVENTS, client, event, recorded

COMMITS = 30
ALL_COMMITS = COMMITS + 1
"""With that of the tables."""
HEADER_BYTES = 32
TOLD = "its write-ahead log breaks off, and "


def flip(wal: Path, bit: int) -> None:
    """Changes a bit of a file."""
    data = bytearray(wal.read_bytes())
    data[bit // 8] ^= 1 << bit % 8
    wal.write_bytes(data)


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log of so many commits that only its write-ahead log has, as a kill leaves it."""
    folder = tmp_path_factory.mktemp("wal")
    with opened(folder / "open.db") as store:
        for at in range(COMMITS):
            record(store, [spec(at)])
        for suffix in ("", "-wal"):
            shutil.copy(folder / f"open.db{suffix}", folder / f"left.db{suffix}")
    return folder / "left.db"


def test_a_log_that_is_whole_or_empty_has_nothing_behind_its_end(log: Path, tmp_path: Path) -> None:
    assert commits_behind(log) == 0
    with opened(tmp_path / "default.db") as store:
        record(store, [spec()])
    assert commits_behind(tmp_path / "default.db") == 0
    assert commits_behind(tmp_path / "none.db") == 0


@pytest.mark.parametrize("byte", range(HEADER_BYTES))
def test_a_bit_of_the_head_hides_all(byte: int, log: Path, tmp_path: Path) -> None:
    wal = copied(log, tmp_path)
    flip(wal, byte * 8 + byte % 8)
    lost, behind = look(tmp_path / "default.db")
    assert behind == (0 if lost == 0 else ALL_COMMITS)


@pytest.mark.parametrize("seed", range(20))
def test_what_a_flipped_bit_hides_is_counted(seed: int, log: Path, tmp_path: Path) -> None:
    """All commits from the one with the bit on; that one may be beyond knowing."""
    wal = copied(log, tmp_path)
    flip(wal, random.Random(seed).randrange(HEADER_BYTES * 8, wal.stat().st_size * 8))
    before = wal.read_bytes()
    lost, behind = look(tmp_path / "default.db")
    assert wal.read_bytes() == before
    assert lost - 1 <= behind <= lost or (lost, behind) == (COMMITS, ALL_COMMITS)


def copied(log: Path, folder: Path) -> Path:
    """The write-ahead log of a copy of a log."""
    shutil.copy(log, folder / "default.db")
    return Path(shutil.copy(log.with_name("left.db-wal"), folder / "default.db-wal"))


def look(path: Path) -> tuple[int, int]:
    """How many events a log lacks, and how many commits stand behind the end of its write-ahead log."""
    behind = commits_behind(path)
    try:
        with closing(AccountStore(path, readonly=True)) as store:
            return COMMITS - store.size(), behind
    except StoreError:  # the first commit, which makes the tables, is among them
        return COMMITS, behind


@pytest.mark.parametrize("commits", [0, 1, 7])
def test_an_open_log_is_whole_as_long_as_no_bit_changes(commits: int, tmp_path: Path) -> None:
    """Of what SQLite takes for written: what is behind that is not looked at."""
    path = tmp_path / "default.db"
    with opened(path) as store:
        store.checkpoint(whole=True)
        for at in range(commits):
            record(store, [spec(at)])
        wal = path.with_name("default.db-wal")
        assert is_whole(path)
        data = wal.read_bytes()
        for seed in range(20 if commits else 0):
            flip(wal, random.Random(seed).randrange(len(data) * 8))
            assert not is_whole(path)
            wal.write_bytes(data)
        assert is_whole(path)
        wal.write_bytes(data + b"behind the end")
        assert is_whole(path)
        wal.write_bytes(data[:-1])
        assert is_whole(path) == (not commits)
        wal.write_bytes(data)


def test_looking_whether_a_log_is_whole_drops_no_lock(tmp_path: Path) -> None:
    """To close a file drops all locks of the process on it: a reader would lose the view that he holds."""

    def locks() -> set[tuple[str, ...]]:
        """Of this process on the log's files, as lslocks(8) reads them: other tests' come and go."""
        files = {str(file.stat().st_ino) for file in tmp_path.iterdir()}
        found = [tuple(line.split()[1:]) for line in Path("/proc/locks").read_text().splitlines()]
        return {lock for lock in found if lock[3] == str(os.getpid()) and lock[4].split(":")[2] in files}

    path = tmp_path / "default.db"
    with opened(path) as store:
        for at in range(3):
            record(store, [spec(at)])
        store.checkpoint(whole=False)
        with store.snapshot() as connection:
            assert store.size_in(connection) == 3
            before = locks()
            assert len([lock for lock in before if lock[0] == "POSIX"]) >= 2
            assert is_whole(path)
            with store._kept() as keeper:
                copy_again(path, keeper)
            assert locks() == before
        assert not checking.check(store, deep=True).problems


@pytest.mark.parametrize("copied", [False, True])
def test_what_was_copied_is_copied_again(copied: bool, tmp_path: Path) -> None:
    """Pages that a failed sync forgot stand in the log; those that were not copied yet are left alone."""
    path = tmp_path / "default.db"
    with opened(path) as store:
        record(store, [spec(0)])
        store.checkpoint(whole=True)
        before = path.read_bytes()
        for at in range(40):
            record(store, [spec(at)])
        if copied:
            store.checkpoint(whole=False)
        after = path.read_bytes()
        assert (after == before) != copied
        path.write_bytes(before)
        with store._kept() as keeper:
            copy_again(path, keeper)
        assert path.read_bytes() == after


def test_nothing_is_recorded_behind_what_the_disk_has_lost(tmp_path: Path) -> None:
    """After a sync that failed the system may show what stood there before; a start takes what is left."""
    path = tmp_path / "default.db"
    with opened(path) as store:
        (kept,) = record(store, [spec(0)])
        before = path.with_name("default.db-wal").stat().st_size
        record(store, [spec(1)])
        with pytest.raises(OSError, match="the disk"), store._syncs.noting():
            raise OSError("the disk failed")
        wal = path.with_name("default.db-wal")
        data = wal.read_bytes()
        wal.write_bytes(data[:before] + bytes(len(data) - before))
        for _ in range(2):
            with pytest.raises(StoreError, match="Stop the server and"):
                record(store, [spec(2)])
        assert sync_failed(path)
    with opened(path) as store:
        (last,) = record(store, [spec(3)])
        assert not sync_failed(path)
        assert [store.get(each) is not None for each in (kept, last)] == [True, True]
        assert store.size() == 2


def test_it_is_told_by_the_check_and_at_the_start_and_a_kill_alone_hides_nothing(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with start(data) as server, client(server.url, server.admin_key) as admin:
        for _ in range(10):
            recorded(admin.post(EVENTS, json=event()))
        server.kill()
    assert TOLD not in run("verify", "--data", data).stdout
    wal = data / "accounts" / "default.db-wal"
    flip(wal, wal.stat().st_size * 8 // 2)
    found = run("verify", "--data", data)
    assert f"default: {TOLD}" in found.stdout
    with start(data) as server:
        assert f"account default: {TOLD}" in server.output
        assert server.stop() == 0
    with start(data) as server:
        assert TOLD not in server.output
