"""What an account's log commits to, and the proofs of it. Pure.

An entry of the log is SHA-256(doc, line feed, stamp): 32 bytes that show nothing of the event, whose salt
is in the stamp, and that stay when doc and stamp are destroyed.

The entries are the leaves of the Merkle tree of RFC 6962, section 2.1, with SHA-256. Proofs are made and
verified as in RFC 9162, sections 2.1.3 and 2.1.4: what is not proved raises ProofError.

A node is a complete subtree: (level, index) is number `index` of those with 2**level leaves. To make a
proof takes a function that gives the hash of a node, such as `tiles.tile_nodes` makes.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from hashlib import sha256
from struct import iter_unpack
from typing import Final, TypeAlias

from auditplane.errors import ProofError

ENTRY_BYTES: Final = 32
HASH_BYTES: Final = 32
EMPTY_ROOT: Final = sha256().digest()

Node: TypeAlias = tuple[int, int]  # level, index
Nodes: TypeAlias = Callable[[int, int], bytes]

_LEAF, _NODE = b"\x00", b"\x01"


def entry(doc: bytes, stamp: bytes) -> bytes:
    """The commitment to one event."""
    return sha256(doc + b"\n" + stamp).digest()


# Hashes (RFC 6962, section 2.1).


def leaf_hash(data: bytes) -> bytes:
    """The hash of a leaf: in a log, of an entry."""
    return sha256(_LEAF + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """The hash over two subtrees."""
    return sha256(_NODE + left + right).digest()


def leaf_hashes(entries: bytes) -> bytes:
    """`leaf_hash` of many entries; both packed."""
    return b"".join([sha256(_LEAF + data).digest() for (data,) in iter_unpack("32s", entries)])


def tile_root(hashes: bytes) -> bytes:
    """The root over a full tile: 256 hashes, packed. Any other power of two will do as well."""
    while len(hashes) > HASH_BYTES:
        hashes = level_above(hashes)
    return hashes


def level_above(hashes: bytes) -> bytes:
    """The hashes over each two, packed; an odd one at the end is left out."""
    pairs = len(hashes) // (2 * HASH_BYTES) * 2 * HASH_BYTES
    return b"".join([sha256(_NODE + pair).digest() for (pair,) in iter_unpack("64s", hashes[:pairs])])


# Nodes.


def cover(first: int, end: int) -> Iterator[Node]:
    """The fewest nodes that have exactly the leaves from `first` to `end`, from left to right."""
    while first < end:
        level = (end - first).bit_length() - 1
        if first:
            level = min(level, _zeros(first))
        yield level, first >> level
        first += 1 << level


def _zeros(number: int) -> int:
    """How many zeros a binary number ends with."""
    return (number & -number).bit_length() - 1


def _subtree(first: int, end: int, nodes: Nodes) -> bytes:
    """MTH(D[first:end]) of RFC 6962, for ranges that its recursion comes to."""
    return _folded([nodes(level, index) for level, index in cover(first, end)])


def _folded(hashes: Sequence[bytes]) -> bytes:
    """The root over nodes that become smaller from left to right."""
    *larger, latest = hashes
    for hash_ in reversed(larger):
        latest = node_hash(hash_, latest)
    return latest


def _siblings(level: int, index: int, size: int) -> Iterator[tuple[int, int]]:
    """The leaves (first, end) of each subtree that stands beside the way from a node up to the root."""
    last = (size - 1) >> level
    while last:
        sibling = index ^ 1
        if sibling <= last:
            yield sibling << level, min((sibling + 1) << level, size)
        level, index, last = level + 1, index >> 1, last >> 1


# Proofs.


def root(size: int, nodes: Nodes) -> bytes:
    """The root of the first `size` entries."""
    return _subtree(0, size, nodes) if size else EMPTY_ROOT


def inclusion_path(index: int, size: int, nodes: Nodes) -> list[bytes]:
    """PATH(index, D[size]): what proves to the holder of the root of `size` which entry is at `index`."""
    _check_index(index, size)
    return [_subtree(first, end, nodes) for first, end in _siblings(0, index, size)]


def consistency_path(old: int, new: int, nodes: Nodes) -> list[bytes]:
    """PROOF(old, D[new]): what proves that the first `old` of `new` entries are those of `old`.

    Nothing needs to be proved of the empty log, or of equal sizes: the path is empty.
    """
    _check_sizes(old, new)
    if old in (0, new):
        return []
    level = _zeros(old)
    index = (old >> level) - 1
    path = [_subtree(first, end, nodes) for first, end in _siblings(level, index, new)]
    return [nodes(level, index), *path] if index else path


def range_nodes(first: int, end: int, size: int) -> list[Node]:
    """The fewest nodes that give the root of `size`, together with the entries from `first` to `end`."""
    return list(gap_nodes([(first, end)], size))


def gap_nodes(ranges: Iterable[tuple[int, int]], size: int) -> Iterator[Node]:
    """The fewest nodes that give the root of `size`, together with the entries of some ranges (first, end).

    They are those between the ranges, from left to right, as the ranges must be.
    """
    at = 0
    for first, end in ranges:
        _check_range(first, end, size)
        if first < at:
            raise ProofError(f"The range from {first} is not beyond the one up to {at}.")
        yield from cover(at, first)
        at = end
    yield from cover(at, size)


def verify_inclusion(index: int, size: int, leaf: bytes, path: Sequence[bytes], root: bytes) -> None:
    """RFC 9162, section 2.1.3.2: the leaf of this hash is at `index` in the log of this root."""
    _check_index(index, size)
    _check_hashes(leaf, root, *path)
    latest = leaf
    for hash_, is_left in _way_up(index, size - 1, path, f"entry {index} of {size}", "inclusion"):
        latest = node_hash(hash_, latest) if is_left else node_hash(latest, hash_)
    if latest != root:
        raise ProofError(
            f"The inclusion path from entry {index} does not lead to the root of {size} entries."
        )


def verify_consistency(old: int, new: int, path: Sequence[bytes], old_root: bytes, new_root: bytes) -> None:
    """RFC 9162, section 2.1.4.2: the log of `new` entries begins with those of the log of `old`."""
    _check_sizes(old, new)
    _check_hashes(old_root, new_root, *path)
    if old in (0, new):
        _verify_trivial(old, new, path, old_root, new_root)
        return
    shift = _zeros(old)
    node, last = (old - 1) >> shift, (new - 1) >> shift
    beginning = path[:1] if node else [old_root]  # A power of two is a node, which the verifier holds.
    what = f"{old} of {new} entries"
    if not beginning:
        raise ProofError(f"The consistency path is too short for {what}.")
    old_latest = new_latest = beginning[0]
    for hash_, is_left in _way_up(node, last, path[1:] if node else path, what, "consistency"):
        if is_left:
            old_latest = node_hash(hash_, old_latest)
        new_latest = node_hash(hash_, new_latest) if is_left else node_hash(new_latest, hash_)
    if old_latest != old_root:
        raise ProofError(f"The consistency path does not lead to the root of {old} entries.")
    if new_latest != new_root:
        raise ProofError(f"The consistency path does not lead to the root of {new} entries.")


def verify_range(first: int, leaves: bytes, size: int, path: Sequence[bytes], root: bytes) -> None:
    """The leaves of these hashes, packed, stand from `first` on; `path` has the hashes of `range_nodes`."""
    if len(leaves) % HASH_BYTES:
        raise ProofError(f"Packed hashes are a multiple of {HASH_BYTES} bytes, not {len(leaves)}.")
    end = first + len(leaves) // HASH_BYTES
    _check_range(first, end, size)
    _check_hashes(root, *path)
    nodes = range_nodes(first, end, size)
    if len(path) != len(nodes):
        raise ProofError(f"The range path has {len(path)} hashes; {len(nodes)} are right for {size} entries.")
    outside = [(level, hash_) for (level, _), hash_ in zip(nodes, path, strict=True)]
    before = first.bit_count()  # One node for each bit leads up to `first`.
    inside = _range_parts(first, end, leaves)
    if _merged([*outside[:before], *inside, *outside[before:]]) != root:
        raise ProofError(f"The range from {first} to {end} does not lead to the root of {size} entries.")


def _range_parts(first: int, end: int, leaves: bytes) -> Iterator[tuple[int, bytes]]:
    """The nodes (level, hash) that a range of leaves is made of."""
    for level, index in cover(first, end):
        at = ((index << level) - first) * HASH_BYTES
        yield level, tile_root(leaves[at : at + (HASH_BYTES << level)])


def _merged(parts: Iterable[tuple[int, bytes]]) -> bytes:
    """The root over nodes (level, hash) that follow each other from the first leaf on."""
    levels: list[int] = []
    hashes: list[bytes] = []
    for level, hash_ in parts:
        while levels and levels[-1] == level:
            levels.pop()
            level, hash_ = level + 1, node_hash(hashes.pop(), hash_)  # noqa: PLW2901 - the node grows
        levels.append(level)
        hashes.append(hash_)
    return _folded(hashes)


def _way_up(
    node: int, last: int, path: Sequence[bytes], what: str, proof: str
) -> Iterator[tuple[bytes, bool]]:
    """The hashes on the way from a node up to the root, and whether each stands on the left.

    `last` is the last node of the same level. Raises ProofError when the path has another length.
    """
    for hash_ in path:
        if not last:
            raise ProofError(f"The {proof} path is too long for {what}.")
        is_left = bool(node & 1) or node == last
        if is_left:
            node, last = _up_to_right(node, last)
        yield hash_, is_left
        node, last = node >> 1, last >> 1
    if last:
        raise ProofError(f"The {proof} path is too short for {what}.")


def _up_to_right(node: int, last: int) -> tuple[int, int]:
    """Up to where `node` is the right one of two: above it stood alone at the end of its level."""
    while node and not node & 1:
        node, last = node >> 1, last >> 1
    return node, last


def _verify_trivial(old: int, new: int, path: Sequence[bytes], old_root: bytes, new_root: bytes) -> None:
    """The empty log is the beginning of any other, and each log is that of itself."""
    if path:
        raise ProofError(f"The consistency path is too long for {old} of {new} entries.")
    if not old and old_root != EMPTY_ROOT:
        raise ProofError("The root of the empty log is not what it should be.")
    if old == new and old_root != new_root:
        raise ProofError(f"The roots of two logs of {old} entries differ.")


def _check_index(index: int, size: int) -> None:
    if not 0 <= index < size:
        raise ProofError(f"There is no entry {index} in a log of {size}.")


def _check_sizes(old: int, new: int) -> None:
    if not 0 <= old <= new:
        raise ProofError(f"A log of {old} entries can't have become one of {new}.")


def _check_range(first: int, end: int, size: int) -> None:
    if not 0 <= first < end <= size:
        raise ProofError(f"A log of {size} has no entries from {first} up to, not including, {end}.")


def _check_hashes(*hashes: bytes) -> None:
    for hash_ in hashes:
        if len(hash_) != HASH_BYTES:
            raise ProofError(f"A hash has {HASH_BYTES} bytes, not {len(hash_)}.")
