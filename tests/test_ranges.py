"""Ranges of numbers, against a set of them."""

import random

import pytest

from auditplane.store.sqlite.ranges import Ranges


@pytest.mark.parametrize("seed", range(50))
def test_ranges_hold_what_was_added_and_touch_nowhere(seed: int) -> None:
    draw = random.Random(seed)
    ranges, numbers = Ranges(), set[int]()
    for _ in range(40):
        start = draw.randrange(100)
        end = start + draw.randint(1, draw.choice([1, 5, 40]))
        ranges.add(start, end)
        numbers.update(range(start, end))
        assert [number for each in ranges for number in range(*each)] == sorted(numbers)
        assert len(ranges) == sum(number - 1 not in numbers for number in numbers)
        for number in range(-2, 150):
            assert ranges.after(number) == next(at for at in range(number, 200) if at not in numbers)
