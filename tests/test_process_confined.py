"""The server without rights: as another user, on a read-only system, within the limits of its unit."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from auditplane import cli, limits
from auditplane.http.upkeep import SETTLE_SECONDS_MAX
from confined import Confinement
from server import PROGRAM, Server, environment, run, start
from tenants import DOWNLOAD, EVENTS, EVIDENCE, KEYS, client, events, events_of, recorded

ROOT = Path(__file__).resolve().parents[1]
UNIT = ROOT / "deploy" / "auditplane.service"
NOBODY = 65534
EVENTS_SEALED = 8_000
# In tenths, of 10.
EXPOSURE_MAX = 11

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")


def options(name: str) -> list[str]:
    """The values of an option of the unit, in their order."""
    return re.findall(rf"^{name}=(.*)$", UNIT.read_text(), re.MULTILINE)


def option(name: str) -> str:
    (value,) = options(name)
    return value


def analyze(*args: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["systemd-analyze", *args], capture_output=True, text=True, check=False)


# The unit by itself.


def test_systemd_understands_the_unit(tmp_path: Path) -> None:
    """No option is misspelt, in the wrong section, or of a wrong value."""
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text().replace(option("ExecStart").split()[0], str(PROGRAM)))
    done = analyze("verify", "--man=no", unit)
    assert (done.returncode, done.stderr) == (0, "")
    unit.write_text(unit.read_text().replace("PrivateTmp=yes", "PrivateTemp=yes"))
    assert "PrivateTemp" in analyze("verify", "--man=no", unit).stderr


def test_the_unit_exposes_little(tmp_path: Path) -> None:
    """By the marks of systemd-analyze; what is left is that it may use the network."""
    unit = tmp_path / UNIT.name
    for text, good in (
        (UNIT.read_text(), True),
        (re.sub(r"^SystemCallFilter=.*\n", "", UNIT.read_text(), flags=re.MULTILINE), False),
        (UNIT.read_text().replace("PrivateUsers=yes", "PrivateUsers=no"), False),
    ):
        unit.write_text(text)
        done = analyze("security", "--offline=true", "--no-pager", f"--threshold={EXPOSURE_MAX}", unit)
        assert (done.returncode == 0) == good, done.stdout


def test_the_unit_fits_the_program() -> None:
    """systemd waits longer than a stop takes, and starts nothing again that is misconfigured."""
    assert int(option("TimeoutStopSec")) >= 2 * (limits.SHUTDOWN_SECONDS_MAX + SETTLE_SECONDS_MAX)
    assert int(option("RestartPreventExitStatus")) == cli.MISUSED
    assert int(option("LimitNOFILE")) > 20_000
    assert f'data = "/var/lib/{option("StateDirectory")}"' in (ROOT / "docs/deploying.md").read_text()


# The server within the limits of the unit.


@cache
def system_calls(name: str) -> frozenset[str]:
    """The system calls of a set of systemd, such as `@chown`."""
    done = analyze("syscall-filter", name)
    assert done.returncode == 0, done.stderr
    found: set[str] = set()
    for line in done.stdout.splitlines()[1:]:
        word = line.strip()
        if word.startswith("@"):
            found |= system_calls(word)
        elif word and not word.startswith("#"):
            found.add(word)
    return frozenset(found)


def allowed_calls() -> frozenset[str]:
    """Those that the unit leaves."""
    allowed, refused = options("SystemCallFilter")
    left = {call for name in allowed.split() for call in system_calls(name)}
    for name in refused.removeprefix("~").split():
        left -= system_calls(name)
    return frozenset(left)


@pytest.fixture(scope="module")
def above() -> Iterator[Path]:
    """A folder for data that others may enter; pytest's own are for root alone."""
    folder = Path(tempfile.mkdtemp(dir="/tmp"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def unit(above: Path) -> Confinement:
    """What the options of the unit leave to the program, with a folder `data` of its own."""
    assert "yes" == option("MemoryDenyWriteExecute") == option("NoNewPrivileges")
    assert option("CapabilityBoundingSet") == ""
    data = above / "data"
    data.mkdir(mode=0o700)
    os.chown(data, NOBODY, NOBODY)
    system = [path for path in map(Path, ("/usr", "/bin", "/lib", "/lib64", "/etc")) if path.exists()]
    program = [Path(sys.base_prefix), PROGRAM.parents[1], ROOT / "src"]
    within = [path for path in program if not any(path.is_relative_to(other) for other in system)]
    return Confinement(
        NOBODY,
        readable=tuple(map(str, [*system, *within])),
        writable=(str(data),),
        system_calls=tuple(sorted(allowed_calls())),
        families=tuple(option("RestrictAddressFamilies").split()),
    )


@pytest.fixture(scope="module")
def served(unit: Confinement, above: Path) -> Iterator[Server]:
    """A server in there, with two workers."""
    with start(above / "data", "--workers", "2", within=unit.command()) as server:
        yield server


def confined(unit: Confinement, *command: str | Path) -> subprocess.CompletedProcess[str]:
    """Runs a program in there."""
    return subprocess.run(
        [*unit.command(), *command],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@needs_root
@pytest.mark.parametrize(
    ("attempt", "told"),
    [
        ("open('/etc/auditplane', 'w')", "Read-only file system"),
        ("open('/tmp/x', 'w')", "Read-only file system"),
        ("open(__import__('auditplane').__file__, 'a')", "Permission denied"),
        ("open('/etc/shadow')", "Permission denied"),
        ("os.listdir('/var')", "No such file or directory"),
        ("os.listdir('/proc/1')", "No such file or directory"),
        ("os.setuid(0)", "Operation not permitted"),
        ("os.chown('/tmp', 0, 0)", "Operation not permitted"),
        ("os.sched_setaffinity(0, {0})", "Operation not permitted"),
        ("socket.socket(socket.AF_NETLINK)", "Operation not permitted"),
        ("mmap.mmap(-1, 4096, prot=7)", "Permission denied"),
        ("ctypes.CDLL(None, use_errno=True).ptrace(16, 1, 0, 0) == -1 or 1/0", None),
    ],
)
def test_what_the_unit_forbids_is_forbidden_there(unit: Confinement, attempt: str, told: str | None) -> None:
    """The limits of these tests hold: else that the server runs within them would say nothing."""
    code = f"import ctypes, mmap, os, socket; {attempt}"
    done = confined(unit, PROGRAM.with_name("python"), "-c", code)
    assert (done.returncode == 0) == (told is None), done.stderr
    assert told is None or told in done.stderr.splitlines()[-1]


@needs_root
def test_the_server_needs_nothing_that_the_unit_forbids(served: Server) -> None:
    """It records, seals, lists, counts, proves, exports, and shows its page."""
    with client(served.url, served.admin_key) as admin:
        found = recorded(admin.post(EVENTS, json=events(EVENTS_SEALED)))
        assert len(found) == EVENTS_SEALED
        assert len(events_of(admin.get(EVENTS, params={"limit": 1000}))) == 1000
        assert admin.get(f"{EVENTS}/count").json()["count"] > EVENTS_SEALED
        assert admin.get(DOWNLOAD).text.count("\r\n") > EVENTS_SEALED
        assert admin.get(f"{EVENTS}/{found[0]}/proof").status_code == 200
        assert admin.get(EVIDENCE, params={"user": "user1@example.com"}).content.startswith(b"PK")
        assert admin.post(KEYS, json={"role": "reader"}).status_code == 201
        assert admin.get("/metrics").status_code == 200
    with client(served.url) as browser:
        assert browser.post("/sign-in", data={"key": served.admin_key}).status_code == 303
        for path in ("/", "/overview", "/keys", "/keeping", "/storage", f"/events/{found[0]}"):
            assert browser.get(path).status_code == 200, path
    assert served.output.count("\n") == 2, served.output


@needs_root
def test_its_processes_have_no_rights(served: Server) -> None:
    """Neither the server nor a worker has a capability, can get one, or is unfiltered."""
    pids = [served.process.pid]
    pids += map(int, Path(f"/proc/{pids[0]}/task/{pids[0]}/children").read_text().split())
    assert len(pids) >= 3
    for pid in pids:
        status = dict(re.findall(r"^(\w+):\t(.*)$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE))
        assert status["Uid"].split() == [str(NOBODY)] * 4
        assert status["Groups"].split() == []
        for kind in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
            assert int(status[kind], 16) == 0, kind
        assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")


@needs_root
def test_its_files_are_its_own(served: Server) -> None:
    """All are for its user alone, with what root does on the command line meanwhile."""
    assert run("keys", "create", "--data", served.data, "--role", "reader").returncode == 0
    for path in (served.data, *served.data.rglob("*")):
        found = path.stat()
        assert (found.st_uid, found.st_gid, found.st_mode & 0o077) == (NOBODY, NOBODY, 0), path


@needs_root
def test_a_volume_that_stays_roots_takes_a_folder_of_its_own(unit: Confinement, above: Path) -> None:
    """As Kubernetes gives it, by its group: the volume is refused and left alone, a folder in it is made."""
    volume = above / "volume"
    volume.mkdir()
    os.chown(volume, 0, NOBODY)
    volume.chmod(0o2775)
    there = replace(unit, writable=(str(volume),)).command()
    done = subprocess.run(
        [*there, PROGRAM, "serve", "--data", volume], capture_output=True, text=True, timeout=60, check=False
    )
    assert f"such as {volume}/trail." in done.stderr
    assert list(volume.iterdir()) == []
    with start(volume / "trail", within=there) as server:
        assert server.stop() == 0


@needs_root
def test_commands_work_within_the_same_limits(unit: Confinement, served: Server) -> None:
    """As the user of the server, on its folder and over HTTP."""
    done = confined(unit, PROGRAM, "accounts", "list", "--data", served.data)
    assert (done.returncode, "default" in done.stdout) == (0, True), done.stderr
    done = confined(unit, PROGRAM, "verify", "--data", served.data, "--deep")
    assert "Nothing is wrong" in done.stdout, done
    assert confined(unit, PROGRAM, "health", "--port", str(served.port)).returncode == 0


@needs_root
def test_it_stops_and_starts_again_without_rights(unit: Confinement, served: Server, above: Path) -> None:
    """In order, and with what was recorded; also without the filter, as in a container without one."""
    assert served.stop() == 0
    assert served.output.count("\n") == 2, served.output
    plain = replace(unit, system_calls=None)
    with start(above / "data", within=plain.command()) as server:
        with client(server.url, server.admin_key) as admin:
            before = admin.get(f"{EVENTS}/count").json()["count"]
            recorded(admin.post(EVENTS, json=events(1)))
            assert admin.get(f"{EVENTS}/count").json()["count"] == before + 1
        assert server.stop() == 0
