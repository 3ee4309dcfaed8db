"""Attacks of `torture.abuse` in small, with limits lowered; whether abuse and soak find what they should."""

import asyncio
import dataclasses
import json
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from server import Server, start
from tenants import EVENTS, client, event, recorded
from torture import abuse, attackers, journal, mixed, soak, watch
from torture.attackers import CUT, OPEN, Attack, Outcome, Scene
from torture.http1 import Line, Target
from torture.recorder import Try
from torture.watch import MB, Usage

SECONDS = 2
TRAIL_EVENTS = 2_048
LIMITS = {
    "AUDITPLANE_LIMITS_IDLE_SECONDS": str(SECONDS),
    "AUDITPLANE_LIMITS_BODY_SECONDS": str(SECONDS),
    "AUDITPLANE_LIMITS_STALL_SECONDS": str(SECONDS),
}
LOOKS_SECONDS = 6.0
"""The server looks for idle connections every five seconds."""


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Mapping[str, str]]:
    """A folder with a trail that no socket's buffers hold, and the keys of its accounts."""
    path = tmp_path_factory.mktemp("abuse") / "base"
    return path, abuse.made(path, TRAIL_EVENTS)


@pytest.fixture(scope="module")
def server(base: tuple[Path, Mapping[str, str]]) -> Iterator[Server]:
    """A server that waits for two seconds where it waits for its clients."""
    with start(base[0], env=LIMITS) as started:
        yield started


def ended(server: Server, attack: Attack, seconds: float = 1.0, patience: float = 20.0) -> Outcome:
    """How the requests of an attack ended; the server is well after it."""
    scene = Scene(Target(server.port, server.admin_key), time.monotonic() + seconds, patience, 0, 1)
    outcome = attackers.run(attack, scene)
    check_is_well(server)
    assert not outcome.problems
    return outcome


def check_is_well(server: Server) -> None:
    with client(server.url, server.admin_key) as admin:
        assert admin.get("/health").json() == {"status": "ok"}
        recorded(admin.post(EVENTS, json=event()))


async def all_that_wait(scene: Scene) -> None:
    await asyncio.gather(
        attackers.idleness(scene, 200),
        attackers.no_bodies(scene, 30),
        attackers.trickles(scene, 20),
        attackers.half_bodies(scene, 4),
        attackers.unread_answers(scene, 40),
        attackers.stopped_readers(scene, 10),
    )


def test_whoever_is_waited_for_is_answered_or_cut_off_in_time(server: Server) -> None:
    """Idle connections, bodies that do not come, and readers that stop, all at once."""
    outcome = ended(server, all_that_wait, seconds=0.0)
    assert outcome.ended["408"] + outcome.ended["503"] == 30 + 20 + 4, "bodies have a bound together, too"
    assert outcome.ended["408"] >= 30
    assert outcome.ended[CUT] == 200 + 40 + 10
    assert set(outcome.ended) <= {"408", "503", CUT}
    assert outcome.longest_seconds < SECONDS + 2 * LOOKS_SECONDS


QUICK: dict[str, tuple[Attack, set[str]]] = {
    "churn": (partial(attackers.churn, number=8), {"left", "200"}),
    "heads": (partial(attackers.heads, number=9), {"200", "400", "401", "406", "414", "431", CUT}),
    "hard bodies": (partial(attackers.hard_bodies, number=2), {"201", "400", "413", "503", CUT}),
    "bombs": (partial(attackers.bombs, number=2), {"400", "413", "503", CUT}),
    "wrong keys": (partial(attackers.wrong_keys, number=4), {"401", "429"}),
    "broken downloads": (partial(attackers.broken_downloads, number=4), {"200"}),
    "queries": (partial(attackers.queries, number=4), {"200", "429"}),
}


@pytest.mark.parametrize("name", QUICK)
def test_abuse_is_answered_or_cut_off(server: Server, name: str) -> None:
    """With no error of the server's own, and the server goes on."""
    attackers.hard_texts()
    attackers.packed_bombs()
    attack, expected = QUICK[name]
    outcome = ended(server, attack)
    assert outcome.ended
    assert set(outcome.ended) <= expected


def test_the_server_took_it_for_no_error_of_its_own(server: Server) -> None:
    """Whatever was sent before this test."""
    check_is_well(server)
    assert watch.complaints(server.log) == []


# Abuse finds what it should.


def test_a_scenario_from_end_to_end(
    base: tuple[Path, Mapping[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Recorded evenly, attacked, aimed at what does nothing, and read back."""
    monkeypatch.setattr(abuse, "QUIET_SECONDS", 0.5)
    scenario = abuse.Scenario("x", "x", partial(attackers.churn, number=4), seconds=1.0, rounds=1)
    result = abuse.tried(scenario, *base)
    assert (len(result.quiet), len(result.machine)) == (2, 1)
    assert result.memory_bytes > 30 * MB
    assert result.outcome.ended["200"] > 0
    for how in ("kept", "anew", "eager"):
        assert any(each.how == how and each.id for each in result.tries)
    assert not [problem for problem in result.problems if "p99" not in problem]
    assert abuse.row(scenario, result).count("|") == abuse.header().splitlines()[0].count("|")


def attacked(seconds: float = 0.01, status: int = 201, **more: Any) -> abuse.Result:
    """A result whose p99 is 10 ms while it is quiet."""
    tries = [
        Try("kept", at / 10, 0.01 if at < 100 else seconds, 201 if at < 100 else status) for at in range(200)
    ]
    return abuse.Result(quiet=[(0.0, 10.0)], attacked=[(10.0, 20.0)], tries=tries, **more)


@pytest.mark.parametrize(
    ("result", "found"),
    [
        (attacked(), []),
        (attacked(0.031), ["p99 of recording 3.1 times its quiet value"]),
        (attacked(status=503), ["100 of 100 evenly recorded events were refused or not answered"]),
        (attacked(memory_bytes=401 * MB), ["memory of 401 MB"]),
    ],
)
def test_what_exceeds_its_bound_is_told(result: abuse.Result, found: list[str]) -> None:
    assert list(abuse.judged(result)) == found


def test_requests_that_did_not_end_well_are_told() -> None:
    outcome = Outcome(problems=["x"])
    for how in (OPEN, "500", "503", "200", CUT):
        outcome.end(how, 1.0)
    assert list(abuse.judged(attacked(outcome=outcome))) == [
        "1 requests were neither answered nor cut off", "1 requests were answered with 500", "x",
    ]  # fmt: skip


def test_a_lost_event_is_told(server: Server, base: tuple[Path, Mapping[str, str]]) -> None:
    tries = [Try("kept", 0.0, 0.0, 201, "01JQ0000000000000000000000")]
    assert list(abuse._after(server, base[1]["steady"], tries)) == ["1 acknowledged events are not there"]


# Soak finds what it should.


def test_a_soak_from_end_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All that is done in it goes well, and is compared with what was acknowledged."""
    monkeypatch.setattr(soak, "OLD_EVENTS", 100)
    monkeypatch.setattr(soak, "ARCHIVE_EVENTS", 1_000)
    run = soak.soaked(tmp_path, seconds=3.0, seed=1)
    assert run.problems == []
    assert {"record", "batch", "feed", "page view", "erase", "metrics"} <= run.told.took.keys()
    assert len(run.told.acknowledged["default"]) > 10
    assert len(run.samples) > 10
    assert {"main", "worker 1", "worker 2"} <= run.samples[-1].processes.keys()
    assert 1 * MB < run.samples[-1].database_bytes < run.samples[-1].memory_bytes


def samples_of(name: str, taken: Sequence[tuple[int, int, int]], held: int = 0) -> list[soak.Sample]:
    """What a process took: memory, of it `held` by SQLite, and write-ahead log in MB, threads, open files."""
    return [
        soak.Sample(at, {name: Usage(memory * MB, threads, handles)}, held * MB, {"x": memory * MB}, 0, 0.0)
        for at, (memory, threads, handles) in enumerate(taken)
    ]


def samples(of: Callable[[int], int]) -> list[soak.Sample]:
    """What a server took that takes ever more of everything, as a function tells."""
    return samples_of("main", [(of(at), of(at), of(at)) for at in range(100)])


def test_growth_is_told() -> None:
    """Not that of the first quarter, in which caches fill, nor that of a moment."""
    assert soak.grown(samples(lambda at: 100 + at)) == [
        "memory in MB without that of SQLite grew from 137.0 to 187.0", "open files grew from 137.0 to 187.0",
        "a write-ahead log had 199.0 MB", "main had 199 threads, at most 100 were to be",
    ]  # fmt: skip
    taken = [(memory, 30, memory) for memory in (*range(30, 60), *[60] * 70)]
    assert soak.grown(samples_of("main", taken)) == []
    assert soak.grown(samples_of("main", taken, held=214)) == ["SQLite held 214.0 MB"]
    assert soak.grown(samples_of("main", [(70 if at % 10 == 9 else 30, 30, 30) for at in range(100)])) == []


def test_pools_may_fill_and_no_thread_more() -> None:
    """In a worker; the process that looks after the folder has none."""
    for more, told in ((0, 0), (1, 1)):
        taken = [(30, 20, 30), *[(30, 20 + soak.POOLED_THREADS + more, 30)] * 99]
        assert len(soak.grown(samples_of("worker 1", taken))) == told
    assert len(soak.grown(samples_of("main", [(30, 20, 30), *[(30, 21, 30)] * 99]))) == 1


def test_what_soak_lost_or_showed_wrongly_is_told() -> None:
    told = journal.Told()
    told.acknowledged["a"] += ["1", "2", "3"]
    told.erased["a"].add("2")
    told.fed["a"] += ["1", "3"]
    assert list(soak.differences("a", ["1", "3"], told)) == []
    assert list(soak.differences("a", ["1", "1", "2"], told)) == [
        "a: 1 ids stand twice",
        "a: 1 of 3 acknowledged events are not there: 3",
        "a: 1 erased events are there",
        "a: the feed missed events, or showed them twice",
    ]


def test_errors_in_the_log_are_told(tmp_path: Path) -> None:
    path = tmp_path / "log"
    lines = [
        {"time": "x", "level": "info", "message": "request", "status": 503},
        {"time": "x", "level": "warning", "message": "a reader took nothing"},
        {"time": "x", "level": "error", "message": "an answer broke off"},
    ]
    path.write_text(
        "".join(json.dumps(line) + "\n" for line in lines) + "Traceback (most recent call last):\n"
    )
    assert watch.complaints(path) == [
        "the server logged: an answer broke off ", "the server printed: Traceback (most recent call last):",
    ]  # fmt: skip


def test_what_is_wrong_is_written_down_and_the_others_go_on(server: Server, tmp_path: Path) -> None:
    """An answer that is not as it should be, and a server that is gone."""
    notes = journal.Journal(tmp_path / "x.journal")
    place = mixed.Place(server.data, server.port, {"default": "ap_wrong"}, tmp_path)
    gone = dataclasses.replace(place, port=1)
    for where in (place, gone):
        mixed._repeat(
            mixed.Actor(mixed.record_one, "default", 0.01), where, notes, "x", time.monotonic() + 0.1
        )
    problems = [text for _, text in journal.read(tmp_path).problems]
    assert any("record was answered with 401" in text for text in problems)
    assert any("ConnectionRefusedError" in text for text in problems)


def test_a_body_does_not_wait_for_the_acknowledgement_of_its_head(server: Server) -> None:
    """What is measured would be the 40 ms that the other side may take for it."""

    async def is_sent_at_once() -> bool:
        line = await Line.open(Target(server.port, "none"))
        made = line._writer.get_extra_info("socket")
        found = made.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        line.close()
        return bool(found)

    assert asyncio.run(is_sent_at_once())
