"""The tokens by which events are found."""

import tracemalloc
from typing import Final

from auditplane.event import Event
from auditplane.store.sqlite.terms import Terms

EVENTS: Final = 30_000
MIB: Final = 1024 * 1024


def test_a_log_of_values_that_never_come_again_takes_no_memory() -> None:
    """Each open log has its own, in the process that looks after all of them."""
    terms = Terms(bytes(32))

    def taken_by(first: int) -> int:
        before, _ = tracemalloc.get_traced_memory()
        for number in range(first, first + EVENTS):
            terms.of_event(Event(user=f"u{number}", resourceName=f"n{number}", configuration=f"c{number}:1"))
            terms.of_words(f"one of many {number:x}")
        return tracemalloc.get_traced_memory()[0] - before

    tracemalloc.start()
    try:
        assert taken_by(0) < 6 * MIB
        assert taken_by(EVENTS) < MIB // 4
    finally:
        tracemalloc.stop()
