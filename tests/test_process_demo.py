import csv
import json
import re
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from server import PROGRAM, environment, free_port, run
from tenants import EVENTS, client

pytestmark = pytest.mark.skipif(shutil.which("curl") is None, reason="the demo's visitor needs curl")

EVENTS_MIN = 50_000


class Demo:
    """A demo that runs, and what it has printed."""

    def __init__(self, folder: Path) -> None:
        self.process = subprocess.Popen(
            [PROGRAM, "demo", "--port", str(free_port())],
            cwd=folder, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        self.printed = ""
        self._reading = threading.Thread(target=self._read)
        self._reading.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.printed += line

    def wait_for(self, text: str) -> None:
        deadline = time.monotonic() + 60
        while text not in self.printed:
            assert self.process.poll() is None, self.printed
            assert time.monotonic() < deadline, self.printed
            time.sleep(0.02)

    def end(self, sign: signal.Signals) -> int:
        self.process.send_signal(sign)
        status = self.process.wait(20)
        self._reading.join()
        assert self.process.stdout is not None
        self.process.stdout.close()
        return status


@contextmanager
def demo(folder: Path) -> Iterator[Demo]:
    made = Demo(folder)
    try:
        yield made
    finally:
        if made.process.poll() is None:
            made.end(signal.SIGKILL)


def curl_commands(printed: str) -> list[str]:
    """The commands that the visitor is invited to type."""
    return re.findall(r"^   (curl (?:.*\\\n)*.*)$", printed, re.MULTILINE)


def typed(command: str, folder: Path) -> str:
    """What a command prints that somebody typed."""
    done = subprocess.run(["bash", "-c", command], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout


def count(printed: str) -> int:
    """How many events the demo's server has."""
    (url,) = re.findall(r"listens at (\S+)", printed)
    (key,) = re.findall(r"(ap_\w+)\n", printed)[:1]
    with client(url, key) as admin:
        found: int = admin.get(f"{EVENTS}/count").json()["count"]
        return found


def signs_in(printed: str) -> bool:
    """Whether the link that is printed first signs its visitor in."""
    (link,) = re.findall(r"^Open (\S+)$", printed, re.MULTILINE)
    with client("") as visitor:
        answer = visitor.get(link)
        return answer.status_code == 303 and "auditplane_session=" in answer.headers["Set-Cookie"]


def test_the_demo_works_as_it_says_even_after_it_was_broken_off(tmp_path: Path) -> None:
    """What it prints can be typed; a second run reuses the data; one killed half-way leaves no trace."""
    with demo(tmp_path) as broken_off:
        broken_off.wait_for("Inventing 50,000 events")
        time.sleep(1)
        broken_off.end(signal.SIGKILL)
    assert not (tmp_path / "demo-data").exists()

    with demo(tmp_path) as first:
        first.wait_for("Inventing")
        time.sleep(0.3)
        other = subprocess.run(
            [PROGRAM, "demo"], cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False
        )
        assert (other.returncode, other.stderr.count("\n")) == (1, 1)
        assert str(first.process.pid) in other.stderr
        first.wait_for("Ctrl-C ends it")
        assert [signs_in(first.printed) for _ in range(2)] == [True, False]
        commands = curl_commands(first.printed)
        assert len(commands) == 3
        assert len(json.loads(typed(commands[0], tmp_path))) == 5
        typed(commands[1], tmp_path)
        (download,) = tmp_path.glob("audit-events-*.csv")
        with download.open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert len(rows) > 100
        assert {row["configuration"].partition(":")[0] for row in rows} == {"prod-gateway"}
        (own,) = json.loads(typed(commands[2], tmp_path))["ids"]
        before = count(first.printed)
        assert before > EVENTS_MIN
        assert first.end(signal.SIGINT) == 0
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["demo-data"]

    with demo(tmp_path) as second:
        second.wait_for("Ctrl-C ends it")
        assert second.printed.startswith("Using the trail in demo-data.\n")
        assert own in typed(curl_commands(second.printed)[0], tmp_path)
        assert count(second.printed) == before + 1  # the key of this run
        assert second.end(signal.SIGTERM) == 0


def test_the_demo_does_not_touch_a_folder_of_other_things(tmp_path: Path) -> None:
    """A folder with anything else in it is refused, and stays as it is."""
    (tmp_path / "thesis.txt").touch()
    refused = run("demo", "--data", tmp_path)
    assert refused.returncode == 1
    assert "not empty" in refused.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
