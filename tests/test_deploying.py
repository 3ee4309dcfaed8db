"""The page about deploying: its files are there, and its proxy lets through what it should, and nothing else.

test_packaging installs as the page says, test_process_confined has the unit, test_image the image.
"""

import os
import re
import shutil
import signal
import ssl
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest

from auditplane import config, limits
from server import Server, environment, free_port, start
from tenants import DOWNLOAD, EVENTS, client, event, events, recorded

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "deploying.md").read_text()
LARGE_EVENTS = 10_000


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


# What it names.


def test_the_files_that_it_installs_are_there() -> None:
    """And the settings that it begins with can be read."""
    named = re.findall(r"\b(?:deploy|scripts)/[\w.-]+", PAGE)
    assert "deploy/auditplane.service" in named
    assert all((ROOT / path).is_file() for path in named)


def test_its_settings_can_be_read(tmp_path: Path) -> None:
    """They name the folder of the unit."""
    (text,) = blocks("toml")
    file = tmp_path / "auditplane.toml"
    file.write_text(text)
    assert config.load({}, {}, str(file)).data == Path("/var/lib/auditplane")


def test_the_container_is_started_as_it_was_built() -> None:
    """The same user, folder and port as in the Dockerfile, and no right."""
    image = (ROOT / "Dockerfile").read_text()
    (command,) = [line for line in " ".join(blocks("console")).split("$ ") if line.startswith("docker run")]
    (user,) = re.findall(r"^USER (.*)$", image, re.MULTILINE)
    (port,) = re.findall(r"^EXPOSE (.*)$", image, re.MULTILINE)
    (folder,) = re.findall(r"^VOLUME (.*)$", image, re.MULTILINE)
    for option in (
        f"--user {user}",
        f":{port}",
        f":{folder}",
        "--read-only",
        "--cap-drop ALL",
        "no-new-privileges",
    ):
        assert option in command
    (base,) = re.findall(r"^ARG PYTHON_IMAGE=(.*)$", image, re.MULTILINE)
    assert f"`{base}`" in PAGE
    (seconds,) = re.findall(r"--stop-timeout (\d+)", command)
    assert int(seconds) > 2 * limits.SHUTDOWN_SECONDS_MAX


# The proxy.


@dataclass
class Proxy:
    """nginx, before a server."""

    server: Server
    url: str
    trusting: ssl.SSLContext

    def browser(self, secret: str | None = None) -> httpx2.Client:
        headers = {"X-Bindplane-Api-Key": secret} if secret else {}
        return httpx2.Client(base_url=self.url, timeout=30, verify=self.trusting, headers=headers)


@pytest.fixture(scope="module")
def proxy() -> Iterator[Proxy]:
    """The proxy of the page, with a certificate of its own and other ports."""
    place = Path(tempfile.mkdtemp(dir="/tmp"))
    place.chmod(0o755)
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days",
         "2", "-subj", "/CN=test", "-addext", "subjectAltName=IP:127.0.0.1",
         "-keyout", place / "key.pem", "-out", place / "fullchain.pem"],
        check=True, capture_output=True,
    )  # fmt: skip
    (conf,) = blocks("nginx")
    port = free_port()
    with start(place / "data") as server:
        conf = conf.replace("/etc/ssl/audit.example.com", str(place)).replace("443", f"127.0.0.1:{port}")
        conf = conf.replace("127.0.0.1:3001", f"127.0.0.1:{server.port}")
        temporary = "".join(
            f"{kind}_temp_path {place}/{kind};"
            for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        (place / "nginx.conf").write_text(
            f"daemon off; pid {place}/pid; error_log stderr;\nevents {{}}\n"
            f"http {{ access_log {place}/access.log; {temporary}\n{conf} }}\n"
        )
        nginx = shutil.which("nginx") or "/usr/sbin/nginx"
        with (place / "nginx.log").open("wb") as log:
            process = subprocess.Popen([nginx, "-c", place / "nginx.conf"], env=environment(), stderr=log)
        try:
            trusting = ssl.create_default_context(cafile=place / "fullchain.pem")
            made = Proxy(server, f"https://127.0.0.1:{port}", trusting)
            wait_for(made, process, place / "nginx.log")
            yield made
        finally:
            process.terminate()
            process.wait(10)
    shutil.rmtree(place)


def wait_for(proxy: Proxy, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()
        try:
            with proxy.browser() as browser:
                browser.get("/health")
        except httpx2.TransportError:
            time.sleep(0.05)
        else:
            return
    pytest.fail(log.read_text())


def test_the_proxy_passes_what_the_server_takes(proxy: Proxy) -> None:
    """The API with its keys, the largest recording there may be and no larger one, the server's errors."""
    with proxy.browser(proxy.server.admin_key) as admin:
        assert admin.get("/health").headers["Strict-Transport-Security"]
        recorded(admin.post(EVENTS, json=[event(), event()]))
        body = b"[" + b" " * (limits.BODY_BYTES_MAX - 2) + b"]"
        assert (
            "errors" in admin.post(EVENTS, content=body, headers={"Content-Type": "application/json"}).json()
        )
        assert admin.post(EVENTS, content=body + b" ").status_code == 413
        assert admin.get(f"{EVENTS}/none").json()["errors"]
    with proxy.browser("ap_wrong") as stranger:
        assert stranger.get(EVENTS).status_code == 401


def test_the_metrics_stay_behind_the_proxy(proxy: Proxy) -> None:
    """However they are asked for; whoever is on the machine sees them."""
    with proxy.browser(proxy.server.admin_key) as admin:
        for path in ("/metrics", "/metrics?x", "/%6Detrics", "//metrics", "/./metrics", "/x/../metrics"):
            assert b"auditplane_" not in admin.get(path).content, path
        assert admin.get("/metrics").status_code == 403
    with client(proxy.server.url) as near:
        assert b"auditplane_" in near.get("/metrics").content


def test_the_page_works_behind_the_proxy(proxy: Proxy) -> None:
    """The cookie is a secure one, forms are taken, and live mode comes through at once."""
    with proxy.browser() as browser:
        headers = {"Origin": proxy.url, "Sec-Fetch-Site": "same-origin"}
        answer = browser.post("/sign-in", data={"key": proxy.server.admin_key}, headers=headers)
        assert answer.status_code == 303, answer.text
        assert answer.headers["Set-Cookie"].startswith("__Host-auditplane_session=")
        assert "Secure" in answer.headers["Set-Cookie"]
        assert browser.get("/").status_code == 200
        with browser.stream("GET", "/live?after=0", headers={"Accept": "text/event-stream"}) as live:
            parts = live.iter_text()
            next(parts)
            with client(proxy.server.url, proxy.server.admin_key) as admin:
                recorded(admin.post(EVENTS, json=event()))
            began = time.monotonic()
            while "data:" not in next(parts):
                pass
            assert time.monotonic() - began < 5


def test_an_answer_that_breaks_off_is_not_whole_behind_the_proxy(proxy: Proxy) -> None:
    """When the worker dies in the middle of a download, the client of the proxy sees an error, not an end."""
    with client(proxy.server.url, proxy.server.admin_key) as admin:
        recorded(admin.post(EVENTS, json=events(LARGE_EVENTS, description="x" * 500)))
    with proxy.browser(proxy.server.admin_key) as admin:
        with admin.stream("GET", DOWNLOAD) as answer:
            parts = answer.iter_raw(64 * 1024)
            assert next(parts)
            kill_worker(proxy.server)
            with pytest.raises(httpx2.RemoteProtocolError):
                list(parts)
        whole = settled(admin).content
        assert whole.count(b"\r\n") > LARGE_EVENTS


def kill_worker(server: Server) -> None:
    children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text().split()
    for pid in map(int, children):
        if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes():
            os.kill(pid, signal.SIGKILL)


def settled(admin: httpx2.Client) -> httpx2.Response:
    """The whole download, once there is a worker again."""
    deadline = time.monotonic() + 20
    while (answer := admin.get(DOWNLOAD)).status_code == 502:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert answer.status_code == 200, answer.text
    return answer


def test_the_proxy_limits_attempts_to_sign_in(proxy: Proxy) -> None:
    """By address; the API goes on. It comes last: it uses them up."""
    with proxy.browser(proxy.server.admin_key) as admin:
        answers = [admin.post("/sign-in", data={"key": "ap_wrong"}).status_code for _ in range(15)]
        assert answers[-1] == 429
        assert admin.get(EVENTS, params={"limit": 1}).status_code == 200
