import fcntl
import os
import re
import shutil
import signal
import socket
import ssl
import stat
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from auditplane import __version__
from auditplane.cli.server import AS_ROOT
from auditplane.store.sqlite.database import CHECKSUM_BYTES, PAGE_BYTES, connect, fetch, one
from server import PROGRAM, Server, environment, free_port, make_key, run, start, wait_until_healthy
from tenants import EVENTS, KEYS, client, event, recorded
from trails import made_folder

NOBODY = 65534


def refused(data: Path, *args: str | Path, status: int = 1) -> str:
    """The one line with which a start is refused."""
    done = run("serve", "--data", data, *args)
    assert (done.returncode, done.stdout) == (status, ""), done
    assert re.fullmatch(r"auditplane: .+\n", done.stderr), done.stderr
    return done.stderr


def answers(server: Server) -> bool:
    """Whether a server lets its first key in."""
    with client(server.url, server.admin_key) as admin:
        return admin.get(EVENTS).status_code == 200


def wait_for(condition: Callable[[], bool], seconds: float = 15.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def modes(folder: Path) -> dict[str, str]:
    """The modes of all files and folders in one."""
    return {str(path.relative_to(folder)): stat.filemode(path.stat().st_mode) for path in folder.rglob("*")}


# What a start leaves and says.


def test_a_first_start_makes_a_folder_for_its_owner_alone_and_says_where(tmp_path: Path) -> None:
    """Both lines come at once, and nothing else is ever said; folders have mode 0700 and files 0600."""
    data = tmp_path / "new" / "data"
    before = os.umask(0)
    try:
        server = start(data)
    finally:
        os.umask(before)
    with server:
        said = (
            f"Auditplane {__version__} serves {data} at {server.url}\n"
            f"The key of its first admin is in {data / 'admin.key'}\n"
        )
        wait_for(lambda: server.output == said)
        assert re.fullmatch(r"ap_[0-9A-Za-z]{49}\n", (data / "admin.key").read_text())
        assert answers(server)
        found = [modes(data)]
        assert_metrics_have_room(data)
        assert server.stop() == 0
        assert server.output == said
        found.append(modes(data))
    assert stat.filemode(data.stat().st_mode) == "drwx------"
    assert {path: mode for each in found for path, mode in each.items() if mode[4:] != "------"} == {}
    assert found[1]["admin.key"] == "-rw-------"


def assert_metrics_have_room(data: Path) -> None:
    """The files that are mapped into memory lie on the disk wholly: a page missing would kill the worker."""
    found = list((data / "metrics").iterdir())
    assert {path.name.partition("_")[0] for path in found} == {"counter", "gauge", "histogram"}
    for path in [*found, data / "control.version"]:
        assert path.stat().st_blocks * 512 >= path.stat().st_size > 0, path


def test_a_folder_is_small_and_in_order_after_a_stop(tmp_path: Path) -> None:
    """What was recorded is copied out of the write-ahead log, and no first key is made a second time."""
    data = tmp_path / "data"
    with start(data) as server:
        key = server.admin_key
        server.stop()
    assert [path.name for path in (data / "accounts").glob("*-wal") if path.stat().st_size] == []
    (data / "admin.key").unlink()
    with start(data) as server:
        assert "admin.key" not in server.output
        assert not (data / "admin.key").exists()
        with client(server.url, key) as admin:
            assert admin.get(EVENTS).status_code == 200


def test_a_name_or_an_address_of_ipv6_will_do(tmp_path: Path) -> None:
    """`--host` takes what has an address; a name means IPv4 where it has both."""
    port = str(free_port())
    for host, shown in (("localhost", "localhost"), ("::1", "[::1]")):
        process = subprocess.Popen(
            [PROGRAM, "serve", "--data", tmp_path / "data", "--host", host, "--port", port],
            env=environment(),
            stdout=subprocess.PIPE,
            text=True,
        )
        with process:
            assert process.stdout is not None
            assert process.stdout.readline().endswith(f" at http://{shown}:{port}\n")
            with socket.create_connection(("127.0.0.1" if host == "localhost" else "::1", int(port)), 5):
                pass
            process.terminate()
            assert process.wait(10) == 0


def test_a_closed_standard_output_is_no_reason_to_end(tmp_path: Path) -> None:
    """`auditplane serve | head -1` serves on."""
    reading, writing = os.pipe()
    os.close(reading)
    port = free_port()
    process = subprocess.Popen(
        [PROGRAM, "serve", "--data", tmp_path / "data", "--port", str(port)],
        env=environment(),
        stdout=writing,
        stderr=subprocess.PIPE,
    )
    os.close(writing)
    with process:
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            try:
                socket.create_connection(("127.0.0.1", port), 5).close()
            except ConnectionRefusedError:
                time.sleep(0.02)
            else:
                break
        time.sleep(0.2)
        process.terminate()
        assert (process.wait(10), process.communicate()[1]) == (0, b"")


# What is refused.


def test_a_folder_or_a_port_that_is_taken_is_refused(tmp_path: Path) -> None:
    """The line names the process that holds the folder, or the port; the one that runs comes to no harm."""
    with start(tmp_path / "data") as server:
        told = refused(tmp_path / "data", "--port", str(free_port()))
        assert f"process {server.process.pid})" in told
        assert str(tmp_path / "data") in told
        told = refused(tmp_path / "other", "--port", str(server.port))
        assert f"127.0.0.1 port {server.port}: Address already in use" in told
        assert "--port" in told
        assert answers(server)


def test_workers_that_nobody_ended_keep_the_next_server_out(tmp_path: Path) -> None:
    """A server that was killed may leave some; the next one waits for them, and not for ever."""
    data = made_folder(tmp_path / "data")
    with (data / "workers.lock").open("w") as left:
        fcntl.flock(left, fcntl.LOCK_SH)
        assert f"Workers of an earlier server still use the data folder {data}" in refused(data)


@pytest.mark.parametrize("host", ["192.0.2.1", "no such host", "a..b"])
def test_an_address_that_is_not_ours_is_refused(host: str, tmp_path: Path) -> None:
    """One line names what was given."""
    told = refused(tmp_path / "data", "--host", host)
    assert told.startswith(f"auditplane: Can't listen on {host} port 3001: ")


def without_header(database: bytes) -> bytes:
    """The pages of a database without its header, and without the checksum over that."""
    return database[100 : PAGE_BYTES - CHECKSUM_BYTES] + database[PAGE_BYTES:]


@pytest.mark.parametrize("file", ["control.db", "accounts/default.db"])
def test_a_folder_of_a_newer_version_is_refused(file: str, tmp_path: Path) -> None:
    """Whichever database is newer, nothing in the folder is changed, and what to do is said."""
    data = made_folder(tmp_path / "data")
    with closing(connect(data / file, durable=False)) as connection:
        fetch(connection, "PRAGMA journal_mode = DELETE")
        known = one(connection, "PRAGMA user_version")
        fetch(connection, f"PRAGMA user_version = {known + 1}")
    before = (data / file).read_bytes()
    told = refused(data)
    assert f"{data / file} has format {known + 1}" in told
    assert "Update Auditplane" in told
    assert without_header(before) == without_header((data / file).read_bytes())


def test_one_damaged_account_does_not_keep_the_others_from_starting(tmp_path: Path) -> None:
    """The log names the account that can't be opened; the server serves the rest."""
    data = made_folder(tmp_path / "data")
    (data / "accounts" / "broken.db").write_bytes(b"no database" * 1000)
    with start(data) as server:
        assert answers(server)
        assert server.stop() == 0
        assert "the account broken can't be opened" in server.output
        assert "Traceback" not in server.output


def test_a_folder_of_other_things_is_left_alone(tmp_path: Path) -> None:
    """`--data .` by mistake neither fills the folder nor takes it away from others."""
    (tmp_path / "thesis.txt").touch()
    tmp_path.chmod(0o755)
    assert "is not a data folder, and not empty" in refused(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o755


def test_a_folder_that_lost_its_keys_is_not_begun_anew(tmp_path: Path) -> None:
    """Nobody's key would work any more, and nothing would say why; who has no backup can begin anew."""
    data = made_folder(tmp_path / "data")
    (data / "control.db").rename(tmp_path / "control.db")
    assert f"touch {data / 'control.db'}" in refused(data)
    assert not (data / "control.db").exists()
    (data / "control.db").touch()
    with start(data) as server:
        assert answers(server)
        assert server.stop() == 0
    assert stat.S_IMODE((data / "control.db").stat().st_mode) == 0o600


def test_an_account_whose_log_is_missing_is_told_of_and_the_others_are_served(tmp_path: Path) -> None:
    """It answers that its log is missing, and none begins; once it is put back, it is served, too."""
    data = tmp_path / "data"
    with start(data) as server:
        _, secret = make_key(data, "admin", account="acme")
        server.stop()
    path = data / "accounts" / "acme.db"
    moved = path.rename(tmp_path / "acme.db")
    with start(data) as server, client(server.url, secret) as acme:
        assert f"The log of the account acme is missing: {path}." in server.output
        assert answers(server)
        for answer in (
            acme.get(EVENTS),
            acme.post(EVENTS, json=event()),
            acme.post(KEYS, json={"role": "reader"}),
        ):
            assert answer.status_code == 500, answer.text
            assert "The log of the account acme is missing" in answer.json()["errors"][0]
            assert str(data) not in answer.text
        assert not path.exists()
        assert (
            "its log is missing"
            in run("verify", "--data", data).stdout + run("doctor", "--data", data).stdout
        )
        moved.rename(path)
        recorded(acme.post(EVENTS, json=event()))
        assert server.stop() == 0


@pytest.fixture
def others() -> Iterator[Path]:
    """A folder that everybody can enter and root alone can write in."""
    above = Path(tempfile.mkdtemp(dir="/tmp"))
    above.chmod(0o755)
    yield above
    shutil.rmtree(above)


def test_a_folder_that_cannot_be_written_is_refused(others: Path) -> None:
    """Below a file; in a place that is read-only; in the folder of somebody else."""
    file = others / "file"
    file.touch()
    assert f"{file / 'data'} can't be used" in refused(file / "data")
    assert "/proc/data can't be used" in refused(Path("/proc/data"))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_the_folder_of_somebody_else_is_refused(others: Path) -> None:
    """With a sentence, whether it can be seen or not."""
    for mode in (0o700, 0o755):
        data = others / f"data{mode}"
        data.mkdir()
        (data / "accounts").mkdir()
        data.chmod(mode)
        code = (
            "import os; import auditplane.cli.commands, auditplane.http.server, encodings.idna\n"
            f"os.setegid({NOBODY}); os.seteuid({NOBODY})\n"
            "from auditplane.cli import main; main()"
        )
        python = PROGRAM.with_name("python")
        for command in ("serve", "keys list"):
            done = subprocess.run(
                [python, "-c", code, *command.split(), "--data", data],
                env=environment(), capture_output=True, text=True, check=False,
            )  # fmt: skip
            assert re.fullmatch(rf"auditplane: .*{data}.*\n", done.stderr), done.stderr
            assert command != "serve" or "is that of user 0; a server can only use" in done.stderr
            assert done.returncode == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can do that")
def test_root_does_not_serve_the_folder_of_another(others: Path) -> None:
    """Nothing in it is changed: what root made there, its owner could not open."""
    data = made_folder(others / "data")
    for path in (data, *data.rglob("*")):
        os.chown(path, NOBODY, NOBODY)
    before = {path: path.stat().st_mtime_ns for path in data.rglob("*")}
    assert f"is that of user {NOBODY}" in refused(data)
    assert {path: path.stat().st_mtime_ns for path in data.rglob("*")} == before


def test_root_is_told_that_its_rights_are_not_needed(tmp_path: Path) -> None:
    """And nobody else is."""
    with start(tmp_path / "data") as server:
        assert (AS_ROOT in server.log.read_text()) == (os.geteuid() == 0)


# TLS.


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for 127.0.0.1, its key, that key with a password, and another key."""
    folder = tmp_path_factory.mktemp("tls")
    openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
            "-subj", "/CN=test", "-addext", "subjectAltName=IP:127.0.0.1",
            "-keyout", folder / "key.pem", "-out", folder / "cert.pem")  # fmt: skip
    openssl("pkey", "-in", folder / "key.pem", "-aes256", "-passout", "pass:x", "-out", folder / "locked.pem")
    openssl("genpkey", "-algorithm", "ed25519", "-out", folder / "other.pem")
    (folder / "empty.pem").touch()
    return folder


def openssl(*args: str | Path) -> None:
    subprocess.run(["openssl", *args], check=True, capture_output=True)


def test_tls_is_served_with_the_certificate_given(certificates: Path, tmp_path: Path) -> None:
    """A client that trusts the certificate and the address gets in; one that speaks plain HTTP does not."""
    tls = ("--tls-cert", certificates / "cert.pem", "--tls-key", certificates / "key.pem")
    with start(tmp_path / "data", *tls) as server:
        trusting = ssl.create_default_context(cafile=certificates / "cert.pem")
        trusting.set_alpn_protocols(["h2", "http/1.1"])  # as a browser does
        with (
            socket.create_connection(("127.0.0.1", server.port), 5) as plain,
            trusting.wrap_socket(plain, server_hostname="127.0.0.1") as wrapped,
        ):
            assert wrapped.version() == "TLSv1.3"
            assert wrapped.selected_alpn_protocol() == "http/1.1"
            wrapped.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            assert wrapped.recv(4096).startswith(b"HTTP/1.1 200")
        with socket.create_connection(("127.0.0.1", server.port), 5) as plain:
            plain.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
            assert b"HTTP/1.1 200" not in plain.recv(4096)
        assert f"at https://127.0.0.1:{server.port}" in server.output
        asked = {"AUDITPLANE_PORT": str(server.port)}
        files = {"AUDITPLANE_TLS_CERT": str(tls[1]), "AUDITPLANE_TLS_KEY": str(tls[3])}
        assert run("health", env=asked | files).returncode == 0
        assert run("health", env=asked).returncode == 1
        flags = ("--data", tmp_path / "data", "--port", str(server.port), "--workers", "1")
        assert run("health", *flags, *tls).returncode == 0
        unread = ("--tls-cert", tls[1], "--tls-key", certificates / "empty.pem")
        assert run("health", *flags, *unread).returncode == 0
        assert run("health", *flags).returncode == 1
        assert server.stop() == 0
        assert len(server.output.splitlines()) == 2, server.output


@pytest.mark.parametrize(
    ("cert", "key"),
    [
        ("cert.pem", "missing.pem"),
        ("cert.pem", "other.pem"),
        ("empty.pem", "key.pem"),
        ("cert.pem", "locked.pem"),
    ],
)
def test_tls_that_cannot_work_is_refused(cert: str, key: str, certificates: Path, tmp_path: Path) -> None:
    """Files that are missing, don't fit each other, or want a password: one line, and nobody is asked."""
    told = refused(
        tmp_path / "data", "--tls-cert", certificates / cert, "--tls-key", certificates / key, status=2
    )
    assert "tls." in told
    assert not (tmp_path / "data").exists()


# Workers.


def workers(server: Server) -> list[int]:
    """The processes that serve."""
    children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text().split()
    return [int(pid) for pid in children if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def test_a_worker_that_dies_is_replaced(tmp_path: Path) -> None:
    """The server serves on, counts only the living, and still ends in order."""
    with start(tmp_path / "data", "--workers", "2") as server:
        wait_for(lambda: len(workers(server)) == 2)
        gone = workers(server)[0]
        os.kill(gone, signal.SIGKILL)
        wait_for(lambda: gone not in workers(server) and len(workers(server)) == 2)
        wait_until_healthy(server)
        wait_for(lambda: not (server.data / "metrics" / f"gauge_livesum_{gone}.db").exists())
        assert answers(server)
        assert server.stop() == 0
        assert "Traceback" not in server.output
        assert "worker-1" in server.output
