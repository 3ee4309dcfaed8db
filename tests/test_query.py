"""Dates, parameters, filters and cursors, against naive models."""

import base64
import re
import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from auditplane import limits
from auditplane.errors import InvalidQuery
from auditplane.event import KINDS, Event, nearest
from auditplane.query import (
    COUNT_PARAMETERS,
    DOWNLOAD_PARAMETERS,
    HINTS_MAX,
    LIST_PARAMETERS,
    Cursor,
    Order,
    Query,
    configuration_name,
    decode_cursor,
    encode_cursor,
    flag,
    fold,
    parse_date,
    parse_query,
    words_of,
)
from auditplane.times import DAY_US, SECOND_US, format_us
from strategies import INVISIBLE, characters, texts

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def query(*given: tuple[str, str], account: str = "acme", allowed: Any = LIST_PARAMETERS) -> Query:
    return parse_query(given, account=account, allowed=allowed, kinds=KINDS)


def refusal(*given: tuple[str, str], allowed: Any = LIST_PARAMETERS) -> list[str]:
    with pytest.raises(InvalidQuery) as caught:
        query(*given, allowed=allowed)
    assert caught.value.messages
    return list(caught.value.messages)


# Dates.


def microseconds(moment: datetime) -> int:
    return (moment - EPOCH) // timedelta(microseconds=1)


utc_times = st.datetimes(datetime(1, 1, 1), datetime(9999, 12, 31), timezones=st.just(UTC))  # noqa: DTZ001
local_times = st.datetimes(datetime(2, 1, 1), datetime(9998, 12, 31))  # noqa: DTZ001 - the offset is drawn
offsets = st.integers(-(24 * 60 - 1), 24 * 60 - 1)


@given(utc_times)
def test_14_digits_are_a_whole_second_and_8_a_whole_day_of_utc(moment: datetime) -> None:
    second = moment.replace(microsecond=0)
    day = second.replace(hour=0, minute=0, second=0)
    year = f"{moment.year:04}"
    start = microseconds(second)
    assert parse_date(f"{year}{moment:%m%d%H%M%S}") == (start, start + SECOND_US - 1)
    start = microseconds(day)
    assert parse_date(f"{year}{moment:%m%d}") == (start, start + DAY_US - 1)


@given(
    local_times,
    offsets,
    st.text("0123456789", max_size=12),
    st.sampled_from("Tt "),
    st.sampled_from(["{sign}{hours:02}:{minutes:02}", "{sign}{hours:02}{minutes:02}"]),
)
def test_a_written_time_takes_in_all_of_its_last_digit(
    local: datetime, offset: int, fraction: str, separator: str, form: str
) -> None:
    local = local.replace(microsecond=int(fraction[:6].ljust(6, "0")))
    first = microseconds(local.replace(tzinfo=timezone(timedelta(minutes=offset))))
    last = first + max(10 ** (6 - len(fraction)), 1) - 1 if len(fraction) < 6 else first
    hours, minutes = divmod(abs(offset), 60)
    point = "." if fraction else ""
    start = f"{local.year:04}{local:-%m-%d}{separator}{local:%H:%M:%S}{point}{fraction}"
    signs = "-" if offset < 0 else "+ "  # A plus sign arrives as a blank where it was not encoded.
    for sign in signs:
        assert parse_date(start + form.format(sign=sign, hours=hours, minutes=minutes)) == (first, last)
        if minutes == 0:
            assert parse_date(f"{start}{sign}{hours:02}") == (first, last)
    if offset == 0:
        assert parse_date(start + "Z") == parse_date(start + "z") == (first, last)


def test_an_offset_does_not_lead_out_of_the_calendar() -> None:
    assert parse_date("0001-01-01 01:00:00+01")[0] == microseconds(datetime.min.replace(tzinfo=UTC))
    assert parse_date("9999-12-31 22:59:59-01")[1] == microseconds(datetime.max.replace(tzinfo=UTC))
    for text in ("0001-01-01 00:59:59+01", "9999-12-31 23:00:00-01"):
        with pytest.raises(InvalidQuery, match="no such date"):
            parse_date(text)


def test_the_receivers_exact_form_is_one_microsecond() -> None:
    us = microseconds(datetime(2025, 3, 18, 18, 21, 9, 1, tzinfo=UTC))
    for zone in ("+00", " 00"):
        assert parse_date("2025-03-18 18:21:09.000001" + zone) == (us, us)
    for text in ("2025-03-18 14:21:09.000001-04", "2025-03-18 23:51:09.000001+0530"):
        assert parse_date(text) == (us, us)


IMPOSSIBLE = """
    20260229 20261301 20260001 20260100 20260318240000 20260318006000 20260318000060 00000101
    2026-02-29T00:00:00Z 2026-03-18T18:21:09+24:00 2026-03-18T18:21:09+00:60 2026-03-18T18:21:60Z
    2026-03-18T24:00:00Z
"""


@pytest.mark.parametrize("text", IMPOSSIBLE.split())
def test_a_date_that_does_not_exist_is_refused_as_such(text: str) -> None:
    assert refusal(("max-date", text)) == [f'max-date: there is no such date as "{text}".']


UNREADABLE = """
    2026-03-18 2026-03-18T18:21:09 2026-03-18T18:21Z 2026 202603 2026031818 yesterday 1700000000 -1
    ２０２６０３１８
    2026-3-18T1:2:3Z 2026-03-18T18:21:09.Z 2026-03-18T18:21:09+2 2026-03-18T18:21:09+02: 20260318T182109Z
    2026-03-18T18:21:09--02:00 2026-W12-3T18:21:09Z
"""
UNREADABLE_WITH_BLANKS = [
    "2026-03-18 18:21:09.5", " 20260318", "20260318 ", "20260318\n", "2026-03-18  18:21:09+00",
    "2026-03-18T18:21:09 Z",
]  # fmt: skip


@pytest.mark.parametrize("text", [*UNREADABLE.split(), *UNREADABLE_WITH_BLANKS])
def test_anything_else_is_refused_in_one_sentence_that_tells_what_is_taken(text: str) -> None:
    [sentence] = refusal(("min-date", text))
    assert sentence.startswith("min-date: ")
    assert "YYYYMMDDHHMMSS or YYYYMMDD (UTC), RFC 3339 such as 2026-03-18T18:21:09Z" in sentence
    assert sentence.endswith(".")


def test_a_sentence_about_a_lone_surrogate_can_be_sent() -> None:
    for sentence in (
        *refusal(("min-date", "\ud800")),
        *refusal(("\ud800", "x")),
        *refusal(("limit", "\udfff")),
    ):
        assert '"?"' in sentence.encode().decode()


date_like = st.text("0123456789-:. TZ+", max_size=32)


@given(st.text(max_size=40) | date_like | st.from_regex(r"[0-9]{14}|[0-9]{4}-[0-9]{2}-[0-9]{2}[T ].{0,20}"))
def test_any_text_is_a_span_of_time_or_refused(text: str) -> None:
    try:
        low, high = parse_date(text)
    except InvalidQuery as error:
        [sentence] = error.messages
    else:
        assert low <= high
        sentence = ""
    assert len(sentence) < 400
    sentence.encode()


@given(utc_times, utc_times)
def test_both_ends_of_a_span_are_in_it(one: datetime, other: datetime) -> None:
    start, end = sorted((max(one, EPOCH), max(other, EPOCH)))
    asked = query(("min-date", f"{start:%Y%m%d%H%M%S}"), ("max-date", f"{end:%Y%m%d%H%M%S}"))
    first = microseconds(start.replace(microsecond=0))
    last = microseconds(end.replace(microsecond=999_999))
    assert (asked.min_us, asked.max_us) == (first, last)
    for us, is_in in ((first - 1, False), (first, True), (last, True), (last + 1, False)):
        if 0 <= us < microseconds(datetime.max.replace(tzinfo=UTC)):
            assert asked.matches(Event(timestamp=format_us(us))) == is_in


def test_a_minimum_after_the_maximum_is_refused_and_the_same_second_is_not() -> None:
    assert refusal(("min-date", "20260318182110"), ("max-date", "20260318182109")) == [
        "min-date is after max-date; no event can be in between."
    ]
    query(("min-date", "20260318182109"), ("max-date", "20260318182109"))
    query(("min-date", "2026-03-18T23:59:59.999999Z"), ("max-date", "20260318"))
    assert refusal(("min-date", "20260319"), ("max-date", "20260318"))


# Parameters.


def test_nothing_asked_is_everything_newest_first() -> None:
    assert query() == Query()
    assert query(*((name, "") for name in LIST_PARAMETERS)) == Query()
    assert not query().filtered


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("minDate", "min-date"),
        ("maxDate", "max-date"),
        ("min_date", "min-date"),
        ("MIN-DATE", "min-date"),
        ("configuration", "configuration-name"),
        ("usr", "user"),
        ("User", "user"),
        ("users", "user"),
        ("resourceKind", "resource-kind"),
        ("zzz", None),
    ],
)
@pytest.mark.parametrize("value", ["x", ""])
def test_a_misspelt_parameter_is_refused_and_the_nearest_named_even_without_a_value(
    name: str, near: str | None, value: str
) -> None:
    [sentence] = refusal((name, value), ("user", "anna"))
    expected = f"did you mean {near}?" if near else f"known are {', '.join(LIST_PARAMETERS)}."
    assert sentence == f'"{name}" is not a parameter of this; {expected}'


def test_each_endpoint_has_its_own_parameters() -> None:
    assert refusal(("raw", "true"))
    assert refusal(("limit", "5"), allowed=DOWNLOAD_PARAMETERS)
    for name in ("order", "after", "limit", "cursor", "raw"):
        assert refusal((name, "1"), allowed=COUNT_PARAMETERS)
    assert query(("raw", "true"), allowed=DOWNLOAD_PARAMETERS) == Query()


def test_a_filter_may_be_given_several_times_and_other_parameters_only_once() -> None:
    several = query(*[(name, value) for name in ("user", "action", "resource-name") for value in "bab"])
    assert several.users == several.actions == several.names == ("b", "a")
    given = {"min-date": "20260318", "max-date": "20260318", "order": "asc", "limit": "1", "cursor": "x"}
    for name, value in given.items():
        assert f"{name}: can be given only once." in refusal((name, value), (name, value))
        assert f"{name}: can be given only once." not in str(InvalidQuery(*tolerant(name, value)))
    assert refusal(("raw", "true"), ("raw", "true"), allowed=DOWNLOAD_PARAMETERS)


def tolerant(name: str, value: str) -> list[str]:
    """What is said of a parameter that is given once, and empty twice."""
    try:
        query((name, ""), (name, value), (name, ""))
    except InvalidQuery as error:
        return list(error.messages)
    return []


@pytest.mark.parametrize(("name", "low", "high"), [("limit", 1, 10_000), ("after", -1, 2**63 - 1)])
def test_numbers_have_exact_bounds(name: str, low: int, high: int) -> None:
    more = [("order", "recorded")] if name == "after" else []
    for value in (low, high):
        assert getattr(query((name, str(value)), *more), name) == value
    wrong = ["1.0", "1e3", "٣", "+1", "0x1", "1_0", "ten", "--1"]
    for text in (*wrong, str(low - 1), str(high + 1), " 1", "9" * 5_000):
        [sentence] = refusal((name, text), *more)
        assert sentence.startswith(f"{name}: must be a whole number from {low:,} to {high:,}, is ")


def test_orders_are_known_and_after_goes_with_recorded_only() -> None:
    for order in Order:
        assert query(("order", order.value)).order is order
    assert refusal(("order", "newest")) == ['order: must be desc, asc or recorded, is "newest".']
    assert query(("order", "recorded"), ("after", "7")).after == 7
    for text in ("desc", "asc", ""):
        assert refusal(("order", text), ("after", "7")) == ["after: goes with order=recorded."]


def test_an_unknown_kind_is_refused_and_the_nearest_named() -> None:
    assert query(("resource-kind", "Agent"), ("resource-kind", "APIKey")).kinds == ("Agent", "APIKey")
    assert refusal(("resource-kind", "agent")) == [
        'resource-kind: "agent" is not a known kind; did you mean Agent?'
    ]
    given = [("resource-kind", "Turbine")]
    extra = parse_query(given, account="acme", allowed=LIST_PARAMETERS, kinds=["Turbine"])
    assert extra.kinds == ("Turbine",)


def test_words_are_those_of_the_text_each_once_and_every_q_is_a_choice() -> None:
    assert query(("q", "Zoë, raised  zoe\u0308"), ("q", "7")).words == (("zoë", "raised"), ("7",))


def test_words_without_a_letter_or_digit_are_refused() -> None:
    for text in (" ", "--", "_", "é"[1:] + "\u0301", "😀"):
        assert refusal(("q", text)) == [f'q: "{text}" holds no letter or digit to look for.']


def test_everything_that_is_wrong_is_said_at_once() -> None:
    names = ["min-date", "max-date", "order", "resource-kind", "limit"]
    found = refusal(*((name, "0") for name in names))
    assert [sentence.partition(":")[0] for sentence in found] == names


def test_the_number_of_parameters_is_bounded_and_many_unknown_ones_are_not_all_listed() -> None:
    most = [("user", str(number)) for number in range(limits.QUERY_VALUES_MAX)]
    assert len(query(*most).users) == limits.QUERY_VALUES_MAX
    assert refusal(*most, ("user", "one more")) == ["At most 100 parameters can be given, not 101."]
    assert refusal(*[(f"x{number}", "1") for number in range(100_000)])
    assert len(refusal(*[(f"x{number}", "1") for number in range(99)])) == limits.PROBLEMS_LISTED_MAX
    assert len(refusal(*[("x", "1")] * 50)) == 1


@pytest.mark.parametrize("name", ["resource-kind", "q"])
def test_many_wrong_values_are_not_all_listed(name: str) -> None:
    assert len(refusal(*[(name, "-" * number) for number in range(1, 50)])) == limits.PROBLEMS_LISTED_MAX


def test_what_may_be_meant_is_looked_for_a_few_times(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each time takes a millisecond of the event loop."""
    looked: list[str] = []

    def note(text: str, known: Iterable[str]) -> str | None:
        looked.append(text)
        return nearest(text, known)

    monkeypatch.setattr("auditplane.query.nearest", note)
    kinds = [f"Sorce{number}" for number in range(100)]
    found = refusal(*[("resource-kind", kind) for kind in kinds])
    assert looked == kinds[:HINTS_MAX]
    assert [sentence.endswith("; did you mean Source?") for sentence in found] == [True] * 3 + [False] * 17
    looked.clear()
    found = refusal(*[(f"usr{number}", "x") for number in range(50)])
    assert looked == ["usr0", "usr1", "usr2"]
    assert ["did you mean user?" in sentence for sentence in found] == [True] * 3 + [False] * 17


any_names = st.sampled_from([*LIST_PARAMETERS, "x"]) | st.text(max_size=5)


@given(st.lists(st.tuples(any_names, st.text(max_size=20)), max_size=5))
def test_any_parameters_are_a_query_or_refused(given: list[tuple[str, str]]) -> None:
    try:
        asked = query(*given)
    except InvalidQuery as error:
        assert error.messages  # noqa: PT017 - either way is right
        str(error).encode()
    else:
        assert {name for name, value in given if value} <= set(LIST_PARAMETERS)
        encode_cursor(Cursor(1, 2), asked, "acme")


def test_flags_are_true_or_false() -> None:
    assert flag("true", "raw")
    assert not any(flag(value, "raw") for value in (None, "", "false"))
    for value in ("1", "yes", "True", "TRUE", "0", " true"):
        with pytest.raises(InvalidQuery, match="raw: must be true or false"):
            flag(value, "raw")


# What matches.


def variants(text: str) -> set[str]:
    """Ways of writing a text that are the same but for case and composition."""
    return {
        form
        for form in (text, text.lower(), text.upper(), text.casefold(), text.swapcase())
        for form in (form, *(unicodedata.normalize(kind, form) for kind in ("NFC", "NFD")))
        if unicodedata.normalize("NFC", form).casefold() == unicodedata.normalize("NFC", text).casefold()
    }


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("anna@example.com", "ANNA@EXAMPLE.COM"),
        ("Zoë", "ZOË"),
        ("Zoë", "zoe\u0308"),
        ("Jürgen Weiß", "JÜRGEN WEISS"),
        ("WEIẞ", "weiß"),
        ("İnci", "i\u0307nci"),
        ("ΣΊΣΥΦΟΣ", "σίσυφος"),
        ("ſara", "Sara"),
        ("ﬁona", "Fiona"),
        ("ᾳ", "ΑΙ"),
        ("\u1fb3\u0301", "\u03b1\u0301\u0345"),
        ("K\u212a", "kk"),
        ("\u1112\u1161\u11ab", "한"),
    ],
)
def test_users_are_the_same_whatever_their_case_and_composition(one: str, other: str) -> None:
    for user, asked in ((one, other), (other, one)):
        assert query(("user", asked)).matches(Event(user=user))


@pytest.mark.parametrize(("one", "other"), [("Zoë", "Zoe"), ("anna", "anna "), ("ınci", "inci"), ("a", "ａ")])
def test_users_that_differ_in_more_than_case_are_different(one: str, other: str) -> None:
    for user, asked in ((one, other), (other, one)):
        assert not query(("user", asked)).matches(Event(user=user))


@given(texts(1, 10), st.data())
@example("İıßẞ", None)
@example("ǰΐẖ", None)  # Folding takes these apart.
def test_folding_is_stable_and_blind_to_case_and_composition(text: str, data: Any) -> None:
    folded = fold(text)
    assert fold(folded) == folded
    assert {fold(form) for form in variants(text)} == {folded}
    assert unicodedata.is_normalized("NFC", folded)


@given(st.text(st.characters(max_codepoint=127)))
def test_folding_and_words_of_ascii_are_those_of_any_text(text: str) -> None:
    assert fold(text) == unicodedata.normalize("NFC", text.casefold())
    assert words_of(text) == re.findall(r"[^\W_]+", text.casefold())
    # The same words come out where another text makes the whole one of more than ASCII.
    assert words_of(text + "\né") == [*words_of(text), "é"]


@given(texts(0, 20))
@example("Ünïcödé_ünd-mehr ｆｕｌｌ ½ x²")
def test_words_are_the_longest_runs_of_letters_and_digits(text: str) -> None:
    spaced = "".join(char if char.isalnum() else " " for char in fold(text))
    assert words_of(text) == spaced.split()


@pytest.mark.parametrize(
    ("configuration", "name"),
    [
        ("gateway", "gateway"),
        ("gateway:7", "gateway"),
        ("eu:gw:7", "eu:gw"),
        ("gateway:", "gateway"),
        (":7", ""),
    ],
)
def test_the_name_of_a_configuration_ends_at_its_last_colon(configuration: str, name: str) -> None:
    assert configuration_name(configuration) == name


@pytest.mark.parametrize(
    ("configuration", "asked", "is_match"),
    [
        ("gateway:7", "gateway", True),
        ("gateway:7", "gateway:7", True),
        ("gateway", "gateway", True),
        ("gateway:7", "gateway:8", False),
        ("gateway:70", "gateway:7", False),
        ("gateway", "gateway:7", False),
        ("gateway-2:7", "gateway", False),
        ("gateway:7", "Gateway", False),
        ("eu:gateway:7", "eu:gateway", True),
        ("eu:gateway:7", "eu", False),
        (None, "gateway", False),
    ],
)
def test_a_name_finds_every_version_and_a_version_only_itself(
    configuration: str | None, asked: str, is_match: bool
) -> None:
    assert query(("configuration-name", asked)).matches(Event(configuration=configuration)) == is_match


def test_all_words_of_one_q_must_occur_as_whole_words_in_any_of_the_four_texts() -> None:
    event = Event(
        resourceName="otlp-receiver",
        description="Memory limit raised to 2 GiB\nafter OOM",
        configuration="prod-gateway:7",
        user="Zoë.Lindqvist@example.com",
        action="Modified",
        resourceKind="Source",
    )
    for text in ("memory", "OOM raised", "zoe\u0308 GATEWAY 7", "receiver", "raised, limit!", "2", "com"):
        assert query(("q", text)).matches(event)
    for text in ("memor", "memory lowered", "zoe", "modified", "source", "none", "gibafter", "70"):
        assert not query(("q", text)).matches(event)
    assert query(("q", "nothing"), ("q", "memory oom")).matches(event)
    assert not query(("q", "nothing"), ("q", "memory lowered")).matches(event)
    assert not query(("q", "none")).matches(replace_members(event, configuration=None))


def replace_members(event: Event, **members: Any) -> Event:
    return Event(**{name: getattr(event, name) for name in event.__struct_fields__} | members)


few_names = st.sampled_from(["a", "A", "b", "a:1", "a:2", "b:1", "ë", "Ë", "e\u0308", "a b"])
filters = st.lists(
    st.tuples(st.sampled_from(["user", "configuration-name", "action", "resource-name", "q"]), few_names)
    | st.tuples(st.just("resource-kind"), st.sampled_from(KINDS[:3])),
    max_size=5,
)
few_events = st.builds(
    Event,
    resourceName=few_names,
    description=few_names,
    resourceKind=st.sampled_from(KINDS[:3]),
    configuration=st.none() | few_names,
    action=few_names,
    user=few_names,
)


def same(text: str) -> str:
    """A naive fold: what two texts that differ in case and composition have in common."""
    return unicodedata.normalize("NFD", unicodedata.normalize("NFD", text).casefold())


def naive_words(text: str) -> set[str]:
    return set(re.sub(r"[\W_]", " ", unicodedata.normalize("NFC", text).casefold()).split())


def naive_match(asked: list[tuple[str, str]], event: Event) -> bool:
    """One filter after the other, value by value."""
    configuration = event.configuration
    found = naive_words(f"{event.description} {event.resourceName} {event.user} {configuration or ''}")
    tests: dict[str, Callable[[str], bool]] = {
        "user": lambda value: same(value) == same(event.user),
        "configuration-name": lambda value: (
            configuration is not None and (configuration == value or configuration.rsplit(":", 1)[0] == value)
        ),
        "action": lambda value: value == event.action,
        "resource-name": lambda value: value == event.resourceName,
        "resource-kind": lambda value: value == event.resourceKind,
        "q": lambda value: naive_words(value) <= found,
    }
    return all(any(tests[name](value) for name, value in asked if name == filtered) for filtered, _ in asked)


@given(filters, st.lists(few_events, min_size=1, max_size=10))
def test_a_query_matches_what_the_naive_model_matches(
    asked: list[tuple[str, str]], events: list[Event]
) -> None:
    parsed = query(*asked)
    assert parsed.filtered == bool(asked)
    assert [parsed.matches(event) for event in events] == [naive_match(asked, event) for event in events]


@given(st.integers(0, 10), st.none() | st.integers(0, 10), st.none() | st.integers(0, 10))
def test_times_match_inclusively(us: int, low: int | None, high: int | None) -> None:
    asked = Query(min_us=low, max_us=high)
    expected = (low is None or us >= low) and (high is None or us <= high)
    assert (
        asked.in_time(Event(timestamp=format_us(us)))
        == asked.matches(Event(timestamp=format_us(us)))
        == expected
    )


# Cursors.

cursors = st.builds(Cursor, st.integers(0, 2**63 - 1), st.integers(0, 2**63 - 1))
queries = st.builds(
    Query,
    users=st.lists(texts(1, 3), max_size=2).map(tuple),
    names=st.lists(texts(1, 3), max_size=2).map(tuple),
    words=st.lists(st.lists(texts(1, 3), min_size=1, max_size=2).map(tuple), max_size=2).map(tuple),
    min_us=st.none() | st.integers(0, 2),
    max_us=st.none() | st.integers(0, 2),
    order=st.sampled_from(Order),
    after=st.none() | st.integers(-1, 1),
    limit=st.none() | st.integers(1, 3),
)


@given(cursors, queries, st.none() | st.integers(1, 10_000), st.none() | cursors)
def test_a_cursor_comes_back_whatever_the_limit_and_the_cursor_before(
    cursor: Cursor, asked: Query, limit: int | None, before: Cursor | None
) -> None:
    text = encode_cursor(cursor, asked, "acme")
    assert re.fullmatch(r"[A-Za-z0-9_-]+", text)
    assert decode_cursor(text, replace(asked, limit=limit, cursor=before), "acme") == cursor


@given(cursors, queries, queries)
def test_a_cursor_of_another_query_or_account_is_refused(cursor: Cursor, asked: Query, other: Query) -> None:
    assume(replace(asked, limit=None) != replace(other, limit=None))
    text = encode_cursor(cursor, asked, "acme")
    for query_then, account in ((other, "acme"), (asked, "globex"), (asked, "acme\n")):
        with pytest.raises(InvalidQuery, match="belongs to another query"):
            decode_cursor(text, query_then, account)


@given(
    st.text(max_size=40)
    | st.text("ABCDabcd0189-_=+/", max_size=40)
    | st.binary(min_size=25, max_size=25).map(lambda packed: base64.urlsafe_b64encode(packed).decode())
)
@example("")
@example("=")
@example("A" * 33)
@example("\ud800")
@example("AQ" + "A" * 1_000_000)
def test_garbage_is_refused_as_a_cursor(text: str) -> None:
    with pytest.raises(InvalidQuery, match=r"cursor: (is not one of this|belongs to another)"):
        decode_cursor(text, Query(), "acme")


@given(st.data(), cursors)
def test_a_damaged_cursor_is_refused_or_a_place_that_cannot_harm(data: st.DataObject, cursor: Cursor) -> None:
    text = encode_cursor(cursor, Query(), "acme")
    at = data.draw(st.integers(0, len(text) - 1))
    damaged = text[:at] + data.draw(characters | st.just("")) + text[at + 1 :]
    try:
        found = decode_cursor(damaged, Query(), "acme")
    except InvalidQuery:
        return
    assert 0 <= found.position < 2**63
    assert 0 <= found.size < 2**63


def test_a_cursor_of_another_version_or_of_no_place_is_refused_and_so_are_characters_between() -> None:
    text = encode_cursor(Cursor(3, 9), Query(), "acme")
    packed = base64.urlsafe_b64decode(text + "==")
    for bad in (b"\x02" + packed[1:], packed[:1] + b"\xff" + packed[2:], packed[:9] + b"\xff" + packed[10:]):
        with pytest.raises(InvalidQuery, match="not one of this version"):
            decode_cursor(base64.urlsafe_b64encode(bad).decode(), Query(), "acme")
    for char in " \n!%.":
        with pytest.raises(InvalidQuery, match="not one of this server"):
            decode_cursor(text[:8] + char * 4 + text[8:], Query(), "acme")


def test_a_cursor_is_a_parameter_that_holds_for_the_other_ones_only() -> None:
    asked = query(("user", "anna"), ("limit", "5"))
    text = encode_cursor(Cursor(3, 9), asked, "acme")
    assert query(("user", "ANNA"), ("limit", "7"), ("cursor", text)).cursor == Cursor(3, 9)
    for more in ([("user", "bob")], [], [("user", "anna"), ("order", "asc")], [("user", "anna"), ("q", "x")]):
        assert refusal(*more, ("cursor", text)) == [
            "cursor: belongs to another query; keep the other parameters as they were."
        ]
    assert refusal(("cursor", "x")) == ["cursor: is not one of this server; follow the Link header as it is."]


def test_invisible_characters_are_part_of_no_word() -> None:
    assert words_of("a" + INVISIBLE + "b") == ["a", "b"]
