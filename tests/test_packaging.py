import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "auditplane"
VENDOR = "auditplane/http/page/static/vendor"

START_SECONDS_MAX = 30
STOP_SECONDS_MAX = 10

# Built and installed once: the tests share one worker.


@dataclass(frozen=True)
class Built:
    """What `make dist` makes: the sdist from the sources, the wheel from that sdist, a bill of materials."""

    sdist: Path
    wheel: Path
    bill: Path


def clean_environment() -> dict[str, str]:
    """The environment less whatever could reach from here into the installed program."""
    foreign = {"PYTHONHOME", "PYTHONPATH", "UV_PROJECT_ENVIRONMENT", "UV_PYTHON", "VIRTUAL_ENV"}
    return {
        name: value
        for name, value in os.environ.items()
        if name not in foreign and not name.startswith("AUDITPLANE_")
    }


def run(*command: str | Path, cwd: Path) -> str:
    done = subprocess.run(
        command, cwd=cwd, env=clean_environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def package_files() -> set[str]:
    """Every file of the package but for what Python compiles, relative to `src`."""
    return {
        path.relative_to(PACKAGE.parent).as_posix()
        for path in PACKAGE.rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }


def licences() -> set[str]:
    """Those of what others made, among the files of the package."""
    return {name for name in package_files() if name.startswith(VENDOR) and name.endswith("/LICENSE")}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    out = tmp_path_factory.mktemp("dist")
    sources = copied(tmp_path_factory.mktemp("sources"))
    bill = sources / "auditplane.cdx.json"
    run(sys.executable, "-m", "supply", "sbom", bill, cwd=ROOT)
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", out, sources, cwd=out)
    (sdist,) = out.glob("*.tar.gz")
    (wheel,) = out.glob("*.whl")
    return Built(sdist, wheel, bill)


def copied(folder: Path) -> Path:
    """The sources in a folder where a build may leave things."""
    shutil.copytree(ROOT / "src", folder / "src", ignore=shutil.ignore_patterns("__pycache__"))
    for name in (".gitignore", "CHANGELOG.md", "LICENSE", "README.md", "hatch_build.py", "pyproject.toml"):
        shutil.copy(ROOT / name, folder)
    return folder


@pytest.fixture(scope="module")
def installed(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program, installed by the commands of the page, in an environment at another place.

    uv takes the part of pip, with the same options: it is quicker.
    """
    folder = tmp_path_factory.mktemp("installed")
    dist = built.wheel.parent
    version = built.wheel.name.split("-")[1]
    run(
        sys.executable,
        "-m",
        "supply",
        "requirements",
        dist / f"auditplane-{version}.requirements.txt",
        cwd=ROOT,
    )
    (script, *_) = re.findall(
        r"^```sh\n(.*?)^```", (ROOT / "docs/deploying.md").read_text(), re.MULTILINE | re.DOTALL
    )
    venv = folder / "venv"
    pip = f"{sys.executable} -m uv pip install --quiet --python {venv}/bin/python"
    script = script.replace("/opt/auditplane/bin/pip install", pip).replace("0.1.0", version)
    script = script.replace("python3 -m venv", f"{sys.executable} -m venv --without-pip")
    script = script.replace("/opt/auditplane", str(venv)).replace("dist/", f"{dist}/")
    run("sh", "-ec", script, cwd=folder)
    return venv / "bin" / "auditplane"


def test_the_wheel_holds_the_package_and_nothing_else(built: Built) -> None:
    """A file of the package is in the wheel, SQL and type marker included, and no other file is."""
    files = set(zipfile.ZipFile(built.wheel).namelist())
    metadata = {name for name in files if re.match(r"auditplane-[^/]+\.dist-info/", name)}
    assert files - metadata == package_files()
    assert "auditplane/py.typed" in files
    assert any(name.endswith(".sql") for name in files)
    assert licences() == {f"{VENDOR}/htmx/LICENSE", f"{VENDOR}/uplot/LICENSE"}
    assert {name.partition("/")[2] for name in metadata} == {
        "METADATA",
        "RECORD",
        "WHEEL",
        "entry_points.txt",
        "licenses/LICENSE",
        *(f"licenses/src/{name}" for name in licences()),
        "sboms/auditplane.cdx.json",
    }


def test_the_wheel_holds_the_bill_of_materials(built: Built) -> None:
    """As PEP 770 has it; a wheel that is built without one has none."""
    version = built.wheel.name.split("-")[1]
    archive = zipfile.ZipFile(built.wheel)
    listed = archive.read(f"auditplane-{version}.dist-info/sboms/auditplane.cdx.json")
    assert listed == built.bill.read_bytes()
    assert json.loads(listed)["metadata"]["component"]["version"] == version


def test_the_program_can_be_built_without_a_bill_of_materials(tmp_path: Path) -> None:
    """`pip install .` needs nothing that only `make dist` makes."""
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path, cwd=copied(tmp_path))
    (wheel,) = tmp_path.glob("*.whl")
    assert not any("sboms" in name for name in zipfile.ZipFile(wheel).namelist())


def test_the_sdist_holds_what_a_build_needs(built: Built) -> None:
    """The sdist has the sources, licence and texts, and neither tests nor data of a server."""
    with tarfile.open(built.sdist) as archive:
        files = {name.partition("/")[2] for name in archive.getnames()}
    sources = {name.removeprefix("src/") for name in files if name.startswith("src/")}
    assert sources == package_files()
    assert files - {f"src/{name}" for name in sources} == {
        ".gitignore",
        "CHANGELOG.md",
        "LICENSE",
        "PKG-INFO",
        "README.md",
        "auditplane.cdx.json",
        "hatch_build.py",
        "pyproject.toml",
    }


def test_the_installed_program_tells_its_version(built: Built, installed: Path, tmp_path: Path) -> None:
    """`auditplane version` prints the version that the wheel carries."""
    version = built.wheel.name.split("-")[1]
    assert version in run(installed, "version", cwd=tmp_path).split()


def test_the_installed_server_serves_and_stops(installed: Path, tmp_path: Path) -> None:
    """Installed from the wheel alone, the server starts, lets its first key in, and ends at SIGTERM."""
    data = tmp_path / "data"
    port = free_port()
    with serving(installed, data, port, tmp_path / "log") as server:
        base = f"http://127.0.0.1:{port}"
        wait_for_health(base, server, tmp_path / "log")
        key = (data / "admin.key").read_text().strip()
        body = get(f"{base}/v1/audit-events", {"X-Bindplane-Api-Key": key})
        assert isinstance(json.loads(body), list)
        assert get(f"{base}/favicon.ico", {}) == (PACKAGE / "http/page/static/favicon.ico").read_bytes()
        server.send_signal(signal.SIGTERM)
        assert server.wait(STOP_SECONDS_MAX) == 0, (tmp_path / "log").read_text()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def serving(program: Path, data: Path, port: int, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as output:
        server = subprocess.Popen(
            [program, "serve", "--data", data, "--port", str(port)],
            cwd=data.parent,
            env=clean_environment(),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        yield server
    finally:
        if server.poll() is None:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()


def wait_for_health(base: str, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS_MAX
    while time.monotonic() < deadline:
        assert server.poll() is None, f"the server ended by itself:\n{log.read_text()}"
        try:
            get(f"{base}/health", {})
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.05)
        else:
            return
    pytest.fail(f"no answer within {START_SECONDS_MAX} s:\n{log.read_text()}")


def get(url: str, headers: Mapping[str, str]) -> bytes:
    """The body of a 200; anything else raises."""
    request = urllib.request.Request(url, headers=dict(headers))
    # A proxy of the surroundings is none of loopback's business.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=10) as answer:
        body: bytes = answer.read()
    return body
