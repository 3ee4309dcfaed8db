import contextlib
import json
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from server import run, start
from tenants import DOWNLOAD, EVENTS, KEYS, Json, client, event, events, events_of, problems_of

DISK_BYTES = 24 * 1024 * 1024


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small disk of its own."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", place],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if mounted.returncode:
        pytest.skip(f"needs a root who may mount a tmpfs: {mounted.stderr.strip()}")
    yield place
    subprocess.run(["umount", "--lazy", place], check=True)


class Filler:
    """A file that takes all the room there is."""

    def __init__(self, disk: Path) -> None:
        self._path = disk / "filler"

    def fill(self) -> None:
        with self._path.open("ab", buffering=0) as file:
            for size in (1 << 20, 1 << 12):
                with contextlib.suppress(OSError):
                    while True:
                        file.write(bytes(size))

    def free(self) -> None:
        self._path.unlink()


def record_until_full(admin: httpx2.Client, filler: Filler, ids: set[str]) -> httpx2.Response:
    """Records until the disk has no room left, and returns the first refusal."""
    for _ in range(500):
        filler.fill()
        answer = admin.post(EVENTS, json=events(40, description="x" * 2000))
        if answer.status_code != 201:
            return answer
        ids.update(answer.json()["ids"])
    raise AssertionError("the disk never filled")


def trail(admin: httpx2.Client) -> dict[str, Json]:
    """All events that were recorded, by id."""
    return {each["id"]: each for each in events_of(admin.get(EVENTS))}


def test_a_full_disk_stops_recording_and_nothing_else(disk: Path) -> None:
    """507 says what to do; reading goes on; recording resumes by itself; nothing is lost or half-made."""
    filler = Filler(disk)
    data = disk / "data"
    ids: set[str] = set()
    with start(data) as server, client(server.url, server.admin_key) as admin:
        ids.update(admin.post(EVENTS, json=events(1000)).json()["ids"])
        for _ in range(3):
            (told,) = problems_of(record_until_full(admin, filler, ids), 507)
            assert str(data) in server.output
            assert str(data) not in told
            assert "Free some room" in told
            answer = admin.post(EVENTS, json=event())
            assert answer.status_code == 507
            asked = run("health", "--port", str(server.port))
            assert asked.returncode == 1
            assert "answers 503" in asked.stderr
            assert "Retry-After" in answer.headers

            # Reading goes on, whatever is asked for the first time.
            before = trail(admin)
            assert ids <= set(before)
            assert admin.get(DOWNLOAD).content.count(b"\r\n") > len(ids)
            for encoding in ("zstd", "gzip"):
                assert admin.get(DOWNLOAD, headers={"Accept-Encoding": encoding}).status_code == 200
            assert admin.get(f"{EVENTS}/count").json()["count"] == len(before)
            assert admin.get(EVENTS, params={"q": "nowhere", "user": "nobody"}).json() == []
            assert admin.get(EVENTS, params={"limit": 5}).status_code == 200
            assert admin.get(f"{EVENTS}/{next(iter(ids))}").status_code == 200
            assert admin.get("/no/such/path").status_code == 404
            assert admin.get("/metrics").status_code == 200
            health = admin.get("/health")
            assert health.status_code == 503
            assert "disk is full" in health.json()["status"]

            # No key is made or revoked by half.
            keys = admin.get(KEYS).json()
            assert admin.post(KEYS, json={"role": "reader"}).status_code == 507
            assert admin.delete(f"{KEYS}/{keys['apiKeys'][0]['id']}").status_code == 507
            refused = run("keys", "create", "--data", data, "--role", "reader", "--account", "fresh")
            assert (refused.returncode, refused.stdout) == (1, "")
            assert "is full" in refused.stderr
            assert admin.get(KEYS).json() == keys
            assert json.loads(run("keys", "list", "--data", data, "-o", "json").stdout) == keys["apiKeys"]
            assert set(trail(admin)) == set(before)

            filler.free()
            resumed = admin.post(EVENTS, json=events(10))
            assert resumed.status_code == 201
            ids.update(resumed.json()["ids"])
            assert admin.get("/health").status_code == 200
        made = admin.post(KEYS, json={"role": "reader"})
        assert made.status_code == 201
        assert ids <= set(trail(admin))
        assert "Traceback" not in server.output, server.output
        assert "worker-1" not in server.output, server.output  # it never died
        assert server.stop() == 0
    with start(data) as server, client(server.url, server.admin_key) as admin:
        assert ids <= set(trail(admin))


def test_a_download_that_can_not_be_told_of_is_refused(disk: Path) -> None:
    """It goes on by itself once there is room; lists never stop."""
    filler = Filler(disk)
    env = {"AUDITPLANE_AUDIT_TRAIL_RECORD_READS": "true"}
    with start(disk / "data", env=env) as server, client(server.url, server.admin_key) as admin:
        assert admin.get(DOWNLOAD).status_code == 200
        record_until_full(admin, filler, set())
        for path in (DOWNLOAD, f"{EVENTS}/evidence"):
            answer = admin.get(path, headers={"Accept": "application/json"})
            assert "Free some room" in problems_of(answer, 507)[0]
        assert admin.head(DOWNLOAD).status_code == 200
        assert admin.get(EVENTS).status_code == 200
        filler.free()
        assert admin.get(DOWNLOAD).text.count("Exported") == 1
        assert "Traceback" not in server.output, server.output


def test_recorders_who_race_for_the_last_room_are_told_the_truth(disk: Path) -> None:
    """What was answered 201 while the disk filled is there, and what was refused is not."""
    data = disk / "data"
    filler = Filler(disk)
    stored: dict[str, bool] = {}
    with start(data, "--workers", "2") as server, client(server.url, server.admin_key) as admin:
        filler.fill()

        def record(worker: int) -> None:
            with client(server.url, server.admin_key) as mine:
                for turn in range(60):
                    name = f"{worker}-{turn}"
                    batch = events(30, resourceName=name, description="y" * 2000)
                    stored[name] = mine.post(EVENTS, json=batch).status_code == 201

        threads = [threading.Thread(target=record, args=(worker,)) for worker in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert set(stored.values()) >= {False}
        names = [each["resourceName"] for each in trail(admin).values() if each["resourceKind"] == "Source"]
        assert sorted(names) == sorted([name for name, there in stored.items() if there] * 30)
        filler.free()
        time.sleep(0.1)
        assert admin.post(EVENTS, json=event()).status_code == 201
        assert server.stop() == 0


def test_a_start_on_a_full_disk_is_refused_with_a_sentence(disk: Path) -> None:
    """It says why it can't, and leaves nothing behind that hinders the next start."""
    data = disk / "data"
    filler = Filler(disk)
    filler.fill()
    refused = run("serve", "--data", data)
    assert refused.returncode == 1
    assert refused.stderr.count("\n") == 1
    filler.free()
    with start(data) as server, client(server.url, server.admin_key) as admin:
        ids = set(admin.post(EVENTS, json=events(100)).json()["ids"])
        server.stop()
    filler.fill()
    again = run("serve", "--data", data)
    assert again.returncode == 1
    assert again.stderr.count("\n") == 1, again.stderr
    assert "full" in again.stderr
    filler.free()
    with start(data) as server, client(server.url, server.admin_key) as admin:
        assert ids <= set(trail(admin))
