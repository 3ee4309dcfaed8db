"""Long answers and pages within a process: what the event loop is spared."""

import asyncio
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from types import SimpleNamespace
from typing import Any

import pytest
from starlette.requests import Request
from starlette.types import Message

from auditplane.http.page import rendering
from auditplane.http.streams import Steps, Streams
from auditplane.http.turns import Turns

STALL_SECONDS = 0.05
CLIENT = ("127.0.0.1", 9)


@pytest.fixture(scope="module")
def listed() -> list[str]:
    """The folders that this process looks into; there is no way to take back what notes them."""
    found: list[str] = []

    def note(event: str, args: tuple[Any, ...]) -> None:
        if event in ("os.listdir", "os.scandir"):
            found.append(str(args[0]))

    sys.addaudithook(note)
    return found


@pytest.fixture
def threads() -> Iterator[Turns]:
    with closing(Turns(2, "reader", 100)) as made:
        yield made


def _steps(_step_bytes: int) -> Steps:
    while True:
        yield [b"x" * 1_000]


async def _gone() -> Message:
    return {"type": "http.disconnect"}


async def _there() -> Message:
    await asyncio.Event().wait()
    raise AssertionError


async def _takes(_message: Message) -> None:
    await asyncio.sleep(0)


async def _takes_nothing(message: Message) -> None:
    if message["type"] == "http.response.body":
        await asyncio.Event().wait()


@pytest.mark.parametrize(
    ("receive", "send", "looks"),
    [(_gone, _takes, 0), (_there, _takes_nothing, 1)],
    ids=["a reader who left", "a reader who stalls"],
)
def test_a_reader_who_left_costs_no_look_at_all_connections(
    receive: Any, send: Any, looks: int, threads: Turns, listed: list[str]
) -> None:
    """Only to reset a connection it has to be found among all descriptors of the process."""

    async def read() -> None:
        streams = Streams(threads, STALL_SECONDS)
        answer = await streams.start("default", _steps, {}, "text/plain")
        await answer({"type": "http", "method": "GET", "client": CLIENT}, receive, send)

    listed.clear()
    asyncio.run(read())
    assert listed.count("/dev/fd") == looks


def test_pages_are_made_on_threads(threads: Turns) -> None:
    """A large one takes milliseconds, in which the event loop answers others."""

    class Seen:
        def __str__(self) -> str:
            return threading.current_thread().name

    async def made() -> bytes:
        state = SimpleNamespace(streams=Streams(threads, STALL_SECONDS))
        scope = {"type": "http", "method": "GET", "path": "/", "query_string": b"", "headers": []}
        request = Request({**scope, "state": {"server": state}})
        answer = await rendering.html(request, "error.html", heading="x", messages=[Seen()])
        return bytes(answer.body)

    assert b"reader_" in asyncio.run(made())
