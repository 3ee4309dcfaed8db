"""`get`, `count` and `tail`, as processes against a real server."""

import io
import json
import os
import re
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]
from hypothesis import example, given
from hypothesis import strategies as st

from auditplane.cli import forms
from auditplane.cli.commands import app
from auditplane.cli.filters import Filters
from auditplane.client import Client, Filter
from auditplane.times import DAY_US, SECOND_US, format_us, parse_rfc3339
from cutting import cutting_proxy
from keepers import record_unchecked
from remote import Remote
from server import PROGRAM, free_port, start
from strategies import docs, number_texts
from tenants import Json, Tenant, clock, event, events, ids

# What a terminal would act on.
HOSTILE = "\x9b31mred\u202eevil\u200b\u2066x\nnext\ttab\rback"


@pytest.fixture
def remote(tenant: Tenant) -> Remote:
    """Commands with a key of an admin."""
    return Remote(tenant.server.url, tenant.key("admin")[1])


def printed(remote: Remote, *args: str) -> list[Json]:
    """The events that a command prints as JSON."""
    found: list[Json] = json.loads(remote.output("get", "audit-events", "-o", "json", *args))
    return [one for one in found if one["resourceKind"] != "APIKey"]


# get and count


def test_every_form_holds_the_same_events(tenant: Tenant, remote: Remote) -> None:
    """JSON, NDJSON, YAML and both CSVs are those of the server; the table has a line for each."""
    tenant.record(
        *events(250, description="=1+1", details={"a": 1.5, "b": ["x", None]}), event(user="'é,\n\"")
    )
    get = ("get", "audit-events")
    listed = tenant.admin.get("/v1/audit-events").json()
    assert json.loads(remote.output(*get, "-o", "json")) == listed
    assert [json.loads(line) for line in remote.output(*get, "-o", "ndjson").splitlines()] == listed
    assert yaml.safe_load(remote.output(*get, "-o", "yaml")) == listed
    download = "/v1/audit-events/download"
    assert remote.call(*get, "-o", "csv").stdout == tenant.admin.get(download).content
    assert remote.call(*get, "-o", "raw").stdout == tenant.admin.get(f"{download}?raw=true").content
    table = remote.output(*get).splitlines()
    assert len(table) == len(listed) + 1
    assert table[0].split("  ")[0] == "TIME (UTC)"
    for line, one in zip(table[1:], listed, strict=True):
        assert line.startswith(one["timestamp"][:19].replace("T", " "))
        assert one["action"] in line


@pytest.mark.parametrize(
    ("output", "empty"), [("json", "[]\n"), ("yaml", "[]\n"), ("ndjson", ""), ("csv", None), ("table", None)]
)
def test_nothing_found_is_an_empty_answer(
    output: forms.Form, empty: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of the same form, so that a program need not tell it apart."""
    forms.write([], output)
    shown = capsys.readouterr().out
    assert shown == empty if empty is not None else shown.count("\n") == 1


@pytest.mark.parametrize(
    ("flags", "asked"),
    [
        (["--configuration", "gw", "--configuration", "gw:7"], Filter(configurations=("gw", "gw:7"))),
        (["--user", "ann", "--user=-x"], Filter(users=("ann", "-x"))),
        (["--action", "Paused"], Filter(actions=("Paused",))),
        (["--kind", "Fleet", "--kind", "Source"], Filter(kinds=("Fleet", "Source"))),
        (["--name", "a,b"], Filter(names=("a,b",))),
        (["-q", "some words", "--query", "[x]"], Filter(words=("some words", "[x]"))),
        (["--min-date", "20260101", "--max-date", "2026-01-02T00:00:00Z"],
         Filter(min_date="20260101", max_date="2026-01-02T00:00:00Z")),
    ],
)  # fmt: skip
@pytest.mark.parametrize("command", ["get audit-events", "count", "tail", "download -o x"])
def test_each_flag_is_asked_for(command: str, flags: list[str], asked: Filter) -> None:
    """Those of Bindplane's command line and ours, repeated ones too, for every command that reads."""
    _, bound, _ = app.parse_args([*command.split(), *flags])
    assert bound.arguments["filters"].filter() == asked


@pytest.mark.parametrize(
    ("text", "us"), [("30m", 1_800 * SECOND_US), ("7d", 7 * DAY_US), ("2w", 14 * DAY_US)]
)
def test_dates_may_be_ago(text: str, us: int) -> None:
    """From the clock of the one who asks; what lies before 1970 is 1970."""
    before = clock()
    asked = Filters(min_date=text, max_date="999999w").filter()
    assert before - us <= parse_rfc3339(asked.min_date or "") <= clock() - us
    assert asked.max_date == "1970-01-01T00:00:00.000000Z"


def test_filters_go_together(tenant: Tenant, remote: Remote) -> None:
    """All flags at once, and dates ago, find the one event that they tell of."""
    now = clock()
    one = event(
        user="Ann", action="Paused", resourceKind="Fleet", resourceName="n", configuration="gw:1",
        description="some words", timestamp=format_us(now - 3 * DAY_US),
    )  # fmt: skip
    (first,) = tenant.record(one)
    (other,) = tenant.record({**one, "user": "bob", "timestamp": format_us(now - 20 * DAY_US)})
    flags = (
        "--configuration", "gw", "--user", "ann", "--user", "bob", "--action", "Paused", "--kind", "Fleet",
        "--name", "n", "-q", "WORDS some", "--max-date", "1h",
    )  # fmt: skip
    assert ids(printed(remote, *flags, "--min-date", "7d")) == [first]
    assert ids(printed(remote, *flags, "--order", "asc")) == [other, first]
    assert ids(printed(remote, *flags, "--limit", "1")) == [first]
    assert remote.output("count", *flags, "--min-date", "2w") == "1\n"
    assert json.loads(remote.output("count", *flags, "-o", "json")) == {"count": 2}


@pytest.mark.parametrize(
    ("args", "status", "told"),
    [
        ("get audit-events --usr x", 2, "--user"),
        ("get audit-events -o xml", 2, "xml"),
        ("get audit-events --limit 0", 2, "limit"),
        ("get audit-events --min-date yesterday", 1, "min-date"),
        ("get audit-events --kind Sauce", 1, "Source"),
        ("count extra", 2, "extra"),
        ("count --url http://127.0.0.1:9", 1, "No server answers"),
        ("count --url nonsense", 2, "address"),
        ("count --api-key ap_wrongwrongwrong", 1, "unknown, expired or revoked"),
        ("count ap_0123456789abcdef", 2, "ap_…"),
        ("count --ca-cert /none --url https://127.0.0.1:9", 2, "/none"),
        ("tail -n -1", 2, "-n"),
        ("count --user \udcff", 2, "UTF-8"),
        ("tail --after 1000", 1, "1,000"),
        ("completion tcsh", 2, "tcsh"),
    ],
)
def test_a_failure_is_one_line_and_a_status(remote: Remote, args: str, status: int, told: str) -> None:
    """1 for what could not be done, 2 for what was not understood."""
    assert told in remote.failure(*args.split(), status=status)


def test_a_table_fits_its_terminal(tenant: Tenant, remote: Remote) -> None:
    """Every line is cut to the width; colours come on a terminal only, and none with NO_COLOR."""
    tenant.record(*events(5, description="long " * 50, user="名前" * 20, action="Deleted"))
    for columns in (80, 120):
        shown = remote.on_terminal("get", "audit-events", columns=columns)
        assert "\x1b[31m" in shown
        plain = re.sub(r"\x1b\[[0-9]*m", "", shown)
        assert "\x1b" not in plain
        assert "…" in plain
        assert all(len(line) <= columns for line in plain.splitlines())
    assert "\x1b" not in remote.output("get", "audit-events")


@pytest.mark.parametrize("output", ["table", "json", "yaml", "csv", "raw", "ndjson"])
def test_no_control_character_of_an_event_reaches_a_terminal(
    tenant: Tenant, remote: Remote, output: str
) -> None:
    """In no form; the server refuses most of them in texts, and takes all in details."""
    tenant.record(event(details={"x": HOSTILE, "\x9b": "\x7f"}, description="line\rover\nnext\u202e"))
    shown = remote.on_terminal("get", "audit-events", "-o", output)
    shown = re.sub(r"\x1b\[[0-9]*m", "", shown)
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", shown)
    if output == "table":
        assert "\u202e" not in shown


@given(docs)
def test_a_table_has_one_line_an_event_whatever_it_holds(given_docs: list[bytes]) -> None:
    """With a terminal or without."""
    for to_terminal in (True, False):
        out = io.BytesIO()
        table = forms.Table(out, to_terminal=to_terminal)
        table.write(given_docs)
        shown = re.sub(r"\x1b\[[0-9]+m", "", out.getvalue().decode())
        assert shown.count("\n") == len(given_docs) + 1
        assert shown.replace("\n", "").isprintable()


@given(docs)
def test_yaml_is_read_as_the_same_events(given_docs: list[bytes]) -> None:
    """By a reader of YAML 1.1, which is the pickier one."""
    out = io.BytesIO()
    writer = forms.Yaml(out)
    writer.write(given_docs)
    writer.end()
    assert yaml.safe_load(out.getvalue()) == [json.loads(doc) for doc in given_docs]


def test_long_keys_and_large_numbers_are_yaml_too() -> None:
    out = io.BytesIO()
    details = {"k" * 2_000: [{"l" * 1_500: 1e300}], "n": [1e22, 1.5e-7, -0.0, 10**30]}
    doc = json.dumps({"id": "x", "details": details}).encode()
    forms.Yaml(out).write([doc])
    assert yaml.safe_load(out.getvalue()) == [json.loads(doc)]


def yaml_number(text: str) -> str:
    """How a number of details is written as YAML."""
    out = io.BytesIO()
    forms.Yaml(out).write([f'{{"id":"x","details":{{"n":[{text}]}}}}'.encode()])
    start, end = '- id: "x"\n  details: {"n": [', "]}\n"
    shown = out.getvalue().decode()
    assert shown.startswith(start)
    assert shown.endswith(end)
    return shown[len(start) : -len(end)]


@given(number_texts)
@example("9" * 5_000)
def test_a_number_is_the_same_number_in_yaml_however_it_is_written(text: str) -> None:
    """A number to a reader of YAML 1.1 too, digit by digit what was recorded."""
    shown = yaml_number(text)
    assert Decimal(shown) == Decimal(text)
    assert Decimal(shown).is_signed() == Decimal(text).is_signed()
    kind = "float" if set(text) & set(".eE") else "int"
    assert yaml.compose(shown).tag == f"tag:yaml.org,2002:{kind}"
    assert "e" in shown or shown == text


@given(st.integers() | st.floats(allow_nan=False, allow_infinity=False))
def test_a_number_as_most_programs_write_it_stays_so_in_yaml(number: float) -> None:
    """But for the point that YAML 1.1 wants."""
    text = json.dumps(number)
    assert yaml_number(text) == (text if "." in text else text.replace("e", ".0e"))


@pytest.mark.parametrize("output", ["table", "json", "yaml", "csv", "raw", "ndjson"])
def test_numbers_that_were_recorded_before_they_were_refused_are_shown(
    tenant: Tenant, remote: Remote, output: str
) -> None:
    """Digit by digit, beside all other events."""
    tenant.record(*events(2))
    digits = "9" * 5_000
    record_unchecked(tenant.server.data, tenant.account, f'{{"n":[1e400,{digits}]}}'.encode())
    shown = remote.output("get", "audit-events", "-o", output)
    if output != "table":
        assert ("1.0e+400" if output == "yaml" else "1e400") in shown
        assert digits in shown
    if output == "yaml":
        listed = yaml.load(shown, yaml.BaseLoader)  # noqa: S506 - it makes texts only
        assert sum(one["resourceKind"] == "Source" for one in listed) == 3


@contextmanager
def stalling(first: bytes) -> Iterator[str]:
    """A server that sends some of an answer, and then nothing; gives its address."""
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n"
    done = threading.Event()
    listening = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        connection, _ = listening.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(head + b"%x\r\n%b\r\n" % (len(first), first))
            done.wait(30)

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        done.set()
        listening.close()


@pytest.mark.parametrize("output", ["table", "json", "csv"])
def test_the_first_rows_come_before_the_answer_has_ended(output: str) -> None:
    """A long answer is shown while it comes, and one that ends too early is an error."""
    doc = b'{"id":"x","timestamp":"2026-03-18T12:00:00.000000Z","resourceName":"n","resourceKind":"Source",'
    doc += b'"action":"Modified","user":"ann"}\n'
    with stalling(doc * 300) as url:
        process = subprocess.Popen(
            [PROGRAM, "get", "audit-events", "-o", output],
            env=Remote(url, "ap_x").env(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert process.stdout is not None
        for _ in range(200):
            assert process.stdout.readline()
        process.kill()
        process.communicate()


def test_a_long_answer_takes_little_memory(tenant: Tenant, remote: Remote) -> None:
    """30 MB more of it take no more than a few MB of memory, in each form that is made here."""
    tenant.record(event())
    small = {output: _peak_kb(remote, output) for output in ("table", "csv")}
    for _ in range(5):
        tenant.record(*events(3_000, description="x" * 2_000))
    for output, before in small.items():
        assert _peak_kb(remote, output) - before < 20_000, output


def _peak_kb(remote: Remote, output: str) -> int:
    process = subprocess.Popen(
        [PROGRAM, "get", "audit-events", "-o", output], env=remote.env(), stdout=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return usage.ru_maxrss


def test_an_answer_that_breaks_off_is_status_1(tenant: Tenant, remote: Remote) -> None:
    """What has come is printed; the error says that it is not all."""
    tenant.record(*events(3_000, description="x" * 300))
    with cutting_proxy(tenant.server.port) as proxy:
        proxy.cuts = [30_000]
        done = Remote(proxy.url, remote.key).call("get", "audit-events", "-o", "ndjson")
    assert done.returncode == 1
    assert done.stderr.startswith(b"auditplane: The connection to ")
    assert done.stderr.count(b"\n") == 1


def test_who_stops_reading_ends_it_quietly(tenant: Tenant, remote: Remote) -> None:
    """`| head` is no error to shout about."""
    tenant.record(*events(5_000))
    process = subprocess.Popen(
        [PROGRAM, "get", "audit-events"], env=remote.env(), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(30) == 1
    assert process.stderr.read() == b""
    process.stderr.close()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_knows_the_commands(remote: Remote, shell: str) -> None:
    script = remote.output("completion", shell)
    assert all(word in script for word in ("audit-events", "--min-date", "profile", "tail"))
    if shell == "bash":
        subprocess.run(["bash", "-n"], input=script, text=True, check=True)


# tail


def test_tail_shows_the_end_of_the_log(tenant: Tenant, remote: Remote) -> None:
    """In the order of recording, late ones where they were recorded; -n, --after and filters."""
    assert tenant.admin.get("/v1/audit-events").status_code == 200
    made = tenant.record(*events(30))
    made += tenant.record(*events(4, timestamp="2026-03-18T12:00:00Z", action="Late"))
    assert tailed(remote) == made[-10:]
    assert tailed(remote, "-n", "3") == made[-3:]
    assert tailed(remote, "-n", "0") == []
    assert tailed(remote, "-n", "500", "--kind", "Source") == made
    assert tailed(remote, "--action", "Modified", "-n", "5") == made[25:30]
    assert tailed(remote, "--action", "None") == []
    size = int(tenant.admin.get("/v1/audit-events?limit=1").headers["Auditplane-Log-Size"])
    assert tailed(remote, "--after", str(size - 3)) == made[-2:]
    assert tailed(remote, "--after", "-1", "--kind", "Source") == made
    assert remote.output("tail", "-n", "2").count("\n") == 3


def test_tail_with_a_filter_looks_as_far_back_as_it_must(tenant: Tenant, remote: Remote) -> None:
    """Few that match, behind many that don't."""
    rare = tenant.record(*events(12, user="rare"))
    for _ in range(3):
        tenant.record(*events(3_000))
    rare += tenant.record(event(user="rare"))
    assert tailed(remote, "--user", "RARE") == rare[-10:]


def tailed(remote: Remote, *args: str) -> list[str]:
    """The ids of the events that `tail` prints."""
    return [json.loads(line)["id"] for line in remote.output("tail", "-o", "ndjson", *args).splitlines()]


@contextmanager
def following(remote: Remote, path: Path, *args: str) -> Iterator[Callable[[], list[str]]]:
    """`tail -f` at work; gives what it has shown so far."""
    with path.open("wb") as out, path.with_suffix(".err").open("wb") as err:
        process = subprocess.Popen(
            [PROGRAM, "tail", "-f", "-o", "ndjson", *args], env=remote.env(), stdout=out, stderr=err
        )
        try:
            yield lambda: [json.loads(line)["id"] for line in path.read_bytes().splitlines(keepends=True)]
            assert process.poll() is None
        finally:
            process.terminate()
            process.wait(10)


def until(shown: Callable[[], list[Any]], wanted: list[Any]) -> None:
    """Waits until all that is wanted was shown; it must be that, in its order, and nothing else."""
    deadline = time.monotonic() + 30
    while len(shown()) < len(wanted) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert shown() == wanted


def test_following_outlives_lost_connections(tenant: Tenant, tmp_path: Path) -> None:
    """Answers that are cut at any byte: nothing is lost, nothing shown twice, each loss is told."""
    key = tenant.key("reader")[1]
    wanted = tenant.record(*events(10, user="carol"))
    tenant.record(*events(100))
    with cutting_proxy(tenant.server.port) as proxy:
        remote = Remote(proxy.url, key)
        with following(remote, tmp_path / "out", "--user", "carol", "-n", "20") as shown:
            until(shown, wanted)
            for cut in (10, 300, 500, 700):
                # The connection that is open now ends, and the next one in the middle of an answer.
                proxy.cuts = [cut]
                proxy.reset()
                wanted += tenant.record(*events(7, user="carol", description=os.urandom(300).hex()))
                tenant.record(*events(3))
                until(shown, wanted)
    told = (tmp_path / "out.err").read_text()
    assert told.count("Trying again.") >= 4
    assert told.count("The server answers again.") == told.count("Trying again.")
    assert key not in told


def test_following_outlives_a_restart_of_the_server(tmp_path: Path) -> None:
    """What is recorded before, between and after comes once each."""
    port = free_port()
    with start(tmp_path / "data", port=port) as server:
        remote = Remote(server.url, server.admin_key)
        with Client(server.url, server.admin_key) as client:
            wanted = client.record(events(5))
        stack = following(remote, tmp_path / "out", "-n", "5")
        with stack as shown:
            until(shown, wanted)
            server.kill()
            with start(tmp_path / "data", port=port) as again, Client(again.url, remote.key) as client:
                wanted += client.record(events(5))
                until(shown, wanted)
                wanted += client.record(events(2))
                until(shown, wanted)


def test_following_ends_when_the_key_does(tenant: Tenant, tmp_path: Path) -> None:
    """A refusal that no patience helps against is an error."""
    key_id, secret = tenant.key("reader")
    process = subprocess.Popen(
        [PROGRAM, "tail", "-f"], env=Remote(tenant.server.url, secret).env(), stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    process.stdout.readline()
    tenant.revoke(key_id)
    _, told = process.communicate(timeout=30)
    assert process.returncode == 1
    assert told == "auditplane: The API key is unknown, expired or revoked.\n"
