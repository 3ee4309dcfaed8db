"""The Merkle tree as RFC 6962 defines it, section 2.1, by recursion: what the others are compared with."""

from collections.abc import Sequence
from functools import cache
from hashlib import sha256


class Tree:
    """The tree over some leaves; its parts are given as the ranges of their leaves."""

    def __init__(self, leaves: Sequence[bytes]) -> None:
        self.leaves = leaves
        self.mth = cache(self._mth)

    def _mth(self, first: int, end: int) -> bytes:
        """MTH(D[first:end])"""
        match end - first:
            case 0:
                return sha256(b"").digest()
            case 1:
                return sha256(b"\x00" + self.leaves[first]).digest()
            case size:
                middle = first + half(size)
                return sha256(b"\x01" + self.mth(first, middle) + self.mth(middle, end)).digest()

    def root(self, size: int) -> bytes:
        return self.mth(0, size)

    def node(self, level: int, index: int) -> bytes:
        """The hash of a complete subtree."""
        assert (index + 1) << level <= len(self.leaves)
        return self.mth(index << level, (index + 1) << level)

    def path(self, index: int, size: int) -> list[bytes]:
        """PATH(m, D[n])"""
        return [self.mth(*part) for part in path(index, 0, size)]

    def proof(self, old: int, new: int) -> list[bytes]:
        """PROOF(m, D[n])"""
        return [self.mth(*part) for part in subproof(old, 0, new, True)]


def half(size: int) -> int:
    """The largest power of two smaller than `size`."""
    k = 1
    while 2 * k < size:
        k *= 2
    return k


def path(m: int, first: int, end: int) -> list[tuple[int, int]]:
    """PATH(m, D[first:end]), of which m counts from `first`."""
    if end - first == 1:
        return []
    k = half(end - first)
    if m < k:
        return [*path(m, first, first + k), (first + k, end)]
    return [*path(m - k, first + k, end), (first, first + k)]


def subproof(m: int, first: int, end: int, known: bool) -> list[tuple[int, int]]:
    """SUBPROOF(m, D[first:end], b)"""
    if m == end - first:
        return [] if known else [(first, end)]
    k = half(end - first)
    if m <= k:
        return [*subproof(m, first, first + k, known), (first + k, end)]
    return [*subproof(m - k, first + k, end, False), (first, first + k)]
