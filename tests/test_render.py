"""JSON and CSV: what a reader of the bytes gets is what was recorded."""

import csv
import io
import json
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from auditplane.event import MEMBERS, decode_docs, encode_docs
from auditplane.render import CSV_HEADER, Form, body, csv_lines, end, head, line_end, unguard
from strategies import Json, docs, recorded

FORMULA_CHARS = ("=", "+", "-", "@", "\t", "\r", "\n")
PLAIN = {"resourceName": "otlp", "resourceKind": "Source", "action": "Modified", "user": "anna"}


def members(doc: bytes) -> list[str]:
    """The cells of a doc by the standard library: its members as text, details as they stand in the doc."""
    event = json.loads(doc)
    details = doc.decode().partition(',"details":')[2][:-1] if "details" in event else ""
    return [*(event.get(name, "") for name in MEMBERS[:-1]), details]


def plain_csv(docs: list[bytes], *, guard: bool) -> bytes:
    """A naive model: the rows written by the csv module."""
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\r\n")
    awkward = (*FORMULA_CHARS, "'") if guard else ()
    for doc in docs:
        writer.writerow(["'" + cell if cell.startswith(awkward) else cell for cell in members(doc)])
    return out.getvalue().encode()


def read(text: bytes) -> list[list[str]]:
    return list(csv.reader(io.StringIO(text.decode(), newline=""), strict=True))


def docs_of(*events: Json) -> list[bytes]:
    return encode_docs(recorded([PLAIN | event for event in events]))


def awkward_docs() -> list[bytes]:
    """Every awkward character at the beginning, inside and at the end of every text."""
    chars = "=+-@\t\r\n',\";|é😀\u2028\xa0 \\"
    texts = [form.replace("?", char) for char in chars for form in ("?", "?a", "a?b", "a?")]
    texts += ["\r\n", '""', '",', "=1,2", "a,=b", "a\n=b"]
    names = ("resourceName", "description", "configuration", "action", "user")
    return docs_of(*({name: text} for name in names for text in texts))


@given(docs, st.booleans())
@example(awkward_docs(), True)
@example(awkward_docs(), False)
def test_csv_is_what_the_csv_module_writes(docs: list[bytes], guard: bool) -> None:
    text, changed = csv_lines(decode_docs(docs), guard=guard)
    assert text == plain_csv(docs, guard=guard)
    assert changed == (guard and text != plain_csv(docs, guard=False))


@given(docs)
@example(awkward_docs())
def test_a_csv_reader_gets_the_members_back(docs: list[bytes]) -> None:
    expected = [members(doc) for doc in docs]
    assert read(csv_lines(decode_docs(docs), guard=False)[0]) == expected
    guarded = read(csv_lines(decode_docs(docs), guard=True)[0])
    assert [[unguard(cell) for cell in row] for row in guarded] == expected
    assert not any(cell.startswith(FORMULA_CHARS) for row in guarded for cell in row)


@given(docs)
def test_lines_end_with_cr_lf_and_lines_of_parts_are_the_parts_of_lines(docs: list[bytes]) -> None:
    text, changed = csv_lines(decode_docs(docs), guard=True)
    assert text.endswith(b"\r\n")
    parts = [csv_lines(decode_docs([doc]), guard=True) for doc in docs]
    assert text == b"".join(part for part, _ in parts)
    assert changed == any(part_changed for _, part_changed in parts)


@pytest.mark.parametrize("at", [0, 255, 511])
@pytest.mark.parametrize("text", ["=1", "a,b", 'a"b', "a\nb", "a\rb", "'a", "-", "\n"])
def test_one_awkward_text_among_512_plain_ones_is_found_wherever_it_stands(text: str, at: int) -> None:
    docs = docs_of(*[{} if number != at else {"user": text} for number in range(512)])
    for guard in (False, True):
        assert csv_lines(decode_docs(docs), guard=guard)[0] == plain_csv(docs, guard=guard)


def test_a_kind_of_the_configuration_is_guarded_too() -> None:
    [doc] = docs_of({})
    odd = doc.replace(b'"Source"', b'"=cmd"')
    assert csv_lines(decode_docs([odd]), guard=True) == (plain_csv([odd], guard=True), True)


def test_the_header_names_the_members_in_their_order() -> None:
    assert CSV_HEADER == (
        b"id,timestamp,resourceName,description,resourceKind,configuration,action,user,account,details\r\n"
    )


@given(docs, st.data())
def test_any_parts_make_up_the_whole_answer(docs: list[bytes], data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.sets(st.integers(1, len(docs)))) | {0, len(docs)})
    parts = [docs[start:end] for start, end in pairwise(cuts)]
    expected = [json.loads(doc) for doc in docs]
    answers = {}
    for form in Form:
        *before, last = [head(form), *(body(part, form) for part in parts)]
        answers[form] = b"".join(before) + end(last, form)
    assert json.loads(answers[Form.JSON]) == expected
    assert json.loads(answers[Form.ENVELOPE]) == {"auditEvents": expected}
    assert answers[Form.NDJSON] == b"".join(doc + b"\n" for doc in docs)
    assert answers[Form.CSV] == CSV_HEADER + plain_csv(docs, guard=True)
    assert answers[Form.CSV_RAW] == CSV_HEADER + plain_csv(docs, guard=False)


@given(docs)
def test_stored_lines_become_those_of_a_form_by_their_ends(docs: list[bytes]) -> None:
    """Stored are NDJSON and both kinds of CSV, in which a cell may hold line feeds."""
    for form in Form:
        stored = body(docs, form if form.is_csv else Form.NDJSON)
        assert stored.replace(b"\n", line_end(form)) == body(docs, form)


def test_an_answer_without_events_is_whole() -> None:
    assert json.loads(end(head(Form.JSON) + body([], Form.JSON), Form.JSON)) == []
    assert json.loads(end(head(Form.ENVELOPE) + body([], Form.ENVELOPE), Form.ENVELOPE)) == {
        "auditEvents": []
    }
    assert end(head(Form.NDJSON) + body([], Form.NDJSON), Form.NDJSON) == b""
    for form in (Form.CSV, Form.CSV_RAW):
        assert form.is_csv
        assert end(head(form) + body([], form), form) == CSV_HEADER
        assert csv_lines([], guard=form is Form.CSV) == (b"", False)
