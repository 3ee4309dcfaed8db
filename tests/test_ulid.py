from collections import Counter

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from auditplane.ulid import COUNTERS, RANDOM_CHARS, is_ulid, key_of, make, random_chars
from strategies import ulids

ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"  # Crockford's: no I, L, O, U.
KEY_MAX = (1 << 63) - 1

keys = st.integers(0, KEY_MAX)
randomness = st.text(ALPHABET, min_size=RANDOM_CHARS, max_size=RANDOM_CHARS)


def number(ulid: str) -> int:
    """The 128 bits of a ULID, letter by letter."""
    value = 0
    for letter in ulid:
        value = value * 32 + ALPHABET.index(letter)
    return value


@given(keys, randomness)
@example(0, "0" * RANDOM_CHARS)
@example(KEY_MAX, "Z" * RANDOM_CHARS)
def test_a_ulid_made_here_holds_its_key(key: int, randomness: str) -> None:
    ulid = make(key, randomness)
    assert is_ulid(ulid)
    assert key_of(ulid) == key


@given(keys, randomness)
def test_its_first_48_bits_are_the_milliseconds(key: int, randomness: str) -> None:
    assert number(make(key, randomness)) >> 80 == key // COUNTERS // 1000


@given(keys, keys, randomness, randomness)
@example(COUNTERS * 1000 - 1, COUNTERS * 1000, "Z" * RANDOM_CHARS, "0" * RANDOM_CHARS)
@example(COUNTERS - 1, COUNTERS, "Z" * RANDOM_CHARS, "0" * RANDOM_CHARS)
@example(0, 1, "Z" * RANDOM_CHARS, "0" * RANDOM_CHARS)
def test_ulids_are_in_the_order_of_their_keys(one: int, other: int, random: str, more: str) -> None:
    if one != other:
        assert (make(one, random) < make(other, more)) == (one < other)


@given(ulids)
def test_a_ulid_of_elsewhere_has_no_key_or_one_that_makes_the_same_beginning(ulid: str) -> None:
    key = key_of(ulid)
    assert key is None or 0 <= key <= KEY_MAX
    if key is not None:
        assert number(make(key, "0" * RANDOM_CHARS)) >> 59 == number(ulid) >> 59


def test_microseconds_that_a_millisecond_does_not_have_and_times_beyond_the_keys_give_none() -> None:
    beginning = "01ARZ3NDEK"
    assert key_of(beginning + "Z7" + "0" * 14) is not None  # 999
    assert key_of(beginning + "Z8" + "0" * 14) is None  # 1,000
    assert key_of("7" + "Z" * 9 + "0" * 16) is None


def test_random_bytes_become_letters_that_are_evenly_spread() -> None:
    letters = Counter(random_chars(bytes(range(256))))
    assert set(letters) == set(ALPHABET)
    assert set(letters.values()) == {256 // 32}


@pytest.mark.parametrize("counter", [0, 1])
def test_the_letter_shared_by_counter_and_randomness_is_evenly_spread(counter: int) -> None:
    shared = Counter(make(counter, letter * RANDOM_CHARS)[14] for letter in ALPHABET)
    assert set(shared) == set(ALPHABET[16 * counter :][:16])
    assert set(shared.values()) == {2}


@given(keys, randomness)
def test_the_randomness_ends_the_ulid(key: int, randomness: str) -> None:
    assert make(key, randomness).endswith(randomness[1:])


@pytest.mark.parametrize(
    "text",
    ["", "0" * 25, "0" * 27, "8" + "0" * 25, "0" * 26 + "\n", " " + "0" * 25]
    + ["0" * 25 + letter for letter in "ILOUaŻ٣"],
)
def test_other_texts_are_no_ulids(text: str) -> None:
    assert not is_ulid(text)


def test_the_smallest_and_the_greatest_are_ulids() -> None:
    assert is_ulid("0" * 26)
    assert is_ulid("7" + "Z" * 25)
