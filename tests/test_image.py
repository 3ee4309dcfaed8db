"""The container image, as far as that goes without Docker: its steps are run here, then what they made."""

import fnmatch
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from confined import Confinement
from server import Server, environment, free_port, wait_until_healthy
from tenants import EVENTS, client, events, recorded

ROOT = Path(__file__).resolve().parents[1]
Step = tuple[str, str]

# One build for all of them.


def stages() -> list[list[Step]]:
    """The instructions of each stage of the Dockerfile; what stands before the first one is left out."""
    text = re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)
    steps: list[Step] = re.findall(r"^([A-Z]+) (.*)$", re.sub(r"\\\n\s*", "", text), re.MULTILINE)
    starts = [position for position, (name, _) in enumerate(steps) if name == "FROM"]
    return [steps[start:end] for start, end in zip(starts, [*starts[1:], len(steps)], strict=True)]


BUILD, IMAGE = stages()


def said(name: str) -> list[str]:
    """What the image's own stage says to an instruction."""
    return [text for found, text in IMAGE if found == name]


def variables(stage: list[Step]) -> dict[str, str]:
    pairs = (pair for name, text in stage if name == "ENV" for pair in text.split())
    return dict(pair.split("=", 1) for pair in pairs)


def is_sent(path: str) -> bool:
    """Whether .dockerignore lets a path of the repository into the build: the last line that fits decides."""
    sent = True
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        pattern = line.removeprefix("!")
        above = [path, *map(str, Path(path).parents)]
        if pattern and not pattern.startswith("#") and any(fits(each, pattern) for each in above):
            sent = line.startswith("!")
    return sent


def fits(path: str, pattern: str) -> bool:
    if pattern.startswith("**/"):
        return fnmatch.fnmatch(path.rpartition("/")[2], pattern.removeprefix("**/"))
    return path != "." and "/" not in path.removeprefix(pattern) and fnmatch.fnmatch(path, pattern)


# What it says.


def test_only_what_is_built_gets_into_the_build() -> None:
    """No key, data, history or environment of whoever builds, but all that is copied."""
    for path in ("data/admin.key", "demo-data/log.key", ".git/config", ".venv/bin/python", "tests/server.py"):
        assert not is_sent(path), path
    for name, text in BUILD:
        if name == "COPY":
            *sources, _ = text.split()
            assert all(is_sent(source) and (ROOT / source).exists() for source in sources), text
    assert is_sent("src/auditplane/http/page/static/vendor/vendor.json")
    assert not is_sent("src/auditplane/__pycache__")


def test_everything_that_is_installed_is_checked_by_hash() -> None:
    """pip and uv take nothing that uv.lock does not know, but the wheel that was just built."""
    commands = [part.strip() for name, text in BUILD if name == "RUN" for part in text.split("&&")]
    installing = [command for command in commands if re.search(r"\b(install|sync)\b", command)]
    assert len(installing) == 4
    for command in installing:
        assert re.search(r"--require-hashes|sync --frozen|--no-deps .* dist/\*\.whl", command), command
    assert not any(re.search(r"curl|wget|apt-get|://", command) for command in commands)
    assert not any(name == "ADD" for name, _ in (*BUILD, *IMAGE))


def test_the_image_has_one_user_who_is_not_root() -> None:
    """By number, so that who runs it can check that; programs are started without a shell, which it lacks."""
    assert IMAGE[0] == ("FROM", "scratch")
    (user,) = said("USER")
    assert re.fullmatch(r"[1-9]\d{4}:[1-9]\d{4}", user)
    assert json.loads(*said("ENTRYPOINT")) == ["/opt/auditplane/bin/auditplane"]
    assert json.loads(*said("CMD")) == ["serve"]
    assert json.loads(said("HEALTHCHECK")[0].partition("CMD ")[2]) == [
        "/opt/auditplane/bin/auditplane",
        "health",
    ]
    assert said("VOLUME") == [variables(IMAGE)["AUDITPLANE_DATA"]]
    assert said("STOPSIGNAL") == ["SIGTERM"]
    assert said("EXPOSE") == ["3001"]
    assert not said("RUN")


# What it makes.


@dataclass(frozen=True)
class Image:
    """The root folder that was made, and where the environment is in it."""

    root: Path
    program: Path


@pytest.fixture(scope="module")
def image() -> Iterator[Image]:
    """What the steps of the build make, in a folder that others may enter.

    They run with the Python of the tests, and at other paths: those of the image, below that folder.
    """
    place = Path(tempfile.mkdtemp(dir="/tmp"))
    place.chmod(0o755)
    places = {f"/{name}": str(place / name) for name in ("tools", "build", "image")}
    places["/opt/auditplane"] = str(place / "env")

    def moved(text: str) -> str:
        return re.sub("|".join(places), lambda found: places[found[0]], text)

    # What was downloaded once need not be again.
    given = {
        name: value for name, value in variables(BUILD).items() if "CACHE" not in name and "LINK" not in name
    }
    path = f"{sys.base_prefix}/bin:{os.environ['PATH']}"
    (place / "build").mkdir()
    for name, text in BUILD:
        if name == "COPY":
            *sources, to = text.split()
            for source in sources:
                copy(ROOT / source, place / "build" / to / ("" if to.endswith("/") else "."))
        elif name == "RUN":
            done = subprocess.run(
                ["sh", "-c", moved(text).replace("--no-cache-dir", "")],
                cwd=place / "build", env=environment({**given, "PATH": path}),
                capture_output=True, text=True, timeout=120, check=False,
            )  # fmt: skip
            assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
    yield Image(place / "image", Path(moved("/opt/auditplane/bin/auditplane")))
    shutil.rmtree(place)


def copy(source: Path, to: Path) -> None:
    """As COPY does: a folder's contents, a file into a folder."""
    if source.is_dir():
        shutil.copytree(source, to.parent / source.name, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        to.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, to)


def test_the_image_holds_the_server_and_nothing_to_work_with(image: Image) -> None:
    """No shell, no tools, no installer, no secret; but what a scanner looks for."""
    names = {path.name for path in image.root.rglob("*") if not path.is_dir()}
    assert not names & {"sh", "bash", "busybox", "pip", "uv", "apt-get", "ldd", "log.key", "admin.key"}
    packages = {path.name for path in image.root.rglob("*.dist-info")}
    assert any(name.startswith("granian-") for name in packages)
    assert not any(re.match(r"(pip|uv|hatchling|pytest)-", name) for name in packages)
    if shutil.which("dpkg-query"):
        status = (image.root / "var/lib/dpkg/status.d/libc6").read_text()
        assert "Package: libc6" in status
        assert (image.root / "usr/share/doc/libc6/copyright").exists()
    programs = [path for path in image.root.rglob("*") if path.is_file() and path.stat().st_mode & 0o6000]
    assert programs == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can change the root folder")
def test_the_image_serves_from_a_read_only_root(image: Image, tmp_path: Path) -> None:
    """As its user, without a right or a /tmp, it starts, is healthy, records, shows its page, and stops."""
    user = int(said("USER")[0].partition(":")[0])
    data, port = tmp_path / "data", free_port()
    data.mkdir(mode=0o700)
    os.chown(data, user, user)
    within = Confinement(user, root=str(image.root), data=str(data)).command()
    given = {**variables(IMAGE), "AUDITPLANE_PORT": str(port)}
    log = tmp_path / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*within, image.program, *json.loads(*said("CMD"))],
            env=given, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
        )  # fmt: skip
    with Server(data, port, process, log) as server:
        wait_until_healthy(server)
        assert "serves /data at" in server.output
        healthy = [*within, str(image.program), "health"]
        assert subprocess.run(healthy, env=given, capture_output=True, check=False).returncode == 0
        with client(server.url, server.admin_key) as admin:
            recorded(admin.post(EVENTS, json=events(10)))
            assert admin.get(f"{EVENTS}/count").json()["count"] == 11
        with client(server.url) as browser:
            assert browser.post("/sign-in", data={"key": server.admin_key}).status_code == 303
            assert browser.get("/overview").status_code == 200
        assert server.stop() == 0
        assert subprocess.run(healthy, env=given, capture_output=True, check=False).returncode == 1
        assert server.output.count("\n") == 2, server.output
