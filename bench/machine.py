"""What the figures were taken on."""

import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

from bench.processes import ROOT

FSYNC_TIMES: Final = 50
PACKAGES: Final = ("granian", "starlette", "msgspec", "apsw")


def describe(folder: Path) -> dict[str, str]:
    """The machine, with the disk that a folder is on, in words."""
    return {
        "processor": f"{_processor()}, {os.cpu_count()} cores",
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB",
        "file system": _file_system(folder),
        "system": f"{_distribution()}, Linux {platform.release()}",
        "python": platform.python_version(),
        "packages": ", ".join(f"{name} {_version(name)}" for name in PACKAGES),
        "commit": _commit(),
        "load before": f"{os.getloadavg()[0]:.2f}",
        "fsync of 4 KiB, ms": f"{_fsync_ms(folder):.2f}",
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.machine()


def _distribution() -> str:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", sys.platform)
    except OSError:
        return sys.platform


def _file_system(folder: Path) -> str:
    """The type of the file system, from the longest mount point above the folder."""
    best, kind = "", "unknown"
    for line in Path("/proc/mounts").read_text().splitlines():
        _, point, found, *_ = line.split()
        if folder.resolve().is_relative_to(point) and len(point) >= len(best):
            best, kind = point, found
    return kind


def _fsync_ms(folder: Path) -> float:
    taken = []
    with tempfile.TemporaryFile(dir=folder) as file:
        for _ in range(FSYNC_TIMES):
            file.write(bytes(4096))
            file.flush()
            began = time.perf_counter()
            os.fsync(file.fileno())
            taken.append((time.perf_counter() - began) * 1_000)
    return statistics.median(taken)


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "-"


def _commit() -> str:
    """The commit of the sources, with a plus sign when they were changed after it."""
    asked = ["git", "describe", "--always", "--dirty=+", "--exclude=*"]
    env = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}
    try:
        done = subprocess.run(
            asked, cwd=ROOT, env=env, capture_output=True, text=True, timeout=20, check=False
        )
    except OSError:
        return "unknown"
    return done.stdout.strip() or "unknown"
