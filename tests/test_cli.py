import itertools
import json
import os
import pwd
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from auditplane import __version__
from auditplane.access.key import Role
from auditplane.event import KINDS
from auditplane.query import LIST_PARAMETERS, parse_query
from auditplane.store.sqlite.reader import Reader
from auditplane.times import SECOND_US, format_us
from folders import FreeFolder
from server import PROGRAM, Server, environment, make_key, run, start
from tenants import EVENTS, client, clock, opened
from trails import made_folder

COMMANDS = [
    "serve", "demo", "get audit-events", "count", "tail", "download", "record", "import", "keys create",
    "keys list", "keys link", "keys revoke", "accounts list", "retention show", "retention set", "hold place",
    "hold lift", "hold list", "erase", "profile set", "profile use", "profile list",
    "profile delete", "completion", "verify", "version",
]  # fmt: skip
NOBODY = 65534


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that no server holds."""
    return made_folder(tmp_path_factory.mktemp("cli") / "data")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that runs."""
    with start(tmp_path_factory.mktemp("served") / "data") as server:
        yield server


def failed(done: subprocess.CompletedProcess[str], status: int) -> str:
    """The one line on standard error that explains a failure."""
    assert (done.returncode, done.stdout) == (status, ""), done
    assert re.fullmatch(r"auditplane: .+\n", done.stderr), done.stderr
    return done.stderr


def statuses(server: Server, secret: str) -> tuple[int, int]:
    """What a key's requests to list and to record are answered."""
    with client(server.url, secret) as asked:
        return asked.get(EVENTS).status_code, asked.post(EVENTS, content=b"{}").status_code


# What everybody tries first.


def test_the_version_is_told_in_each_way() -> None:
    """The command, the flag, and the module say the same."""
    commands: list[list[str | Path]] = [
        [PROGRAM, "version"],
        [PROGRAM, "--version"],
        [sys.executable, "-m", "auditplane", "version"],
    ]
    for command in commands:
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment())
        assert (done.stdout, done.stderr) == (f"auditplane {__version__}\n", "")


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_an_example_that_can_be_typed(command: str) -> None:
    """Each command says what it does and shows at least one whole line to copy."""
    done = run(*command.split(), "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"Usage: auditplane {command}")
    examples = re.findall(r"^    (auditplane .*)$", done.stdout, re.MULTILINE)
    assert examples
    assert all(re.fullmatch(rf"auditplane {command}( .+[^ ])?", example) for example in examples)
    for flag in re.findall(r"--[a-z-]+", " ".join(examples)):
        assert f" {flag} " in done.stdout.partition("╭")[2]


def test_help_lists_the_commands() -> None:
    """So does a call without any command."""
    for args in (["--help"], []):
        done = run(*args)
        assert (done.returncode, done.stderr) == (0, "")
        assert all(re.search(rf" {command.split()[0]} +[A-Z]", done.stdout) for command in COMMANDS)


def test_what_a_command_does_not_need_is_not_loaded() -> None:
    """So that help comes and a server starts quickly."""
    heavy = {"apsw", "asyncio", "granian", "httpx2", "starlette"}
    code = f"import sys, auditplane.cli.commands; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize(
    ("command", "told"),
    [
        ("bogus", '"bogus"'),
        ("serve extra", "extra"),
        ("serve --prot 1", "did you mean --port"),
        ("serve --port 0", "--port: must be a whole number"),
        ("serve --port", "--port requires an argument"),
        ("serve --data=", "--data"),
        ("keys create", "--role"),
        ("keys create --role boss", '"boss"'),
        ("keys list -o xml", '"xml"'),
        ("keys revoke", "ID"),
        ("keys link", "ID"),
        ("keys link 01JQ0000000000000000000000 --url audit.example.com", "--url"),
        ("demo --workers 2", "--workers"),
        ("retention set", "--days"),
        ("retention set --days 1 --default", "--default"),
        ("retention set --days x", '"x"'),
        ("hold place", "--reason"),
        ("hold lift", "ID"),
        ("erase --id 01JQ0000000000000000000000", "--reason"),
        ("erase --reason x --yes", "--user"),
        ("erase --reason x --yes --user a --id b", "--user"),
        ("erase --reason x --user a", "--yes"),
    ],
)
def test_wrong_usage_is_one_line_and_status_2(command: str, told: str, tmp_path: Path) -> None:
    """A command that was not understood does nothing, and says what was wrong with it."""
    done = subprocess.run(
        [PROGRAM, *command.split()],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert told.lower() in failed(done, 2).lower()
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_setting_is_wrong_usage() -> None:
    """A variable that is misspelt stops every command that reads settings."""
    assert "did you mean AUDITPLANE_PORT?" in failed(run("keys", "list", env={"AUDITPLANE_PROT": "1"}), 2)


# Keys.


def test_keys_are_made_listed_and_revoked_without_a_server(data: Path) -> None:
    """What `create` shows once, `list` shows without the secret, and `revoke` ends."""
    made = json.loads(
        run(
            "keys", "create", "--data", data, "--role", "reader", "--envelope", "--account", "acme",
            "--description", "the receiver [bold]é[/x] :smile:", "--expires", "90d", "-o", "json",
        ).stdout
    )  # fmt: skip
    secret = made.pop("key")
    assert re.fullmatch(r"ap_[0-9A-Za-z]{49}", secret)
    assert (made["role"], made["account"], made["envelope"]) == ("reader", "acme", True)

    listed = json.loads(run("keys", "list", "--data", data, "-o", "json").stdout)
    assert made in listed
    assert json.loads(run("keys", "list", "--data", data, "--account", "acme", "-o", "json").stdout) == [made]
    table = run("keys", "list", "--data", data, env={"COLUMNS": "250"}).stdout
    row = next(line for line in table.splitlines() if made["id"] in line)
    assert "reader, envelope" in row
    assert "the receiver [bold]é[/x] :smile:" in row
    assert "works" in row

    assert made["id"] in run("keys", "revoke", made["id"], "--data", data).stdout
    revoked = json.loads(run("keys", "list", "--data", data, "--account", "acme", "-o", "json").stdout)
    assert [key["id"] for key in revoked if "revoked" in key] == [made["id"]]
    assert "was revoked at" in failed(run("keys", "revoke", made["id"], "--data", data), 1)


@pytest.mark.parametrize("columns", [80, 100, 120, 200])
def test_a_table_of_keys_can_be_read_however_narrow_the_terminal_is(tmp_path: Path, columns: int) -> None:
    """No id, account, role, end or state is cut, and no word of a description is missing."""
    accounts = ("default", "acme-production", "a" * 13)
    folder = made_folder(tmp_path / "data")
    with contextmanager(opened)(folder) as access:
        for account, role, envelope in itertools.product(accounts, Role, (False, True)):
            access.create(
                account=account, role=role, by="tests", description=f"for {account} to look at " * 4,
                envelope=envelope and role is Role.READER, expires_us=clock() + 86_400 * SECOND_US,
            )  # fmt: skip
        access.revoke(access.keys("default")[0].id, account="default", by="tests")
        keys = access.keys(None)
    shown = run("keys", "list", "--data", folder, env={"COLUMNS": str(columns)}).stdout
    lines = [line.rstrip() for line in shown.splitlines()]
    assert max(map(len, lines)) <= columns
    assert "…" not in shown
    for key in keys:
        (line,) = (each for each in lines if key.id in each)
        state = "revoked" if key.revoked_us else "works"
        ends = "-" if key.expires_us is None else format_us(key.expires_us)[:10]
        for text in (key.account, key.role.value, ends, state):
            assert re.search(rf"\s{text}(,|\s|$)", line), line
    words = Counter(shown.split())
    assert words["look"] == 4 * (len(keys) - 1)  # the first is that of the folder
    assert words["envelope"] == sum(key.envelope for key in keys)
    assert ("LAST USED" in shown) == (columns >= 120)


def test_a_table_that_goes_elsewhere_has_a_line_for_each_key(tmp_path: Path) -> None:
    folder = made_folder(tmp_path / "data")
    with contextmanager(opened)(folder) as access:
        key, _ = access.create(account="a" * 63, role=Role.READER, by="tests", description="word " * 50)
    shown = run("keys", "list", "--data", folder).stdout
    (line,) = (each for each in shown.splitlines() if key.id in each)
    assert key.account in line
    assert line.count("word") == 50


def test_a_table_is_for_people(data: Path) -> None:
    """Without `-o json` a new key is shown with the advice to keep it."""
    shown = run("keys", "create", "--data", data, "--role", "writer").stdout
    assert re.fullmatch(r"id   [0-9A-Z]{26}\nkey  ap_[0-9A-Za-z]{49}\nKeep the key now: .*\n", shown)


def test_no_secret_is_shown_twice(data: Path) -> None:
    """Neither list shows anything of a secret, nor of its hash."""
    secret = make_key(data, "admin")[1]
    for output in ("table", "json"):
        shown = run("keys", "list", "--data", data, "-o", output, env={"COLUMNS": "300"}).stdout
        assert "ap_" not in shown
        assert secret[3:20] not in shown
        assert not re.search(r"[0-9a-f]{32}", shown)


def test_keys_reach_a_running_server_at_once(served: Server) -> None:
    """A key works from the moment that it is shown, and is refused from the moment that it is revoked."""
    key_id, secret = make_key(served.data, "reader")
    assert statuses(served, secret) == (200, 403)
    done = run("keys", "revoke", key_id, "--data", served.data, "-o", "json")
    assert json.loads(done.stdout)["id"] == key_id
    assert "revoked" in json.loads(done.stdout)
    assert statuses(served, secret) == (401, 401)
    with client(served.url, served.admin_key) as admin:
        told = [(event["action"], event["resourceName"]) for event in admin.get(EVENTS).json()]
    assert ("Deleted", key_id) in told
    assert ("Created", key_id) in told


def test_a_key_ends_by_itself(served: Server) -> None:
    """After its time it is refused, and the table says why."""
    ends = clock() + 2 * SECOND_US
    with contextmanager(opened)(served.data) as access:
        key, secret = access.create(account="ending", role=Role.WRITER, by="tests", expires_us=ends)
    assert statuses(served, secret) == (403, 400)
    while clock() <= ends:
        time.sleep(0.05)
    assert statuses(served, secret) == (401, 401)
    table = run("keys", "list", "--data", served.data, env={"COLUMNS": "250"}).stdout
    assert re.search(rf"{key.id}.* expired", table)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ("keys create --role reader --account Acme", "account"),
        ("keys create --role reader --expires 2020-01-01T00:00:00Z", "past"),
        ("keys create --role reader --expires tomorrow", "90d"),
        ("keys create --role reader --description a\nb", "one line"),
        ("keys revoke 01JQ0000000000000000000000", "no API key"),
        ("keys link 01JQ0000000000000000000000", "no API key"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_status_1(data: Path, options: str, told: str) -> None:
    """A failure changes nothing, and its line says what would be right."""
    before = (data / "control.db").read_bytes(), sorted(path.name for path in (data / "accounts").iterdir())
    assert told in failed(run(*options.split(" "), "--data", data), 1)
    assert before == (
        (data / "control.db").read_bytes(),
        sorted(p.name for p in (data / "accounts").iterdir()),
    )


def test_a_folder_that_is_none_is_not_made_one(tmp_path: Path) -> None:
    """`keys` works on what is there; only `serve` and `demo` make a folder."""
    missing = tmp_path / "missing"
    assert str(missing) in failed(run("keys", "list", "--data", missing), 1)
    assert not missing.exists()
    assert str(tmp_path) in failed(run("keys", "create", "--role", "reader", "--data", tmp_path), 1)
    assert list(tmp_path.iterdir()) == []


def test_the_folder_may_come_from_the_environment_or_the_file(data: Path, tmp_path: Path) -> None:
    """`keys` finds the folder as `serve` does."""
    file = tmp_path / "auditplane.toml"
    file.write_text(f'data = "{data}"')
    for env in ({"AUDITPLANE_DATA": str(data)}, {"AUDITPLANE_CONFIG": str(file)}):
        assert json.loads(run("keys", "list", "-o", "json", env=env).stdout)


def test_a_reader_that_stops_reading_is_no_error_to_shout_about(data: Path) -> None:
    """`| head` ends the command without a traceback."""
    for command in (["keys", "list"], ["keys", "list", "-o", "json"], ["--help"]):
        reading, writing = os.pipe()
        os.close(reading)
        done = subprocess.run(
            [PROGRAM, *command],
            env=environment({"AUDITPLANE_DATA": str(data)}),
            stdout=writing,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
        os.close(writing)
        assert (done.returncode, done.stderr) == (1, "")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can act for the owner of a folder")
def test_what_root_makes_belongs_to_the_owner_of_the_folder(request: pytest.FixtureRequest) -> None:
    """`sudo auditplane keys create` leaves no file that the server can't open."""
    above = Path(tempfile.mkdtemp(dir="/tmp"))  # pytest's own folders are for root alone
    request.addfinalizer(lambda: shutil.rmtree(above))
    above.chmod(0o755)
    data = made_folder(above / "data")
    for path in (data, *data.rglob("*")):
        os.chown(path, NOBODY, NOBODY)
    make_key(data, "reader", "another")
    assert run("verify", "--data", data, "--record").returncode == 0
    owners = {path.name: path.stat().st_uid for path in (data, *data.rglob("*"))}
    assert set(owners.values()) == {NOBODY}, owners
    assert {"another.db", "another.verified"} <= owners.keys()


def test_accounts_are_listed_with_their_size(tmp_path: Path) -> None:
    """Name, events and bytes of each, with a server at work or not."""
    with start(tmp_path / "data") as server:
        make_key(server.data, "writer", "acme")
        with client(server.url, server.admin_key) as admin:
            body = {"user": "a", "action": "b", "resourceKind": "Source", "resourceName": "c"}
            assert admin.post(EVENTS, json=[body] * 3).status_code == 201
        served = json.loads(run("accounts", "list", "--data", server.data, "-o", "json").stdout)
    listed = json.loads(run("accounts", "list", "--data", tmp_path / "data", "-o", "json").stdout)
    for found in (served, listed):
        assert [(one["name"], one["events"]) for one in found] == [("acme", 1), ("default", 4)]
        assert all(one["bytes"] > 4_096 for one in found)
    table = run("accounts", "list", "--data", tmp_path / "data").stdout
    assert re.search(r"default +4 ", table)
    assert "no data folder" in failed(run("accounts", "list", "--data", tmp_path / "none"), 1)


def test_the_trail_names_who_made_a_key(data: Path) -> None:
    """The event of a key made here holds the name of the person at the terminal."""
    key_id, _ = make_key(data, "reader", "named")
    folder = FreeFolder(data)
    with folder.account("named") as store:
        read = Reader(
            store, parse_query([], account="named", allowed=LIST_PARAMETERS, kinds=frozenset(KINDS))
        )
        docs, _ = read.page(10, 1_000_000)
    folder.close()
    (event,) = [json.loads(doc) for doc in docs]
    assert event["resourceName"] == key_id
    assert event["user"] == f"{os.environ.get('LOGNAME') or pwd.getpwuid(os.geteuid())[0]} (command line)"
    assert event["details"]["role"] == Role.READER.value
