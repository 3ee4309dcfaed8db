"""The contract of the engine (see the docstring of `auditplane.store`), held against a naive model.

Each round records, seals, compacts, repacks, reopens and reads in a random order, with constants so small
that a few events meet every edge. SQLite is real throughout. A round is made anew from its number:
`pytest tests/test_engine.py -k "round[17]"`; AUDITPLANE_ROUNDS=2000 looks harder.
"""

import os
import random
import re
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any, Final

import pytest

from auditplane import keeping, log, overview
from auditplane.errors import Conflict
from auditplane.query import Cursor, Order, Query, fold
from auditplane.render import Form
from auditplane.store import Member, Piece
from auditplane.store.sqlite import forgetting, reader, sealing
from auditplane.store.sqlite.account import AccountStore
from auditplane.store.sqlite.database import fetch
from auditplane.store.sqlite.recorded import Recorded
from auditplane.store.sqlite.statements import QUERIES
from auditplane.times import format_us
from engine_model import (
    NEAR_US,
    START_US,
    Kept,
    Model,
    Spec,
    memory_folder,
    opened,
    rendered,
    shrink,
    spec,
    unpacked,
)
from engine_model import walk as pages_of

ROUNDS: Final = int(os.environ.get("AUDITPLANE_ROUNDS", "60"))
STEPS: Final = 60

USERS: Final = ("ann@example.com", "Ann@Example.COM", "bob", "Zoë", "ZOË", "=cmd|' /C calc'!A0")
CONFIGURATIONS: Final = ("gw", "gw:1", "gw:2", "gw:2:3", "other:1", ":")
NAMES: Final = ("otlp", "otlp two", 'naïve, "quoted"', "-1\n+2", "Straße")
DESCRIPTIONS: Final = (
    "plain words",
    "Words, PLAIN\tand more",
    "ＷＯＲＤＳ words2",
    "\u0303combined",
    "'quoted'",
)
WORDS: Final = ("plain", "words", "otlp", "gw", "two", "strasse", "ann", "combined", "2")
KINDS: Final = ("Source", "Agent", "APIKey")
ACTIONS: Final = ("Created", "Deleted")
DETAILS: Final = ({"a": 1}, {"b": [None, 'c,"d"']})
FOREIGN_IDS: Final = tuple(f"01ARZ3NDEKTSV4RRFFQ69G5F{at:02d}" for at in range(30))

CONSTANTS: Final[dict[str, Sequence[int]]] = {
    "SEAL_EVENTS": range(1, 16),
    "SEAL_BYTES": (1_000, 10**6, 10**6),
    "TAIL_KEPT_EVENTS": range(8),
    "RUNS_MAX": range(1, 4),
    "MERGE_BLOCKS_MAX": range(1, 4),
    "TILE_ENTRIES": range(1, 5),
    "REPACK_ENTRIES": range(4, 20),
    "REPACK_ROWS_MAX": range(4, 10),
    "REPACK_BYTES": (128, 10**6),
    "BLOCK_EVENTS": range(1, 9),
    "BLOCK_BYTES": (600, 10**6, 10**6),
    "FRAME_EVENTS": range(1, 4),
    "TAIL_ROWS_MAX": range(1, 9),
    "BLOCKS_MAX": range(1, 5),
    "CANDIDATE_BLOCKS_FIRST": (1, 2),
    "CANDIDATE_BLOCKS_MAX": range(1, 5),
    "STEP_BYTES": (1, 1_000, 3_000, 10**6),
    "TERM_KEYS_MIN": range(1, 5),
    "TERM_KEYS_MAX": range(4, 9),
    "FEW_MATCHES": (0, 1, 5, 50),
    "FEW_BLOCKS": (0, 1, 3, 256),
    "ENTRY_ROWS_MAX": range(2, 5),
    "KEYS_AT_ONCE": range(1, 9),
    "LOADED_BYTES_MAX": (1, 1_000, 10**6),
    "NARROW_COUNTERS": (1, 2, 8),
    "ONE_BY_ONE_MAX": (0, 3, 500),
    "INDEXED_EVENTS_MAX": (0, 20, 500, 500),
    "SCANNED_AT_ONCE": range(1, 9),
    "DOC_BYTES_TYPICAL": (1, 256),
    "BLOCK_KEYS_CACHED_MAX": range(1, 5),
    "FULL_KEPT_MAX": (0, 1, 100),
    "CHUNK_BYTES": (1, 500, 2_000, 10_000),
    "COUNTERS": (1, 2, 4, 2_048),
    "TAIL_ROWS_AT_ONCE": range(1, 6),
    "BLOCKS_AT_ONCE": (1, 2, 4),
    "ENTRIES_AT_ONCE": range(1, 9),
    "ERASED_AT_ONCE": range(1, 6),
    "GIVEN_BACK_PART": (0, 4, 1_000),
    "MOVED_EVENTS_MAX": (0, 10, 20_000),
    "MERGED_PAGES": (1, 16),
    "DROPPED_ROWS": (1, 512),
    "ERASED_PAGE_EVENTS": range(1, 9),
    "JOINED_PIECES": (2, 3, 16),
    "PIECE_EVENTS": range(2, 40),
    "PIECES_AT_ONCE": (1, 2, 4),
    "NAMES_MAX": (0, 2, 1_000),
    "SAMPLE_EVENTS": (1, 5, 1_000),
    "VALUES_COUNTED_MAX": (0, 2, 4, 100_000, 100_000),
    "CELLS_KEPT_MAX": (0, 5, 200_000),
    "MERGED_AT_ONCE": (0, 10, 65_536),
    "TEXTS_AT_ONCE": (1, 2, 1_000),
}


@dataclass
class Stream:
    """A long answer under way."""

    query: Query
    form: Form
    packed: bool
    size: int
    steps: Iterator[list[bytes]]
    steady: list[Kept] | None = None
    got: bytes = b""


@dataclass
class Walk:
    """A walk by cursors under way."""

    query: Query
    limit: int
    size: int
    docs: list[bytes]
    cursor: Cursor | None
    steady: list[Kept] | None = None


class Round:
    """The engine and its model side by side."""

    def __init__(self, number: int, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.random = random.Random(number)
        shrink(patch, **{name: self.random.choice(values) for name, values in CONSTANTS.items()})
        self.path = folder / "default.db"
        self.stores = [AccountStore(self.path)]
        self.model = Model()
        self.now = START_US
        self.spread_us = self.random.choice([3, 40, 10**9])
        self.forgets = number % 2 == 1
        self.given_share = self.random.choice([0.1, 0.5, 0.9])
        self.streams: list[Stream] = []
        self.walks: list[Walk] = []

    @property
    def store(self) -> AccountStore:
        return self.stores[-1]

    def play(self) -> None:
        """Some random steps, and then all that was begun to its end."""
        steps: dict[Callable[[], None], int] = {
            self.record: 30,
            self.record_again: 4,
            self.seal: 6,
            self.seal_everything: 2,
            self.compact: 8,
            self.repack: 3,
            self.tend: 3,
            self.settle: 1,
            self.checkpoint: 2,
            self.restart: 2,
            self.answer: 15,
            self.pages: 10,
            self.count: 6,
            self.look: 8,
            self.suggest: 3,
            self.join: 3,
            self.begin_stream: 5,
            self.begin_walk: 5,
        }
        if self.forgets:
            steps |= {
                self.expire: 4,
                self.purge: 12,
                self.purge_all: 2,
                self.hold: 2,
                self.lift: 2,
                self.erase: 3,
                self.erase_user: 1,
                self.walk_recorded: 4,
            }
        for step in self.random.choices(list(steps), list(steps.values()), k=STEPS):
            step()
            self.go_on()
        self.finish()

    def finish(self) -> None:
        while self.streams or self.walks:
            self.go_on()
        if self.forgets:
            self.purge_all()
        for order in Order:
            self.model.check_answer(self.store, Query(order=order), Form.NDJSON, packed=True)
        self.model.check_log(self.store)
        self.model.check_store(self.store)

    def close(self) -> None:
        for store in self.stores:
            store.close()

    # Recording.

    def record(self) -> None:
        """Some requests in one commit, with the clock moved on or back."""
        self.now += self.random.choice([0, 0, 1, 7, 100, 10_000, -1, -50])
        requests = [
            [self.spec() for _ in range(self.random.randint(1, 7))] for _ in range(self.random.randint(1, 3))
        ]
        self.model.record(self.store, requests, self.now)

    def spec(self) -> Spec:
        choice = self.random.choice
        given: Spec = {
            "resourceName": choice(NAMES),
            "resourceKind": choice(KINDS),
            "action": choice(ACTIONS),
            "user": choice(USERS),
        }
        optional: dict[str, tuple[float, Callable[[], Any]]] = {
            "configuration": (0.6, lambda: choice(CONFIGURATIONS)),
            "description": (0.4, lambda: choice(DESCRIPTIONS)),
            "details": (0.2, lambda: choice(DETAILS)),
            "timestamp": (self.given_share, lambda: format_us(self.now + self.offset())),
            "id": (0.1, lambda: choice(FOREIGN_IDS)),
        }
        return given | {
            name: make() for name, (share, make) in optional.items() if self.random.random() < share
        }

    def offset(self) -> int:
        """Where a given timestamp lies: mostly before the clock, sometimes just after it, or too far."""
        choice = self.random.random()
        if choice < 0.02:
            return NEAR_US + self.random.randint(0, 1)
        return self.random.randint(-1, 5) if choice < 0.2 else -self.random.randint(0, self.spread_us)

    def record_again(self) -> None:
        """An event sent a second time, as it was given or as it is shown, with the same content or other."""
        if not self.model.kept:
            return
        again = self.random.choice(self.model.kept)
        given = self.random.choice([again.given, again.shown()])
        other = self.random.choice([{}, {}, {"user": "someone else"}, {"timestamp": format_us(1)}])
        self.model.record(self.store, [[{**given, "id": again.event.id, **other}, self.spec()]], self.now)

    # Upkeep.

    def seal(self) -> None:
        sealing.seal(self.store)

    def seal_everything(self) -> None:
        while sealing.seal(self.store, everything=True):
            pass

    def compact(self) -> None:
        sealing.compact(self.store)

    def join(self) -> None:
        sealing.join(self.store)

    def repack(self) -> None:
        sealing.repack(self.store)

    def tend(self) -> None:
        sealing.tend(self.store)

    def settle(self) -> None:
        sealing.settle(self.store)

    def checkpoint(self) -> None:
        self.store.checkpoint(whole=self.random.random() < 0.5)

    def restart(self) -> None:
        """Opens the folder anew. While answers are under way they keep the store that they began with."""
        if not self.streams:
            self.stores.pop().close()
        self.stores.append(AccountStore(self.path))

    # Forgetting.

    @property
    def account(self) -> keeping.Account:
        return keeping.Account("default", self.store, lambda: self.now, "eve")

    def disturb(self) -> None:
        """What is under way may or may not show what went meanwhile; what is shown all the time it must."""
        under_way: list[Stream | Walk] = [*self.streams, *self.walks]
        for reading in under_way:
            steady = self.model.kept[: reading.size] if reading.steady is None else reading.steady
            reading.steady = [kept for kept in steady if self.model.is_shown(kept)]

    def expire(self) -> None:
        self.disturb()
        self.model.expire(self.store, self.now - self.random.choice([0, 1, 50, 10_000, 30_000]))
        self.disturb()

    def purge(self) -> None:
        keeping.purge(self.account, may_begin=self.random.random() < 0.5)
        self.model.follow_purge(self.store)
        self.model.follow(self.store, self.now)

    def purge_all(self) -> None:
        while keeping.purge(self.account, may_begin=True):
            self.model.follow_purge(self.store)
            self.model.follow(self.store, self.now)
        if not forgetting.is_waiting(self.store):
            self.model.check_purged(self.store)

    def hold(self) -> None:
        self.disturb()
        user, low, high = self.random.choice([None, *USERS]), self.date(), self.date()
        if low is not None and high is not None:
            low, high = sorted((low, high))
        hold = keeping.place_hold(self.account, reason="a case", user=user, min_us=low, max_us=high)
        self.model.holds.append(hold)
        self.model.follow(self.store, self.now)

    def lift(self) -> None:
        if self.model.holds:
            self.disturb()
            hold = self.model.holds.pop(self.random.randrange(len(self.model.holds)))
            keeping.lift_hold(self.account, hold.id)
            self.disturb()
            self.model.follow(self.store, self.now)

    def erase(self) -> None:
        shown = [kept for kept in self.model.kept if self.model.is_shown(kept)]
        self.erase_some(self.random.sample(shown, min(len(shown), self.random.randint(1, 6))), None)

    def erase_user(self) -> None:
        user = self.random.choice(USERS)
        shown = [kept for kept in self.model.kept if self.model.is_shown(kept)]
        self.erase_some([kept for kept in shown if fold(kept.event.user) == fold(user)], user)

    def erase_some(self, wanted: Sequence[Kept], user: str | None) -> None:
        self.disturb()
        ids = [kept.event.id or "" for kept in wanted]
        try:
            erased = (
                keeping.erase(self.account, ids, reason="asked")
                if user is None
                else keeping.erase_user(self.account, user, reason="asked")
            )
        except Conflict:
            assert any(map(self.is_kept, wanted))
        else:
            assert erased == len(wanted)
            assert not any(map(self.is_kept, wanted))
            for kept in wanted:
                self.model.take_erased(kept)
            if user is not None:  # what has expired goes with them
                self.model.follow_purge(self.store)
        self.disturb()
        self.model.follow(self.store, self.now)

    def is_kept(self, kept: Kept) -> bool:
        """Whether an event can't be erased: a hold covers it, or it is the server's own."""
        return self.model.is_held(kept) or kept.event.resourceKind == "AuditTrail"

    def walk_recorded(self) -> None:
        """Events with their stamps, in commit order."""
        query = replace(self.query(), order=Order.RECORDED, after=None)
        start = self.random.randint(0, self.model.size)
        steps = list(Recorded(self.store, query, start, self.model.size))
        expected = self.model.docs(replace(query, after=start - 1))
        assert [stored.doc for step in steps for stored in step] == expected

    # Reading.

    def query(self) -> Query:
        order = self.random.choice(list(Order))
        low, high = self.date(), self.date()
        if low is not None and high is not None and low > high:
            low, high = high, low
        return Query(
            configurations=self.some((*CONFIGURATIONS, "nowhere"), 0.2),
            users=tuple(dict.fromkeys(map(fold, self.some((*USERS, "ANN@EXAMPLE.COM"), 0.2)))),
            actions=self.some((*ACTIONS, "created"), 0.2),
            kinds=self.some(KINDS, 0.2),
            names=self.some(NAMES, 0.2),
            words=tuple(filter(None, (self.some(WORDS, 0.3), self.some((*WORDS, "nowhere"), 0.2)))),
            min_us=low,
            max_us=high,
            order=order,
            after=self.random.choice([None, -1, 0, 3, 20, 10**18]) if order is Order.RECORDED else None,
        )

    def some(self, values: Sequence[str], share: float) -> tuple[str, ...]:
        if self.random.random() > share:
            return ()
        return tuple(self.random.sample(values, self.random.choice([1, 1, 1, 2, 3])))

    def date(self) -> int | None:
        """A bound at or beside the timestamp of an event, beyond all of them, or none."""
        if self.random.random() < 0.6:
            return None
        if self.model.kept and self.random.random() < 0.9:
            return self.random.choice(self.model.kept).us + self.random.randint(-1, 1)
        return self.random.choice([-1, 0, 10**15, 10**16, 2 * 10**17])

    def answer(self) -> None:
        query = self.query()
        for form in self.random.sample(list(Form), 2):
            self.model.check_answer(self.store, query, form, packed=self.random.random() < 0.5)

    def pages(self) -> None:
        self.model.check_pages(self.store, self.query(), self.random.choice([1, 2, 3, 7, 40, 10_000]))

    def count(self) -> None:
        self.model.check_count(self.store, self.query())

    def look(self) -> None:
        query = self.query()
        if self.random.random() < 0.6:
            query = replace(query, names=(), words=())
        stacked = self.random.choice(overview.TOPS)
        self.model.check_overview(self.store, query, stacked, self.random.choice([1, 2, 7, 120]))

    def suggest(self) -> None:
        member, text = (
            self.random.choice(list(Member)),
            self.random.choice(["", "a", "AN", "1", "straß", "é"]),
        )
        self.model.check_suggestions(self.store, member, text)

    # Reading while all else goes on.

    def begin_stream(self) -> None:
        query, form, packed = self.query(), self.random.choice(list(Form)), self.random.random() < 0.5
        answer = log.Answer(self.store, query, form, packed=packed)
        assert answer.size == self.model.size
        self.streams.append(Stream(query, form, packed, answer.size, iter(answer)))

    def begin_walk(self) -> None:
        query, limit = self.query(), self.random.randint(1, 9)
        docs, cursor, size = log.page(self.store, query, limit)
        assert size == self.model.size
        self.walks.append(Walk(query, limit, size, docs, cursor))

    def go_on(self) -> None:
        """The next step of some of what is under way."""
        for stream in list(self.streams):
            if self.random.random() < 0.4:
                self.step_stream(stream)
        for walk in list(self.walks):
            if self.random.random() < 0.4:
                self.step_walk(walk)

    def step_stream(self, stream: Stream) -> None:
        parts = next(stream.steps, None)
        if parts is not None:
            stream.got += b"".join(parts)
            return
        got = unpacked(stream.got) if stream.packed else stream.got
        if stream.steady is None:
            assert got == rendered(self.model.docs(stream.query, stream.size), stream.form), stream
        elif stream.form is Form.NDJSON:
            self.check_disturbed(got.splitlines(), stream)
        self.streams.remove(stream)

    def step_walk(self, walk: Walk) -> None:
        if walk.cursor is not None:
            query = replace(walk.query, cursor=walk.cursor)
            docs, walk.cursor, size = log.page(self.store, query, walk.limit)
            assert size == walk.size
            walk.docs += docs
            return
        if walk.steady is None:
            assert walk.docs == self.model.docs(walk.query, walk.size), walk
        else:
            self.check_disturbed(walk.docs, walk)
        self.walks.remove(walk)

    def check_disturbed(self, docs: Sequence[bytes], reading: Stream | Walk) -> None:
        """An answer during which something went: all that stayed is in it, and all in order."""
        ever = self.model.ever(reading.query, reading.size)
        assert is_part(docs, [kept.doc for kept in ever]), reading
        # Two may be alike: one that had expired may have been recorded again just as it was.
        steady = {kept.index for kept in reading.steady or ()}
        assert is_part([kept.doc for kept in ever if kept.index in steady], docs), reading


def is_part(docs: Sequence[bytes], of: Sequence[bytes]) -> bool:
    """Whether docs are all among others, in the same order."""
    others = iter(of)
    return all(doc in others for doc in docs)


@pytest.mark.parametrize("number", range(ROUNDS))
def test_round(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever was done before and is done meanwhile, every answer is that of the model."""
    with memory_folder() as folder:
        playing = Round(number, folder, monkeypatch)
        try:
            playing.play()
        finally:
            playing.close()


# What random rounds seldom meet.


@pytest.fixture
def store() -> Iterator[AccountStore]:
    with memory_folder() as folder, opened(folder / "default.db") as store:
        yield store


@pytest.mark.parametrize("order", Order)
@pytest.mark.parametrize("form", Form)
def test_an_empty_log(store: AccountStore, order: Order, form: Form) -> None:
    """Has an empty answer to everything, of the right form."""
    model = Model()
    for query in (
        Query(order=order),
        Query(order=order, users=("ann",)),
        Query(order=order, words=(("ann",),)),
    ):
        for packed in (True, False):
            model.check_answer(store, query, form, packed=packed)
        model.check_pages(store, query, 1)
        model.check_count(store, query)


def test_words_that_are_sealed_while_they_are_looked_for(
    store: AccountStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the search begins no block holds them; when it goes on, one does."""
    shrink(monkeypatch, TAIL_ROWS_MAX=2)
    model = Model()
    model.record(store, [[spec(at) for at in range(9)]], START_US)
    for order in (Order.DESC, Order.ASC):
        model.record(store, [[spec(at) for at in range(9)]], START_US)
        query = Query(words=(("name",),), order=order)
        steps = iter(log.Answer(store, query, Form.NDJSON, packed=False))
        expected = rendered(model.docs(query), Form.NDJSON)
        got = b"".join(next(steps))
        sealing.settle(store)
        assert got + b"".join(chain.from_iterable(steps)) == expected


def test_a_page_ends_early_when_it_is_large(store: AccountStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the doc that goes beyond PAGE_BYTES_MAX; the next page goes on from there."""
    shrink(monkeypatch, PAGE_BYTES_MAX=3_000)
    model = Model()
    model.record(store, [[spec(at, description="x" * 900) for at in range(20)]], START_US)
    for query in (Query(), Query(order=Order.ASC), Query(order=Order.RECORDED), Query(kinds=("Source",))):
        pages = list(pages_of(store, query, 100))
        assert [len(page) for page in pages] == [3] * 6 + [2]
        model.check_pages(store, query, 100)


@pytest.mark.parametrize("sealed", [True, False])
def test_steps_stay_small_however_large_the_docs(store: AccountStore, sealed: bool) -> None:
    """So that the memory of an answer does not grow with it."""
    model = Model()
    large = {"text": "x" * 15_000}
    for start in range(0, 1_500, 300):
        specs = [spec(at, description="ä" * 4_096, details=large) for at in range(start, start + 300)]
        model.record(store, [specs], START_US + start)
    if sealed:
        sealing.settle(store)
    for query in (
        Query(),
        Query(order=Order.ASC),
        Query(order=Order.RECORDED),
        Query(users=("ann@example.com",)),
    ):
        steps = list(log.Answer(store, query, Form.NDJSON, packed=False))
        assert max(sum(map(len, parts)) for parts in steps) < 4 * 1024 * 1024
        assert b"".join(chain.from_iterable(steps)).count(b"\n") == 1_500
    found = chain.from_iterable(log.Answer(store, Query(words=(("name", "7"),)), Form.NDJSON, packed=False))
    assert b"".join(found) == rendered(model.docs(Query(words=(("name", "7"),))), Form.NDJSON)


def test_many_large_blocks_that_overlap(store: AccountStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A step opens no more of them than STEP_BYTES, apart from one a run."""
    shrink(
        monkeypatch, SEAL_EVENTS=16, TAIL_KEPT_EVENTS=0, BLOCK_EVENTS=4, STEP_BYTES=10_000, CHUNK_BYTES=3_000
    )
    draw = random.Random(3)
    model = Model()
    for _ in range(40):
        times = [format_us(START_US - draw.randint(0, 10**6)) for _ in range(16)]
        model.record(
            store, [[spec(at, timestamp=us, description="x" * 400) for at, us in enumerate(times)]], START_US
        )
        sealing.tend(store)
    for query in (Query(), Query(order=Order.ASC), Query(words=(("name", "3"),))):
        read = reader.Reader(store, query)
        docs = [doc for pieces in read.pieces() for piece in pieces for doc in opened_docs(piece)]
        assert docs == model.docs(query)


@pytest.mark.parametrize("at_most", [59, 60])
@pytest.mark.parametrize("cells", [0, 200_000])
def test_a_look_at_very_many_values_is_of_the_newest_and_says_so(
    store: AccountStore, monkeypatch: pytest.MonkeyPatch, at_most: int, cells: int
) -> None:
    """Up to a bound each is counted, however often they are as frequent as others; beyond it a sample."""
    shrink(monkeypatch, VALUES_COUNTED_MAX=at_most, CELLS_KEPT_MAX=cells, SAMPLE_EVENTS=50)
    shrink(monkeypatch, SEAL_EVENTS=16, MERGED_AT_ONCE=8, TEXTS_AT_ONCE=7)
    model = Model()
    own = [spec(at, user=f"user-{at}", configuration=f"c-{at}:{at % 3}") for at in range(60)]
    for at, part in enumerate((own, own[20:40], own[25:35])):
        model.record(store, [part], START_US + at)
        while sealing.seal(store, everything=at < 2):
            pass
    for stacked in (Member.USER, Member.ACTION, Member.CONFIGURATION):
        for query in (Query(), Query(kinds=("Source",)), Query(min_us=START_US + 5)):
            model.check_overview(store, query, stacked, 7)
    found = overview.overview(store, Query(), stacked=Member.USER)
    assert (found.matches, found.counted) == ((90, 90) if at_most == 60 else (90, 50))
    assert found.exact is (at_most == 60)
    few = overview.overview(store, Query(users=("user-7", "user-30")), stacked=Member.USER)
    assert (few.matches, few.exact) == (4, True), "what is not asked for does not count"


def test_a_look_takes_memory_for_the_values_that_match_alone(store: AccountStore) -> None:
    """Not for all numbers up to theirs, of which a log has very many once it had very many values."""
    with store.maintenance() as connection:
        fetch(connection, "INSERT INTO value (id, member, text, folded) VALUES (3000000, 1, 'old', 'old')")
    model = Model()
    specs = [spec(at, user=f"user-{at % 3}", configuration="c:1") for at in range(50)]
    model.record(store, [specs], START_US)
    while sealing.seal(store, everything=True):
        pass
    model.check_overview(store, Query(), Member.USER, 7)
    tracemalloc.start()
    try:
        found = overview.overview(store, Query(), stacked=Member.USER)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert found.counted == 50
    assert peak < 2 * 1024 * 1024


def opened_docs(piece: Piece) -> list[bytes]:
    return piece.docs or unpacked(b"".join(piece.frames)).splitlines()


def test_reads_search_and_never_scan(store: AccountStore) -> None:
    """The plan of every query uses an index, but for those of upkeep and of the index of the tail."""
    model = Model()
    model.record(store, [[spec(at) for at in range(600)]], START_US)
    sealing.settle(store)
    model.record(store, [[spec(at) for at in range(600)]], START_US)
    upkeep = {
        "block_ids",
        "set_terms_aside",
        "make_terms",
        "drop_some_old_terms",
        "drop_old_terms",
        "has_given",
        "left_in_tail",
        "left_in_blocks",
        "freed",
        "tail_holds",
        "seal_rows",
        "run_sizes",
        "tail_keys",
        "tail_from",
    }
    small = {
        "SCAN log",
        "SCAN checkpoint",
        "SCAN found",
        "SCAN json_each VIRTUAL TABLE INDEX 1:",
        "SCAN hold",
        "SCAN purge",
        "SCAN restored",
        "SCAN piece",  # a row for some 65,536 events
        "SCAN destroyed",
    }
    with store.snapshot() as connection:
        for name in QUERIES.keys() - upkeep:
            bindings = (1,) * bindings_of(QUERIES[name])
            plan = [row[3] for row in fetch(connection, f"EXPLAIN QUERY PLAN {QUERIES[name]}", bindings)]
            scans = {line for line in plan if line.startswith("SCAN")} - small
            assert all("VIRTUAL TABLE" in line and "M" in line for line in scans), f"{name}: {plan}"
            assert not any("TEMP B-TREE" in line for line in plan), f"{name}: {plan}"


def bindings_of(statement: str) -> int:
    numbered = {int(number) for number in re.findall(r"\?(\d)", statement)}
    return max(numbered, default=statement.count("?"))


def test_every_query_is_used() -> None:
    """No statement is left behind in queries.sql."""
    folder = Path(reader.__file__).parent
    code = "".join(path.read_text() for path in folder.glob("*.py"))
    assert [name for name in QUERIES if f'"{name}"' not in code] == []
