"""The operations of the API as methods."""

import json
import math
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal, Self, TypeVar
from urllib.parse import quote

import httpx2
import msgspec

from auditplane import limits
from auditplane import query as queries
from auditplane.client.filters import EVERYTHING, Filter
from auditplane.client.transport import Transport, lines, whole
from auditplane.errors import ConnectionLost, Refused
from auditplane.tiles import Tile, tile_path

T = TypeVar("T")
Order = Literal["desc", "asc", "recorded"]
FileForm = Literal["csv", "raw", "ndjson"]

TIMEOUT_SECONDS: Final = 60.0
_EVENTS: Final = "/v1/audit-events"
_JSON: Final = "application/json"
_NDJSON: Final = "application/x-ndjson"
_OCTETS: Final = "application/octet-stream"
_ZIP: Final = "application/zip"
_TEXT: Final = "text/plain"
_DIGITS: Final = 19


class _Ids(msgspec.Struct):
    ids: list[str]


class _Count(msgspec.Struct):
    count: int


class _Consistency(msgspec.Struct):
    path: list[bytes]


@dataclass(frozen=True, slots=True)
class Recorded:
    """A page of the log in the order of its commits.

    `docs` are events, each the UTF-8 JSON of one. `next_after` is the index, counted from 0, to go on after:
    that of the last event looked at, whether it matched or not. `log_size` is how many events the log held.
    """

    docs: tuple[bytes, ...]
    next_after: int
    log_size: int

    @property
    def is_last(self) -> bool:
        """Whether the log held no more then."""
        return self.next_after >= self.log_size - 1


class Client:
    """A client of one account, by one API key; not to be shared between threads.

    A context manager, which closes its connections. Requests that change nothing when they are repeated are
    sent again, five times in all, when the server asks for it by Retry-After. Redirects are not followed.

    Every method that asks the server raises Refused when it answers with an error, and ConnectionLost when
    it can't be reached, falls silent, or its answer breaks off; those that are iterators raise them while
    they are iterated.
    """

    def __init__(
        self, url: str, api_key: str, *, timeout: float = TIMEOUT_SECONDS, ca_cert: Path | None = None
    ) -> None:
        """A client of the server at `url`, such as `https://audit.example.com:3001`; connects when needed.

        `timeout` is how many seconds of silence are taken for a lost connection; to connect may take 10 of
        them at the most. `ca_cert` is a PEM file of authorities to trust instead of the system's.

        Raises `auditplane.errors.InvalidConfig` for a URL, a key or a file that can't be used.
        """
        self._transport = Transport(url, api_key, timeout, ca_cert)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes its connections; the client is of no use then."""
        self._transport.close()

    def record(self, events: Sequence[Mapping[str, Any]]) -> list[str]:
        """Records events, all or none; returns their ids, in their order, once they are on disk.

        An event has the members of the API's (`user`, `action`, `resourceKind`, `resourceName` and more); at
        most 10,000 in a call. After ConnectionLost they may be stored or not: where each has an `id`, a
        ULID, the same call may be made again, and stores nothing twice. Raises TypeError for a value that
        JSON can't hold.
        """
        have_ids = all(event.get("id") for event in events)
        return self.record_json(msgspec.json.encode(events), repeatable=have_ids)

    def record_json(self, body: bytes, *, repeatable: bool = False) -> list[str]:
        """Records the event, or the array of events, in a JSON text in UTF-8; otherwise like `record`.

        `repeatable` says that each has an id, so that the request may be sent again.
        """
        return self._record(body, _JSON, repeatable=repeatable)

    def record_lines(self, body: bytes, *, repeatable: bool = False) -> list[str]:
        """Records NDJSON, one event a line, in UTF-8; otherwise like `record_json`."""
        return self._record(body, _NDJSON, repeatable=repeatable)

    def _record(self, body: bytes, media_type: str, *, repeatable: bool) -> list[str]:
        with self._transport.opened(
            "POST", _EVENTS, _JSON, body=body, body_type=media_type, repeatable=repeatable
        ) as answer:
            return list(self._json(answer, _Ids).ids)

    def get(self, event_id: str) -> dict[str, Any]:
        """The event of an id, with all its members. Raises Refused of status 404 when there is none."""
        with self._transport.opened("GET", f"{_EVENTS}/{quote(event_id, safe='')}", _JSON) as answer:
            return self._decoded(whole(answer.iter_bytes()), _event)

    def count(self, where: Filter = EVERYTHING) -> int:
        """How many events match; all of the account without `where`."""
        parameters = where.parameters()
        with self._transport.opened("GET", f"{_EVENTS}/count", _JSON, parameters=parameters) as answer:
            return int(self._json(answer, _Count).count)

    def events(
        self, where: Filter = EVERYTHING, *, order: Order = "desc", limit: int | None = None
    ) -> Iterator[dict[str, Any]]:
        """The events that match, each with all its members, while they come.

        They are the newest first (`desc`), the oldest first (`asc`), or in the order in which they were
        recorded; at most `limit` of them, asked for in pages of up to 10,000. The log is shown as it was at
        the first request, however much is recorded meanwhile.

        Numbers are int and float. One that is beyond both, as older servers took them, comes as its text;
        `lines` gives every number as it was recorded.
        """
        for line in self.lines(where, order=order, limit=limit):
            yield self._decoded(line, _event)

    def lines(
        self, where: Filter = EVERYTHING, *, order: Order = "desc", limit: int | None = None
    ) -> Iterator[bytes]:
        """Like `events`, each as its JSON in UTF-8, without a line feed: what a program passes on."""
        asked = [*where.parameters(), (queries.ORDER, order)]
        if limit is None:
            with self._transport.opened("GET", _EVENTS, _NDJSON, parameters=asked) as answer:
                yield from lines(answer.iter_bytes())
            return
        left, parameters = limit, asked
        while left > 0:
            page = [*parameters, (queries.LIMIT, str(min(left, limits.PAGE_EVENTS_MAX)))]
            with self._transport.opened("GET", _EVENTS, _NDJSON, parameters=page) as answer:
                for line in lines(answer.iter_bytes()):
                    yield line
                    left -= 1
                following = answer.links.get("next")
            if following is None:
                return
            parameters = [*asked, (queries.CURSOR, self._cursor(following["url"], parameters))]

    def recorded_after(self, index: int = -1, where: Filter = EVERYTHING, *, limit: int = 1_000) -> Recorded:
        """The events that match among those recorded after that of an index, the first `limit` of them.

        The index counts from 0 as events were recorded; -1 is before the first. `limit` is from 1 to 10,000.
        Who asks again after `next_after` misses none and gets none twice. An index that the log has not
        reached gives an empty page: where `log_size` is not greater, it is not the log that was followed.
        """
        parameters = [
            *where.parameters(),
            (queries.ORDER, "recorded"),
            (queries.AFTER, str(index)),
            (queries.LIMIT, str(limit)),
        ]
        with self._transport.opened("GET", _EVENTS, _NDJSON, parameters=parameters) as answer:
            docs = tuple(lines(answer.iter_bytes()))
            try:
                next_after = int(answer.headers["Auditplane-Next-After"])
                log_size = int(answer.headers["Auditplane-Log-Size"])
            except (KeyError, ValueError):
                raise Refused(
                    answer.status_code,
                    f"{self._transport.url} does not say where its log goes on; it needs a newer version.",
                ) from None
        return Recorded(docs, next_after, log_size)

    def download(
        self, form: FileForm = "csv", where: Filter = EVERYTHING, *, order: Order = "desc"
    ) -> Iterator[bytes]:
        """All events that match as a file in UTF-8, piece by piece; a piece may end within an event.

        `form` is CSV, CSV with cells that look like formulas left as they are (`raw`), or NDJSON. A file is
        whole when the iterator ends without an error, and only then.
        """
        parameters = [*where.parameters(), (queries.ORDER, order)]
        if form == "ndjson":
            path, media_type = _EVENTS, _NDJSON
        else:
            path, media_type = f"{_EVENTS}/download", _OCTETS
            parameters.append((queries.RAW, "true" if form == "raw" else "false"))
        with self._transport.opened("GET", path, media_type, parameters=parameters) as answer:
            yield from answer.iter_bytes()

    def evidence(self, where: Filter = EVERYTHING) -> Iterator[bytes]:
        """All events that match with what proves them, as a zip, piece by piece; whole as with `download`.

        `auditplane verify` checks it, and so does the `verify.py` of the project, without a network.
        """
        parameters = where.parameters()
        with self._transport.opened("GET", f"{_EVENTS}/evidence", _ZIP, parameters=parameters) as answer:
            yield from answer.iter_bytes()

    def checkpoint(self, account: str) -> bytes:
        """The signed checkpoint of the log of an account, as a note; nothing of it is verified here.

        Like the other methods that ask for a log, it takes a key of that account, or none where the log is
        public.
        """
        with self._transport.opened("GET", f"{_log(account)}/checkpoint", _TEXT) as answer:
            return whole(answer.iter_bytes())

    def consistency(self, account: str, old: int, new: int) -> list[bytes]:
        """The hashes that prove that the log of `old` entries is the beginning of that of `new`.

        `auditplane.merkle.verify_consistency` verifies them.
        """
        sizes = [("from", str(old)), ("to", str(new))]
        path = f"{_log(account)}/consistency"
        with self._transport.opened("GET", path, _JSON, parameters=sizes) as answer:
            return list(self._json(answer, _Consistency).path)

    def tile(self, account: str, tile: Tile) -> bytes:
        """A tile of hashes, packed, or an entry bundle, as it is served; several threads may ask for some."""
        with self._transport.opened("GET", f"{_log(account)}/{tile_path(*tile)}", _OCTETS) as answer:
            return whole(answer.iter_bytes())

    def expired_before(self, account: str) -> int:
        """The index before which the events of a log have expired, as the server says; holds keep some."""
        nothing = [("from", "0"), ("to", "0")]
        path = f"{_log(account)}/events"
        with self._transport.opened("GET", path, _NDJSON, parameters=nothing) as answer:
            given = answer.headers.get("Auditplane-Expired", "0")
            return int(given) if given.isascii() and given.isdigit() and len(given) < _DIGITS else 0

    def entry_lines(self, account: str, start: int, end: int) -> Generator[bytes, None, None]:
        """The events with an index from `start` to before `end`, with what their commitments are made of.

        Each is a line that `auditplane.verifying.parse_entry_line` reads. Those that are gone are missing. It
        takes a key that may read. To `close` the iterator ends the request.
        """
        indexes = [("from", str(start)), ("to", str(end))]
        path = f"{_log(account)}/events"
        with self._transport.opened("GET", path, _NDJSON, parameters=indexes) as answer:
            yield from lines(answer.iter_bytes())

    def _cursor(self, url: str, parameters: Sequence[tuple[str, str]]) -> str:
        """Where the next page begins, by its URL; not where the page of these parameters did."""
        try:
            cursor = httpx2.URL(url).params[queries.CURSOR]
        except (httpx2.InvalidURL, KeyError, ValueError):
            cursor = ""
        if not cursor or (queries.CURSOR, cursor) in parameters:
            raise ConnectionLost(f"The answer of {self._transport.url} leads to no next page.")
        return cursor

    def _json(self, answer: httpx2.Response, kind: Any) -> Any:
        return self._decoded(whole(answer.iter_bytes()), msgspec.json.Decoder(kind).decode)

    def _decoded(self, text: bytes, decode: Callable[[bytes], T]) -> T:
        try:
            return decode(text)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise ConnectionLost(
                f"The answer of {self._transport.url} is not what is due: {error}."
            ) from None


def _int(text: str) -> int | str:
    try:
        return int(text)
    except ValueError:  # Python makes none of more than some thousand digits.
        return text


def _float(text: str) -> float | str:
    number = float(text)
    return number if math.isfinite(number) else text


_decode_members = msgspec.json.Decoder(dict[str, Any]).decode
_any_numbers = json.JSONDecoder(parse_int=_int, parse_float=_float)


def _event(text: bytes) -> dict[str, Any]:
    """An event, also with numbers that msgspec refuses: an older server may have taken them."""
    try:
        return _decode_members(text)
    except msgspec.ValidationError:
        return msgspec.convert(_any_numbers.decode(text.decode()), dict[str, Any])


def _log(account: str) -> str:
    return f"/v1/log/{quote(account, safe='')}"
