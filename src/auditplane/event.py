"""The audit event: reading it from JSON, checking it, and the bytes it is stored as. Pure.

`parse` takes the body of a request and gives a `Batch`, or raises `InvalidEvents` that names each wrong
member. What it lets through is what `problems` finds nothing wrong with: the fast way in and the careful
check accept the same events. A doc is the canonical JSON of an event: members in the contract's order, no
blanks, absent members left out, encoded once.
"""

import difflib
import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from itertools import islice
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
_LINE = re.compile(rb"\S[^\n]*")
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

    `times` holds, for each event, the given timestamp in microseconds since 1970, or None; `descriptions`
    the positions of those whose description was composed here.
    """

    events: Sequence[Event]
    times: Sequence[int | None]
    composed: frozenset[int] = frozenset()


_decode_array = msgspec.json.Decoder(list[Event]).decode
_decode_one = msgspec.json.Decoder(Event).decode
_decode_any = msgspec.json.Decoder().decode
_decode_raws = msgspec.json.Decoder(list[Raw]).decode
_encoder = msgspec.json.Encoder(decimal_format="number")


def encode_docs(events: Sequence[Event]) -> list[bytes]:
    """The docs of complete events. A doc holds no line feed: JSON escapes it."""
    return _encoder.encode_lines(events)[:-1].split(b"\n")


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
    try:
        events = [_decode_one(line) for line in _lines(body)] if lines else _decode_events(body)
        _check_count(len(events))
        batch = _finish(events, rules, plain=_is_plain(body))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        batch = None
    if batch is None:
        raise _explain(_lines(body) if lines else _parts(body), rules)
    return batch


def _lines(body: bytes) -> list[bytes]:
    """The lines that are not blank, one more than are taken at the most."""
    return [match[0] for match in islice(_LINE.finditer(body), limits.BATCH_EVENTS_MAX + 1)]


def _decode_events(body: bytes) -> list[Event]:
    return [_decode_one(body)] if body.lstrip()[:1] == b"{" else _decode_array(body)


def _check_count(count: int) -> None:
    if count > limits.BATCH_EVENTS_MAX:
        raise TooLarge(
            f"A request may hold at most {limits.BATCH_EVENTS_MAX:,} events; send them in several requests."
        )
    if count == 0:
        raise InvalidEvents("The body holds no event; send one JSON object, an array of them, or NDJSON.")


def _is_plain(body: bytes) -> bool:
    """Whether no text in the body can hold a control character: then none need be looked at."""
    return b"\\" not in body and body.isascii() and b"\x7f" not in body


def _finish(events: list[Event], rules: Rules, *, plain: bool) -> Batch | None:
    """Checks what the decoder did not and fills in descriptions; None when anything is wrong."""
    times: list[int | None] = []
    composed: list[int] = []
    kinds = rules.kinds
    for position, event in enumerate(events):
        if event.resourceKind not in kinds or not (event.user and event.action and event.resourceName):
            return None
        if not plain and not _texts_clean(event):
            return None
        if event.id is not None:
            event.id = event.id.upper()
            if not is_ulid(event.id):
                return None
        at = None
        if event.timestamp is not None:
            try:
                at = parse_rfc3339(event.timestamp)
            except ValueError:
                return None
            if at < 0:
                return None
        times.append(at)
        if event.account and event.account != rules.account:
            raise _other_account(event.account)
        event.account = None if rules.account == DEFAULT_ACCOUNT else rules.account
        if not event.configuration:
            event.configuration = None
        if event.details is not _ABSENT:
            try:
                event.details = clean_details(bytes(event.details), rules.secret_words)
            except InvalidInput:
                return None
        if not event.description:
            event.description = compose(event)
            composed.append(position)
    return Batch(events, times, frozenset(composed))


def _texts_clean(event: Event) -> bool:
    text = f"{event.resourceName}{event.description}{event.configuration}{event.action}{event.user}"
    return _CONTROL.search(text) is None


def compose(event: Event) -> str:
    """The description of an event whose recorder gave none.

    >>> compose(Event(resourceName="otlp", resourceKind="Source", action="Modified", configuration="gw:7"))
    'Modified Source otlp in configuration gw:7'
    """
    text = f"{event.action} {event.resourceKind} {event.resourceName}"
    return f"{text} in configuration {event.configuration}" if event.configuration else text


# Details: a JSON object that is stored compactly, its order kept, its secrets replaced.


def clean_details(raw: bytes, secret_words: Sequence[str]) -> Raw:
    """The details to store for those given as JSON; absent for `null`.

    Raises InvalidInput when they are not a JSON object, hold a key twice or a lone surrogate, are nested
    too deep, or are longer than DETAILS_BYTES_MAX once compact.
    """
    try:
        value = json.loads(
            raw.decode("utf-8"),
            object_pairs_hook=_unique,
            parse_float=_decimal,
            parse_int=_integer,
            parse_constant=_no_constant,
        )
    except RecursionError:
        raise InvalidInput(f"must be nested at most {limits.DETAILS_DEPTH_MAX} deep") from None
    except ValueError as error:
        raise InvalidInput(f"is not valid JSON: {error}") from None
    if value is None:
        return _ABSENT
    if not isinstance(value, dict):
        raise InvalidInput("must be a JSON object")
    try:
        compact = _encoder.encode(_redact(value, _secret_pattern(tuple(secret_words)), 1))
    except UnicodeEncodeError:
        raise InvalidInput("holds a lone surrogate; send whole Unicode characters") from None
    if len(compact) > limits.DETAILS_BYTES_MAX:
        raise InvalidInput(f"must be at most {limits.DETAILS_BYTES_MAX:,} bytes, has {len(compact):,}")
    return Raw(compact)


def _integer(text: str) -> int | Decimal:
    return int(text) if len(text) < 19 else _decimal(text)  # noqa: PLR2004 - what fits 64 bits


def _decimal(text: str) -> Decimal:
    """Keeps every digit as it was given."""
    try:
        return Decimal(text)
    except InvalidOperation:
        raise InvalidInput(f"holds the number {_printable(text)}, which is out of range") from None


def _no_constant(text: str) -> None:
    raise InvalidInput(f"holds {text}, which is not JSON")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise InvalidInput(f"holds the key {_quote(twice)} twice in one object")
    return found


def _secret_pattern(words: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile("|".join(re.escape(_squash(word)) for word in words) or r"(?!)")


def _squash(key: str) -> str:
    return re.sub(r"[\W_]+", "", key).casefold()


def _redact(value: Any, secret: re.Pattern[str], depth: int) -> Any:
    if depth > limits.DETAILS_DEPTH_MAX:
        raise InvalidInput(f"must be nested at most {limits.DETAILS_DEPTH_MAX} deep")
    if isinstance(value, dict):
        return {
            key: REDACTED if inner is not None and secret.search(_squash(key)) else _redact(inner, secret, depth + 1)
            for key, inner in value.items()
        }
    if isinstance(value, list):
        return [_redact(inner, secret, depth + 1) for inner in value]
    return value


# The careful check, which explains.


def _parts(body: bytes) -> list[bytes]:
    """The JSON texts of the events in a body; raises InvalidInput when they can't be told apart."""
    try:
        if body.lstrip()[:1] == b"{":
            return [body]
        return [bytes(raw) for raw in _decode_raws(body)]
    except UnicodeDecodeError as error:
        raise InvalidInput(f"The body is not UTF-8: {error}.") from None
    except RecursionError:
        raise InvalidInput("The body is nested too deep.") from None
    except msgspec.ValidationError:
        raise InvalidInput("The body must be one JSON object, an array of objects, or NDJSON.") from None
    except msgspec.DecodeError as error:
        raise InvalidInput(f"The body is not valid JSON: {_decode_error(error)}.") from None


def _decode_error(error: Exception) -> str:
    text = str(error)
    return "it ends too early or holds a lone surrogate" if "truncated" in text else text.removeprefix("JSON is malformed: ")


def _explain(parts: Sequence[bytes], rules: Rules) -> InvalidEvents:
    """What is wrong with the events, by position and member."""
    _check_count(len(parts))
    found: list[str] = []
    more = 0
    for position, part in enumerate(parts):
        for problem in problems(part, rules):
            if len(found) < limits.PROBLEMS_LISTED_MAX:
                found.append(f"events[{position}]{problem}")
            else:
                more += 1
    if more:
        found.append(f"and {more:,} more; nothing was stored.")
    return InvalidEvents(*found)


def problems(part: bytes, rules: Rules) -> list[str]:
    """What is wrong with one event, given as JSON text: a list of `.member: sentence` or `: sentence`.

    Raises Forbidden when it names another account.
    """
    try:
        value = _decode_any(part)
        raws = msgspec.json.decode(part, type=dict[str, Raw]) if isinstance(value, dict) else {}
    except UnicodeDecodeError:
        return [": is not UTF-8"]
    except RecursionError:
        return [": is nested too deep"]
    except msgspec.DecodeError as error:
        return [f": is not valid JSON: {_decode_error(error)}"]
    if not isinstance(value, dict):
        return [": must be a JSON object"]
    found = [f".{_printable(key)}: is not a member of an event{_hint(key, MEMBERS)}" for key in value if key not in MEMBERS]
    for member in MEMBERS:
        given = value.get(member)
        problem = None
        if member == "details":
            problem = _details_problem(raws.get(member), rules)
        elif given is None:
            problem = "is missing" if member in REQUIRED else None
        elif not isinstance(given, str):
            problem = "must be a string"
        else:
            problem = _CHECKS[member](given, rules)
        if problem:
            found.append(f".{member}: {problem}")
    return found


def _details_problem(raw: Raw | None, rules: Rules) -> str | None:
    if raw is None:
        return None
    try:
        clean_details(bytes(raw), rules.secret_words)
    except InvalidInput as error:
        return str(error)
    return None


def _text(low: int, high: int) -> Callable[[str, Rules], str | None]:
    def check(text: str, _rules: Rules) -> str | None:
        if not low <= len(text) <= high:
            return f"must be {f'{low} to' if low else 'at most'} {high:,} characters, has {len(text):,}"
        if bad := _CONTROL.search(text):
            return f"holds the control character U+{ord(bad[0]):04X} at position {bad.start()}; only tab and line breaks are taken"
        return None

    return check


def _check_id(text: str, _rules: Rules) -> str | None:
    if is_ulid(text.upper()):
        return None
    return f"must be a ULID (26 letters and digits, no I, L, O, U, the first at most 7), is {_quote(text)}"


def _check_timestamp(text: str, _rules: Rules) -> str | None:
    try:
        at = parse_rfc3339(text)
    except ValueError:
        return f"must be an RFC 3339 date and time such as 2026-03-18T18:21:09.000001Z, is {_quote(text)}"
    return None if at >= 0 else f"must not be before 1970, is {_quote(text)}"


def _check_kind(text: str, rules: Rules) -> str | None:
    if text in rules.kinds:
        return None
    return f"{_quote(text)} is not a known kind{_hint(text, (*KINDS, *rules.extra_kinds))}"


def _check_account(text: str, rules: Rules) -> str | None:
    if text and text != rules.account:
        raise _other_account(text)
    return None


def _other_account(text: str) -> Forbidden:
    return Forbidden(f"This API key can't record into the account {_quote(text)}.")


_name = _text(1, limits.NAME_CHARS_MAX)
_CHECKS: Final[dict[str, Callable[[str, Rules], str | None]]] = {
    "id": _check_id,
    "timestamp": _check_timestamp,
    "resourceName": _name,
    "description": _text(0, limits.DESCRIPTION_CHARS_MAX),
    "resourceKind": _check_kind,
    "configuration": _text(0, limits.NAME_CHARS_MAX),
    "action": _text(1, limits.ACTION_CHARS_MAX),
    "user": _name,
    "account": _check_account,
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
    shown = text if len(text) <= 64 else text[:63] + "…"  # noqa: PLR2004 - a line of an error message
    return _SURROGATE.sub("?", shown)


def _quote(text: str) -> str:
    return json.dumps(_printable(text), ensure_ascii=False)
