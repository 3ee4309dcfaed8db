"""The Pythons of this machine."""

import shutil
import subprocess
from functools import cache
from pathlib import Path

UNICODE = "import sys, unicodedata; print(unicodedata.unidata_version); sys.exit(sys.version_info < (3, 9))"


@cache
def other_pythons() -> list[str]:
    """One of each version of Unicode that there is, of those that evidence can be checked with."""
    paths = [path for minor in range(9, 20) if (path := shutil.which(f"python3.{minor}"))]
    paths += map(str, Path.home().glob(".pyenv/versions/3.*/bin/python"))
    asked = [(path, run_python(path, "-c", UNICODE)) for path in paths]
    return list({done.stdout: path for path, done in asked if done.returncode == 0}.values())


def run_python(path: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs one without anything but the standard library."""
    command = [path, "-I", "-S", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
