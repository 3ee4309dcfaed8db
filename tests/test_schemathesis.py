"""Schemathesis on the served OpenAPI: whatever is sent, right or wrong, the answer is one it tells of."""

import subprocess
import sys
from pathlib import Path

import pytest

from server import Server, environment, start

PROGRAM = Path(sys.executable).with_name("schemathesis")
CONFIG = Path(__file__).with_name("schemathesis.toml")
# Deterministic, so that a failure comes again; `--seed` and more examples look further.
EFFORT = ["--generation-deterministic", "--max-examples", "6"]


def schemathesis(server: Server, folder: Path, *args: str) -> str:
    """What it found, when it found anything wrong."""
    key = f"X-Bindplane-Api-Key: {server.admin_key}"
    command: list[str | Path] = [PROGRAM, "--config-file", CONFIG, "run", f"{server.url}/openapi.json"]
    options = ["-H", key, "--exclude-method", "HEAD", "--continue-on-failure", "--no-color", *EFFORT, *args]
    done = subprocess.run(
        [*command, *options],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    found = "\n".join(line[:400] for line in done.stdout.splitlines() if line.strip())
    assert server.process.poll() is None
    return "" if done.returncode == 0 else f"{found}\n{done.stderr}"


def test_every_answer_is_one_that_the_document_tells_of(tmp_path: Path) -> None:
    """In all phases (examples, coverage, fuzzing, stateful), with right and wrong data.

    All checks: no 5xx; status, content type, headers and body as documented; wrong data refused; wrong
    methods 405 with the right Allow; no answer without a key; what was made can be had, what was revoked
    can't be used.
    """
    with start(tmp_path / "data") as server:
        found = schemathesis(server, tmp_path)
        if found:
            pytest.fail(found, pytrace=False)
        assert "Traceback" not in server.output
