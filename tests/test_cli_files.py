"""`download`, `record` and `import`, as processes against a real server."""

import gzip
import io
import json
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from auditplane import render
from auditplane.cli import import_file
from auditplane.client import Client, Filter
from auditplane.errors import InvalidInput
from auditplane.event import decode_docs
from auditplane.ulid import is_ulid
from cutting import cutting_proxy
from remote import Remote
from server import PROGRAM, free_port, start
from strategies import docs
from tenants import DOWNLOAD, EVENTS, Json, Tenant, event, events, ids

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

HOSTILE = [
    "=1+1",
    "'quoted",
    "''",
    "a\r\nb\n\nc",
    'say "x"',
    "-1,2",
    "@a",
    "\ttab",
    "\u202ex",
    "é\u2028",
    "+",
    "'=x",
]


@pytest.fixture
def remote(tenant: Tenant) -> Remote:
    """Commands with a key of an admin."""
    return Remote(tenant.server.url, tenant.key("admin")[1])


@pytest.fixture
def other(neighbour: Tenant) -> Remote:
    """Commands for another account."""
    return Remote(neighbour.server.url, neighbour.key("admin")[1])


def hostile_events() -> list[Json]:
    """Events whose texts are awkward to spreadsheets and readers of CSV."""
    made = [
        event(user=text, resourceName=text, description=f"{text}!", details={text: text}) for text in HOSTILE
    ]
    return [*made, event(configuration="=a:1", timestamp="2026-03-18T12:00:00.000001Z")]


def trail(tenant: Tenant) -> list[Json]:
    """All events of an account but those of keys, without the name of the account."""
    found = tenant.docs(order="recorded")
    return [{name: value for name, value in one.items() if name != "account"} for one in found]


def without_account(path: Path) -> Path:
    """The NDJSON file with the member taken out, as for another account."""
    lines = [json.loads(line) for line in path.read_bytes().splitlines()]
    kept = [one for one in lines if one["resourceKind"] != "APIKey"]
    path.write_bytes(b"".join(json.dumps({**one, "account": None}).encode() + b"\n" for one in kept))
    return path


# download


def test_a_file_is_what_the_server_gives(tenant: Tenant, remote: Remote, tmp_path: Path) -> None:
    """CSV guarded and raw, NDJSON and JSON; to a file, over an old one, and to standard output."""
    tenant.record(*hostile_events())
    file = tmp_path / "trail"
    ndjson = tenant.admin.get(EVENTS, headers={"Accept": "application/x-ndjson"}).content
    for args, wanted in (
        ([], tenant.admin.get(DOWNLOAD).content),
        (["--raw"], tenant.admin.get(f"{DOWNLOAD}?raw=true").content),
        (["--order", "asc", "--user", "+"], tenant.admin.get(f"{DOWNLOAD}?order=asc&user=%2B").content),
        (["--format", "ndjson"], ndjson),
        (["--format", "json"], tenant.admin.get(EVENTS).content),
    ):
        assert remote.output("download", "-o", file, *args) == ""
        assert file.read_bytes() == wanted
    assert remote.call("download", "-o", "-").stdout == tenant.admin.get(DOWNLOAD).content
    empty = remote.call("download", "-o", "-", "--format", "json", "--user", "nobody")
    assert empty.stdout == b"[]\n"
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize(("form", "cut"), [("csv", 40_000), ("ndjson", 10), ("json", 40_000)])
def test_a_broken_download_leaves_nothing(
    tenant: Tenant, remote: Remote, tmp_path: Path, form: str, cut: int
) -> None:
    """It is an error, the old file stays as it was, and no piece lies beside it."""
    tenant.record(*[event(description=random.randbytes(300).hex()) for _ in range(1_000)])
    file, old = tmp_path / "new", tmp_path / "old"
    old.write_text("old")
    for path in (file, old):
        with cutting_proxy(tenant.server.port) as proxy:
            proxy.cuts = [cut]
            Remote(proxy.url, remote.key).failure("download", "-o", path, "--format", form)
    assert [path.name for path in tmp_path.iterdir()] == ["old"]
    assert old.read_text() == "old"


@pytest.mark.parametrize("by", [signal.SIGTERM, signal.SIGINT])
def test_a_download_that_is_ended_leaves_nothing(by: signal.Signals, tenant: Tenant, tmp_path: Path) -> None:
    """By Ctrl-C or SIGTERM in its middle."""
    tenant.record(*[event(description=random.randbytes(2_000).hex()) for _ in range(200)])
    with cutting_proxy(tenant.server.port) as proxy:
        proxy.stall = 50_000
        process = subprocess.Popen(
            [PROGRAM, "download", "-o", tmp_path / "file"],
            env=Remote(proxy.url, tenant.key("reader")[1]).env(),
            stderr=subprocess.PIPE,
        )
        wait_for(lambda: any(tmp_path.iterdir()))
        process.send_signal(by)
        _, told = process.communicate(timeout=20)
    assert process.returncode == {signal.SIGTERM: 143, signal.SIGINT: 130}[by]
    assert told == b""
    assert list(tmp_path.iterdir()) == []


def wait_for(happened: Callable[[], bool]) -> None:
    """Waits until something is so, at most half a minute."""
    deadline = time.monotonic() + 30
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_progress_is_for_terminals(tenant: Tenant, remote: Remote, tmp_path: Path) -> None:
    """Nothing on a pipe (`output` looks at that); a bar on a terminal."""
    tenant.record(*events(10))
    assert "Downloading" in remote.on_terminal("download", "-o", tmp_path / "file")
    assert "Importing" in remote.on_terminal("import", tmp_path / "file", "--format", "csv")


@pytest.mark.parametrize(
    ("args", "told"),
    [
        ("download", "--output"),
        ("download -o x --raw --format json", "--raw"),
        ("download -o .", "folder"),
        ("download -o --raw", "./--raw"),
        ("import", "FILE"),
        ("import x.txt", "--format"),
        ("import - --raw --format ndjson", "--raw"),
        ("record --details {", "--details"),
    ],
)
def test_misuse_is_status_2(remote: Remote, args: str, told: str) -> None:
    assert told in remote.failure(*args.split(), status=2)


def test_a_file_that_cannot_be_written_or_read_is_status_1(remote: Remote) -> None:
    assert "/none" in remote.failure("download", "-o", "/none/file")
    assert "/none/file.csv" in remote.failure("import", "/none/file.csv")


# record


def test_one_event_from_flags(tenant: Tenant, remote: Remote) -> None:
    """Every member has one; the id is printed."""
    flags_given = {
        "user": "ann", "action": "Paused", "kind": "Fleet", "name": "-edge", "configuration": "gw:7",
        "description": "why", "id": "01JQ0000000000000000000000", "timestamp": "2026-03-18T12:00:00.000001Z",
    }  # fmt: skip
    flags = [f"--{name}={value}" for name, value in flags_given.items()]
    assert remote.output("record", *flags, "--details", '{"a": 1.10}') == f"{flags_given['id']}\n"
    assert (
        remote.output("record", *flags, "-o", "json")
        == f'{{\n  "ids": [\n    "{flags_given["id"]}"\n  ]\n}}\n'
    )
    (made,) = trail(tenant)
    assert (made["resourceKind"], made["resourceName"], made["details"]) == ("Fleet", "-edge", {"a": 1.1})
    for name in ("user", "action", "configuration", "description", "timestamp"):
        assert made[name] == flags_given[name]
    assert b'{"a":1.10}' in tenant.admin.get(EVENTS).content


def test_events_from_standard_input(tenant: Tenant, remote: Remote) -> None:
    """An object, laid out in lines too, an array, and one object a line."""
    made = []
    for text in (
        json.dumps(event()),
        json.dumps(event(), indent=2),
        json.dumps(events(3), indent=1),
        "\n".join(map(json.dumps, events(3))),
    ):
        made += remote.output("record", stdin=text).split()
    assert ids(trail(tenant)) == made
    assert len(made) == 8


@pytest.mark.parametrize(
    ("args", "stdin", "told"),
    [
        (["--user", "x"], "", "resourceName"),
        (
            ["--user", "x\x1b[31m", "--action", "a", "--kind", "Source", "--name", "n"],
            "",
            "control character",
        ),
        ([], "", "no event"),
        ([], "nonsense", "JSON"),
        ([], "[{}", "JSON"),
        ([], '{"user": "x"}\n{"user": "y"}', "events[1]"),
    ],
)
def test_a_wrong_event_is_status_1(
    tenant: Tenant, remote: Remote, args: list[str], stdin: str, told: str
) -> None:
    """The server's sentence tells what is wrong; nothing is stored."""
    assert told in remote.failure("record", *args, stdin=stdin)
    assert trail(tenant) == []


# import


def test_a_trail_moves_to_another_server(tmp_path: Path) -> None:
    """Downloaded in any form and imported it is the same trail, once, however often it is imported.

    The server refuses an id that it knows with other content: so all three forms hold the same.
    """
    forms = {"guarded.csv": [], "raw.csv": ["--raw"], "trail.ndjson": ["--format", "ndjson"]}
    with start(tmp_path / "a") as one, Client(one.url, one.admin_key) as client:
        client.record(hostile_events())
        for name, flags in forms.items():
            Remote(one.url, one.admin_key).output("download", "-o", tmp_path / name, *flags)
        wanted = {found["id"]: found for found in client.events()}
    with start(tmp_path / "b") as two, Client(two.url, two.admin_key) as client:
        own = client.count()
        for name, flags in forms.items():
            told = Remote(two.url, two.admin_key).output("import", tmp_path / name, *flags)
            assert told.startswith(f"{len(wanted)} events of {tmp_path / name} are recorded (")
            assert client.count() == own + len(wanted)
        found = {one["id"]: one for one in client.events()}
        assert {key: found[key] for key in wanted} == wanted


@pytest.mark.parametrize("pack", [gzip.compress, zstd.compress])
def test_compressed_files_and_standard_input(
    tenant: Tenant, remote: Remote, tmp_path: Path, pack: Callable[[bytes], bytes]
) -> None:
    """Known by their first bytes; a damaged one is an error."""
    lines = b"".join(json.dumps(one).encode() + b"\n" for one in events(20))
    file = tmp_path / "x.ndjson.gz"
    file.write_bytes(pack(lines))
    remote.output("import", file)
    # The same id, as the name of the file goes into those of events without a timestamp.
    remote.output("import", file, "--format", "ndjson")
    assert len(trail(tenant)) == 20
    remote.output("import", "-", "--format", "ndjson", stdin=pack(lines))
    assert len(trail(tenant)) == 40
    file.write_bytes(pack(lines)[:-6])
    assert "damaged" in remote.failure("import", file)


def test_lines_without_ids_are_stored_once_each(tenant: Tenant, remote: Remote, tmp_path: Path) -> None:
    """Equal lines are as many events; the same file again is none; another file with such lines is."""
    one = event(timestamp="2026-03-18T12:00:00Z")
    text = "\n".join(["", *[json.dumps(one)] * 3, json.dumps(event()), ""])
    for name, wanted in (("a", 4), ("a", 4), ("b", 5)):
        file = tmp_path / f"{name}.jsonl"
        file.write_text(text)
        remote.output("import", file)
        assert len(trail(tenant)) == wanted


@pytest.mark.parametrize("form", ["csv", "ndjson"])
def test_an_import_that_is_killed_goes_on(form: str, tenant: Tenant, tmp_path: Path) -> None:
    """SIGKILL in the middle, then again: each event exactly once, in the file's own order."""
    sent = [event(timestamp=f"2026-03-18T12:00:{number % 60:02}Z") for number in range(20_000)]
    file = tmp_path / f"trail.{form}"
    if form == "ndjson":
        file.write_bytes(b"".join(json.dumps(one).encode() + b"\n" for one in sent))
    else:
        columns = ("timestamp", "resourceName", "resourceKind", "action", "user")
        rows = [",".join(one[name] for name in columns) for one in sent]
        file.write_text("\r\n".join([",".join(columns), *rows, ""]))
    remote = Remote(tenant.server.url, tenant.key("admin")[1])
    source = Filter(kinds=("Source",))
    with Client(remote.url, remote.key) as client:
        process = subprocess.Popen([PROGRAM, "import", file], env=remote.env(), stdout=subprocess.DEVNULL)
        wait_for(lambda: client.count(source) > 0)
        process.kill()
        process.wait()
        between = client.count(source)
        assert 0 < between < 20_000
        assert between % 2_000 == 0
        remote.output("import", file)
        found = [one["resourceName"] for one in client.events(source, order="recorded")]
    assert found == [one["resourceName"] for one in sent]


def test_an_import_outlives_a_restart_of_the_server(tmp_path: Path) -> None:
    """Each batch is repeated until it is answered; nothing is lost and nothing stored twice."""
    port = free_port()
    file = tmp_path / "trail.ndjson"
    sent = events(12_000)
    file.write_bytes(b"".join(json.dumps(one).encode() + b"\n" for one in sent))
    with start(tmp_path / "data", port=port) as server, Client(server.url, server.admin_key) as client:
        remote = Remote(server.url, server.admin_key)
        process = subprocess.Popen(
            [PROGRAM, "import", file], env=remote.env(), stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        wait_for(lambda: client.count() > 1)
        server.kill()
    with start(tmp_path / "data", port=port) as again, Client(again.url, remote.key) as client:
        out, told = process.communicate(timeout=60)
        assert process.returncode == 0, told
        assert b"Trying again." in told
        assert out.startswith(b"12,000 events")
        found = list(client.events(Filter(kinds=("Source",)), order="recorded"))
    assert [one["resourceName"] for one in found] == [one["resourceName"] for one in sent]


HEADER = "resourceName,resourceKind,action,user,details\r\n"
GOOD = 'n,Source,Modified,"a\r\nb\nc",\r\n'


@pytest.mark.parametrize(
    ("form", "text", "told"),
    [
        ("csv", HEADER + GOOD * 2 + "n,Source,Modified,ann\r\n", "line 8: has 4 cells, not 5"),
        ("csv", HEADER + GOOD + '"n,Source,Modified,ann,\r\n' * 2, "line 5: is not CSV"),
        ("csv", HEADER + GOOD + "n,Source,Modified,ann,{\r\n", "line 5, details"),
        ("csv", HEADER + GOOD + "n,Source,Modified,ann,\udcff\r\n", "line 5, details: is not UTF-8"),
        ("csv", HEADER + GOOD + "=n,Source,Modified,ann,\r\n", "line 5, resourceName: begins with '='"),
        ("csv", "name,user\r\nx,y\r\n", "line 1: must name the columns"),
        ("ndjson", json.dumps(event()) + "\n\n{\n", "line 3: is not a JSON object"),
        ("ndjson", json.dumps(event()) + "\n[1]\n", "line 2: is not a JSON object"),
    ],
)  # fmt: skip
def test_what_is_no_event_is_told_with_its_line(form: import_file.Form, text: str, told: str) -> None:
    """Cells of several lines are counted right."""
    with pytest.raises(InvalidInput) as caught:
        read_back(text.encode("utf-8", "surrogateescape"), form)
    assert told in str(caught.value)


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("a.csv", HEADER + GOOD * 2 + "n,Source,Modified,ann\r\n", "line 8: has 4 cells, not 5"),
        ("a.csv", HEADER + GOOD + "n,Sauce,Modified,ann,\r\n", "line 5, resourceKind"),
        ("a.csv", HEADER + GOOD + "\xff,Source,Modified,ann,\r\n", "line 5: is not UTF-8"),
        ("a.ndjson", json.dumps(event()) + "\n" + json.dumps(event(usr=1)), "line 2, usr"),
        ("a.ndjson", "\n" + json.dumps(event(id="x")), "line 2, id"),
        ("a.ndjson", json.dumps(event(resourceKind="events[9]")), 'line 1, resourceKind: "events[9]" is not'),
        ("a.ndjson", "\n" + json.dumps(event(timestamp="2999-01-01T00:00:00Z")), "line 2, timestamp"),
        ("a.ndjson", json.dumps(event()) + "\n" + json.dumps(event(account="x")), "line 2: This API key"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_with_its_line(
    tenant: Tenant, remote: Remote, tmp_path: Path, name: str, text: str, told: str
) -> None:
    """Cells of several lines are counted right, and nothing of the batch is stored."""
    file = tmp_path / name
    file.write_bytes(text.encode("latin-1"))
    failure = remote.failure("import", file)
    assert told in failure
    assert str(file) in failure
    assert trail(tenant) == []


def test_batches_before_a_wrong_line_are_stored_and_those_after_are_told(
    tenant: Tenant, remote: Remote, tmp_path: Path
) -> None:
    """Mended and imported again, the file is there once."""
    file = tmp_path / "a.ndjson"
    lines = [json.dumps(one) for one in events(4_500)]
    file.write_text("\n".join([*lines[:4_200], "nonsense", *lines[4_201:]]))
    assert "line 4,201: is not a JSON object" in (failure := remote.failure("import", file))
    assert "Nothing from line 4,001 on was stored" in failure
    assert len(trail(tenant)) == 4_000
    file.write_text("\n".join(lines))
    remote.output("import", file)
    assert [one["resourceName"] for one in trail(tenant)] == [
        json.loads(line)["resourceName"] for line in lines
    ]


def test_a_trail_of_one_account_is_refused_by_another(
    tenant: Tenant, remote: Remote, other: Remote, neighbour: Tenant, tmp_path: Path
) -> None:
    """The error names account and line; taken out, the events may move."""
    tenant.record(*events(3))
    csv, ndjson = (tmp_path / f"trail.{form}" for form in ("csv", "ndjson"))
    for form, file in {"csv": csv, "ndjson": ndjson}.items():
        remote.output("download", "-o", file, "--format", form)
        told = other.failure("import", file)
        assert re.search(rf"line [12]: This API key can't record into the account .{tenant.account}", told)
    other.output("import", without_account(ndjson))
    assert len(trail(neighbour)) == 3


def read_back(text: bytes, form: import_file.Form, name: str = "x", *, guarded: bool = True) -> list[Json]:
    """The events of a file."""
    lines = import_file.read(io.BytesIO(text), form, name, guarded=guarded)
    return [json.loads(line.event) for line in lines]


@given(docs)
def test_csv_is_read_back_as_it_was(given_docs: list[bytes]) -> None:
    """Guarded and raw: the same events, on the lines that a person would count."""
    for guard in (True, False):
        pieces = [render.csv_lines(decode_docs([doc]), guard=guard)[0] for doc in given_docs]
        text = render.CSV_HEADER + b"".join(pieces)
        assert read_back(text, "csv", guarded=guard) == [json.loads(doc) for doc in given_docs]
        starts = [2 + b"".join(pieces[:at]).count(b"\n") for at in range(len(pieces))]
        lines = import_file.read(io.BytesIO(text), "csv", "x", guarded=guard)
        assert [line.number for line in lines] == starts


@given(docs)
def test_ndjson_is_read_as_it_is(given_docs: list[bytes]) -> None:
    """An id that is there stays; one that is not is a ULID, the same each time, of its own for each line."""
    assert read_back(b"\n".join(given_docs), "ndjson") == list(map(json.loads, given_docs))
    bare = [{name: value for name, value in json.loads(doc).items() if name != "id"} for doc in given_docs]
    text = b"\n".join(json.dumps(one).encode() for one in bare * 2)
    made = ids(read_back(text, "ndjson", "x"))
    assert made == ids(read_back(text, "ndjson", "y"))
    assert len(set(made)) == len(made)
    assert all(map(is_ulid, made))


@given(docs, st.integers(1, 80))
def test_a_csv_that_was_cut_gives_no_other_event(given_docs: list[bytes], cut: int) -> None:
    """It is an error, or ends after a whole event."""
    text = render.CSV_HEADER + render.csv_lines(decode_docs(given_docs), guard=True)[0]
    wanted = [json.loads(doc) for doc in given_docs]
    try:
        found = read_back(text[:-cut], "csv")
    except InvalidInput:
        return
    assert found == wanted[: len(found)]
