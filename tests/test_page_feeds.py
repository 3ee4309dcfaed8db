"""Feeds: however many pages ask, what is new is looked for once, and each hears of each match once."""

import asyncio
import json
import random
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from auditplane import config, keeping, log, rotation
from auditplane.event import KINDS, Rules, parse
from auditplane.http import state as states
from auditplane.http.page import feeds
from auditplane.http.page.view import View, read_view
from auditplane.http.state import State
from auditplane.http.turnstile import Turnstile
from auditplane.query import Query
from auditplane.store.sqlite.account import AccountStore
from auditplane.times import DAY_US
from folders import FreeFolder
from loops import in_a_loop

ACCOUNT = "default"
USERS = ("ann", "bob", "cy")


@asynccontextmanager
async def opened(path: Path) -> AsyncIterator[State]:
    """What a worker has of an empty folder."""
    with closing(FreeFolder(path / "data")) as folder:
        rotation.prepare(folder, None, None, log.clock)
    with patch.object(states, "DataFolder", FreeFolder):
        state = State(config.load({"data": str(path / "data")}, {}), log.clock, Turnstile(), lambda: 0)
    try:
        yield state
    finally:
        await state.close()


def view(**filters: str) -> View:
    return read_view(list(filters.items()), account=ACCOUNT, kinds=KINDS)


async def record(state: State, *users: str) -> list[str]:
    events = [
        {"resourceName": "otlp", "resourceKind": "Source", "action": "Modified", "user": user}
        for user in users
    ]
    batch = parse(json.dumps(events).encode(), Rules(account=ACCOUNT))
    return list(await state.record(ACCOUNT, batch, "test"))


def told(message: bytes) -> tuple[int, list[str]]:
    """How many events a message tells of, and those that it has, in the order of recording."""
    found = re.search(rb"event: news\ndata: (.*)\n", message)
    data: dict[str, Any] = json.loads(found[1]) if found else {"number": 0, "html": ""}
    return data["number"], re.findall(r'<tr id="e-(\w+)"', data["html"])[::-1]


async def looked() -> None:
    await asyncio.sleep(1.2 * feeds.LOOK_SECONDS)


@in_a_loop
async def test_what_many_pages_ask_for_is_found_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with opened(tmp_path) as state:
        ids = await record(state, *USERS)
        pages = list[Query]()
        page = log.page

        def counted(store: object, query: Query, limit: int) -> object:
            pages.append(query)
            return page(store, query, limit)  # type: ignore[arg-type]

        monkeypatch.setattr(log, "page", counted)
        feed = feeds.feed(state, ACCOUNT)
        found = await asyncio.gather(*(feed.news(view(), -1) for _ in range(300)))
        assert set(found) == {found[0]}
        assert told(found[0][1]) == (3, ids)
        assert len(pages) == 1
        others = await asyncio.gather(*(feed.news(view(user=user), 0) for user in USERS for _ in range(9)))
        assert len(pages) == 1 + len(USERS)
        assert {told(message)[0] for _, message in others} == {0, 1}
        assert feeds.feed(state, ACCOUNT) is feed


@in_a_loop
async def test_each_page_hears_of_each_match_once_whenever_it_came(tmp_path: Path) -> None:
    """Pages come and look at any moment, also in the middle of a look, while events are recorded."""
    async with opened(tmp_path) as state:
        chosen = random.Random(7)
        recorded = list[tuple[str, str]]()
        ended = asyncio.Event()

        async def follow(user: str | None) -> None:
            feed = feeds.feed(state, ACCOUNT)
            await asyncio.sleep(chosen.random())
            after = start = chosen.randrange(-1, len(recorded)) if recorded else -1
            asked, heard, number = view(**({"user": user} if user else {})), list[str](), 0
            while True:
                was_over = ended.is_set()
                if was_over:
                    await looked()
                last, message = await feed.news(asked, after)
                if last > after:
                    count, ids = told(message)
                    assert len(ids) in (0, count)
                    number, after = number + count, last
                    heard += ids
                elif was_over:
                    break
                await asyncio.sleep(chosen.choice((0.0, 0.02, 0.1)))
            wanted = [event_id for event_id, by in recorded[start + 1 :] if user in (None, by)]
            assert number == len(wanted)
            assert after == len(recorded) - 1
            if number == len(heard):
                assert heard == wanted

        pages = [asyncio.ensure_future(follow(chosen.choice((*USERS, None)))) for _ in range(40)]
        for _ in range(25):
            users = chosen.choices(USERS, k=chosen.choice((1, 2, 5, 150)))
            recorded += zip(await record(state, *users), users, strict=True)
            await asyncio.sleep(chosen.choice((0.0, 0.05, 0.2)))
        ended.set()
        await asyncio.gather(*pages)


def erase(account: keeping.Account, event_id: str) -> None:
    keeping.erase(account, [event_id], reason="request 4711")


def expire(account: keeping.Account, _event_id: str) -> None:
    in_a_week = log.clock() + 7 * DAY_US
    keeping.expire(replace(account, clock=lambda: in_a_week), default_days=1)


@pytest.mark.parametrize("forget", [erase, expire])
@in_a_loop
async def test_what_is_gone_is_told_of_to_nobody_who_asks_later(
    tmp_path: Path, forget: Callable[[keeping.Account, str], None]
) -> None:
    """Though the same was told of a moment before."""
    async with opened(tmp_path) as state:
        ids = await record(state, "ann", "bob")
        feed = feeds.feed(state, ACCOUNT)
        assert told((await feed.news(view(), -1))[1]) == (2, ids)
        with state.folder.account(ACCOUNT) as store:
            forget(keeping.Account(ACCOUNT, store, log.clock), ids[0])
        await looked()
        assert ids[0] not in told((await feed.news(view(), -1))[1])[1]


@in_a_loop
async def test_a_look_that_failed_is_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with opened(tmp_path) as state:
        (recorded,) = await record(state, "ann")
        feed = feeds.feed(state, ACCOUNT)
        for target, what in ((AccountStore, "size"), (log, "page")):
            await looked()
            with monkeypatch.context() as patched:
                patched.setattr(target, what, lambda *_: 1 / 0)
                with pytest.raises(ZeroDivisionError):
                    await feed.news(view(), -1)
        assert told((await feed.news(view(), -1))[1]) == (1, [recorded])


@pytest.mark.parametrize("looks", [1, 5])
@in_a_loop
async def test_a_look_in_the_middle_of_a_commit_misses_nothing_for_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, looks: int
) -> None:
    """It sees that something was written, and not yet what: the last event before a quiet time."""
    monkeypatch.setattr(feeds, "COMMIT_SECONDS", 3 * feeds.LOOK_SECONDS)
    async with opened(tmp_path) as state:
        (recorded,) = await record(state, "ann")
        feed, size, seen = feeds.feed(state, ACCOUNT), AccountStore.size, list[int]()

        def before_it_ends(store: AccountStore) -> int:
            seen.append(size(store))
            return seen[-1] - (len(seen) <= looks)

        monkeypatch.setattr(AccountStore, "size", before_it_ends)
        assert (await feed.news(view(), -1))[0] == -1
        found, message = -1, b""
        async with asyncio.timeout(10):
            while found < 0:
                await looked()
                found, message = await feed.news(view(), -1)
        assert told(message) == (1, [recorded])
        assert len(seen) == looks + 1
