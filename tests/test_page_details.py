"""What was before beside what came after: the lines of both are all there, and it takes no seconds."""

import json
import time
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from auditplane.http.page.details import DIFF_LINES_MAX, DIFF_PAIRS_MAX, Line, comparison

numbers = st.lists(st.integers(0, 3), max_size=12)


def compared(before: list[Any], after: list[Any]) -> list[Line]:
    return list(comparison(json.dumps({"before": before, "after": after}).encode()))


@given(numbers, numbers, st.integers(0, 1))
def test_both_sides_are_shown_whole(before: list[int], after: list[int], few: int) -> None:
    """Also where the same lines stand so often that differences are not looked for line by line."""
    many = [] if few else [number % 2 for number in range(400)]
    for old, new in ((many + before, many + after), (before + many, after + many)):
        shown = compared(old, new)
        skipped = sum(line.count for line in shown)
        assert len([line for line in shown if line.before is not None]) + skipped == max(1, len(old))
        assert len([line for line in shown if line.after is not None]) + skipped == max(1, len(new))
        assert all(line.before == line.after for line in shown if line.state == "same")
        assert (old == new) == all(line.state in ("same", "skipped") for line in shown)


def test_no_details_take_seconds_to_compare() -> None:
    """Lines that stand hundreds of times on both sides took seven seconds of 4 KiB."""
    size = DIFF_LINES_MAX - 1
    sides: list[tuple[list[int], list[int]]] = [
        ([1] * size, [1, 2] * (size // 2)),
        ([1, 2] * (size // 2), [2, 1, 1] * (size // 3)),
        ([1] * size, [number for at in range(size // 2) for number in (1, at + 10)]),
        *(([1] * some, ([1, 2] * size)[: 2 * DIFF_PAIRS_MAX // some][:size]) for some in (100, 300, 900)),
    ]
    for before, after in sides:
        began = time.process_time()
        assert compared(before, after)
        assert time.process_time() - began < 1
