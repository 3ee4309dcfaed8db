"""A few rounds of each attack of `torture`, and whether the attacks find what they should."""

import json
import random
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor

import pytest

from torture import faults, powercut, promises, rot, session, trace
from torture.disk import SECTOR_BYTES, Disk, File, Folder
from torture.trace import Cut, Made, Removed, Renamed, Synced, Written

CUTS = 250
FAULTS = 12
FLIPS = 60
# As long sessions as those of `make torture` would take a third of the time of all tests.
SHORT = ["-c", "from torture import session\nsession.ROUNDS = (2, 4)\nsession.main()"]

pytestmark = pytest.mark.timeout(900)  # on a busy machine


@pytest.mark.parametrize("seed", [1, 2])
def test_no_power_cut_loses_anything(seed: int) -> None:
    """After each, the folder opens, holds what was acknowledged, verifies, and takes new events."""
    states, failures = powercut.cuts(seed, CUTS, processes=1, program=SHORT)
    assert not failures, failures[0].problem
    assert states > CUTS // 2


def test_no_failing_disk_loses_anything() -> None:
    """The session comes to its end by itself, and what was acknowledged holds."""
    chosen = faults.faults(3, FAULTS, program=SHORT)
    assert len(chosen) == FAULTS
    for result in faults.tried(chosen, processes=1, program=SHORT):
        assert not result.problem, f"{result.fault}: {result.problem}"


def test_each_call_that_may_fail_does_in_its_turn() -> None:
    """Once and for a while; some thousand faults have all but those of most writes."""
    found = faults.faults(5, 1_000_000)
    assert len(set(found)) == len(found)
    for error, calls in faults.KINDS.items():
        for call in calls:
            counts = Counter(each.first for each in found if (each.call, each.error) == (call, error))
            assert set(counts.values()) == {2}, f"{call} {error}"
    rest = {each.call for each in found[6_500:]}
    assert rest == {"pwrite64"}


CARELESS = {
    "commits are not synced": "from auditplane.store.sqlite import database\n"
    "database.SYNCHRONOUS[True] = 'NORMAL'",
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
