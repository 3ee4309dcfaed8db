"""The event: what is taken, what is refused and how that is explained, and the bytes that are kept."""

import json
import math
import random
import re
import time
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from auditplane import event as event_module
from auditplane import limits
from auditplane.errors import AuditplaneError, Forbidden, InvalidEvents, InvalidInput, TooLarge
from auditplane.event import (
    KINDS,
    MEMBERS,
    REDACTED,
    SECRET_WORDS,
    Event,
    Rules,
    compose,
    decode_doc,
    decode_docs,
    encode_docs,
    nearest,
    parse,
    problems,
)
from strategies import AWKWARD, Json, details, docs, events, letters, number_texts, recorded, texts, to_json

RULES = Rules()
CONTROLS = [chr(code) for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in "\t\n\r"]
TEXT_BOUNDS = {
    "resourceName": (1, 256),
    "description": (0, 4_096),
    "configuration": (0, 256),
    "action": (1, 64),
    "user": (1, 256),
}
MIB = 1024 * 1024


def sent(**members: Any) -> Json:
    """A right event, but for what is given."""
    return {"resourceName": "otlp", "resourceKind": "Source", "action": "Modified", "user": "anna"} | members


def with_details(text: str) -> bytes:
    """A right event with details given as JSON text."""
    return to_json(sent())[:-1] + b',"details":' + text.encode("utf-8", "surrogatepass") + b"}"


def doc_of(body: bytes, rules: Rules = RULES) -> bytes:
    return encode_docs(parse(body, rules).events)[0]


def kept_details(text: str, secret_words: tuple[str, ...] = SECRET_WORDS) -> str:
    return bytes(parse(with_details(text), Rules(secret_words=secret_words)).events[0].details).decode()


def refusal(body: bytes, rules: Rules = RULES, *, lines: bool = False) -> list[str]:
    with pytest.raises(InvalidEvents) as caught:
        parse(body, rules, lines=lines)
    assert caught.value.messages
    return list(caught.value.messages)


def members_named(found: list[str]) -> set[str]:
    """The members that the sentences of `problems` are about."""
    return {sentence.partition(":")[0].removeprefix(".") for sentence in found}


# A model of what is right, written from the specification and the standard library alone.


def is_text(low: int, high: int) -> Callable[[Any], bool]:
    def check(value: Any) -> bool:
        return (
            isinstance(value, str)
            and low <= len(value) <= high
            and not any(char in CONTROLS or 0xD800 <= ord(char) <= 0xDFFF for char in value)
        )

    return check


def is_moment(value: Any) -> bool:
    if not isinstance(value, str) or not re.fullmatch(
        r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?(Z|[+-][0-9]{2}:[0-9]{2})",
        value,
    ):
        return False
    try:
        return datetime.fromisoformat(value).timestamp() >= 0
    except ValueError:
        return False


def is_id(value: Any) -> bool:
    return (
        isinstance(value, str) and re.fullmatch("[0-7][0-9A-HJKMNP-TV-Za-hjkmnp-tv-z]{25}", value) is not None
    )


def depth_of(value: Any) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if inner is None else 1 + max(map(depth_of, inner), default=0)


def is_details(value: Any) -> bool:
    if not isinstance(value, dict) or depth_of(value) > 32:
        return False
    try:
        return len(to_json(value)) <= 16 * 1024
    except UnicodeEncodeError:
        return False


OPTIONAL: dict[str, Callable[[Any], bool]] = {
    "id": is_id,
    "timestamp": is_moment,
    "description": is_text(0, 4_096),
    "configuration": is_text(0, 256),
    "account": lambda value: value in ("", "default"),
    "details": is_details,
}
REQUIRED: dict[str, Callable[[Any], bool]] = {
    "resourceName": is_text(1, 256),
    "resourceKind": lambda value: value in KINDS,
    "action": is_text(1, 64),
    "user": is_text(1, 256),
}


def wrong_members(event: Json) -> set[str]:
    """The members that are wrong, unknown or missing by the model."""
    unknown = event.keys() - OPTIONAL.keys() - REQUIRED.keys()
    missing = {name for name, is_right in REQUIRED.items() if not is_right(event.get(name))}
    given = {name for name in OPTIONAL if event.get(name) is not None}
    return unknown | missing | {name for name in given if not OPTIONAL[name](event[name])}


faulty_texts = st.text(st.one_of(letters, st.sampled_from([*CONTROLS, "\ud800", "\udfff"])), max_size=5)
long_texts = st.builds(
    lambda char, size: char * size,
    st.sampled_from("aé😀\n\\"),
    st.sampled_from([1, 63, 64, 65, 255, 256, 257, 4_095, 4_096, 4_097]),
)
faults: st.SearchStrategy[Any] = st.one_of(
    st.none(),
    st.just(""),
    st.integers(),
    st.booleans(),
    st.just([]),
    st.just({}),
    faulty_texts,
    long_texts,
    st.sampled_from(KINDS),
    st.sampled_from(["agent", "Agents", "2026-02-29T00:00:00Z", "1969-12-31T23:59:59.999999Z", "0" * 26]),
    st.sampled_from(["1970-01-01T00:00:00Z", "1970-01-01T00:00:00+00:01", "01arz3ndektsv4rrffq69g5fav"]),
    st.sampled_from(
        ["01ARZ3NDEKTſV4RRFFQ69G5FAV", "01ARZ3NDEKTﬀ4RRFFQ69G5FAV", "8" + "0" * 25, "0" * 25 + "U"]
    ),
)
nested = st.integers(29, 34).map(
    lambda depth: json.loads('{"a":[' * (depth // 2) + "1" + "]}" * (depth // 2))
)
faulty_members = st.dictionaries(
    st.sampled_from([*MEMBERS, *MEMBERS, "usr", "resource", ""]),
    faults | st.dictionaries(faulty_texts, faults, max_size=3) | nested,
    max_size=3,
)
suspects = st.builds(lambda right, wrong: right | wrong, events, faulty_members)
"""Events that may be wrong in any member."""


# What is taken.


@given(suspects, st.booleans())
def test_the_fast_way_in_the_careful_check_and_the_model_agree(event: Json, escaped: bool) -> None:
    wrong = wrong_members(event)
    body = json.dumps(event, ensure_ascii=escaped).encode("utf-8", "surrogatepass")
    if isinstance(event.get("account"), str) and event["account"] not in ("", "default"):
        for check in (problems, parse):
            with pytest.raises((Forbidden, InvalidEvents)):
                check(body, RULES)
        return
    found = problems(body, RULES)
    assert members_named(found) == wrong
    if wrong:
        assert refusal(body) == [f"events[0]{sentence}" for sentence in found]
    else:
        assert len(parse(body, RULES).events) == 1


@given(st.lists(suspects.filter(lambda event: "account" not in event), min_size=1, max_size=4), st.booleans())
def test_every_wrong_event_of_a_request_is_named_by_its_position_and_no_other(
    given: list[Json], lines: bool
) -> None:
    parts = [json.dumps(event).encode() for event in given]
    wrong = {position for position, event in enumerate(given) if wrong_members(event)}
    body = b"\n".join(parts) if lines else b"[" + b" ,\n".join(parts) + b"]"
    if not wrong:
        assert len(parse(body, RULES, lines=lines).events) == len(given)
        return
    found = refusal(body, lines=lines)
    positions = {int(sentence[7:].partition("]")[0]) for sentence in found if sentence.startswith("events[")}
    assert positions == wrong or (len(found) > 20 and positions < wrong)


@pytest.mark.parametrize("char", ["a", "é", "\\", '"', "\n", "😀"])
@pytest.mark.parametrize("member", TEXT_BOUNDS)
def test_a_text_may_have_exactly_its_bounds_of_characters_and_not_one_more_or_less(
    member: str, char: str
) -> None:
    low, high = TEXT_BOUNDS[member]
    for size in (low, high - 1, high):
        parse(to_json(sent(**{member: char * size})), RULES)
        # Nor is it blamed where another member is wrong.
        assert members_named(problems(to_json(sent(**{member: char * size}, id="")), RULES)) == {"id"}
    assert members_named(problems(to_json(sent(**{member: char * (high + 1)})), RULES)) == {member}
    if low:
        assert members_named(problems(to_json(sent(**{member: ""})), RULES)) == {member}


@pytest.mark.parametrize("char", CONTROLS, ids=[f"U+{ord(char):04X}" for char in CONTROLS])
def test_a_control_character_is_refused_in_every_text_however_it_is_written(char: str) -> None:
    code = f"\\u{ord(char):04x}"
    for member in TEXT_BOUNDS:
        marked = to_json(sent(**{member: "a~b"}))
        for form in {code, code.upper().replace("U", "u"), "\\\\" + code, json.dumps(char)[1:-1]} - {char}:
            [sentence] = refusal(marked.replace(b"~", form.encode()))
            start = f"events[0].{member}: holds the control character U+{ord(char):04X} at position "
            assert sentence.startswith(start)
        found = refusal(marked.replace(b"~", char.encode()))
        assert ord(char) < 0x20 or members_named(found) == {f"events[0].{member}"}  # JSON has no raw C0.


@pytest.mark.parametrize("form", [b"\\u0000", b"\\b", "\x80".encode()])
def test_a_control_character_is_refused_wherever_in_a_large_body_it_stands(form: bytes) -> None:
    """The body is searched in pieces; it may lie across the end of one."""
    marked = to_json([sent(user="a~b")])
    place = marked.index(b"~")
    for shift in range(-8, 3):
        body = b" " * (event_module._SEARCHED_BYTES + shift - place) + marked.replace(b"~", form)
        assert members_named(refusal(body)) == {"events[0].user"}


def test_tab_line_feed_and_carriage_return_are_taken_and_kept() -> None:
    for member in TEXT_BOUNDS:
        text = "\ta\nb\r\n\r"
        event = parse(to_json(sent(**{member: text})), RULES).events[0]
        assert getattr(event, member) == text


@given(texts(1, 20))
@example("\\u0000")
@example("\\b\\f")
@example("Â\xa0\xad")
def test_text_that_only_looks_like_an_escape_or_a_control_character_is_kept(text: str) -> None:
    for escaped in (True, False):
        body = json.dumps(sent(user=text), ensure_ascii=escaped).encode()
        assert parse(body, RULES).events[0].user == text


@pytest.mark.parametrize(
    "surrogate", ["\\ud800", "\\uDFFF", "\\ud800\\ud800", "\\udc00\\ud800", "\\ud83dx\\ude00"]
)
def test_a_lone_surrogate_is_refused_and_named_wherever_it_stands(surrogate: str) -> None:
    for member in (*TEXT_BOUNDS, "details"):
        value = {"key": ["~"]} if member == "details" else "~"
        wrong = to_json(sent(**{member: value})).replace(b"~", surrogate.encode())
        assert members_named(problems(wrong, RULES)) == {member}
        fine = json.dumps(sent(user="\\ud800 😀 \\")).encode()
        for lines, body in ((False, b"[%b, %b,%b]"), (True, b"%b\n%b\n%b")):
            found = refusal(body % (fine, wrong, fine), lines=lines)
            assert members_named(found) == {f"events[1].{member}"}
    assert problems(to_json(sent()).replace(b'"user"', b'"' + surrogate.encode() + b'"'), RULES)


def test_an_event_that_looks_like_another_but_for_its_escapes_is_not_mistaken_for_it() -> None:
    fine, wrong = to_json(sent(user="xu0001")), to_json(sent(user="\x01"))
    assert members_named(refusal(b"[%b,%b,%b]" % (fine, wrong, fine))) == {"events[1].user"}


def test_bytes_that_are_not_utf8_are_refused_and_named() -> None:
    for bad in (b"\xff", b"\xed\xa0\x80", b"\xc0\x80", b"\xf4\x90\x80\x80", b"\xc3"):
        for member in (*TEXT_BOUNDS, "details"):
            value = {"key": "~"} if member == "details" else "~"
            body = to_json(sent(**{member: value})).replace(b"~", bad)
            assert members_named(problems(body, RULES)) == {member}
            assert members_named(refusal(b"[" + body + b"]")) == {f"events[0].{member}"}


@given(events)
def test_one_object_an_array_and_lines_give_the_same(event: Json) -> None:
    one = to_json(event)
    for blank in (b"", b"\n", b" \r\n\t"):
        body = blank + one + blank
        batches = [
            parse(body, RULES),
            parse(b"\xef\xbb\xbf" + body, RULES),
            parse(blank + b"[" + body + b"]" + blank, RULES),
            parse(one + blank.replace(b"\r", b""), RULES, lines=True),
        ]
        for batch in batches[1:]:
            assert encode_docs(batch.events) == encode_docs(batches[0].events)
            assert batch.times == batches[0].times
            assert batch.composed == batches[0].composed


def test_lines_hold_one_event_each_and_blank_ones_do_not_count() -> None:
    one = to_json(sent())
    assert len(parse(b"\n\n" + one + b"\r\n \t\n" + one + b"\n\n", RULES, lines=True).events) == 2
    for wrong in (one + b" " + one, one + b"," + one, b"[" + one + b"]", one[:20] + b"\n" + one[20:]):
        assert refusal(one + b"\n" + wrong, lines=True)[0].startswith("events[1]")


@pytest.mark.parametrize("lines", [False, True])
def test_a_request_may_hold_10_000_events_and_not_one_more(lines: bool) -> None:
    for part in (to_json(sent()), to_json(sent(details={"a": {"b": [{}] * 30}}))):
        start, comma, end = (b"", b"\n", b"") if lines else (b"[", b",", b"]")
        most = [part] * limits.BATCH_EVENTS_MAX
        assert len(parse(start + comma.join(most) + end, RULES, lines=lines).events) == 10_000
        for more in (part, b"{}"):
            with pytest.raises(TooLarge, match="at most 10,000 events"):
                parse(start + comma.join([*most, more]) + end, RULES, lines=lines)


@pytest.mark.parametrize("body", [b"[]", b" [ ] "])
def test_a_body_without_an_event_is_refused(body: bytes) -> None:
    assert "holds no event" in refusal(body)[0]
    assert "holds no event" in refusal(b" \n\r\n", lines=True)[0]


# What is refused is explained.


def test_at_most_20_problems_are_listed_and_that_there_are_more_is_said() -> None:
    for count in (19, 20, 21, 500):
        found = refusal(to_json([sent(), *[sent(user="")] * count]))
        listed = [f"events[{i + 1}].user: must be 1 to 256 characters, has 0" for i in range(min(count, 20))]
        assert found[:20] == listed
        assert (len(found) == 21) == (count > 20)
    assert len(refusal(to_json([dict.fromkeys(map(str, range(500)), "")]))) == 21


@pytest.mark.parametrize(
    ("given", "hint"), [("agent", "Agent"), ("Agnet", "Agent"), ("SOURCE", "Source"), ("ApiKeys", "APIKey")]
)
def test_an_unknown_kind_is_refused_and_the_nearest_named(given: str, hint: str) -> None:
    [sentence] = refusal(to_json(sent(resourceKind=given)))
    assert sentence == f'events[0].resourceKind: "{given}" is not a known kind; did you mean {hint}?'


def test_a_kind_that_is_like_none_gets_no_hint() -> None:
    [sentence] = refusal(to_json(sent(resourceKind="12345")))
    assert sentence == 'events[0].resourceKind: "12345" is not a known kind'


def test_every_published_kind_is_taken_and_further_ones_by_the_rules_only() -> None:
    assert len(set(KINDS)) == len(KINDS) == 44
    for kind in KINDS:
        parse(to_json(sent(resourceKind=kind)), RULES)
    body = to_json(sent(resourceKind="Turbine"))
    assert refusal(body)
    rules = Rules(extra_kinds=("Turbine",))
    assert parse(body, rules).events[0].resourceKind == "Turbine"
    assert refusal(to_json(sent(resourceKind="turbine")), rules)[0].endswith("did you mean Turbine?")


def test_a_misspelt_member_is_refused_and_the_nearest_named() -> None:
    assert refusal(to_json(sent(resource_name="x"))) == [
        "events[0].resource_name: is not a member of an event; did you mean resourceName?"
    ]


@pytest.mark.parametrize("member", ["resourceName", "resourceKind", "action", "user"])
def test_a_missing_member_is_named_and_null_is_as_if_it_was_not_there(member: str) -> None:
    event = sent()
    for body in (sent(**{member: None}), {key: value for key, value in event.items() if key != member}):
        assert refusal(to_json(body)) == [f"events[0].{member}: is missing"]


def test_of_a_member_given_twice_the_last_one_counts_and_each_must_be_right() -> None:
    body = to_json(sent())
    assert parse(body[:-1] + b',"user":"eve"}', RULES).events[0].user == "eve"
    assert refusal(b'{"user":5,' + body[1:]) == ["events[0]: Expected `str`, got `int` - at `$.user`"]


@pytest.mark.parametrize("id", ["01arz3ndektsv4rrffq69g5fav", "01ARZ3NDEKTSV4RRFFQ69G5FAV"])
def test_an_id_may_be_given_in_either_case_and_is_kept_in_capitals(id: str) -> None:
    assert parse(to_json(sent(id=id)), RULES).events[0].id == id.upper()


@pytest.mark.parametrize(
    "id", ["", "0" * 25 + "U", "8" + "0" * 25, "0" * 25 + "ſ", "0" * 24 + "ﬀ", "0" * 24 + "ß"]
)
def test_a_text_that_is_no_ulid_is_refused_even_if_its_capitals_are_one(id: str) -> None:
    assert refusal(to_json(sent(id=id)))[0].startswith("events[0].id: must be a ULID")


def test_times_are_those_given_and_none_elsewhere() -> None:
    given = ["1970-01-01T00:00:00Z", None, "2026-03-18T20:21:09.0000019+02:00"]
    assert parse(to_json([sent(timestamp=text) for text in given]), RULES).times == [
        0,
        None,
        1773858069000001,
    ]
    for text in ("1969-12-31T23:59:59.999999Z", "1970-01-01T00:00:00+00:01"):
        assert refusal(to_json(sent(timestamp=text)))[0].startswith(
            "events[0].timestamp: must not be before 1970"
        )


@given(st.lists(texts(1, 20), min_size=1, max_size=30), texts(0, 20))
def test_nearest_gives_a_known_name_or_none_and_a_known_one_itself(known: list[str], text: str) -> None:
    assert nearest(text, known) in [*known, None]
    found = nearest(known[0], known)
    assert found is not None
    assert found.casefold() == known[0].casefold()


# Accounts.


def test_an_account_takes_its_own_events_and_those_that_name_none() -> None:
    for account in ("default", "acme"):
        for named in ({}, {"account": None}, {"account": ""}, {"account": account}):
            doc = json.loads(doc_of(to_json(sent(**named)), Rules(account)))
            assert doc.get("account") == (None if account == "default" else account)


@pytest.mark.parametrize("given", ["globex", "ACME", "acme ", "default"])
def test_an_event_of_another_account_is_forbidden_wherever_it_stands(given: str) -> None:
    other, rules = sent(account=given), Rules("acme")
    for body in (
        other,
        [sent(), other],
        [sent(user=""), other],
        [other, sent(user="")],
        other | {"user": ""},
    ):
        with pytest.raises(Forbidden, match="can't record into the account"):
            parse(to_json(body), rules)


# What is kept.


@given(st.lists(events, min_size=1, max_size=5), st.sampled_from(["default", "acme"]))
def test_a_doc_is_the_plainest_json_of_the_members_in_their_order(given: list[Json], account: str) -> None:
    kept = recorded(given, account)
    for event, doc, members in zip(kept, encode_docs(kept), given, strict=True):
        expected = {name: members.get(name) for name in MEMBERS} | {
            "id": event.id,
            "timestamp": event.timestamp,
            "description": members.get("description") or compose(event),
            "account": None if account == "default" else account,
            "configuration": members.get("configuration") or None,
        }
        assert doc == to_json({name: value for name, value in expected.items() if value is not None})


@given(docs)
def test_docs_are_read_back_as_they_were_and_recorded_again_give_the_same(docs: list[bytes]) -> None:
    assert encode_docs(decode_docs(docs)) == docs
    assert [encode_docs([decode_doc(doc)])[0] for doc in docs] == docs
    account = json.loads(docs[0]).get("account", "default")
    assert encode_docs(parse(b"[" + b",".join(docs) + b"]", Rules(account)).events) == docs
    assert all(b"\n" not in doc and b"\r" not in doc for doc in docs)


def test_no_events_have_no_docs() -> None:
    assert encode_docs([]) == []
    assert decode_docs([]) == []


@pytest.mark.parametrize("char", ['"', "\\", "\n", "é", "不", "😀"])
def test_the_largest_event_has_a_doc_of_less_than_64_kib(char: str) -> None:
    members = {member: char * high for member, (_, high) in TEXT_BOUNDS.items()}
    fill = {"d": char * 4_000, "e": "a" * 100}
    fill["e"] += "a" * (limits.DETAILS_BYTES_MAX - len(to_json(fill)))
    rules = Rules("a" * 63)
    kept = recorded([sent(**members, resourceKind=max(KINDS, key=len), details=fill)], rules.account)
    assert len(encode_docs(kept)[0]) < limits.DOC_BYTES_MAX == 64 * 1024


def test_a_missing_description_is_composed() -> None:
    batch = parse(
        to_json(
            [
                sent(configuration="prod-gateway:7"),
                sent(description="", configuration=""),
                sent(description="Memory limit raised"),
                sent(description=None),
            ]
        ),
        RULES,
    )
    assert [event.description for event in batch.events] == [
        "Modified Source otlp in configuration prod-gateway:7",
        "Modified Source otlp",
        "Memory limit raised",
        "Modified Source otlp",
    ]
    assert batch.composed == {0, 1, 3}


@given(texts(256, 256), texts(64, 64), st.none() | texts(256, 256))
def test_a_composed_description_is_itself_right(name: str, action: str, configuration: str | None) -> None:
    description = compose(
        Event(resourceName=name, resourceKind="Source", action=action, configuration=configuration)
    )
    assert parse(to_json(sent(description=description)), RULES).events[0].description == description


# Details.


NUMBERS = """
    0 -0 1.10 -0.0 1E308 1e5 1.0E-7 0.00000000010 -9999999999999999999 18446744073709551616
    9999999999999999999999999999999999999999 0.1000000000000000055511151231257827 1e-99999999999999999999
"""


@pytest.mark.parametrize("number", [*NUMBERS.split(), "9" * 64])
def test_details_keep_every_digit_of_a_number(number: str) -> None:
    assert kept_details(f'{{"n" : [{number} , {number}], "m" : {number}}}') == (
        f'{{"n":[{number},{number}],"m":{number}}}'
    )


DOUBLES_END = 2**1024 - 2**970
"""The least number that is rounded to infinity."""


def is_number(text: str) -> bool:
    return len(text) <= 64 and abs(Decimal(text)) < DOUBLES_END


@given(number_texts, st.sampled_from(["[~]", "~", '{"b":[1,~]}', "[" * 30 + "~" + "]" * 30]))
def test_a_number_is_taken_if_it_is_a_finite_double_and_not_too_long(number: str, place: str) -> None:
    """What is taken can be read by msgspec and by `json`; wherever another stands, it is refused."""
    text = f'{{"a":{place.replace("~", number)},"b":2}}'
    if is_number(number):
        assert kept_details(text) == text
        assert msgspec.json.decode(text) == json.loads(text)
        assert math.isfinite(float(number))
    else:
        [sentence] = refusal(b"[%b,%b]" % (ONE, with_details(text)))
        assert sentence.startswith("events[1].details: holds ")
        assert members_named(problems(with_details(text), RULES)) == {"details"}


@given(number_texts, st.text("0123456789eE+-.", max_size=99))
def test_digits_in_texts_and_keys_and_what_is_replaced_are_no_numbers(number: str, digits: str) -> None:
    text = f'{{"a{number}":"{number}","b":[{{"{digits}":"\\"{digits}"}},"{"9" * 400}"]}}'
    assert kept_details(text) == text
    assert kept_details(f'{{"token":{number}}}') == f'{{"token":"{REDACTED}"}}'


@pytest.mark.parametrize(
    "number", ["1" + "0" * 63, "-" + "1" * 63, "0." + "0" * 62, "1." + "1" * 57 + "e-400"]
)
def test_a_number_may_have_64_characters_and_not_one_more(number: str) -> None:
    assert kept_details(f'{{"n":{number}}}') == f'{{"n":{number}}}'
    longer = number + "0"
    assert refusal(with_details(f'{{"n":{longer}}}')) == [
        "events[0].details: holds a number of 65 characters; send one of more than 64 as a text"
    ]


def test_a_number_that_is_too_large_is_named() -> None:
    assert refusal(with_details('{"n":-1E400}')) == [
        "events[0].details: holds the number -1E400, which is too large; the largest is about 1.8e308"
    ]


@given(details)
def test_details_are_kept_without_blanks_in_their_order_and_as_plain_unicode(value: Json) -> None:
    expected = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    for escaped in (True, False):
        for indent in (None, "\t"):
            assert kept_details(json.dumps(value, ensure_ascii=escaped, indent=indent), ()) == expected


@pytest.mark.parametrize(
    "text", ['{"a":1,"a":2}', '{"b":[{"a":{},"\\u0061":{}}]}', '{"a":1,"b":2,"c":3,"b":2}', '{"":1,"":1}']
)
def test_a_key_twice_in_one_object_is_refused_and_named(text: str) -> None:
    [sentence] = refusal(with_details(text))
    assert re.fullmatch(r'events\[0\]\.details: holds the key "[ab]?" twice in one object', sentence)


def test_a_key_may_occur_again_in_another_object() -> None:
    text = '{"a":{"a":[{"a":1},{"a":2}]},"A":1}'
    assert kept_details(text) == text


@pytest.mark.parametrize("core", ["", "1", '"a"', "null"])
def test_details_may_be_32_deep_and_not_33(core: str) -> None:
    for depth, is_right in ((31, True), (32, True), (33, False), (500, False), (900, False)):
        text = '{"a":' + "[" * (depth - 1) + core + "]" * (depth - 1) + "}"
        if is_right:
            assert kept_details(text) == text
        else:
            assert refusal(with_details(text)) == ["events[0].details: must be nested at most 32 deep"]


@pytest.mark.parametrize("char", ["a", "é", "😀", '"', "\\", "\x00"])
def test_details_may_have_16_kib_once_compact_and_not_a_byte_more(char: str) -> None:
    compact = to_json({"a": char * 2_000, "b": ""})
    fill = "b" * (16 * 1024 - len(compact))
    for escaped in (True, False):
        for indent in (None, 50):
            value = {"a": char * 2_000, "b": fill}
            text = json.dumps(value, ensure_ascii=escaped, indent=indent)
            assert len(kept_details(text).encode()) == 16 * 1024
            value["b"] += "b"
            [sentence] = refusal(with_details(json.dumps(value, ensure_ascii=escaped, indent=indent)))
            assert sentence == "events[0].details: must be at most 16,384 bytes, has 16,385"


def test_blanks_and_escapes_do_not_count_however_many_there_are() -> None:
    escaped = '"' + "\\u0061" * (16 * 1024 - 8) + '"'
    blanks = " \n\t" * 200_000
    assert kept_details(f'{{{blanks}"a"{blanks}:{escaped}{blanks}}}') == f'{{"a":"{"a" * (16 * 1024 - 8)}"}}'


@pytest.mark.parametrize("text", ["[]", '"a"', "1", "true", "[{}]"])
def test_details_must_be_an_object(text: str) -> None:
    assert refusal(with_details(text)) == ["events[0].details: must be a JSON object"]


def test_null_details_are_absent_and_empty_ones_are_kept() -> None:
    assert kept_details("null") == ""
    assert b"details" not in doc_of(with_details("null"))
    assert doc_of(with_details(" { } ")).endswith(b',"details":{}}')


SECRETS = """
    password PASSWORD db_password Api-Key x-api-key accessToken client.secret Authorization Set-Cookie
    private_key p_a_s_s_w_o_r_d client_credentials
"""


@pytest.mark.parametrize("key", [*SECRETS.split(), "api key", "x" * 300 + "token"])
def test_what_is_under_a_secret_key_is_replaced_at_any_depth(key: str) -> None:
    for value in ("hunter2", "", 5, 1.5, True, ["hunter2"], {"a": "hunter2"}):
        kept = kept_details(json.dumps({"a": [{key: value, "b": "hunter"}], key: value}))
        assert json.loads(kept) == {"a": [{key: REDACTED, "b": "hunter"}], key: REDACTED}
    assert json.loads(kept_details(json.dumps({key: None}))) == {key: None}


def test_the_words_of_secrets_are_those_of_the_rules_and_empty_ones_match_nothing() -> None:
    text = '{"pin_code":"1234","password":"x"}'
    for words, expected in (
        (("PIN-code",), {"pin_code": REDACTED, "password": "x"}),
        ((), {"pin_code": "1234", "password": "x"}),
        (("", "-", "pass"), {"pin_code": "1234", "password": REDACTED}),
        ((".*",), {"pin_code": "1234", "password": "x"}),
    ):
        event = parse(with_details(text), Rules(secret_words=words)).events[0]
        assert json.loads(bytes(event.details)) == expected


# Any bytes at all.


def attempt(body: bytes, *, lines: bool) -> None:
    """Either gives events or says why not; any other exception is a failure."""
    messages: Sequence[str] = ["events"]
    try:
        batch = parse(body, RULES, lines=lines)
    except AuditplaneError as error:
        messages = error.messages
    else:
        assert batch.events
        encode_docs(batch.events)
    assert messages
    assert all(0 < len(sentence) < 1_000 for sentence in messages)
    json.dumps(messages, ensure_ascii=False).encode()


@given(st.binary(max_size=200), st.booleans())
def test_any_bytes_are_events_or_are_refused(body: bytes, lines: bool) -> None:
    attempt(body, lines=lines)


@given(st.data(), st.lists(suspects, min_size=1, max_size=3), st.booleans())
def test_a_body_with_any_damage_is_read_or_refused(
    data: st.DataObject, given: list[Json], lines: bool
) -> None:
    parts = [json.dumps(event).encode() for event in given]
    body = bytearray(b"\n".join(parts) if lines else b"[" + b",".join(parts) + b"]")
    pieces = st.sampled_from(
        [b'"', b"\\", b"{", b"}", b"[", b"]", b",", b":", b"\\ud800", b"\xff", b"\n", b"1", b"-"]
    )
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(body)))
        end = data.draw(st.integers(start, min(len(body), start + 5)))
        body[start:end] = data.draw(pieces | st.binary(max_size=4))
    attempt(bytes(body), lines=lines)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-7"])
def test_other_encodings_are_refused(encoding: str) -> None:
    for value in (sent(), [sent()], sent(user="Zoë")):
        body = json.dumps(value, ensure_ascii=False).encode(encoding)
        attempt(body, lines=True)
        if encoding != "utf-7":  # which ASCII is
            with pytest.raises(InvalidInput):
                parse(body, RULES)


ONE = to_json(sent())


def filled(start: bytes, unit: bytes, end: bytes) -> bytes:
    """A body of the greatest size."""
    return start + unit * ((limits.BODY_BYTES_MAX - len(start) - len(end)) // len(unit)) + end


HOSTILE = {
    "line feeds": lambda: b"\n" * limits.BODY_BYTES_MAX,
    "blank lines": lambda: filled(b"", b" \r\n", b""),
    "empty objects": lambda: filled(b"[", b"{},", b"{}]"),
    "numbers": lambda: filled(b"[", b"0,", b"0]"),
    "an event and numbers": lambda: filled(b"[" + ONE + b",", b"0,", b"0]"),
    "empty arrays": lambda: filled(b"[", b"[],", b"[]]"),
    "small events": lambda: filled(b"[", ONE + b",", ONE + b"]"),
    "lines of one brace": lambda: filled(b"", b"{\n", b""),
    "backslashes": lambda: filled(b'[{"user":"\\u', b"\\", b'"}]'),
    "lone surrogates": lambda: filled(b'[{"user":"', b"\\ud800", b'"}]'),
    "quotes": lambda: filled(b"[", b'"', b"]"),
    "one text": lambda: filled(b'{"user":"', b"a", b'"}'),
    "one key": lambda: filled(b'{"', b"a", b'":1}'),
    "one kind": lambda: filled(b'{"resourceKind":"', b"a", b'"}'),
    "one number": lambda: filled(b'{"user":', b"1", b"}"),
    "unknown members": lambda: b"{" + b",".join(b'"m%d":0' % i for i in range(1_200_000)) + b"}",
    "many unknown members each": lambda: (
        b"[" + b",".join([b"{" + b",".join(b'"m%d":0' % i for i in range(100)) + b"}"] * 10_000) + b"]"
    ),
    "long kinds": lambda: to_json([sent(resourceKind="Agenq" * 80_000)] * 30),
    "unknown kinds": lambda: to_json([sent(resourceKind="Agenq" * 50)] * 10_000),
    "the same member": lambda: filled(b"{", b'"user":"a",', ONE[1:]),
    "details of arrays": lambda: filled(ONE[:-1] + b',"details":{"a":[', b"[],", b"1]}}"),
    "details of numbers": lambda: filled(ONE[:-1] + b',"details":{"a":[', b"1.5,", b"1]}}"),
    "brackets": lambda: b"[" * 100_000,
    "brackets and no end": lambda: b"[" * limits.BODY_BYTES_MAX,
    "nested details": lambda: ONE[:-1] + b',"details":' + b'{"a":' * 100_000 + b"1" + b"}" * 100_001,
    "nested members": lambda: b'[{"user":' + b"[" * 100_000 + b"]" * 100_000 + b"}]",
}


@contextmanager
def traced() -> Iterator[None]:
    tracemalloc.start()
    try:
        yield
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", HOSTILE)
def test_the_largest_body_is_read_or_refused_in_little_time_and_memory(name: str) -> None:
    body = HOSTILE[name]()
    for lines in (False, True) if "line" in name else (False,):
        started = time.process_time()
        attempt(body, lines=lines)
        assert time.process_time() - started < 2
        with traced():
            attempt(body, lines=lines)
            assert tracemalloc.get_traced_memory()[1] < 6 * limits.BODY_BYTES_MAX


def test_a_body_of_many_faults_is_explained_without_looking_at_all_of_it() -> None:
    text = "".join(random.Random(7).choices(AWKWARD, k=60))
    body = to_json([sent(user="", action=text, **{f"x{i}": text for i in range(9)})] * 10_000)
    started = time.process_time()
    attempt(body, lines=False)
    assert time.process_time() - started < 2
