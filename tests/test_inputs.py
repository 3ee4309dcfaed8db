"""Wrong and half-right input for every parser: a little of what `make torture` feeds them."""

import json
import random
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from auditplane.errors import AuditplaneError
from auditplane.event import MEMBERS, Rules, encode_docs, parse
from strategies import Json, events, to_json
from torture import inputs
from torture.inputs import Mutator, Outcome, Parser
from torture.parsers import parsers

INPUTS = 2_000
INPUTS_LEAST = 60
PATTERNS = 6
# The state of the served application is one for all of them.


@pytest.fixture(scope="module")
def known() -> Iterator[dict[str, Parser]]:
    with parsers() as found:
        yield found


def check(outcome: Outcome) -> None:
    """Fails with what went wrong."""
    if outcome.problems:
        pytest.fail("\n".join(outcome.problems), pytrace=False)


def test_each_parser_takes_its_input_or_refuses_it_as_documented(known: dict[str, Parser]) -> None:
    """No other exception comes out; where that can be told, what was taken is written as it was read."""
    for number, parser in enumerate(known.values()):
        count = max(INPUTS_LEAST, parser.due(INPUTS))
        outcome = inputs.attacked(parser, count, seed=number)
        check(outcome)
        assert outcome.tried == count
        assert outcome.taken, parser.name
        assert outcome.refused or parser.raises == (), parser.name


def test_no_large_input_takes_more_than_linear_time(known: dict[str, Parser]) -> None:
    """Of processor time, the least of several measurements: four times the size never takes eight times."""
    for parser in known.values():
        check(inputs.large(parser, patterns_max=max(1, round(PATTERNS * min(1, 10 * parser.share)))))


# Events whose structure is right, and some of what they hold not.

wrong_values = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.integers())
half_right = st.builds(
    lambda event, changes: {**event, **changes},
    events,
    st.dictionaries(st.sampled_from(MEMBERS) | st.text(max_size=9), wrong_values, max_size=3),
)


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(half_right, max_size=3), st.booleans())
def test_events_with_wrong_members_are_taken_as_they_are_stored_or_refused(
    sent: list[Json], lines: bool
) -> None:
    bodies = [json.dumps(event).encode() if lines else to_json(event).replace(b"\n", b" ") for event in sent]
    body = b"\n".join(bodies) if lines else b"[" + b",".join(bodies) + b"]"
    try:
        batch = parse(body, Rules(), lines=lines)
    except AuditplaneError:
        return
    docs = encode_docs(batch.events)
    assert encode_docs(parse(b"[" + b",".join(docs) + b"]", Rules()).events) == docs


# Whether the attack finds what it should.

DATES = (b"2026-03-18", b"1999-12-31")


def careless(data: bytes) -> None:
    """Forgets that a text may have no third part, that a day may be too long, and to say so itself."""
    year, month, day = data.split(b"-")
    if not 1 <= int(month) <= 12:
        raise ValueError("no such month")
    year.decode("ascii"), b"0123456789"[len(day) + 5]


def slow(data: bytes) -> None:
    """Looks through all of it for each letter."""
    for _ in data:
        sum(data)


@pytest.mark.parametrize("seed", range(3))
def test_a_careless_parser_is_found_out(seed: int, tmp_path: Path) -> None:
    outcome = inputs.attacked(Parser("careless", careless, (ValueError,), DATES), INPUTS, seed)
    assert any(wrong.startswith("IndexError") for wrong in outcome.wrong)
    assert outcome.taken
    assert outcome.refused
    assert "with b'" in outcome.problems[0]
    outcome.write(tmp_path)
    assert Outcome.read(tmp_path / "outcome") == outcome
    outcome.add(outcome)
    assert outcome.tried == 2 * INPUTS


def test_a_slow_parser_is_found_out() -> None:
    slow_one = Parser("slow", slow, (), DATES, large_bytes=512)
    assert "more than linear time" in inputs.large(slow_one, patterns_max=1).problems[0]
    linear = Parser("linear", sum, (), DATES, large_bytes=256 * 1024)
    check(inputs.large(linear, patterns_max=3))


def test_an_input_that_takes_too_long_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs, "SECONDS_MAX", 0.01)

    def busy(data: bytes) -> None:
        end = time.thread_time() + (0.05 if data.startswith(b"1999-") else 0)
        while time.thread_time() < end:
            pass

    assert inputs.attacked(Parser("busy", busy, (), DATES), 20, seed=1).wrong


def test_inputs_are_the_same_for_the_same_seed_and_mostly_half_right() -> None:
    """Most keep pieces of an example; some are right."""
    parser = Parser("dates", careless, (), DATES)
    first, second = (Mutator(parser, random.Random(7)) for _ in range(2))
    made = [first.new() for _ in range(INPUTS)]
    assert made == [second.new() for _ in range(INPUTS)]
    assert len(set(made)) > INPUTS / 2
    assert sum(b"-" in data for data in made) > INPUTS / 2
    assert set(DATES) <= set(made)


def test_what_another_process_found_is_read_as_it_was(tmp_path: Path) -> None:
    """And what ends a process is found out as well."""
    ((name, outcome),) = inputs.tried(["moments"], 500, seed=3, processes=1)
    assert name == "moments"
    assert outcome.tried > 500  # and large ones
    assert outcome.taken
    assert outcome.refused
    check(outcome)
    (ended,) = inputs.in_a_process(tmp_path / "none", "there is none", "500", "3").problems
    assert "the process ended with 1" in ended
    assert "KeyError" in ended


def test_what_is_repeated_again_and_again_stays_small() -> None:
    """Memory for what is cut off afterwards would be as much as there is."""
    parser = Parser("dates", careless, (), DATES)
    mutator = Mutator(parser, random.Random(7))
    mutator._changes = (mutator._repeat,)  # chance would seldom choose it so often
    tracemalloc.start()
    try:
        for _ in range(50):
            assert len(mutator.changed(b"9999")) <= parser.bytes_max
        assert tracemalloc.get_traced_memory()[1] < 100 * parser.bytes_max
    finally:
        tracemalloc.stop()
