"""The audit event: reading it from JSON, checking it, and the bytes it is stored as. Pure.

`parse` takes the body of a request and gives a `Batch`, or raises `InvalidEvents` that names each wrong
member. What it lets through is what `problems` finds nothing wrong with. Where an object of the body holds a
member twice, the last one counts; in `details` that is refused. A doc is the canonical JSON of an event:
members in the contract's order, no blanks, absent members left out, encoded once.
"""

import difflib
import json
import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import count, islice
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta, Raw

from auditplane import limits
from auditplane.errors import Forbidden, InvalidEvents, InvalidInput, TooLarge
from auditplane.times import parse_rfc3339
from auditplane.ulid import is_ulid

KINDS: Final = (
    "Configuration", "Agent", "AgentType", "AgentVersion", "Source", "Processor", "Connector", "Destination",
    "Extension", "SourceType", "ProcessorType", "ConnectorType", "DestinationType", "ExtensionType",
    "RecommendationType", "Unknown", "Rollout", "RolloutType", "Organization", "Account", "Invitation",
    "Login", "User", "AccountOrganizationBinding", "UserOrganizationBinding", "UserAccountBinding",
    "AuditTrail", "AvailableComponents", "SecretsManagerType", "SecretsManager", "Recording", "Credential",
    "CredentialType", "Fleet", "Integration", "IntegrationType", "ConfigurationType", "Notification",
    "Recommendation", "PublicProcessor", "Blueprint", "PrometheusRule", "APIKey", "ResourcePreset",
)  # fmt: skip
"""The contract's `model.Kind`, in its order."""

SECRET_WORDS: Final = (
    "password", "passwd", "passphrase", "secret", "token", "authorization", "apikey", "accesskey",
    "privatekey", "credential", "cookie",
)  # fmt: skip
REDACTED: Final = "[redacted]"
DEFAULT_ACCOUNT: Final = "default"

_ABSENT: Final = Raw()
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
_LINE = re.compile(rb"\S[^\n]*")
# In JSON: escapes of control characters but tab, LF and CR, and C1 control characters as they are.
_ESCAPED_CONTROL = re.compile(rb"\\(?:[bf]|u00[0189]|u007[fF])")
_RAW_CONTROL = re.compile(rb"\xc2[\x80-\x9f]")
_CONTROL_BYTES_MAX = len(rb"\u0000")
_SEARCHED_BYTES = 256 * 1024
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
_SURROGATE = re.compile(r"[\ud800-\udfff]")

Name = Annotated[str, Meta(min_length=1, max_length=limits.NAME_CHARS_MAX)]


class Event(msgspec.Struct, omit_defaults=True, forbid_unknown_fields=True, gc=False):
    """An event as it is sent and as it is stored; the order of the members is that of a doc."""

    id: str | None = None
    timestamp: str | None = None
    resourceName: Name = ""  # noqa: N815 - the contract's name
    description: Annotated[str, Meta(max_length=limits.DESCRIPTION_CHARS_MAX)] | None = None
    resourceKind: str = ""  # noqa: N815 - the contract's name
    configuration: Annotated[str, Meta(max_length=limits.NAME_CHARS_MAX)] | None = None
    action: Annotated[str, Meta(min_length=1, max_length=limits.ACTION_CHARS_MAX)] = ""
    user: Name = ""
    account: str | None = None
    details: Raw = _ABSENT


MEMBERS: Final = Event.__struct_fields__
REQUIRED: Final = ("resourceName", "resourceKind", "action", "user")

# An escape may take six bytes for a byte of compact JSON.
_DETAILS_ESCAPED_BYTES_MAX: Final = 6 * limits.DETAILS_BYTES_MAX
_EXPLAINED_BYTES_MAX: Final = 8 * limits.DOC_BYTES_MAX
_OBJECT_BYTES_MAX: Final = 16 * limits.DOC_BYTES_MAX
_COMMAS_UNSUSPICIOUS: Final = 16 * limits.BATCH_EVENTS_MAX
_ENCODED_AT_ONCE: Final = 256
_SHOWN_CHARS: Final = 64
_NOT_UNICODE: Final = "a lone surrogate or bytes that are not UTF-8; send whole Unicode characters"


@dataclass(frozen=True)
class Rules:
    """What an account's events are checked against."""

    account: str = DEFAULT_ACCOUNT
    extra_kinds: tuple[str, ...] = ()
    secret_words: tuple[str, ...] = SECRET_WORDS
    kinds: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "kinds", frozenset((*KINDS, *self.extra_kinds)))


@dataclass(frozen=True, slots=True)
class Batch:
    """Checked events of one request, in the order given.

    `times` holds, for each event, the given timestamp in microseconds since 1970, or None; `composed` the
    positions of those whose description was composed here; `with_ids` of those that came with an id.
    """

    events: Sequence[Event]
    times: Sequence[int | None]
    composed: frozenset[int] = frozenset()
    with_ids: Sequence[int] = ()


_decode_array = msgspec.json.Decoder(list[Event]).decode
_decode_one = msgspec.json.Decoder(Event).decode
_decode_raws = msgspec.json.Decoder(list[Raw]).decode
_encoder = msgspec.json.Encoder()


def encode_docs(events: Sequence[Event]) -> list[bytes]:
    """The docs of complete events. A doc holds no line feed: JSON escapes it.

    They are made some at a time, as that holds up all other threads: 10,000 large ones for 11 ms.
    """
    docs: list[bytes] = []
    for at in range(0, len(events), _ENCODED_AT_ONCE):
        docs += _encoder.encode_lines(events[at : at + _ENCODED_AT_ONCE]).splitlines()
    return docs


def decode_doc(doc: bytes) -> Event:
    """The event of a stored doc."""
    return _decode_one(doc)


def decode_docs(docs: Iterable[bytes]) -> list[Event]:
    """The events of stored docs, in their order."""
    return _decode_array(b"[" + b",".join(docs) + b"]")


def parse(body: bytes, rules: Rules, *, lines: bool = False) -> Batch:
    """The events of a body: one JSON object, an array of them, or with `lines` one object a line.

    Raises InvalidEvents with up to PROBLEMS_LISTED_MAX sentences, InvalidInput when the body is no JSON at
    all, TooLarge for more than BATCH_EVENTS_MAX events, and Forbidden for one of another account.
    """
    body = body.removeprefix(_BYTE_ORDER_MARK)
    _check_bytes(body)
    try:
        events = [_decode_one(line) for line in _lines(body)] if lines else _decode_events(body)
        _check_count(len(events))
        return _finish(events, rules, plain=_is_plain(body))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, InvalidInput):
        pass  # What is wrong is looked for anew, with care.
    raise _explain(_lines(body) if lines else _parts(body), rules)


def _check_bytes(body: bytes) -> None:
    """Refuses what can't be events by its size alone: to decode it would hold up all other threads."""
    if len(body) > _OBJECT_BYTES_MAX * max(body.count(b"{"), 1):
        raise InvalidInput(
            f"The body has {len(body):,} bytes, far more than its events may have. Send one JSON object, an "
            "array of them, or NDJSON."
        )


def _lines(body: bytes) -> list[bytes]:
    """The lines that are not blank, one more than are taken at the most."""
    return [match[0] for match in islice(_LINE.finditer(body), limits.BATCH_EVENTS_MAX + 1)]


def _decode_events(body: bytes) -> list[Event]:
    if body.lstrip()[:1] == b"{":
        return [_decode_one(body)]
    _check_length(body)
    return _decode_array(body)


def _check_length(body: bytes) -> None:
    """Refuses an array of far too many objects before memory is spent on each of them."""
    if len(body) <= 2 * _COMMAS_UNSUSPICIOUS or body.count(b",") <= _COMMAS_UNSUSPICIOUS:
        return
    numbers = count(1)

    class Item(msgspec.Struct, gc=False):
        def __post_init__(self) -> None:
            _check_count(next(numbers))

    msgspec.json.decode(body, type=list[Item])


def _check_count(events: int) -> None:
    if events > limits.BATCH_EVENTS_MAX:
        raise TooLarge(
            f"A request may hold at most {limits.BATCH_EVENTS_MAX:,} events; send them in several requests."
        )
    if events == 0:
        raise InvalidEvents("The body holds no event; send one JSON object, an array of them, or NDJSON.")


def _is_plain(body: bytes) -> bool:
    """Whether no text in the body can hold a control character: then none need be looked at."""
    return (
        b"\x7f" not in body
        and (b"\\" not in body or not _occurs(_ESCAPED_CONTROL, body))
        and (body.isascii() or not _occurs(_RAW_CONTROL, body))
    )


def _occurs(pattern: re.Pattern[bytes], body: bytes) -> bool:
    """Whether a pattern of a few bytes occurs; in pieces, as each search holds up all other threads."""
    return any(
        pattern.search(body, at, at + _SEARCHED_BYTES + _CONTROL_BYTES_MAX)
        for at in range(0, len(body), _SEARCHED_BYTES)
    )


def _finish(events: list[Event], rules: Rules, *, plain: bool) -> Batch:
    """Checks what the decoder did not and fills in descriptions; raises InvalidInput at the first fault."""
    times: list[int | None] = []
    composed: list[int] = []
    with_ids: list[int] = []
    kinds = rules.kinds
    own = None if rules.account == DEFAULT_ACCOUNT else rules.account
    for position, event in enumerate(events):
        if event.resourceKind not in kinds or not (event.user and event.action and event.resourceName):
            raise InvalidInput("lacks a member, or is of an unknown kind")
        if not (plain or _texts_clean(event)):
            raise InvalidInput("holds a control character")
        if event.id is not None:
            event.id = _given_id(event.id)
            with_ids.append(position)
        times.append(None if event.timestamp is None else _given_time(event.timestamp))
        if event.account and event.account != rules.account:
            raise _other_account(event.account)
        event.account = own
        if not event.configuration:
            event.configuration = None
        if event.details is not _ABSENT:
            event.details = clean_details(bytes(event.details), rules.secret_words)
        if not event.description:
            event.description = compose(event)
            composed.append(position)
    return Batch(events, times, frozenset(composed), with_ids)


def _texts_clean(event: Event) -> bool:
    text = f"{event.resourceName}{event.description}{event.configuration}{event.action}{event.user}"
    return _CONTROL.search(text) is None


def _given_id(text: str) -> str:
    """A given id in capital letters; raises InvalidInput when it is no ULID."""
    if text.isascii() and is_ulid(text.upper()):
        return text.upper()
    raise InvalidInput(
        f"must be a ULID (26 letters and digits, no I, L, O, U, the first at most 7), is {_quote(text)}"
    )


def _given_time(text: str) -> int:
    """A given timestamp in microseconds since 1970; raises InvalidInput when it is none, or earlier."""
    try:
        at = parse_rfc3339(text)
    except ValueError:
        example = "2026-03-18T18:21:09.000001Z"
        raise InvalidInput(
            f"must be an RFC 3339 date and time such as {example}, is {_quote(text)}"
        ) from None
    if at < 0:
        raise InvalidInput(f"must not be before 1970, is {_quote(text)}")
    return at


def compose(event: Event) -> str:
    """The description of an event whose recorder gave none.

    >>> compose(Event(resourceName="otlp", resourceKind="Source", action="Modified", configuration="gw:7"))
    'Modified Source otlp in configuration gw:7'
    """
    text = f"{event.action} {event.resourceKind} {event.resourceName}"
    return f"{text} in configuration {event.configuration}" if event.configuration else text


# Details: a JSON object that is stored compactly, its order and numbers kept, its secrets replaced.


def clean_details(raw: bytes, secret_words: Sequence[str]) -> Raw:
    """The details to store for those given as JSON; absent for `null`.

    Raises InvalidInput when they are not a JSON object, hold a key twice, a lone surrogate or a number that
    is no finite double or longer than NUMBER_CHARS_MAX, are nested too deep, or are longer than
    DETAILS_BYTES_MAX once compact. What is replaced is not looked at.
    """
    try:
        if len(raw) > _DETAILS_ESCAPED_BYTES_MAX:
            raw = msgspec.json.format(raw, indent=-1)
            _check_details_bytes(len(raw), _DETAILS_ESCAPED_BYTES_MAX)
        value = _careful.decode(raw.decode("utf-8"))
    except RecursionError:
        raise _too_deep() from None
    except (ValueError, msgspec.MsgspecError) as error:
        raise InvalidInput(f"is not valid JSON: {error}") from None
    return _ABSENT if value is None else _compact(value, tuple(secret_words))


def _compact(value: Any, secret_words: tuple[str, ...]) -> Raw:
    if not isinstance(value, dict):
        raise InvalidInput("must be a JSON object")
    try:
        compact = _encoder.encode(_redact(value, _secret_finder(secret_words), 1))
    except UnicodeEncodeError:
        raise InvalidInput(f"holds {_NOT_UNICODE}") from None
    _check_details_bytes(len(compact), limits.DETAILS_BYTES_MAX)
    return Raw(compact)


def _check_details_bytes(size: int, size_max: int) -> None:
    if size > size_max:
        raise InvalidInput(f"must be at most {limits.DETAILS_BYTES_MAX:,} bytes, has {size:,}")


def _too_deep() -> InvalidInput:
    return InvalidInput(f"must be nested at most {limits.DETAILS_DEPTH_MAX} deep")


class _Repetitive(dict[str, Any]):
    """A JSON object that holds a key more than once; `fault` says which."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        seen: set[str] = set()
        key = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        self.fault = f"holds the key {_quote(key)} twice in one object"


@dataclass(frozen=True, slots=True)
class _OddNumber:
    """A number that many readers can't read; `fault` says why."""

    fault: str


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    return found if len(found) == len(pairs) else _Repetitive(pairs)


def _int(text: str) -> Raw | _OddNumber:
    return Raw(text) if len(text) <= limits.NUMBER_CHARS_MAX else _too_long(text)


def _float(text: str) -> Raw | _OddNumber:
    if len(text) > limits.NUMBER_CHARS_MAX:
        return _too_long(text)
    if math.isinf(float(text)):
        return _OddNumber(f"holds the number {text}, which is too large; the largest is about 1.8e308")
    return Raw(text)


def _too_long(text: str) -> _OddNumber:
    bound = limits.NUMBER_CHARS_MAX
    return _OddNumber(f"holds a number of {len(text):,} characters; send one of more than {bound} as a text")


def _no_constant(text: str) -> None:
    raise ValueError(f"{text} is not JSON")


_WRONG: Final = frozenset({_Repetitive, _OddNumber})
_LOOKED_AT: Final = frozenset({dict, list, *_WRONG})
# Numbers are kept as they were written.
_careful = json.JSONDecoder(
    object_pairs_hook=_object, parse_float=_float, parse_int=_int, parse_constant=_no_constant
)


@lru_cache(maxsize=64)
def _secret_finder(words: tuple[str, ...]) -> Callable[[str], bool]:
    """Tells whether a key looks like one of a secret: whether it holds one of some words."""
    search = re.compile("|".join(filter(None, map(_squash, words))) or r"(?!)").search
    cached = lru_cache(maxsize=4096)(lambda key: search(_squash(key)) is not None)
    return lambda key: cached(key) if len(key) <= _SHOWN_CHARS else cached.__wrapped__(key)


def _squash(key: str) -> str:
    return re.sub(r"[\W_]+", "", key).casefold()


def _redact(value: Any, is_secret: Callable[[str], bool], depth: int) -> Any:
    """An object or array that is `depth` deep, the outermost being 1, with what is secret in it replaced.

    Raises InvalidInput for one that is too deep, and for what is wrong in it.
    """
    if type(value) in _WRONG:
        raise InvalidInput(value.fault)
    if depth > limits.DETAILS_DEPTH_MAX:
        raise _too_deep()
    if isinstance(value, list):
        return [
            _redact(inner, is_secret, depth + 1) if type(inner) in _LOOKED_AT else inner for inner in value
        ]
    found = {}
    for key, inner in value.items():
        if inner is not None and is_secret(key):
            found[key] = REDACTED
        else:
            found[key] = _redact(inner, is_secret, depth + 1) if type(inner) in _LOOKED_AT else inner
    return found


# The careful check, which explains.


def _parts(body: bytes) -> list[bytes]:
    """The JSON texts of the events in a body; raises InvalidInput when they can't be told apart."""
    if body.lstrip()[:1] == b"{":
        return [body]
    # A wrong escape is a fault of its event, and must not keep the others from being told apart.
    masked = body.replace(b"\\\\", b"xx").replace(b'\\"', b"xx").replace(b"\\", b"x")
    try:
        _check_length(masked)
        raws = _decode_raws(masked)
    except RecursionError:
        raise InvalidInput("The body is nested too deep.") from None
    except msgspec.ValidationError:
        raise InvalidInput("The body must be one JSON object, an array of objects, or NDJSON.") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidInput(f"The body is not valid JSON: {_decode_error(error)}.") from None
    return _slices(body, masked, raws)


def _slices(body: bytes, masked: bytes, raws: Iterable[Raw]) -> list[bytes]:
    """What stands in `body` where `raws` stand, one after the other, in `masked`."""
    found = []
    end = 0
    for raw in raws:
        start = masked.index(raw, end)
        end = start + len(bytes(raw))
        found.append(body[start:end])
    return found


def _decode_error(error: Exception) -> str:
    text = str(error)
    return "it ends too early" if "truncated" in text else text.removeprefix("JSON is malformed: ")


def _explain(parts: Sequence[bytes], rules: Rules) -> InvalidEvents:
    """What is wrong with the events, by position and member."""
    _check_count(len(parts))
    found: list[str] = []
    for position, part in enumerate(parts):
        found.extend(f"events[{position}]{problem}" for problem in problems(part, rules))
        if len(found) > limits.PROBLEMS_LISTED_MAX:
            found[limits.PROBLEMS_LISTED_MAX :] = ["There is more that is wrong; nothing was stored."]
            break
    return InvalidEvents(*found)


def problems(part: bytes, rules: Rules) -> list[str]:
    """What is wrong with one event, given as JSON text: a list of `.member: sentence` or `: sentence`.

    Raises Forbidden when it names another account.
    """
    try:
        _finish([_decode_one(part)], rules, plain=False)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, InvalidInput) as error:
        if len(part) > _EXPLAINED_BYTES_MAX:
            return [f": has {len(part):,} bytes, far more than an event may have"]
        return _explain_one(part, rules) or [f": {_decode_error(error)}"]
    return []


def _explain_one(part: bytes, rules: Rules) -> list[str]:
    try:
        event = _careful.decode(part.decode("utf-8", "surrogateescape"))
    except RecursionError:
        return [": is nested too deep"]
    except ValueError as error:
        return [f": is not valid JSON: {error}"]
    if not isinstance(event, dict):
        return [": must be a JSON object"]
    unknown = islice((key for key in event if key not in MEMBERS), limits.PROBLEMS_LISTED_MAX)
    found = [f".{_printable(key)}: is not a member of an event{_hint(key, MEMBERS)}" for key in unknown]
    for member, check in _CHECKS.items():
        try:
            check(event.get(member), rules)
        except InvalidInput as error:
            found.append(f".{member}: {error}")
    return found


_Check = Callable[[Any, Rules], object]
"""Checks what was given as a member, None when nothing was; raises InvalidInput."""


def _string(check: Callable[[str, Rules], object], *, required: bool = False) -> _Check:
    def checked(given: Any, rules: Rules) -> None:
        if given is None and required:
            raise InvalidInput("is missing")
        if given is None:
            return
        if not isinstance(given, str):
            raise InvalidInput("must be a string")
        check(given, rules)

    return checked


def _text(low: int, high: int) -> _Check:
    def check(text: str, _rules: Rules) -> None:
        if not low <= len(text) <= high:
            bounds = f"{low} to {high:,}" if low else f"at most {high:,}"
            raise InvalidInput(f"must be {bounds} characters, has {len(text):,}")
        if bad := _SURROGATE.search(text):
            raise InvalidInput(f"holds {_NOT_UNICODE} at position {bad.start()}")
        if bad := _CONTROL.search(text):
            raise InvalidInput(
                f"holds the control character U+{ord(bad[0]):04X} at position {bad.start()}; "
                "only tab and line breaks are taken"
            )

    return _string(check, required=low > 0)


def _check_kind(text: str, rules: Rules) -> None:
    if text not in rules.kinds:
        hint = _hint(text, (*KINDS, *rules.extra_kinds))
        raise InvalidInput(f"{_quote(text)} is not a known kind{hint}")


def _check_account(text: str, rules: Rules) -> None:
    if text and text != rules.account:
        raise _other_account(text)


def _check_details(given: Any, rules: Rules) -> None:
    if given is not None:
        _compact(given, tuple(rules.secret_words))


def _other_account(text: str) -> Forbidden:
    return Forbidden(f"This API key can't record into the account {_quote(text)}.")


_name = _text(1, limits.NAME_CHARS_MAX)
# In the order of the members.
_CHECKS: Final[dict[str, _Check]] = {
    "id": _string(lambda text, _rules: _given_id(text)),
    "timestamp": _string(lambda text, _rules: _given_time(text)),
    "resourceName": _name,
    "description": _text(0, limits.DESCRIPTION_CHARS_MAX),
    "resourceKind": _string(_check_kind, required=True),
    "configuration": _text(0, limits.NAME_CHARS_MAX),
    "action": _text(1, limits.ACTION_CHARS_MAX),
    "user": _name,
    "account": _string(_check_account),
    "details": _check_details,
}


def nearest(text: str, known: Iterable[str]) -> str | None:
    """The one of `known` that is most like `text`, whatever its case; None when none is near."""
    folded: dict[str, str] = {}
    for name in known:
        folded.setdefault(name.casefold(), name)
    close = difflib.get_close_matches(text.casefold()[: limits.NAME_CHARS_MAX], folded, n=1, cutoff=0.5)
    return folded[close[0]] if close else None


def _hint(text: str, known: Iterable[str]) -> str:
    near = nearest(text, known)
    return f"; did you mean {near}?" if near else ""


def _printable(text: str) -> str:
    shown = text if len(text) <= _SHOWN_CHARS else text[: _SHOWN_CHARS - 1] + "…"
    return _SURROGATE.sub("?", shown)


def _quote(text: str) -> str:
    return json.dumps(_printable(text), ensure_ascii=False)
