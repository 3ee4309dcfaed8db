"""Hostile texts: no name is a path, no message commands a terminal, no cell is a formula."""

import csv
import io
import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from auditplane.cli.commands import app
from auditplane.errors import AuditplaneError
from server import run
from tenants import DOWNLOAD, EVENTS, EVIDENCE, Tenant, event
from trails import made_folder

ULID = "01JQ0000000000000000000000"
OF_AN_ACCOUNT: dict[str, list[str]] = {
    "keys create": ["--role", "reader"],
    "keys list": [],
    "log key": [],
    "log confirm": [],
    "retention show": [],
    "retention set": ["--days", "1"],
    "hold place": ["--reason", "x"],
    "hold lift": [ULID],
    "hold list": [],
    "erase": ["--reason", "x", "--id", ULID, "--yes"],
    "verify": [],
}
NAMES = (
    "../default", "../accounts/default", "default/../default", "/etc/passwd", "..", ".", "", "default.db",
    "%2e%2e%2fdefault", "..%2fdefault", "DEFAULT", "default\n", "default\x00", "x\x1b[2J\x1b]0;x\x07",
    "a" * 300, "-x", "default ", "\u202edefault", "dｅfault",
)  # fmt: skip


def test_every_command_of_an_account_is_in_the_table() -> None:
    text = app.generate_docs(output_format="markdown", recursive=True, usage_name="auditplane")
    sections = [section.partition("\n") for section in re.split(r"^#+ ", text, flags=re.MULTILINE)]
    found = {name.removeprefix("auditplane ") for name, _, section in sections if "--account" in section}
    assert found == OF_AN_ACCOUNT.keys()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_folder(tmp_path_factory.mktemp("named") / "data")


def files(path: Path) -> list[tuple[str, int]]:
    """What there is, the folder around it too; logs and marks of databases that are open come and go."""
    found = [each for each in path.parent.rglob("*") if not each.name.endswith(("-wal", "-shm"))]
    return sorted((str(each), each.stat().st_mode) for each in found)


def refusal(*args: str) -> str | None:
    """How a command is refused, or None where it is not."""
    try:
        app(list(args), exit_on_error=False, print_error=False, result_action="return_value")
    except AuditplaneError as error:
        return str(error)
    except SystemExit as error:
        return f"exit {error.code}" if error.code else None
    return None


@pytest.mark.parametrize("command", OF_AN_ACCOUNT)
def test_no_name_of_an_account_is_a_path(
    folder: Path, command: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Nothing is read or made elsewhere; what is refused says so in a sentence."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    before = files(folder)
    for name in NAMES:
        args = [*OF_AN_ACCOUNT[command], "--data", str(folder), f"--account={name}"]
        told = refusal(*command.split(), *args)
        assert told is None if command == "keys list" else told, name  # it lists none
        assert told is None or "account" in told or told.startswith("exit "), told
        assert files(folder) == before, name


def test_no_hold_commands_a_terminal(tmp_path: Path) -> None:
    """It may be on any user that events may have, and lines of his own would look like other holds."""
    data = made_folder(tmp_path / "data")
    user = "ann\nforged\t\u202egnp.exe\u2028x"
    placed = run("hold", "place", "--data", data, "--reason", "case 4711", "--user", user)
    listed = run("hold", "list", "--data", data)
    narrow = run("hold", "list", "--data", data, env={"COLUMNS": "80"})
    (hold,) = json.loads(run("hold", "list", "--data", data, "-o", "json").stdout)
    assert hold["user"] == user
    lifted = run("hold", "lift", hold["id"], "--data", data)
    for ran in (placed, listed, narrow, lifted):
        assert ran.returncode == 0, ran.stderr
        assert all(map(str.isprintable, ran.stdout.split("\n")))
    for ran in (placed, listed, lifted):
        assert r"the events of ann forged \u202egnp.exe x" in ran.stdout
    assert not re.search("^ *forged", listed.stdout + narrow.stdout, re.MULTILINE)


@pytest.mark.parametrize(
    "args",
    [
        ["keys", "create", "--role", "reader", "--account", "x\x1b[2J\x9b"],
        ["hold", "list", "--account", "x\x1b]0;title\x07\nforged"],
        ["keys", "revoke", "x\x1b[2J"],
        ["serve\x1b[2J"],
    ],
)
def test_no_message_commands_a_terminal(folder: Path, args: list[str]) -> None:
    """What was given stands in it without control characters, on one line."""
    ran = run(*args, *(["--data", str(folder)] if len(args) > 1 else []))
    assert ran.returncode in (1, 2)
    assert ran.stderr.startswith("auditplane: ")
    assert ran.stderr.removesuffix("\n").isprintable()


# Spreadsheets.

FORMULAS = (
    "=1+1", "+1+1", "-1+1", "@SUM(1)", "\t=1+1", "\r=1+1", "\n=1+1", '=HYPERLINK("http://evil.example","x")',
    "=cmd|' /C calc'!A0", "'=1+1", '"=1+1', '=1+1,"', "=1+1\r\n=2+2", "a\r\n=1+1", 'a","=1+1', "-", "=",
)  # fmt: skip


@pytest.fixture
def hostile(tenant: Tenant) -> Tenant:
    """A trail with a formula in each member that takes a text, in keys and values of details too."""
    for text in FORMULAS:
        line = re.sub(r"[\r\n\t]", "", text)
        members = {"resourceName": line, "user": line, "action": line[:64], "configuration": line}
        tenant.record(event(**members, description=text, details={text: text, "after": {text: [text]}}))
    tenant.key("reader", description="=1+1")
    hold = {"reason": "=1+1", "user": "=1+1"}
    assert tenant.admin.post("/v1/holds", json=hold).status_code == 201
    return tenant


def tables(tenant: Tenant) -> Iterator[tuple[str, str]]:
    """Each CSV that can be had."""
    reader = tenant.reader
    yield "download", reader.get(DOWNLOAD).text
    yield "list", reader.get(EVENTS, headers={"Accept": "text/csv"}).text
    yield "page", reader.get(EVENTS, params={"limit": 1000}, headers={"Accept": "text/csv"}).text
    with zipfile.ZipFile(io.BytesIO(reader.get(EVIDENCE).content)) as archive:
        for name in archive.namelist():
            if name.endswith(".csv"):
                yield "evidence", archive.read(name).decode()
    key = reader.headers["X-Bindplane-Api-Key"]
    for command in (["get", "audit-events", "-o", "csv"], ["download", "-o", "-"]):
        ran = run(*command, env={"AUDITPLANE_URL": tenant.server.url, "AUDITPLANE_API_KEY": key})
        assert ran.returncode == 0, ran
        yield command[0], ran.stdout


def test_no_cell_is_a_formula(hostile: Tenant) -> None:
    """In none of the tables that the server, the evidence and the command line give."""
    seen = set()
    for name, text in tables(hostile):
        seen.add(name)
        rows = list(csv.reader(io.StringIO(text, newline=""), strict=True))
        assert len(rows) > len(FORMULAS)
        assert len({len(row) for row in rows}) == 1
        for cell in (cell for row in rows for cell in row):
            assert not cell.startswith(("=", "+", "-", "@", "\t", "\r", "\n")), (name, cell)
    assert seen == {"download", "list", "page", "evidence", "get"}
