"""The use cases of an account's log: record, read, count, get, prove.

All are synchronous: `auditplane.recorder` runs those that record on threads. What has been recorded is on
disk.
"""

import json
import os
import time
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from auditplane import forgotten, limits, merkle, render, ulid
from auditplane.checkpoint import Checkpoint, SignerKey, open_note, sign_checkpoint
from auditplane.errors import (
    Conflict,
    Damaged,
    InvalidEvents,
    NotFound,
    ProofError,
    Unconfirmed,
)
from auditplane.event import Batch, Event, Rules, decode_doc, encode_docs, parse
from auditplane.query import Cursor, Query
from auditplane.render import Form
from auditplane.store import Piece, Restored, Signed, Stored
from auditplane.store.sqlite import reader
from auditplane.store.sqlite.account import AccountStore, Transaction
from auditplane.store.sqlite.recorded import Recorded
from auditplane.store.sqlite.tree import Tree
from auditplane.tiles import ENTRIES, Tile, entry_bundle, tile_width
from auditplane.times import format_all, format_us, parse_rfc3339
from auditplane.zstd import compress, decompress_all

Clock = Callable[[], int]
"""Gives the time in microseconds since 1970."""


def clock() -> int:
    """The system's time in microseconds since 1970."""
    return time.time_ns() // 1000


PART_BYTES: Final = 192 * 1024
CHECKPOINT_US: Final = 1_000_000
UPDATED: Final = "Updated"
# How much smaller a chunk of docs is as it is stored.
_PACKED_RATIO: Final = 6

_ALPHABET: Final = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
_BASE64: Final = _ALPHABET * 4
_BASE64_LAST: Final = b"AQgw" * 64

# Recording.


@dataclass(frozen=True, slots=True)
class Request:
    """Events that wait to be recorded.

    `by` is the id of the API key; `token` is handed back with the result. `check` raises when whoever sent
    them may not record any more, and is called by the thread that records, before anything is added.
    """

    batch: Batch
    by: str
    token: Any = None
    check: Callable[[], None] = lambda: None


Result = Sequence[str] | Exception
"""The ids of a recorded request in the order of its events, or why nothing of it was recorded."""


def record(store: AccountStore, requests: Sequence[Request], clock: Clock) -> list[Result]:
    """Records requests in one commit, each wholly or not at all; when it returns, they are on disk."""
    results: list[Result] = []
    try:
        with store.transaction() as transaction:
            now = max(clock(), transaction.state.at_us)
            for request in requests:
                try:
                    with transaction.part():
                        results.append(_record_one(transaction, request, now))
                except Exception as error:  # noqa: BLE001 - the others must not fail with it
                    results.append(error)
            transaction.state.at_us = now
    except Exception as error:  # noqa: BLE001 - nothing was recorded, and each request hears why
        results += [error] * (len(requests) - len(results))
        return [result if isinstance(result, Exception) else error for result in results]
    return results


def add(transaction: Transaction, request: Request, clock: Clock) -> None:
    """Records in a transaction that does something else, too: what tells of it."""
    now = max(clock(), transaction.state.at_us)
    _record_one(transaction, request, now)
    transaction.state.at_us = now


def _record_one(transaction: Transaction, request: Request, now: int) -> list[str]:
    """Gives the events of a request what the server gives, and adds those that are new."""
    request.check()
    batch, state = request.batch, transaction.state
    given = _times(batch, now)
    known = _known(transaction, batch) if batch.with_ids else set()
    events, times = batch.events, given
    if known:
        fresh = [position for position in range(len(events)) if position not in known]
        events, times = [events[at] for at in fresh], [given[at] for at in fresh]
    if events:
        newest = max((us for us in times if us is not None), default=0)
        assigned = max(now, state.newest_us + 1, newest + 1)
        moments, state.newest_us = _moments(times, assigned, max(state.newest_us, newest))
        alike = len(moments) == times.count(None)
        keys = transaction.place_all(moments) if alike else [transaction.place(us) for us in moments]
        own_ids = {at: event.id for at, event in enumerate(events) if event.id} if batch.with_ids else {}
        ids = ulid.make_all(keys, os.urandom(ulid.RANDOM_BYTES * len(keys)))
        for event, event_id, timestamp in zip(events, ids, format_all(moments), strict=True):
            event.id = event.id or event_id
            event.timestamp = timestamp
        docs = encode_docs(events)
        stamps = _stamps(now, request.by, len(docs))
        transaction.add(keys, docs, stamps, list(map(merkle.entry, docs, stamps)), own_ids)
    return [event.id or "" for event in batch.events]


def _moments(times: Sequence[int | None], assigned: int, newest: int) -> tuple[Sequence[int], int]:
    """When each event was: the given time, or the next from `assigned` on. And the newest of all."""
    if times.count(None) == len(times):
        return range(assigned, assigned + len(times)), assigned + len(times) - 1
    moments = []
    for us in times:
        moments.append(assigned if us is None else us)
        if us is None:
            newest = assigned
            assigned += 1
    return moments, newest


def _times(batch: Batch, now: int) -> Sequence[int | None]:
    """The given timestamps; one of the near future counts as not given, a farther one is refused."""
    latest = now + limits.FUTURE_US_MAX
    if all(us is None or us <= now for us in batch.times):
        return batch.times
    wrong = [
        f"events[{position}].timestamp: {batch.events[position].timestamp} lies in the future; "
        f"the server's time is {format_us(now)}."
        for position, us in enumerate(batch.times)
        if us is not None and us > latest
    ]
    if wrong:
        raise InvalidEvents(*wrong[: limits.PROBLEMS_LISTED_MAX])
    return [None if us is None or us > now else us for us in batch.times]


def _known(transaction: Transaction, batch: Batch) -> set[int]:
    """The positions of events that were recorded before, or stand earlier in the batch.

    Raises Conflict when one has other content.
    """
    positions: dict[str, list[int]] = {}
    for position in batch.with_ids:
        positions.setdefault(batch.events[position].id or "", []).append(position)
    repeats: dict[int, bool] = {}
    for event_id, stored in transaction.find_each_stored(positions):  # a hold may show what has expired again
        event, at_us = decode_doc(stored.doc), _at_us(stored)
        for position in positions[event_id]:
            repeats[position] = _same(batch, position, event, at_us)
    known: set[int] = set()
    for position in batch.with_ids:
        event_id = batch.events[position].id or ""
        earlier = positions[event_id][0]
        if position in repeats:
            same = repeats[position]
        elif transaction.was_erased(event_id):
            raise Conflict(
                f"events[{position}].id: {event_id} was erased and can't be recorded again; "
                "nothing was stored."
            )
        elif earlier != position:
            same_time = batch.times[position] in (None, batch.times[earlier])
            same = same_time and _same_event(batch, position, batch.events[earlier])
        else:
            continue
        if not same:
            raise Conflict(
                f"events[{position}].id: {event_id} was recorded before with other content; "
                "nothing was stored. Give a new event a new id, or leave the id out."
            )
        known.add(position)
    return known


def _at_us(stored: Stored) -> int:
    return parse_rfc3339(json.loads(stored.stamp)["at"])


def _same(batch: Batch, position: int, stored: Event, at_us: int) -> bool:
    """Whether every member that the caller gave is that of the stored event."""
    given = batch.times[position]
    us = parse_rfc3339(stored.timestamp or "")
    # A timestamp of the near future had become the server's time, which is the commit's or later.
    same_time = (
        given is None or given == us or (at_us <= us and at_us < given <= at_us + limits.FUTURE_US_MAX)
    )
    return same_time and _same_event(batch, position, stored)


def _same_event(batch: Batch, position: int, other: Event) -> bool:
    event = batch.events[position]
    return (
        event.resourceName == other.resourceName
        and event.resourceKind == other.resourceKind
        and event.action == other.action
        and event.user == other.user
        and (position in batch.composed or event.description == other.description)
        and (event.configuration is None or event.configuration == other.configuration)
        and (not bytes(event.details) or bytes(event.details) == bytes(other.details))
    )


def _stamps(now: int, by: str, count: int) -> list[bytes]:
    """Stamps, one JSON line each, with a fresh salt in each: 16 random bytes in base64."""
    before = f'{{"at":"{format_us(now)}","by":"{by}","salt":"'.encode()
    # 21 letters of six bits and one of two are the same as 16 bytes encoded, and quicker.
    letters = os.urandom(21 * count).translate(_BASE64)
    last = os.urandom(count).translate(_BASE64_LAST)
    return [b'%b%b%c=="}' % (before, letters[at * 21 : at * 21 + 21], last[at]) for at in range(count)]


def of_the_trail(
    account: str, origin: str, user: str, description: str, details: Mapping[str, Any], event_id: str = ""
) -> Batch:
    """An event about the log itself, which the server records in it."""
    event = {
        "resourceName": origin,
        "resourceKind": forgotten.KIND,
        "action": UPDATED,
        "user": user[: limits.NAME_CHARS_MAX],
        "description": description,
        "details": details,
    }
    return parse(json.dumps(event | ({"id": event_id} if event_id else {})).encode(), Rules(account=account))


def confirm(store: AccountStore, account: str, user: str, clock: Clock) -> Restored | None:
    """Has a log that was restored go on from there: that is an event of it, and checkpoints are signed again.

    Both are on disk when it returns, or neither is. Returns what was marked; None when nothing was.
    """
    with store.transaction() as transaction:
        restored = transaction.restored()
        if restored is None:
            return None
        root = b64encode(restored.root).decode()
        origin = restored.key.partition("+")[0] or account
        description = (
            f"Restored from a backup of {format_us(restored.backup_us)} with {restored.size} events, "
            f"root {root}. What was recorded after it is not in this log"
        )
        details = {
            "restored": format_us(restored.at_us),
            "backup": format_us(restored.backup_us),
            "size": restored.size,
            "root": root,
        }
        batch = of_the_trail(account, origin, user, description, details)
        add(transaction, Request(batch, forgotten.SYSTEM), clock)
        transaction.clear_restored()
        return restored


# Reading.


class Answer:
    """The answer to a query in a form, made step by step while it is iterated.

    A step is a list of parts, most of about PART_BYTES: larger pieces of memory cost much more to get than
    to fill. `size` is the size of the log that it shows. With `packed` the bytes are zstd frames, stored
    ones passed through as they are. A step gives about `step_bytes`.
    """

    def __init__(
        self,
        store: AccountStore,
        query: Query,
        form: Form,
        *,
        packed: bool,
        step_bytes: int = limits.CHUNK_BYTES,
    ) -> None:
        self._reader = reader.Reader(store, query, csv=form.is_csv, raw=form is Form.CSV_RAW)
        self._form, self._packed = form, packed
        self._passing = packed and form not in (Form.JSON, Form.ENVELOPE)
        self._docs_bytes = step_bytes * (_PACKED_RATIO if self._passing else 1)
        self.size = self._reader.size

    def __iter__(self) -> Iterator[list[bytes]]:
        texts = [render.head(self._form)]
        empty = True
        for pieces in self._reader.pieces(self._docs_bytes):
            out, texts = self._rendered(texts, pieces)
            empty = False
            pieces.clear()  # beside a slow reader only what he has yet to take is kept
            yield _gathered(out)
        last = texts.pop() if texts else b""
        texts.append(render.end(last, self._form))
        # An encoded body holds one frame at least.
        yield self._encoded(texts) or ([compress(b"")] if self._packed and empty else [])

    def _rendered(self, texts: list[bytes], pieces: Sequence[Piece]) -> tuple[list[bytes], list[bytes]]:
        """What is sent of the texts that were held back and of a step, and what of them is held back."""
        out: list[bytes] = []
        for piece in pieces:
            if self._passing and piece.frames:
                out += self._encoded(texts)
                out += piece.frames
                texts = []
            else:
                texts += self._texts(piece)
        held = texts[-1:] if render.is_closed(self._form) else []  # the last part of all ends otherwise
        out += self._encoded(texts[: len(texts) - len(held)])
        return out, held

    def _texts(self, piece: Piece) -> Iterator[bytes]:
        if piece.docs:
            yield render.body(piece.docs, self._form)
        yield from decompress_all(piece.frames, render.line_end(self._form))

    def _encoded(self, texts: list[bytes]) -> list[bytes]:
        """Texts as they are sent."""
        if self._packed:
            text = b"".join(texts)
            return [compress(text)] if text else []
        return texts


class Entries:
    """The events with an index from `start` to before `end`, with what their commitments are made of.

    Made step by step while it is iterated, as lines of `render.entry_lines`. `end` is the size of the log
    when it is None; `size` is that size, and what has expired has an index below `expired`. Events that are
    gone are left out. With `packed` the bytes are zstd frames. Raises NotFound for what is beyond the log.
    """

    def __init__(self, store: AccountStore, start: int, end: int | None, *, packed: bool) -> None:
        with store.snapshot() as connection:
            self.size = store.size_in(connection)
            self.expired = store.expired_in(connection)
        end = self.size if end is None else end
        _check_sizes(start, end, self.size)
        self._steps = Recorded(store, Query(), start, end)
        self._packed = packed

    def __iter__(self) -> Iterator[list[bytes]]:
        empty = True
        for found in self._steps:
            text = render.entry_lines((stored.index, stored.doc, stored.stamp) for stored in found)
            if text:
                yield [compress(text) if self._packed else text]
                empty = False
        if empty and self._packed:
            yield [compress(b"")]  # an encoded body holds one frame at least


def _gathered(parts: list[bytes]) -> list[bytes]:
    """Small parts joined to such of about PART_BYTES; the list that is given is emptied."""
    gathered: list[bytes] = []
    waiting: list[bytes] = []
    size = 0
    parts.reverse()
    while parts:
        waiting.append(parts.pop())
        size += len(waiting[-1])
        if size >= PART_BYTES or not parts:
            gathered.append(b"".join(waiting))
            waiting, size = [], 0
    return gathered


def page(store: AccountStore, query: Query, limit: int) -> tuple[list[bytes], Cursor | None, int]:
    """Up to `limit` docs, where the next page goes on if there is one, and the size of the log shown.

    A page ends early when it would be larger than PAGE_BYTES_MAX.
    """
    read = reader.Reader(store, query)
    docs, position = read.page(limit, limits.PAGE_BYTES_MAX)
    return docs, None if position is None else Cursor(position, read.size), read.size


def get(store: AccountStore, event_id: str) -> bytes:
    """The doc of an event; raises NotFound, or Gone when it expired or was erased."""
    return stored(store, event_id).doc


def stored(store: AccountStore, event_id: str) -> Stored:
    """The event of an id, in any case of the letters; raises NotFound and Gone."""
    found = store.get(event_id.upper()) if ulid.is_ulid(event_id.upper()) else None
    if found is None:
        raise NotFound("There is no event of this id.")
    return found


def recorded_us(store: AccountStore, index: int) -> int | None:
    """When the event of an index was recorded, by the clock of that moment; None when it is gone."""
    for found in Recorded(store, Query(), index, index + 1):
        for event in found:
            return _at_us(event)
    return None


def count(store: AccountStore, query: Query) -> int:
    """How many events match a query."""
    return reader.count_matching(store, query)


# Proving.


@dataclass(frozen=True, slots=True)
class Proven:
    """An event, and what proves that it stands in the log of a signed checkpoint."""

    stored: Stored
    path: Sequence[bytes]
    signed: Signed


def checkpoint(store: AccountStore, key: SignerKey, clock: Clock, *, size_min: int = 0) -> Signed:
    """A checkpoint of what is committed, of at least `size_min` entries; stored before it is returned.

    A new one is signed when the log has grown and the last is older than CHECKPOINT_US, or by another key.
    Raises Damaged when the log does not hold any more what was signed, and Unconfirmed when it was restored
    and nobody confirmed that.
    """
    with store.snapshot() as connection:
        _check_confirmed(store, store.restored_in(connection))
        last = store.checkpoint_in(connection)
        size = store.size_in(connection)
        now = clock()
        if last is not None and _is_by(last, key):
            is_fresh = last.size >= size_min and 0 <= now - last.at_us < CHECKPOINT_US
            if last.size == size or is_fresh:
                return last
        nodes = Tree(store, connection).nodes(size)
        if last is not None and (last.size > size or merkle.root(last.size, nodes) != last.root):
            raise Damaged(
                f"{store.path} does not hold any more what its checkpoint of {last.size} entries signed; "
                "nothing more is signed. Keep the folder as it is, and find out what changed it."
            )
        root = merkle.root(size, nodes)
    note = sign_checkpoint(Checkpoint(key.name, size, root), [key])
    kept = store.keep_checkpoint(Signed(size, root, now, note))
    if kept.note == note or _is_by(kept, key):
        return kept
    # Another process was quicker, with the key that was in use a moment before or after.
    return checkpoint(store, key, clock, size_min=size_min)


def _check_confirmed(store: AccountStore, restored: Restored | None) -> None:
    if restored is not None:
        raise Unconfirmed(
            f"The log {store.path.stem} was restored at {format_us(restored.at_us)} from a backup of "
            f"{restored.size} events; nothing is signed until its operator confirms that it goes on from "
            "there, with auditplane log confirm --data DIR."
        )


def _is_by(signed: Signed, key: SignerKey) -> bool:
    try:
        open_note(signed.note, [key.verifier])
    except ProofError:
        return False
    return True


def proof(store: AccountStore, event_id: str, key: SignerKey, clock: Clock) -> Proven:
    """An event and its proof; raises NotFound and Gone."""
    found = stored(store, event_id)
    signed = checkpoint(store, key, clock, size_min=found.index + 1)
    with store.snapshot() as connection:
        nodes = Tree(store, connection).nodes(signed.size)
        return Proven(found, merkle.inclusion_path(found.index, signed.size, nodes), signed)


def consistency(store: AccountStore, old: int, new: int) -> list[bytes]:
    """What proves that the log of `new` entries begins with those of `old`; raises NotFound."""
    with store.snapshot() as connection:
        _check_sizes(old, new, store.size_in(connection))
        return merkle.consistency_path(old, new, Tree(store, connection).nodes(new))


def _check_sizes(old: int, new: int, size: int) -> None:
    if not old <= new <= size:
        raise NotFound(f"The log has {size} entries; `from` and `to` are up to that, in this order.")


def tile(store: AccountStore, wanted: Tile) -> bytes:
    """The hashes of a tile, or an entry bundle (C2SP tlog-tiles); raises NotFound."""
    with store.snapshot() as connection:
        if wanted.width > tile_width(wanted.level, wanted.n, store.size_in(connection)):
            raise NotFound("The log has no such tile yet.")
        packed = Tree(store, connection).tile(wanted)
    return entry_bundle(packed) if wanted.level == ENTRIES else packed
