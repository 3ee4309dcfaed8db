"""What is locked: the packages that a server is installed with, and what of others lies among its files."""

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parents[1]
VENDORED: Final = ROOT / "src/auditplane/http/page/static/vendor/vendor.json"

Json = dict[str, Any]


def bill() -> Json:
    """What uv makes of uv.lock: each package with the hashes of its files, CycloneDX 1.5."""
    found: Json = json.loads(_exported("cyclonedx1.5"))
    return found


def requirements() -> str:
    """The packages with their hashes, as pip reads them."""
    return _exported("requirements.txt", "--no-emit-project")


def _exported(form: str, *options: str) -> str:
    command = [sys.executable, "-m", "uv", "export", "--quiet", "--frozen", "--no-default-groups"]
    done = subprocess.run(
        [*command, "--format", form, "--project", str(ROOT), *options],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    return done.stdout


def package_names() -> Sequence[str]:
    """The names of the packages, each once."""
    return sorted({component["name"] for component in bill()["components"]})


def vendored() -> Sequence[Mapping[str, Any]]:
    """What the page has from npm, by the manifest that its files are checked against."""
    found: Sequence[Mapping[str, Any]] = json.loads(VENDORED.read_text())["packages"]
    return found
