from collections import Counter

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from auditplane.ulid import COUNTERS, RANDOM_BYTES, is_ulid, key_of, make, make_all
from strategies import ulids

ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"  # Crockford's: no I, L, O, U.
KEY_MAX = (1 << 63) - 1

keys = st.integers(0, KEY_MAX)
randomness = st.binary(min_size=RANDOM_BYTES, max_size=RANDOM_BYTES)
LEAST, GREATEST = bytes(RANDOM_BYTES), b"\xff" * RANDOM_BYTES


def number(ulid: str) -> int:
    """The 128 bits of a ULID, letter by letter."""
    value = 0
    for letter in ulid:
        value = value * 32 + ALPHABET.index(letter)
    return value


@given(keys, randomness)
@example(0, LEAST)
@example(KEY_MAX, GREATEST)
def test_a_ulid_made_here_holds_its_key(key: int, randomness: bytes) -> None:
    ulid = make(key, randomness)
    assert is_ulid(ulid)
    assert key_of(ulid) == key


@given(keys, randomness)
def test_its_first_48_bits_are_the_milliseconds(key: int, randomness: bytes) -> None:
    assert number(make(key, randomness)) >> 80 == key // COUNTERS // 1000


@given(keys, keys, randomness, randomness)
@example(COUNTERS * 1000 - 1, COUNTERS * 1000, GREATEST, LEAST)
@example(COUNTERS - 1, COUNTERS, GREATEST, LEAST)
@example(0, 1, GREATEST, LEAST)
def test_ulids_are_in_the_order_of_their_keys(one: int, other: int, random: bytes, more: bytes) -> None:
    if one != other:
        assert (make(one, random) < make(other, more)) == (one < other)


@given(ulids)
def test_a_ulid_of_elsewhere_has_no_key_or_one_that_makes_the_same_beginning(ulid: str) -> None:
    key = key_of(ulid)
    assert key is None or 0 <= key <= KEY_MAX
    if key is not None:
        assert number(make(key, LEAST)) >> 59 == number(ulid) >> 59


def test_microseconds_that_a_millisecond_does_not_have_and_times_beyond_the_keys_give_none() -> None:
    beginning = "01ARZ3NDEK"
    assert key_of(beginning + "Z7" + "0" * 14) is not None  # 999
    assert key_of(beginning + "Z8" + "0" * 14) is None  # 1,000
    assert key_of("7" + "Z" * 9 + "0" * 16) is None


def test_random_bytes_become_letters_that_are_evenly_spread() -> None:
    letters = Counter(make(0, bytes([byte]) * RANDOM_BYTES)[-1] for byte in range(256))
    assert set(letters) == set(ALPHABET)
    assert set(letters.values()) == {256 // 32}


@pytest.mark.parametrize("counter", [0, 1])
def test_the_letter_shared_by_counter_and_randomness_is_evenly_spread(counter: int) -> None:
    shared = Counter(make(counter, bytes([byte]) * RANDOM_BYTES)[14] for byte in range(256))
    assert set(shared) == set(ALPHABET[16 * counter :][:16])
    assert set(shared.values()) == {16}


@given(keys, randomness, randomness)
def test_the_randomness_ends_the_ulid(key: int, randomness: bytes, more: bytes) -> None:
    letters = [[ALPHABET[byte & 31] for byte in given[1:]] for given in (randomness, more)]
    assert list(make(key, randomness)[15:]) == letters[0]
    assert (make(key, randomness)[15:] == make(key, more)[15:]) == (letters[0] == letters[1])


@given(st.lists(st.tuples(keys, randomness), max_size=20))
def test_many_are_made_as_one_is(given: list[tuple[int, bytes]]) -> None:
    made = make_all([key for key, _ in given], b"".join(random for _, random in given))
    assert made == [make(key, random) for key, random in given]
