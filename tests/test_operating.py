import contextlib
import fcntl
import http.client
import json
import os
import re
import select
import signal
import socket
import struct
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import httpx2
import pytest

from auditplane import errors, log
from auditplane.access import Access
from auditplane.event import Rules, parse
from auditplane.http import lines, metrics, problems
from auditplane.store.sqlite.fetched import Fetched, keep_fetched
from folders import FreeFolder
from keepers import days_ago, record_old
from server import PROGRAM, Server, environment, free_port, launch, make_key, start
from tenants import DOWNLOAD, EVENTS, Json, client, event, events

PAGE = (Path(__file__).resolve().parents[1] / "docs" / "operating.md").read_text()
ALWAYS: Final = [
    "time",
    "level",
    "message",
    "method",
    "route",
    "status",
    "seconds",
    "bytes",
    "whole",
    "client",
]
SAMPLE = re.compile(r"^(auditplane_\w+)(\{.*\})? (\S+)$", re.MULTILINE)


def eventually(check: Callable[[], bool], seconds: float = 60) -> None:
    """Returns once it holds."""
    deadline = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < deadline, check
        time.sleep(0.02)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with two workers."""
    with start(tmp_path_factory.mktemp("operating") / "data", "--workers", "2") as running:
        eventually(lambda: metric(running, "auditplane_workers") == 2)
        yield running


@pytest.fixture
def admin(pair: Server) -> Iterator[httpx2.Client]:
    with client(pair.url, pair.admin_key) as made:
        yield made


def wait_for_lines(server: Server, before: int, count: int) -> list[Json]:
    """What was logged of so many requests, and not of more."""
    eventually(lambda: len(server.requests) >= before + count)
    time.sleep(0.1)
    found = server.requests[before:]
    assert len(found) == count, found
    return found


# Lines.


def raw(server: Server, method: str, path: str, body: bytes = b"", **headers: str) -> tuple[int, int]:
    """The status and the bytes of the body that came over the socket."""
    head = {"Host": "x", "Connection": "close", "Content-Length": str(len(body)), **headers}
    text = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in head.items())
    with socket.create_connection(("127.0.0.1", server.port), 10) as connection:
        connection.sendall(f"{method} {path} HTTP/1.1\r\n{text}\r\n".encode() + body)
        answer = http.client.HTTPResponse(connection, method=method)
        answer.begin()
        return answer.status, len(answer.read())


def test_each_request_is_one_line_that_says_what_its_client_saw(pair: Server) -> None:
    """Status and bytes are those of the wire, for each kind of route and with two workers."""
    key = {"X_Bindplane_Api_Key": pair.admin_key}
    new = json.dumps(event()).encode()
    asked: list[tuple[str, str, bytes, dict[str, str], str]] = [
        ("GET", "/v1/audit-events", b"", key, "/v1/audit-events"),
        ("HEAD", "/v1/audit-events", b"", key, "/v1/audit-events"),
        ("POST", "/v1/audit-events", new, {**key, "Content_Type": "application/json"}, "/v1/audit-events"),
        ("POST", "/v1/audit-events", b"[", {**key, "Content_Type": "application/json"}, "/v1/audit-events"),
        ("GET", "/v1/audit-events?user=somebody@example.com", b"", key, "/v1/audit-events"),
        ("GET", "/v1/audit-events/secret-id", b"", key, "/v1/audit-events/{id}"),
        ("GET", DOWNLOAD, b"", {**key, "Accept_Encoding": "gzip"}, DOWNLOAD),
        ("HEAD", DOWNLOAD, b"", key, DOWNLOAD),
        ("GET", "/v1/log/default/checkpoint", b"", key, "/v1/log/{account}/checkpoint"),
        ("GET", "/v1/audit-events", b"", {**key, "X_Bindplane_Account_Id": "others"}, "/v1/audit-events"),
        ("GET", "/v1/audit-events", b"", {}, "/v1/audit-events"),
        ("DELETE", "/v1/audit-events", b"", key, "/v1/audit-events"),
        ("BREW", "/v1/audit-events", b"", key, "/v1/audit-events"),
        ("GET", "/nowhere/at-all", b"", key, "none"),
        ("GET", "/", b"", {}, "/"),
        ("GET", "/sign-in", b"", {}, "/sign-in"),
        ("HEAD", "/sign-in/some-link", b"", {}, "/sign-in/{link}"),
        ("GET", "/health/live", b"", {}, "/health/live"),
        ("GET", "/openapi.json", b"", {}, "/openapi.json"),
    ]
    time.sleep(0.2)  # lines of what was asked before are written by then
    for method, path, body, headers, route in asked:
        before = len(pair.requests)
        status, size = raw(pair, method, path, body, **headers)
        (line,) = wait_for_lines(pair, before, 1)
        told = (line["method"], line["route"], line["status"], line["bytes"])
        assert told == ("other" if method == "BREW" else method, route, status, size), (method, path)
        assert (line["level"], line["message"], line["client"]) == ("info", "request", "127.0.0.1")
        assert line["whole"] is True
        assert 0 < line["seconds"] < 10
        knows = "X_Bindplane_Api_Key" in headers and status not in (404, 405)
        members = [*ALWAYS, "key", "account"] if knows or route.endswith("{id}") else ALWAYS
        assert list(line) == members, line
        assert line.get("account", "default") == "default"
    text = pair.log.read_text()
    assert all(word not in text for word in ("somebody", "secret-id", "at-all", "some-link", pair.admin_key))


def test_the_members_of_a_line_are_those_of_the_page() -> None:
    """The example and the table of docs/operating.md name each, and nothing else."""
    (example,) = re.findall(r"```json\n(.*?)\n```", PAGE, re.DOTALL)
    assert list(json.loads(example)) == [*ALWAYS, "key", "account"]
    table = PAGE.partition("## Log")[2].partition("##")[0]
    told = {
        name
        for row in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE)
        for name in re.findall(r"`(\w+)`", row)
    }
    assert told == {*ALWAYS, "key", "account", "exception", "left_out"}


def statuses_since(pair: Server, before: int) -> Counter[int]:
    """How often each status stands in later lines of requests for single events; others may come late."""
    found = pair.requests[before:]
    return Counter(line["status"] for line in found if line["route"] == f"{EVENTS}/{{id}}")


def test_no_line_is_torn_or_lost_when_workers_write_at_once(pair: Server) -> None:
    """Each of many requests, from several clients to two workers, is one whole line of JSON."""
    before = len(pair.requests)

    def ask(number: int) -> None:
        with client(pair.url, pair.admin_key) as mine:
            for at in range(150):
                assert mine.get(f"{EVENTS}/{number}-{at}").status_code == 404

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    eventually(lambda: statuses_since(pair, before).total() >= 600)
    assert statuses_since(pair, before) == {404: 600}
    for line in pair.log.read_text().splitlines():
        assert not line.startswith("{") or json.loads(line)["time"]


def test_an_answer_that_broke_off_is_not_whole(tmp_path: Path) -> None:
    """The line says so, and how much was handed over at least what the client took."""
    data = tmp_path / "data"
    folder = FreeFolder(data)
    Access(folder, log.clock).close()
    with folder.account("default") as store:
        batch = parse(json.dumps(events(4_000, description="x" * 4_000)).encode(), Rules())
        log.record(store, [log.Request(batch, "test")], log.clock)
    folder.close()
    with start(data) as server:
        with socket.create_connection(("127.0.0.1", server.port), 10) as reader:
            head = f"GET {EVENTS} HTTP/1.1\r\nHost: x\r\nX-Bindplane-Api-Key: {server.admin_key}\r\n\r\n"
            reader.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            reader.sendall(head.encode())
            taken = len(reader.recv(100_000))
        eventually(lambda: any(line["route"] == EVENTS for line in server.requests))
        (line,) = [line for line in server.requests if line["route"] == EVENTS]
        assert (line["status"], line["whole"]) == (200, False)
        assert line["bytes"] > taken - 1_000


def test_lines_of_requests_can_be_turned_off_and_others_stay(tmp_path: Path) -> None:
    """`server.log_requests = false` leaves out requests only."""
    env = {"AUDITPLANE_SERVER_LOG_REQUESTS": "false"}
    with start(tmp_path / "data", env=env) as server, client(server.url, server.admin_key) as admin:
        (server.data / "log.key").unlink()
        assert admin.get("/v1/log/default/checkpoint").status_code == 500
        eventually(lambda: "log.key" in server.output)
        (told,) = [json.loads(line) for line in server.output.splitlines() if line.startswith("{")]
        assert (told["level"], list(told)) == ("error", ["time", "level", "message"])
        assert server.requests == []


def unread(data: Path) -> tuple[Server, int]:
    """A server that writes its lines to a small pipe, and the end of the pipe to read from."""
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, select.PIPE_BUF)
    port = free_port()
    process = subprocess.Popen(
        [PROGRAM, "serve", "--data", data, "--port", str(port)],
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=writing,
        start_new_session=True,
    )
    os.close(writing)
    eventually(lambda: is_served(port), 30)
    return Server(data, port, process, Path(os.devnull)), reading


def test_when_nobody_reads_the_lines_requests_go_on(tmp_path: Path) -> None:
    """Also those of which an error is logged; the lines are there once somebody reads."""
    server, reading = unread(tmp_path / "data")
    with server, client(server.url, server.admin_key) as admin:
        (server.data / "log.key").unlink()
        for _ in range(100):
            assert admin.get("/v1/log/default/checkpoint").status_code == 500
            assert admin.post(EVENTS, json=event()).status_code == 201
        assert metric(server, "auditplane_commit_seconds_count") == 100
        told = read_all_for(reading, 0.5)
        counts = Counter(str(line.get("status", line["level"])) for line in told)
        assert (counts["500"], counts["201"], counts["error"]) == (100, 100, 100)
        for _ in range(100):
            assert admin.get("/v1/log/default/checkpoint").status_code == 500
        assert server.stop() == 0
    os.close(reading)


@pytest.mark.parametrize("blocking", [True, False])
def test_lines_that_nobody_read_are_counted_and_told_of(blocking: bool) -> None:
    """All that was added is either read or in the number of those that were left out."""
    reading, writing = os.pipe()
    os.set_blocking(writing, blocking)
    written = lines.Lines(writing)
    added = lines.WAITING_MAX * 2
    for number in range(added):
        written.add_request({"number": number})
    assert written.left_out_total > 0
    written.flush()  # which does not wait for ever
    told = read_all_for(reading, 0.5)
    (left_out,) = [line["left_out"] for line in told if line.get("message") == lines.LEFT_OUT]
    assert left_out == written.left_out_total == added - (len(told) - 1)
    numbers = [line["number"] for line in told if "number" in line]
    assert numbers == sorted(numbers)
    written.add_request({"number": added})
    written.flush()
    assert read_all_for(reading, 0.1) == [{"number": added}]
    os.close(reading)
    os.close(writing)


def is_served(port: int) -> bool:
    with contextlib.suppress(OSError):
        socket.create_connection(("127.0.0.1", port), 1).close()
        return True
    return False


def read_all_for(descriptor: int, seconds: float) -> list[Json]:
    """The lines that come until none comes for so long."""
    data = b""
    while select.select([descriptor], [], [], seconds)[0]:
        data += os.read(descriptor, 1 << 20)
    return [json.loads(line) for line in data.splitlines()]


def test_a_server_whose_standard_error_is_closed_serves_on(tmp_path: Path) -> None:
    """Who read the lines may have ended."""
    server, reading = unread(tmp_path / "data")
    os.close(reading)
    with server, client(server.url, server.admin_key) as admin:
        for _ in range(20):
            assert admin.post(EVENTS, json=event()).status_code == 201
        assert server.stop() == 0


# Metrics.


def samples(server: Server) -> dict[str, float]:
    """Each sample of the exposition, by name and labels."""
    text = httpx2.get(f"{server.url}/metrics").text
    return {name + labels: float(value) for name, labels, value in SAMPLE.findall(text)}


def metric(server: Server, name: str) -> float:
    """The sum of all samples of a name."""
    return sum(value for key, value in samples(server).items() if key.partition("{")[0] == name)


def threads(server: Server) -> int:
    """How many the processes of a server have, by the system's count."""
    main = Path(f"/proc/{server.process.pid}/task")
    children = (main / str(server.process.pid) / "children").read_text().split()
    workers = [pid for pid in children if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    return sum(
        len(list(tasks.iterdir())) for tasks in (main, *(Path(f"/proc/{pid}/task") for pid in workers))
    )


def test_what_is_exposed_is_documented_and_the_other_way_round(pair: Server) -> None:
    """The table of docs/operating.md has each metric of a server that was asked for nothing special."""
    text = httpx2.get(f"{pair.url}/metrics").text
    exposed = set(re.findall(r"^# TYPE (auditplane_\w+) ", text, re.MULTILINE))
    told = re.findall(r"^\| `(auditplane_\w+)` \|", PAGE, re.MULTILINE)
    assert len(told) == len(set(told))
    assert exposed == set(told)
    assert set(re.findall(r"^# TYPE (\w+) ", text, re.MULTILINE)) == exposed
    for name in exposed:
        assert re.search(rf"^# HELP {name} \S", text, re.MULTILINE)


def test_metrics_move_as_documented(pair: Server, admin: httpx2.Client) -> None:
    """Commits, requests, checkpoints, processes: each is counted once, whichever worker did it."""
    before = samples(pair)
    requests = 'auditplane_request_seconds_count{method="POST",route="/v1/audit-events",status="201"}'
    for _ in range(20):
        with client(pair.url, pair.admin_key) as mine:  # a connection each, so that both workers get some
            assert mine.post(EVENTS, json=events(3)).status_code == 201
    deadline = time.monotonic() + 20
    # It is measured now and then, and threads begin when they are needed.
    while abs((after := samples(pair))["auditplane_threads"] - threads(pair)) > 4:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    grown = {name: after[name] - before.get(name, 0.0) for name in after}
    assert grown["auditplane_events_recorded_total"] == 60
    assert grown["auditplane_commit_seconds_count"] == 20
    assert 0 < grown["auditplane_commit_seconds_sum"] < 20
    assert grown[requests] == 20
    assert after["auditplane_accounts"] == 1
    assert after["auditplane_workers"] == 2
    assert after["auditplane_workers_started_total"] == 2
    assert 30e6 < after["auditplane_memory_bytes"] < 1e9
    assert 1e5 < after["auditplane_database_memory_bytes"] < 30e6
    assert 10 < after["auditplane_open_files"] < after["auditplane_open_files_limit"]
    assert after["auditplane_disk_free_bytes"] <= after["auditplane_disk_size_bytes"]
    assert time.time() - 600 < after["auditplane_start_timestamp_seconds"] < time.time()
    assert after["auditplane_tls_certificate_expiry_timestamp_seconds"] == 0
    assert after["auditplane_purge_lag_seconds"] == after["auditplane_upkeep_failing_accounts"] == 0
    assert after['auditplane_refused_total{reason="StorageFull"}'] == 0

    assert admin.get("/v1/log/default/checkpoint").status_code == 200
    assert admin.post(EVENTS, json=event()).status_code == 201
    eventually(lambda: 0 < metric(pair, "auditplane_checkpoint_lag_seconds") < 30)
    time.sleep(1)  # a checkpoint may be so old
    assert admin.get("/v1/log/default/checkpoint").status_code == 200
    eventually(lambda: metric(pair, "auditplane_checkpoint_lag_seconds") == 0)
    eventually(lambda: samples(pair)["auditplane_upkeep_timestamp_seconds"] > time.time() - 1)
    spent = samples(pair)["auditplane_cpu_seconds_total"]
    eventually(lambda: samples(pair)["auditplane_cpu_seconds_total"] > spent)


def test_unsealed_events_and_the_write_ahead_log_are_told(pair: Server, admin: httpx2.Client) -> None:
    """They grow with what is recorded; the tail then stays below its bound."""
    recorded = 0
    for _ in range(3):
        assert admin.post(EVENTS, json=events(1_500)).status_code == 201
        recorded += 1_500
        eventually(lambda: 0 < metric(pair, "auditplane_unsealed_events") <= 8_192)
    eventually(lambda: metric(pair, "auditplane_wal_bytes") > 0)


def test_long_answers_and_requests_under_way_are_told(pair: Server) -> None:
    """A body that trickles in is a request under way, and one no more when it has ended."""
    with socket.create_connection(("127.0.0.1", pair.port), 10) as slow:
        head = f"POST {EVENTS} HTTP/1.1\r\nHost: x\r\nX-Bindplane-Api-Key: {pair.admin_key}\r\n"
        slow.sendall(head.encode() + b"Content-Length: 9\r\n\r\n[")
        eventually(lambda: metric(pair, "auditplane_requests_under_way") >= 1)
    eventually(lambda: metric(pair, "auditplane_requests_under_way") <= 1)


def status_of(kind: type[errors.AuditplaneError]) -> int:
    """The status of a class of errors."""
    return next(problems.STATUS[each] for each in kind.__mro__ if each in problems.STATUS)


def kinds_of(kind: type[errors.AuditplaneError]) -> set[type[errors.AuditplaneError]]:
    """A class of errors of `errors`, and all below it."""
    below = (each for each in kind.__subclasses__() if each.__module__ == errors.__name__)
    return {kind}.union(*map(kinds_of, below))


def test_every_reason_to_fail_is_there_before_it_comes(tmp_path: Path) -> None:
    """A series that begins with its first error shows no growth. One of another class joins its ancestor."""
    own = {kind for kind in kinds_of(errors.AuditplaneError) if status_of(kind) >= 500}
    own -= {errors.Refused, errors.ConnectionLost}  # what a client makes of an answer, or of none
    with start(tmp_path / "data") as server:
        told = {name: value for name, value in samples(server).items() if "refused_total" in name}
    reasons = {*(kind.__name__ for kind in own), "bug"}
    assert told == {f'auditplane_refused_total{{reason="{reason}"}}': 0 for reason in reasons}
    for kind in kinds_of(errors.AuditplaneError) - {errors.Refused}:
        assert metrics.reason_of(kind("x")) in reasons
    assert metrics.reason_of(errors.Unconfirmed("x")) == "StoreError"
    assert metrics.reason_of(KeyError("x")) == "bug"


def test_keys_that_are_tried_are_counted_from_nothing(tmp_path: Path) -> None:
    """A first burst is growth; a key that works and is over its rate is none that was tried."""
    env = {"AUDITPLANE_LIMITS_READS_PER_MINUTE": "2"}
    with start(tmp_path / "data", env=env) as server, client(server.url, server.admin_key) as admin:
        assert samples(server)["auditplane_keys_tried_total"] == 0
        assert 429 in [admin.get(EVENTS).status_code for _ in range(5)]
        with client(server.url, "ap_nobodys") as thief:
            assert [thief.get(EVENTS).status_code for _ in range(5)] == [401] * 5
        assert samples(server)["auditplane_keys_tried_total"] == 5
        with httpx2.Client(base_url=server.url, headers={"Origin": server.url}) as thief:
            answers = {thief.post("/sign-in", data={"key": "ap_nobodys"}).status_code for _ in range(25)}
        assert answers == {401, 429}
        assert samples(server)["auditplane_keys_tried_total"] == 30


def test_odd_requests_make_no_end_of_series(pair: Server) -> None:
    """Methods and paths that a caller invents are one series, and the files keep their size."""

    def sizes() -> dict[str, int]:
        return {path.name: path.stat().st_size for path in (pair.data / "metrics").iterdir()}

    before = sizes()
    for number in range(60):
        raw(pair, f"M{number}", f"/p{number}")
        raw(pair, "GET", f"/v1/audit-events/{number}")
    names = [name for name in samples(pair) if "_count{" in name]
    assert 'auditplane_request_seconds_count{method="other",route="none",status="404"}' in names
    assert len(names) < 60
    assert sizes() == before


def test_a_worker_never_writes_beyond_the_room_that_was_made_for_metrics(tmp_path: Path) -> None:
    """More series than fit become one: to touch a page that a full disk lacks ends a process."""
    code = """
import os, pathlib, sys
os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder = sys.argv[1]
from auditplane.http.server import _make_room_for_metrics
_make_room_for_metrics(pathlib.Path(folder))
before = {path.name: path.stat().st_size for path in pathlib.Path(folder).iterdir()}
from auditplane.http import metrics
for route in range(5_000):
    for status in (200, 404, 507):
        metrics.count_request(f"/v1/log/a-route-of-more-than-usual-length/{route}", "OPTIONS", status, 0.1)
metrics.Process().measure()
text = metrics.exposition(pathlib.Path(folder)).decode()
assert 'auditplane_request_seconds_count{method="other",route="other",status="507"} 4' in text, text
after = {path.name: path.stat().st_size for path in pathlib.Path(folder).iterdir()}
assert before == after, (before, after)
"""
    done = subprocess.run(
        [PROGRAM.with_name("python"), "-c", code, tmp_path], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_a_worker_that_ends_is_told_of(tmp_path: Path) -> None:
    """Its gauges go with it, its counts stay, and the one in its place is counted as begun."""
    with start(tmp_path / "data", "--workers", "2") as server, client(server.url, server.admin_key) as admin:
        assert admin.post(EVENTS, json=events(5)).status_code == 201
        eventually(lambda: metric(server, "auditplane_workers_started_total") == 2)
        assert metric(server, "auditplane_events_recorded_total") == 5
        with contextlib.suppress(httpx2.HTTPError):
            os.kill(worker_pids(server)[0], signal.SIGKILL)
        eventually(lambda: is_counted(server, "auditplane_workers_started_total", 3))
        eventually(lambda: is_counted(server, "auditplane_workers", 2))
        assert metric(server, "auditplane_events_recorded_total") == 5


def is_counted(server: Server, name: str, value: float) -> bool:
    with contextlib.suppress(httpx2.HTTPError):
        return metric(server, name) == value
    return False


def worker_pids(server: Server) -> list[int]:
    """The processes that hold the lock of the workers' open."""
    wanted = (server.data / "workers.lock").resolve()
    found = []
    for task in Path(f"/proc/{server.process.pid}/task").iterdir():
        for pid in map(int, (task / "children").read_text().split()):
            with contextlib.suppress(OSError):
                if any(link.resolve() == wanted for link in Path(f"/proc/{pid}/fd").iterdir()):
                    found.append(pid)
    return found


def test_the_lag_of_a_purge_and_upkeep_that_fails_are_told_and_end(tmp_path: Path) -> None:
    """An account that can't be looked after is counted as long as that lasts, and no longer."""
    data = tmp_path / "data"
    with start(data, "--workers", "2") as server:
        make_key(data, "writer", "other")
        eventually(lambda: metric(server, "auditplane_accounts") == 2)
        assert metric(server, "auditplane_upkeep_failing_accounts") == 0
        database = data / "accounts" / "broken.db"
        database.write_bytes(b"no database at all" * 1_000)
        eventually(lambda: metric(server, "auditplane_upkeep_failing_accounts") == 1)
        assert httpx2.get(f"{server.url}/health").status_code == 200
        database.unlink()
        eventually(lambda: metric(server, "auditplane_upkeep_failing_accounts") == 0)


def test_the_lag_of_a_purge_grows_until_it_is_done(tmp_path: Path) -> None:
    """What expires within a round of the last purge waits for the next one."""
    data = tmp_path / "data"
    day_us = 24 * 3_600 * 1_000_000
    folder = FreeFolder(data)
    Access(folder, log.clock).close()
    with folder.account("default") as store:
        batch = parse(json.dumps(events(50)).encode(), Rules())
        log.record(store, [log.Request(batch, "test")], lambda: log.clock() - 3 * day_us)
        log.record(
            store,
            [log.Request(parse(json.dumps(events(50)).encode(), Rules()), "test")],
            lambda: log.clock() - day_us - 60_000_000,
        )
    folder.close()
    with (
        start(data, env={"AUDITPLANE_AUDIT_TRAIL_RETENTION_DAYS": "2"}) as server,
        client(server.url, server.admin_key) as admin,
    ):
        eventually(lambda: '"Purged 50 expired' in admin.get(EVENTS).text)
        eventually(lambda: metric(server, "auditplane_purge_lag_seconds") == 0)
        assert admin.put("/v1/retention", json={"days": 1}).status_code == 200
        eventually(lambda: metric(server, "auditplane_purge_lag_seconds") > 0.5)
        lag = metric(server, "auditplane_purge_lag_seconds")
        eventually(lambda: metric(server, "auditplane_purge_lag_seconds") > lag)


def lag_days(server: Server) -> float:
    """For how long events wait for a checkpoint, in days."""
    return metric(server, "auditplane_checkpoint_lag_seconds") / 86_400


def test_the_lag_of_checkpoints_is_that_of_the_oldest_event_that_none_covers(tmp_path: Path) -> None:
    """A quiet log waits for none, a restart ends nothing, and an account that is watched hides no other."""
    data = tmp_path / "data"
    Access(FreeFolder(data), log.clock).close()
    for account in ("default", "dropped", "never"):
        record_old(data, account, 9, events(2))
    for account in ("default", "dropped"):
        keep_fetched(data, account, Fetched(2, days_ago(8)()))
    with start(data) as server, client(server.url, server.admin_key) as admin:
        path = "/v1/log/default/checkpoint"
        assert admin.get(path).status_code == admin.get(path).status_code == 200
        eventually(lambda: metric(server, "auditplane_accounts") == 3)
        eventually(lambda: lag_days(server) == 0)
        time.sleep(1)
        assert lag_days(server) == 0
    record_old(data, "dropped", 3, events(1))
    record_old(data, "dropped", 2, events(1))
    for _ in range(2):
        with start(data, "--workers", "2") as server, client(server.url, server.admin_key) as admin:
            eventually(lambda: 3 < lag_days(server) < 3.1)
            assert admin.get(path).status_code == 200
            time.sleep(1)
            assert 3 < lag_days(server) < 3.1
    with start(data, "--workers", "2") as server:
        _, secret = make_key(data, "reader", "dropped")
        with client(server.url, secret) as auditor:
            id_ = auditor.get(EVENTS).json()[0]["id"]
            assert auditor.get(f"{EVENTS}/{id_}/proof").status_code == 200
            assert auditor.get(f"{EVENTS}/evidence").status_code == 200
            assert auditor.head("/v1/log/dropped/checkpoint").status_code == 200
            time.sleep(6)
            assert 3 < lag_days(server) < 3.1  # nobody need keep those
            assert auditor.get("/v1/log/dropped/checkpoint").status_code == 200
        eventually(lambda: lag_days(server) == 0)
        (data / "accounts" / "never.fetched").write_text('{"size":1,"at_us":0}')
        eventually(lambda: 9 < lag_days(server) < 9.1)
        (data / "accounts" / "never.fetched").unlink()
        eventually(lambda: lag_days(server) == 0)


def test_metrics_can_be_kept_for_those_with_a_token(tmp_path: Path) -> None:
    """With `metrics.token` nobody else gets them, whoever has an API key; what is no token is refused."""
    token = tmp_path / "token"
    token.write_text("a-token-of-some-length\n")
    env = {"AUDITPLANE_METRICS_TOKEN": str(token)}
    with start(tmp_path / "data", env=env) as server:
        for given in (
            None,
            f"Bearer {server.admin_key}",
            "Basic a-token-of-some-length",
            "Bearer a-token",
            "Bearer a-token-of-some-lengthy",
        ):
            answer = httpx2.get(f"{server.url}/metrics", headers={"Authorization": given} if given else {})
            assert answer.status_code == 401
            assert "auditplane_" not in answer.text
            assert answer.headers["WWW-Authenticate"].startswith("Bearer")
        answer = httpx2.get(
            f"{server.url}/metrics", headers={"Authorization": "bearer a-token-of-some-length"}
        )
        assert answer.status_code == 200
        assert "auditplane_workers 1.0" in answer.text
        assert httpx2.get(f"{server.url}/health").status_code == 200
    for text in ("", "short", "two words of a sentence", "ключ-ключ-ключ-ключ"):
        token.write_text(text)
        refused = launch(tmp_path / "data", env=env)
        assert refused.process.wait(20) == 2
        assert "metrics.token" in refused.output


# Health.


def health(server: Server) -> tuple[int, str]:
    answer = httpx2.get(f"{server.url}/health", timeout=10)
    return answer.status_code, answer.json()["status"]


def test_health_is_false_while_the_disk_takes_nothing_and_goes_back_by_itself(tmp_path: Path) -> None:
    """Root may write everywhere, so the file that is written stands in for the disk: it can't be written."""
    with start(tmp_path / "data") as server:
        probe = server.data / "health"
        probe.unlink()
        probe.mkdir()
        eventually(lambda: health(server) == (503, "the disk takes no writes: nothing can be recorded"))
        assert httpx2.get(f"{server.url}/health/live").json() == {"status": "ok"}
        probe.rmdir()
        eventually(lambda: health(server) == (200, "ok"))
        eventually(lambda: "health: events can be recorded again" in server.output)
        assert "health: the disk takes no writes" in server.output
        assert str(server.data) in server.output  # for the operator, and not for anybody


def test_health_is_false_on_a_full_disk(tmp_path: Path) -> None:
    """It ends by itself, with two workers; what was refused is counted with its reason."""
    disk = tmp_path / "disk"
    disk.mkdir()
    options = ["-t", "tmpfs", "-o", "size=24m", "tmpfs", str(disk)]
    if subprocess.run(["mount", *options], capture_output=True, check=False).returncode:
        pytest.skip("needs a root who may mount a tmpfs")
    try:
        with start(disk / "data", "--workers", "2") as server, client(server.url, server.admin_key) as admin:
            full = 'auditplane_refused_total{reason="StorageFull"}'
            with (disk / "filler").open("ab", buffering=0) as filler, contextlib.suppress(OSError):
                while True:
                    filler.write(bytes(1 << 12))
            for _ in range(200):
                if admin.post(EVENTS, json=events(40, description="x" * 2000)).status_code == 507:
                    break
            assert health(server) == (503, "the disk is full: nothing can be recorded")
            assert samples(server)[full] >= 1
            assert metric(server, "auditplane_disk_free_bytes") < 1 << 20
            (disk / "filler").unlink()
            eventually(lambda: health(server) == (200, "ok"))
            assert metric(server, "auditplane_disk_free_bytes") > 1 << 20
            assert admin.post(EVENTS, json=event()).status_code == 201

            assert server.stop() == 0
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)
