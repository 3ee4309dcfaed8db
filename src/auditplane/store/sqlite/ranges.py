"""Ranges of whole numbers, of which those that meet become one."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator


class Ranges:
    """Numbers as ranges: each from a start to before an end."""

    def __init__(self) -> None:
        # Ascending, and no two ranges touch.
        self._starts: list[int] = []
        self._ends: list[int] = []

    def __len__(self) -> int:
        return len(self._starts)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return iter(zip(self._starts, self._ends, strict=True))

    def after(self, number: int) -> int:
        """The first number from one on that is in no range."""
        at = bisect_right(self._starts, number) - 1
        return max(number, self._ends[at]) if at >= 0 else number

    def add(self, start: int, end: int) -> None:
        """Adds a range that is not empty."""
        first, last = bisect_left(self._ends, start), bisect_right(self._starts, end)
        if first < last:
            start, end = min(start, self._starts[first]), max(end, self._ends[last - 1])
        self._starts[first:last], self._ends[first:last] = [start], [end]
