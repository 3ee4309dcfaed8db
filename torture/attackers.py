"""What attackers do to a server, each for some seconds, and how each of their requests ended.

An attack is a coroutine function of a `Scene`; several processes run it at once, each with its share.
"""

import asyncio
import gzip
import json
import random
import socket
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import cycle
from typing import Any, Final
from urllib.parse import quote, urlencode

from auditplane.limits import BODY_BYTES_MAX
from torture import frames, kept
from torture.http1 import CHUNK_BYTES, Ended, Line, Target

CUT: Final = "cut off"
OPEN: Final = "left open"
REFUSED: Final = "no connection"
EVENTS: Final = "/v1/audit-events"
DOWNLOAD: Final = f"{EVENTS}/download"
COUNT: Final = f"{EVENTS}/count"
FORM: Final = "application/x-www-form-urlencoded"
ADDRESSES: Final = 64
RECEIVE_BYTES: Final = 4096
MIB: Final = 1024 * 1024
PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


@dataclass
class Outcome:
    """How the requests of an attack ended."""

    ended: Counter[str] = field(default_factory=Counter)
    longest_seconds: float = 0.0
    problems: list[str] = field(default_factory=list)

    def end(self, how: str, seconds: float) -> None:
        """One ended so, after so many seconds."""
        self.ended[how] += 1
        self.longest_seconds = max(self.longest_seconds, seconds)

    def add(self, other: "Outcome") -> None:
        """Counts those of another one too."""
        self.ended += other.ended
        self.longest_seconds = max(self.longest_seconds, other.longest_seconds)
        self.problems += other.problems


@dataclass
class Scene:
    """Where an attack goes, for how long, and which share of it this process has."""

    target: Target
    until: float
    patience_seconds: float
    """For how long, after the end, answers are waited for."""
    share: int
    shares: int
    outcome: Outcome = field(default_factory=Outcome)

    @property
    def is_over(self) -> bool:
        """Whether no new request is to be sent."""
        return time.monotonic() >= self.until

    def part(self, number: int) -> range:
        """The numbers below a number that are this process's to do."""
        return range(self.share, number, self.shares)

    async def counted(self, work: Awaitable[object]) -> None:
        """Waits for a request, and counts how it ended: by the status it returns, cut off, or not at all."""
        began = time.monotonic()
        try:
            async with asyncio.timeout(max(0.1, self.until + self.patience_seconds - began)):
                how = str(await work)
        except TimeoutError:
            how = OPEN
        except (Ended, OSError):
            how = CUT
        self.outcome.end(how, time.monotonic() - began)


Attack = Callable[[Scene], Coroutine[Any, Any, None]]


def run(attack: Attack, scene: Scene) -> Outcome:
    """An attack from its beginning to its end."""
    asyncio.run(attack(scene))
    return scene.outcome


def address(number: int) -> str:
    """One of the addresses that a crowd comes from."""
    return f"127.0.1.{1 + number % ADDRESSES}"


async def _all(works: Sequence[Awaitable[None]]) -> None:
    await asyncio.gather(*works)


async def _on_lines(
    scene: Scene, number: int, work: Callable[[Line, int], Awaitable[object]], **how: Any
) -> None:
    """Does something once on each of many connections, all at the same time."""

    async def one(at: int) -> object:
        try:
            line = await Line.open(scene.target, address(at), **how)
        except OSError:
            return REFUSED
        try:
            return await work(line, at)
        finally:
            line.close()

    await _all([scene.counted(one(at)) for at in scene.part(number)])


async def _again_and_again(
    scene: Scene, number: int, work: Callable[[Line, int], Awaitable[object]], pause_seconds: float = 0.0
) -> None:
    """Does something again and again on each of some connections, a new one where it was cut off.

    With a pause, each begins at a moment of its own.
    """

    async def one(at: int) -> None:
        line: Line | None = None
        await asyncio.sleep(pause_seconds * at / number)
        while not scene.is_over:
            if line is None:
                line = await _connected(scene, at)
            if line is not None:
                cuts = scene.outcome.ended[CUT]
                await scene.counted(work(line, at))
                if scene.outcome.ended[CUT] > cuts or scene.outcome.ended[OPEN]:
                    line.close()
                    line = None
            await asyncio.sleep(pause_seconds)
        if line is not None:
            line.close()

    await _all([one(at) for at in scene.part(number)])


async def _connected(scene: Scene, at: int) -> Line | None:
    try:
        return await Line.open(scene.target, address(at))
    except OSError:
        scene.outcome.end(REFUSED, 0.0)
        await asyncio.sleep(0.1)
        return None


def _event(chosen: random.Random, details_bytes: int = 100) -> dict[str, Any]:
    return {
        "resourceName": f"otlp-{chosen.randrange(500)}",
        "resourceKind": "Source",
        "action": "Modified",
        "user": f"user{chosen.randrange(50)}@example.com",
        "configuration": f"prod-{chosen.randrange(20)}:{chosen.randrange(9)}",
        "details": {"before": chosen.randbytes(details_bytes // 2).hex()},
    }


@cache
def _batch(count: int, details_bytes: int = 100) -> bytes:
    chosen = random.Random(count)
    return json.dumps([_event(chosen, details_bytes) for _ in range(count)]).encode()


# Connections that do nothing.


async def silence(scene: Scene, number: int = 10_000) -> None:
    """Connections on which nothing is ever sent."""
    await _on_lines(scene, number, lambda line, _: _cut(line))


async def idleness(scene: Scene, number: int = 10_000) -> None:
    """Nothing, half a head, the beginning of HTTP/2, or one request and then no more."""
    begun = (
        b"",
        b"GET /health HTTP/1.1\r\nHost: x\r\n",
        PREFACE,
        b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n",
    )

    async def one(line: Line, at: int) -> str:
        await line.send(begun[at // scene.shares % len(begun)])
        return await _cut(line)

    await _on_lines(scene, number, one)


async def _cut(line: Line) -> str:
    await line.ends()
    return CUT


async def churn(scene: Scene, number: int = 64) -> None:
    """Connections opened and closed as fast as possible, every other one with a request."""

    async def one(at: int) -> None:
        turn = 0
        while not scene.is_over:
            line = await _connected(scene, at)
            if line is not None:
                turn += 1
                await scene.counted(_opened_and_left(line, asking=turn % 2 == 0))
                line.close()

    await _all([one(at) for at in scene.part(number)])


async def _opened_and_left(line: Line, *, asking: bool) -> object:
    return (await line.ask("GET", f"{EVENTS}?limit=1")).status if asking else "left"


# Much of what is allowed.


async def activity(scene: Scene, number: int = 1_000) -> None:
    """Many who record and read, each with a pause of four seconds."""

    async def one(line: Line, at: int) -> int:
        if at // scene.shares % 2:
            return (await line.ask("POST", EVENTS, _batch(1))).status
        return (await line.ask("GET", f"{EVENTS}?limit=10")).status

    await _again_and_again(scene, number, one, pause_seconds=4.0)


async def batches(scene: Scene, number: int = 64, events: int = 1_000) -> None:
    """Batches as fast as possible."""
    await _record_all(scene, number, _batch(events))


async def _record_all(scene: Scene, number: int, batch: bytes) -> None:
    """Records on each of some connections; who is told to wait must be told for how long."""

    async def one(line: Line, _: int) -> int:
        answer = await line.ask("POST", EVENTS, batch)
        if answer.status in (429, 503):
            if "retry-after" not in answer.headers:
                scene.outcome.problems.append(f"{answer.status} without Retry-After")
            await asyncio.sleep(0.2)
        return answer.status

    await _again_and_again(scene, number, one)


async def large_batches(scene: Scene, number: int = 16) -> None:
    """Batches as large as there are, nearly, and as fast as possible."""
    await _record_all(scene, number, large_batch())


def large_batch() -> bytes:
    """10,000 events with large details; 13 MB."""
    return _batch(10_000, 1_200)


async def downloads(scene: Scene, number: int = 16) -> None:
    """The whole trail, as fast as it comes."""
    encodings = cycle(("", "gzip", "zstd"))

    async def one(line: Line, _: int) -> int:
        return (await line.ask("GET", DOWNLOAD, Accept_Encoding=next(encodings))).status

    await _again_and_again(scene, number, one)


async def broken_downloads(scene: Scene, number: int = 16) -> None:
    """The whole trail, closed after its first bytes."""

    async def one(at: int) -> None:
        while not scene.is_over:
            line = await _connected(scene, at)
            if line is not None:
                await scene.counted(_begun(line, DOWNLOAD))
                line.close()

    await _all([one(at) for at in scene.part(number)])


async def _begun(line: Line, path: str) -> object:
    await line.send(line.target.head("GET", path) + b"\r\n")
    return await line.begin()


async def pages(scene: Scene, number: int = 64) -> None:
    """Pages as large as there are."""

    async def one(line: Line, _: int) -> int:
        return (await line.ask("GET", f"{EVENTS}?limit=10000")).status

    await _again_and_again(scene, number, one)


async def queries(scene: Scene, number: int = 64) -> None:
    """A hundred values of a filter or of all, words that stand nowhere, and cursors from deep down."""
    values = {
        "user": [f"user{value}@example.com" for value in range(100)],
        "action": [f"A{value}" for value in range(99)] + ["Modified"],
        "resource-name": [f"otlp-{value * 100}" for value in range(100)],
        "configuration-name": [f"prod-{value}" for value in range(100)],
    }
    asked = cycle(
        [
            *(f"{COUNT}?{urlencode({name: some}, doseq=True)}" for name, some in values.items()),
            f"{COUNT}?{urlencode({name: some[75:] for name, some in values.items()}, doseq=True)}",
            f"{COUNT}?q={quote('zq xk wv qj')}",
            f"{EVENTS}?limit=10&q=nowhere+to+be+found",
            f"{EVENTS}?limit=10&q=e+a+o+i",
            f"{EVENTS}?order=recorded&after=13000&limit=1000&user=nobody",
        ]
    )

    async def one(line: Line, _: int) -> int:
        return (await line.ask("GET", next(asked))).status

    await _again_and_again(scene, number, one)


async def views(scene: Scene, number: int = 16) -> None:
    """Parts of the page that count the whole trail."""
    cookie = await _signed_in(scene.target)
    asked = cycle(
        ["/overview", "/overview?q=ab", "/suggestions?member=resource-name&text=7", "/", "/?q=zz", "/storage"]
    )

    async def one(line: Line, _: int) -> int:
        return (await line.ask("GET", next(asked), Cookie=cookie)).status

    await _again_and_again(scene, number, one)


async def _signed_in(target: Target) -> str:
    line = await Line.open(target)
    body = urlencode({"key": target.secret}).encode()
    answer = await line.ask("POST", "/sign-in", body, Content_Type=FORM)
    line.close()
    return answer.headers.get("set-cookie", "").partition(";")[0]


async def listeners(scene: Scene, number: int = 2_100, in_a_session: int = 20) -> None:
    """More pages that show new events by themselves than may be open."""
    cookies = [await _signed_in(scene.target) for _ in range(len(scene.part(number)) // in_a_session + 1)]

    async def one(line: Line, at: int) -> object:
        cookie = cookies[at // scene.shares // in_a_session]
        await line.send(scene.target.head("GET", "/live?after=-1", Cookie=cookie) + b"\r\n")
        status = await line.begin()
        while status == 200 and not scene.is_over:
            async with asyncio.timeout_at(
                asyncio.get_running_loop().time() + max(0.1, scene.until - time.monotonic())
            ):
                await line.take(CHUNK_BYTES)
        return status

    async def until_over(line: Line, at: int) -> object:
        try:
            return await one(line, at)
        except TimeoutError:
            return 200

    await _on_lines(scene, number, until_over)


async def wrong_keys(scene: Scene, number: int = 32) -> None:
    """Signing in with keys that never were, from a few addresses."""

    async def one(line: Line, _: int) -> int:
        body = urlencode({"key": f"ap_{random.getrandbits(200):x}"}).encode()
        return (await line.ask("POST", "/sign-in", body, Content_Type=FORM)).status

    await _again_and_again(scene, number, one)


# Readers who take little.


async def slow_readers(scene: Scene, number: int = 200) -> None:
    """The whole trail as JSON, CSV and zstd, twenty kilobytes a second each."""

    async def one(line: Line, at: int) -> str:
        path = (EVENTS, DOWNLOAD)[at // scene.shares % 2]
        encoding = ("", "zstd", "gzip")[at // scene.shares // 2 % 3]
        await line.send(scene.target.head("GET", path, Accept_Encoding=encoding) + b"\r\n")
        status = await line.begin()
        while not scene.is_over:
            await line.take(4096)
            await asyncio.sleep(0.2)
        return f"{status}, read to the end of the attack"

    await _on_lines(scene, number, one, receive_bytes=RECEIVE_BYTES)


async def stopped_readers(scene: Scene, number: int = 200, path: str = EVENTS) -> None:
    """The whole trail, of which nothing is ever read."""
    began = time.monotonic()
    lines = [_stopped(scene.target, path, address(at)) for at in scene.part(number)]
    waiting = {each.getsockname() for each in lines}
    while waiting and time.monotonic() < scene.until + scene.patience_seconds:
        await asyncio.sleep(1.0)
        ended = waiting - kept.peers(scene.target.port)
        for _ in ended:
            scene.outcome.end(CUT, time.monotonic() - began)
        waiting -= ended
    for _ in waiting:
        scene.outcome.end(OPEN, time.monotonic() - began)
    for each in lines:
        each.close()


async def stopped_pages(scene: Scene, number: int = 200) -> None:
    """Pages as large as there are, of which nothing is ever read."""
    await stopped_readers(scene, number, f"{EVENTS}?limit=10000")


async def unread_answers(scene: Scene, number: int = 5_000) -> None:
    """What anybody may ask for, without a key, and does not read."""
    stranger = replace(scene, target=replace(scene.target, secret=""))
    await stopped_readers(stranger, number, "/openapi.json")


def _stopped(target: Target, path: str, source: str) -> socket.socket:
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BYTES)
    made.bind((source, 0))
    made.settimeout(30.0)
    made.connect(("127.0.0.1", target.port))
    made.sendall(target.head("GET", path) + b"\r\n")
    return made


# Bodies that do not come.


async def trickles(scene: Scene, number: int = 200) -> None:
    """Bodies of which a byte comes in a second."""

    async def one(line: Line, _: int) -> int:
        await line.send(_head_of_body(scene.target, MIB))
        answered = asyncio.ensure_future(line.answer())
        while not answered.done():
            await line.send(b"[")
            await asyncio.wait([answered], timeout=1.0)
        return (await answered).status

    await _on_lines(scene, number, one)


async def half_bodies(scene: Scene, number: int = 64) -> None:
    """Bodies of 16 MiB that stop just before their end."""
    body = b" " * (BODY_BYTES_MAX - 1)

    async def one(line: Line, _: int) -> int:
        answered = asyncio.ensure_future(line.answer())
        with suppress(Ended):
            await line.send(_head_of_body(scene.target, BODY_BYTES_MAX))
            await line.send_body(body, answered)
        return (await answered).status

    await _on_lines(scene, number, one)


async def no_bodies(scene: Scene, number: int = 500) -> None:
    """Bodies of which nothing comes, half of them announced with Expect."""

    async def one(line: Line, at: int) -> int:
        expect = {"Expect": "100-continue"} if at // scene.shares % 2 else {}
        await line.send(_head_of_body(scene.target, BODY_BYTES_MAX, **expect))
        return (await line.answer()).status

    await _on_lines(scene, number, one)


def _head_of_body(target: Target, size: int, **headers: str) -> bytes:
    named = {"Content_Type": "application/json", "Content_Length": str(size), **headers}
    return target.head("POST", EVENTS, **named) + b"\r\n"


# Heads and bodies beyond what is sensible.


async def heads(scene: Scene, number: int = 64) -> None:
    """Long addresses, long headers, thousands of headers, and requests sent without waiting for answers."""
    begin = scene.target.head("GET", f"{EVENTS}?limit=1")
    sent = [
        scene.target.head("GET", f"{EVENTS}?q=" + "x" * 60_000) + b"\r\n",
        scene.target.head("GET", "/" + "x" * MIB) + b"\r\n",
        begin + b"X-Long: " + b"x" * MIB + b"\r\n\r\n",
        begin + b"".join(b"X-%d: y\r\n" % at for at in range(5_000)) + b"\r\n",
        begin + b"X-Bindplane-Api-Key: " + b"x" * 50_000 + b"\r\n\r\n",
        begin + b"Accept: " + b"a/b;q=0.1," * 5_000 + b"\r\n\r\n",
        begin + b"Accept-Encoding: " + b"zstd;q=0," * 5_000 + b"\r\n\r\n",
        begin + b"Cookie: " + b"a=b;" * 12_000 + b"\r\n\r\n",
        (begin + b"\r\n") * 200,
    ]
    turns = cycle(sent)

    async def one(line: Line, _: int) -> int:
        await line.send(next(turns))
        return (await line.answer()).status

    async def each(at: int) -> None:
        while not scene.is_over:
            line = await _connected(scene, at)
            if line is not None:
                await scene.counted(one(line, at))
                line.close()

    await _all([each(at) for at in scene.part(number)])


@cache
def hard_texts() -> Sequence[bytes]:
    """Bodies of about 16 MiB that are hard to read."""
    size = BODY_BYTES_MAX - 1024
    event = json.dumps(_event(random.Random(1)))
    return [
        b"[" * size,
        b'{"a":' * (size // 5),
        b"[" * (size // 2) + b"]" * (size // 2),
        b'{"resourceName": "' + b"x" * size + b'"}',
        b"9" * size,
        b"[" + b"1e999999," * (size // 9) + b"1]",
        (event[:-1] + ', "details": ' + '{"a":' * (size // 6) + "1" + "}" * (size // 6) + "}").encode(),
        b"[" + b"{}," * (size // 3 - 1) + b"{}]",
        b'["' + b"\\u0000" * (size // 6) + b'"]',
        large_batch(),
        b"{" + b",".join(b'"k%d": 1' % at for at in range(size // 14)) + b"}",
    ]


async def hard_bodies(scene: Scene, number: int = 16) -> None:
    """16 MiB of deep JSON, of one text or number, of 10,000 events with large details."""
    await _post_all(scene, number, [(body, {}) for body in hard_texts()])


async def bombs(scene: Scene, number: int = 16) -> None:
    """A few KiB to 16 MiB that are gigabytes, or that want gigabytes to be read."""
    await _post_all(
        scene, number, [(body, {"Content_Encoding": encoding}) for body, encoding in packed_bombs()]
    )


@cache
def packed_bombs() -> Sequence[tuple[bytes, str]]:
    """Bodies and their encodings."""
    mib = gzip.compress(b" " * MIB, 9)
    return [
        (gzip.compress(b" " * (64 * MIB), 1), "gzip"),
        (mib * 9_000, "gzip"),
        (gzip.compress(b"") * (BODY_BYTES_MAX // 21), "gzip"),
        (gzip.compress(b"[" * (BODY_BYTES_MAX - 1024), 9), "gzip"),
        (frames.zstd_bomb(blocks=4_000_000, window_log=20), "zstd"),
        (frames.zstd_bomb(blocks=100, window_log=27), "zstd"),
        (frames.zstd_bomb(blocks=120, window_log=27, last=False), "zstd"),
        (frames.zstd_bomb(blocks=100, window_log=31), "zstd"),
        (frames.zstd_bomb(blocks=1, window_log=10) * 9_000, "zstd"),
        (frames.zstd_skippable() * (BODY_BYTES_MAX // 9), "zstd"),
    ]


async def _post_all(scene: Scene, number: int, bodies: Sequence[tuple[bytes, dict[str, str]]]) -> None:
    turns = cycle([*bodies[scene.share :], *bodies[: scene.share]])

    async def one(line: Line, _: int) -> int:
        body, headers = next(turns)
        return (await line.ask("POST", EVENTS, body, **headers)).status

    await _again_and_again(scene, number, one)
