"""Checks a file of evidence that Auditplane made, without a network and without Auditplane.

    python3 verify.py FILE.zip --key KEY
    python3 verify.py FOLDER --key KEY      the unpacked file
    python3 verify.py                       in the unpacked folder

KEY is the verifier key of the log, or a file that it is in: the one that you kept from before. Without --key
the key that came along is used, and all that is proved is proved by that key alone.

It needs Python 3.9 or newer and nothing else. It says what is proved and what is not, and exits with 0 when
all of it holds, 1 when anything does not, and 2 when it was called in a wrong way. Whatever is in the file,
it ends with sentences. It reads the events one after the other, and holds few of them at a time.

The copy in a zip is only as good as that zip. To trust nobody, take this program from the project: it is
src/auditplane/evidence/verify.py there, and `auditplane verify FILE.zip` runs the same code.
"""

from __future__ import annotations

import argparse
import binascii
import csv
import io
import json
import os
import re
import sys
import unicodedata
import zipfile
import zlib
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256, sha512
from struct import error as StructError  # noqa: N812 - zipfile raises it for a damaged file
from struct import unpack
from typing import Any, BinaryIO, NamedTuple

FORMAT = "auditplane-evidence-1"
MANIFEST, EVENTS, CSV, PROOF = "manifest.json", "events.ndjson", "events.csv", "proof"
CHECKPOINT, KEY, PROGRAM = "checkpoint", "key", "verify.py"
FILES = (EVENTS, CSV, PROOF, CHECKPOINT, KEY, PROGRAM)
MEMBERS = (*FILES, MANIFEST)

HASH_BYTES = 32
EMPTY_ROOT = sha256().digest()
READ_BYTES = 1 << 18
LINE_BYTES_MAX = 1 << 18
SMALL_BYTES_MAX = 1 << 20  # Of any member but events and proof.
ZIP_ENTRIES_MAX = 1_000
NOTE_SIGNATURES_MAX = 100
_HEADER_BYTES, _DESCRIPTOR_BYTES_MAX, _END_BYTES = 30, 24, 22  # Of a file in a zip, and of the zip.
SHOWN_CHARS = 60

# Whatever a damaged file makes the standard library raise.
_UNREADABLE = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    NotImplementedError,
    RuntimeError,
    ValueError,
    OverflowError,
    StructError,
    OSError,
)


class Wrong(Exception):
    """What does not hold, in a sentence."""


class Misused(Exception):
    """What was asked for can't be done."""


class Report:
    """What was found: sentences of what is proved, of what is not, and of what is wrong."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.proved: list[str] = []
        self.not_proved: list[str] = []
        self.wrong: list[str] = []

    @contextmanager
    def gathering(self) -> Iterator[None]:
        """Takes up what is found wrong, so that more can be checked."""
        try:
            yield
        except Wrong as error:
            self.wrong.append(str(error))

    def lines(self) -> list[str]:
        """The report for a person."""
        if self.wrong:
            return [*self.told, "", "WRONG:", *_items(self.wrong), "", "This file proves nothing."]
        parts = ["", "Proved:", *_items(self.proved), "", "Not proved:", *_items(self.not_proved)]
        return [*self.told, *parts]


def _items(sentences: list[str]) -> list[str]:
    return [f"- {sentence}" for sentence in sentences]


def check(path: str, key: str | None = None) -> Report:
    """Checks a zip, or the folder it was unpacked into; `key` is a verifier key or a file that it is in.

    Raises Misused when there is no such file, or when that is no key.
    """
    known = None if key is None else _given_key(key)
    report = Report()
    with report.gathering(), _opened(path) as files:
        _check_files(files, known, report)
    return report


def _check_files(files: Files, known: VerifierKey | None, report: Report) -> None:
    manifest = read_manifest(files.small(MANIFEST))
    _tell(manifest, report)
    with report.gathering():
        report.told += files.check_names()
    key, signed = _signed(files, known, manifest, report)
    size = manifest.size if signed is None else signed.size
    walk = Walk(files, manifest, size)
    with report.gathering():
        try:
            walk.run()
        finally:
            report.wrong += walk.wrong
        _check_counts(walk, manifest)
        if signed is not None and walk.root() != signed.root:
            raise Wrong(
                "The events and the proof do not lead to the root that was signed: at least one event, its "
                "stamp or its place was changed, or one was taken out or put in, or the proof was changed."
            )
    _check_digests(files, manifest, report)
    if signed is not None and key is not None:
        _conclude(walk, manifest, signed, key, known is not None, report)
    _look_at_program(files, report)


def _signed(
    files: Files, known: VerifierKey | None, manifest: Manifest, report: Report
) -> tuple[VerifierKey | None, Checkpoint | None]:
    """The key that is trusted, and what it has signed."""
    own = signed = None
    with report.gathering():
        own = parse_key(_line(files.small(KEY), KEY))
        if known is not None and own != known:
            raise Wrong(
                f"The file is of the log of another key: {own.text} came along, {known.text} was given."
            )
    key = known or own
    if key is not None:
        with report.gathering():
            signed = open_checkpoint(files.small(CHECKPOINT), key)
            if manifest.origin != signed.origin:
                raise Wrong(f"{MANIFEST} names the log {_shown(manifest.origin)}, not {signed.origin}.")
            if not manifest.origin.endswith("/" + manifest.account):
                raise Wrong(
                    f"{MANIFEST} names the account {_shown(manifest.account)}, whose log this is not."
                )
            if manifest.size != signed.size:
                raise Wrong(f"{MANIFEST} says that the log has {manifest.size} entries, not {signed.size}.")
    return key, signed


def _check_counts(walk: Walk, manifest: Manifest) -> None:
    found = (walk.count, walk.first, walk.last, walk.complete)
    told = (manifest.count, manifest.first, manifest.last, manifest.complete)
    for name, is_, says in zip(("count", "first", "last", "complete"), found, told):
        if is_ != says:
            raise Wrong(f"{MANIFEST} says that `{name}` is {_json(says)}; the events say {_json(is_)}.")


def _check_digests(files: Files, manifest: Manifest, report: Report) -> None:
    """Names the files that were changed; all that is proved is proved without it."""
    for name in FILES:
        with report.gathering():
            digest = files.digest(name)
            if digest is not None and digest != manifest.files[name]:
                raise Wrong(f"{name} is not the file of which {MANIFEST} has the SHA-256: one was changed.")


# What is said.


def _tell(manifest: Manifest, report: Report) -> None:
    asked = [f"{name} = {_shown(value)}" for name, values in manifest.filters.items() for value in values]
    report.told += [
        f"Evidence of {_events(manifest.count)} of the account {_shown(manifest.account)}.",
        f"Made {_shown(manifest.made)}.",
        f"Asked for by the API key {_shown(manifest.by_key)} ({_shown(manifest.by_description)}).",
        f"Filters: {', '.join(asked) or 'none'}.",
    ]


def _conclude(
    walk: Walk, manifest: Manifest, signed: Checkpoint, key: VerifierKey, is_known: bool, report: Report
) -> None:
    proved, not_proved = report.proved, report.not_proved
    proved.append(f"The key {key.text} has signed the log {signed.origin} of {_events(signed.size)}.")
    if walk.count:
        proved += [
            f"{_events(walk.count)} of {EVENTS} {_are(walk.count)} in that log, each at its place.",
            "Text, time of commit and recording API key of each are what was recorded, byte for byte.",
            f"They were committed from {walk.at_first} to {walk.at_last}, by the clock of the server.",
            f"{CSV} shows the same events.",
        ]
        if walk.filtered:
            proved.append("Each of them passes the filters.")
    if walk.complete:
        whole = walk.count == signed.size
        proved.append(
            f"Complete: all that was committed {_span(walk)} is here; nothing in between was left out."
            + (" That is the whole log." if whole else "")
        )
    not_proved += _unproved(walk, manifest)
    if not is_known:
        not_proved.append(
            "That the key is right: it came with the file. Compare it with one that you kept from before, "
            "or give that by --key. Whoever makes a key can make a file that fits it."
        )
    not_proved += [
        _SAME_LOG,
        "That what was recorded is true, or that all that happened was recorded.",
        f"When and for whom this file was made, and the words of the filters: {MANIFEST} is not signed.",
    ]


_SAME_LOG = (
    "That others are shown the same log: whoever has the signing key could make another. Checkpoints kept "
    "outside tell them apart."
)
_FILTERED = (
    "That these are all that pass the filters: that is the word of the server. A filter proves that what it "
    "shows is there, not that it shows all."
)


def _unproved(walk: Walk, manifest: Manifest) -> list[str]:
    if not walk.count:
        return ["Anything of events: none is here. That none matches is the word of the server."]
    if walk.complete:
        if walk.count == manifest.size:
            return []
        if manifest.filters:
            return ["That no event before or after these passes the filters: that is the word of the server."]
        return ["Why no event before or after these is here: the server says that they are gone."]
    if manifest.filters:
        return [_FILTERED]
    missing = (
        walk.last - walk.first + 1 - walk.count if walk.first is not None and walk.last is not None else 0
    )
    gone = f"{_events(missing)} between the first and the last {_are(missing)} not here"
    return [
        f"What is missing: {gone}. No filter was given; the server says that "
        + ("it expired or was erased." if missing == 1 else "they expired or were erased.")
    ]


def _span(walk: Walk) -> str:
    return f"from number {walk.first} to number {walk.last} of the log, counted from 0,"


def _look_at_program(files: Files, report: Report) -> None:
    with report.gathering():
        theirs = files.small(PROGRAM)
        try:
            with open(__file__, "rb") as own:
                if own.read() == theirs:
                    report.not_proved.append(
                        "That this program is honest, if it came with the file, which can hold any other: "
                        "take it from the project."
                    )
                else:
                    report.told.append(
                        f"The {PROGRAM} in the file is not this program: another version, or changed. "
                        "Don't run that one."
                    )
        except OSError:
            pass


def _events(count: int) -> str:
    return "1 event" if count == 1 else f"{count:,} events"


def _are(count: int) -> str:
    return "is" if count == 1 else "are"


def _shown(text: str) -> str:
    """A text of the file for a terminal: short, and without control characters."""
    cut = text if len(text) <= SHOWN_CHARS else text[: SHOWN_CHARS - 1] + "\N{HORIZONTAL ELLIPSIS}"
    return cut if cut.isprintable() and cut == cut.strip() and cut else repr(cut)


def _json(value: Any) -> str:
    return json.dumps(value)


# Files.


class Member:
    """A file that is read from its beginning to its end, with its SHA-256."""

    def __init__(self, name: str, file: Any) -> None:
        self.name, self._file = name, file
        self._hash = sha256()
        self._ended = False

    def read(self, count: int) -> bytes:
        """So many bytes, fewer at the end only."""
        try:
            data: bytes = self._file.read(count)
        except _UNREADABLE as error:
            raise Wrong(f"{self.name} can't be read: {_reason(error)}.") from None
        self._ended = self._ended or len(data) < count
        self._hash.update(data)
        return data

    def digest(self) -> str | None:
        """The SHA-256; None when not all of it was read."""
        return self._hash.hexdigest() if self._ended else None


class Files:
    """The members of a zip or of a folder."""

    def __init__(self, names: list[str], open_: Callable[[str], Any], is_zip: bool) -> None:
        self._names, self._open, self._is_zip = names, open_, is_zip
        self._read: dict[str, Member] = {}

    def check_names(self) -> list[str]:
        """What is there more than once, or too much; what is missing is found when it is read.

        A folder may hold other files, of which only something is said.
        """
        twice = sorted({name for name in self._names if self._names.count(name) > 1})
        if twice:
            raise Wrong(f"{_shown(twice[0])} is in the file more than once.")
        extra = sorted(set(self._names) - set(MEMBERS))
        if extra and self._is_zip:
            raise Wrong(f"{_shown(extra[0])} is in the file, and is no part of evidence.")
        return [f"{_shown(name)} is in the folder, and is no part of the evidence." for name in extra[:5]]

    def open(self, name: str) -> Member:
        """A file from its beginning."""
        if name not in self._names:
            raise Wrong(f"{name} is missing.")
        try:
            self._read[name] = Member(name, self._open(name))
        except _UNREADABLE as error:
            raise Wrong(f"{name} can't be read: {_reason(error)}.") from None
        return self._read[name]

    def small(self, name: str) -> bytes:
        """All of a file that is never large."""
        data = self.open(name).read(SMALL_BYTES_MAX + 1)
        if len(data) > SMALL_BYTES_MAX:
            raise Wrong(f"{name} is larger than it can be.")
        return data

    def digest(self, name: str) -> str | None:
        """The SHA-256 of a file; None when not all of it was read, of which something was said before."""
        if name == PROGRAM:
            self.small(name)
        return self._read[name].digest() if name in self._read else None


@contextmanager
def _opened(path: str) -> Iterator[Files]:
    if os.path.isdir(path):
        names = sorted(os.listdir(path))
        with _all_closed() as keep:
            yield Files(names, lambda name: keep(_plain(path, name)), False)
        return
    try:
        file = open(path, "rb")  # noqa: SIM115 - closed below
    except OSError as error:
        raise Misused(f"{path} can't be read: {error.strerror}.") from None
    with file, _zip(file) as archive, _all_closed() as keep:
        names = [info.filename for info in archive.infolist()]
        yield Files(names, lambda name: keep(_zipped(archive, name)), True)


def _plain(folder: str, name: str) -> BinaryIO:
    return open(os.path.join(folder, name), "rb")


@contextmanager
def _all_closed() -> Iterator[Callable[[Any], Any]]:
    """Closes, at its end, what it was given."""
    files: list[Any] = []

    def keep(file: Any) -> Any:
        files.append(file)
        return file

    try:
        yield keep
    finally:
        for file in files:
            file.close()


def _zip(file: BinaryIO) -> zipfile.ZipFile:
    try:
        archive = zipfile.ZipFile(file)
    except _UNREADABLE as error:
        raise Wrong(f"The file is no zip that can be read: {_reason(error)}.") from None
    entries = archive.infolist()
    if len(entries) > ZIP_ENTRIES_MAX:
        raise Wrong(f"The zip has {len(entries):,} entries, and is no evidence.")
    try:
        is_tight = _is_tight(file, archive)
    except _UNREADABLE as error:
        raise Wrong(f"The file is no zip that can be read: {_reason(error)}.") from None
    if not is_tight:
        raise Wrong("The zip has bytes before, between or after its files: another program may see others.")
    return archive


def _is_tight(file: BinaryIO, archive: zipfile.ZipFile) -> bool:
    """Whether there is nothing in a zip but its files, and no file but those that it lists."""
    at = 0
    for entry in sorted(archive.infolist(), key=lambda entry: entry.header_offset):
        if not 0 <= entry.header_offset - at <= (_DESCRIPTOR_BYTES_MAX if at else 0):
            return False
        file.seek(entry.header_offset)
        name_bytes, extra_bytes = unpack("<26xHH", file.read(_HEADER_BYTES))
        at = entry.header_offset + _HEADER_BYTES + name_bytes + extra_bytes + entry.compress_size
    if not 0 <= archive.start_dir - at <= _DESCRIPTOR_BYTES_MAX:
        return False
    file.seek(-_END_BYTES, os.SEEK_END)
    return file.read(_END_BYTES).startswith(b"PK\5\6") and not archive.comment


def _zipped(archive: zipfile.ZipFile, name: str) -> Any:
    info = archive.getinfo(name)
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) or info.flag_bits & 1:
        raise ValueError("it is encrypted, or compressed in a way that evidence is not")
    # Buffered, as a zip gives small pieces slowly.
    return io.BufferedReader(archive.open(info), READ_BYTES)  # type: ignore[arg-type, type-var, unused-ignore]


def _reason(error: BaseException) -> str:
    return _shown(str(error).rstrip(".") or type(error).__name__)


# The manifest.


@dataclass(frozen=True)
class Manifest:
    """What the server says of the file."""

    origin: str
    account: str
    filters: dict[str, list[str]]
    date_from: str | None
    date_to: str | None
    made: str
    by_key: str
    by_description: str
    count: int
    first: int | None
    last: int | None
    complete: bool
    size: int
    files: dict[str, str]


_FILTERS = (
    "configuration-name",
    "user",
    "min-date",
    "max-date",
    "action",
    "resource-kind",
    "resource-name",
    "q",
)
_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{6}Z")
_SHA256 = re.compile(r"[0-9a-f]{64}")


def read_manifest(data: bytes) -> Manifest:
    """The manifest of its JSON; raises Wrong."""
    try:
        text = data.decode()
        given = json.loads(text)
        again = json.dumps(given, indent=2, ensure_ascii=False) + "\n"
    except (ValueError, RecursionError):
        raise Wrong(f"{MANIFEST} is no JSON.") from None
    form = given.get("format") if isinstance(given, dict) else None
    if form != FORMAT:
        raise Wrong(f"{MANIFEST} is of the format {_shown(str(form))}; this program reads {FORMAT}.")
    try:
        manifest = _manifest(given)
    except (AttributeError, KeyError, TypeError, ValueError):
        raise Wrong(f"{MANIFEST} does not have the members that it should have.") from None
    if again != text:
        raise Wrong(f"{MANIFEST} is not written as a server writes it: it was changed.")
    return manifest


def _manifest(given: dict[str, Any]) -> Manifest:
    dates, by, events = given["dates"], given["by"], given["events"]
    filters, files = given["filters"], given["files"]
    _require(
        set(given)
        == {"format", "origin", "account", "filters", "dates", "made", "by", "events", "size", "files"}
    )
    _require(set(dates) == {"from", "to"} and set(by) == {"key", "description"})
    _require(set(events) == {"count", "first", "last", "complete"} and set(files) == set(FILES))
    texts = [given["origin"], given["account"], given["made"], by["key"], by["description"]]
    _require(all(type(text) is str for text in texts))
    _require(
        set(filters) <= set(_FILTERS) and all(type(values) is list and values for values in filters.values())
    )
    _require(all(type(value) is str for values in filters.values() for value in values))
    _require(all(date is None or _TIME.fullmatch(date) for date in dates.values()))
    _require((dates["from"] is None) == ("min-date" not in filters))
    _require((dates["to"] is None) == ("max-date" not in filters))
    _require(_TIME.fullmatch(given["made"]) is not None)
    _require(all(_SHA256.fullmatch(digest) for digest in files.values()))
    _require(all(type(number) is int and number >= 0 for number in (events["count"], given["size"])))
    places = (events["first"], events["last"])
    _require(
        all(type(place) is int or place is None for place in places) and type(events["complete"]) is bool
    )
    return Manifest(
        given["origin"],
        given["account"],
        filters,
        dates["from"],
        dates["to"],
        given["made"],
        by["key"],
        by["description"],
        events["count"],
        events["first"],
        events["last"],
        events["complete"],
        given["size"],
        files,
    )


def _require(holds: bool) -> None:
    if not holds:
        raise ValueError


# Events.

_LINE = re.compile(
    rb'\{"index":(0|[1-9][0-9]{0,18}),"event":(\{.*\}),"stamp":'
    rb'(\{"at":"([0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{6}Z)",'
    rb'"by":"[^"\\]*","salt":"[^"\\]*"\})\}'
)
_DETAILS = b',"details":'
CELLS = (
    "id",
    "timestamp",
    "resourceName",
    "description",
    "resourceKind",
    "configuration",
    "action",
    "user",
    "account",
    "details",
)
CSV_HEADER = ",".join(CELLS).encode() + b"\r\n"
_GUARDED = frozenset("=+-@\t\r\n'")
_decode = json.JSONDecoder().decode


class Walk:
    """Goes through the events, with the proof and the table beside them."""

    def __init__(self, files: Files, manifest: Manifest, size: int) -> None:
        self._files, self._size = files, size
        self._tree = Tree()
        self._matches = matcher(manifest)
        self.filtered = self._matches is not None
        self.wrong: list[str] = []
        self.count = 0
        self.first: int | None = None
        self.last: int | None = None
        self.at_first = self.at_last = ""
        self._csv_right = self._filter_right = self._order_right = self._proof_whole = True

    @property
    def complete(self) -> bool:
        """Whether every event from the first to the last is there."""
        return self.first is not None and self.last is not None and self.last - self.first + 1 == self.count

    def run(self) -> None:
        """Reads all of it; `wrong` has what is wrong, and Wrong is raised for what can't be read on from."""
        self._proof, self._csv = self._files.open(PROOF), self._files.open(CSV)
        if self._csv.read(len(CSV_HEADER)) != CSV_HEADER:
            self._csv_is_wrong(f"The first line of {CSV} is not the names of the columns.")
        for lines in _lines(self._files.open(EVENTS)):
            self._step(lines)
        self._skip_to(self._size)
        if self._proof_whole and self._proof.read(1):
            self.wrong.append(f"{PROOF} has more hashes than belong to these events.")
        if self._csv_right and self._csv.read(1):
            self.wrong.append(f"{CSV} has more lines than there are events.")

    def root(self) -> bytes:
        """The root that events and proof lead to."""
        return self._tree.root()

    def _step(self, lines: list[bytes]) -> None:
        table: list[tuple[int, str, bytes]] = []
        tree, match_line = self._tree, _LINE.fullmatch
        for line in lines:
            match = match_line(line)
            if match is None:
                raise Wrong(f"Line {self.count + 1} of {EVENTS} is not an event with its stamp.")
            number, doc, stamp, at = match.groups()
            index = int(number)
            if index != tree.at:
                self._skip_to(index)
            tree.add(0, sha256(b"\0" + sha256(doc + b"\n" + stamp).digest()).digest())
            try:
                row = cells(doc)
                table.append((index, row[0], csv_line(row)))
            except (ValueError, TypeError, AttributeError, RecursionError):
                raise Wrong(f"Event {index}: its text is not that of an event.") from None
            if self._matches is not None and self._filter_right and not self._matches(row):
                self._filter_right = False
                self.wrong.append(f"{_named(index, row[0])} does not pass the filters of {MANIFEST}.")
            self._note(index, row[0], at.decode())
        if tree.at > self._size:
            raise Wrong(f"Event {self.last} is beyond the end of the log of {self._size} entries.")
        if self._csv_right:
            self._compare(table)

    def _note(self, index: int, event_id: str, at: str) -> None:
        """Counts an event."""
        if self.first is None:
            self.first, self.at_first = index, at
        if at < self.at_last and self._order_right:
            self._order_right = False
            self.wrong.append(
                f"{_named(index, event_id)} has a stamp that is earlier than the one before it."
            )
        self.last, self.at_last = index, at
        self.count += 1

    def _skip_to(self, index: int) -> None:
        """Takes the hashes of the events that are not here from the proof."""
        tree = self._tree
        if index < tree.at:
            raise Wrong(f"Event {index} does not come after the one before it: they were moved or doubled.")
        if index > self._size:
            raise Wrong(f"Event {index} is beyond the end of the log of {self._size} entries.")
        for level in cover_levels(tree.at, index):
            hash_ = self._proof.read(HASH_BYTES) if self._proof_whole else b""
            if len(hash_) != HASH_BYTES:
                if self._proof_whole:
                    self._proof_whole = False
                    self.wrong.append(
                        f"{PROOF} ends too early, before event {index}: an event was taken out or moved, or "
                        "the proof was cut."
                    )
                hash_ = bytes(HASH_BYTES)
            tree.add(level, hash_)

    def _compare(self, table: list[tuple[int, str, bytes]]) -> None:
        """Compares the lines of some events with those of the table."""
        due = b"".join([line for _, _, line in table])
        found = self._csv.read(len(due))
        if found == due:
            return
        at = 0
        for index, event_id, line in table:
            if found[at : at + len(line)] != line:
                more = found[at : at + 2 * len(line) + SHOWN_CHARS]
                self._csv_is_wrong(f"{_named(index, event_id)}: {CSV} {_difference(more, line)}.")
                return
            at += len(line)

    def _csv_is_wrong(self, sentence: str) -> None:
        self._csv_right = False
        self.wrong.append(sentence)


def _named(index: int, event_id: str) -> str:
    return f"Event {index} (id {_shown(event_id)})"


def _lines(member: Member) -> Iterator[list[bytes]]:
    """The lines of a file, some at a time; raises Wrong when the last one has no end, or one is too long."""
    rest = b""
    while True:
        block = member.read(READ_BYTES)
        *whole, rest = (rest + block).split(b"\n")
        yield whole
        if len(rest) > LINE_BYTES_MAX or (rest and not block):
            raise Wrong(f"{member.name} has a line that does not end.")
        if not block:
            return


def _line(data: bytes, name: str) -> str:
    """The one line of a file."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise Wrong(f"{name} is no text.") from None
    if not text.endswith("\n") or text.count("\n") != 1:
        raise Wrong(f"{name} is not one line.")
    return text[:-1]


# The table.


def cells(doc: bytes) -> list[str]:
    """What an event has in each column; raises ValueError, TypeError or AttributeError when it is none."""
    # Details stand last, and a quotation mark in a text is escaped: what is found is the member.
    at = doc.find(_DETAILS)
    if at < 0:
        details, beginning = "", doc.decode()
    else:
        details, beginning = doc[at + len(_DETAILS) : -1].decode(), doc[:at].decode() + "}"
    get = _decode(beginning).get
    return [
        get("id", ""),
        get("timestamp", ""),
        get("resourceName", ""),
        get("description", ""),
        get("resourceKind", ""),
        get("configuration", ""),
        get("action", ""),
        get("user", ""),
        get("account", ""),
        details,
    ]


def csv_line(row: list[str]) -> bytes:
    """The line of the table: RFC 4180, with a guard before what a spreadsheet would run."""
    line = ",".join(row)
    # Only a text that begins so can need the guard; most lines have no such character anywhere.
    if not _GUARDED.isdisjoint([cell[:1] for cell in row[2:8]]):
        row = [*row[:2], *(_guard(cell) for cell in row[2:8]), *row[8:]]
        line = ",".join(row)
    if '"' in line or line.count(",") > len(CELLS) - 1 or "\n" in line or "\r" in line:
        line = ",".join([_quoted(cell) for cell in row])
    return f"{line}\r\n".encode()


def _guard(cell: str) -> str:
    return "'" + cell if cell[:1] in _GUARDED else cell


def _quoted(cell: str) -> str:
    if '"' in cell:
        return '"' + cell.replace('"', '""') + '"'
    return f'"{cell}"' if "," in cell or "\n" in cell or "\r" in cell else cell


def _difference(found: bytes, due: bytes) -> str:
    """What a table says in place of a line; `found` begins where that should stand."""
    try:
        theirs = next(csv.reader(io.StringIO(found.decode("utf-8", "replace"), newline="")))
        ours = next(csv.reader(io.StringIO(due.decode(), newline="")))
    except (csv.Error, StopIteration):
        return "has another line"
    for name, is_, says in zip(CELLS, theirs, ours):
        if is_ != says:
            return f"has {_shown(is_)} as {name}, where {EVENTS} has {_shown(says)}"
    return "has another line"


# Filters.


def matcher(manifest: Manifest) -> Callable[[list[str]], bool] | None:
    """Says whether a row passes the filters; None when there are none."""
    wanted, start, end = manifest.filters, manifest.date_from, manifest.date_to
    if not wanted:
        return None
    users = {fold(user) for user in wanted.get("user", ())}
    exact = [
        (at, set(wanted[name]))
        for at, name in ((6, "action"), (4, "resource-kind"), (2, "resource-name"))
        if name in wanted
    ]
    configurations = set(wanted.get("configuration-name", ()))
    words = [set(words_of(text)) for text in wanted.get("q", ())]

    def matches(row: list[str]) -> bool:
        return (
            (start is None or row[1] >= start)
            and (end is None or row[1] <= end)
            and (not users or fold(row[7]) in users)
            and all(row[at] in values for at, values in exact)
            and (not configurations or _is_configuration(row[5], configurations))
            and (not words or _has_words(row, words))
        )

    return matches


def _is_configuration(configuration: str, wanted: set[str]) -> bool:
    name, colon, _ = configuration.rpartition(":")
    return bool(configuration) and (configuration in wanted or (name if colon else configuration) in wanted)


def _has_words(row: list[str], words: list[set[str]]) -> bool:
    found = set(words_of("\n".join((row[3], row[2], row[7], row[5]))))
    return any(each <= found for each in words)


def fold(text: str) -> str:
    """The form in which texts are compared without regard to case."""
    if text.isascii():
        return text.lower()
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold())


def words_of(text: str) -> list[str]:
    """The folded words of a text: its longest runs of letters and digits."""
    return re.findall(r"[^\W_]+", fold(text))


# The tree (RFC 6962, section 2.1).


class Tree:
    """The root over subtrees that follow each other; `at` is how many leaves they have.

    The subtrees that wait for their right neighbours are those of the bits of `at`.
    """

    def __init__(self) -> None:
        self.at = 0
        self._waiting: list[bytes] = []

    def add(self, level: int, hash_: bytes) -> None:
        """Adds a subtree of 2**level leaves, at a multiple of that."""
        waiting, place = self._waiting, self.at >> level
        while place & 1:
            hash_ = sha256(b"\1" + waiting.pop() + hash_).digest()
            place >>= 1
        waiting.append(hash_)
        self.at += 1 << level

    def root(self) -> bytes:
        """The root over all of them."""
        if not self._waiting:
            return EMPTY_ROOT
        *larger, latest = self._waiting
        for hash_ in reversed(larger):
            latest = sha256(b"\1" + hash_ + latest).digest()
        return latest


def cover_levels(first: int, end: int) -> Iterator[int]:
    """The levels of the fewest subtrees that have exactly the leaves from `first` to `end`."""
    while first < end:
        level = (end - first).bit_length() - 1
        if first:
            level = min(level, (first & -first).bit_length() - 1)
        yield level
        first += 1 << level


# Keys, notes and checkpoints (C2SP signed-note and tlog-checkpoint).


class VerifierKey(NamedTuple):
    """A name, and an Ed25519 key."""

    name: str
    public: bytes

    @property
    def id(self) -> bytes:
        return sha256(self.name.encode() + b"\n\1" + self.public).digest()[:4]

    @property
    def text(self) -> str:
        return f"{self.name}+{self.id.hex()}+{b64encode(bytes([1]) + self.public).decode()}"


class Checkpoint(NamedTuple):
    """What was signed."""

    origin: str
    size: int
    root: bytes


_DASH = "\N{EM DASH} "
_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f]")
_DECIMAL = re.compile(r"0|[1-9][0-9]{0,18}")


def _given_key(given: str) -> VerifierKey:
    """The key that was given, or is in a file of that name."""
    text = given
    if os.path.isfile(given):
        try:
            with open(given, "rb") as file:
                text = file.read(SMALL_BYTES_MAX).decode()
        except (OSError, UnicodeDecodeError):
            raise Misused(f"The key {given} can't be read.") from None
    try:
        return parse_key(text.strip())
    except Wrong as error:
        raise Misused(
            f"--key: {_shown(given)} is neither a verifier key nor a file that one is in. {error}"
        ) from None


def parse_key(text: str) -> VerifierKey:
    """The key of its text; raises Wrong."""
    parts = text.split("+", 2)
    data = _unbase64(parts[2]) if len(parts) == 3 else None
    if data is None or len(data) != 33 or data[0] != 1 or not _is_name(parts[0]):
        raise Wrong("A verifier key is a name, an id and the base64 of an Ed25519 key, with + between them.")
    key = VerifierKey(parts[0], data[1:])
    if key.text != text:
        raise Wrong(f"The id in the verifier key of {_shown(key.name)} is not that of its name and key.")
    return key


def open_checkpoint(note: bytes, key: VerifierKey) -> Checkpoint:
    """The checkpoint that a key has signed, of the log that is called like the key; raises Wrong."""
    lines = open_note(note, key).removesuffix("\n").split("\n")
    if len(lines) < 3 or not all(lines):
        raise Wrong("A checkpoint is at least three lines, none of them empty.")
    root = _unbase64(lines[2])
    if not _DECIMAL.fullmatch(lines[1]) or int(lines[1]) >> 63 or root is None or len(root) != HASH_BYTES:
        raise Wrong("The checkpoint does not have the size and the root of a log.")
    if lines[0] != key.name:
        raise Wrong(f"The checkpoint is of the log {_shown(lines[0])}, not of {key.name}.")
    if lines[1] == "0" and root != EMPTY_ROOT:
        raise Wrong("The checkpoint of an empty log has a root that is not the empty one.")
    return Checkpoint(lines[0], int(lines[1]), root)


def open_note(note: bytes, key: VerifierKey) -> str:
    """The text of a note that a key has signed; raises Wrong."""
    try:
        content = note.decode()
    except UnicodeDecodeError:
        raise Wrong("The checkpoint is no text.") from None
    text, blank, below = content.rpartition("\n\n")
    if not blank or not below.endswith("\n") or _CONTROL.search(content):
        raise Wrong("The checkpoint is not a text, an empty line and signatures.")
    lines = below[:-1].split("\n")
    if len(lines) > NOTE_SIGNATURES_MAX:
        raise Wrong(f"The checkpoint has more than {NOTE_SIGNATURES_MAX} signatures.")
    text += "\n"
    ours = [data[4:] for name, data in map(_signature, lines) if name == key.name and data[:4] == key.id]
    if not ours:
        raise Wrong(f"The checkpoint was not signed by the key {key.text}.")
    if not all(is_signed(key.public, text.encode(), signature) for signature in ours):
        raise Wrong(f"The signature of the checkpoint by {key.name} is not of this text.")
    return text


def _signature(line: str) -> tuple[str, bytes]:
    name, _, encoded = line[len(_DASH) :].partition(" ")
    data = _unbase64(encoded)
    if not line.startswith(_DASH) or data is None or len(data) <= 4 or not _is_name(name):
        raise Wrong("A line below the checkpoint is no signature.")
    return name, data


def _is_name(name: str) -> bool:
    return (
        bool(name)
        and "+" not in name
        and not any(char.isspace() for char in name)
        and not _CONTROL.search(name)
        and _is_utf8(name)
    )


def _is_utf8(text: str) -> bool:
    """Whether a text can be written; an argument may have been other bytes."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _unbase64(text: str) -> bytes | None:
    """The bytes; None when these are not written so."""
    try:
        data = b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
    return data if b64encode(data).decode() == text else None


# Ed25519 (RFC 8032, section 5.1), to verify only.

_P = 2**255 - 19
_ORDER = 2**252 + 27742317777372353535851937790883648493
_D = -121665 * pow(121666, _P - 2, _P) % _P
_ROOT_OF_MINUS_ONE = pow(2, (_P - 1) // 4, _P)
_Point = tuple[int, int, int, int]  # X, Y, Z, T: x = X/Z, y = Y/Z, xy = T/Z.
_NEUTRAL = (0, 1, 1, 0)


def is_signed(public: bytes, message: bytes, signature: bytes) -> bool:
    """Whether the key has signed the message. Numbers that are out of range, and keys of which anything is a
    signature, are refused."""
    if len(public) != 32 or len(signature) != 64:
        return False
    key = _point(public)
    scalar = int.from_bytes(signature[32:], "little")
    if key is None or scalar >= _ORDER or _is_neutral(_times(8, key)):
        return False
    challenge = int.from_bytes(sha512(signature[:32] + public + message).digest(), "little") % _ORDER
    x, y, z, t = key
    found = _packed(_plus(_times(scalar, _BASE), _times(challenge, (-x, y, z, -t))))
    return found == signature[:32]


def _plus(p: _Point, q: _Point) -> _Point:
    a = (p[1] - p[0]) * (q[1] - q[0]) % _P
    b = (p[1] + p[0]) * (q[1] + q[0]) % _P
    c = 2 * p[3] * q[3] * _D % _P
    d = 2 * p[2] * q[2] % _P
    e, f, g, h = b - a, d - c, d + c, b + a
    return (e * f % _P, g * h % _P, f * g % _P, e * h % _P)


def _times(factor: int, point: _Point) -> _Point:
    found: _Point = _NEUTRAL
    while factor:
        if factor & 1:
            found = _plus(found, point)
        point = _plus(point, point)
        factor >>= 1
    return found


def _is_neutral(point: _Point) -> bool:
    return point[0] % _P == 0 and (point[1] - point[2]) % _P == 0


def _point(data: bytes) -> _Point | None:
    """The point of 32 bytes; None when there is none, or these are not how it is written."""
    number = int.from_bytes(data, "little")
    y, sign = number & ((1 << 255) - 1), number >> 255
    if y >= _P:
        return None
    square = (y * y - 1) * pow(_D * y * y + 1, _P - 2, _P) % _P
    x = pow(square, (_P + 3) // 8, _P)
    if (x * x - square) % _P:
        x = x * _ROOT_OF_MINUS_ONE % _P
    if (x * x - square) % _P or (not x and sign):
        return None
    if x & 1 != sign:
        x = _P - x
    return (x, y, 1, x * y % _P)


def _packed(point: _Point) -> bytes:
    inverse = pow(point[2], _P - 2, _P)
    x, y = point[0] * inverse % _P, point[1] * inverse % _P
    number: int = y | (x & 1) << 255
    return number.to_bytes(32, "little")


_BASE = (
    15112221349535400772501151409588531511454012693041857206046113283949847762202,
    4 * pow(5, _P - 2, _P) % _P,
    1,
    46827403850823179245072216630277197565144205554125654976674165829533817101731,
)


# The program.


def main(arguments: list[str]) -> int:
    """Checks what the arguments name; prints the report, and returns the exit status."""
    parser = argparse.ArgumentParser(description="Checks a file of evidence that Auditplane made.")
    parser.add_argument(
        "file", nargs="?", help="the zip, or the folder it was unpacked into; default: this one"
    )
    parser.add_argument("--key", help="the verifier key of the log, or a file it is in; kept from before")
    given = parser.parse_args(arguments)
    beside = os.path.dirname(os.path.abspath(__file__))
    if given.file is None and not os.path.exists(os.path.join(beside, MANIFEST)):
        parser.error("say which file to check: there is no evidence beside this program")
    try:
        report = check(given.file or beside, given.key)
    except Misused as error:
        print(f"verify.py: {error}", file=sys.stderr)
        return 2
    print("\n".join(report.lines()))
    return 1 if report.wrong else 0


if __name__ == "__main__":
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr, unused-ignore]
    sys.exit(main(sys.argv[1:]))
