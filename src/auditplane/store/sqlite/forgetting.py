"""What goes out of a log again: events that expired, a step at a time, and events that are erased.

Doc and stamp of such an event are destroyed, with all that it is found by. Its index and its entry stay, so
that every proof stays as it was. In the entries, GONE stands in place of its key.

To expire, an event is first hidden, by one number for all (see `shown`). A purge then destroys what is
hidden, in bounded transactions between which recording goes on; after a crash it goes on where it was. It
marks the entries last: until then, an event that is missing was one that had expired.
"""

import json
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Final, NamedTuple

import apsw

from auditplane import limits
from auditplane.errors import Conflict
from auditplane.event import decode_docs
from auditplane.merkle import root
from auditplane.store import Hold, Stored
from auditplane.store.sqlite import block, postings, sealing
from auditplane.store.sqlite.account import AccountStore, Transaction
from auditplane.store.sqlite.block import GONE, Header, Sealed
from auditplane.store.sqlite.database import fetch, one
from auditplane.store.sqlite.shown import Held, holds_in, shown_in, told_in
from auditplane.store.sqlite.statements import KEY_MAX, QUERIES
from auditplane.store.sqlite.tree import Tree
from auditplane.times import parse_rfc3339
from auditplane.ulid import CHARS as ULID_CHARS

if TYPE_CHECKING:
    from auditplane.store.sqlite import columns

TAIL_ROWS_AT_ONCE: Final = 2_048
BLOCKS_AT_ONCE: Final = 4
PIECES_AT_ONCE: Final = 4
ENTRIES_AT_ONCE: Final = 65_536
GIVEN_BACK_PART: Final = 4
MERGED_PAGES: Final = 16
MOVED_EVENTS_MAX: Final = 20_000
DROPPED_ROWS: Final = 512
# How far the room of the terms is given back; nothing was done yet is 0.
MERGING: Final = 1
DROPPING: Final = 2
GIVEN_BACK: Final = 3
ERASED_AT_ONCE: Final = 256

# Where the id stands in a doc.
_ID = slice(len(b'{"id":"'), len(b'{"id":"') + ULID_CHARS)


class Purge(NamedTuple):
    """A purge that is under way.

    It destroys what has expired with an index below `target`; `size` and `root` are those of the log when it
    began, `id` is that of the event that will tell of it. `tail_key`, `block_id`, `piece_id`, `marked` and
    `giving_back` say how far it came in the tail, in the blocks, in the pieces of columns, in the entries and
    in giving back the room of terms.
    `destroyed`, `low` and `high` are the number of the events that it destroyed and the bounds of their keys.
    """

    id: str
    target: int
    size: int
    root: bytes
    tail_key: int
    block_id: int
    piece_id: int
    marked: int
    destroyed: int
    low: int
    high: int
    giving_back: int

    @property
    def is_done(self) -> bool:
        """Whether all is destroyed, and only its event and its end are due."""
        return self.marked >= self.target and self.giving_back == GIVEN_BACK


def note_told(transaction: Transaction) -> None:
    """Keeps the event that was added last, which says why others are gone, from expiring."""
    fetch(transaction.connection, QUERIES["add_told"], (transaction.state.size - 1,))


# Retention and holds.


def retention_days(store: AccountStore) -> int | None:
    """How many days the events of the account are kept, 0 for ever; None as the server is set."""
    with store.snapshot() as connection:
        days: int | None = one(connection, QUERIES["retention_days"])
        return days


def set_retention_days(transaction: Transaction, days: int | None) -> None:
    """Sets how many days the events of the account are kept."""
    fetch(transaction.connection, QUERIES["set_retention_days"], (days,))


def holds(store: AccountStore) -> Sequence[Hold]:
    """The holds that are in force, oldest first."""
    with store.snapshot() as connection:
        return holds_in(connection)


def add_hold(transaction: Transaction, hold: Hold) -> None:
    """Puts a hold in force: what it covers and is still stored is kept. Raises Conflict beyond HOLDS_MAX."""
    if len(holds_in(transaction.connection)) >= limits.HOLDS_MAX:
        raise Conflict(f"{limits.HOLDS_MAX:,} holds are in force, which is the most; lift some.")
    fetch(transaction.connection, QUERIES["add_hold"], hold)


def drop_hold(transaction: Transaction, hold_id: str) -> None:
    """Lifts a hold: what it kept of what has expired is hidden at once, and purged the next time."""
    for query in ("purge_all_again", "purge_again"):
        fetch(transaction.connection, QUERIES[query])
    fetch(transaction.connection, QUERIES["drop_hold"], (hold_id,))


# Expiry.


def expire(store: AccountStore, before_us: int) -> int | None:
    """Hides the events that were committed before `before_us`.

    Returns when the oldest of those that are left was committed; None when there is none.
    """
    with store.snapshot() as connection:
        size, _, expired, _ = fetch(connection, QUERIES["shown"])[0]
        first, left_us = _first_since(store, connection, before_us, expired, size)
        if first == expired:
            return left_us
        high = max(max(keys) for _, keys in _entries(connection, expired, first))
    with store.maintenance() as connection:
        fetch(connection, QUERIES["set_expired"], (first, high))
    return left_us


def count_expiring(store: AccountStore, before_us: int) -> int:
    """How many entries more would be hidden if what was committed before a moment expired.

    Some of them may be gone already, and holds keep some.
    """
    with store.snapshot() as connection:
        size, _, expired, _ = fetch(connection, QUERIES["shown"])[0]
        return _first_since(store, connection, before_us, expired, size)[0] - int(expired)


def _first_since(
    store: AccountStore, connection: apsw.Connection, us: int, start: int, size: int
) -> tuple[int, int | None]:
    """The first index from `start` on that was committed at `us` or later, and when; `size` for none."""
    low, low_us = start, _commit_us(store, connection, start, size)
    step = 1
    while low_us is not None and low_us < us:  # galloping: most often there are few
        start, low = low + 1, low + step
        step *= 2
        low_us = _commit_us(store, connection, low, size)
    while start < low:
        middle = (start + low) // 2
        middle_us = _commit_us(store, connection, middle, size)
        if middle_us is not None and middle_us < us:
            start = middle + 1
        else:
            low, low_us = middle, middle_us
    return min(low, size), low_us


def _commit_us(store: AccountStore, connection: apsw.Connection, index: int, size: int) -> int | None:
    """When the first event from an index on that is not gone was committed; None when there is none."""
    stored = next(_stored(store, connection, index, size), None)
    return None if stored is None else parse_rfc3339(json.loads(stored.stamp)["at"])


def _stored(store: AccountStore, connection: apsw.Connection, start: int, end: int) -> Iterator[Stored]:
    """The events with an index from `start` to before `end` that are not gone, shown or not."""
    for first, keys in _entries(connection, start, end):
        for at, key in enumerate(keys, first):
            stored = None if key == GONE else store.at(connection, key)
            if stored is not None and stored.index == at:
                yield stored


def _entries(connection: apsw.Connection, start: int, end: int) -> Iterator[tuple[int, Sequence[int]]]:
    """The keys of the entries from `start` to before `end`: some of them, after the index of the first."""
    while start < end:
        rows = fetch(connection, QUERIES["entries_from"], (start, 16))
        for first, count, packed in rows:
            keys = block.unpack_numbers(packed)[start - first : end - first]
            yield start, keys
            start = first + count
            if start >= end:
                return
        if not rows:
            return


# Purges.


def is_waiting(store: AccountStore) -> bool:
    """Whether there may be something to destroy."""
    with store.snapshot() as connection:
        return shown_in(connection).hides


def purge_in(connection: apsw.Connection) -> Purge | None:
    """The purge that is under way in a view."""
    rows = fetch(connection, QUERIES["purge"])
    return Purge(*rows[0]) if rows else None


def purge_under_way(store: AccountStore) -> Purge | None:
    """The purge that is under way."""
    with store.snapshot() as connection:
        return purge_in(connection)


def begin_purge(store: AccountStore, event_id: str) -> None:
    """Begins to destroy what has expired, unless that is under way, or nothing has."""
    with store.snapshot() as connection:
        shown = shown_in(connection)
        if not shown.hides:
            return
        log_root = root(shown.size, Tree(store, connection).nodes(shown.size))
    with store.maintenance() as connection:
        if purge_in(connection) is None:
            fetch(
                connection,
                QUERIES["begin_purge"],
                (event_id, shown.expired, shown.size, log_root, shown.purged),
            )


def go_on(store: AccountStore) -> None:
    """One bounded step of the purge that is under way; a step that something came between is done again."""
    with store.snapshot() as connection:
        purge = purge_in(connection)
        if purge is None or purge.is_done:
            return
        holds = holds_in(connection)
        step: _Step | None
        if purge.tail_key < KEY_MAX:
            step = _tail_step(connection, purge, holds)
        elif purge.block_id < KEY_MAX:
            step = _block_step(store, connection, purge, holds)
        elif purge.piece_id < KEY_MAX:
            step = _piece_step(connection, purge)
        elif purge.marked < purge.target:
            step = _marking_step(store, connection, purge)
        else:
            step = None
    if step is None:
        _give_back_terms(store, purge)
        return
    with suppress(sealing.Overtaken), store.maintenance() as connection:
        if purge_in(connection) != purge or holds_in(connection) != holds:
            raise sealing.Overtaken
        mark(connection, step.marked, step.left)
        destroy(connection, step.in_tail, step.cuts)
        _sweep(connection, step)
        keys = [stored.key for stored in step.destroyed]
        progress = (step.tail_key, step.block_id, step.piece_id, step.marked.stop, len(keys))
        fetch(
            connection,
            QUERIES["purge_went_on"],
            (*progress, min(keys, default=KEY_MAX), max(keys, default=-1)),
        )


def _give_back_terms(store: AccountStore, purge: Purge) -> None:
    """A step of giving back the room of deleted terms, which FTS5 keeps until it merges them.

    After small purges that is left to what it does by itself as more is recorded. A step of merging is
    bounded by what it writes: where hardly anything is left to write, the few terms go to a new table.
    """
    if purge.giving_back == DROPPING:
        _drop_old_terms(store)
        return
    with store.snapshot() as connection:
        live = one(connection, QUERIES["live"])
    if purge.destroyed * GIVEN_BACK_PART < live:
        _set_giving_back(store, GIVEN_BACK)
    elif live <= MOVED_EVENTS_MAX:
        _move_terms(store)
    else:
        _merge_terms(store, purge)


def _merge_terms(store: AccountStore, purge: Purge) -> None:
    with store.maintenance() as connection:
        changes = connection.total_changes()
        # Negative: all segments are to become one (SQLite FTS5, "The 'merge' Command").
        pages = MERGED_PAGES if purge.giving_back == MERGING else -MERGED_PAGES
        fetch(connection, QUERIES["merge_terms"], (pages,))
        ended = connection.total_changes() - changes < 2
        fetch(connection, QUERIES["set_giving_back"], (GIVEN_BACK if ended else MERGING,))


def _move_terms(store: AccountStore) -> None:
    """Puts a new table in place of that of the terms, with those of the sealed events that there are."""
    with store.snapshot() as connection:
        ids = fetch(connection, QUERIES["block_ids"])
        headers = fetch(connection, QUERIES["blocks_to_purge"], (0, KEY_MAX, KEY_MAX))
        rows: list[tuple[int, str]] = []
        for header in headers:
            events = sealing.events_of(store, connection, Header(*header))
            tokens = map(store.terms.of_event, decode_docs([event.doc for event in events]))
            rows += zip(postings.rowids([event.key for event in events]), tokens, strict=True)
    with suppress(sealing.Overtaken), store.maintenance() as connection:
        if fetch(connection, QUERIES["block_ids"]) != ids:
            raise sealing.Overtaken
        fetch(connection, QUERIES["set_terms_aside"])
        fetch(connection, QUERIES["make_terms"])
        connection.executemany(QUERIES["add_term"], rows)
        fetch(connection, QUERIES["set_giving_back"], (DROPPING,))


def _drop_old_terms(store: AccountStore) -> None:
    """Drops some of the table that was put aside; all of it at once would take long."""
    with store.maintenance() as connection:
        changes = connection.total_changes()
        fetch(connection, QUERIES["drop_some_old_terms"], (DROPPED_ROWS,))
        if connection.total_changes() == changes:
            fetch(connection, QUERIES["drop_old_terms"])
            fetch(connection, QUERIES["set_giving_back"], (GIVEN_BACK,))


def _set_giving_back(store: AccountStore, state: int) -> None:
    with store.maintenance() as connection:
        fetch(connection, QUERIES["set_giving_back"], (state,))


def end_purge(store: AccountStore, purge: Purge) -> None:
    """Ends a purge that is done, and was told of. The write-ahead log is emptied by upkeep."""
    with store.maintenance() as connection:
        if purge_in(connection) == purge:
            fetch(connection, QUERIES["set_wal_due"], (1,))
            fetch(connection, QUERIES["set_purged"], (purge.target, purge.high))
            fetch(connection, QUERIES["end_purge"])


@dataclass(frozen=True, slots=True)
class Cut:
    """A block without some of its events, `destroyed`, which `blocks` take the place of.

    `terms` are the rows and the tokens of what is destroyed; `words` those of the block, `new_words` those of
    each that takes its place.
    """

    header: Header
    destroyed: Sequence[Stored]
    blocks: Sequence[Sealed]
    terms: Sequence[tuple[int, str]]
    words: str
    new_words: Sequence[str]


@dataclass(frozen=True, slots=True)
class _Step:
    """What a step of a purge does, and how far it comes.

    It destroys events in the tail and in blocks, takes what was destroyed in blocks out of a piece, and marks
    the entries `marked` but for those in `left`.
    """

    tail_key: int
    block_id: int
    piece_id: int
    marked: range
    in_tail: Sequence[Stored] = ()
    cuts: Sequence[Cut] = ()
    piece: "columns.Cut | None" = None
    left: Collection[int] = ()

    @property
    def destroyed(self) -> list[Stored]:
        return [*self.in_tail, *chain.from_iterable(cut.destroyed for cut in self.cuts)]


def _tail_step(connection: apsw.Connection, purge: Purge, holds: Sequence[Hold]) -> _Step:
    bindings = (purge.tail_key, purge.target, TAIL_ROWS_AT_ONCE)
    rows = [Stored(*row) for row in fetch(connection, QUERIES["tail_to_purge"], bindings)]
    return _Step(
        tail_key=rows[-1].key if rows else KEY_MAX,
        block_id=purge.block_id,
        piece_id=purge.piece_id,
        marked=range(purge.marked, purge.marked),
        in_tail=_doomed(connection, rows, holds),
    )


def _block_step(
    store: AccountStore, connection: apsw.Connection, purge: Purge, holds: Sequence[Hold]
) -> _Step:
    bindings = (purge.block_id, purge.target, BLOCKS_AT_ONCE)
    headers = [Header(*row) for row in fetch(connection, QUERIES["blocks_to_purge"], bindings)]
    cuts = []
    for header in headers:
        events = sealing.events_of(store, connection, header)
        expired = [event for event in events if event.index < purge.target]
        doomed = {event.key for event in _doomed(connection, expired, holds)}
        if doomed:
            cuts.append(cut(store, header, events, doomed))
    return _Step(
        tail_key=purge.tail_key,
        block_id=headers[-1].id if headers else KEY_MAX,
        piece_id=purge.piece_id,
        marked=range(purge.marked, purge.marked),
        cuts=cuts,
    )


def _piece_step(connection: apsw.Connection, purge: Purge) -> _Step:
    from auditplane.store.sqlite import columns

    header, piece = columns.swept(connection, purge.piece_id, purge.target)
    return _Step(
        tail_key=purge.tail_key,
        block_id=purge.block_id,
        piece_id=KEY_MAX if header is None else header.id,
        marked=range(purge.marked, purge.marked),
        piece=piece,
    )


def _sweep(connection: apsw.Connection, step: _Step) -> None:
    """Notes what a step destroyed in blocks, or takes it out of a piece, or forgets it in the end."""
    from auditplane.store.sqlite import columns

    columns.note_destroyed(connection, [event.index for each in step.cuts for event in each.destroyed])
    if step.piece is not None:
        columns.replace(connection, step.piece)
    if step.block_id == step.piece_id == KEY_MAX:
        fetch(connection, QUERIES["drop_destroyed"])


def _marking_step(store: AccountStore, connection: apsw.Connection, purge: Purge) -> _Step:
    marked = range(purge.marked, min(purge.target, purge.marked + ENTRIES_AT_ONCE))
    bounds = (marked.start, marked.stop)
    left = {row[0] for row in fetch(connection, QUERIES["left_in_tail"], bounds)}
    for (block_id,) in fetch(connection, QUERIES["left_in_blocks"], bounds):
        left.update(block.unpack_numbers(store.data(connection, "block_indexes", block_id)))
    return _Step(purge.tail_key, purge.block_id, purge.piece_id, marked=marked, left=left)


def _doomed(connection: apsw.Connection, events: Sequence[Stored], holds: Sequence[Hold]) -> Sequence[Stored]:
    """Those of some events that have expired which nothing keeps."""
    indexes = [event.index for event in events]
    told = told_in(connection, min(indexes, default=0), max(indexes, default=-1) + 1)
    if told:
        events = [event for event in events if event.index not in told]
    if not holds:
        return events
    decoded = decode_docs([event.doc for event in events])
    held = Held(holds)
    return [stored for stored, event in zip(events, decoded, strict=True) if not held.keeps(event)]


# What purges and erasures have in common.


def cut(store: AccountStore, header: Header, events: Sequence[Stored], doomed: Collection[int]) -> Cut:
    """A block, of which `events` are all, without those of some keys."""
    destroyed = [event for event in events if event.key in doomed]
    kept = [event for event in events if event.key not in doomed]
    blocks = block.cut(kept) if kept else []
    tokens = map(store.terms.of_event, decode_docs([event.doc for event in destroyed]))
    return Cut(
        header,
        destroyed,
        blocks,
        list(zip(postings.rowids([event.key for event in destroyed]), tokens, strict=True)),
        sealing.words_of(store, decode_docs([event.doc for event in events])),
        [sealing.words_of(store, sealed.events) for sealed in blocks],
    )


def destroy(connection: apsw.Connection, in_tail: Sequence[Stored], cuts: Sequence[Cut]) -> None:
    """Destroys events in a transaction; raises `Overtaken` when they are not where they were."""
    changes = connection.total_changes()
    connection.executemany(QUERIES["drop_tail"], [(event.key, event.index) for event in in_tail])
    if connection.total_changes() - changes != len(in_tail):
        raise sealing.Overtaken
    destroyed = [*in_tail, *chain.from_iterable(each.destroyed for each in cuts)]
    if fetch(connection, QUERIES["has_given"]):
        ids = [(event.doc[_ID], event.key) for event in destroyed]
        connection.executemany(QUERIES["drop_given"], ids)
    fetch(connection, QUERIES["add_live"], (-len(destroyed),))
    fetch(connection, QUERIES["set_sealed"], (len(in_tail), False))
    new_words: list[tuple[int, str]] = []
    for each in cuts:
        sealing.drop_block(connection, each.header)
        ids_of_new = [sealing.add_block(connection, sealed, each.header.run) for sealed in each.blocks]
        new_words += zip(ids_of_new, each.new_words, strict=True)
    connection.executemany(QUERIES["drop_word"], [(each.header.id, each.words) for each in cuts])
    connection.executemany(QUERIES["add_word"], new_words)
    connection.executemany(QUERIES["drop_term"], list(chain.from_iterable(each.terms for each in cuts)))


def mark(connection: apsw.Connection, indexes: range, left: Collection[int] = ()) -> None:
    """Puts GONE in place of the keys of some entries, but for those in `left`."""
    at = indexes.start
    while at < indexes.stop:
        first, packed = fetch(connection, QUERIES["entry_row"], (at,))[0]
        keys = block.unpack_numbers(packed)
        gone = [index for index in range(at, min(indexes.stop, first + len(keys))) if index not in left]
        for index in gone:
            keys[index - first] = GONE
        if gone:
            fetch(connection, QUERIES["set_entry_keys"], (first, block.pack_numbers(keys)))
        at = first + len(keys)
    fetch(connection, QUERIES["count_marking"])


# Erasure.


def erase(
    store: AccountStore, transaction: Transaction, events: Sequence[Stored], at_us: int, reason: str
) -> Sequence[Stored]:
    """Destroys some of the first of some events, in as many blocks as others can wait for; returns which.

    Their ids are kept with the reason. Nothing of them is left in the pages of the database; the write-ahead
    log holds them until it is emptied, which is due then.
    """
    from auditplane.store.sqlite import columns

    connection = transaction.connection
    piece_of = columns.holding(connection, [event.index for event in events[:ERASED_AT_ONCE]])
    pieces: dict[int, columns.Header] = {}
    in_tail: list[Stored] = []
    by_block: dict[int, tuple[Header, set[int]]] = {}
    erased: list[Stored] = []
    for event in events[:ERASED_AT_ONCE]:
        header = _block_of(store, connection, event)
        if header is None:
            in_tail.append(event)
        elif (header.id in by_block or len(by_block) < BLOCKS_AT_ONCE) and (
            piece_of[event.index].id in pieces or len(pieces) < PIECES_AT_ONCE
        ):
            by_block.setdefault(header.id, (header, set()))[1].add(event.key)
            pieces[piece_of[event.index].id] = piece_of[event.index]
        else:
            continue  # neighbours in time may stand in as many blocks as there are runs, and more pieces
        erased.append(event)
    cuts = [
        cut(store, header, sealing.events_of(store, connection, header), keys)
        for header, keys in by_block.values()
    ]
    _delete_securely(connection, yes=True)
    destroy(connection, in_tail, cuts)
    columns.erase(connection, pieces.values(), [event.index for event in erased])
    _delete_securely(connection, yes=False)
    fetch(connection, QUERIES["set_wal_due"], (1,))
    rows = [(event.doc[_ID], event.index, at_us, reason) for event in erased]
    connection.executemany(QUERIES["add_erased"], rows)
    _mark_each(connection, sorted(event.index for event in erased))
    return erased


def _mark_each(connection: apsw.Connection, indexes: Sequence[int]) -> None:
    """Puts GONE in place of the keys of the entries of some indexes, ascending: each row of them once."""
    at = 0
    while at < len(indexes):
        first, packed = fetch(connection, QUERIES["entry_row"], (indexes[at],))[0]
        keys = block.unpack_numbers(packed)
        while at < len(indexes) and indexes[at] < first + len(keys):
            keys[indexes[at] - first] = GONE
            at += 1
        fetch(connection, QUERIES["set_entry_keys"], (first, block.pack_numbers(keys)))
    fetch(connection, QUERIES["count_marking"])


def _delete_securely(connection: apsw.Connection, *, yes: bool) -> None:
    """Has FTS5 take deleted rows out of its pages at once; that takes too long for all that expires."""
    fetch(connection, QUERIES["delete_terms_securely"], (int(yes),))
    fetch(connection, QUERIES["delete_words_securely"], (int(yes),))


def _block_of(store: AccountStore, connection: apsw.Connection, event: Stored) -> Header | None:
    """The block of a stored event; None when it is in the tail."""
    for index, _, _ in fetch(connection, QUERIES["tail_at"], (event.key,)):
        if index == event.index:
            return None
    for header in store.straddling(connection, event.key):
        if block.line_of(store.block_keys(connection, header.id), event.key) is not None:
            return header
    raise store.lacks(f"the event {event.index}")
