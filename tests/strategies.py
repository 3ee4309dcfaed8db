"""What Hypothesis makes events from: texts that are awkward to some reader, and whole events."""

import json
from typing import Any

from hypothesis import strategies as st

from auditplane.event import KINDS, Event, Rules, encode_docs, parse
from auditplane.times import format_us
from auditplane.ulid import COUNTER_BITS, make

Json = dict[str, Any]

# Line ends but CR and LF, marks that turn the direction, invisible ones, and the last of all characters.
INVISIBLE = "\u2028\u2029\u200b\u202e\ufeff\ufffe\uffff\U0010ffff\xa0\xad"
AWKWARD = ",\"'=+-@\t\r\n;:{}[]\\/ |é̈ËßİıſΣς的😀" + INVISIBLE

characters = st.characters(exclude_categories=["Cs", "Cc"])
letters = st.sampled_from("abcAB019_" + AWKWARD)


def texts(low: int, high: int) -> st.SearchStrategy[str]:
    """Texts that an event may hold."""
    return st.text(letters, min_size=low, max_size=high) | st.text(characters, min_size=low, max_size=high)


ulids = st.from_regex(r"[0-7][0-9A-HJKMNP-TV-Z]{25}", fullmatch=True)
moments = st.integers(0, 2_000_000_000_000_000)
# Around the end of doubles, which is between 1.797693134862315807e308 and ...808e308.
_EDGES = (
    "1e308", "1e309", "-1E400", "1e-400", "0e9999", "1.7976931348623157e308", "-1.7976931348623158e+308",
    "1.797693134862315807e308", "1.7976931348623158079e308", "1.797693134862315808e308",
    "0.00000000000000000000000001e334", "9007199254740993.0",
)  # fmt: skip
number_texts = st.sampled_from(_EDGES) | st.from_regex(
    r"-?(0|[1-9][0-9]{0,70})(\.[0-9]{1,70})?([eE][+-]?[0-9]{1,4})?", fullmatch=True
)
"""Numbers as JSON has them, some of them beyond what may be recorded."""
numbers = st.integers(-(10**62), 10**62) | st.floats(allow_nan=False, allow_infinity=False)
"""Numbers that may be recorded: a few hypothesis would make longer than that."""
details = st.dictionaries(
    texts(0, 5),
    st.recursive(
        st.none() | st.booleans() | numbers | texts(0, 6),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts(0, 3), inner, max_size=3),
        max_leaves=6,
    ),
    max_size=3,
)
events: st.SearchStrategy[Json] = st.fixed_dictionaries(
    {
        "resourceName": texts(1, 12),
        "resourceKind": st.sampled_from(KINDS),
        "action": texts(1, 8),
        "user": texts(1, 12),
    },
    optional={
        "id": ulids,
        "timestamp": moments.map(format_us),
        "description": texts(0, 30),
        "configuration": texts(0, 12),
        "details": details,
    },
)
"""Events as they are sent, each as a JSON object."""


def to_json(value: Any) -> bytes:
    """JSON without blanks."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def recorded(sent: list[Json], account: str = "default") -> list[Event]:
    """The events as the server stores them."""
    batch = parse(to_json(sent), Rules(account, secret_words=()))
    for number, event in enumerate(batch.events):
        us = 1_700_000_000_000_000 + number
        event.timestamp = event.timestamp or format_us(us)
        event.id = event.id or make(us << COUNTER_BITS, b"0123456789AB")
    return list(batch.events)


docs: st.SearchStrategy[list[bytes]] = st.builds(
    lambda sent, account: encode_docs(recorded(sent, account)),
    st.lists(events, min_size=1, max_size=3),
    st.sampled_from(["default", "acme-2"]),
)
"""Docs as the server stores them."""
