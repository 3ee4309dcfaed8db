"""`retention`, `hold` and `erase`, as processes on a data folder, with its server running or not."""

import json
import os
import pty
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from keepers import record_old, wait_for
from server import PROGRAM, Server, environment, run, start
from tenants import EVENTS, Json, Tenant, event, events, events_of, new_tenant, opened, problems_of
from trails import made_folder

UNKNOWN = "01JQ0000000000000000000000"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that runs."""
    with start(tmp_path_factory.mktemp("keeping") / "data") as server:
        yield server


@pytest.fixture
def owner(served: Server) -> Iterator[Tenant]:
    """A fresh account on it."""
    with contextmanager(opened)(served.data) as access:
        yield from new_tenant(served, access)


def done(tenant: Tenant, *args: str) -> str:
    """What a command on the account printed; it went well."""
    ran = run(*args, "--data", tenant.server.data, "--account", tenant.account)
    assert (ran.returncode, ran.stderr) == (0, ""), ran
    return ran.stdout


def told(tenant: Tenant, *args: str) -> Any:
    """The same, as JSON."""
    return json.loads(done(tenant, *args, "-o", "json"))


def refused(data: Path, *args: str, status: int = 1) -> str:
    """The one line of a command that failed."""
    ran = run(*args, "--data", data)
    assert (ran.returncode, ran.stdout) == (status, ""), ran
    assert ran.stderr.startswith("auditplane: ")
    assert ran.stderr.count("\n") == 1
    return ran.stderr


def of_sources(tenant: Tenant) -> list[str]:
    """The ids of the recorded events, as the server lists them."""
    query = {"resource-kind": "Source", "order": "recorded"}
    return [each["id"] for each in events_of(tenant.reader.get(EVENTS, params=query))]


def test_a_retention_hides_before_the_command_ends(owner: Tenant) -> None:
    """The running server shows nothing older from then on, and destroys it."""
    record_old(owner.server.data, owner.account, 400, events(4))
    young = record_old(owner.server.data, owner.account, 100, events(2))
    assert "kept for ever (as the server is set)" in done(owner, "retention", "show")
    shown = told(owner, "retention", "set", "--days", "365")
    assert shown == {"account": owner.account, "days": 365, "inForce": 365}
    assert of_sources(owner) == young
    assert told(owner, "retention", "show") == shown
    assert "kept for 365 days (set for this account)" in done(owner, "retention", "show")

    def purged() -> list[Json]:
        return events_of(owner.reader.get(EVENTS, params={"action": "Deleted"}))

    assert wait_for(purged)[0]["details"]["count"] == 4
    assert "for ever (as the server is set)" in done(owner, "retention", "set", "--default")
    assert "for 1 day " in done(owner, "retention", "set", "--days", "1")
    assert of_sources(owner) == []
    (last, *_) = events_of(owner.reader.get(EVENTS, params={"action": "Updated", "limit": 1}))
    assert last["user"].endswith(" (command line)")


def test_a_hold_is_placed_listed_and_lifted(owner: Tenant) -> None:
    """It keeps from erasure, and says what it covers."""
    made = owner.record(event(user="ann"), event(user="bob"))
    options = ["--user", "ann", "--min-date", "7d", "--max-date", "20991231", "--reason", "case [bold]4711"]
    hold = told(owner, "hold", "place", *options)
    assert (hold["user"], hold["reason"]) == ("ann", "case [bold]4711")
    assert hold["maxDate"] == "2099-12-31T23:59:59.999999Z"
    assert told(owner, "hold", "list") == [hold]
    ran = run("hold", "list", "--data", owner.server.data, "--account", owner.account, env={"COLUMNS": "300"})
    assert "case [bold]4711" in ran.stdout
    assert "the events of ann from " in ran.stdout

    ran = run("hold", "list", "--data", owner.server.data, "--account", owner.account, env={"COLUMNS": "80"})
    lines = ran.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    firsts = [line.split()[0] for line in lines if line.split()]
    assert [first for first in firsts if first in (hold["id"], "case")] == [hold["id"], "case"]
    assert all(text in ran.stdout for text in ("case [bold]4711", hold["minDate"], hold["maxDate"]))

    erasing = ["erase", "--id", made[0], "--reason", "x", "--yes", "--account", owner.account]
    assert "on hold" in refused(owner.server.data, *erasing)
    assert of_sources(owner) == made
    assert f"Lifted the hold {hold['id']}" in done(owner, "hold", "lift", hold["id"])
    assert told(owner, "hold", "list") == []
    lifting = ["hold", "lift", hold["id"], "--account", owner.account]
    assert "no hold" in refused(owner.server.data, *lifting)
    assert "Placed the hold" in done(owner, "hold", "place", "--reason", "all of it")


def test_events_are_erased(owner: Tenant) -> None:
    """By ids and by user; a running server does not show them from then on."""
    made = owner.record(*events(3, user="ann"), *events(3, user="bob"))
    ids = ["--id", made[0], "--id", made[4]]
    assert done(owner, "erase", *ids, "--reason", "request", "--yes") == "Erased 2 events.\n"
    assert told(owner, "erase", "--user", "ANN", "--reason", "request", "--yes") == {"erased": 2}
    assert of_sources(owner) == [made[3], made[5]]
    assert "request" in problems_of(owner.reader.get(f"{EVENTS}/{made[0]}"), 410)[0]
    again = ["erase", "--id", made[0], "--reason", "x", "--yes", "--account", owner.account]
    assert "was erased" in refused(owner.server.data, *again)


def answered(tenant: Tenant, answer: bytes, *args: str) -> tuple[int, str]:
    """The exit status and the text of a command that is answered on a terminal."""
    near, far = pty.openpty()
    process = subprocess.Popen(
        [PROGRAM, *args, "--data", tenant.server.data, "--account", tenant.account],
        env=environment(), stdin=far, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    os.close(far)
    os.write(near, answer)
    text, _ = process.communicate(timeout=60)
    os.close(near)
    return process.returncode, text.decode()


def test_on_a_terminal_it_asks_first(owner: Tenant) -> None:
    """With the number of events; anything but yes leaves them."""
    made = owner.record(*events(3, user="ann"))
    for answer in (b"\n", b"n\n", b"x\n"):
        status, text = answered(owner, answer, "erase", "--user", "ann", "--reason", "x")
        assert status == 1
        assert "Erase 3 events for good?" in text
        assert "Nothing was erased" in text
    assert of_sources(owner) == made
    status, text = answered(owner, b"y\n", "erase", "--id", made[0], "--reason", "x")
    assert (status, text) == (0, "Erase 1 event for good? [y/N] Erased 1 event.\n")
    assert of_sources(owner) == made[1:]
    assert "There is no event of eve" in answered(owner, b"y\n", "erase", "--user", "eve", "--reason", "x")[1]


@pytest.mark.parametrize(
    ("command", "told"),
    [
        ("retention show --account other", "no account other"),
        ("retention set --days 1 --account other", "no account other"),
        ("hold list --account other", "no account other"),
        ("hold place --reason x --account other", "no account other"),
        ("erase --yes --user a --reason x --account other", "no account other"),
        ("retention set --days -1", "from 0 to 36,500"),
        ("retention set --days 36501", "from 0 to 36,500"),
        ("hold place --reason= ", "reason"),
        ("hold place --reason x --min-date tomorrow", "--min-date"),
        ("hold place --reason x --min-date 20270101 --max-date 20260101", "after its end"),
        (f"hold lift {UNKNOWN}", "no hold"),
        (f"erase --yes --id {UNKNOWN} --reason x", "no event of this id"),
        ("erase --yes --user nobody --reason x", "no event of nobody"),
        ("erase --yes --user a --reason=", "reason"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_makes_nothing(tmp_path: Path, command: str, told: str) -> None:
    """Without a server, too; an account that is not there is not made."""
    data = made_folder(tmp_path / "data")
    assert told in refused(data, *command.split())
    assert [path.name for path in (data / "accounts").glob("*.db")] == ["default.db"]


def test_the_folder_s_own_setting_is_the_default(tmp_path: Path) -> None:
    """As the server has it from the environment."""
    data = made_folder(tmp_path / "data")
    env = {"AUDITPLANE_AUDIT_TRAIL_RETENTION_DAYS": "30"}
    ran = run("retention", "show", "--data", data, "-o", "json", env=env)
    assert json.loads(ran.stdout) == {"account": "default", "days": None, "inForce": 30}
