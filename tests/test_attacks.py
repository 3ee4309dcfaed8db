"""Whatever is done to a stored log, a check finds it and says what it is.

The attacks are made on copies of one real log: some of its events are late, some came with ids, some are
sealed, in several runs, and some are not; it has nodes, repacked entries and a signed checkpoint.
"""

# ruff: noqa: S608 - the tables and columns that are attacked are named here
import json
import random
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import apsw
import pytest

from auditplane import log, merkle, render, ulid
from auditplane.checking import Findings, check
from auditplane.checkpoint import Checkpoint, SignerKey, open_checkpoint, sign_checkpoint
from auditplane.errors import AuditplaneError
from auditplane.event import decode_docs
from auditplane.forgotten import SYSTEM
from auditplane.query import Order, Query
from auditplane.render import Form
from auditplane.store import Stored
from auditplane.store.sqlite import block, postings, sealing
from auditplane.store.sqlite.account import AccountStore
from auditplane.store.sqlite.database import fetch
from auditplane.times import format_us
from auditplane.zstd import compress, compress_small, decompress
from engine_model import START_US, memory_folder, opened, record, request, shrink, spec, unpacked, whole

KEY = SignerKey("auditplane/test/default", bytes(range(32)))
FLIPS = 120
SIZE = 24 * 39 + 12 + 9
LAST = SIZE - 1
IN_TAIL = LAST - 4
SIGNED = SIZE - 9

Change = Callable[[apsw.Connection], object]


def made(path: Path) -> None:
    """The log that is attacked."""
    draw = random.Random(3)
    with opened(path) as store, pytest.MonkeyPatch.context() as patch:
        shrink(patch, SEAL_EVENTS=200, TAIL_KEPT_EVENTS=20, BLOCK_EVENTS=80, RUNS_MAX=3)
        shrink(patch, TILE_ENTRIES=128, REPACK_ENTRIES=300)
        for at in range(24):
            now = START_US + at * 1_000
            late = [format_us(now - draw.randint(0, 20_000)) for _ in range(9)]
            specs = [spec(n, timestamp=us, user=f"u{n}@example.com") for n, us in enumerate(late)]
            specs += [spec(n, description=f"=words{at} {n}", details={"n": n}) for n in range(30)]
            specs[3]["id"] = f"01ARZ3NDEKTSV4RRFFQ69G5F{at:02d}"
            record(store, specs, now)
            if at == 5:
                record(store, [spec(n, timestamp=format_us(now)) for n in range(12)], now)
            while sealing.tend(store):
                pass
        log.checkpoint(store, KEY, lambda: START_US + 10**6)
        record(store, [spec(n) for n in range(9)], START_US + 10**6)
        store.checkpoint(whole=True)


@pytest.fixture(scope="module")
def original() -> Iterator[Path]:
    with memory_folder() as folder:
        path = folder / "default.db"
        made(path)
        yield path


@pytest.fixture
def path(original: Path) -> Iterator[Path]:
    """A copy to be attacked."""
    with memory_folder() as folder:
        yield Path(shutil.copy(original, folder / "default.db"))


def change(path: Path, *statements: str | Change) -> None:
    """Changes a database behind the engine's back."""
    connection = apsw.Connection(str(path))
    for statement in statements:
        if isinstance(statement, str):
            assert connection.execute(statement).fetchall() is not None
        else:
            statement(connection)
    connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
    connection.close()


def found(path: Path, *, deep: bool = True, **given: Any) -> Findings:
    """What a check finds, in a folder that is not changed."""
    store = AccountStore(path, readonly=True)
    try:
        return check(store, deep=deep, **given)
    finally:
        store.close()


def told(path: Path, **given: Any) -> str:
    """The problems; there must be some."""
    findings = found(path, **given)
    assert findings.problems
    return "\n".join(findings.problems)


def answers(path: Path) -> list[bytes]:
    """What a reader is shown of a log."""
    store = AccountStore(path, readonly=True)
    try:
        shown = [whole(store, Query(order=order)) for order in Order]
        shown += [whole(store, Query(), form, packed=True) for form in (Form.CSV, Form.CSV_RAW)]
        for query in (
            Query(users=("u3@example.com",)),
            Query(words=(("words7",),)),
            Query(names=("name-4",)),
        ):
            shown += [whole(store, query), b"%d" % log.count(store, query)]
        ids = [json.loads(line)["id"] for line in shown[0].splitlines()]
        shown += [log.get(store, event_id) for event_id in ids[::9]]
        with store.snapshot() as connection:
            signed = store.checkpoint_in(connection)
            assert signed is not None
        return [*shown, signed.root, signed.note, b"%d" % signed.size]
    finally:
        store.close()


def rows(path: Path, sql: str) -> list[Any]:
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        return fetch(connection, sql)
    finally:
        connection.close()


def id_of(path: Path, index: int) -> str:
    """The id of the event at an index."""
    with opened(path) as store:
        (line,) = [each for each in events(store) if each[0] == index]
    return str(json.loads(line[1])["id"])


def events(store: AccountStore) -> list[tuple[int, bytes, bytes]]:
    with store.snapshot() as connection:
        keys = [
            key
            for (packed,) in fetch(connection, "SELECT keys FROM entry ORDER BY first")
            for key in block.unpack_numbers(packed)
        ]
        stored = [store.at(connection, key) for key in keys]
    return [(each.index, each.doc, each.stamp) for each in stored if each is not None]


def test_a_log_that_nobody_touched_is_whole(original: Path) -> None:
    """No problem is found, shallow or deep, and nothing in the folder is changed."""
    before = {file: (file.stat().st_mtime_ns, file.read_bytes()) for file in original.parent.iterdir()}
    for deep in (False, True):
        findings = found(original, deep=deep, keys=[KEY.verifier])
        assert findings.problems == []
        assert (findings.size, findings.events, findings.gone) == (SIZE, SIZE, 0)
    assert before == {
        file: (file.stat().st_mtime_ns, file.read_bytes()) for file in original.parent.iterdir()
    }
    assert rows(original, "SELECT count(DISTINCT run) > 1, sum(guarded) > 0 FROM block") == [(1, 1)]
    assert rows(original, "SELECT tiled > 0, crowded FROM log") == [(1, 1)]


# A bit of any column.

TABLES = (
    "log",
    "tail",
    "entry",
    "node",
    "checkpoint",
    "block",
    "block_keys",
    "frame",
    "block_csv",
    "block_stamps",
    "given",
    "piece",
    "piece_column",
    "value",
    "tally",
    "term_data",
    "term_idx",
    "word_data",
    "word_idx",
    "sqlite_sequence",
    "sqlite_schema",
)
# `at_us` of a checkpoint only says when the next one is due, `tiled` where repacking goes on, and a block may
# be in another run. `markings`, `purged_high` and `wal_due` only matter while something goes. FTS5 keeps
# averages that nobody asks for, and marks of what it does not use.
HARMLESS = {
    "checkpoint": {"at_us"},
    "log": {"tiled", "markings", "purged_high", "wal_due"},
    "block": {"run"},
    "sqlite_sequence": {"seq"},
    "term_idx": {"pgno"},
    "word_idx": {"pgno"},
}


def flipped(value: Any, draw: random.Random) -> Any:
    """The value with one bit changed."""
    if isinstance(value, int):
        return value ^ 1 << draw.choice([0, 0, 1, 3, 8, 20])
    data = bytearray(value.encode() if isinstance(value, str) else value)
    at = draw.randrange(len(data))
    data[at] ^= 1 << draw.randrange(7 if isinstance(value, str) else 8)
    return data.decode("utf-8", "replace") if isinstance(value, str) else bytes(data)


def row_key(table: str) -> str:
    """What tells the rows of a table apart."""
    segment = "segid || ',' || term"
    others = {"node": "level || ',' || n", "given": "id", "term_idx": segment, "word_idx": segment}
    return others.get(table, "rowid")


@pytest.mark.parametrize("table", TABLES)
def test_a_bit_changed_in_a_row_is_found(original: Path, path: Path, table: str) -> None:
    """In each column of the first rows, the last, and some between. What is not found changes no answer."""
    draw = random.Random(table)
    which = row_key(table)
    numbers = [row[0] for row in rows(original, f"SELECT {which} FROM {table} ORDER BY 1")]
    expected = answers(original)
    caught: dict[str, bool] = {}
    for column in [row[1] for row in rows(original, f"PRAGMA table_info({table})")]:
        for number in sorted({numbers[0], numbers[-1], *draw.sample(numbers, min(4, len(numbers)))}):
            ((value,),) = _query(original, f"SELECT {column} FROM {table} WHERE {which} = ?", (number,))
            if value is None or value in (b"", ""):
                continue
            shutil.copy(original, path)
            update = f"UPDATE {table} SET {column} = ? WHERE {which} = ?"
            try:
                _query(path, update, (flipped(value, draw), number), writable=True)
            except apsw.Error:
                continue  # not even SQLite takes it
            is_found = is_problem(path)
            if not is_found:
                assert answers(path) == expected, (column, number)
            caught[column] = caught.get(column, False) or is_found
    assert {column for column, is_caught in caught.items() if not is_caught} <= HARMLESS.get(table, set())


def is_problem(path: Path) -> bool:
    """Whether a check finds anything, or the log can't even be opened."""
    try:
        return bool(found(path, keys=[KEY.verifier]).problems)
    except AuditplaneError:
        return True


def _query(path: Path, sql: str, bindings: Sequence[Any], *, writable: bool = False) -> list[Any]:
    connection = apsw.Connection(str(path))
    try:
        if writable:
            connection.config(apsw.SQLITE_DBCONFIG_DEFENSIVE, 0)
            fetch(connection, "PRAGMA writable_schema = ON")
        return fetch(connection, sql, bindings)
    finally:
        connection.close()


def test_a_bit_changed_in_the_file_is_found_or_shown_to_nobody(original: Path, path: Path) -> None:
    """Every page of the file is hit. What no check finds leaves all answers as they were."""
    draw = random.Random(5)
    data = original.read_bytes()
    expected = answers(original)
    found_ones = 0
    pages = len(data) // 8_192
    for at in range(FLIPS):
        changed = bytearray(data)
        position = (at % pages) * 8_192 + draw.randrange(8_192)
        changed[position] ^= 1 << draw.randrange(8)
        path.write_bytes(changed)
        is_found = is_problem(path)
        found_ones += is_found
        if not is_found:
            assert answers(path) == expected, position
    assert found_ones > FLIPS // 5


# Events that are taken away, changed, moved.


def block_of(path: Path, index: int) -> tuple[int, int]:
    """The block of a sealed event, and the line at which it stands."""
    for block_id, count, indexes in rows(
        path, "SELECT id, count, indexes FROM block JOIN block_keys USING (id)"
    ):
        unpacked_indexes = list(block.unpack_numbers(indexes))
        if index in unpacked_indexes:
            return block_id, count - 1 - unpacked_indexes.index(index)
    raise AssertionError(index)


def edit_frames(
    connection: apsw.Connection, block_id: int, edit: Callable[[list[bytes]], list[bytes]]
) -> None:
    """Changes the docs of a block, and makes anew what is rendered of them."""
    frames = fetch(connection, "SELECT id, data FROM frame WHERE id >> 9 = ? ORDER BY id", (block_id,))
    docs = b"".join(decompress(data) for _, data in frames).splitlines()
    docs = edit(docs)
    for number, (frame_id, _) in enumerate(frames):
        part = docs[number * block.FRAME_EVENTS : (number + 1) * block.FRAME_EVENTS]
        data = compress_small(b"\n".join(part) + b"\n")
        fetch(connection, "UPDATE frame SET data = ? WHERE id = ?", (data, frame_id))
    csv, guarded = render.csv_lines(decode_docs(docs), guard=True)
    fetch(connection, "UPDATE block_csv SET data = ? WHERE id = ?", (compress(csv), block_id))
    fetch(
        connection,
        "UPDATE block SET docs_bytes = ?, guarded = ? WHERE id = ?",
        (sum(map(len, docs)) + len(docs), guarded, block_id),
    )


def edit_entries(connection: apsw.Connection, edit: Callable[[list[int], list[bytes]], None]) -> None:
    """Changes keys and hashes of the entries in place; all of them become one row."""
    keys: list[int] = []
    hashes = b""
    for packed, some in fetch(connection, "SELECT keys, hashes FROM entry ORDER BY first"):
        keys += block.unpack_numbers(packed)
        hashes += some
    entries = [hashes[at : at + 32] for at in range(0, len(hashes), 32)]
    edit(keys, entries)
    fetch(connection, "DELETE FROM entry")
    row = (0, len(keys), block.pack_numbers(keys), b"".join(entries))
    fetch(connection, "INSERT INTO entry (first, count, keys, hashes) VALUES (?, ?, ?, ?)", row)
    fetch(connection, "UPDATE log SET tiled = 0")


def test_a_text_that_was_changed_is_named(path: Path) -> None:
    """With everything that is rendered of it made anew."""
    name = id_of(path, 500)
    block_id, line = block_of(path, 500)

    def forge(docs: list[bytes]) -> list[bytes]:
        docs[line] = docs[line].replace(b'"action":"Modified"', b'"action":"Approved"')
        return docs

    change(path, lambda connection: edit_frames(connection, block_id, forge))
    for deep in (False, True):
        assert f"event 500 (id {name}): its text or its stamp was changed" in told(path, deep=deep)


def test_a_stamp_that_was_changed_is_named(path: Path) -> None:
    """It is back-dated by an hour, in the tail."""
    name = id_of(path, IN_TAIL)
    change(
        path,
        "UPDATE tail SET stamp = CAST(replace(CAST(stamp AS TEXT), 'T06:13', 'T05:13') AS BLOB) "
        f"WHERE idx = {IN_TAIL}",
    )
    problems = told(path, deep=False)
    assert f"event {IN_TAIL} (id {name}): its text or its stamp was changed" in problems
    assert f"event {IN_TAIL}: it was recorded at" in problems


def test_events_that_changed_places_are_named(path: Path) -> None:
    first, second = id_of(path, IN_TAIL), id_of(path, IN_TAIL + 1)

    def swap(connection: apsw.Connection) -> None:
        one, other = fetch(
            connection, f"SELECT doc, stamp FROM tail WHERE idx IN ({IN_TAIL}, {IN_TAIL + 1}) ORDER BY idx"
        )
        fetch(connection, f"UPDATE tail SET doc = ?, stamp = ? WHERE idx = {IN_TAIL}", other)
        fetch(connection, f"UPDATE tail SET doc = ?, stamp = ? WHERE idx = {IN_TAIL + 1}", one)

    change(path, swap)
    problems = told(path, deep=False)
    assert f"event {IN_TAIL} (id {second}): its text or its stamp was changed" in problems
    assert f"event {IN_TAIL + 1} (id {first}): its text or its stamp was changed" in problems
    assert "stands in the place of" in problems


def moved(path: Path, *, entry_too: bool, tree_too: bool = False) -> None:
    """Moves the timestamp of an event of the tail a minute back, and its key and id with it."""

    def move(connection: apsw.Connection) -> None:
        ((key, doc, stamp),) = fetch(connection, f"SELECT key, doc, stamp FROM tail WHERE idx = {IN_TAIL}")
        members = json.loads(doc)
        us = (key >> 11) - 60_000_000
        new_key = us << 11
        members["timestamp"] = format_us(us)
        members["id"] = ulid.make(new_key, bytes(12))
        doc = json.dumps(members, separators=(",", ":")).encode()
        fetch(connection, f"UPDATE tail SET key = ?, doc = ? WHERE idx = {IN_TAIL}", (new_key, doc))

        def edit(keys: list[int], entries: list[bytes]) -> None:
            keys[IN_TAIL] = new_key
            if entry_too:
                entries[IN_TAIL] = merkle.entry(doc, stamp)

        edit_entries(connection, edit)

    change(path, move)
    if tree_too:
        change(path, "DELETE FROM node", "DELETE FROM checkpoint")
        with opened(path) as store:
            sealing.settle(store)
            log.checkpoint(store, KEY, lambda: START_US + 10**7)


def test_a_timestamp_that_was_moved_is_named(path: Path) -> None:
    moved(path, entry_too=False)
    assert f"event {IN_TAIL}" in told(path, deep=False)


def test_an_entry_that_was_made_anew_contradicts_the_tree_and_the_checkpoint(path: Path) -> None:
    """Whoever changes an entry too is caught by what was made of it."""
    index = 300
    block_id, line = block_of(path, index)

    def forge(connection: apsw.Connection) -> None:
        docs: list[bytes] = []

        def edit(found: list[bytes]) -> list[bytes]:
            found[line] = found[line].replace(b'"action":"Modified"', b'"action":"Approved"')
            docs.extend(found)
            return found

        edit_frames(connection, block_id, edit)
        ((stamps,),) = fetch(connection, "SELECT data FROM block_stamps WHERE id = ?", (block_id,))
        stamp = decompress(stamps).splitlines()[line]

        def edit_hash(_: list[int], entries: list[bytes]) -> None:
            entries[index] = merkle.entry(docs[line], stamp)

        edit_entries(connection, edit_hash)

    change(path, forge)
    problems = told(path, deep=False)
    assert "the node 1 of level 1 of the tree is not the hash of the entries below it" in problems
    assert f"the log is not the continuation of its last checkpoint: its first {SIGNED} entries" in problems


def remembered(path: Path) -> dict[str, Checkpoint]:
    """A checkpoint kept elsewhere."""
    with opened(path) as store:
        note = log.checkpoint(store, KEY, lambda: START_US + 5 * 10**6).note
    return {"the checkpoint remembered": open_checkpoint(note, KEY.name, [KEY.verifier])}


def test_a_tree_rebuilt_with_the_key_contradicts_a_checkpoint_kept_elsewhere(path: Path) -> None:
    """The folder itself is sound: only what others keep shows it."""
    earlier = remembered(path)
    moved(path, entry_too=True, tree_too=True)
    change(
        path, "UPDATE log SET low = (SELECT min(low) FROM (SELECT low FROM block UNION SELECT key FROM tail))"
    )
    problems = found(path, deep=False, keys=[KEY.verifier], earlier=earlier).problems
    assert any("not the continuation of the checkpoint remembered" in problem for problem in problems)


def test_yesterdays_file_is_shorter_than_a_checkpoint_kept_elsewhere(path: Path) -> None:
    with memory_folder() as folder:
        yesterday = Path(shutil.copy(path, folder / "default.db"))
        with opened(path) as store:
            record(store, [spec()], START_US + 10**8)
        earlier = remembered(path)
        assert found(path, earlier=earlier).problems == []
        (problem,) = found(yesterday, earlier=earlier).problems
        assert (
            f"the log is shorter than the checkpoint remembered: it has {SIZE} entries, {SIZE + 1} were"
            in problem
        )
        assert f"event {SIZE} is gone" in problem


def test_a_checkpoint_of_another_key_or_text_is_found(path: Path) -> None:
    other = SignerKey(KEY.name, bytes(32))
    assert "is not signed by the key" in told(path, keys=[other.verifier])
    ((size, root),) = rows(path, "SELECT size, root FROM checkpoint")
    note = sign_checkpoint(Checkpoint(KEY.name, size - 1, root), [KEY])
    change(path, lambda c: fetch(c, "UPDATE checkpoint SET note = ?", (note,)))
    assert "another size or root than the note in it" in told(path, keys=[KEY.verifier])


# Events that are removed.


def drop_from_tail(connection: apsw.Connection, index: int) -> None:
    fetch(connection, "DELETE FROM tail WHERE idx = ?", (index,))


def drop_from_block(connection: apsw.Connection, block_id: int, line: int) -> None:
    """Takes a line out of a block, and makes all of it anew."""
    ((count, packed_keys, packed_indexes, stamps),) = fetch(
        connection,
        "SELECT count, keys, indexes, block_stamps.data FROM block JOIN block_keys USING (id) "
        "JOIN block_stamps USING (id) WHERE id = ?",
        (block_id,),
    )
    frames = fetch(connection, "SELECT data FROM frame WHERE id >> 9 = ? ORDER BY id", (block_id,))
    docs = b"".join(decompress(data) for (data,) in frames).splitlines()
    kept = [
        Stored(key, index, doc, stamp)
        for key, index, doc, stamp in zip(
            block.unpack_numbers(packed_keys),
            block.unpack_numbers(packed_indexes),
            reversed(docs),
            reversed(decompress(stamps).splitlines()),
            strict=True,
        )
    ]
    del kept[count - 1 - line]
    made = block.seal(kept)
    fetch(connection, "DELETE FROM frame WHERE id >> 9 = ?", (block_id,))
    for number, data in enumerate(made.frames):
        fetch(connection, "INSERT INTO frame VALUES (?, ?)", ((block_id << 9) + number, data))
    for sql, bindings in (
        (
            "UPDATE block SET (low,high,count,first_index,last_index,guarded) = (?,?,?,?,?,?) WHERE id = ?",
            (made.low, made.high, made.count, made.first_index, made.last_index, made.guarded, block_id),
        ),
        ("UPDATE block SET docs_bytes = ? WHERE id = ?", (made.docs_bytes, block_id)),
        ("UPDATE block_keys SET keys = ?, indexes = ? WHERE id = ?", (made.keys, made.indexes, block_id)),
        ("UPDATE block_csv SET data = ? WHERE id = ?", (made.csv, block_id)),
        ("UPDATE block_stamps SET data = ? WHERE id = ?", (made.stamps, block_id)),
    ):
        fetch(connection, sql, bindings)


def test_an_event_removed_from_the_middle_is_missing(path: Path) -> None:
    """From a block that was made anew without it, with the counts that go with that."""
    block_id, line = block_of(path, 400)
    change(
        path,
        lambda c: drop_from_block(c, block_id, line),
        "UPDATE log SET live = live - 1, sealed = sealed - 1",
    )
    assert "event 400 is missing" in told(path, deep=False)


def test_an_event_removed_from_the_end_is_missing(path: Path) -> None:
    change(path, lambda c: drop_from_tail(c, LAST), "UPDATE log SET live = live - 1")
    assert f"event {LAST} is missing" in told(path, deep=False)


def test_the_end_of_the_log_can_be_cut_off_only_down_to_its_checkpoint(path: Path) -> None:
    """What came after the last checkpoint is not signed; what came before is missed."""
    remembered(path)
    kept = SIZE - 3

    def cut(connection: apsw.Connection) -> None:
        fetch(connection, "DELETE FROM tail WHERE idx >= ?", (kept,))

        def edit(keys: list[int], entries: list[bytes]) -> None:
            del keys[kept:], entries[kept:]

        edit_entries(connection, edit)
        fetch(connection, "UPDATE log SET size = ?1, live = ?1", (kept,))

    change(path, cut)
    problems = told(path, deep=False)
    assert (
        f"the log is shorter than its last checkpoint: it has {kept} entries, {SIZE} were signed" in problems
    )
    assert f"events {kept} to {LAST} are gone" in problems


def test_a_removal_can_not_be_hidden_as_one_that_the_log_accounts_for(path: Path) -> None:
    """The mark of a gone event in place of its key: the log itself does not say why."""

    def hide(keys: list[int], _: list[bytes]) -> None:
        keys[IN_TAIL] = block.GONE

    change(
        path,
        lambda c: drop_from_tail(c, IN_TAIL),
        lambda c: edit_entries(c, hide),
        "UPDATE log SET live = live - 1, sealed = sealed + 1",
    )
    findings = found(path)
    assert findings.problems == [f"event {IN_TAIL} is gone, and the log does not say why"]
    assert (findings.events, findings.gone) == (LAST, 1)


@pytest.mark.parametrize(
    ("details", "by", "unexplained"),
    [
        ({"erased": [IN_TAIL]}, "auditplane", False),
        ({"purgedBefore": IN_TAIL + 1}, "auditplane", False),
        ({"erased": [IN_TAIL - 1]}, "auditplane", True),
        ({"purgedBefore": IN_TAIL}, "auditplane", True),
        ({"erased": [IN_TAIL]}, "01ARZ3NDEKTSV4RRFFQ69G5FAV", True),
    ],
)
def test_what_the_log_accounts_for_is_no_problem(
    path: Path, details: dict[str, Any], by: str, unexplained: bool
) -> None:
    """Only the server itself can account for what is gone, and only for what it names."""
    members = spec(resourceKind="AuditTrail", action="Deleted", details=details)
    with opened(path) as store:
        (result,) = log.record(store, [request([members], by)], lambda: START_US + 10**7)
        assert not isinstance(result, Exception)
    if by == SYSTEM:
        change(path, "INSERT INTO told SELECT size - 1 FROM log")

    def take_out(keys: list[int], _: list[bytes]) -> None:
        keys[IN_TAIL] = block.GONE

    change(
        path,
        lambda c: drop_from_tail(c, IN_TAIL),
        lambda c: edit_entries(c, take_out),
        "UPDATE log SET live = live - 1, sealed = sealed + 1",
    )
    findings = found(path)
    problem = f"event {IN_TAIL} is gone, and the log does not say why"
    assert findings.problems == [problem] * unexplained
    assert (findings.gone, findings.erased) == (1, int("erased" in details and not unexplained))


def test_entries_that_are_missing_are_named(path: Path) -> None:
    ((first, count),) = rows(path, "SELECT first, count FROM entry ORDER BY first LIMIT 1 OFFSET 2")
    change(path, f"DELETE FROM entry WHERE first = {first}")
    assert f"the entries from {first} to {first + count - 1} are missing" in told(path, deep=False)


# What is made of events.


def test_a_line_of_csv_that_was_changed_is_found(path: Path) -> None:
    """Downloads pass it through as it is stored."""
    ((block_id, data),) = rows(path, "SELECT id, data FROM block_csv LIMIT 1")
    text = decompress(data).replace(b"Modified", b"Approved", 1)
    change(path, lambda c: fetch(c, "UPDATE block_csv SET data = ? WHERE id = ?", (compress(text), block_id)))
    assert f"block {block_id}: its CSV is not that of its events" in told(path, deep=False)


def test_what_stands_behind_a_frame_is_found(path: Path) -> None:
    """Downloads that are not unpacked would pass it on."""
    ((block_id, data),) = rows(path, "SELECT id, data FROM block_csv LIMIT 1")
    longer = data + compress(b"more\r\n")
    assert unpacked(longer).endswith(b"more\r\n")
    change(path, lambda c: fetch(c, "UPDATE block_csv SET data = ? WHERE id = ?", (longer, block_id)))
    assert f"block {block_id} can't be read" in told(path, deep=False)


@pytest.mark.parametrize("table", ["frame", "block_keys", "block_csv", "block_stamps"])
def test_parts_of_no_block_and_blocks_without_a_part_are_found(
    original: Path, path: Path, table: str
) -> None:
    columns = [row[1] for row in rows(original, f"PRAGMA table_info({table})")][1:]
    shift = 9 if table == "frame" else 0
    (top,) = rows(path, f"SELECT max(id) FROM {table}")[0]
    surplus = ((top >> shift) + 5) << shift
    some = ", ".join(columns)
    change(path, f"INSERT INTO {table} SELECT {surplus}, {some} FROM {table} WHERE id = {top}")
    assert f"the row {surplus} of {table} belongs to no block" in told(path, deep=False)
    shutil.copy(original, path)
    change(path, f"DELETE FROM {table} WHERE id = {top}")
    assert f"block {top >> shift} can't be read" in told(path, deep=False)


def test_what_events_are_found_by_is_exact(original: Path, path: Path) -> None:
    """A row of terms or words that is missing, or too many, is found by a deep check."""
    with opened(path) as store:
        ((key,),) = rows(path, "SELECT low FROM block LIMIT 1")
        row = postings.rowids([key])[0]
        with store.snapshot() as connection:
            stored = store.at(connection, key)
        assert stored is not None
        tokens = store.terms.of_event(decode_docs([stored.doc])[0])
    delete = ("INSERT INTO term (term, rowid, tokens) VALUES ('delete', ?, ?)", (row, tokens))
    change(path, lambda c: fetch(c, *delete))
    assert found(path, deep=False).problems == []
    problems = told(path)
    assert f"the table term lacks the token {tokens.split()[0]} of the event at the key {key}" in problems
    shutil.copy(original, path)
    change(path, lambda c: fetch(c, "INSERT INTO word (rowid, tokens) VALUES (?, ?)", (999_999, "wabcdefg")))
    assert "the table word has a token for block 999999 that is not due it: wabcdefg" in told(path)


def test_ids_lead_to_their_events(original: Path, path: Path) -> None:
    change(path, "DELETE FROM given WHERE id = CAST('01ARZ3NDEKTSV4RRFFQ69G5F07' AS BLOB)")
    assert "(id 01ARZ3NDEKTSV4RRFFQ69G5F07): its id does not lead to it" in told(path, deep=False)
    shutil.copy(original, path)
    change(path, "INSERT INTO given VALUES (CAST('01ARZ3NDEKTSV4RRFFQ69G5F99' AS BLOB), 5)")
    problems = told(path, deep=False)
    assert problems == "the id 01ARZ3NDEKTSV4RRFFQ69G5F99 is kept as given, and no event at its key has it"


@pytest.mark.parametrize(
    ("statement", "says"),
    [
        ("UPDATE log SET expired = size", "for the greatest key of what has expired"),
        ("UPDATE log SET purged = 7", "says that 0 entries expired and 7 were purged"),
        (
            "INSERT INTO purge VALUES (1, 'id', 300, 0, x'', -1, 0, 0, 0, 0, 0, 0, 0)",
            "a purge is under way up to event 300, which has not expired",
        ),
        (
            "INSERT INTO erased VALUES (CAST('01ARZ3NDEKTSV4RRFFQ69G5F99' AS BLOB), 7, 0, '')",
            "the id 01ARZ3NDEKTSV4RRFFQ69G5F99 is kept as that of event 7, which was not erased",
        ),
    ],
)
def test_what_has_not_expired_can_not_be_hidden(path: Path, statement: str, says: str) -> None:
    change(path, statement)
    assert says in told(path, deep=False)


def test_the_log_of_another_account_is_not_that_of_this_one(path: Path) -> None:
    """Its events say whose they are."""
    other = path.rename(path.with_name("acme.db"))
    assert "it is of the account None" in told(other, deep=False)


def test_the_schema_must_be_as_it_was_made(path: Path) -> None:
    """A trigger could change what is recorded."""
    change(path, "CREATE TRIGGER quiet AFTER INSERT ON tail BEGIN DELETE FROM tail WHERE key = new.key; END")
    assert "the trigger quiet of the database is not as it was made" in told(path, deep=False)
