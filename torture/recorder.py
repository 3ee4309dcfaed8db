"""Who records at an even pace while a server is attacked: what he is told, and how long it takes.

He runs in a process of his own, which comes first where it may, so that no attacker's work is measured. Some
of his connections send at fixed moments, and the time counts from those, so that waiting for an answer hides
nothing, but for what he himself wakes too late; some of them open a new connection for each event; and some
send the next event once the last one is answered.
"""

import asyncio
import contextlib
import json
import os
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Final

from torture.http1 import Ended, Line, Target

KEPT: Final = 16
ANEW: Final = 4
EAGER: Final = 2
EVERY_SECONDS: Final = 0.2
NICE: Final = -15
TIMEOUT_SECONDS: Final = 30.0
EVENTS: Final = "/v1/audit-events"


@dataclass(frozen=True, slots=True)
class Try:
    """One event: how it was sent, from when on, for how long, and the status and id that it got."""

    how: str
    at: float
    seconds: float
    status: int
    id: str = ""


def run(target: Target, pipe: Connection) -> None:
    """Records until the pipe says something; then sends all tries through it."""
    with contextlib.suppress(PermissionError):
        os.nice(NICE)
    pipe.send(asyncio.run(_record(target, pipe)))


async def _record(target: Target, pipe: Connection) -> list[Try]:
    tries: list[Try] = []
    ended = asyncio.Event()
    asyncio.get_running_loop().add_reader(pipe.fileno(), ended.set)
    works = [
        *(_paced(target, tries, ended, "kept", number / KEPT) for number in range(KEPT)),
        *(_paced(target, tries, ended, "anew", number / ANEW) for number in range(ANEW)),
        *(_eager(target, tries, ended) for _ in range(EAGER)),
    ]
    async with asyncio.TaskGroup() as group:
        for work in works:
            group.create_task(work)
    asyncio.get_running_loop().remove_reader(pipe.fileno())
    return tries


async def _paced(target: Target, tries: list[Try], ended: asyncio.Event, how: str, phase: float) -> None:
    line: Line | None = None
    due = time.monotonic() + phase * EVERY_SECONDS
    while not ended.is_set():
        at = due
        if time.monotonic() < due:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(due - time.monotonic()):
                    await ended.wait()
            at = time.monotonic()
        line = await _try(target, tries, how, at, line)
        if how == "anew" and line is not None:
            line.close()
            line = None
        due = max(due + EVERY_SECONDS, time.monotonic() - 5.0)
    if line is not None:
        line.close()


async def _eager(target: Target, tries: list[Try], ended: asyncio.Event) -> None:
    line: Line | None = None
    while not ended.is_set():
        line = await _try(target, tries, "eager", time.monotonic(), line)
        if line is None or tries[-1].status != 201:
            await asyncio.sleep(EVERY_SECONDS)
    if line is not None:
        line.close()


async def _try(target: Target, tries: list[Try], how: str, at: float, line: Line | None) -> Line | None:
    """Sends an event; returns the connection if it is still of use. Status 0 stands for no answer."""
    status, event_id = 0, ""
    try:
        async with asyncio.timeout(TIMEOUT_SECONDS):
            line = line or await Line.open(target)
            answer = await line.ask("POST", EVENTS, _EVENT)
        status = answer.status
        if status == 201:
            event_id = json.loads(answer.body)["ids"][0]
    except (Ended, OSError, TimeoutError):
        if line is not None:
            line.close()
        line = None
    tries.append(Try(how, at, time.monotonic() - at, status, event_id))
    return line


_EVENT: Final = json.dumps(
    {"resourceName": "steady", "resourceKind": "Source", "action": "Modified", "user": "steady@example.com"}
).encode()
