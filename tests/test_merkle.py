from collections.abc import Callable, Iterator, Sequence
from functools import cache
from hashlib import sha256

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import rfc6962
from auditplane import merkle
from auditplane.errors import ProofError

# The leaves and hashes of the reference tests of Certificate Transparency.
REFERENCE = rfc6962.Tree(
    [
        bytes.fromhex(leaf)
        for leaf in (
            "",
            "00",
            "10",
            "2021",
            "3031",
            "40414243",
            "5051525354555657",
            "606162636465666768696a6b6c6d6e6f",
        )
    ]
)
ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
LEAF_1 = "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7"
LEAF_4 = "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b"
LEAVES_2_3 = "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e"
LEAVES_4_5 = "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a"
LEAVES_6_7 = "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0"
LEAVES_4_7 = "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4"

SIZE_MAX = 300
LARGE_SIZE_MAX = 3000
TREE = rfc6962.Tree([sha256(b"%d" % index).digest() for index in range(LARGE_SIZE_MAX)])

hashes = st.binary(min_size=32, max_size=32)


def leaf(index: int) -> bytes:
    return TREE.mth(index, index + 1)


def leaves(first: int, end: int) -> bytes:
    return b"".join(map(leaf, range(first, end)))


def refused(verify: Callable[..., None], *given: object) -> bool:
    try:
        verify(*given)
    except ProofError:
        return True
    return False


# As the standards have it.


def test_the_hashes_are_those_of_the_reference() -> None:
    for size, root in enumerate(ROOTS):
        assert merkle.root(size, REFERENCE.node).hex() == root
    for index, data in enumerate(REFERENCE.leaves):
        assert merkle.leaf_hash(data) == REFERENCE.node(0, index)
    assert merkle.node_hash(REFERENCE.node(0, 0), REFERENCE.node(0, 1)).hex() == ROOTS[2]
    assert merkle.EMPTY_ROOT.hex() == ROOTS[0]


@pytest.mark.parametrize(
    ("index", "size", "path"),
    [
        (0, 1, []),
        (0, 8, [LEAF_1, LEAVES_2_3, LEAVES_4_7]),
        (5, 8, [LEAF_4, LEAVES_6_7, ROOTS[4]]),
        (2, 3, [ROOTS[2]]),
        (1, 5, [ROOTS[1], LEAVES_2_3, LEAF_4]),
    ],
)
def test_inclusion_paths_are_those_of_the_reference(index: int, size: int, path: list[str]) -> None:
    made = merkle.inclusion_path(index, size, REFERENCE.node)
    assert [hash_.hex() for hash_ in made] == path
    merkle.verify_inclusion(index, size, REFERENCE.node(0, index), made, bytes.fromhex(ROOTS[size]))


@pytest.mark.parametrize(
    ("old", "new", "path"),
    [
        (1, 1, []),
        (1, 8, [LEAF_1, LEAVES_2_3, LEAVES_4_7]),
        (6, 8, [LEAVES_4_5, LEAVES_6_7, ROOTS[4]]),
        (2, 5, [LEAVES_2_3, LEAF_4]),
    ],
)
def test_consistency_paths_are_those_of_the_reference(old: int, new: int, path: list[str]) -> None:
    made = merkle.consistency_path(old, new, REFERENCE.node)
    assert [hash_.hex() for hash_ in made] == path
    merkle.verify_consistency(old, new, made, bytes.fromhex(ROOTS[old]), bytes.fromhex(ROOTS[new]))


def test_roots_and_proofs_of_every_size_are_those_of_the_definition() -> None:
    for size in range(SIZE_MAX + 1):
        root = merkle.root(size, TREE.node)
        assert root == TREE.root(size)
        for index in range(size):
            path = merkle.inclusion_path(index, size, TREE.node)
            assert path == TREE.path(index, size)
            merkle.verify_inclusion(index, size, leaf(index), path, root)
        for old in range(size + 1):
            path = merkle.consistency_path(old, size, TREE.node)
            assert path == (TREE.proof(old, size) if old else [])
            merkle.verify_consistency(old, size, path, TREE.root(old), root)


@given(st.data())
def test_roots_and_proofs_of_larger_sizes_are_those_of_the_definition(data: st.DataObject) -> None:
    size = data.draw(st.integers(SIZE_MAX, LARGE_SIZE_MAX))
    index, old = data.draw(st.integers(0, size - 1)), data.draw(st.integers(1, size))
    root = merkle.root(size, TREE.node)
    assert root == TREE.root(size)
    path = merkle.inclusion_path(index, size, TREE.node)
    assert path == TREE.path(index, size)
    merkle.verify_inclusion(index, size, leaf(index), path, root)
    path = merkle.consistency_path(old, size, TREE.node)
    assert path == TREE.proof(old, size)
    merkle.verify_consistency(old, size, path, TREE.root(old), root)


@cache
def even_root(size: int) -> bytes:
    """The root over leaves that are all the same, of which there may be any number."""
    if size == 1:
        return merkle.leaf_hash(b"")
    middle = rfc6962.half(size)
    return merkle.node_hash(even_root(middle), even_root(size - middle))


def even_node(level: int, index: int) -> bytes:
    return even_root(1 << level)


@given(st.data())
def test_proofs_of_huge_logs_hold(data: st.DataObject) -> None:
    size = data.draw(st.integers(1, 1 << 62))
    index, old = data.draw(st.integers(0, size - 1)), data.draw(st.integers(1, size))
    end = min(size, index + data.draw(st.integers(1, 100)))
    root, one = even_root(size), even_root(1)
    assert merkle.root(size, even_node) == root
    merkle.verify_inclusion(index, size, one, merkle.inclusion_path(index, size, even_node), root)
    path = merkle.consistency_path(old, size, even_node)
    merkle.verify_consistency(old, size, path, even_root(old), root)
    path = [even_node(*node) for node in merkle.range_nodes(index, end, size)]
    merkle.verify_range(index, one * (end - index), size, path, root)


@given(st.lists(hashes, max_size=20))
def test_packed_leaves_are_hashed_like_single_ones(entries: list[bytes]) -> None:
    assert merkle.leaf_hashes(b"".join(entries)) == b"".join(map(merkle.leaf_hash, entries))


@pytest.mark.parametrize("level", range(12))
def test_the_root_over_packed_hashes_is_that_of_the_tree(level: int) -> None:
    """256 are a tile."""
    assert merkle.tile_root(leaves(0, 1 << level)) == TREE.root(1 << level)


# Ranges.


def least_nodes(first: int, end: int, size: int, level: int, index: int) -> Iterator[merkle.Node]:
    """The largest nodes at and below this one that have no leaf from `first` to `end`, nor beyond `size`."""
    begins, ends = index << level, (index + 1) << level
    if begins >= size or (first <= begins and ends <= end):
        return
    if ends <= size and (ends <= first or end <= begins):
        yield level, index
        return
    yield from least_nodes(first, end, size, level - 1, 2 * index)
    yield from least_nodes(first, end, size, level - 1, 2 * index + 1)


def check_range(first: int, end: int, size: int) -> None:
    nodes = merkle.range_nodes(first, end, size)
    assert nodes == list(least_nodes(first, end, size, size.bit_length(), 0))
    path = [TREE.node(*node) for node in nodes]
    merkle.verify_range(first, leaves(first, end), size, path, TREE.root(size))


def test_every_range_is_proved_by_the_fewest_nodes() -> None:
    for size in range(1, 25):
        for first in range(size):
            for end in range(first + 1, size + 1):
                check_range(first, end, size)


@given(st.data())
def test_larger_ranges_too(data: st.DataObject) -> None:
    size = data.draw(st.integers(1, LARGE_SIZE_MAX))
    first = data.draw(st.integers(0, size - 1))
    check_range(first, data.draw(st.integers(first + 1, size)), size)


@given(st.integers(107, 1_000_000), st.data())
def test_the_proof_of_a_range_takes_at_most_12_bytes_an_event(events: int, data: st.DataObject) -> None:
    first = data.draw(st.integers(0, 1_000_000 - events))
    assert 32 * len(merkle.range_nodes(first, first + events, 1_000_000)) <= 12 * events


# Gaps.


def missing_nodes(kept: frozenset[int], size: int, level: int, index: int) -> Iterator[merkle.Node]:
    """The largest nodes at and below this one that have none of the leaves, nor any beyond `size`."""
    begins, ends = index << level, (index + 1) << level
    if begins >= size or (level == 0 and begins in kept):
        return
    if ends <= size and kept.isdisjoint(range(begins, ends)):
        yield level, index
        return
    yield from missing_nodes(kept, size, level - 1, 2 * index)
    yield from missing_nodes(kept, size, level - 1, 2 * index + 1)


@given(st.data())
def test_gaps_are_filled_by_the_fewest_nodes(data: st.DataObject) -> None:
    """Whatever is chosen, in ranges however they are cut; all of them and none of them too."""
    size = data.draw(st.integers(0, SIZE_MAX))
    cuts = data.draw(st.lists(st.integers(0, size), max_size=12).map(sorted))
    ranges = [(first, end) for first, end in zip(cuts[::2], cuts[1::2], strict=False) if first < end]
    kept = frozenset(index for first, end in ranges for index in range(first, end))
    nodes = list(merkle.gap_nodes(ranges, size))
    assert nodes == list(missing_nodes(kept, size, size.bit_length(), 0))
    assert nodes == list(merkle.gap_nodes([(index, index + 1) for index in sorted(kept)], size))


@pytest.mark.parametrize(
    "ranges", [[(0, 6)], [(-1, 2)], [(2, 2)], [(3, 2)], [(2, 3), (1, 2)], [(0, 3), (2, 4)], [(1, 2), (1, 2)]]
)
def test_ranges_that_are_not_in_order_are_refused(ranges: list[tuple[int, int]]) -> None:
    with pytest.raises(ProofError, match=r"has no entries|is not beyond"):
        list(merkle.gap_nodes(ranges, 5))


# Attacks.


def changed(data: bytes) -> bytes:
    return bytes([data[0] ^ 1]) + data[1:]


def tampered(path: Sequence[bytes]) -> Iterator[list[bytes]]:
    """The path with a hash that is changed, missing, doubled, cut or too long, or two of them swapped."""
    for at, hash_ in enumerate(path):
        before, after = path[:at], path[at + 1 :]
        yield [*before, *after]
        for other in (changed(hash_), hash_[:31], hash_ + b"\0", b""):
            yield [*before, other, *after]
        yield [*before, hash_, hash_, *after]
        if after:
            yield [*before, after[0], hash_, *after[1:]]
    yield [*path, bytes(32)]
    yield [bytes(32), *path]


def sides(index: int, size: int) -> list[bool]:
    """Whether each subtree beside the way from the leaf to the root stands left of it."""
    return [first <= index for first, _ in rfc6962.path(index, 0, size)]


def test_a_changed_inclusion_proof_is_refused() -> None:
    verify = merkle.verify_inclusion
    for size in range(1, 20):
        root = TREE.root(size)
        for index in range(size):
            path = TREE.path(index, size)
            for other in tampered(path):
                assert refused(verify, index, size, leaf(index), other, root)
            for wrong in (changed(leaf(index)), leaf(index)[:31], TREE.leaves[index], b""):
                assert refused(verify, index, size, wrong, path, root)
            for wrong in (changed(root), root[:31], TREE.root(size + 1), b""):
                assert refused(verify, index, size, leaf(index), path, wrong)


def test_an_inclusion_proof_is_of_one_index_only() -> None:
    """And of the sizes in which the leaf stands at the same place: which size it is, the checkpoint says."""
    for size in range(1, 20):
        for index in range(size):
            path, root = TREE.path(index, size), TREE.root(size)
            for other in range(-2, 22):
                at = refused(merkle.verify_inclusion, other, size, leaf(index), path, root)
                of = refused(merkle.verify_inclusion, index, other, leaf(index), path, root)
                assert at == (other != index)
                assert of == (other <= index or sides(index, other) != sides(index, size))


def test_a_changed_consistency_proof_is_refused() -> None:
    verify = merkle.verify_consistency
    for new in range(20):
        for old in range(new + 1):
            path = merkle.consistency_path(old, new, TREE.node)
            old_root, new_root = TREE.root(old), TREE.root(new)
            for other in tampered(path):
                assert refused(verify, old, new, other, old_root, new_root)
            for wrong in (changed(old_root), old_root[:31], TREE.root(old + 1)):
                assert refused(verify, old, new, path, wrong, new_root)
            for wrong in (changed(new_root), new_root[:31], TREE.root(new + 1)):
                # The empty log is the beginning of any other, whatever its root.
                allowed = old == 0 < new and len(wrong) == 32
                assert refused(verify, old, new, path, old_root, wrong) != allowed


def test_a_consistency_proof_is_of_two_sizes_only() -> None:
    for new in range(1, 16):
        for old in range(1, new):
            path = TREE.proof(old, new)
            for i in range(1, 17):
                for j in range(i, 17):
                    roots = TREE.root(i), TREE.root(j)
                    is_refused = refused(merkle.verify_consistency, i, j, path, *roots)
                    assert is_refused == ((i, j) != (old, new))


def test_a_log_that_forked_is_not_consistent() -> None:
    fork = rfc6962.Tree([*TREE.leaves[:5], b"other", *TREE.leaves[6:20]])
    for new in range(7, 20):
        for old in range(6, new):
            for tree in (TREE, fork):
                path = merkle.consistency_path(old, new, tree.node)
                with pytest.raises(ProofError):
                    merkle.verify_consistency(old, new, path, TREE.root(old), fork.root(new))


def test_a_changed_range_proof_is_refused() -> None:
    verify = merkle.verify_range
    for size in range(1, 14):
        root = TREE.root(size)
        for first in range(size):
            for end in range(first + 1, size + 1):
                path = [TREE.node(*node) for node in merkle.range_nodes(first, end, size)]
                packed = leaves(first, end)
                for other in tampered(path):
                    assert refused(verify, first, packed, size, other, root)
                for wrong in (
                    changed(packed),
                    packed[:-1],
                    packed[:-32],
                    packed + bytes(32),
                    packed[::-1],
                    b"",
                ):
                    assert refused(verify, first, wrong, size, path, root)
                for at in (-1, first - 1, first + 1):
                    assert refused(verify, at, packed, size, path, root)
                for wrong in (changed(root), root[:31], TREE.root(size + 1)):
                    assert refused(verify, first, packed, size, path, wrong)


def test_the_error_says_what_is_wrong_with_a_path() -> None:
    inclusion, consistency = TREE.path(5, 13), TREE.proof(6, 13)
    root, old_root = TREE.root(13), TREE.root(6)
    for path, wrong in (
        (inclusion[:-1], r"too short for entry 5 of 13"),
        ([*inclusion, root], r"too long for entry 5 of 13"),
        ([*inclusion[:-1], root], r"from entry 5 does not lead to the root of 13 entries"),
    ):
        with pytest.raises(ProofError, match=wrong):
            merkle.verify_inclusion(5, 13, leaf(5), path, root)
    for path, wrong in (
        ([], r"too short for 6 of 13"),
        (consistency[:-1], r"too short for 6 of 13"),
        ([*consistency, root], r"too long for 6 of 13"),
        ([root, *consistency[1:]], r"does not lead to the root of 6 entries"),
        ([*consistency[:-1], root], r"does not lead to the root of 13 entries"),
    ):
        with pytest.raises(ProofError, match=wrong):
            merkle.verify_consistency(6, 13, path, old_root, root)


def test_what_is_not_there_is_refused() -> None:
    for index, size in ((0, 0), (-1, 1), (1, 1), (5, 4)):
        with pytest.raises(ProofError, match=r"There is no entry"):
            merkle.inclusion_path(index, size, TREE.node)
    for old, new in ((-1, 1), (2, 1)):
        with pytest.raises(ProofError, match=r"can't have become"):
            merkle.consistency_path(old, new, TREE.node)
    for first, end, size in ((0, 0, 5), (3, 2, 5), (-1, 2, 5), (4, 6, 5)):
        with pytest.raises(ProofError, match=r"has no entries"):
            merkle.range_nodes(first, end, size)


numbers = st.integers(-3, 40) | st.integers(-(1 << 70), 1 << 70)
anything = st.binary(max_size=70) | hashes


@given(numbers, numbers, anything, st.lists(anything, max_size=70), anything)
def test_no_other_error_comes_of_anything(
    one: int, other: int, leaf: bytes, path: list[bytes], root: bytes
) -> None:
    """And nothing is proved by it, but what needs no proof: one leaf, the empty log, equal sizes."""
    assume(leaf != root)
    assert refused(merkle.verify_inclusion, one, other, leaf, path, root)
    assert refused(merkle.verify_range, one, leaf, other, path, root)
    assume(one not in (0, other))
    assert refused(merkle.verify_consistency, one, other, path, leaf, root)
