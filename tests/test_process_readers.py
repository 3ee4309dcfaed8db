import contextlib
import re
import shutil
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import httpx2
import pytest

from auditplane import limits
from auditplane.store.sqlite.database import connect, fetch, one
from server import Server, start
from tenants import DOWNLOAD, EVENTS, client, event, events_of, recorded
from trails import BIG_EVENTS, big_trail

READERS = 20
MIB = 1024 * 1024


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a trail of more than 50 MB."""
    return big_trail(tmp_path_factory.mktemp("readers") / "data")


@pytest.fixture(scope="module")
def patient(data: Path) -> Iterator[Server]:
    """A server that waits a long time for its readers."""
    with start(data) as server:
        yield server


def worker(server: Server) -> Path:
    """What the system tells of the one process that serves."""
    children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text().split()
    (found,) = [pid for pid in children if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    return Path("/proc", found)


def threads(server: Server) -> int:
    return len(list((worker(server) / "task").iterdir()))


def memory_bytes(server: Server) -> int:
    (found,) = re.findall(r"VmRSS:\s+(\d+) kB", (worker(server) / "status").read_text())
    return int(found) * 1024


def connections(server: Server) -> int:
    """How many sockets the process that serves has open."""
    found = 0
    for descriptor in (worker(server) / "fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found += str(descriptor.readlink()).startswith("socket:")
    return found


def streams(admin: httpx2.Client) -> int:
    """How many long answers are under way, by the server's own count."""
    (found,) = re.findall(r"^auditplane_streams (\d+)\.0$", admin.get("/metrics").text, re.MULTILINE)
    return int(found)


def reader(
    server: Server, path: str = DOWNLOAD, version: str = "1.1", takes_bytes: int = 4096
) -> socket.socket:
    """A connection that asked for the whole trail; it takes no more by itself than so many bytes."""
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, takes_bytes)
    made.settimeout(30)
    made.connect(("127.0.0.1", server.port))
    head = f"GET {path} HTTP/{version}\r\nHost: x\r\nX-Bindplane-Api-Key: {server.admin_key}\r\n"
    made.sendall(f"{head}Connection: close\r\n\r\n".encode())
    return made


def wait_for(condition: Callable[[], bool], seconds: float = 15.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def read_to_the_end(connection: socket.socket) -> tuple[bytes, bool]:
    """What comes, and whether the connection was reset."""
    parts = []
    try:
        while part := connection.recv(1 << 16):
            parts.append(part)
    except ConnectionResetError:
        return b"".join(parts), True
    return b"".join(parts), False


def test_stalled_readers_hold_nothing_up(patient: Server) -> None:
    """They hold a bounded share of memory, no thread, and no snapshot; recording goes on beside them."""
    with client(patient.url, patient.admin_key) as admin, contextlib.ExitStack() as stack:
        before = memory_bytes(patient)
        for path in (DOWNLOAD, EVENTS) * (READERS // 2):
            stack.enter_context(reader(patient, path))
        wait_for(lambda: streams(admin) == READERS)
        time.sleep(0.5)
        assert memory_bytes(patient) - before < READERS * 16 * MIB
        assert threads(patient) < 40
        for _ in range(3):
            recorded(admin.post(EVENTS, json=[event() for _ in range(500)]))
        with closing(connect(patient.data / "accounts" / "default.db", durable=False)) as connection:
            assert not one(connection, "PRAGMA wal_checkpoint(TRUNCATE)"), "nobody is in its way"
        assert admin.get(f"{EVENTS}/count").json()["count"] >= BIG_EVENTS + 1500


def test_vanished_readers_leave_nothing_behind(patient: Server) -> None:
    """Whoever closes in the middle is forgotten soon: his answer, its thread and its socket."""
    with client(patient.url, patient.admin_key) as admin:
        wait_for(lambda: streams(admin) == 0)
        before = connections(patient)
        for path in (DOWNLOAD, EVENTS) * READERS:
            with reader(patient, path) as gone:
                assert b"200 OK" in gone.recv(4096)
        wait_for(lambda: streams(admin) == 0)
        wait_for(lambda: connections(patient) <= before + 2)
        assert "ERROR" not in patient.output


def test_a_reader_who_takes_nothing_is_cut_off_and_a_slow_one_is_not(data: Path, tmp_path: Path) -> None:
    """After the time that the operator set, whatever the reader still does not see."""
    shutil.copytree(data, tmp_path / "data", ignore=shutil.ignore_patterns("*-wal", "*-shm"))
    with (
        start(tmp_path / "data", env={"AUDITPLANE_LIMITS_STALL_SECONDS": "1"}) as server,
        client(server.url, server.admin_key) as admin,
        contextlib.ExitStack() as stack,
    ):
        before = connections(server)
        stalled = [
            stack.enter_context(reader(server, path, version))
            for path in (DOWNLOAD, EVENTS)
            for version in ("1.1", "1.0")
        ]
        slow = stack.enter_context(reader(server, takes_bytes=MIB))
        wait_for(lambda: streams(admin) == len(stalled) + 1)
        taken = 0
        deadline = time.monotonic() + 20
        while streams(admin) > 1 or taken < 20 * MIB:
            assert time.monotonic() < deadline
            for _ in range(16):
                taken += len(slow.recv(1 << 16))
            time.sleep(0.02)
        for connection in stalled:
            answer, reset = read_to_the_end(connection)
            assert reset
            assert len(answer) < 10 * MIB
        rest, reset = read_to_the_end(slow)
        assert not reset
        assert taken + len(rest) > 50 * MIB
        assert rest.endswith(b"\r\n0\r\n\r\n")
        slow.close()
        wait_for(lambda: connections(server) <= before + 1)
        assert server.output.count("a reader took nothing for 1 s and was cut off") == len(stalled)
        counted = f'auditplane_cut_off_total{{reason="stalled"}} {len(stalled)}.0'
        assert counted in admin.get("/metrics").text.splitlines()


def memory_that_grows_no_more(server: Server) -> int:
    """On a busy machine it takes a while until the server has made what it keeps for its readers."""
    before, now = 0, memory_bytes(server)
    while now > before + MIB:
        time.sleep(1)
        before, now = now, memory_bytes(server)
    return now


def test_what_a_crowd_of_readers_held_is_given_back(patient: Server) -> None:
    """Not kept for ever, between what others use."""
    number = 3 * READERS
    with client(patient.url, patient.admin_key) as admin:
        for _ in range(2):  # the first one fills what is kept of the databases
            with contextlib.ExitStack() as stack:
                for _ in range(number):
                    stack.enter_context(reader(patient))
                wait_for(lambda: streams(admin) == number)
                held = memory_that_grows_no_more(patient)
            wait_for(lambda: streams(admin) == 0)
        # At the latest by what is given back once a minute.
        wait_for(lambda: held - memory_bytes(patient) > number * MIB // 4, 90.0)


@pytest.mark.skipif(sys.platform != "linux", reason="it is a bound of Linux")
def test_the_system_keeps_little_for_a_reader_who_takes_nothing(patient: Server) -> None:
    """It would keep megabytes for each, which nobody counts."""
    with reader(patient) as stopped:
        _, port = stopped.getsockname()[:2]

        def kept() -> int:
            """The bytes in the server's end of the connection; proc_net_tcp of the kernel's documentation."""
            for line in Path("/proc/net/tcp").read_text("ascii").splitlines()[1:]:
                _, local, remote, _, queues, *_ = line.split()
                if remote.endswith(f":{port:04X}") and local.endswith(f":{patient.port:04X}"):
                    return int(queues.partition(":")[0], 16)
            return 0

        wait_for(lambda: kept() > 0)
        time.sleep(1)
        assert 0 < kept() < 4 * limits.UNSENT_BYTES_MAX


def damage(data: Path, *, newest: bool) -> None:
    """Flips some bits in the middle of a stored block."""
    order = "DESC" if newest else "ASC"
    with closing(connect(data / "accounts" / "default.db", durable=False)) as connection:
        for table in ("frame", "block_csv"):
            query = f"SELECT id, data FROM {table} ORDER BY id {order} LIMIT 1"  # noqa: S608 - names of ours
            ((block, packed),) = fetch(connection, query)
            broken = bytearray(packed)
            for position in range(len(broken) // 2, len(broken) // 2 + 8):
                broken[position] ^= 0xFF
            update = f"UPDATE {table} SET data = ? WHERE id = ?"  # noqa: S608 - as above
            fetch(connection, update, (bytes(broken), block))


def test_damage_is_never_a_short_answer_that_looks_whole(data: Path, tmp_path: Path) -> None:
    """Where stored bytes are not what was written, the answer breaks off or is a 500; the rest is served."""
    folder = tmp_path / "data"
    shutil.copytree(data, folder, ignore=shutil.ignore_patterns("*-wal", "*-shm"))
    damage(folder, newest=False)
    with start(folder) as server, client(server.url, server.admin_key) as admin:
        newest = events_of(admin.get(EVENTS, params={"limit": 1000}))
        assert len(newest) == 1000
        for path, version in ((EVENTS, "1.1"), (DOWNLOAD, "1.1"), (EVENTS, "1.0"), (DOWNLOAD, "1.0")):
            with reader(server, path, version) as connection:
                answer, reset = read_to_the_end(connection)
            assert b" 200 OK\r\n" in answer[:20]
            assert len(answer) > 20 * MIB
            assert reset
        first = admin.get(EVENTS, params={"order": "asc"})
        assert first.status_code == 500
        assert "can't be decompressed" in first.json()["errors"][0]
        assert recorded(admin.post(EVENTS, json=event()))
        assert admin.get(f"{EVENTS}/{newest[-1]['id']}").json() == newest[-1]
        assert admin.get(DOWNLOAD, params={"min-date": newest[-1]["timestamp"]}).status_code == 200
        assert "an answer broke off" in server.output
        assert "Traceback" not in server.output
        assert server.stop() == 0


def test_damage_in_what_is_sent_first_is_a_clear_error(data: Path, tmp_path: Path) -> None:
    """Nothing has been sent then, so the caller can be told."""
    folder = tmp_path / "data"
    shutil.copytree(data, folder, ignore=shutil.ignore_patterns("*-wal", "*-shm"))
    damage(folder, newest=True)
    with start(folder) as server, client(server.url, server.admin_key, Accept="application/json") as admin:
        for path in (EVENTS, DOWNLOAD, f"{EVENTS}?limit=2000"):
            answer = admin.get(path)
            assert answer.status_code == 500
            assert "can't be decompressed" in answer.json()["errors"][0]
        assert "GET /v1/audit-events: 500," in server.output, "the route, and nothing that was asked for"
        assert "limit" not in server.output
        assert admin.get(EVENTS, params={"order": "asc", "limit": 10}).status_code == 200


def test_a_descriptor_is_not_lost_for_each_request(patient: Server) -> None:
    """Hundreds of connections, answers and errors leave as many files open as there were."""
    with client(patient.url, patient.admin_key) as admin:
        wait_for(lambda: streams(admin) == 0)
        admin.get(EVENTS, params={"limit": 1})
        before = connections(patient)
        for _ in range(30):
            with client(patient.url, patient.admin_key) as other:
                other.get(EVENTS, params={"limit": 1})
                other.get(EVENTS, params={"limt": 1})
                other.post(EVENTS, content=b"[")
        wait_for(lambda: connections(patient) <= before + 2)
