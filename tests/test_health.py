import asyncio
import json
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import apsw
import pytest

from auditplane import log, recorder
from auditplane.access import Access
from auditplane.event import Rules, parse
from auditplane.http import health
from auditplane.http.health import Health
from auditplane.recorder import Recorder
from folders import FreeFolder
from tenants import event


class Served:
    """What a worker has of a folder, and its health, which looks each time."""

    def __init__(self, path: Path) -> None:
        self.folder = FreeFolder(path)
        self.access = Access(self.folder, log.clock)
        self.results: list[log.Result] = []
        self._delivered = threading.Event()
        self.recorder = Recorder(self.folder, log.clock, self._deliver)
        self.health = Health(self.folder, self.access, self.recorder, probe_seconds=0, again_seconds=0)

    def _deliver(self, results: object) -> None:
        self.results += [result for _, result in results]  # type: ignore[attr-defined]
        self._delivered.set()

    def record(self, account: str) -> log.Result:
        """Records an event."""
        self._delivered.clear()
        batch = parse(json.dumps(event()).encode(), Rules(account=account))
        self.recorder.submit(account, log.Request(batch, "test"))
        assert self._delivered.wait(10)
        return self.results[-1]

    def trouble(self) -> str:
        """What a single question gets."""
        return asyncio.run(self.health.trouble())

    def close(self) -> None:
        self.recorder.close()
        self.access.close()
        self.folder.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A folder with two accounts."""
    path = tmp_path / "data"
    folder = FreeFolder(path)
    access = Access(folder, log.clock)
    access.ensure_admin_key()
    with folder.account("other"):
        pass
    access.close()
    folder.close()
    return path


@pytest.fixture
def served(path: Path) -> Iterator[Served]:
    made = Served(path)
    yield made
    made.close()


def garble(path: Path, account: str) -> Callable[[], int]:
    """Puts garbage in the place of a log; what is returned puts it back."""
    database = path / "accounts" / f"{account}.db"
    whole = database.read_bytes()
    database.write_bytes(b"no database at all" * 1_000)
    return lambda: database.write_bytes(whole)


def test_a_sound_folder_is_healthy_however_often_somebody_asks(served: Served) -> None:
    """Also while an account is recorded to and comes to be."""
    for _ in range(20):
        assert served.trouble() == ""
        assert not isinstance(served.record("default"), Exception)
        assert not isinstance(served.record("fresh"), Exception)


def test_the_file_is_written_once_in_a_while(path: Path, served: Served) -> None:
    """However often somebody asks, the disk is not kept busy."""
    served.health = Health(served.folder, served.access, served.recorder)
    assert served.trouble() == ""
    (path / health.PROBE_FILE).unlink()
    began = time.monotonic()
    for _ in range(50):
        assert served.trouble() == ""
    assert time.monotonic() < began + health.PROBE_SECONDS
    assert not (path / health.PROBE_FILE).exists()


def test_many_may_ask_at_once(served: Served) -> None:
    """Each hears what was found, whoever begins the next look meanwhile."""

    async def ask() -> None:
        for _ in range(50):
            assert await served.health.trouble() == ""

    async def ask_at_once() -> None:
        await asyncio.gather(*[ask() for _ in range(20)])

    asyncio.run(ask_at_once())


def test_a_disk_that_hangs_gets_an_answer_in_bounded_time(path: Path, served: Served) -> None:
    """To open a pipe that nobody reads hangs as a disk does; when it ends, so does the trouble."""

    async def ask() -> None:
        os.mkfifo(path / health.PROBE_FILE)
        began = time.monotonic()
        answers = await asyncio.gather(*[served.health.trouble() for _ in range(3)])
        assert answers == [health.SILENT] * 3
        assert time.monotonic() < began + health.ANSWER_SECONDS_MAX + 1
        reading = os.open(path / health.PROBE_FILE, os.O_RDONLY | os.O_NONBLOCK)
        (path / health.PROBE_FILE).unlink()
        while await served.health.trouble():
            await asyncio.sleep(0.01)
            assert time.monotonic() < began + 20
        os.close(reading)

    asyncio.run(ask())


def test_a_full_disk_and_one_that_is_read_only_are_told_and_end(tmp_path: Path) -> None:
    """The words are for anybody: they name no path."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("needs a root who may mount a tmpfs")
    try:
        served = Served(disk)
        served.access.ensure_admin_key()
        assert served.trouble() == ""
        with pytest.raises(OSError, match="No space"):
            (disk / "filler").write_bytes(bytes(8 * 1024 * 1024))
        assert served.trouble() == health.FULL
        (disk / "filler").unlink()
        assert served.trouble() == ""
        served.close()
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        assert served.trouble() == health.FAILS
        subprocess.run(["mount", "-o", "remount,rw", disk], check=True)
        served = Served(disk)
        assert served.trouble() == ""
        served.close()
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)


def test_a_damaged_account_takes_no_server_away_from_the_others(path: Path) -> None:
    """Only when there is none left that can be recorded to is that trouble, and it ends with it."""
    restore = garble(path, "default")
    served = Served(path)
    assert isinstance(served.record("default"), Exception)
    assert served.trouble() == ""
    restore_other = garble(path, "other")
    assert served.trouble() == health.NO_ACCOUNT
    restore_other()
    assert served.trouble() == ""
    restore()
    assert not isinstance(served.record("default"), Exception)
    assert served.trouble() == ""
    served.close()


def test_recording_that_fails_is_trouble_though_the_log_can_be_read(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was seen a moment ago counts, until it succeeds or some seconds have passed."""
    (path / "accounts" / "other.db").unlink()
    database = str(path / "accounts" / "default.db")
    change(database, "CREATE TRIGGER fail BEFORE INSERT ON tail BEGIN SELECT RAISE(FAIL, 'no'); END")
    served = Served(path)
    assert served.trouble() == ""
    assert isinstance(served.record("default"), Exception)
    assert served.trouble() == health.NO_ACCOUNT
    change(database, "DROP TRIGGER fail")
    assert served.trouble() == health.NO_ACCOUNT
    assert not isinstance(served.record("default"), Exception)
    assert served.trouble() == ""
    change(database, "CREATE TRIGGER fail BEFORE INSERT ON tail BEGIN SELECT RAISE(FAIL, 'no'); END")
    assert isinstance(served.record("default"), Exception)
    assert served.trouble() == health.NO_ACCOUNT
    monkeypatch.setattr(recorder, "FAILING_SECONDS", 0.0)  # else nobody would find out that it is over
    assert served.trouble() == ""
    served.close()


def change(database: str, statement: str) -> None:
    connection = apsw.Connection(database)
    connection.set_busy_timeout(5_000)
    connection.execute(statement).fetchall()
    connection.close()


@pytest.mark.parametrize("end", ["", "-wal", "-shm"])
def test_a_log_that_was_moved_away_is_trouble(path: Path, end: str) -> None:
    """Long after somebody could not record to it, as long as it is not back."""
    (path / "accounts" / "other.db").unlink()
    served = Served(path)
    assert not isinstance(served.record("default"), Exception)
    assert served.trouble() == ""
    file = path / "accounts" / f"default.db{end}"
    moved = file.rename(path / "elsewhere")
    assert served.trouble() == health.NO_ACCOUNT
    moved.rename(file)
    assert served.trouble() == ""
    served.close()


def test_what_a_caller_got_wrong_is_no_trouble(served: Served) -> None:
    """A conflict and a date of the future are refused, and the log is as sound as before."""
    one = event(id="01JQ0000000000000000000000")
    for body in (one, {**one, "user": "another"}, event(timestamp="2999-01-01T00:00:00Z")):
        batch = parse(json.dumps(body).encode(), Rules())
        served.recorder.submit("default", log.Request(batch, "test"))
    served.recorder.close()
    assert [isinstance(result, Exception) for result in served.results] == [False, True, True]
    assert served.trouble() == ""


def test_keys_that_are_gone_are_trouble(path: Path, served: Served) -> None:
    """The server goes on with what it has open, but its next start would let nobody in."""
    control = path / "control.db"
    whole = control.rename(path / "elsewhere")
    assert served.trouble() == health.NO_KEYS
    assert not control.exists()
    whole.rename(control)
    assert served.trouble() == ""


def test_folders_without_a_log_are_trouble(path: Path, served: Served) -> None:
    """A folder whose accounts are gone takes no event."""
    (path / "accounts").rename(path / "elsewhere")
    assert served.trouble() == health.NO_ACCOUNT
    (path / "elsewhere").rename(path / "accounts")
    assert served.trouble() == ""
