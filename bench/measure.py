"""Figures: what is measured, in which unit, and how it comes from repeated measurements.

A shot is one measurement. Shots of all systems take turns, so that what else the machine does hits all alike.
"""

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

REPEATS: Final = 3
# A shot that takes longer is not repeated.
SHOT_SECONDS_LONG: Final = 90.0
# A shot that takes less is done again and again for so long.
SHOT_SECONDS_MIN: Final = 1.0


@dataclass(frozen=True)
class Measure:
    """One thing that is measured, of every system that has it."""

    part: str
    name: str
    label: str
    unit: str
    less_is_better: bool = False


@dataclass(frozen=True)
class Figure:
    """What repeated measurements of a system gave."""

    part: str
    measure: str
    system: str
    values: tuple[float, ...]

    @property
    def value(self) -> float:
        """Their median."""
        return statistics.median(self.values)


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that a share (0 to 1) of all are not above; ValueError when there are none."""
    if not values:
        raise ValueError("no values")
    ranked = sorted(values)
    # 0.99 of 300 may come out a little above 297, and must not become 298.
    return ranked[max(0, math.ceil(round(share * len(ranked), 6)) - 1)]


def ratio(value: float | None, other: float | None) -> float | None:
    """How many times the other figure a figure is; None when one is not there, or the other is 0."""
    return value / other if value is not None and other else None


def rate(marks: Sequence[float], count: int) -> float:
    """How many a second, from the seconds at which each of some steps of `count` ended."""
    return len(marks) * count / max(marks)


def last_rate(marks: Sequence[float], steps: int, count: int) -> float:
    """How many a second over the last steps only."""
    ended = sorted(marks)
    before = ended[-steps - 1] if len(ended) > steps else 0.0
    return min(steps, len(ended)) * count / (ended[-1] - before)


def take_turns(
    shots: Mapping[str, Callable[[], float]],
    repeats: int,
    failed: Callable[[str, Exception], None],
) -> dict[str, list[float]]:
    """Seconds of repeated shots, by name. One that fails is told of, and left out from then on."""
    found: dict[str, list[float]] = {name: [] for name in shots}
    left = dict(shots)
    for _ in range(repeats):
        for name, shot in list(left.items()):
            try:
                found[name].append(_at_least(shot))
            except Exception as error:  # noqa: BLE001 - the other systems go on
                failed(name, error)
                del left[name], found[name]
            else:
                if found[name][-1] > SHOT_SECONDS_LONG:
                    del left[name]
    return found


def _at_least(shot: Callable[[], float]) -> float:
    """The mean of as many shots as SHOT_SECONDS_MIN has room for, at least one."""
    taken = [shot()]
    while sum(taken) < SHOT_SECONDS_MIN:
        taken.append(shot())
    return statistics.fmean(taken)


def shown(value: float) -> str:
    """A figure for people: three digits that count, thousands set apart."""
    if value >= 1_000:
        digits = len(str(int(value))) - 3
        return f"{round(value, -digits):,.0f}"
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
