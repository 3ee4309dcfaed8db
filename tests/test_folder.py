"""The data folder and its files: names, modes, formats, locks, damage, and a full disk."""

import contextlib
import os
import random
import shutil
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path

import apsw
import pytest

from auditplane import checking, limits, log
from auditplane.access import Access
from auditplane.access.key import Role
from auditplane.errors import (
    Damaged,
    FolderInUse,
    LogMissing,
    NewerFormat,
    NotFound,
    StorageFull,
    StoreError,
)
from auditplane.query import Order, Query
from auditplane.render import Form
from auditplane.store.sqlite import sealing
from auditplane.store.sqlite.account import AccountStore
from auditplane.store.sqlite.database import connect, fetch, migrate, one
from auditplane.store.sqlite.folder import DataFolder, hold
from auditplane.store.sqlite.syncing import locked
from auditplane.times import format_us
from engine_model import (
    START_US,
    Model,
    ZstdError,
    entries,
    memory_folder,
    opened,
    record,
    request,
    shrink,
    spec,
    whole,
)
from folders import FreeFolder


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[DataFolder]:
    folder = FreeFolder(tmp_path / "data")
    yield folder
    folder.close()


def files(path: Path) -> list[Path]:
    return sorted(found for found in path.rglob("*"))


# Names and modes.


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "../control",
        "a/b",
        "/etc/passwd",
        "A",
        "a_b",
        "-a",
        "a" * 64,
        "a\n",
        "ä",
        "a.b",
        "a\0",
        "a b",
        "٣",
    ],
)
def test_what_is_no_name_of_an_account(folder: DataFolder, name: str) -> None:
    """Opens nothing, makes nothing, and tells nothing of other files."""
    (folder.path / "control.db").touch()
    before = files(folder.path.parent)
    with pytest.raises(NotFound), folder.account(name):
        pass
    assert not folder.has_log(name)
    assert files(folder.path.parent) == before


@pytest.mark.parametrize("name", ["a", "0", "a-", "a" * 63, "default"])
def test_names_of_accounts(folder: DataFolder, name: str) -> None:
    """Each has a log of its own from its first use on."""
    assert not folder.has_log(name)
    with folder.account(name) as store:
        record(store, [spec()])
    assert folder.has_log(name)
    assert folder.accounts() == [name]


def test_a_log_that_is_gone_does_not_begin_anew(tmp_path: Path) -> None:
    """Its account has keys, so it was there; it is put back, or given up by an empty file in its place."""
    data = tmp_path / "data"
    folder = DataFolder(data)
    access = Access(folder, log.clock)
    access.create(account="a", role=Role.ADMIN, by="tests")
    folder.close()
    moved = (data / "accounts" / "a.db").rename(tmp_path / "a.db")
    folder = DataFolder(data)
    for _ in range(2):
        with pytest.raises(LogMissing, match=r"touch .*/accounts/a\.db"), folder.account("a"):
            pass
        with pytest.raises(LogMissing):
            access.create(account="a", role=Role.ADMIN, by="tests")
    assert not folder.has_log("a")
    assert [key.account for key in access.keys(None)] == ["a"]
    moved.rename(data / "accounts" / "a.db")
    with folder.account("a") as store:
        assert store.size() == 1
    folder.close()
    for path in (data / "accounts").glob("a.*"):
        path.unlink()
    (data / "accounts" / "a.db").touch()
    folder = DataFolder(data)
    with folder.account("a") as store:
        assert store.size() == 0
    access.create(account="a", role=Role.ADMIN, by="tests")
    access.close()
    folder.close()


@pytest.mark.parametrize("end", ["", "-wal", "-shm"])
@pytest.mark.parametrize("is_replaced", [False, True])
def test_nothing_is_recorded_in_a_log_that_was_moved_away(
    folder: DataFolder, end: str, is_replaced: bool
) -> None:
    """It would be acknowledged, and gone with the process or written over. Put back, it goes on."""
    log_path = folder.path / "accounts" / "a.db"
    path = log_path.with_name(log_path.name + end)
    with folder.account("a") as store:
        record(store, [spec(0)])
        moved = path.rename(folder.path / "moved")
        if is_replaced:
            path.write_bytes(moved.read_bytes())
        for _ in range(2):
            with pytest.raises(StoreError, match="was moved away or replaced"):
                record(store, [spec(1)])
            with pytest.raises(StoreError, match="was moved away or replaced"):
                sealing.seal(store)
            with pytest.raises(StoreError, match="was moved away or replaced"):
                store.checkpoint(whole=False)
            with pytest.raises(StoreError, match="was moved away or replaced"), store.long_view():
                pass
        assert path.exists() == is_replaced
        moved.rename(path)
        record(store, [spec(1)])
        assert store.size() == 2


OTHER = """
import sys
from pathlib import Path
from auditplane.store.sqlite.account import AccountStore
from engine_model import record, spec
store = AccountStore(Path(sys.argv[1]))
record(store, [spec(1)])
store.close()
"""


@pytest.mark.parametrize("end", ["-wal", "-shm"])
def test_what_was_recorded_before_others_saw_another_log_is_there(folder: DataFolder, end: str) -> None:
    """Whoever is stopped last, with another process that began meanwhile."""
    path = folder.path / "accounts" / "default.db"
    with folder.account("default") as store:
        record(store, [spec(0)])
        path.with_name(path.name + end).unlink()
        other = subprocess.run(
            [sys.executable, "-c", OTHER, path], env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True, check=False,
        )  # fmt: skip
        with pytest.raises(StoreError, match="was moved away or replaced"):
            record(store, [spec(2)])
    folder.close()
    assert (other.returncode == 0) == (end == "-shm"), other.stderr.decode()
    with opened(path) as store:
        assert store.size() == (1 if other.returncode else 2)
        assert not checking.check(store, deep=True).problems


@pytest.mark.parametrize("is_folder", [False, True])
def test_a_log_may_lie_behind_the_link_of_a_folder_alone(
    folder: DataFolder, is_folder: bool, tmp_path: Path
) -> None:
    """Beside a link of its own its write-ahead log would not be found."""
    with folder.account("a", may_begin=True) as store:
        record(store, [spec(0)])
    folder.close()
    linked = folder.path / ("accounts" if is_folder else "accounts/a.db")
    linked.symlink_to(linked.rename(tmp_path / "elsewhere"))
    again = DataFolder(folder.path)
    outcome = contextlib.nullcontext() if is_folder else pytest.raises(StoreError, match="is a symbolic link")
    with outcome, again.account("a") as store:
        record(store, [spec(1)])
        assert store.size() == 2
    again.close()


def test_no_key_is_made_in_a_database_that_was_moved_away(folder: DataFolder) -> None:
    path = folder.path / "control.db"
    access = Access(folder, log.clock)
    access.create(account="a", role=Role.ADMIN, by="tests")
    moved = path.rename(folder.path / "elsewhere.db")
    with pytest.raises(StoreError, match="was moved away or replaced"):
        access.create(account="a", role=Role.ADMIN, by="tests")
    assert not path.exists()
    moved.rename(path)
    access.create(account="a", role=Role.ADMIN, by="tests")
    assert len(access.keys("a")) == 2
    access.close()


def test_strange_files_are_no_accounts(folder: DataFolder) -> None:
    """Whatever somebody puts there."""
    for name in ("A.db", "a.b.db", "default.db.bak", "x.lock", ".db"):
        (folder.path / "accounts" / name).touch()
    assert folder.accounts() == []


def test_nobody_else_can_read_a_thing(tmp_path: Path) -> None:
    """Folders have mode 0700 and files 0600 from the first moment, under the most careless umask."""
    seen: set[tuple[bool, int]] = set()
    done = threading.Event()

    def watch() -> None:
        while not done.is_set():
            with contextlib.suppress(FileNotFoundError):
                for path in [tmp_path / "data", *(tmp_path / "data").rglob("*")]:
                    with contextlib.suppress(FileNotFoundError):
                        mode = path.lstat().st_mode
                        seen.add((stat.S_ISDIR(mode), stat.S_IMODE(mode)))

    before = os.umask(0)
    watcher = threading.Thread(target=watch)
    try:
        folder = FreeFolder(tmp_path / "data")
        watcher.start()
        os.close(hold(folder.path))
        for at in range(20):
            with folder.account(f"account-{at}") as store:
                record(store, [spec()])
                sealing.seal(store, everything=True)
        found = {path.name: stat.S_IMODE(path.stat().st_mode) for path in files(tmp_path)}
        folder.close()
    finally:
        done.set()
        watcher.join()
        os.umask(before)
    assert {name: mode for name, mode in found.items() if mode not in (0o600, 0o700)} == {}
    assert {"account-0.db", "account-0.db-wal", "account-0.db-shm", "account-0.lock", "lock"} < found.keys()
    assert seen == {(True, 0o700), (False, 0o600)}


# Open stores.


def test_a_store_in_use_is_never_closed(folder: DataFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many others are opened meanwhile; those that nobody uses are closed, down to the bound."""
    monkeypatch.setattr(limits, "ACCOUNTS_OPEN_MAX", 3)
    shrink(monkeypatch, CHUNK_BYTES=1)
    names = [f"account-{at}" for at in range(9)]

    def work(seed: int) -> None:
        draw = random.Random(seed)
        for at in range(20):
            with folder.account(draw.choice(names)) as store:
                record(store, [spec(at), spec(seed)], log.clock())
                steps = iter(log.Answer(store, Query(), Form.NDJSON, packed=False))
                first = next(steps)
                with folder.account(draw.choice(names)) as another:
                    assert log.count(another, Query()) >= 0
                    sealing.seal(another, everything=True)
                assert sum(part.count(b"\n") for part in chain(first, chain.from_iterable(steps))) >= 2

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(work, range(4)))
    assert len(folder._open) <= 3
    assert not folder._in_use
    assert sum(len(entries_of(folder, name)) for name in names) == 4 * 20 * 2


def entries_of(folder: DataFolder, name: str) -> list[object]:
    with folder.account(name) as store:
        return [*entries(store)]


def test_closed_stores_leave_nothing_open(folder: DataFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """No file descriptor, no write-ahead log."""
    monkeypatch.setattr(limits, "ACCOUNTS_OPEN_MAX", 2)
    for at in range(12):
        with folder.account(f"account-{at}") as store:
            record(store, [spec()])
            sealing.seal(store)
    folder_files = files(folder.path)
    assert sum(path.name.endswith("-wal") for path in folder_files) == 2
    ours = [path for path in open_files() if path.is_relative_to(folder.path)]
    assert {path.name.partition(".")[0] for path in ours} == {"account-10", "account-11"}


def open_files() -> list[Path]:
    """What this process holds open."""
    found = []
    for path in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found.append(path.readlink())
    return found


def test_a_store_that_can_not_be_opened_leaves_nothing_open(folder: DataFolder) -> None:
    """And says why, each time."""
    path = folder.path / "accounts" / "broken.db"
    path.write_bytes(b"no database at all, but long enough to be looked at" * 100)
    before = len(open_files())
    for _ in range(3):
        with pytest.raises(Damaged), folder.account("broken"):
            pass
    assert len(open_files()) == before
    path.unlink()
    with folder.account("broken") as store:
        record(store, [spec()])


IN_ANOTHER_PROCESS = """
import sys
from pathlib import Path
from auditplane.store.sqlite.account import AccountStore
AccountStore(Path(sys.argv[1])).close()
"""


def test_a_glance_at_an_open_log_keeps_its_locks(folder: DataFolder) -> None:
    """Else another process that closes it would take itself for the last one, and remove its log."""
    with folder.account("default") as store:
        record(store, [spec()])
    assert folder.is_current("default")
    path = folder.path / "accounts" / "default.db"
    subprocess.run([sys.executable, "-c", IN_ANOTHER_PROCESS, str(path)], check=True)
    assert path.with_name("default.db-wal").exists()
    with folder.account("default") as store:
        record(store, [spec()])
    with opened(path) as other:
        assert log.count(other, Query()) == 2


# One server.


def test_a_folder_is_held_by_one(folder: DataFolder) -> None:
    """A second holder is told who the first is; when that has gone, the folder is free."""
    held = hold(folder.path)
    with pytest.raises(FolderInUse, match=rf"process {os.getpid()}\b"):
        hold(folder.path)
    os.close(held)
    os.close(hold(folder.path))
    with pytest.raises(StoreError):
        hold(folder.path / "nowhere")


def test_a_folder_that_can_not_be_used(tmp_path: Path) -> None:
    """Is refused in our words."""
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="can't be used"):
        FreeFolder(tmp_path / "file")


def test_who_opens_a_log_that_is_written_to_holds_up_nobody_else(tmp_path: Path) -> None:
    """Another process writes to it for long; what two threads open at once is opened once."""
    folder = FreeFolder(tmp_path)
    for name in ("busy", "other"):
        AccountStore(tmp_path / "accounts" / f"{name}.db").close()
    lock = os.open(tmp_path / "accounts" / "busy.lock", os.O_RDWR)
    stores: list[AccountStore] = []

    def borrow() -> None:
        with folder.account("busy") as store:
            stores.append(store)

    waiting = [threading.Thread(target=borrow) for _ in range(2)]
    with locked(lock):
        for thread in waiting:
            thread.start()
        for _ in range(3):
            with folder.account("other") as store:
                assert store.size() == 0
        assert not stores
    for thread in waiting:
        thread.join()
    assert len(stores) == 2
    assert stores[0] is stores[1]
    os.close(lock)
    folder.close()


# Formats.


@pytest.mark.parametrize("is_empty", [False, True])
def test_a_log_that_begins_anew_takes_nothing_of_one_that_is_gone(is_empty: bool, tmp_path: Path) -> None:
    """A journal or half a file may be left. A log may be, too, with what was recorded last: it is kept."""
    path, wal = tmp_path / "default.db", tmp_path / "default.db-wal"
    with opened(path) as store:
        record(store, [spec(1)])
        left = wal.read_bytes()
    whole = path.read_bytes()
    path.unlink()
    if is_empty:
        path.touch()
    for name, content in {"-journal": b"?" * 9_000, ".new": b"half"}.items():
        path.with_name(path.name + name).write_bytes(content)
    wal.write_bytes(left)
    with pytest.raises(StoreError, match=r"default\.db is missing or empty, and .*default\.db-wal has what"):
        AccountStore(path)
    assert wal.read_bytes() == left
    path.write_bytes(whole)
    AccountStore(path).close()
    path.unlink()
    if is_empty:
        path.touch()
    with opened(path) as store:
        record(store, [spec(2)])
        with store._writer.use() as writer:
            assert one(writer, "SELECT size FROM log") == 1
    assert {file.name for file in tmp_path.iterdir()} == {"default.db", "default.lock"}
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    """And left as it is."""
    path = tmp_path / "default.db"
    with opened(path) as store:
        record(store, [spec()])
        with store._writer.use() as writer:
            fetch(writer, "PRAGMA user_version = 99")
    with pytest.raises(NewerFormat, match="99"):
        AccountStore(path)
    connection = connect(path, durable=True)
    assert one(connection, "PRAGMA user_version") == 99
    assert one(connection, "SELECT size FROM log") == 1
    connection.close()


def test_an_older_format_is_migrated(tmp_path: Path) -> None:
    """Step by step and all at once, from wherever it stands; a second time nothing is done."""
    steps = [
        "CREATE TABLE a (x INTEGER) STRICT; INSERT INTO a VALUES (1);",
        "UPDATE a SET x = x + 1;\nCREATE TABLE b AS SELECT x AS y FROM a;",
        "UPDATE b SET y = y * 10; -- and a remark\n",
    ]
    for start in range(len(steps) + 1):
        connection = connect(tmp_path / f"{start}.db", durable=True)
        for known in (start, len(steps), len(steps)):
            migrate(connection, steps[:known], "the test")
            assert one(connection, "PRAGMA user_version") == known
        assert (one(connection, "SELECT x FROM a"), one(connection, "SELECT y FROM b")) == (2, 20)
        connection.close()


def test_a_migration_that_fails_leaves_nothing(tmp_path: Path) -> None:
    """Neither of itself nor of those before it."""
    connection = connect(tmp_path / "x.db", durable=True)
    migrate(connection, ["CREATE TABLE a (x)"], "the test")
    before = fetch(connection, "SELECT * FROM sqlite_schema")
    broken = [
        "CREATE TABLE a (x)",
        "CREATE TABLE b (x); INSERT INTO a VALUES (1)",
        "INSERT INTO b VALUES (1); SELECT nonsense",
    ]
    for _ in range(2):
        with pytest.raises(apsw.SQLError):
            migrate(connection, broken, "the test")
        assert one(connection, "PRAGMA user_version") == 1
        assert fetch(connection, "SELECT * FROM sqlite_schema") == before
        assert fetch(connection, "SELECT * FROM a") == []
    migrate(connection, [*broken[:2], "INSERT INTO b VALUES (1)"], "the test")
    assert fetch(connection, "SELECT * FROM b") == [(1,)]
    connection.close()


# Damage.

Outcome = bytes | list[bytes] | int


def reads(store: AccountStore, ids: Sequence[str]) -> Iterator[Callable[[], Outcome]]:
    """All ways to read a log."""
    for query in (
        Query(),
        Query(order=Order.ASC),
        Query(order=Order.RECORDED),
        Query(users=("ann@example.com",)),
        Query(words=(("name", "3"),)),
        Query(min_us=START_US + 3, max_us=START_US + 150),
    ):
        for form in (Form.NDJSON, Form.CSV, Form.CSV_RAW):
            yield lambda query=query, form=form: whole(store, query, form)  # type: ignore[misc]
            yield lambda query=query, form=form: whole(store, query, form, packed=True)  # type: ignore[misc]
        yield lambda query=query: log.page(store, query, 7)[0]  # type: ignore[misc]
        yield lambda query=query: log.count(store, query)  # type: ignore[misc]
    for event_id in ids:
        yield lambda event_id=event_id: log.get(store, event_id)  # type: ignore[misc]
        yield lambda event_id=event_id: stamp_of(store, event_id)  # type: ignore[misc]


def stamp_of(store: AccountStore, event_id: str) -> bytes:
    stored = store.get(event_id)
    assert stored is not None
    return stored.stamp


@pytest.fixture(scope="module")
def sound() -> Iterator[tuple[Path, list[str], list[Outcome]]]:
    """A log of sealed blocks, some that overlap, and what each way to read it gives."""
    with memory_folder() as folder, pytest.MonkeyPatch.context() as patch:
        shrink(patch, BLOCK_EVENTS=16, FRAME_EVENTS=4)
        path = folder / "sound.db"
        with opened(path) as store:
            ids = record(
                store,
                [
                    spec(at, user="=ann@example.com" if at % 7 == 0 else "ann@example.com")
                    for at in range(150)
                ],
            )
            sealing.settle(store)
            ids += record(
                store, [spec(at, timestamp=format_us(START_US + 10 * at)) for at in range(10)], START_US + 999
            )
            sealing.settle(store)
            outcomes = [read() for read in reads(store, ids[::20])]
        yield path, ids[::20], outcomes


def check_damaged(path: Path, ids: Sequence[str], outcomes: Sequence[Outcome]) -> int:
    """Reads what is damaged in every way: each gives what it should, or says so. Returns how many do that."""
    told = 0
    with pytest.MonkeyPatch.context() as patch:
        shrink(patch, BLOCK_EVENTS=16, FRAME_EVENTS=4)
        with opened(path) as store:
            for read, outcome in zip(reads(store, ids), outcomes, strict=True):
                try:
                    found = read()
                except (Damaged, ZstdError):  # the reader of packed frames unpacks them
                    told += 1
                else:
                    assert found == outcome
    return told


@pytest.mark.parametrize(
    ("table", "column"),
    [
        ("frame", "data"),
        ("block_csv", "data"),
        ("block_stamps", "data"),
        ("block_keys", "keys"),
        ("block_keys", "indexes"),
    ],
)
def test_a_flipped_bit(
    sound: tuple[Path, list[str], list[Outcome]], tmp_path: Path, table: str, column: str
) -> None:
    """Is told by whoever comes upon it: never are wrong bytes given out."""
    path, ids, outcomes = sound
    draw = random.Random(f"{table}.{column}")
    told = 0
    for at in range(6):
        copy = Path(shutil.copy(path, tmp_path / f"{at}.db"))
        connection = apsw.Connection(str(copy))
        block_id, data = draw.choice(fetch(connection, f"SELECT id, {column} FROM {table}"))  # noqa: S608 - ours
        damaged = bytearray(data)
        damaged[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
        fetch(connection, f"UPDATE {table} SET {column} = ? WHERE id = ?", (bytes(damaged), block_id))  # noqa: S608 - ours
        connection.close()
        told += check_damaged(copy, ids, outcomes)
    assert told > 0


def test_pages_of_zeros(sound: tuple[Path, list[str], list[Outcome]], tmp_path: Path) -> None:
    """As a disk leaves them: whichever is lost, the answer is right, or says that it can't be."""
    path, ids, outcomes = sound
    data = path.read_bytes()
    pages = len(data) // 8_192
    told = 0
    for page in random.Random(1).sample(range(1, pages), min(12, pages - 1)):
        copy = tmp_path / f"{page}.db"
        copy.write_bytes(data[: page * 8_192] + bytes(8_192) + data[(page + 1) * 8_192 :])
        with contextlib.suppress(Damaged):  # as soon as it is opened
            told += check_damaged(copy, ids, outcomes)
    assert told > 0


@pytest.mark.parametrize("table", ["frame", "block_csv", "block_stamps", "block_keys", "entry"])
def test_lost_rows(sound: tuple[Path, list[str], list[Outcome]], tmp_path: Path, table: str) -> None:
    """Are told, and no answer runs on for ever."""
    path, ids, outcomes = sound
    told = 0
    key = "first" if table == "entry" else "id"
    connection = apsw.Connection(str(path))
    rows = [row[0] for row in fetch(connection, f"SELECT {key} FROM {table}")]  # noqa: S608 - ours
    connection.close()
    for row in random.Random(table).sample(rows, min(6, len(rows))):
        copy = Path(shutil.copy(path, tmp_path / f"{row}.db"))
        connection = apsw.Connection(str(copy))
        fetch(connection, f"DELETE FROM {table} WHERE {key} = ?", (row,))  # noqa: S608 - ours
        connection.close()
        told += check_damaged(copy, ids, outcomes)
    assert told > 0


# A full disk.


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 6 MiB."""
    path = tmp_path / "disk"
    path.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=6m", "none", str(path)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(
            f"needs a small disk, and mounting one is not permitted: {mounted.stderr.decode().strip()}"
        )
    yield path
    subprocess.run(["umount", "-l", str(path)], check=True)


def fill_up(path: Path, leave_bytes: int) -> None:
    """A file that takes all room but so much."""
    with path.open("wb") as file, contextlib.suppress(OSError):
        while True:
            os.write(file.fileno(), bytes(4_096))
    os.truncate(path, max(0, path.stat().st_size - leave_bytes))


@pytest.mark.parametrize("leave_bytes", [0, 50_000, 300_000])
def test_a_full_disk(small_disk: Path, leave_bytes: int) -> None:
    """Recording is refused and reading goes on; with room so does recording, and nothing is lost."""
    model = Model()
    folder = FreeFolder(small_disk / "data")
    filler = small_disk / "filler"
    with folder.account("default") as store:
        for at in range(10):
            model.record(store, [[spec(at) for at in range(50)]], START_US + at)
        for _ in range(2):
            fill_up(filler, leave_bytes)
            while not is_refused(store, model):
                pass
            for _ in range(3):
                assert is_refused(store, model)
                check(store, model)
                for step in (sealing.tend, sealing.settle):
                    with contextlib.suppress(StorageFull):
                        step(store)
                check(store, model)
            filler.unlink()
            model.record(store, [[spec(at) for at in range(50)]], START_US + 99)
            sealing.settle(store)
            check(store, model)
    folder.close()
    with opened(small_disk / "data" / "accounts" / "default.db") as store:
        model.check_log(store)
        model.check_store(store)


def is_refused(store: AccountStore, model: Model) -> bool:
    """Records unless the disk is full."""
    specs = [spec(at) for at in range(20)]
    (result,) = log.record(store, [request(specs)], lambda: START_US + 50)
    if isinstance(result, Exception):
        assert isinstance(result, StorageFull), result
        return True
    model.take(store, specs, result, max(START_US + 50, model.at_us), "key-1")
    return False


def check(store: AccountStore, model: Model) -> None:
    for query in (
        Query(),
        Query(order=Order.RECORDED),
        Query(users=("ann@example.com",)),
        Query(words=(("3",),)),
    ):
        model.check_answer(store, query, Form.NDJSON, packed=False)
    assert log.get(store, str(model.kept[3].event.id)) == model.kept[3].doc
    assert store.size() == model.size


def test_a_full_disk_when_a_log_is_made(small_disk: Path) -> None:
    """It is made once there is room."""
    folder = FreeFolder(small_disk / "data")
    fill_up(small_disk / "filler", 0)
    for _ in range(3):
        with pytest.raises(StorageFull), folder.account("default") as store:
            record(store, [spec()])
    (small_disk / "filler").unlink()
    with folder.account("default") as store:
        record(store, [spec()])
        assert log.count(store, Query()) == 1
    folder.close()
