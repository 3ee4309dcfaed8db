import contextlib
import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import pytest

from server import start
from tenants import EVENTS, Json, client
from torture.kills import Crowd, check

KILLS = 12
RECORDERS = 4


def listed(
    admin: httpx2.Client, accept: str = "application/json", **parameters: Any
) -> tuple[list[Json], int]:
    """A list, and the size of the log that it shows."""
    answer = admin.get(EVENTS, params=parameters, headers={"Accept": accept})
    assert answer.status_code == 200, answer.text
    size = int(answer.headers["Auditplane-Log-Size"])
    if accept == "application/json":
        return msgspec.json.decode(answer.content), size
    return [msgspec.json.decode(line) for line in answer.content.splitlines()], size


@pytest.mark.timeout(900)  # it starts many servers: slow on a busy machine
def test_nothing_acknowledged_is_lost_by_a_kill(tmp_path: Path) -> None:
    """A dozen times: every acknowledged event is there, none twice, no request by half, no index missing."""
    crowd = Crowd(random.Random(20_260_101), RECORDERS, exporters=1)
    with contextlib.ExitStack() as ends:
        for turn in range(KILLS):
            server = ends.enter_context(start(tmp_path / "data", "--workers", "2" if turn % 4 == 3 else "1"))
            with client(server.url, server.admin_key) as admin:
                trail, size = listed(admin, order="recorded")
                assert len(trail) == size
                check(trail, crowd.sent)
                some = crowd.chosen.randrange(size)
                assert listed(admin, order="recorded", after=some)[0] == trail[some + 1 :]
            crowd.run(server, 0.02 + crowd.chosen.random() * 0.5)
            assert "Traceback" not in server.output, server.output
        server = ends.enter_context(start(tmp_path / "data"))
        with client(server.url, server.admin_key) as admin:
            trail, size = listed(admin, order="recorded")
            check(trail, crowd.sent)
            by_time, _ = listed(admin, accept="application/x-ndjson")
            assert sorted(by_time, key=str) == sorted(trail, key=str)
            assert admin.get(f"{EVENTS}/count").json()["count"] == size == len(trail)
        assert server.stop() == 0
    acknowledged = sum(len(sent.events) for sent in crowd.sent if sent.ids is not None)
    assert acknowledged > KILLS * 100


def test_workers_end_when_their_parent_is_killed(tmp_path: Path) -> None:
    """Nobody else would end them; a new server waits for that, and has the folder to itself."""
    with start(tmp_path / "data", "--workers", "2") as server:
        group = server.process.pid
        os.kill(group, signal.SIGKILL)
        server.process.wait()
        with start(tmp_path / "data", port=server.port) as again:
            deadline = time.monotonic() + 5
            while _alive(group):
                assert time.monotonic() < deadline
                time.sleep(0.02)
            with client(again.url, again.admin_key) as admin:
                assert admin.get(EVENTS).status_code == 200


def _alive(group: int) -> bool:
    """Whether a process of a group is left."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True
