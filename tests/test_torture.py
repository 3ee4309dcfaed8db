"""A few rounds of each attack of `torture`, and whether the attacks find what they should."""

import json
import random
import re
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import apsw
import pytest

from auditplane import checking, log
from auditplane.access import Access, stored
from auditplane.access.key import Role
from auditplane.errors import Conflict, NotAuthenticated, StoreError
from auditplane.store.sqlite.account import sync_failed
from auditplane.store.sqlite.folder import DataFolder
from auditplane.store.sqlite.syncing import Syncs
from engine_model import opened, record, spec
from torture import faults, powercut, promises, rot, session, small, trace
from torture.disk import SECTOR_BYTES, Disk, File, Folder
from torture.trace import Cut, Made, Op, Removed, Renamed, Synced, Told, Written

CUTS = 250
FAULTS = 12
FLIPS = 60

pytestmark = pytest.mark.timeout(300)


@pytest.mark.parametrize("seed", [1, 2])
def test_no_power_cut_loses_anything(seed: int) -> None:
    """After each, the folder opens, holds what was acknowledged, verifies, and takes new events."""
    states, failures = powercut.cuts(seed, CUTS, processes=1)
    assert not failures, failures[0].problem
    assert states > CUTS // 2


def test_no_failing_disk_loses_anything() -> None:
    """The session comes to its end by itself, and what was acknowledged holds."""
    for result in faults.tried(faults.faults(3, FAULTS), processes=1):
        assert not result.problem, f"{result.fault}: {result.problem}"


def test_each_call_that_may_fail_does_in_its_turn() -> None:
    """Once and for a while; some thousand faults have all but those of most writes."""
    found = faults.faults(5, 1_000_000)
    assert len(set(found)) == len(found)
    for error, calls in faults.KINDS.items():
        for call in calls:
            counts = Counter(each.first for each in found if (each.call, each.error) == (call, error))
            assert set(counts.values()) == {2}, f"{call} {error}"
    rest = {each.call for each in found[4_000:]}
    assert rest == {"pwrite64"}


CARELESS = {
    "commits are not synced": "from auditplane.access import Connected\n"
    "was = Connected.__init__\n"
    "Connected.__init__ = lambda self, path, **more: was(self, path, **{**more, 'durable': False})",
    "small files are not synced": "import os\nos.fsync = lambda descriptor: None",
}


@pytest.mark.parametrize("careless", CARELESS.values(), ids=CARELESS)
def test_power_cuts_find_what_is_not_synced(careless: str) -> None:
    program = ["-c", f"{careless}\nfrom torture.session import main\nmain()"]
    _, failures = powercut.cuts(1, 40, processes=1, program=program)
    assert failures


def test_no_flipped_bit_is_served() -> None:
    """What needs it is refused, all else is as it was, and the check of the log finds it."""
    outcome = _in_a_process_of_its_own(rot.tried, FLIPS)
    assert not outcome.problems, outcome.problems
    assert outcome.found > 0.95 * FLIPS
    assert 0 < outcome.refused["a list"] < FLIPS


def test_what_a_flipped_bit_of_a_write_ahead_log_hides_is_told_of() -> None:
    """What is left is what was there before."""
    outcome = _in_a_process_of_its_own(rot.tried_behind, FLIPS // 2)
    assert not outcome.problems, outcome.problems
    assert 0 < outcome.found <= outcome.refused["of the last commits"] < FLIPS // 2


def test_no_flipped_bit_lets_anybody_in() -> None:
    """Nor does it give a key to another account, or another role."""
    outcome = _in_a_process_of_its_own(rot.tried_keys, FLIPS)
    assert not outcome.problems, outcome.problems
    assert outcome.found > 0.8 * FLIPS
    assert outcome.refused["a key"]


def _in_a_process_of_its_own(attack: Callable[[int, int], rot.Outcome], flips: int) -> rot.Outcome:
    """As the attack makes constants small for good."""
    with ProcessPoolExecutor(1) as pool:
        return pool.submit(attack, 1, flips).result()


# A sync that failed.

BEFORE_A_SYNC = """
import os, sys
sys.path[:0] = {path!r}
from pathlib import Path
from auditplane import log
from auditplane.store.sqlite import sealing
from auditplane.store.sqlite.account import AccountStore
from auditplane.store.sqlite.syncing import Syncs
from torture.session import SIZES, Clock, tell
from torture import small
from engine_model import record, spec

{careless}
small.shrink(setattr, **SIZES)
root = Path(sys.argv[1])
store = AccountStore(root / "default.db")
store.checkpoint(whole=True)
record(store, [spec(at) for at in range(60)])
while sealing.seal(store):  # which nothing syncs
    pass
tell("sealed")
"""
IT_IS_TRIED_AGAIN = """
while True:
    try:
        (event_id,) = record(store, [spec(99)])
    except Exception as error:
        tell("failed", error=str(error))
    else:
        tell("recorded", id=event_id)
        break
os._exit(0)
"""


THE_STORE_IS_CLOSED = """
try:
    record(store, [spec(99)])
except Exception as error:
    tell("failed", error=str(error))
store.close()
tell("closed")
os._exit(0)
"""


def after_a_failed_sync(path: Path, program_text: str, careless: str) -> list[Op]:
    """What a program does on the disk whose first sync fails after it has told of something."""
    program, root, output = path / "program.py", path / "root", path / "trace"
    program.write_text((BEFORE_A_SYNC + program_text).format(careless=careless, path=sys.path))
    root.mkdir()
    assert trace.traced([str(program), str(root)], output) == 0
    before_sealing, _, _ = output.read_text().partition("writev(1<")
    syncs = len(re.findall(r"^\d+ +fdatasync", before_sealing, re.MULTILINE))
    shutil.rmtree(root)
    root.mkdir()
    assert (
        trace.traced([str(program), str(root)], output, inject=f"fdatasync:error=EIO:when={syncs + 1}") == 0
    )
    return list(trace.read(output, root))


def told(ops: Sequence[Op]) -> list[Any]:
    """What the program told, each as its name and its members."""
    return [json.loads(op.text) for op in ops if isinstance(op, Told)]


def cut(path: Path, ops: Sequence[Op], cuts: int) -> Iterator[Path]:
    """What so many power cuts leave, after all this was done, of a log."""
    disk = Disk()
    for op in ops:
        disk.do(op)
    for number in range(cuts):
        left = path / f"cut-{len(ops)}-{number}"
        disk.after_a_power_cut(random.Random(number)).put(left)
        yield left / "default.db"


def cuts_after_a_failed_sync(path: Path, careless: str = "") -> Iterator[tuple[str, Path]]:
    """The event that was acknowledged after a sync had failed, and what power cuts leave of its folder."""
    ops = after_a_failed_sync(path, IT_IS_TRIED_AGAIN, careless)
    assert [what for what, _ in told(ops)] == ["sealed", "failed", "recorded"]
    for left in cut(path, ops, 20):
        yield told(ops)[-1][1]["id"], left


def cuts_while_the_store_is_closed(path: Path, careless: str = "") -> Iterator[Path]:
    """What power cuts leave of a folder before each sync that closing makes, and after it."""
    ops = after_a_failed_sync(path, THE_STORE_IS_CLOSED, careless)
    assert [what for what, _ in told(ops)] == ["sealed", "failed", "closed"]
    (failed,) = [at for at, op in enumerate(ops) if isinstance(op, Synced) and op.failed]
    moments = [at for at, op in enumerate(ops) if isinstance(op, Synced) and at > failed]
    for moment in [*moments, len(ops)]:
        yield from cut(path, ops[:moment], 12)


def is_sound(path: Path) -> bool:
    """Whether a log opens and verifies."""
    with pytest.MonkeyPatch.context() as patch, opened(path) as store:
        small.shrink(patch.setattr, **session.SIZES)
        return not checking.check(store, deep=True).problems


def is_whole(path: Path, event_id: str) -> bool:
    """Whether a log has an event and verifies."""
    with opened(path) as store:
        has_it = store.get(event_id) is not None
    return has_it and is_sound(path)


def test_what_is_recorded_after_a_failed_sync_stays(tmp_path: Path) -> None:
    """Though the system has forgotten what it did not write then."""
    assert all(is_whole(path, event_id) for event_id, path in cuts_after_a_failed_sync(tmp_path))


def test_it_would_be_lost_if_the_log_was_not_written_again(tmp_path: Path) -> None:
    careless = "Syncs.write_again = lambda self: None"
    assert not all(
        is_whole(path, event_id) for event_id, path in cuts_after_a_failed_sync(tmp_path, careless)
    )


def test_closing_copies_nothing_from_a_log_that_the_disk_may_lack(tmp_path: Path) -> None:
    """The last connection that is closed would do it by itself."""
    for path in cuts_while_the_store_is_closed(tmp_path):
        assert is_sound(path)


def test_a_power_cut_while_closing_would_leave_a_damaged_log(tmp_path: Path) -> None:
    careless = (
        "from auditplane.store.sqlite import database\n"
        "database._copy_no_log_when_closed = lambda connection: None"
    )
    assert not all(is_sound(path) for path in cuts_while_the_store_is_closed(tmp_path, careless))


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


def test_the_next_start_hears_of_a_failed_sync(tmp_path: Path) -> None:
    path = tmp_path / "default.db"
    with opened(path) as store:
        record(store, [spec()])
        with pytest.raises(StoreError), store._kept():
            raise apsw.IOError("a sync failed")
    assert path.with_name("default.db-wal").stat().st_size, "what is closed leaves its log"
    with opened(path) as store, written_again() as rewritten:
        store.checkpoint(whole=False)
        assert rewritten == [store._syncs]


def test_upkeep_copies_nothing_from_a_log_that_the_disk_may_lack(tmp_path: Path) -> None:
    """A power cut in the middle of the copy would leave neither the log nor a whole database."""
    with opened(tmp_path / "default.db") as store:
        record(store, [spec()])
        with pytest.raises(StoreError), store._kept():
            raise apsw.IOError("a sync failed")
        with written_again() as rewritten:
            store.checkpoint(whole=False)
        assert rewritten == [store._syncs]


@pytest.mark.parametrize("by", ["the same process", "another process", "the next start"])
def test_a_change_of_keys_that_was_not_synced_is_before_it_is_taken_for_done(tmp_path: Path, by: str) -> None:
    """Revoking again says that it was done, and it was lost in a power cut."""
    with ExitStack() as undo:
        folder = DataFolder(tmp_path / "data")
        undo.callback(folder.close)
        one = Access(folder, log.clock)
        two = Access(folder, log.clock)
        with pytest.raises(StoreError), one._changing():
            raise apsw.IOError("a sync failed")
        assert stored.sync_failed(folder.path)
        if by == "the next start":
            one.close()
            two.close()
            one = Access(folder, log.clock)
            two = Access(folder, log.clock)
        undo.callback(one.close)
        undo.callback(two.close)
        with written_again() as rewritten:
            who = two if by == "another process" else one
            who.ensure_admin_key()
            assert rewritten[:1] == [who._syncs]
            one.create(account="default", role=Role.READER, by="tests")
            two.create(account="default", role=Role.READER, by="tests")
        assert len(rewritten) == 1
        assert not stored.sync_failed(folder.path)


def test_a_key_that_was_revoked_after_all_is_refused_by_all(tmp_path: Path) -> None:
    """What a failed sync left is seen after it was written again, by those who knew the key, too."""
    with ExitStack() as undo:
        folder = DataFolder(tmp_path / "data")
        undo.callback(folder.close)
        one, two = Access(folder, log.clock), Access(folder, log.clock)
        undo.callback(one.close)
        undo.callback(two.close)
        key, secret = one.create(account="default", role=Role.READER, by="tests")
        assert two.authenticate(secret) == key
        connection = apsw.Connection(str(folder.path / "control.db"))
        connection.execute("UPDATE api_key SET revoked_us = 1 WHERE id = ?", (key.id,))
        connection.close()
        one._syncs._shared[stored.SYNC_FAILED_AT] = 1
        with pytest.raises(Conflict):
            one.revoke(key.id, account="default", by="tests")
        with pytest.raises(NotAuthenticated):
            two.authenticate(secret)


@contextmanager
def written_again() -> Iterator[list[Syncs]]:
    """What writes its log again."""
    rewritten: list[Syncs] = []
    was = Syncs.write_again

    def write_again(syncs: Syncs) -> None:
        rewritten.append(syncs)
        was(syncs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Syncs, "write_again", write_again)
        yield rewritten


# The disk of the attacks.

WRITTEN_AS_MEMORY = (".version", ".lock", "-shm")


def test_the_trace_tells_all_that_was_done() -> None:
    """Where the power stays on, the disk of the model holds what the real one does."""
    with session.watched(5) as (root, output, code):
        assert code == 0
        disk = Disk()
        for op in trace.read(output, root):
            disk.do(op)
        sync_all(disk.root)
        left = disk.after_a_power_cut(random.Random(1))
        real = {path.relative_to(root).as_posix(): path for path in root.rglob("*")}
        assert left.files.keys() == real.keys()
        for name, data in left.files.items():
            if data is not None and not name.endswith(
                (".version", ".lock", "-shm")
            ):  # those are written as memory
                assert data == real[name].read_bytes(), name


def sync_all(node: File | Folder) -> None:
    """Syncs a folder and all in it."""
    node.sync()
    if isinstance(node, Folder):
        for each in node.names().values():
            sync_all(each)


def left_of(ops: list[trace.Op], cuts: int = 1_000) -> list[dict[str, bytes | None]]:
    """What many power cuts leave after some operations."""
    disk = Disk()
    for op in ops:
        disk.do(op)
    return [disk.after_a_power_cut(random.Random(seed)).files for seed in range(cuts)]


def test_what_was_synced_is_left_and_all_else_may_be() -> None:
    old, new = b"a" * 3 * SECTOR_BYTES, b"b" * 3 * SECTOR_BYTES
    begun: list[trace.Op] = [Made("f", is_folder=False), Written("f", 0, old), Synced("f")]
    assert {frozenset(files) for files in left_of(begun)} == {frozenset(), frozenset({"f"})}
    found = {files["f"] for files in left_of([*begun, Synced(""), Written("f", 0, new)])}
    sectors = {tuple(data[at] for at in range(0, len(data), SECTOR_BYTES)) for data in found if data}
    assert len(sectors) == 8, "each sector is old or new, whatever the others are"
    grown = {files["f"] for files in left_of([*begun, Synced(""), Written("f", len(old), new)])}
    assert {len(data) // SECTOR_BYTES for data in grown if data} == {3, 4, 5, 6}
    assert any(data and data[len(old) :] == bytes(len(new)) for data in grown), "it grew, without its bytes"
    shrunk = {files["f"] for files in left_of([*begun, Synced(""), Cut("f", 7)])}
    assert shrunk == {old, old[:7]}


def test_names_are_left_when_their_folder_was_synced() -> None:
    ops: list[trace.Op] = [
        Made("f", is_folder=False), Written("f", 0, b"1"), Synced("f"), Synced(""),
        Made("g", is_folder=False), Written("g", 0, b"2"), Synced("g"), Renamed("g", "f"),
    ]  # fmt: skip
    assert {tuple(files.items()) for files in left_of(ops)} == {
        (("f", b"1"),), (("f", b"1"), ("g", b"2")), (("f", b"2"),),
    }  # fmt: skip
    assert {tuple(files.items()) for files in left_of([*ops, Synced("")])} == {(("f", b"2"),)}
    assert {tuple(files) for files in left_of([*ops, Synced(""), Removed("f")])} == {(), ("f",)}


def test_what_a_failed_sync_forgot_does_not_come_by_the_next() -> None:
    ops: list[trace.Op] = [
        Made("f", is_folder=False),
        Synced(""),
        Written("f", 0, b"1"),
        Synced("f", failed=True),
    ]
    later: list[trace.Op] = [*ops, Written("f", 1, b"2"), Synced("f")]
    assert {files["f"] for files in left_of(later)} == {b"12", b"\x002"}
    again: list[trace.Op] = [*ops, Written("f", 0, b"1"), Synced("f")]
    assert {files["f"] for files in left_of(again)} == {b"1"}


def test_what_expires_at_the_second_try_has_expired() -> None:
    """A session that does again what failed tells of it twice."""
    told = promises.Promises()
    event = {"resourceName": "a", "user": "ann"}
    for what, members in [
        ("recording", {"account": "other", "requests": [[event]]}),
        ("recorded", {"account": "other", "ids": [["1"]]}),
        ("expiring", {"account": "other"}),
        ("failed", {"error": "disk I/O error"}),
        ("expiring", {"account": "other"}),
        ("expired", {"account": "other"}),
    ]:
        told.take(json.dumps([what, members]))
    assert (told.logs["other"].gone, told.logs["other"].shown()) == ({"1"}, {})
