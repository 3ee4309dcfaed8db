"""Checks of everything that is stored of one account, in one view of it.

The entries are what a log commits to. From the events that lead to them all else is made anew, and compared
with what is stored: so each check says what is wrong, and none repairs it. Whatever stands in a row, a check
tells a problem of it and goes on with the next.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, TypeAlias

import msgspec

from auditplane.errors import Damaged, ProofError, StoreError
from auditplane.store.sqlite.database import load_queries, translated

QUERIES: Final = load_queries("auditplane.store.sqlite.checks")

Problem: TypeAlias = Callable[[str], None]
"""Takes a sentence that says what is wrong, and where."""

# What may come of bytes that are not those that were written.
_NONSENSE: Final = (
    Damaged,
    ProofError,
    StoreError,
    ValueError,
    TypeError,
    IndexError,
    OverflowError,
    MemoryError,
    msgspec.MsgspecError,
)


@contextmanager
def telling(problem: Problem, what: str, folder: Path) -> Iterator[None]:
    """Tells a problem of `what` when it can't be read."""
    try:
        with translated(folder):
            yield
    except _NONSENSE as error:
        problem(f"{what} can't be read: {error}")


def ranges(indexes: Iterable[int]) -> Iterator[tuple[int, int]]:
    """Ascending indexes as ranges: first and last."""
    first = last = None
    for index in indexes:
        if last is None or index != last + 1:
            if first is not None and last is not None:
                yield first, last
            first = index
        last = index
    if first is not None and last is not None:
        yield first, last


def named(first: int, last: int) -> str:
    """The subject of a sentence on some events."""
    return f"event {first} is" if first == last else f"events {first} to {last} are"
