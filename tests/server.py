"""A real `auditplane serve` for tests: started on a folder, waited for, asked for keys, stopped or killed."""

import contextlib
import http.client
import json
import os
import random
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from auditplane.cli.server import AS_ROOT

PROGRAM = Path(sys.executable).with_name("auditplane")
START_SECONDS_MAX = 30.0
STOP_SECONDS_MAX = 20.0
REQUEST = '"message":"request"'


@dataclass
class Server:
    """A server that runs; what it prints goes to `log`."""

    data: Path
    port: int
    process: subprocess.Popen[bytes]
    log: Path
    scheme: str = "http"

    @property
    def url(self) -> str:
        """Its address, without a slash at the end."""
        return f"{self.scheme}://127.0.0.1:{self.port}"

    @property
    def admin_key(self) -> str:
        """The key that its first start made."""
        return (self.data / "admin.key").read_text().strip()

    @property
    def output(self) -> str:
        """What it has printed so far, but for its lines of requests and what it tells root."""
        said = "".join(line for line in self._lines if REQUEST not in line)
        return said.replace(f"{AS_ROOT}\n", "") if os.geteuid() == 0 else said

    @property
    def requests(self) -> list[dict[str, Any]]:
        """What it has logged of requests so far."""
        return [json.loads(line) for line in self._lines if REQUEST in line]

    @property
    def _lines(self) -> list[str]:
        return self.log.read_text(errors="replace").splitlines(keepends=True)

    def stop(self) -> int:
        """Ends it by SIGTERM; returns its exit status, negative for a signal."""
        self.process.terminate()
        try:
            return self.process.wait(STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            self.kill()
            raise

    def kill(self) -> None:
        """Ends it and its workers by SIGKILL."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(STOP_SECONDS_MAX)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self.process.poll() is None:
                self.stop()
        finally:
            self.kill()


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment without settings of the person who runs the tests, and with `extra`."""
    theirs = ("AUDITPLANE_", "COLUMNS")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(theirs)}
    return {**clean, **(extra or {})}


def run(*args: str | Path, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Runs an `auditplane` command to its end."""
    return subprocess.run(
        [PROGRAM, *args], env=environment(env), capture_output=True, text=True, timeout=60, check=False
    )


def free_port() -> int:
    """A port that nobody listens on, below those that the system gives to outgoing connections."""
    while True:
        port = random.randint(20_000, 32_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def launch(
    data: Path,
    *args: str | Path,
    env: Mapping[str, str] | None = None,
    port: int | None = None,
    within: Sequence[str] = (),
) -> Server:
    """Starts `auditplane serve`, by the command `within` if there is one, and does not wait for it.

    Downloads are not recorded where `env` does not ask for it: most tests compare them with what they did.
    """
    port = port or free_port()
    log = data.with_name(f"{data.name}-{port}.log")
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        process = subprocess.Popen(
            [*within, PROGRAM, "serve", "--data", data, "--port", str(port), *args],
            env=environment({"AUDITPLANE_AUDIT_TRAIL_RECORD_READS": "false", **(env or {})}),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    return Server(data, port, process, log, "https" if "--tls-cert" in args else "http")


def start(
    data: Path,
    *args: str | Path,
    env: Mapping[str, str] | None = None,
    port: int | None = None,
    within: Sequence[str] = (),
) -> Server:
    """Starts `auditplane serve` on a folder and a port, or a free one; returns once it answers."""
    server = launch(data, *args, env=env, port=port, within=within)
    try:
        wait_until_healthy(server)
    except BaseException:
        server.kill()
        raise
    return server


def wait_until_healthy(server: Server) -> None:
    """Returns once `/health` is answered; RuntimeError when the server ends or takes too long."""
    deadline = time.monotonic() + START_SECONDS_MAX
    while time.monotonic() < deadline:
        if server.process.poll() is not None:
            raise RuntimeError(f"the server ended with {server.process.returncode}: {server.output}")
        with contextlib.suppress(OSError, http.client.HTTPException):
            _ask_health(server)
            if f":{server.port}\n" in server.output:  # it says so a moment later
                return
        time.sleep(0.02)
    raise RuntimeError(f"the server did not answer in time: {server.output}")


def _ask_health(server: Server) -> None:
    if server.scheme == "https":
        anybody = ssl.create_default_context()
        anybody.check_hostname, anybody.verify_mode = False, ssl.CERT_NONE
        asked: http.client.HTTPConnection = http.client.HTTPSConnection(
            "127.0.0.1", server.port, timeout=5, context=anybody
        )
    else:
        asked = http.client.HTTPConnection("127.0.0.1", server.port, timeout=5)
    with contextlib.closing(asked):
        asked.request("GET", "/health")
        asked.getresponse().read()


def make_key(
    data: Path, role: str, account: str = "default", *, envelope: bool = False, expires: str | None = None
) -> tuple[str, str]:
    """The id and the secret of a new key, made by the command line."""
    options = [*(["--envelope"] if envelope else []), *(["--expires", expires] if expires else [])]
    made = run("keys", "create", "--data", data, "--role", role, "--account", account, "-o", "json", *options)
    if made.returncode:
        raise RuntimeError(made.stderr)
    key = json.loads(made.stdout)
    return key["id"], key["key"]


def revoke_key(data: Path, key_id: str) -> None:
    """Revokes a key by the command line."""
    done = run("keys", "revoke", key_id, "--data", data)
    if done.returncode:
        raise RuntimeError(done.stderr)
