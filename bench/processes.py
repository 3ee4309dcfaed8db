"""Programs that a run starts: started, waited for, watched and stopped. Linux only, as it reads /proc."""

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]
START_SECONDS_MAX: Final = 120.0
STOP_SECONDS_MAX: Final = 60.0
RUN_SECONDS_MAX: Final = 120.0
QUIET_SECONDS_MAX: Final = 180.0
QUIET_WINDOW_SECONDS: Final = 0.25
QUIET_WINDOWS: Final = 3
QUIET_SHARE: Final = 0.06
MEMORY_LOOK_SECONDS: Final = 0.05

_TICKS_A_SECOND: Final = os.sysconf("SC_CLK_TCK")


class Failed(Exception):
    """A program did not do what it was started for; the text tells a person what and why."""


@dataclass
class Program:
    """A program that was started; what it prints goes to `log`."""

    process: subprocess.Popen[bytes]
    log: Path

    @property
    def pid(self) -> int:
        """The id of its first process."""
        return self.process.pid

    def check(self) -> None:
        """Raises Failed, with the end of what it printed, when it does not run any more."""
        if self.process.poll() is not None:
            said = self.log.read_text(errors="replace")[-2_000:]
            raise Failed(f"{self.log.stem} ended with {self.process.returncode}: {said}")

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """Ends it in order; raises Failed when it had to be killed."""
        if self.process.poll() is None:
            self.process.send_signal(how)
        try:
            self.process.wait(STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            raise Failed(f"{self.log.stem} did not end within {STOP_SECONDS_MAX:.0f} s") from None
        finally:
            self.kill()

    def kill(self) -> None:
        """Ends whatever is left of it."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def start(
    command: Sequence[str | Path],
    log: Path,
    *,
    env: Mapping[str, str] | None = None,
    user: str | None = None,
) -> Program:
    """Starts a program in a session of its own, without settings of the person who runs the benchmarks."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        process = subprocess.Popen(
            [*command],
            cwd=ROOT if user is None else "/",
            env={**clean_environment(), **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            user=user,
            group=user,
            extra_groups=None if user is None else (),
        )
    return Program(process, log)


def run_as(user: str | None, command: Sequence[str | Path]) -> subprocess.CompletedProcess[str]:
    """Runs a program to its end, as another user of this machine when one is named."""
    return subprocess.run(
        [*command],
        cwd="/",
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=RUN_SECONDS_MAX,
        check=False,
        user=user,
        group=user,
        extra_groups=None if user is None else (),
    )


def clean_environment() -> dict[str, str]:
    """The environment without settings of the server."""
    return {name: value for name, value in os.environ.items() if not name.startswith("AUDITPLANE_")}


def executable(name: str) -> Path:
    """A program of the environment that runs the benchmarks."""
    return Path(sys.executable).with_name(name)


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_for_http(program: Program, port: int, path: str) -> None:
    """Returns once GET is answered, with any status; raises Failed when the program ends or is too slow."""
    deadline = time.monotonic() + START_SECONDS_MAX
    while time.monotonic() < deadline:
        program.check()
        asked = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        with contextlib.closing(asked), contextlib.suppress(OSError, http.client.HTTPException):
            asked.request("GET", path)
            asked.getresponse().read()
            return
        time.sleep(0.05)
    raise Failed(f"{program.log.stem} did not answer within {START_SECONDS_MAX:.0f} s")


# What /proc tells of a process and its children.


def tree(pid: int) -> list[int]:
    """A process and all that came from it; those that end meanwhile are left out."""
    found = [pid]
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                found += tree(int(child))
    return found


def cpu_seconds(pid: int) -> float:
    """The processor time that a process and its children have had so far."""
    total = 0
    for each in tree(pid):
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
            total += int(fields[11]) + int(fields[12])
    return total / _TICKS_A_SECOND


def memory_bytes(pid: int) -> int:
    """The memory of a process and its children; what they share with others counts by its share (PSS)."""
    total = 0
    for each in tree(pid):
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{each}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1]) * 1024
    return total


def wait_until_quiet(pid: int) -> float:
    """Waits until a process and its children have hardly anything to do; returns the seconds they still had.

    Gives up after QUIET_SECONDS_MAX, for a system that never rests.
    """
    began = busy_until = time.monotonic()
    before, quiet = cpu_seconds(pid), 0
    while quiet < QUIET_WINDOWS and time.monotonic() - began < QUIET_SECONDS_MAX:
        time.sleep(QUIET_WINDOW_SECONDS)
        now = cpu_seconds(pid)
        # The clock ticks a hundred times a second; one tick is no work.
        if now - before > QUIET_SHARE * QUIET_WINDOW_SECONDS:
            busy_until, quiet = time.monotonic(), 0
        else:
            quiet += 1
        before = now
    return busy_until - began


@dataclass
class Peak:
    """The most memory that was seen."""

    bytes: int = 0
    _done: threading.Event = field(default_factory=threading.Event)

    def watch(self, pid: int, every_seconds: float) -> None:
        """Looks again and again until it is told to end."""
        while not self._done.wait(every_seconds):
            self.bytes = max(self.bytes, memory_bytes(pid))

    def end(self) -> None:
        """Ends the watch."""
        self._done.set()


@contextmanager
def watching_memory(pid: int, every_seconds: float = MEMORY_LOOK_SECONDS) -> Iterator[Peak]:
    """Watches the memory of a process and its children. A look costs them about a millisecond."""
    peak = Peak(memory_bytes(pid))
    watcher = threading.Thread(target=peak.watch, args=(pid, every_seconds), daemon=True)
    watcher.start()
    try:
        yield peak
    finally:
        peak.end()
        watcher.join()
        peak.bytes = max(peak.bytes, memory_bytes(pid))
