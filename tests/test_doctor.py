import json
import os
import random
import re
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import apsw
import pytest

from auditplane import backup, config, keeping, log
from auditplane.access import Access
from auditplane.access.key import Role
from auditplane.access.stored import SYNCS_AT
from auditplane.doctor import Finding, Level, Look, examine_folder, examine_settings, place
from auditplane.errors import InvalidConfig, NotAuthenticated
from auditplane.event import Rules, parse
from auditplane.rotation import NEXT_FILE
from auditplane.signing import log_key, make_log_key, new_signer
from auditplane.store.sqlite.fetched import Fetched, keep_fetched
from auditplane.store.sqlite.folder import hold, note_backup
from auditplane.store.sqlite.verified import Verified, keep_verified
from auditplane.times import DAY_US
from folders import FreeFolder
from server import environment, free_port, run, start
from tenants import EVENTS, client, clock, events

ITS_OWN = re.compile(r"doctor\.probe|.*-shm")  # SQLite's readers write to the latter


def record(path: Path, account: str = "default", count: int = 300, ago_us: int = 0) -> None:
    """Records some events, and signs a checkpoint of them."""
    folder = FreeFolder(path)
    with folder.account(account) as store:
        batch = parse(json.dumps(events(count)).encode(), Rules(account=account))
        log.record(store, [log.Request(batch, "test")], lambda: log.clock() - ago_us)
        log.checkpoint(store, log_key(path, None, None).for_account(account), log.clock)
    folder.close()


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sound folder: two accounts with an admin each, events, checkpoints."""
    path = tmp_path_factory.mktemp("doctor") / "data"
    folder = FreeFolder(path)
    access = Access(folder, log.clock)
    access.ensure_admin_key()
    access.create(account="acme", role=Role.ADMIN, by="test")
    access.close()
    folder.close()
    make_log_key(path, "test")
    for account in ("default", "acme"):
        record(path, account)
    return path


@pytest.fixture
def data(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "data"))


def look(
    data: Path, now_us: int | None = None, *, variables: Mapping[str, str] | None = None, **flags: Any
) -> list[Finding]:
    """What is found in a folder."""
    given = {"data": str(data), "port": str(free_port()), **flags}
    settings, problems = config.read(given, variables or {})
    looked = Look(settings, problems, clock() if now_us is None else now_us)
    return [*examine_settings(looked), *examine_folder(looked)]


def bad(findings: list[Finding]) -> list[Finding]:
    """What is not as it should be."""
    return [finding for finding in findings if finding.level is not Level.OK]


def only(findings: list[Finding], level: Level, about: str) -> Finding:
    """The one thing that is not as it should be."""
    (found,) = bad(findings)
    assert (found.level, found.about) == (level, about), found
    assert found.what
    assert found.do
    return found


def tree(path: Path) -> dict[str, tuple[int, int, bytes]]:
    """Every file of a folder but those of the doctor: mode, time of change, and what is in it."""
    return {
        file.relative_to(path).as_posix(): (
            file.lstat().st_mode,
            file.lstat().st_mtime_ns,
            file.read_bytes(),
        )
        for file in path.rglob("*")
        if file.is_file() and not ITS_OWN.fullmatch(file.name)
    }


# Sound folders.


def test_a_sound_folder_has_no_finding_and_is_left_as_it_is(data: Path) -> None:
    """Each check that finds nothing says what it looked at."""
    before = tree(data)
    found = look(data)
    assert bad(found) == []
    assert {finding.about for finding in found} >= {
        "settings", "address", "certificate", "versions", "clock", "open files", "folder", "owner",
        "file system", "room", "disk", "keys", "admin.key", "signing in", "log key", "logs", "backup",
    }  # fmt: skip
    assert "Accounts: 2, events: 602; all pages were looked at." in {finding.what for finding in found}
    assert tree(data) == before
    assert not list(data.glob("doctor*"))


def test_a_fresh_server_and_one_at_work_have_no_finding(tmp_path: Path) -> None:
    """The server goes on, the lines say so, and the exit code is 0."""
    data = tmp_path / "data"
    with start(data, "--workers", "2") as server:
        for _ in range(2):
            done = run("doctor", "--data", data, "--port", str(server.port))
            assert (done.returncode, done.stderr) == (0, ""), done.stdout
            lines = done.stdout.splitlines()
            assert lines[-1].startswith("0 wrong, 0 to be looked after, "), done.stdout
            assert f"answers at {server.url}, and can record." in done.stdout
            assert all(line.startswith("ok ") for line in lines[:-2])
            with client(server.url, server.admin_key) as admin:
                assert admin.post(EVENTS, json=events(10)).status_code == 201
        assert server.stop() == 0
        assert "Traceback" not in server.output


def test_it_may_be_run_while_events_are_recorded(data: Path) -> None:
    """Nobody is kept from recording, and what the server writes meanwhile is no damage."""
    folder = FreeFolder(data)
    access = Access(folder, log.clock)
    with folder.account("default") as store:
        for _ in range(10):
            batch = parse(json.dumps(events(200)).encode(), Rules())
            (result,) = log.record(store, [log.Request(batch, "test")], log.clock)
            assert not isinstance(result, Exception)
            assert bad(look(data)) == []
    access.close()
    folder.close()


def test_a_folder_of_a_killed_server_is_sound(data: Path, tmp_path: Path) -> None:
    """Its write-ahead logs are part of it, and are left as they are."""
    folder = FreeFolder(data)
    with folder.account("default") as store:
        batch = parse(json.dumps(events(200)).encode(), Rules())
        log.record(store, [log.Request(batch, "test")], log.clock)
        killed = Path(shutil.copytree(data, tmp_path / "killed"))
    folder.close()
    (killed / "accounts" / "default.db-shm").unlink()
    before = tree(killed)
    assert (killed / "accounts" / "default.db-wal").stat().st_size
    found = look(killed)
    assert bad(found) == []
    assert any("events: 802;" in finding.what for finding in found)
    assert tree(killed) == before


def test_what_it_prints_as_json_is_what_it_prints_as_lines(data: Path) -> None:
    """And the exit code is 1 as soon as something is wrong."""
    (data / "control.db").unlink()
    (data / "stranger\x1b[2J").touch()
    port = str(free_port())
    shown = run("doctor", "--data", data, "--port", port)
    told = run("doctor", "--data", data, "--port", port, "-o", "json")
    assert shown.returncode == told.returncode == 1
    assert shown.stdout.replace("\n", "").isprintable()
    found = json.loads(told.stdout)
    assert [finding["level"] for finding in found].count("wrong") == 1
    lines = [line.split(maxsplit=1)[0] for line in shown.stdout.splitlines() if line]
    assert [line for line in lines if line in ("ok", "warn", "wrong")] == [each["level"] for each in found]
    for finding in found:
        assert (finding["level"] == "ok") == ("do" not in finding)
    assert run("doctor", "--nonsense").returncode == 2


def test_it_takes_the_flags_of_serve() -> None:
    """Who starts a server with flags examines it with the same ones."""
    assert set(re.findall(r"--[a-z-]+", run("serve", "--help").stdout)) <= set(
        re.findall(r"--[a-z-]+", run("doctor", "--help").stdout)
    )


# Settings.


def test_all_that_is_wrong_with_the_settings_is_told(data: Path, tmp_path: Path) -> None:
    """Not only the first; and the rest is looked at with what can be used."""
    file = tmp_path / "settings.toml"
    file.write_text("prot = 1\nworkers = 'many'\n[log]\nnmae = 'x'\n")
    environment = {"AUDITPLANE_LOG_PUBLIC": "maybe", "AUDITPLANE_DATTA": "x", "AUDITPLANE_CONFIG": str(file)}
    found = look(data, variables=environment, now_us=None, **{"tls.cert": str(tmp_path / "missing")})
    told = [finding.what for finding in bad(found)]
    assert all(finding.about == "settings" for finding in bad(found))
    words = ("prot in", "workers in", "log.nmae in", "_LOG_PUBLIC", "_DATTA", "tls.key", "no file")
    for word in words:
        assert len([what for what in told if word in what]) == 1, (word, told)
    assert len(told) == 7
    with pytest.raises(InvalidConfig, match=r"prot in.*DATTA"):  # `serve` tells all of them, too
        config.load({}, environment)


def test_more_workers_than_processors_and_no_tls_are_told(data: Path) -> None:
    assert "processors" in only(look(data, workers="64"), Level.WARN, "settings").what
    assert "TLS" in only(look(data, host="::"), Level.WARN, "address").what
    assert bad(look(data, host="::1")) == bad(look(data, host="localhost")) == []


def test_an_address_that_can_not_be_had_is_told(data: Path) -> None:
    """Another program has the port, or this machine has not the address."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        found = only(look(data, port=str(taken.getsockname()[1])), Level.WRONG, "address")
        assert "in use" in found.what
    assert "198.51.100.1" in bad(look(data, host="198.51.100.1"))[0].what


def test_a_server_that_is_elsewhere_than_these_settings_say_or_not_well_is_told(data: Path) -> None:
    """What the server says of itself is told, and is no reason to look at nothing else."""
    (data / "health").mkdir(mode=0o700)
    with start(data) as server:
        found = only(look(data), Level.WARN, "address")
        assert str(server.process.pid) in found.what
        found = only(look(data, port=str(server.port)), Level.WRONG, "address")
        assert "the disk takes no writes" in found.what


def openssl(*args: str | Path) -> None:
    subprocess.run(["openssl", *args], check=True, capture_output=True)


def test_certificates_are_looked_at(data: Path, tmp_path: Path) -> None:
    """One that can't be used, does not fit, or is not of this time."""
    cert, key, other = (tmp_path / name for name in ("cert.pem", "key.pem", "other.pem"))
    openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "100",
            "-subj", "/CN=test", "-addext", "subjectAltName=DNS:audit.example.com",
            "-keyout", key, "-out", cert)  # fmt: skip
    openssl("genpkey", "-algorithm", "ed25519", "-out", other)
    tls: dict[str, Any] = {"tls.cert": str(cert), "tls.key": str(key)}
    sound = look(data, **tls)
    assert bad(sound) == []
    assert any("audit.example.com" in finding.what for finding in sound)
    for days, level, word in (
        (75, Level.WARN, "24 days"),
        (101, Level.WRONG, "ended at"),
        (-1, Level.WRONG, "begins at"),
    ):
        found = [
            finding
            for finding in look(data, clock() + days * DAY_US, **tls)
            if finding.about == "certificate"
        ]
        assert [finding.level for finding in found] == [level]
        assert word in found[0].what
    key.chmod(0o644)
    assert only(look(data, **tls), Level.WARN, "certificate").do == f"chmod o= {key}"
    assert (
        "can't be used" in only(look(data, **{**tls, "tls.key": str(other)}), Level.WRONG, "certificate").what
    )
    cert.write_text("nothing")
    assert "can't be used" in only(look(data, **tls), Level.WRONG, "certificate").what


def test_a_token_of_the_metrics_is_looked_at(data: Path, tmp_path: Path) -> None:
    token = tmp_path / "token"
    environment = {"AUDITPLANE_METRICS_TOKEN": str(token)}
    assert "can't be read" in only(look(data, variables=environment), Level.WRONG, "metrics").what
    token.write_text("short")
    assert "16 characters" in only(look(data, variables=environment), Level.WRONG, "metrics").what
    token.write_text("a-token-of-some-length")
    token.chmod(0o644)
    assert "everybody" in only(look(data, variables=environment), Level.WARN, "metrics").what
    token.chmod(0o640)
    assert bad(look(data, variables=environment)) == []


# The machine.


def test_a_low_limit_of_open_files_is_told(data: Path) -> None:
    """That of the server, where one runs: here it is the test's own process."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    code = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_NOFILE, (512, 1024)); "
        "from auditplane.cli import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "doctor", "--data", data, "--port", str(free_port())],
        env=environment(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert re.search(
        r"^warn +open files +A server started here may have 1,024 open", done.stdout, re.MULTILINE
    )
    if before[1] >= 4_096:
        held = hold(data)
        resource.setrlimit(resource.RLIMIT_NOFILE, (2_048, before[1]))
        try:
            assert [finding.about for finding in bad(look(data))] == ["address"]
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)
            os.close(held)


def test_a_clock_that_was_set_is_told(data: Path) -> None:
    """One before this program was made, and one before what is stored."""
    found = bad(look(data, clock() - 40 * 365 * DAY_US))
    assert {finding.about for finding in found} >= {"clock"}
    assert any("It says 19" in finding.what for finding in found)
    record(data, ago_us=-3_600_000_000)
    found = bad(look(data))
    assert ["default" in finding.what for finding in found if finding.about == "clock"] == [True]


# The place.


def test_folders_that_are_none_are_told(tmp_path: Path) -> None:
    """Missing, a file, half restored, of somebody else; and an empty one is fine."""
    assert only(look(tmp_path / "nowhere" / "data"), Level.WARN, "folder").do.startswith(
        "If there should be one"
    )
    (tmp_path / "file").touch()
    assert "is no folder" in only(look(tmp_path / "file"), Level.WRONG, "folder").what
    (tmp_path / "other").mkdir()
    assert bad(look(tmp_path / "other")) == []
    (tmp_path / "other" / "photo.jpg").touch()
    assert "photo.jpg" in only(look(tmp_path / "other"), Level.WRONG, "folder").what
    (tmp_path / "other" / "restoring").mkdir()
    assert "restore the backup again" in only(look(tmp_path / "other"), Level.WRONG, "folder").do


def test_files_that_others_may_look_at_and_strange_ones_are_told(data: Path) -> None:
    (data / "accounts" / "acme.db").chmod(0o644)
    assert "accounts/acme.db" in only(look(data), Level.WARN, "modes").what
    (data / "accounts" / "acme.db").chmod(0o600)
    data.chmod(0o750)
    assert "the folder itself" in only(look(data), Level.WARN, "modes").what
    data.chmod(0o700)
    (data / "notes.txt").touch(0o600)
    (data / "accounts" / "Not An Account.db").touch(0o600)
    found = only(look(data), Level.WARN, "contents")
    assert "accounts/Not An Account.db" in found.what
    assert "notes.txt" in found.what


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
def test_files_of_somebody_else_are_told(data: Path) -> None:
    """Root made a file that the server's user can't open; and whoever is neither can't look."""
    os.chown(data / "log.retired" if (data / "log.retired").exists() else data / "log.key", 65534, 65534)
    found = only(look(data), Level.WRONG, "owner")
    assert "log.key" in found.what
    assert found.do.startswith("chown -R root ")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
def test_root_looks_at_the_folder_of_another_user_as_that_user(data: Path) -> None:
    """What it finds is what the server would, and it leaves no file of root's behind."""
    for path in (data, *data.rglob("*")):
        os.chown(path, 65534, 65534)
    hidden = run("doctor", "--data", data, "--port", str(free_port()))
    assert hidden.returncode == 1
    assert "Permission denied" in hidden.stdout  # pytest's folders are root's own
    elsewhere = Path(tempfile.mkdtemp())
    elsewhere.chmod(0o755)
    data = data.rename(elsewhere / "data")
    with closing(apsw.Connection(str(data / "accounts" / "default.db"))) as open_elsewhere:
        open_elsewhere.execute("SELECT count(*) FROM log").fetchall()
        done = run("doctor", "--data", data, "--port", str(free_port()))
    assert done.stdout.splitlines()[-1].startswith("0 wrong, 0 to be looked after"), done.stdout
    assert {path.stat().st_uid for path in data.rglob("*")} == {65534}
    shutil.rmtree(elsewhere)


def test_file_systems_that_lose_events_are_told(tmp_path: Path) -> None:
    """The last mount that covers the folder counts, whatever signs its name has."""
    mounts = (
        "/dev/sda1 / ext4 rw 0 0\nfiler:/x /srv nfs4 rw 0 0\n/dev/sdb1 /srv/local xfs rw 0 0\n"
        "tmpfs /run/my\\040data tmpfs rw 0 0\noverlay /layer overlay rw 0 0\nbroken\n"
        "//win/c /mnt cifs rw 0 0\n"
        "/dev/sdc /mnt ext4 rw 0 0\n"
    )
    for path, level, word in (
        ("/var/lib/auditplane", Level.OK, "ext4 at /."),
        ("/srv/data", Level.WRONG, "nfs4"),
        ("/srvdata", Level.OK, "ext4 at /."),
        ("/srv/local/data", Level.OK, "xfs at /srv/local"),
        ("/run/my data/x", Level.WARN, "in memory"),
        ("/layer/data", Level.WARN, "container"),
        ("/mnt/data", Level.OK, "ext4 at /mnt"),
    ):
        found = place.file_system(Path(path), mounts)
        assert (found.level, word in found.what) == (level, True), found
    assert place.file_system(tmp_path, Path("/proc/self/mounts").read_text()).about == "file system"


def test_a_disk_that_is_full_in_memory_or_read_only_is_told(original: Path, tmp_path: Path) -> None:
    """On a real disk of its own; when the trouble ends, so do the findings."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("needs a root who may mount a tmpfs")
    try:
        data = Path(shutil.copytree(original, disk / "data"))

        def found() -> dict[str, Level]:
            return {finding.about: finding.level for finding in bad(look(data))}

        small = {"file system": Level.WARN, "room": Level.WARN}
        assert found() == small
        filler = disk / "filler"
        with pytest.raises(OSError, match="No space"):
            filler.write_bytes(bytes(16 << 20))
        assert found() == {"file system": Level.WARN, "room": Level.WRONG, "disk": Level.WRONG}
        filler.unlink()
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        assert found() == {**small, "disk": Level.WRONG}
        subprocess.run(["mount", "-o", "remount,rw", disk], check=True)
        assert found() == small
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)


# Keys.


def change(data: Path, statement: str, file: str = "accounts/default.db") -> None:
    with closing(apsw.Connection(str(data / file))) as connection:
        connection.execute(statement).fetchall()
        connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)


def access_of(data: Path) -> Iterator[Access]:
    folder = FreeFolder(data)
    access = Access(folder, log.clock)
    yield access
    access.close()
    folder.close()


@pytest.fixture
def access(data: Path) -> Iterator[Access]:
    yield from access_of(data)


def test_keys_that_are_gone_or_end_are_told(data: Path, access: Access) -> None:
    """No admin left in an account, one that ends soon, and none at all."""
    ending, _ = access.create(
        account="acme", role=Role.READER, by="test", description="collector", expires_us=clock() + 3 * DAY_US
    )
    access.create(account="acme", role=Role.READER, by="test", expires_us=clock() + 90 * DAY_US)
    found = only(look(data), Level.WARN, "keys")
    assert f"{ending.id} (collector) of the account acme ends at" in found.what
    access.revoke(ending.id, account="acme", by="test")
    assert bad(look(data)) == []
    admins = {key.account: key.id for key in access.keys(None) if key.role is Role.ADMIN}
    access.revoke(admins["acme"], account="acme", by="test")
    assert "account acme" in only(look(data), Level.WARN, "keys").what
    access.revoke(admins["default"], account="default", by="test")
    later = bad(look(data, clock() + 91 * DAY_US))
    assert [each.level for each in later if each.about == "keys"] == [Level.WRONG]


def test_the_key_of_the_first_start_is_told_when_it_lies_there_long_or_is_no_use(
    data: Path, access: Access
) -> None:
    old = (clock() - 30 * DAY_US) / 1e6
    os.utime(data / "admin.key", (old, old))
    assert "still lies" in only(look(data), Level.WARN, "admin.key").what
    access.create(account="default", role=Role.ADMIN, by="test")
    (first,) = [key for key in access.keys("default") if "first start" in key.description]
    access.revoke(first.id, account="default", by="test")
    assert "does not work" in only(look(data), Level.WARN, "admin.key").what
    (data / "admin.key").write_bytes(b"\xff\xfe")
    assert "holds no key" in only(look(data), Level.WARN, "admin.key").what
    (data / "admin.key").unlink()
    assert bad(look(data)) == []


def test_attempts_to_sign_in_are_told(data: Path, access: Access) -> None:
    for number in range(12):
        with pytest.raises(NotAuthenticated):
            access.open_session(f"nonsense-{number}-of-some-length", address=f"10.0.0.{number}")
    assert "failed 24 times" in only(look(data), Level.WARN, "signing in").what


def test_a_folder_of_which_the_first_start_failed_lacks_nothing(tmp_path: Path) -> None:
    """Its address was taken: the next start makes keys, and none was lost. Whatever was made tells of one."""
    data, port = tmp_path / "data", str(free_port())
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", int(port)))
        taken.listen()
        failed = run("serve", "--data", data, "--port", port)
    assert failed.returncode == 1, failed.stderr
    assert (data / "accounts").is_dir()
    assert not (data / "control.db").exists()
    done = run("doctor", "--data", data, "--port", port)
    assert done.returncode == 0, done.stdout
    assert "There are none yet: the first start makes the first one." in done.stdout
    for made in ("admin.key", "log.key", "accounts/default.db"):
        (data / made).touch(0o600)
        assert any("is missing" in finding.what for finding in bad(look(data))), made
        (data / made).unlink()


def test_a_control_database_that_is_missing_damaged_or_newer_is_told(data: Path) -> None:
    whole = (data / "control.db").read_bytes()
    change(data, "PRAGMA user_version = 999", "control.db")
    assert "newer version" in only(look(data), Level.WRONG, "keys").what
    (data / "control.db").write_bytes(whole[:5_000])
    assert "damaged" in only(look(data), Level.WRONG, "keys").what
    (data / "control.db").unlink()
    assert "is missing" in only(look(data), Level.WRONG, "keys").what
    (data / "control.db").write_bytes(whole)


def test_the_key_that_signs_is_looked_at(data: Path, tmp_path: Path) -> None:
    """Missing, garbage, another's, readable by others, of another name, left in a change."""
    key = data / "log.key"
    secret = key.read_text()
    key.chmod(0o640)
    assert "lets others read it" in only(look(data), Level.WRONG, "log key").what
    key.chmod(0o600)
    key.write_text("garbage")
    assert "can't be used" in only(look(data), Level.WRONG, "log key").what
    key.write_text(new_signer("auditplane/test").secret)
    assert {finding.about for finding in bad(look(data))} == {"log key"}
    assert len(bad(look(data))) == 2  # one for each account
    key.unlink()
    assert "can't be read" in only(look(data), Level.WRONG, "log key").what
    elsewhere = tmp_path / "log.key"
    elsewhere.write_text(secret)
    elsewhere.chmod(0o600)
    assert bad(look(data, variables={"AUDITPLANE_LOG_KEY": str(elsewhere)})) == []
    key.write_text(secret)
    key.chmod(0o600)
    found = only(look(data, variables={"AUDITPLANE_LOG_NAME": "other"}), Level.WRONG, "log key")
    assert "log.name is other" in found.what
    (data / NEXT_FILE).touch(0o600)
    assert NEXT_FILE in only(look(data), Level.WARN, "log key").what
    (data / NEXT_FILE).unlink()
    (data / "log.retired").write_text("garbage\n")
    (data / "log.retired").chmod(0o600)
    assert "log.retired" in only(look(data), Level.WRONG, "log key").what


def test_a_key_that_was_changed_still_vouches(data: Path) -> None:
    """The newest checkpoint may be by the key before this one."""
    assert run("log", "rotate", "--data", data).returncode == 0
    assert bad(look(data)) == []


# Logs.


def test_logs_that_are_missing_damaged_empty_older_or_newer_are_told(data: Path) -> None:
    database = data / "accounts" / "acme.db"
    whole = database.read_bytes()
    change(data, "PRAGMA user_version = 999", "accounts/acme.db")
    assert "newer version" in only(look(data), Level.WRONG, "logs").what
    change(data, "PRAGMA user_version = 0", "accounts/acme.db")
    assert "has format 0" in only(look(data), Level.WARN, "logs").what
    database.write_bytes(b"")
    assert "is no database" in only(look(data), Level.WRONG, "logs").what
    database.write_bytes(whole[:20_000])
    assert "acme is damaged" in only(look(data), Level.WRONG, "logs").what
    database.unlink()
    assert "its log is missing" in only(look(data), Level.WRONG, "accounts").what
    database.touch(0o600)
    database.write_bytes(whole)
    (data / "accounts" / "more.db").write_bytes(whole)
    (data / "accounts" / "more.db").chmod(0o600)
    assert "more has a log and no API key" in bad(look(data))[0].what


def test_a_flipped_bit_in_any_page_is_told(data: Path) -> None:
    """Each page carries a checksum, which a look over all of them finds."""
    database = data / "accounts" / "default.db"
    whole = bytearray(database.read_bytes())
    chosen = random.Random(1)
    with closing(apsw.Connection(str(database))) as connection:
        free = connection.execute("PRAGMA freelist_count").get
    assert free == 0
    for _ in range(10):
        flipped = bytearray(whole)
        flipped[chosen.randrange(8_192, len(whole))] ^= 1 << chosen.randrange(8)
        database.write_bytes(flipped)
        assert "damaged" in only(look(data), Level.WRONG, "logs").what


def test_a_restored_log_that_nobody_confirmed_is_told(data: Path, tmp_path: Path) -> None:
    assert run("backup", tmp_path / "backup", "--data", data, "--with-key").returncode == 0
    assert any("The last one was made" in finding.what for finding in look(data))
    assert run("restore", tmp_path / "backup", "--data", tmp_path / "restored").returncode == 0
    found = bad(look(tmp_path / "restored"))
    assert [(finding.level, finding.about) for finding in found] == [(Level.WARN, "logs")] * 2
    assert run("log", "confirm", "--data", tmp_path / "restored").returncode == 0
    assert bad(look(tmp_path / "restored")) == []
    assert backup.read_manifest(tmp_path / "backup").with_key


def test_an_old_backup_is_told(data: Path) -> None:
    """So is a folder with a history of which none was ever made."""
    note_backup(data, clock() - 8 * DAY_US)
    assert "The last one" in only(look(data), Level.WARN, "backup").what
    note_backup(data, clock() - 6 * DAY_US)
    assert bad(look(data)) == []
    (data / "backup.last").unlink()
    change(data, "UPDATE api_key SET created_us = created_us - 691200000000", "control.db")
    assert "None was ever made" in only(look(data), Level.WARN, "backup").what


def test_a_hold_on_everything_is_told_where_events_should_expire(data: Path) -> None:
    folder = FreeFolder(data)
    with folder.account("default") as store:
        account = keeping.Account("default", store, log.clock)
        keeping.place_hold(account, reason="of ann", user="ann", min_us=None, max_us=None)
        hold = keeping.place_hold(account, reason="case 4711", user=None, min_us=None, max_us=None)
    folder.close()
    assert bad(look(data)) == []
    found = only(
        look(data, variables={"AUDITPLANE_AUDIT_TRAIL_RETENTION_DAYS": "400"}), Level.WARN, "retention"
    )
    assert hold.id in found.what
    assert f"hold lift {hold.id}" in found.do


def test_what_was_noted_beside_a_log_is_told(data: Path) -> None:
    """The disk failed to sync it, or a check of it found problems."""
    (data / "accounts" / "default.lock").write_bytes(b"\0!")
    assert "The disk failed" in only(look(data), Level.WARN, "disk").what
    (data / "accounts" / "default.lock").write_bytes(b"\0\0")
    version = (data / "control.version").read_bytes()
    failed = SYNCS_AT + 1
    (data / "control.version").write_bytes(version[:failed] + b"!" + version[failed + 1 :])
    assert "a change of API keys" in only(look(data), Level.WARN, "disk").what
    (data / "control.version").write_bytes(version)
    keep_verified(data, "default", Verified(clock(), 301, True, 3))
    assert "found 3 problems" in only(look(data), Level.WRONG, "logs").what
    keep_verified(data, "default", Verified(clock(), 301, True, 0))
    keep_fetched(data, "default", Fetched(301, clock()))
    assert bad(look(data)) == []


def test_upkeep_that_lags_is_told_while_a_server_runs(data: Path) -> None:
    """Without one it is no matter: the next server does it."""
    for _ in range(7):
        record(data, count=8_000)
    assert bad(look(data)) == []
    held = hold(data)
    try:
        address, lagging = bad(look(data))
    finally:
        os.close(held)
    assert (address.about, lagging.about) == ("address", "logs")
    assert str(os.getpid()) in address.what
    assert "56,301 events are not sealed" in lagging.what


# Whatever is there.


Damage = Callable[[random.Random, Path], None]


def truncate(chosen: random.Random, file: Path) -> None:
    os.truncate(file, chosen.randrange(file.stat().st_size + 1))


def garble(chosen: random.Random, file: Path) -> None:
    data = bytearray(file.read_bytes())
    for _ in range(chosen.choice((1, 10, 1_000)) if data else 0):
        data[chosen.randrange(len(data))] = chosen.randrange(256)
    file.write_bytes(data)


def remove(_chosen: random.Random, file: Path) -> None:
    file.unlink()


def replace_by_a_folder(_chosen: random.Random, file: Path) -> None:
    file.unlink()
    file.mkdir()


def replace_by_a_link_to_nothing(_chosen: random.Random, file: Path) -> None:
    file.unlink()
    file.symlink_to("nowhere")


def test_whatever_is_in_the_folder_it_ends_and_changes_nothing(original: Path, tmp_path: Path) -> None:
    """Files cut off, garbled, missing, replaced: it says so in its own words, and leaves them alone."""
    chosen = random.Random(7)
    damages: tuple[Damage, ...] = (
        truncate, garble, garble, remove, replace_by_a_folder, replace_by_a_link_to_nothing,
    )  # fmt: skip
    for number in range(60):
        data = Path(shutil.copytree(original, tmp_path / str(number)))
        (data / "log.retired").write_text("# nothing\n")
        (data / "backup.last").write_text("2026-01-01T00:00:00Z\n")
        files = [file for file in sorted(data.rglob("*")) if file.is_file()]
        for file in chosen.sample(files, chosen.choice((1, 2, len(files)))):
            chosen.choice(damages)(chosen, file)
        before = tree(data)
        found = look(data)
        assert tree(data) == before
        for finding in found:
            assert "This check failed" not in finding.what, finding
            assert finding.what.endswith((".", "…")), finding
        shutil.rmtree(data)
