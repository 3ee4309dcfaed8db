"""The engine's tree against the tree of RFC 6962, over the entries that are stored.

Whatever was recorded, sealed, repacked or grown, and in whatever order: roots, tiles and proofs are those of
the entries in their order.
"""

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from auditplane import log, merkle
from auditplane.checkpoint import SignerKey, open_checkpoint
from auditplane.errors import Damaged, NotFound
from auditplane.store import Signed
from auditplane.store.sqlite import sealing, tree
from auditplane.store.sqlite.account import AccountStore
from auditplane.store.sqlite.database import fetch
from auditplane.tiles import ENTRIES, Tile, entry_bundle, tiles_of
from engine_model import START_US, entries, memory_folder, opened, record, shrink, spec
from rfc6962 import Tree

KEY = SignerKey("auditplane/test/default", bytes(range(32)))


@pytest.fixture
def store() -> Iterator[AccountStore]:
    with memory_folder() as folder, opened(folder / "default.db") as store:
        yield store


def add(store: AccountStore, count: int, us: int) -> None:
    """Records some events in one commit."""
    record(store, [spec(at) for at in range(count)], us)


def naive(store: AccountStore) -> Tree:
    """The tree over the entries, each checked to be the hash of its event."""
    return Tree([merkle.entry(stored.doc, stored.stamp) for stored in entries(store)])


def check(store: AccountStore, draw: random.Random) -> None:
    expected = naive(store)
    size = len(expected.leaves)
    with store.snapshot() as connection:
        made = tree.Tree(store, connection)
        for part in {size, draw.randint(0, size), max(size - 1, 0)}:
            assert merkle.root(part, made.nodes(part)) == expected.root(part)
        for tile in tiles_of(size):
            below = 8 * tile.level
            hashes = [expected.node(below, tile.n * 256 + at) for at in range(tile.width)]
            assert made.tile(tile) == b"".join(hashes)
        assert made.tile(Tile(ENTRIES, 0, min(size, 256))) == b"".join(expected.leaves[:256])
        for _ in range(5):
            index = draw.randrange(size)
            path = merkle.inclusion_path(index, size, made.nodes(size))
            leaf = merkle.leaf_hash(expected.leaves[index])
            merkle.verify_inclusion(index, size, leaf, path, expected.root(size))
            old = draw.randint(0, size)
            proof = log.consistency(store, old, size)
            merkle.verify_consistency(old, size, proof, expected.root(old), expected.root(size))


@pytest.mark.parametrize("seed", range(6))
def test_the_tree_is_that_of_the_entries_whatever_upkeep_has_done(
    store: AccountStore, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    draw = random.Random(seed)
    monkeypatch.setattr(tree, "GROWN_AT_ONCE", draw.choice([1, 2, 64]))
    shrink(
        monkeypatch,
        SEAL_EVENTS=64,
        TAIL_KEPT_EVENTS=16,
        REPACK_ENTRIES=300,
        TILE_ENTRIES=draw.choice([7, 256]),
    )
    us = START_US
    for _ in range(12):
        add(store, draw.choice([1, 2, 100, 255, 256, 257, 700]), us)
        us += 10_000
        for _ in range(draw.randint(0, 3)):
            draw.choice([sealing.tend, sealing.seal, sealing.repack, tree.grow])(store)
        check(store, draw)
    sealing.settle(store)
    check(store, draw)
    with store.snapshot() as connection:
        assert fetch(connection, "SELECT count(*) FROM node")[0][0] == store.size() // 256


def test_upper_levels_are_kept_too(store: AccountStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """256 tiles of 256 make one node of the second level."""
    for at in range(14):
        add(store, 5_000, START_US + at * 100_000)
    while tree.grow(store):
        pass
    with store.snapshot() as connection:
        assert fetch(connection, "SELECT level, count(*) FROM node GROUP BY level") == [(1, 273), (2, 1)]
        kept = tree.Tree(store, connection)
        root = merkle.root(70_000, kept.nodes(70_000))
        packed = kept.entries(0, 70_000)
    hashes = merkle.leaf_hashes(packed)
    merkle.verify_range(0, hashes, 70_000, [], root)


def test_a_checkpoint_is_of_what_is_committed_and_stored_before_it_is_shown(store: AccountStore) -> None:
    now = START_US
    add(store, 3, now)
    signed = log.checkpoint(store, KEY, lambda: now)
    found = open_checkpoint(signed.note, KEY.name, [KEY.verifier])
    assert (found.size, found.root) == (3, naive(store).root(3))
    with store.snapshot() as connection:
        assert store.checkpoint_in(connection) == signed
    add(store, 2, now)
    assert log.checkpoint(store, KEY, lambda: now + 999_999) == signed
    later = log.checkpoint(store, KEY, lambda: now + 1_000_000)
    assert (later.size, later.root) == (5, naive(store).root(5))
    assert log.checkpoint(store, KEY, lambda: now + 90_000_000) == later
    # One that must hold a new event is signed at once, and a clock that was set back holds up none.
    add(store, 1, now)
    assert log.checkpoint(store, KEY, lambda: now + 1_000_001, size_min=6).size == 6
    add(store, 1, now)
    assert log.checkpoint(store, KEY, lambda: now).size == 7


def test_another_key_signs_the_same_tree(store: AccountStore) -> None:
    add(store, 3, START_US)
    first = log.checkpoint(store, KEY, lambda: START_US)
    other = SignerKey(KEY.name, bytes(32))
    second = log.checkpoint(store, other, lambda: START_US)
    assert (second.size, second.root) == (first.size, first.root)
    open_checkpoint(second.note, KEY.name, [other.verifier])


def test_an_older_checkpoint_never_takes_the_place_of_a_newer_one(store: AccountStore) -> None:
    add(store, 3, START_US)
    newest = log.checkpoint(store, KEY, lambda: START_US)
    assert store.keep_checkpoint(Signed(2, bytes(32), 0, b"")) == newest


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE entry SET hashes = zeroblob(length(hashes)) WHERE first = 0",
        "UPDATE log SET size = 2",
        "UPDATE checkpoint SET root = zeroblob(32)",
    ],
)
def test_nothing_is_signed_that_contradicts_what_was_signed(store: AccountStore, change: str) -> None:
    add(store, 3, START_US)
    log.checkpoint(store, KEY, lambda: START_US)
    add(store, 3, START_US)
    with store.maintenance() as connection:
        fetch(connection, change)
    with pytest.raises(Damaged, match="checkpoint"):
        log.checkpoint(store, KEY, lambda: START_US + 2_000_000)


def test_a_proof_leads_from_the_event_to_a_signed_root(store: AccountStore) -> None:
    ids = record(store, [spec(at) for at in range(700)], START_US)
    sealing.settle(store)
    ids += record(store, [spec(at) for at in range(9)], START_US + 10_000)
    for event_id in (ids[0], ids[500], ids[-1]):
        proven = log.proof(store, event_id, KEY, lambda: START_US)
        checkpoint = open_checkpoint(proven.signed.note, KEY.name, [KEY.verifier])
        entry = merkle.entry(proven.stored.doc, proven.stored.stamp)
        assert event_id.encode() in proven.stored.doc
        merkle.verify_inclusion(
            proven.stored.index, checkpoint.size, merkle.leaf_hash(entry), proven.path, checkpoint.root
        )
    with pytest.raises(NotFound):
        log.proof(store, "01ARZ3NDEKTSV4RRFFQ69G5FAV", KEY, lambda: START_US)


def test_tiles_that_are_not_there_are_not_found(store: AccountStore) -> None:
    add(store, 300, START_US)
    assert len(log.tile(store, Tile(0, 0))) == 256 * 32
    assert len(log.tile(store, Tile(0, 1, 44))) == 44 * 32
    assert log.tile(store, Tile(ENTRIES, 1, 3)) == entry_bundle(b"".join(naive(store).leaves[256:259]))
    for missing in (
        Tile(0, 1),
        Tile(0, 1, 45),
        Tile(0, 2, 1),
        Tile(1, 0, 2),
        Tile(63, 0, 1),
        Tile(ENTRIES, 1, 45),
    ):
        with pytest.raises(NotFound):
            log.tile(store, missing)


def test_two_processes_never_fork_it(tmp_path: Path) -> None:
    """Two stores stand for two workers: each goes on after what the other has committed."""
    with opened(tmp_path / "default.db") as one, opened(tmp_path / "default.db") as other:
        last = 0
        for at in range(20):
            add((one, other)[at % 2], at + 1, START_US + at * 1_000)
            times = iter([START_US + at * 2_000_000])
            signed = log.checkpoint((other, one)[at % 3 == 0], KEY, times.__next__)
            assert signed.size > last
            assert signed.root == naive(one).root(signed.size)
            last = signed.size
