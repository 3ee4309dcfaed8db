"""Evidence: what is made proves itself, and whoever changes anything of it is found out.

An attack changes the members and makes a sound zip of them again, with the right check sums; what the
container itself notices comes on top.
"""

import io
import json
import random
import re
import shutil
import subprocess
import sys
import unicodedata
import zipfile
from collections.abc import Callable, Iterator, Sequence
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import rfc6962
from auditplane import log
from auditplane.checkpoint import Checkpoint, SignerKey, sign_checkpoint
from auditplane.cli.verify_file import verify_file
from auditplane.errors import InvalidConfig, ProofError, Unavailable
from auditplane.event import KINDS, Rules, parse
from auditplane.evidence import Asked, Evidence, _Ranges, verify
from auditplane.query import FILTERS, fold, parse_query, words_of
from auditplane.render import Form, body, head
from auditplane.store.sqlite import sealing
from auditplane.store.sqlite.account import AccountStore
from folders import FreeFolder
from pythons import other_pythons, run_python

Members = dict[str, bytes]
Filters = Sequence[tuple[str, str]]

SIGNER = SignerKey("auditplane/test/default", bytes(range(32)))
OTHER = SignerKey("auditplane/test/default", bytes(32))
KEY = str(SIGNER.verifier)
EVENTS = 60
PROGRAM = Path(verify.__file__)
ANN: Filters = [("user", "Ann")]
# Of Unicode 13.0.
NEW_LETTER = {
    "user": "eve",
    "action": "Paused",
    "resourceKind": "Source",
    "resourceName": "x",
    "description": "\U00010e80",
}
# What the server says and nothing proves.
UNSIGNED = ("made", "by")


def record(store: AccountStore, count: int, start: int = 0, *, details: dict[str, Any] | None = None) -> None:
    events = [
        {
            "user": "ann" if number % 3 else '=bob, "b"',
            "action": "Modified",
            "resourceKind": "Source",
            "resourceName": f"otlp-{number}",
            "description": 'é\u2028,"' * (number % 5),
            "details": {"n": number, **(details or {})},
        }
        for number in range(start, start + count)
    ]
    batch = parse(json.dumps(events).encode(), Rules())
    (result,) = log.record(store, [log.Request(batch, "key-id")], log.clock)
    assert not isinstance(result, Exception), result


@pytest.fixture
def store(tmp_path: Path) -> Iterator[AccountStore]:
    """A log without events."""
    folder = FreeFolder(tmp_path / "data")
    with folder.account("default") as opened:
        yield opened
    folder.close()


def asked(filters: Filters = ()) -> Asked:
    query = parse_query(filters, account="default", allowed=FILTERS, kinds=KINDS)
    return Asked("default", "key-id", "of the tests", query, filters)


def make(store: AccountStore, filters: Filters = (), signer: SignerKey = SIGNER) -> bytes:
    made = Evidence(store, asked(filters), signer, log.clock)
    return b"".join(part for parts in made for part in parts)


def members_of(data: bytes) -> Members:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def zipped(members: Members | Sequence[tuple[str, bytes]]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items() if isinstance(members, dict) else members:
            archive.writestr(name, data)
    return out.getvalue()


class Checked:
    """Checks bytes as a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __call__(self, data: bytes | Members, key: str | None = KEY) -> verify.Report:
        self.path.write_bytes(zipped(data) if isinstance(data, dict) else data)
        report = verify.check(str(self.path), key)
        assert all(line.isprintable() for line in report.lines())
        return report

    def wrong(self, data: bytes | Members, key: str | None = KEY) -> str:
        """What is wrong with it; nothing is said to be proved."""
        report = self(data, key)
        assert report.wrong
        text = "\n".join(report.lines())
        assert "Proved:" not in text
        assert text.endswith("This file proves nothing.")
        return "\n".join(report.wrong)


@pytest.fixture
def checked(tmp_path: Path) -> Checked:
    return Checked(tmp_path / "trail.zip")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Of one log: all of it, what passes a filter, and what is none."""
    folder = FreeFolder(tmp_path_factory.mktemp("evidence") / "data")
    with folder.account("default") as store:
        record(store, EVENTS // 2)
        while sealing.seal(store, everything=True):
            pass
        record(store, EVENTS // 2, EVENTS // 2)
        found = {
            "whole": make(store),
            "filtered": make(store, ANN),
            "none": make(store, [("user", "nobody")]),
        }
    folder.close()
    return found


@pytest.fixture(params=["whole", "filtered", "none"])
def each(request: pytest.FixtureRequest, made: dict[str, bytes]) -> bytes:
    return made[request.param]


# What is made.


def test_what_is_made_proves_itself(each: bytes, checked: Checked) -> None:
    for key in (KEY, None):
        report = checked(each, key)
        assert not report.wrong
        assert any("That the key is right" in line for line in report.not_proved) is (key is None)


def test_the_members_are_what_the_server_has(store: AccountStore) -> None:
    record(store, EVENTS)
    members = members_of(make(store, ANN))
    assert set(members) == set(verify.MEMBERS)
    lines = members["events.ndjson"].splitlines()
    entries = [json.loads(line) for line in lines]
    assert [entry["index"] for entry in entries] == [at for at in range(EVENTS) if at % 3]
    docs = [line.partition(b',"event":')[2].rpartition(b',"stamp":')[0] for line in lines]
    assert [log.get(store, entry["event"]["id"]) for entry in entries] == docs
    assert members["events.csv"] == head(Form.CSV) + body(docs, Form.CSV)
    assert members["key"].decode() == KEY + "\n"
    assert members["checkpoint"] == log.checkpoint(store, SIGNER, log.clock).note
    assert members["verify.py"] == PROGRAM.read_bytes()
    told = json.loads(members["manifest.json"])
    assert told["files"] == {name: sha256(members[name]).hexdigest() for name in verify.FILES}
    assert told["by"] == {"key": "key-id", "description": "of the tests"}
    assert told["filters"] == {"user": ["Ann"]}
    assert (told["origin"], told["account"], told["size"]) == (SIGNER.name, "default", EVENTS)
    assert told["events"] == {"count": 40, "first": 1, "last": 59, "complete": False}


@pytest.mark.parametrize(
    ("filters", "sentence"),
    [
        ([], r"Complete: all that was committed from number 0 to number 59 .* That is the whole log"),
        ([("min-date", "20200101"), ("max-date", "29990101")], r"from number 0 to number 59 "),
        ([("q", "otlp 7")], r"Complete: all that was committed from number 7 to number 7 "),
    ],
)
def test_a_whole_range_is_said_to_be_complete(
    store: AccountStore, checked: Checked, filters: Filters, sentence: str
) -> None:
    record(store, EVENTS)
    report = checked(make(store, filters))
    assert re.search(sentence, "\n".join(report.proved))


def test_what_a_filter_lets_through_proves_presence_only(made: dict[str, bytes], checked: Checked) -> None:
    report = checked(made["filtered"])
    assert not any("Complete" in line for line in report.proved)
    assert any(
        "all that pass the filters: that is the word of the server" in line for line in report.not_proved
    )
    assert any("passes the filters" in line for line in report.proved)
    none = checked(made["none"])
    assert any("none is here" in line for line in none.not_proved)
    assert not any("events.ndjson" in line for line in none.proved)


def test_a_log_without_events_has_evidence_too(store: AccountStore, checked: Checked) -> None:
    report = checked(make(store))
    assert not report.wrong
    assert any("0 events" in line for line in report.proved)


@settings(max_examples=25)
@given(st.data())
def test_any_choice_of_events_proves_itself(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """In any log, of any size: in a whole range the proof is of the order of its logarithm."""
    path = tmp_path_factory.mktemp("choice")
    folder = FreeFolder(path / "data")
    with folder.account("default") as store:
        size = data.draw(st.integers(1, 600))
        record(store, size)
        filters = data.draw(st.sampled_from([(), ANN, [("q", "otlp 5")], [("user", '=bob, "b"')]]))
        made = make(store, filters)
    folder.close()
    assert not Checked(path / "trail.zip")(made).wrong
    if not filters:
        assert members_of(made)["proof"] == b""


@given(st.sets(st.integers(0, 200)).map(sorted), st.lists(st.integers(0, 200), max_size=10).map(sorted))
def test_indexes_are_kept_as_ranges_however_they_come(indexes: list[int], cuts: list[int]) -> None:
    with _Ranges() as ranges:
        for first, end in pairwise([0, *cuts, len(indexes)]):
            if indexes[first:end]:
                ranges.add(indexes[first:end])
        ranges.finish()
        found = list(ranges.all())
        assert [index for first, end in found for index in range(first, end)] == indexes
        assert all(end < first for (_, end), (first, _) in pairwise(found))
        assert (ranges.count, ranges.is_one) == (len(indexes), len(found) == 1)
        assert (ranges.first, ranges.last) == ((indexes[0], indexes[-1]) if indexes else (None, None))


@pytest.mark.parametrize("filters", [[], ANN])
def test_what_is_made_in_many_steps_proves_itself_too(
    store: AccountStore, checked: Checked, filters: Filters
) -> None:
    for number in range(4):
        record(store, 200, 200 * number, details={"long": "x" * 8_000})
    steps = list(Evidence(store, asked(filters), SIGNER, log.clock))
    assert len(steps) > 10
    report = checked(b"".join(part for parts in steps for part in parts))
    assert not report.wrong
    assert any("Complete" in line for line in report.proved) is not bool(filters)


def test_events_that_are_gone_are_not_in_it(store: AccountStore, checked: Checked) -> None:
    """It says that they are missing, and does not say that it is complete."""
    record(store, EVENTS)
    forget(store, 7)
    report = checked(make(store))
    assert not report.wrong
    assert not any("Complete" in line for line in report.proved)
    assert any("1 event between the first and the last is not here" in line for line in report.not_proved)


def forget(store: AccountStore, index: int) -> None:
    """Destroys the text of an event, as something that expires."""
    with store.maintenance() as connection:
        connection.execute("DELETE FROM tail WHERE idx = ?", (index,))
        assert connection.changes() == 1


def test_events_that_go_meanwhile_break_it_off(store: AccountStore) -> None:
    """A file that contradicts itself is never finished."""
    record(store, EVENTS)
    steps = iter(Evidence(store, asked(), SIGNER, log.clock))
    next(steps)
    forget(store, 7)
    with pytest.raises(Unavailable, match=r"expired or were erased"):
        list(steps)


def test_events_that_come_meanwhile_are_not_in_it(store: AccountStore, checked: Checked) -> None:
    record(store, EVENTS)
    steps = iter(Evidence(store, asked(), SIGNER, log.clock))
    first = next(steps)
    record(store, EVENTS)
    made = b"".join([*first, *(part for parts in steps for part in parts)])
    assert json.loads(members_of(made)["manifest.json"])["size"] == EVENTS
    assert not checked(made).wrong


# The program as a program.


def run(*args: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Runs it without anything but the standard library."""
    command = [sys.executable, "-I", "-S", *args]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def unpacked(made: dict[str, bytes], tmp_path: Path) -> Path:
    folder = tmp_path / "unpacked"
    with zipfile.ZipFile(io.BytesIO(made["filtered"])) as archive:
        archive.extractall(folder)
    return folder


def test_the_program_checks_a_zip(made: dict[str, bytes], tmp_path: Path) -> None:
    path, key = tmp_path / "trail.zip", tmp_path / "log.vkey"
    path.write_bytes(made["whole"])
    key.write_text(KEY + "\n")
    for args in ([], ["--key", KEY], ["--key", key]):
        done = run(PROGRAM, path, *args)
        assert (done.returncode, done.stderr) == (0, "")
        assert "Complete" in done.stdout
    for wrong in (str(OTHER.verifier), str(SignerKey("x", bytes(32)).verifier)):
        done = run(PROGRAM, path, "--key", wrong)
        assert done.returncode == 1
        assert "of another key" in done.stdout


@pytest.mark.parametrize("newer", ["\U0001e4d0", "\U00010570"], ids=["Unicode 15", "Unicode 14"])
def test_no_python_calls_a_text_wrong_whose_letters_are_new_to_it_or_to_the_server(
    store: AccountStore, tmp_path: Path, newer: str
) -> None:
    """Whoever may record could make evidence worthless otherwise."""
    event = {"action": "Modified", "resourceKind": "Source", "resourceName": "x", "user": f"Ann{newer}"}
    batch = parse(json.dumps([event | {"description": f"Refund{newer}"}]).encode(), Rules())
    log.record(store, [log.Request(batch, "key-id")], log.clock)
    path = tmp_path / "trail.zip"
    for filters in ([("q", words_of(f"refund{newer}")[0])], [("user", fold(f"ANN{newer}"))]):
        path.write_bytes(make(store, filters))
        for python in [sys.executable, *other_pythons()]:
            done = run_python(python, str(PROGRAM), str(path), "--key", KEY)
            assert done.returncode == 0, done.stdout
            assert "1 event of events.ndjson is in that log" in done.stdout
            told = "That each of them passes the filters: Event 0" in done.stdout
            assert told is ("Each of them passes the filters." not in done.stdout)
            assert told <= (newer == "\U00010570")


def test_a_python_of_an_older_unicode_says_that_it_cannot_tell(
    store: AccountStore, checked: Checked, monkeypatch: pytest.MonkeyPatch
) -> None:
    record(store, 3)
    (result,) = log.record(
        store, [log.Request(parse(json.dumps([NEW_LETTER]).encode(), Rules()), "key-id")], log.clock
    )
    assert not isinstance(result, Exception)
    whole = [("q", "x"), ("action", "Paused")]
    data = members_of(make(store, whole))
    assert "Each of them passes the filters." in checked(data).proved
    monkeypatch.setattr(verify, "unicodedata", unicodedata.ucd_3_2_0)
    report = checked(data)
    assert not report.wrong
    assert "Each of them passes the filters." not in report.proved
    assert any("Event 3 " in line and "Python 3.11 or newer can tell" in line for line in report.not_proved)
    # What it can tell, it still tells.
    changed = data | {"manifest.json": data["manifest.json"].replace(b'"Paused"', b'"Other"')}
    assert "does not pass the filters" in checked.wrong(changed)


def test_the_program_in_the_file_checks_the_folder_it_is_in(unpacked: Path, tmp_path: Path) -> None:
    for args, cwd in (([], unpacked), ([unpacked], tmp_path), (["."], unpacked)):
        done = run(unpacked / "verify.py", *args, cwd=cwd)
        assert (done.returncode, done.stderr) == (0, "")
        assert "take it from the project" in done.stdout
    (unpacked / "events.csv").write_bytes(
        (unpacked / "events.csv").read_bytes().replace(b"otlp-4,", b"otlp-5,")
    )
    done = run(unpacked / "verify.py")
    assert done.returncode == 1
    assert "has otlp-5 as resourceName, where events.ndjson has otlp-4" in done.stdout
    (unpacked / "proof").unlink()
    assert "proof is missing" in run(unpacked / "verify.py").stdout
    (unpacked / "notes.txt").touch()
    assert "notes.txt is in the folder, and is no part of the evidence" in run(unpacked / "verify.py").stdout


@pytest.mark.parametrize(
    "args",
    [
        ["/none.zip"],
        [],
        ["--nonsense"],
        ["x", "y"],
        [PROGRAM, "--key", "nonsense"],
        [PROGRAM, "--key", PROGRAM],
        [PROGRAM, "--key", "\udcff+00000000+" + "AQ" + "A" * 42],
    ],
)
def test_what_is_misused_exits_with_two(args: list[str | Path]) -> None:
    done = run(PROGRAM, *args)
    assert done.returncode == 2
    assert done.stderr
    assert "Traceback" not in done.stderr


def test_the_command_checks_with_the_same_code(
    made: dict[str, bytes], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "trail.zip"
    path.write_bytes(made["whole"])
    verify_file(str(path), key=KEY)
    assert capsys.readouterr().out == run(PROGRAM, path, "--key", KEY).stdout
    with pytest.raises(ProofError, match="of another key"):
        verify_file(str(path), key=str(OTHER.verifier))
    for file, key in ((tmp_path / "none.zip", KEY), (path, "nonsense")):
        with pytest.raises(InvalidConfig):
            verify_file(str(file), key=key)


# Attacks on what is in it.


def lines_of(members: Members) -> list[bytes]:
    return members["events.ndjson"].splitlines(keepends=True)


def with_csv(members: Members) -> Members:
    """The table that fits the events, and a manifest that fits both: all that an attacker can mend."""
    docs = [line.partition(b',"event":')[2].rpartition(b',"stamp":')[0] for line in lines_of(members)]
    return with_digests(members | {"events.csv": head(Form.CSV) + body(docs, Form.CSV)})


def with_digests(members: Members) -> Members:
    return with_manifest(members, files={name: sha256(members[name]).hexdigest() for name in verify.FILES})


def with_manifest(members: Members, **changes: Any) -> Members:
    told = json.loads(members["manifest.json"]) | changes
    return members | {"manifest.json": (json.dumps(told, indent=2, ensure_ascii=False) + "\n").encode()}


def with_lines(members: Members, lines: list[bytes]) -> Members:
    return members | {"events.ndjson": b"".join(lines)}


def edited(members: Members, old: bytes, new: bytes) -> Members:
    assert old in members["events.ndjson"]
    return members | {"events.ndjson": members["events.ndjson"].replace(old, new, 1)}


def test_an_event_that_was_changed_is_named(each: bytes, checked: Checked) -> None:
    members = members_of(each)
    if not members["events.ndjson"]:
        return
    wrong = checked.wrong(edited(members, b'"resourceName":"otlp-4"', b'"resourceName":"otlp-9"'))
    assert re.search(r"Event 4 \(id \w+\): events.csv has otlp-4 as resourceName, where .* has otlp-9", wrong)
    assert "do not lead to the root" in wrong
    assert "events.ndjson is not the file of which manifest.json has the SHA-256" in wrong


@pytest.mark.parametrize(
    "change",
    [
        lambda members: edited(members, b'"user":"ann"', b'"user":"bob"'),
        lambda members: edited(members, b'"stamp":{"at":"20', b'"stamp":{"at":"19'),
        lambda members: edited(members, b'"timestamp":"20', b'"timestamp":"19'),
        lambda members: edited(members, b'"by":"key-id"', b'"by":"key-ie"'),
        lambda members: with_lines(members, lines_of(members)[1:]),
        lambda members: with_lines(members, lines_of(members)[:-1]),
        lambda members: with_lines(members, lines_of(members)[:5] + lines_of(members)[6:]),
        lambda members: with_lines(
            members, [*lines_of(members)[:5], lines_of(members)[3], *lines_of(members)[5:]]
        ),
        lambda members: with_lines(members, lines_of(members)[::-1]),
        lambda members: with_lines(members, [*lines_of(members), lines_of(members)[0]]),
        lambda members: with_lines(members, [*lines_of(members), renumbered(lines_of(members)[0], 60)]),
        lambda members: with_lines(members, swapped(lines_of(members))),
        lambda members: members | {"events.ndjson": b""},
    ],
)
@pytest.mark.parametrize("which", ["whole", "filtered"])
def test_whoever_changes_events_is_found_out(
    made: dict[str, bytes], checked: Checked, which: str, change: Callable[[Members], Members]
) -> None:
    """Also when the table, the check sums and the numbers of the manifest are made to fit."""
    members = change(members_of(made[which]))
    checked.wrong(members)
    fitting = with_csv(members)
    checked.wrong(fitting)
    indexes = [json.loads(line)["index"] for line in lines_of(members)]
    complete = bool(indexes) and indexes[-1] - indexes[0] + 1 == len(indexes)
    numbers = {
        "count": len(indexes),
        "first": indexes[0] if indexes else None,
        "last": indexes[-1] if indexes else None,
        "complete": complete,
    }
    if numbers["first"] is None or numbers["first"] >= 0:
        wrong = checked.wrong(with_manifest(fitting, events=numbers))
        assert re.search(r"root|ends too early|more hashes|after the one before|beyond the end", wrong)


def renumbered(line: bytes, index: int) -> bytes:
    return re.sub(rb'"index":\d+', b'"index":%d' % index, line)


def swapped(lines: list[bytes]) -> list[bytes]:
    """Two events have changed places, each with the index of the other."""
    first, second = (json.loads(line)["index"] for line in lines[3:5])
    return [*lines[:3], renumbered(lines[4], first), renumbered(lines[3], second), *lines[5:]]


def test_an_event_that_was_taken_out_is_missed(made: dict[str, bytes], checked: Checked) -> None:
    """Its hash alone would be allowed in its place, and is then said to be missing."""
    members = members_of(made["whole"])
    lines = lines_of(members)
    left_out = with_csv(with_lines(members, [*lines[:5], *lines[6:]]))
    assert "`count` is 60; the events say 59" in checked.wrong(left_out)
    told = {"count": 59, "first": 0, "last": 59, "complete": True}
    assert "`complete` is true; the events say false" in checked.wrong(with_manifest(left_out, events=told))
    match = re.fullmatch(rb'\{"index":5,"event":(.*),"stamp":(\{.*\})\}\n', lines[5])
    assert match
    leaf = sha256(b"\0" + sha256(match[1] + b"\n" + match[2]).digest()).digest()
    honest = with_manifest(with_digests(left_out | {"proof": leaf}), events=told | {"complete": False})
    report = checked(honest)
    assert not report.wrong
    assert not any("Complete" in line for line in report.proved)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"events": {"count": 61, "first": 0, "last": 59, "complete": True}}, "`count` is 61"),
        ({"events": {"count": 60, "first": 1, "last": 59, "complete": True}}, "`first` is 1"),
        ({"events": {"count": 60, "first": 0, "last": 60, "complete": True}}, "`last` is 60"),
        ({"events": {"count": 60, "first": 0, "last": 59, "complete": False}}, "`complete` is false"),
        ({"size": 61}, "has 61 entries, not 60"),
        ({"size": 10**300}, "entries, not 60"),
        ({"origin": "auditplane/other/default"}, "names the log auditplane/other/default"),
        ({"account": "acme"}, "names the account acme"),
        ({"filters": {"user": ["bob"]}}, "Event 0 (id"),
        ({"filters": {"nonsense": ["bob"]}}, "members"),
        ({"dates": {"from": "2000-01-01T00:00:00.000000Z", "to": None}}, "members"),
        ({"format": "auditplane-evidence-2"}, "auditplane-evidence-2"),
        ({"events": {"count": True, "first": 0, "last": 59, "complete": True}}, "members"),
        ({"events": []}, "members"),
        ({"filters": []}, "members"),
        ({"filters": {"user": "ann"}}, "members"),
        ({"files": {}}, "members"),
        ({"by": None}, "members"),
        ({"made": "x"}, "members"),
        ({"more": 1}, "members"),
    ],
)
def test_whoever_changes_the_manifest_is_found_out(
    made: dict[str, bytes], checked: Checked, changes: dict[str, Any], sentence: str
) -> None:
    assert sentence in checked.wrong(with_manifest(members_of(made["whole"]), **changes))


@pytest.mark.parametrize(
    "text",
    ["", "{}", "[]", "null", "{", "[" * 100_000, '{"format": NaN}', "\x00", '{"format": ' + "9" * 5000 + "}"],
)
def test_a_manifest_that_is_none_is_refused(made: dict[str, bytes], checked: Checked, text: str) -> None:
    assert "manifest.json" in checked.wrong(members_of(made["whole"]) | {"manifest.json": text.encode()})


def test_a_cell_that_was_changed_is_named(made: dict[str, bytes], checked: Checked) -> None:
    members = members_of(made["whole"])
    table = members["events.csv"]
    for old, new, sentence in (
        (b"otlp-17,", b"otlp-18,", "Event 17 (id"),
        (b"otlp-17,", b"otlp-1,", "has otlp-1 as resourceName, where events.ndjson has otlp-17"),
        (b"\"'=bob", b'"=bob', "Event 0 (id"),
        (b"id,timestamp", b"id,timestomp", "first line"),
        (b'}"\r\n', b'}"\n', "Event 0 (id"),
        (b'"{""n"":59}"\r\n', b'"{""n"":59}"\r\nmore\r\n', "more lines"),
        (b'"{""n"":59}"\r\n', b"", "Event 59 (id"),
    ):
        assert old in table
        changed = members | {"events.csv": table.replace(old, new, 1)}
        assert sentence in checked.wrong(changed)
        assert sentence in checked.wrong(with_digests(changed))


def test_the_checkpoint_of_another_log_or_key_is_refused(
    made: dict[str, bytes], checked: Checked, tmp_path: Path
) -> None:
    members = members_of(made["whole"])
    root = bytes(32)
    for signer, origin, size in (
        (OTHER, SIGNER.name, EVENTS),
        (SignerKey("auditplane/test/acme", SIGNER.seed), "auditplane/test/acme", EVENTS),
        (SIGNER, "auditplane/test/acme", EVENTS),
        (SIGNER, SIGNER.name, EVENTS),
        (SIGNER, SIGNER.name, EVENTS - 1),
        (SIGNER, SIGNER.name, EVENTS + 1),
    ):
        note = sign_checkpoint(Checkpoint(origin, size, root), [signer])
        checked.wrong(with_digests(members | {"checkpoint": note}))
        own = f"{signer.verifier}\n".encode()
        forged = with_manifest(members | {"checkpoint": note, "key": own}, origin=origin, size=size)
        checked.wrong(with_digests(forged))
        checked.wrong(with_digests(forged), None)


def test_a_log_made_anew_with_another_key_is_refused_by_the_kept_one(
    store: AccountStore, checked: Checked
) -> None:
    """Without the key that was kept it passes, and the report says what that means."""
    record(store, 5)
    forged = make(store, signer=OTHER)
    assert "of another key" in checked.wrong(forged)
    report = checked(forged, None)
    assert not report.wrong
    assert any("it came with the file" in line for line in report.not_proved)


def test_another_program_in_the_file_is_not_to_be_run(made: dict[str, bytes], checked: Checked) -> None:
    changed = members_of(made["whole"])
    changed["verify.py"] = b"print('all is well')\n"
    assert "verify.py is not the file" in checked.wrong(changed)
    report = checked(with_digests(changed))
    assert not report.wrong
    assert any("Don't run that one" in line for line in report.told)


@pytest.mark.parametrize("name", verify.MEMBERS)
def test_a_bit_that_was_changed_is_found(each: bytes, checked: Checked, name: str) -> None:
    """In each member, at many places; of the manifest only what nothing proves can be another."""
    members = members_of(each)
    chosen = random.Random(name)
    content = members[name]
    for at in chosen.sample(range(len(content)), min(len(content), 40)):
        wrong = bytearray(content)
        wrong[at] ^= 1 << chosen.randrange(8)
        changed = members | {name: bytes(wrong)}
        if name == verify.MANIFEST and not checked(changed).wrong:
            told, before = json.loads(bytes(wrong)), json.loads(content)
            assert {key for key in before if told[key] != before[key]} <= {*UNSIGNED, "filters"}
        else:
            assert name in checked.wrong(changed) or name == verify.KEY


def test_hashes_that_are_too_many_too_few_or_moved_are_found(
    made: dict[str, bytes], checked: Checked
) -> None:
    members = members_of(made["filtered"])
    proof = members["proof"]
    for other in (proof + bytes(32), proof[:-32], proof[:-1], proof[32:] + proof[:32], b"", proof + b"\0"):
        checked.wrong(with_digests(members | {"proof": other}))
    checked.wrong(with_digests(members_of(made["whole"]) | {"proof": bytes(32)}))


@pytest.mark.parametrize(
    "line",
    [
        b"\n",
        b"{}\n",
        b'{"index":0,"event":{},"stamp":{}}\n',
        b'{"index":99999999999999999999999,"event":{"id":1},"stamp":STAMP}\n',
        b'{"index":0,"event":{"id":1},"stamp":STAMP}\n',
        b'{"index":0,"event":{"id":"\\ud800"},"stamp":STAMP}\n',
        b'{"index":0,"event":{"id":"\xff"},"stamp":STAMP}\n',
        b'{"index":0,"event":{"a":NESTED},"stamp":STAMP}\n',
        b'{"index":0,"event":{"a":1,"details":},"stamp":STAMP}\n',
        b"x" * 1_000_000,
        b"\n" * 1000,
        b'{"index":0',
    ],
)
def test_a_line_that_is_no_event_is_refused(made: dict[str, bytes], checked: Checked, line: bytes) -> None:
    stamp = b'{"at":"2026-01-01T00:00:00.000000Z","by":"x","salt":"y"}'
    line = line.replace(b"STAMP", stamp).replace(b"NESTED", b"[" * 100_000)
    members = members_of(made["whole"])
    wrong = checked.wrong(members | {"events.ndjson": line + members["events.ndjson"]})
    assert re.search(r"Line 1 |Event \d+|line that does not end|beyond", wrong)


def by_hand(entries: list[tuple[bytes, bytes]]) -> bytes:
    """Evidence of a log of these docs and stamps, made from what the documentation tells of it."""
    count = len(entries)
    leaves = [sha256(doc + b"\n" + stamp).digest() for doc, stamp in entries]
    root = rfc6962.Tree(leaves).root(count)
    rows = [
        b'{"index":%d,"event":%b,"stamp":%b}\n' % (at, doc, stamp) for at, (doc, stamp) in enumerate(entries)
    ]
    told = {
        "format": "auditplane-evidence-1",
        "origin": SIGNER.name,
        "account": "default",
        "filters": {},
        "dates": {"from": None, "to": None},
        "made": "2026-01-01T00:00:00.000000Z",
        "by": {"key": "x", "description": ""},
        "events": {"count": count, "first": 0, "last": count - 1, "complete": True},
        "size": count,
    }
    members = {
        "events.ndjson": b"".join(rows),
        "events.csv": head(Form.CSV) + body([doc for doc, _ in entries], Form.CSV),
        "proof": b"",
        "checkpoint": sign_checkpoint(Checkpoint(SIGNER.name, count, root), [SIGNER]),
        "key": f"{KEY}\n".encode(),
        "verify.py": PROGRAM.read_bytes(),
        "manifest.json": json.dumps(told).encode(),
    }
    return zipped(with_digests(members))


def test_a_server_that_dates_back_is_found_out(checked: Checked) -> None:
    """Commit times never go back; not even with the signing key can an event be put in as an older one."""

    def entries(*seconds: int) -> list[tuple[bytes, bytes]]:
        stamp = b'{"at":"2026-01-01T00:00:%02d.000000Z","by":"x","salt":"y"}'
        return [(b'{"id":"%d","user":"ann"}' % number, stamp % at) for number, at in enumerate(seconds)]

    assert not checked(by_hand(entries(1, 2, 2, 3))).wrong
    wrong = checked.wrong(by_hand(entries(1, 5, 3, 4)))
    assert "Event 2 (id 2) has a stamp that is earlier than the one before it" in wrong


# Attacks on the container.


def test_files_that_are_missing_doubled_or_too_many_are_named(
    made: dict[str, bytes], checked: Checked
) -> None:
    members = members_of(made["filtered"])
    for name in verify.MEMBERS:
        fewer = {other: data for other, data in members.items() if other != name}
        assert f"{name} is missing" in checked.wrong(fewer)
    assert "more.txt is in the file, and is no part" in checked.wrong(members | {"more.txt": b""})
    assert "folder/ is in the file" in checked.wrong(members | {"folder/": b""})
    with pytest.warns(UserWarning, match="Duplicate"):
        doubled = zipped([*members.items(), ("events.csv", members["events.csv"])])
    assert "events.csv is in the file more than once" in checked.wrong(doubled)


def test_a_zip_with_something_before_or_after_it_is_refused(made: dict[str, bytes], checked: Checked) -> None:
    data = made["whole"]
    assert "before, between or after" in checked.wrong(b"#!/bin/sh\n" + data)
    assert "before, between or after" in checked.wrong(data + b"more")
    out = io.BytesIO(data)
    with zipfile.ZipFile(out, "a") as archive:
        archive.comment = b"more"
    assert "before, between or after" in checked.wrong(out.getvalue())


def test_a_file_that_the_zip_does_not_list_is_refused(made: dict[str, bytes], checked: Checked) -> None:
    """Programs that unpack while they read would find it."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, data in members_of(made["whole"]).items():
            archive.writestr(name, data)
            if name == "events.csv":
                archive.writestr("events.csv ", b"another table")
        archive.filelist.pop(2)
    assert "before, between or after" in checked.wrong(out.getvalue())


def test_a_zip_that_unpacks_to_far_too_much_is_refused(made: dict[str, bytes], checked: Checked) -> None:
    members = members_of(made["whole"])
    for name in ("manifest.json", "checkpoint", "key", "verify.py"):
        assert "larger than it can be" in checked.wrong(members | {name: b" " * 50_000_000})
    for name in ("events.ndjson", "events.csv", "proof"):
        checked.wrong(members | {name: members[name] + b" " * 50_000_000})


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_compressions_are_refused(made: dict[str, bytes], checked: Checked, method: int) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, data in members_of(made["whole"]).items():
            archive.writestr(name, data)
    assert "manifest.json can't be read" in checked.wrong(out.getvalue())


def test_a_byte_of_the_zip_that_was_changed_is_found_or_changes_nothing(
    made: dict[str, bytes], checked: Checked
) -> None:
    """Such as a date in the container, which says nothing of the events."""
    data, chosen = made["filtered"], random.Random(3)
    edges = [*range(60), *range(len(data) - 500, len(data))]
    for at in {*chosen.sample(range(len(data)), 250), *chosen.sample(edges, 150)}:
        wrong = bytearray(data)
        wrong[at] ^= 1 << chosen.randrange(8)
        if not checked(bytes(wrong)).wrong:
            assert members_of(bytes(wrong)) == members_of(data)


def test_a_zip_that_was_cut_is_refused(made: dict[str, bytes], checked: Checked) -> None:
    data = made["whole"]
    for end in [*range(0, len(data), 997), len(data) - 1]:
        checked.wrong(data[:end])


@given(st.binary(max_size=300))
def test_whatever_is_no_zip_is_refused(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    Checked(tmp_path_factory.getbasetemp() / "any.zip").wrong(data)


@settings(max_examples=60)
@given(st.dictionaries(st.sampled_from(verify.MEMBERS), st.binary(max_size=60), min_size=1), st.booleans())
def test_whatever_is_in_the_zip_ends_with_sentences(
    made: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory, other: Members, is_alone: bool
) -> None:
    members = other if is_alone else members_of(made["filtered"]) | other
    Checked(tmp_path_factory.getbasetemp() / "other.zip").wrong(members)


def test_a_folder_in_place_of_a_file_is_refused(unpacked: Path) -> None:
    shutil.rmtree(unpacked / "proof", ignore_errors=True)
    (unpacked / "proof").unlink()
    (unpacked / "proof").mkdir()
    report = verify.check(str(unpacked), KEY)
    assert any("proof can't be read" in line for line in report.wrong)
