"""What a sync that failed, or never came, takes with it: nothing that was acknowledged, and no log.

Programs work on a folder one after the other, in one of which a call fails or the process is killed; then the
power is cut. What the system forgot by a sync that failed counts as lost.
"""

import errno
import json
import mmap
import random
import re
import shutil
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import apsw
import pytest

from auditplane import backup, checking, log
from auditplane.access import Access, stored
from auditplane.access.key import Role
from auditplane.errors import AuditplaneError, Conflict, NotAuthenticated, StoreError
from auditplane.store.sqlite.account import AccountStore, sync_failed
from auditplane.store.sqlite.database import translated
from auditplane.store.sqlite.syncing import SYNC_BYTES, Syncs
from engine_model import opened, record, spec
from folders import FreeFolder
from torture import session, small, trace
from torture.disk import Disk
from torture.trace import Op, Synced, Told

CUTS = 12
CUTS_MADE = 40
FIRST_START_SYNCS = 2

# Programs, of which all but the last may fail.

EVERY = """
import os, sys
sys.path[:0] = {path!r}
from contextlib import closing
from pathlib import Path
from auditplane import backup, log, rotation, signing
from auditplane.access import Access
from auditplane.access.key import Role
from auditplane.errors import Conflict
from auditplane.store.sqlite import database, sealing, syncing
from auditplane.store.sqlite.account import AccountStore
from auditplane.store.sqlite.syncing import Syncs
from engine_model import START_US, record, request, spec
from folders import FreeFolder
from torture import small
from torture.session import SIZES, Clock, tell

small.shrink(setattr, **SIZES)
root = Path(sys.argv[1])
{careless}
"""
STORE = """
store = AccountStore(root / "default.db")
"""
SEALED = (
    STORE
    + """
store.checkpoint(whole=True)
record(store, [spec(at) for at in range(60)])
while sealing.seal(store):  # which nothing syncs
    pass
tell("ready")
"""
)
KILLED = """
os._exit(0)
"""
TRIED = """
try:
    record(store, [spec(99, id="01KJ9PWE001W00AAAAAAAAAAAA")])
except Exception as error:
    tell("failed", error=str(error))
"""
CLOSED = """
store.close()
tell("closed")
os._exit(0)
"""
RECORDING = """
while True:
    try:
        record(store, [spec(99, id="01KJ9PWE001W00AAAAAAAAAAAA")])
    except Exception as error:
        tell("failed", error=str(error))
    else:
        break
"""
ENDED = """
tell("recorded")
os._exit(0)
"""
RECORDED = RECORDING + ENDED
EVENT_ID = "01KJ9PWE001W00AAAAAAAAAAAA"
# As if a kill had been waiting for the call to end.
DIES = """
fetch = database.fetch
def dying(*given):
    try:
        return fetch(*given)
    except Exception:
        os._exit(9)
database.fetch = dying
"""
SYNCED_MEANWHILE = """
with store.transaction() as transaction:
    tell("ready")
    try:
        store._syncs.sync_early()  # as upkeep does in another process
    except OSError as error:
        tell("failed", error=str(error))
    log.add(transaction, request([spec(99, id="01KJ9PWE001W00AAAAAAAAAAAA")]), lambda: START_US + 5)
tell("recorded")
os._exit(0)
"""
DIES_IN_A_SYNC = """
def dying(sync):
    def synced(descriptor):
        try:
            sync(descriptor)
        except OSError:
            os._exit(9)
    return synced
os.fsync, os.fdatasync = dying(os.fsync), dying(os.fdatasync)
"""
UPKEPT = """
store.checkpoint(whole=False)
os._exit(0)
"""
WRITTEN_AGAIN = """
store._syncs._shared[1] = 1  # a sync failed a moment ago
record(store, [spec(98)])
os._exit(0)
"""
FAILS_AGAIN_WHILE_WRITTEN_AGAIN = (
    """
with store._kept() as keeper:
    pass
store._syncs._shared[1] = 1  # a sync failed a moment ago
fsync = os.fsync
def late(descriptor):
    os.fsync = fsync
    try:
        with store._syncs.noting():  # as upkeep does in another process
            keeper.wal_checkpoint(mode=0)
    except Exception as error:
        tell("failed", error=str(error))
    fsync(descriptor)
os.fsync = late
"""
    + RECORDED
)
MADE = (
    """
tell("ready")
while True:
    try:
        store = AccountStore(root / "default.db")
    except Exception as error:
        tell("failed", error=str(error))
    else:
        break
"""
    + RECORDED
)
# Which sync of a new database is that of its tables.
TABLES_SYNC = 2


@dataclass(frozen=True)
class Case:
    """Programs, and which sync fails once the first one is ready: the `nth` of those by a `call`.

    Where it is left out, what it should have written is not forgotten, but may be written or not.
    """

    programs: Sequence[str]
    nth: int = 0
    is_left_out: bool = False
    call: str = "fdatasync"


CASES = {
    "a sync that failed, tried again": Case([SEALED + RECORDED]),
    "a sync that failed, then a stop and a start": Case([SEALED + TRIED + CLOSED, STORE + RECORDED]),
    "a stop whose sync fails": Case([SEALED + CLOSED, STORE + RECORDED]),
    "a stop whose second sync fails": Case([SEALED + CLOSED, STORE + RECORDED], nth=1),
    "a stop whose last sync fails": Case([SEALED + CLOSED, STORE + RECORDED], nth=2),
    "a kill before the sync": Case([SEALED + DIES + TRIED, STORE + RECORDED], is_left_out=True),
    "a kill while the sync fails": Case([SEALED + DIES + TRIED, STORE + RECORDED]),
    "a kill while upkeep's sync fails": Case([SEALED + DIES_IN_A_SYNC + UPKEPT, STORE + RECORDED]),
    "a kill while the sync of a log that is written again fails": Case(
        [SEALED + DIES_IN_A_SYNC + WRITTEN_AGAIN, STORE + RECORDED], call="fsync"
    ),
    "a kill while the sync of the tables of a new log fails": Case(
        [DIES + MADE, STORE + RECORDED], nth=TABLES_SYNC
    ),
    "upkeep's sync fails while a commit is under way": Case([SEALED + SYNCED_MEANWHILE]),
    "the tables of a new log can't be synced": Case([MADE], nth=TABLES_SYNC),
    "a sync fails while the log is written again": Case([SEALED + FAILS_AGAIN_WHILE_WRITTEN_AGAIN]),
}


def history(path: Path, case: Case, careless: str = "") -> list[Op]:
    """All that the programs do on the disk."""
    root = path / "root"
    _, clean = _ran(path, case.programs[0], careless)
    syncs = _calls_once_ready(clean, case.call)
    shutil.rmtree(root)
    ops: list[Op] = []
    for number, program in enumerate(case.programs):
        inject = f"{case.call}:error=EIO:when={syncs[case.nth]}" if number == 0 else ""
        _, output = _ran(path, program, careless, inject)
        if inject and case.is_left_out:
            _leave_out_what_failed(output)
        ops += trace.read(output, root)
    return ops


def _ran(path: Path, text: str, careless: str, inject: str = "") -> tuple[int, Path]:
    """How a program ended, and what strace saw of it."""
    program, root, output = path / "program.py", path / "root", path / "trace"
    program.write_text(EVERY.format(path=sys.path, careless=careless) + text)
    root.mkdir(exist_ok=True)
    return trace.traced([str(program), str(root)], output, inject=inject), output


def _leave_out_what_failed(output: Path) -> None:
    """As if the process had been killed before it."""
    lines = output.read_text().splitlines(keepends=True)
    output.write_text("".join(line for line in lines if not line.endswith("(INJECTED)\n")))


def _calls_once_ready(output: Path, call: str) -> list[int]:
    """Such calls after the first thing that was told, counted from 1 on from the beginning."""
    before, _, after = output.read_text().partition("writev(1<")
    first, more = (len(re.findall(rf"^\d+ +{call}\(", text, re.MULTILINE)) for text in (before, after))
    return list(range(first + 1, first + more + 1))


def told(ops: Sequence[Op]) -> list[Any]:
    """What the programs told, each as its name and its members."""
    return [json.loads(op.text) for op in ops if isinstance(op, Told)]


def cut(path: Path, ops: Sequence[Op], cuts: int = CUTS) -> Iterator[Path]:
    """What so many power cuts leave, after all this was done."""
    disk = Disk()
    for op in ops:
        disk.do(op)
    for number in range(cuts):
        left = path / f"cut-{len(ops)}-{number}"
        disk.after_a_power_cut(random.Random(number)).put(left)
        yield left


def is_sound(path: Path) -> bool:
    """Whether a log opens and verifies."""
    with opened(path) as store:
        return _verifies(store)


def _verifies(store: AccountStore) -> bool:
    with pytest.MonkeyPatch.context() as patch:
        small.shrink(patch.setattr, **session.SIZES)
        return not checking.check(store, deep=True).problems


def is_whole(path: Path) -> bool:
    """Whether a log has the event, and verifies."""
    with opened(path) as store:
        return store.get(EVENT_ID) is not None and _verifies(store)


# The logs of accounts.


@pytest.mark.parametrize("name", CASES)
def test_what_was_acknowledged_stays(name: str, tmp_path: Path) -> None:
    ops = history(tmp_path, CASES[name])
    assert told(ops)[-1][0] == "recorded"
    assert all(is_whole(left / "default.db") for left in cut(tmp_path, ops))


@pytest.mark.parametrize(
    ("error", "is_noted"),
    [(apsw.IOError("x"), True), (OSError(errno.ENOSPC, "x"), True), (Conflict("x"), False)],
)
def test_a_failure_that_is_translated_within_is_noted(
    error: Exception, is_noted: bool, tmp_path: Path
) -> None:
    syncs = Syncs(tmp_path / "x.db", mmap.mmap(-1, SYNC_BYTES), 0)
    with pytest.raises(AuditplaneError), syncs.noting(), translated(tmp_path):
        raise error
    assert syncs.failed == is_noted


CARELESS = {
    "a sync that failed, tried again": "Syncs._write_again = lambda self: None",
    "a stop whose sync fails": "Syncs.is_synced = lambda self: not self.failed",
    "a kill before the sync": "Syncs.committing = Syncs.noting",
    "a kill while the sync fails": "Syncs.committing = Syncs.noting",
    "the tables of a new log can't be synced": """
from contextlib import nullcontext
Syncs.noting = lambda self: nullcontext()
""",
    "a kill while upkeep's sync fails": "Syncs.make_sure_at_start = lambda self, **_: self.make_sure()",
    "a kill while the sync of a log that is written again fails": """
make_sure = Syncs._write_again
def careless(self):
    put = self._set
    self._set = lambda which, value: None if (which, value) == (0, 1) else put(which, value)
    make_sure(self)
    self._set = put
Syncs._write_again = careless
""",
    "a kill while the sync of the tables of a new log fails": "Syncs.committing = Syncs.noting",
}


@pytest.mark.parametrize("name", CARELESS)
def test_it_would_be_lost_without_care(name: str, tmp_path: Path) -> None:
    ops = history(tmp_path, CASES[name], CARELESS[name])
    assert not all(is_whole(left / "default.db") for left in cut(tmp_path, ops))


# Another worker, as another store: it is killed while its sync fails, the others are not.
KILLED_BESIDE = """
class Killed(BaseException):
    pass
fdatasync = os.fdatasync
def dying(descriptor):
    failed = False
    try:
        fdatasync(descriptor)
    except OSError:
        failed = True
    if failed:  # not behind the error, as nobody hears of it
        raise Killed
os.fdatasync = dying
try:
    AccountStore(root / "default.db").checkpoint(whole=False)
except Killed:
    tell("killed", marks=list(store._syncs._shared[:4]))
os.fdatasync = fdatasync
"""
SYNCED_SINCE = """
store._syncs.sync_early()
"""
UPKEPT_SINCE = """
store._syncs.sync_before_copying()
"""


@pytest.mark.parametrize("since", [KILLED, SYNCED_SINCE + KILLED, UPKEPT_SINCE + KILLED, UPKEPT_SINCE])
def test_what_upkeep_failed_to_sync_when_it_was_killed_is_written_again(since: str, tmp_path: Path) -> None:
    """By the upkeep of another process, or by the next start, whatever was synced in between."""
    programs = [SEALED + KILLED_BESIDE + since + RECORDED, STORE + RECORDED]
    ops = history(tmp_path, Case(programs))
    (marks,) = [members["marks"] for what, members in told(ops) if what == "killed"]
    assert marks == [0, 0, 1, 0]
    assert all(is_whole(left / "default.db") for left in cut(tmp_path, ops))


LOOKED_AT = """
with closing(AccountStore(root / "default.db", readonly=True)) as look:
    assert look.size() == 60
tell("looked")
"""


@pytest.mark.parametrize("is_alone", [True, False])
def test_who_only_looks_syncs_nothing(is_alone: bool, tmp_path: Path) -> None:
    """He would be told that the disk failed, and nobody who records would hear of it."""
    if is_alone:
        assert _ran(tmp_path, SEALED + KILLED, "")[0] == 0
    _, output = _ran(tmp_path, (LOOKED_AT if is_alone else SEALED + LOOKED_AT) + KILLED, "")
    ops = list(trace.read(output, tmp_path / "root"))
    assert told(ops)[-1][0] == "looked"
    *before, looked = [at for at, op in enumerate(ops) if isinstance(op, Told)]
    assert not [op for op in ops[before[-1] if before else 0 : looked] if isinstance(op, Synced)]


PARTLY_COPIED = (
    """
def copy(whole):
    try:
        store.checkpoint(whole=whole)
    except Exception as error:
        tell("failed", error=str(error))
store = AccountStore(root / "default.db")
record(store, [spec(at) for at in range(60)])
store.checkpoint(whole=True)
record(store, [spec(at) for at in range(60)])
with store.long_view() as view:
    store.size_in(view)
    record(store, [spec(at) for at in range(60)])
    tell("ready")
    copy(whole=False)
for _ in range(3):
    copy(whole=True)
"""
    + RECORDING
    + "copy(whole=True)"
    + ENDED
)


def after_partial_copies(path: Path, careless: str = "") -> Iterator[Path]:
    """What power cuts leave where a part of the log was copied, and then a copy fails; each sync in turn."""
    _, clean = _ran(path, PARTLY_COPIED, careless)
    shutil.rmtree(path / "root")
    for nth in range(len(_calls_once_ready(clean, "fdatasync"))):
        ops = history(path, Case([PARTLY_COPIED], nth=nth), careless)
        shutil.rmtree(path / "root")
        assert told(ops)[-1][0] == "recorded"
        for left in cut(path, ops):
            yield left / "default.db"
            shutil.rmtree(left)


def test_what_a_partial_copy_brought_is_not_lost_with_the_next_one(tmp_path: Path) -> None:
    """SQLite syncs the database only once all is copied, and then copies only the rest again."""
    assert all(is_whole(left) for left in after_partial_copies(tmp_path))


def test_what_a_partial_copy_brought_would_be_lost_without_care(tmp_path: Path) -> None:
    careless = "Syncs.mend_copies = lambda self, connection: self._set(3, 0)"
    assert not all(is_whole(left) for left in after_partial_copies(tmp_path, careless))


def test_a_log_that_cannot_be_read_is_not_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever closes it is told so, and not by an error of SQLite."""

    def unreadable(_: Path) -> bool:
        raise apsw.IOError("a read fails")

    monkeypatch.setattr("auditplane.store.sqlite.syncing.is_whole", unreadable)
    shared = mmap.mmap(-1, SYNC_BYTES)
    shared[1] = 1  # a sync failed a moment ago
    syncs = Syncs(tmp_path / "x.db", shared, 0)
    assert not syncs.is_synced()
    assert syncs.failed


def test_who_was_interrupted_in_a_commit_leaves_its_mark(tmp_path: Path) -> None:
    """He may not have heard that the disk failed."""
    syncs = Syncs(tmp_path / "x.db", mmap.mmap(-1, SYNC_BYTES), 0)
    with pytest.raises(KeyboardInterrupt), syncs.committing():
        raise KeyboardInterrupt
    assert syncs._shared[0]


COPIED = """
early = Syncs.sync_early
def meanwhile(self):
    Syncs.sync_early = early
    try:  # as another process does between upkeep's look and its copy
        record(store, [spec(99)])
    except Exception as error:
        tell("failed", error=str(error))
    early(self)
Syncs.sync_early = meanwhile
store.checkpoint(whole=False)
tell("closed")
os._exit(0)
"""
OPENED_HALF = """
import apsw
fetch = database.fetch
def failing(connection, statement, *values):
    if "temp_store" in statement:
        raise apsw.IOError("a read fails")
    return fetch(connection, statement, *values)
database.fetch = failing
try:
    AccountStore(root / "default.db")
except Exception as error:
    tell("closed", error=str(error))
os._exit(0)
"""
COPYING = {
    "a stop": [SEALED + TRIED + CLOSED],
    "upkeep beside a commit that fails": [SEALED + COPIED],
    "a start that can't open it wholly": [SEALED + TRIED + KILLED, OPENED_HALF],
}
"""What could copy a log that the disk lacks, after a sync failed."""


def while_copying(path: Path, programs: Sequence[str], careless: str = "") -> Iterator[Path]:
    """What power cuts leave before each sync after one failed, and after them."""
    ops = history(path, Case(programs), careless)
    assert [what for what, _ in told(ops)] == ["ready", "failed", "closed"]
    (failed,) = [at for at, op in enumerate(ops) if isinstance(op, Synced) and op.failed]
    moments = [at for at, op in enumerate(ops) if isinstance(op, Synced) and at > failed]
    for moment in [*moments, len(ops)]:
        yield from cut(path, ops[:moment])


@pytest.mark.parametrize("name", COPYING)
def test_nothing_is_copied_from_a_log_that_the_disk_may_lack(name: str, tmp_path: Path) -> None:
    """The last connection that is closed would do it by itself."""
    assert all(is_sound(left / "default.db") for left in while_copying(tmp_path, COPYING[name]))


COPYING_CARELESSLY = {
    "a stop": """
from auditplane.store.sqlite.database import Connected
was = Connected.close
Connected.close = lambda self, *, copying=False: was(self, copying=True)
Syncs.is_synced = lambda self: True
""",
    "upkeep beside a commit that fails": "Syncs.sync = lambda self: None",
    "a start that can't open it wholly": """
import apsw
apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE = apsw.SQLITE_DBCONFIG_ENABLE_FKEY  # no matter here
""",
}


@pytest.mark.parametrize("name", COPYING_CARELESSLY)
def test_a_power_cut_would_leave_a_damaged_log_without_care(name: str, tmp_path: Path) -> None:
    left = while_copying(tmp_path, COPYING[name], COPYING_CARELESSLY[name])
    assert not all(is_sound(path / "default.db") for path in left)


@pytest.mark.parametrize("call", ["fsync", "fdatasync"])
def test_a_log_in_the_making_is_never_damaged(call: str, tmp_path: Path) -> None:
    """Whichever sync fails, also one that SQLite does not tell of, and the power goes soon after."""
    _, clean = _ran(tmp_path, MADE, "")
    shutil.rmtree(tmp_path / "root")
    of_a_folder = 0
    for nth in range(len(_calls_once_ready(clean, call))):
        ops = history(tmp_path, Case([MADE], nth=nth, call=call))
        shutil.rmtree(tmp_path / "root")
        assert told(ops)[-1][0] == "recorded"
        syncs = {at: op for at, op in enumerate(ops) if isinstance(op, Synced)}
        failed, op = next((at, op) for at, op in syncs.items() if op.failed)
        of_a_folder += not op.path
        for at in [at for at in syncs if at > failed][:2]:
            for left in cut(tmp_path, ops[:at], CUTS_MADE):
                assert is_sound(left / "default.db")
                shutil.rmtree(left)
        for left in cut(tmp_path, ops):
            assert is_whole(left / "default.db")
            shutil.rmtree(left)
    assert of_a_folder


FIRST_START = """
folder = FreeFolder(root)
tell("ready")
try:
    rotation.prepare(folder, None, None, log.clock)
except Exception as error:
    tell("failed", error=str(error))
os._exit(0)
"""
NEXT_START = """
rotation.prepare(FreeFolder(root), None, None, log.clock)
tell("signs", key=(root / "log.key").read_text())
os._exit(0)
"""


def keys_after_first_starts(path: Path, careless: str = "") -> Iterator[bool]:
    """Whether the key that signs is there after power cuts; each sync of the start before failed in turn."""
    failures = 0
    for nth in range(FIRST_START_SYNCS):
        ops = history(path, Case([FIRST_START, NEXT_START], nth=nth, call="fsync"), careless)
        shutil.rmtree(path / "root")
        failures += any(isinstance(op, Synced) and op.failed and not op.path for op in ops)
        key = told(ops)[-1][1]["key"]
        for left in cut(path, ops):
            file = left / "log.key"
            yield file.exists() and file.read_text() == key
            shutil.rmtree(left)
    assert failures


def test_the_key_of_a_first_start_that_failed_is_kept_once_it_signs(tmp_path: Path) -> None:
    """Whoever opens a data folder syncs it first."""
    assert all(keys_after_first_starts(tmp_path))


def test_the_key_of_a_first_start_would_be_lost_without_care(tmp_path: Path) -> None:
    careless = (
        "from auditplane.store.sqlite import folder\n"
        "folder.make_folder = lambda path: path.mkdir(parents=True, exist_ok=True)"
    )
    assert not all(keys_after_first_starts(tmp_path, careless))


def test_another_process_hears_of_a_failed_sync(tmp_path: Path) -> None:
    """By the lock file, which both have open; the first who records writes the log again."""
    path = tmp_path / "default.db"
    with opened(path) as one, opened(path) as other, written_again() as rewritten:
        record(one, [spec()])
        with pytest.raises(StoreError), one._kept():
            raise apsw.IOError("a sync failed")
        assert sync_failed(path)
        record(other, [spec()])
        assert rewritten == [other._syncs]
        assert not sync_failed(path)
        record(one, [spec()])
        record(other, [spec()])
        assert len(rewritten) == 1


def test_the_next_start_hears_of_a_failed_sync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "default.db"
    with opened(path) as store:
        record(store, [spec()])
        with pytest.raises(StoreError), store._kept():
            raise apsw.IOError("a sync failed")
        monkeypatch.setattr(Syncs, "_write_again", fails)
    monkeypatch.undo()
    assert path.with_name("default.db-wal").stat().st_size, "what is closed leaves its log"
    assert sync_failed(path)
    with written_again() as rewritten, opened(path) as store:
        assert rewritten == [store._syncs]
    assert not sync_failed(path)


def fails(_syncs: Syncs) -> None:
    raise OSError(errno.EIO, "it fails still")


def test_upkeep_copies_nothing_from_a_log_that_the_disk_may_lack(tmp_path: Path) -> None:
    """A power cut in the middle of the copy would leave neither the log nor a whole database."""
    with opened(tmp_path / "default.db") as store:
        record(store, [spec()])
        with pytest.raises(StoreError), store._kept():
            raise apsw.IOError("a sync failed")
        with written_again() as rewritten:
            store.checkpoint(whole=False)
        assert rewritten == [store._syncs]


@pytest.mark.parametrize("is_another", [False, True])
def test_a_change_of_keys_that_was_not_synced_is_before_it_is_taken_for_done(
    tmp_path: Path, is_another: bool
) -> None:
    """Revoking again says that it was done, and it was lost in a power cut."""
    with two_of_keys(tmp_path) as (one, two):
        with pytest.raises(StoreError), one._changing():
            raise apsw.IOError("a sync failed")
        assert stored.sync_failed(tmp_path / "data")
        with written_again() as rewritten:
            who = two if is_another else one
            who.ensure_admin_key()
            assert rewritten == [who._syncs]
            one.create(account="default", role=Role.READER, by="tests")
            two.create(account="default", role=Role.READER, by="tests")
        assert len(rewritten) == 1
        assert not stored.sync_failed(tmp_path / "data")


def test_the_next_start_hears_of_a_change_of_keys_that_was_not_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with two_of_keys(tmp_path) as (one, _):
        with pytest.raises(StoreError), one._changing():
            raise apsw.IOError("a sync failed")
        monkeypatch.setattr(Syncs, "_write_again", fails)
    monkeypatch.undo()
    assert stored.sync_failed(tmp_path / "data")
    with written_again() as rewritten, two_of_keys(tmp_path) as (one, _):
        assert rewritten == [one._syncs]


@contextmanager
def two_of_keys(path: Path) -> Iterator[tuple[Access, Access]]:
    """The keys of a folder as two processes have them."""
    with ExitStack() as undo:
        folder = FreeFolder(path / "data")
        undo.callback(folder.close)
        both = Access(folder, log.clock), Access(folder, log.clock)
        for each in both:
            undo.callback(each.close)
        yield both


def test_a_key_that_was_revoked_after_all_is_refused_by_all(tmp_path: Path) -> None:
    """What a failed sync left is seen after it was written again, by those who knew the key, too."""
    with two_of_keys(tmp_path) as (one, two):
        key, secret = one.create(account="default", role=Role.READER, by="tests")
        assert two.authenticate(secret) == key
        connection = apsw.Connection(str(tmp_path / "data" / "control.db"))
        connection.execute("UPDATE api_key SET revoked_us = 1 WHERE id = ?", (key.id,))
        connection.close()
        with pytest.raises(Conflict):
            one.revoke(key.id, account="default", by="tests")
        with pytest.raises(NotAuthenticated):
            two.authenticate(secret)


KEYS = """
folder = FreeFolder(root / "data")
access = Access(folder, log.clock)
"""
REVOKED = """
access.ensure_admin_key()
key, secret = access.create(account="default", role=Role.READER, by="tests")
(root.parent / "key").write_text(f"{key.id} {secret}")
tell("ready")
access.revoke(key.id, account="default", by="tests")
"""
REVOKED_AGAIN = """
try:
    access.revoke((root.parent / "key").read_text().split()[0], account="default", by="tests")
except Conflict:
    tell("was revoked")
else:
    tell("revoked")
os._exit(0)
"""


@pytest.mark.parametrize("nth", range(2))
def test_a_key_whose_end_was_acknowledged_does_not_work_again(nth: int, tmp_path: Path) -> None:
    """Though who ended it was killed before a sync, and the next one was told that it was done."""
    case = Case([KEYS + DIES + REVOKED, KEYS + REVOKED_AGAIN], nth, is_left_out=True)
    ops = history(tmp_path, case)
    assert told(ops)[-1][0] in ("revoked", "was revoked")
    secret = (tmp_path / "key").read_text().split()[1]
    for left in cut(tmp_path, ops):
        with ExitStack() as undo:
            folder = FreeFolder(left / "data")
            undo.callback(folder.close)
            keys = Access(folder, log.clock)
            undo.callback(keys.close)
            with pytest.raises(NotAuthenticated):
                keys.authenticate(secret)


def test_who_is_killed_while_a_key_is_revoked_leaves_nobody_who_knows_it_by_heart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the commit and telling of it."""
    with two_of_keys(tmp_path) as (one, two):
        key, secret = one.create(account="default", role=Role.READER, by="tests")
        watched = two.watch(two.authenticate(secret))
        watched()
        with monkeypatch.context() as patch:
            patch.setattr(one, "_tell_of_a_change", lambda: None)
            one.revoke(key.id, account="default", by="tests")
        for refused in (lambda: two.authenticate(secret), watched):
            with pytest.raises(NotAuthenticated):
                refused()


BACKED_UP = """
access.ensure_admin_key()
_, secret = access.create(account="default", role=Role.READER, by="tests")
token, _ = access.open_session(secret)
rotation.prepare(folder, None, None, log.clock)
copy_keys = backup.copy_keys
def copied(*given):
    tell("ready")
    copy_keys(*given)
backup.copy_keys = copied
with backup.begun(folder, access, log.clock) as wanted:
    _, late = access.create(account="default", role=Role.ADMIN, by="tests", description="late")
    key = signing.log_key(root / "data", None, None)
    backup.make(root / "data", wanted, root / "backup", key, with_key=True)
tell("backed up", late=late, token=token)
os._exit(0)
"""


def test_a_backup_of_keys_that_could_not_be_synced_is_none(tmp_path: Path) -> None:
    """Or it would have the keys and sessions that it must not have, which stood in a log beside it."""
    ended = Counter[str]()
    for nth in range(5):
        ops = history(tmp_path, Case([KEYS + BACKED_UP], nth=nth))
        shutil.rmtree(tmp_path / "root")
        what, members = told(ops)[-1]
        ended[what] += 1
        if what == "backed up":
            for number, left in enumerate(cut(tmp_path, ops, 4)):
                data = tmp_path / f"restored-{nth}-{number}"
                backup.restore(left / "backup", data, log.clock)
                assert works(data, members) == []
    assert ended["ready"], "some were no backups"


def works(data: Path, members: dict[str, str]) -> list[str]:
    """Which of the key and the session let somebody in."""
    folder = FreeFolder(data)
    keys = Access(folder, log.clock)
    found = []
    for name, ask in (("late", keys.authenticate), ("token", keys.session)):
        try:
            ask(members[name])
        except AuditplaneError:
            continue
        found.append(name)
    keys.close()
    folder.close()
    return found


@contextmanager
def written_again() -> Iterator[list[Syncs]]:
    """What writes its log again."""
    rewritten: list[Syncs] = []
    was = Syncs._write_again

    def write_again(syncs: Syncs) -> None:
        rewritten.append(syncs)
        was(syncs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Syncs, "_write_again", write_again)
        yield rewritten
