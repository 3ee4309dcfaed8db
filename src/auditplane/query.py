"""What a reader asks for: filters, dates, order and cursors as values. Pure.

`parse_query` takes the parameters of a URL, and refuses what it does not know: an unfiltered answer to a
misspelt filter would be a leak. `Query.matches` says which events match; engines may find them any way they
like, but must find the same ones.
"""

import base64
import re
import struct
import unicodedata
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from hashlib import sha256
from itertools import islice
from typing import Final

from auditplane import limits
from auditplane.errors import InvalidQuery
from auditplane.event import Event, nearest
from auditplane.times import DAY_US, SECOND_US, epoch_seconds, in_calendar, offset_seconds, parse_rfc3339
from auditplane.unicode14 import MARK, marked


class Order(Enum):
    """The order of an answer."""

    DESC = "desc"
    ASC = "asc"
    RECORDED = "recorded"


@dataclass(frozen=True, slots=True)
class Cursor:
    """Where the next page starts: after the event at `position` (a key, or an index in recorded order),
    showing only events whose index is below `size`."""

    position: int
    size: int


@dataclass(frozen=True, slots=True)
class Query:
    """Filters, each a choice of values of which any may match; all filters that are given must match.

    `min_us` and `max_us` are inclusive microseconds since 1970. `words` holds one tuple of folded words for
    each `q`. Users are folded. `after` is an index, for recorded order only.
    """

    configurations: tuple[str, ...] = ()
    users: tuple[str, ...] = ()
    actions: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    words: tuple[tuple[str, ...], ...] = ()
    min_us: int | None = None
    max_us: int | None = None
    order: Order = Order.DESC
    after: int | None = None
    limit: int | None = None
    cursor: Cursor | None = None

    def matches(self, event: Event) -> bool:
        """Whether a stored event passes every filter."""
        return (
            self.in_time(event)
            and (not self.users or fold(event.user) in self.users)
            and (not self.actions or event.action in self.actions)
            and (not self.kinds or event.resourceKind in self.kinds)
            and (not self.names or event.resourceName in self.names)
            and (not self.configurations or matches_configuration(event.configuration, self.configurations))
            and self.matches_words(event)
        )

    def in_time(self, event: Event) -> bool:
        """Whether a stored event lies between the dates."""
        if self.min_us is None and self.max_us is None:
            return True
        at = parse_rfc3339(event.timestamp or "")
        return (self.min_us is None or at >= self.min_us) and (self.max_us is None or at <= self.max_us)

    def matches_words(self, event: Event) -> bool:
        """Whether all words of one of the `q` occur in the event."""
        if not self.words:
            return True
        found = set(words_of(searched_text(event)))
        return any(found.issuperset(words) for words in self.words)

    @property
    def filtered(self) -> bool:
        """Whether anything but time restricts the answer."""
        return bool(
            self.configurations or self.users or self.actions or self.kinds or self.names or self.words
        )


_WORD = re.compile(r"[^\W_]+")
_ASCII_WORDS = bytes(ord(chr(i).lower()) if i < 128 and chr(i).isalnum() else 32 for i in range(256))


def fold(text: str) -> str:
    """The form in which texts are compared without regard to case, the same in every Python."""
    if text.isascii():
        return text.lower()
    known = marked(text)
    folded = _folded(known)
    if known == text:
        return folded
    newer = [char for char, mark in zip(text, known, strict=True) if mark == MARK]
    beginning, *parts = folded.split(MARK)
    return beginning + "".join(map(str.__add__, newer, parts))


def words_of(text: str) -> list[str]:
    """The folded words of a text: its longest runs of letters and digits of Unicode 14.0."""
    if text.isascii():
        return text.encode().translate(_ASCII_WORDS).decode().split()
    return _WORD.findall(_folded(marked(text)))


def _folded(text: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold())


def searched_text(event: Event) -> str:
    """The text whose words `q` looks for."""
    return f"{event.description}\n{event.resourceName}\n{event.user}\n{event.configuration or ''}"


def matches_configuration(configuration: str | None, wanted: Collection[str]) -> bool:
    """Whether `name:version` is wanted, by its name or by both."""
    return configuration is not None and (
        configuration in wanted or configuration_name(configuration) in wanted
    )


def configuration_name(configuration: str) -> str:
    """The name in `name:version`; all of it when there is no version."""
    name, colon, _ = configuration.rpartition(":")
    return name if colon else configuration


# Dates.

_DIGITS_DATE = re.compile(r"([0-9]{4})([0-9]{2})([0-9]{2})(?:([0-9]{2})([0-9]{2})([0-9]{2}))?")
_TEXT_DATE = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})[Tt ]([0-9]{2}):([0-9]{2}):([0-9]{2})(?:\.([0-9]{1,30}))?"
    r"(?:[Zz]|([+ -])([0-9]{2})(?::?([0-9]{2}))?)"
)
DATE_FORMS: Final = (
    "YYYYMMDDHHMMSS or YYYYMMDD (UTC), RFC 3339 such as 2026-03-18T18:21:09Z, "
    "or 2026-03-18 18:21:09.000001+00"
)


def parse_date(text: str, name: str = "date") -> tuple[int, int]:
    """The first and the last microsecond since 1970 of the day, second or fraction that `text` names.

    A `+` that arrived as a blank is read as `+`. Raises InvalidQuery, which names the parameter.
    """
    try:
        if match := _DIGITS_DATE.fullmatch(text):
            parts = [int(part) for part in match.groups() if part]
            first = epoch_seconds(*parts) * SECOND_US
            return first, first + (SECOND_US if match[4] else DAY_US) - 1
        if match := _TEXT_DATE.fullmatch(text):
            second = epoch_seconds(*(int(match[i]) for i in range(1, 7)))
            if match[8]:
                second = in_calendar(second - offset_seconds(match[8], match[9], match[10]))
            digits = (match[7] or "")[:6]
            first = second * SECOND_US + int(digits.ljust(6, "0"))
            return first, first + 10 ** (6 - len(digits)) - 1
    except ValueError:
        raise InvalidQuery(f"{name}: there is no such date as {_shown(text)}.") from None
    raise InvalidQuery(f"{name}: {_shown(text)} is not a date; write {DATE_FORMS}.")


# Parameters.

CONFIGURATION, USER, MIN_DATE, MAX_DATE = "configuration-name", "user", "min-date", "max-date"
ACTION, KIND, NAME, WORDS = "action", "resource-kind", "resource-name", "q"
ORDER, AFTER, LIMIT, CURSOR, RAW = "order", "after", "limit", "cursor", "raw"

FILTERS: Final = (CONFIGURATION, USER, MIN_DATE, MAX_DATE, ACTION, KIND, NAME, WORDS)
LIST_PARAMETERS: Final = (*FILTERS, ORDER, AFTER, LIMIT, CURSOR)
DOWNLOAD_PARAMETERS: Final = (*FILTERS, ORDER, AFTER, RAW)
COUNT_PARAMETERS: Final = FILTERS
HINTS_MAX: Final = 3
"""For so many misspelt values of a request it is said what may be meant."""
SINGLE: Final = (MIN_DATE, MAX_DATE, ORDER, AFTER, LIMIT, CURSOR, RAW)


def parse_query(
    parameters: Iterable[tuple[str, str]], *, account: str, allowed: Sequence[str], kinds: Collection[str]
) -> Query:
    """The query that URL parameters, in their order, ask of an account.

    An empty value counts as not given. Raises InvalidQuery with a sentence for each thing that is wrong.
    """
    given = [(name, value) for name, value in parameters if name not in allowed or value]
    if len(given) > limits.QUERY_VALUES_MAX:
        raise InvalidQuery(f"At most {limits.QUERY_VALUES_MAX} parameters can be given, not {len(given):,}.")
    unknown = dict.fromkeys(name for name, _ in given if name not in allowed)
    if unknown:
        first = islice(unknown, limits.PROBLEMS_LISTED_MAX)
        raise InvalidQuery(*(_unknown(name, allowed, hint=at < HINTS_MAX) for at, name in enumerate(first)))
    values: dict[str, list[str]] = {}
    for name, value in given:
        values.setdefault(name, []).append(value)
    twice = [name for name in SINGLE if len(values.get(name, ())) > 1]
    if twice:
        raise InvalidQuery(*(f"{name}: can be given only once." for name in twice))
    return _Reader(values).query(account, kinds)


def flag(value: str | None, name: str) -> bool:
    """A parameter that is `true` or `false`; an absent or empty one is false."""
    if value not in (None, "", "true", "false"):
        raise InvalidQuery(f"{name}: must be true or false, is {_shown(value or '')}.")
    return value == "true"


class _Reader:
    """Reads values one by one and gathers what is wrong with them."""

    def __init__(self, values: dict[str, list[str]]) -> None:
        self.values = values
        self.wrong: list[str] = []

    def query(self, account: str, kinds: Collection[str]) -> Query:
        min_us, max_us = self._date(MIN_DATE, 0), self._date(MAX_DATE, 1)
        if min_us is not None and max_us is not None and min_us > max_us:
            self.wrong.append(f"{MIN_DATE} is after {MAX_DATE}; no event can be in between.")
        order = self._order()
        after = self._integer(AFTER, -1, (1 << 63) - 1)
        if after is not None and order is not Order.RECORDED:
            self.wrong.append(f"{AFTER}: goes with {ORDER}=recorded.")
        query = Query(
            configurations=self._all(CONFIGURATION),
            users=tuple(dict.fromkeys(map(fold, self._all(USER)))),
            actions=self._all(ACTION),
            kinds=self._kinds(kinds),
            names=self._all(NAME),
            words=self._words(),
            min_us=min_us,
            max_us=max_us,
            order=order,
            after=after,
            limit=self._integer(LIMIT, 1, limits.PAGE_EVENTS_MAX),
        )
        cursor = self._cursor(query, account)
        if self.wrong:
            raise InvalidQuery(*self.wrong[: limits.PROBLEMS_LISTED_MAX])
        return replace(query, cursor=cursor)

    def _all(self, name: str) -> tuple[str, ...]:
        return tuple(dict.fromkeys(self.values.get(name, ())))

    def _one(self, name: str) -> str | None:
        return self.values.get(name, [None])[0]

    def _date(self, name: str, end: int) -> int | None:
        text = self._one(name)
        if text is None:
            return None
        try:
            return parse_date(text, name)[end]
        except InvalidQuery as error:
            self.wrong.extend(error.messages)
            return None

    def _order(self) -> Order:
        text = self._one(ORDER) or Order.DESC.value
        try:
            return Order(text)
        except ValueError:
            self.wrong.append(f"{ORDER}: must be desc, asc or recorded, is {_shown(text)}.")
            return Order.DESC

    def _integer(self, name: str, low: int, high: int) -> int | None:
        text = self._one(name)
        if text is None:
            return None
        if re.fullmatch(r"-?[0-9]{1,19}", text) and low <= int(text) <= high:
            return int(text)
        self.wrong.append(f"{name}: must be a whole number from {low:,} to {high:,}, is {_shown(text)}.")
        return None

    def _kinds(self, known: Collection[str]) -> tuple[str, ...]:
        given = self._all(KIND)
        unknown = [kind for kind in given if kind not in known]
        for at, kind in enumerate(unknown):
            near = nearest(kind, known) if at < HINTS_MAX else None  # it takes long
            hint = f"; did you mean {near}?" if near else "."
            self.wrong.append(f"{KIND}: {_shown(kind)} is not a known kind{hint}")
        return given

    def _words(self) -> tuple[tuple[str, ...], ...]:
        found = []
        for text in self._all(WORDS):
            words = tuple(dict.fromkeys(words_of(text)))
            if words:
                found.append(words)
            else:
                self.wrong.append(f"{WORDS}: {_shown(text)} holds no letter or digit to look for.")
        return tuple(found)

    def _cursor(self, query: Query, account: str) -> Cursor | None:
        text = self._one(CURSOR)
        if text is None or self.wrong:
            return None
        try:
            return decode_cursor(text, query, account)
        except InvalidQuery as error:
            self.wrong.extend(error.messages)
            return None


def _unknown(name: str, allowed: Sequence[str], *, hint: bool) -> str:
    parts = [known for known in allowed if name.lower() in known.split("-")]
    near = parts[0] if parts else nearest(name, allowed) if hint else None
    meant = f"did you mean {near}?" if near else f"known are {', '.join(allowed)}."
    return f"{_shown(name)} is not a parameter of this; {meant}"


def _shown(text: str) -> str:
    cut = text if len(text) <= 64 else text[:63] + "…"
    return '"' + cut.encode("utf-8", "replace").decode().replace('"', "'") + '"'


# Cursors.

_CURSOR = struct.Struct(">Bqq8s")
_CURSOR_VERSION: Final = 1


def encode_cursor(cursor: Cursor, query: Query, account: str) -> str:
    """The text of a cursor; it holds for this query of this account only, whatever the limit."""
    packed = _CURSOR.pack(_CURSOR_VERSION, cursor.position, cursor.size, _digest(query, account))
    return base64.urlsafe_b64encode(packed).decode("ascii").rstrip("=")


def decode_cursor(text: str, query: Query, account: str) -> Cursor:
    """The cursor of a text; InvalidQuery when it is none, or belongs to another query or account."""
    try:
        packed = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        version, position, size, digest = _CURSOR.unpack(packed)
    except (ValueError, struct.error):
        raise InvalidQuery(f"{CURSOR}: is not one of this server; follow the Link header as it is.") from None
    if version != _CURSOR_VERSION or position < 0 or size < 0:
        raise InvalidQuery(f"{CURSOR}: is not one of this version of the server; start again without it.")
    if digest != _digest(query, account):
        raise InvalidQuery(f"{CURSOR}: belongs to another query; keep the other parameters as they were.")
    return Cursor(position, size)


def _digest(query: Query, account: str) -> bytes:
    text = f"{account}\n{replace(query, limit=None, cursor=None)!r}"
    return sha256(text.encode("utf-8", "replace")).digest()[:8]
