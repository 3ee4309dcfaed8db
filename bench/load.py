"""Many connections that each send the next request once the last one is answered: wrk where it is installed,
and else a client in Python, which is the slower part of what is measured then.
"""

import asyncio
import json
import shutil
import subprocess
import time
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Final

from bench.client import Target
from bench.measure import percentile
from bench.processes import ROOT, Failed

SCRIPT: Final = ROOT / "bench" / "post.lua"
TIMEOUT_SECONDS: Final = 30


@dataclass(frozen=True)
class Load:
    """How many requests were answered 2xx in which time, and how long they took."""

    requests: int
    seconds: float
    p50_ms: float
    p99_ms: float


def client() -> str:
    """Which client it is."""
    return "wrk" if shutil.which("wrk") else "a client in Python, as wrk is not installed"


def load(target: Target, path: str, bodies: Path, connections: int, seconds: float) -> Load:
    """Posts the lines of a file, again and again; raises Failed when one is not answered 2xx."""
    if shutil.which("wrk"):
        return _by_wrk(target, path, bodies, connections, seconds)
    requests = [target.post(path, line) for line in bodies.read_bytes().splitlines()]
    return asyncio.run(_by_asyncio(target.port, requests, connections, seconds))


def _by_wrk(target: Target, path: str, bodies: Path, connections: int, seconds: float) -> Load:
    headers = {**target.headers, "Content-Type": "application/json"}
    options = [part for name, value in headers.items() for part in ("-H", f"{name}: {value}")]
    options += [
        "-t1",
        f"-c{connections}",
        f"-d{seconds:.0f}s",
        f"--timeout={TIMEOUT_SECONDS}s",
        "-s",
        str(SCRIPT),
    ]
    command = ["wrk", *options, f"http://127.0.0.1:{target.port}{path}", "--", str(bodies)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 120, check=False)
    if done.returncode:
        raise Failed(f"wrk: {done.stderr or done.stdout}")
    said = json.loads(done.stdout.strip().splitlines()[-1])
    if failed := said.pop("failed"):
        raise Failed(f"{failed} of {said['requests']} requests failed")
    return Load(**said)


async def _by_asyncio(port: int, requests: list[bytes], connections: int, seconds: float) -> Load:
    """Each connection waits for the head and the body of an answer, and then sends the next request."""
    taken: list[float] = []
    waiting = cycle(requests)
    began = time.perf_counter()

    async def work() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while (sent := time.perf_counter()) - began < seconds:
            writer.write(next(waiting))
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            if not head.startswith(b"http/1.1 2"):
                raise Failed(f"answered {head[:60]!r}")
            await reader.readexactly(int(head.partition(b"content-length:")[2].split(b"\r\n", 1)[0]))
            taken.append((time.perf_counter() - sent) * 1_000)
        writer.close()

    async with asyncio.timeout(seconds + TIMEOUT_SECONDS), asyncio.TaskGroup() as group:
        for _ in range(connections):
            group.create_task(work())
    ended = time.perf_counter() - began
    return Load(len(taken), ended, percentile(taken, 0.50), percentile(taken, 0.99))
