"""The details of an event as people read them: as a tree, and what was before beside what came after. Pure.

Numbers are shown as they were written. Nothing here is HTML: the templates escape every text.
"""

import difflib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any, Final

BEFORE, AFTER = "before", "after"
DIFF_LINES_MAX: Final = 1_000
DIFF_PAIRS_MAX: Final = 20_000
SAME_LINES_SHOWN: Final = 3


@dataclass(frozen=True, slots=True)
class Node:
    """A value in a JSON text. `kind` is object, array, string, number, boolean or null.

    `name` is its key or position, `text` what it says when it holds no others.
    """

    name: str
    kind: str
    text: str = ""
    children: "Sequence[Node]" = ()


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a comparison: `state` is same, changed, removed, added, or skipped.

    `before` and `after` are None where that side has no such line; of skipped ones `count` says how many.
    """

    state: str
    before: str | None = None
    after: str | None = None
    count: int = 0


class _Number(str):
    """A number as it was written."""

    __slots__ = ()


def tree(details: bytes) -> Sequence[Node]:
    """The members of details, a JSON object."""
    return _node("", _decoded(details)).children


def comparison(details: bytes) -> Sequence[Line]:
    """What was before, line by line beside what came after; empty when the details don't hold both."""
    members = _decoded(details)
    if BEFORE not in members or AFTER not in members:
        return ()
    before, after = (list(_lines(_node("", members[name]))) for name in (BEFORE, AFTER))
    if max(len(before), len(after)) > DIFF_LINES_MAX:
        return [
            *(Line("removed", before=line) for line in before),
            *(Line("added", after=line) for line in after),
        ]
    return list(_compared(before, after))


def _decoded(details: bytes) -> Any:
    return json.loads(details, parse_int=_Number, parse_float=_Number)


def _node(name: str, value: Any) -> Node:
    match value:
        case dict():
            return Node(name, "object", children=[_node(key, item) for key, item in value.items()])
        case list():
            return Node(name, "array", children=[_node(str(at), item) for at, item in enumerate(value)])
        case _Number():
            return Node(name, "number", str(value))
        case str():
            return Node(name, "string", value)
        case bool():
            return Node(name, "boolean", "true" if value else "false")
    return Node(name, "null", "null")


def _lines(node: Node, indent: str = "", label: str = "") -> Iterator[str]:
    """A value on lines of its own: a text as it is, all else much like YAML."""
    if node.children:
        if label:
            yield f"{indent}{label}"
        inner = indent + "  " if label else indent
        for child in node.children:
            yield from _lines(child, inner, "- " if node.kind == "array" else f"{child.name}: ")
    elif node.kind in ("object", "array"):
        yield f"{indent}{label}{'{}' if node.kind == 'object' else '[]'}"
    elif len(lines := node.text.splitlines()) > 1:
        if label:
            yield f"{indent}{label}|"
        yield from (f"{indent}  {line}" if label else line for line in lines)
    else:
        yield f"{indent}{label}{node.text}"


def _compared(before: Sequence[str], after: Sequence[str]) -> Iterator[Line]:
    opcodes = list(_opcodes(before, after))
    for number, (_, left, left_end, right, right_end) in enumerate(opcodes):
        if opcodes[number][0] == "equal":
            yield from _same(before[left:left_end], first=number == 0, last=number == len(opcodes) - 1)
        else:
            yield from _beside(before[left:left_end], after[right:right_end])


def _opcodes(before: Sequence[str], after: Sequence[str]) -> Sequence[tuple[str, int, int, int, int]]:
    """How to turn one into the other, as difflib says it.

    That takes seconds where the same lines stand many times on both sides: all between the first and the last
    difference is one change then.
    """
    counts = Counter(after)
    if sum(counts[line] for line in before) <= DIFF_PAIRS_MAX:
        return difflib.SequenceMatcher(None, before, after, autojunk=False).get_opcodes()
    head = _alike(zip(before, after, strict=False))
    tail = _alike(zip(reversed(before[head:]), reversed(after[head:]), strict=False))
    left, right = len(before) - tail, len(after) - tail
    found = [
        ("equal", 0, head, 0, head),
        ("replace", head, left, head, right),
        ("equal", left, len(before), right, len(after)),
    ]
    return [code for code in found if code[1] < code[2] or code[3] < code[4]]


def _alike(pairs: Iterable[tuple[str, str]]) -> int:
    """How many pairs are of the same, from the first on."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


def _same(lines: Sequence[str], *, first: bool, last: bool) -> Iterator[Line]:
    """Lines that did not change: only those near a change are shown."""
    head = 0 if first else SAME_LINES_SHOWN
    tail = 0 if last else SAME_LINES_SHOWN
    hidden = len(lines) - head - tail
    if hidden <= 1:
        yield from (Line("same", line, line) for line in lines)
        return
    yield from (Line("same", line, line) for line in lines[:head])
    yield Line("skipped", count=hidden)
    yield from (Line("same", line, line) for line in lines[len(lines) - tail :])


def _beside(before: Sequence[str], after: Sequence[str]) -> Iterator[Line]:
    """Lines that stand for each other, side by side."""
    for at in range(max(len(before), len(after))):
        left = before[at] if at < len(before) else None
        right = after[at] if at < len(after) else None
        state = (
            "changed" if left is not None and right is not None else "added" if left is None else "removed"
        )
        yield Line(state, left, right)
