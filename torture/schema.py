"""Schemathesis on a served API: whatever is sent, right or wrong, the answer is one that a document tells of.

In all its phases (examples, coverage, fuzzing, stateful) and with all its checks, but for what stands in
`schemathesis.toml`. The documents are the one that the server serves, and the published contract.
"""

import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from server import Server, environment, start

PROGRAM: Final = Path(sys.executable).with_name("schemathesis")
CONFIG: Final = Path(__file__).with_name("schemathesis.toml")
CONTRACT: Final = sorted((Path(__file__).parents[1] / "tests" / "contract").glob("*.json"))
SERVED: Final = "/openapi.json"
DOCUMENTS: Final[tuple[str | Path, ...]] = (SERVED, *CONTRACT)
SECONDS_MAX: Final = 3 * 60 * 60
# The server can do more than the contract says.
_BEYOND_THE_CONTRACT: Final = ("--exclude-checks", "unsupported_method,allow_header_conformance")


def tried(examples: int, seed: int) -> Iterator[tuple[str, str]]:
    """What is wrong by each document, with so many examples of each operation."""
    with tempfile.TemporaryDirectory() as folder, start(Path(folder) / "data") as server:
        for document in DOCUMENTS:
            options = ["--max-examples", str(examples), "--seed", str(seed)]
            yield Path(document).name, found(server, Path(folder), document, options)


def found(server: Server, folder: Path, document: str | Path, options: Sequence[str]) -> str:
    """What is wrong with the answers of a server by a document; nothing when all are right."""
    location: list[str | Path] = [server.url + SERVED]
    if document in CONTRACT:
        location = [document, "--origin", server.url, *_BEYOND_THE_CONTRACT]
    command: list[str | Path] = [
        PROGRAM,
        "--config-file",
        CONFIG,
        "run",
        *location,
        "--continue-on-failure",
        "--no-color",
    ]
    done = subprocess.run(
        [*command, "-H", f"X-Bindplane-Api-Key: {server.admin_key}", *options],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX,
        check=False,
    )
    told = "\n".join(line[:400] for line in done.stdout.splitlines() if line.strip())
    if server.process.poll() is not None:
        return f"the server ended with {server.process.returncode}\n{told}"
    if "Traceback" in server.output:
        return f"{server.output[server.output.index('Traceback') :][:4_000]}\n{told}"
    return "" if done.returncode == 0 else f"{told}\n{done.stderr}"
