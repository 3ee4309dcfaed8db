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
from bisect import bisect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
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
        if walk.filtered and not walk.unsure:
            proved.append("Each of them passes the filters.")
    if walk.complete:
        whole = walk.count == signed.size
        proved.append(
            f"Complete: all that was committed {_span(walk)} is here; nothing in between was left out."
            + (" That is the whole log." if whole else "")
        )
    if walk.unsure:
        not_proved.append(
            f"That each of them passes the filters: {walk.unsure}, or a filter, has characters that this "
            "Python does not know. Python 3.11 or newer can tell."
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
        self.unsure = ""  # The first event of which this Python can't tell whether it passes the filters.
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
            if self._matches is not None and self._filter_right:
                self._filter(self._matches(row), _named(index, row[0]))
            self._note(index, row[0], at.decode())
        if tree.at > self._size:
            raise Wrong(f"Event {self.last} is beyond the end of the log of {self._size} entries.")
        if self._csv_right:
            self._compare(table)

    def _filter(self, passes: bool | None, event: str) -> None:
        if passes is None:
            self.unsure = self.unsure or event
        elif not passes:
            self._filter_right = False
            self.wrong.append(f"{event} does not pass the filters of {MANIFEST}.")

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


def matcher(manifest: Manifest) -> Callable[[list[str]], bool | None] | None:
    """Says whether a row passes the filters, None when this Python can't tell; None when there are none."""
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
    is_old = int(unicodedata.unidata_version.partition(".")[0]) < 14
    folded = [*wanted.get("user", ()), *wanted.get("q", ())]

    def is_known(row: list[str]) -> bool:
        return all(map(_is_known, (*folded, row[7], *(_searched(row) if words else ()))))

    def matches(row: list[str]) -> bool | None:
        if not (
            (start is None or row[1] >= start)
            and (end is None or row[1] <= end)
            and all(row[at] in values for at, values in exact)
            and (not configurations or _is_configuration(row[5], configurations))
        ):
            return False
        if is_old and folded and not is_known(row):
            return None
        return (not users or fold(row[7]) in users) and (not words or _has_words(row, words))

    return matches


def _is_configuration(configuration: str, wanted: set[str]) -> bool:
    name, colon, _ = configuration.rpartition(":")
    return bool(configuration) and (configuration in wanted or (name if colon else configuration) in wanted)


def _has_words(row: list[str], words: list[set[str]]) -> bool:
    found = set(words_of("\n".join(_searched(row))))
    return any(each <= found for each in words)


def _searched(row: list[str]) -> tuple[str, str, str, str]:
    return row[3], row[2], row[7], row[5]


def fold(text: str) -> str:
    """The form in which texts are compared without regard to case, the same from Python 3.11 on."""
    if text.isascii():
        return text.lower()
    known = marked(text)
    folded = _folded(known)
    if known == text:
        return folded
    newer = [char for char, mark in zip(text, known) if mark == MARK]
    beginning, *parts = folded.split(MARK)
    return beginning + "".join(map(str.__add__, newer, parts))


def words_of(text: str) -> list[str]:
    """The folded words of a text: its longest runs of letters and digits of Unicode 14.0."""
    return re.findall(r"[^\W_]+", _folded(marked(text)))


def _folded(text: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold())


def _is_known(text: str) -> bool:
    """Whether this Python knows the characters of a text that Unicode 14.0 has."""
    return all(char == MARK or unicodedata.category(char) != "Cn" for char in marked(text))


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


# The characters of Unicode 14.0, as `unicodedata` of Python 3.11 has them. What is newer is no letter, as on
# the server: what it is depends on the Python.

MARK = "\uffff"  # No character, and never one: not a letter, folded to itself, composed with nothing.


def marked(text: str) -> str:
    """A text with a mark in place of each character that Unicode 14.0 does not have."""
    suspect, edges = _tables()
    return suspect.sub(lambda found: found[0] if bisect(edges, ord(found[0])) & 1 else MARK, text)


@cache
def _tables() -> tuple[re.Pattern[str], list[int]]:
    """What finds all characters that are newer, or not of the first plane, and where ranges begin and end.

    An expression of all planes would look at hundreds of ranges for a character of the later ones.
    """
    ranges = [[int(code, 16) for code in each.split("-")] for each in ASSIGNED.split()]
    edges = [edge for each in ranges for edge in (each[0], each[-1] + 1)]
    first = "".join([f"\\u{each[0]:04x}-\\u{each[-1]:04x}" for each in ranges if each[0] <= 0xFFFF])
    return re.compile(f"[^{first}]"), edges


ASSIGNED = """
0-377 37A-37F 384-38A 38C 38E-3A1 3A3-52F 531-556 559-58A 58D-58F 591-5C7 5D0-5EA 5EF-5F4 600-70D 70F-74A
74D-7B1 7C0-7FA 7FD-82D 830-83E 840-85B 85E 860-86A 870-88E 890-891 898-983 985-98C 98F-990 993-9A8 9AA-9B0
9B2 9B6-9B9 9BC-9C4 9C7-9C8 9CB-9CE 9D7 9DC-9DD 9DF-9E3 9E6-9FE A01-A03 A05-A0A A0F-A10 A13-A28 A2A-A30
A32-A33 A35-A36 A38-A39 A3C A3E-A42 A47-A48 A4B-A4D A51 A59-A5C A5E A66-A76 A81-A83 A85-A8D A8F-A91 A93-AA8
AAA-AB0 AB2-AB3 AB5-AB9 ABC-AC5 AC7-AC9 ACB-ACD AD0 AE0-AE3 AE6-AF1 AF9-AFF B01-B03 B05-B0C B0F-B10 B13-B28
B2A-B30 B32-B33 B35-B39 B3C-B44 B47-B48 B4B-B4D B55-B57 B5C-B5D B5F-B63 B66-B77 B82-B83 B85-B8A B8E-B90
B92-B95 B99-B9A B9C B9E-B9F BA3-BA4 BA8-BAA BAE-BB9 BBE-BC2 BC6-BC8 BCA-BCD BD0 BD7 BE6-BFA C00-C0C C0E-C10
C12-C28 C2A-C39 C3C-C44 C46-C48 C4A-C4D C55-C56 C58-C5A C5D C60-C63 C66-C6F C77-C8C C8E-C90 C92-CA8 CAA-CB3
CB5-CB9 CBC-CC4 CC6-CC8 CCA-CCD CD5-CD6 CDD-CDE CE0-CE3 CE6-CEF CF1-CF2 D00-D0C D0E-D10 D12-D44 D46-D48
D4A-D4F D54-D63 D66-D7F D81-D83 D85-D96 D9A-DB1 DB3-DBB DBD DC0-DC6 DCA DCF-DD4 DD6 DD8-DDF DE6-DEF DF2-DF4
E01-E3A E3F-E5B E81-E82 E84 E86-E8A E8C-EA3 EA5 EA7-EBD EC0-EC4 EC6 EC8-ECD ED0-ED9 EDC-EDF F00-F47 F49-F6C
F71-F97 F99-FBC FBE-FCC FCE-FDA 1000-10C5 10C7 10CD 10D0-1248 124A-124D 1250-1256 1258 125A-125D 1260-1288
128A-128D 1290-12B0 12B2-12B5 12B8-12BE 12C0 12C2-12C5 12C8-12D6 12D8-1310 1312-1315 1318-135A 135D-137C
1380-1399 13A0-13F5 13F8-13FD 1400-169C 16A0-16F8 1700-1715 171F-1736 1740-1753 1760-176C 176E-1770 1772-1773
1780-17DD 17E0-17E9 17F0-17F9 1800-1819 1820-1878 1880-18AA 18B0-18F5 1900-191E 1920-192B 1930-193B 1940
1944-196D 1970-1974 1980-19AB 19B0-19C9 19D0-19DA 19DE-1A1B 1A1E-1A5E 1A60-1A7C 1A7F-1A89 1A90-1A99 1AA0-1AAD
1AB0-1ACE 1B00-1B4C 1B50-1B7E 1B80-1BF3 1BFC-1C37 1C3B-1C49 1C4D-1C88 1C90-1CBA 1CBD-1CC7 1CD0-1CFA 1D00-1F15
1F18-1F1D 1F20-1F45 1F48-1F4D 1F50-1F57 1F59 1F5B 1F5D 1F5F-1F7D 1F80-1FB4 1FB6-1FC4 1FC6-1FD3 1FD6-1FDB
1FDD-1FEF 1FF2-1FF4 1FF6-1FFE 2000-2064 2066-2071 2074-208E 2090-209C 20A0-20C0 20D0-20F0 2100-218B 2190-2426
2440-244A 2460-2B73 2B76-2B95 2B97-2CF3 2CF9-2D25 2D27 2D2D 2D30-2D67 2D6F-2D70 2D7F-2D96 2DA0-2DA6 2DA8-2DAE
2DB0-2DB6 2DB8-2DBE 2DC0-2DC6 2DC8-2DCE 2DD0-2DD6 2DD8-2DDE 2DE0-2E5D 2E80-2E99 2E9B-2EF3 2F00-2FD5 2FF0-2FFB
3000-303F 3041-3096 3099-30FF 3105-312F 3131-318E 3190-31E3 31F0-321E 3220-A48C A490-A4C6 A4D0-A62B A640-A6F7
A700-A7CA A7D0-A7D1 A7D3 A7D5-A7D9 A7F2-A82C A830-A839 A840-A877 A880-A8C5 A8CE-A8D9 A8E0-A953 A95F-A97C
A980-A9CD A9CF-A9D9 A9DE-A9FE AA00-AA36 AA40-AA4D AA50-AA59 AA5C-AAC2 AADB-AAF6 AB01-AB06 AB09-AB0E AB11-AB16
AB20-AB26 AB28-AB2E AB30-AB6B AB70-ABED ABF0-ABF9 AC00-D7A3 D7B0-D7C6 D7CB-D7FB D800-FA6D FA70-FAD9 FB00-FB06
FB13-FB17 FB1D-FB36 FB38-FB3C FB3E FB40-FB41 FB43-FB44 FB46-FBC2 FBD3-FD8F FD92-FDC7 FDCF FDF0-FE19 FE20-FE52
FE54-FE66 FE68-FE6B FE70-FE74 FE76-FEFC FEFF FF01-FFBE FFC2-FFC7 FFCA-FFCF FFD2-FFD7 FFDA-FFDC FFE0-FFE6
FFE8-FFEE FFF9-FFFD 10000-1000B 1000D-10026 10028-1003A 1003C-1003D 1003F-1004D 10050-1005D 10080-100FA
10100-10102 10107-10133 10137-1018E 10190-1019C 101A0 101D0-101FD 10280-1029C 102A0-102D0 102E0-102FB
10300-10323 1032D-1034A 10350-1037A 10380-1039D 1039F-103C3 103C8-103D5 10400-1049D 104A0-104A9 104B0-104D3
104D8-104FB 10500-10527 10530-10563 1056F-1057A 1057C-1058A 1058C-10592 10594-10595 10597-105A1 105A3-105B1
105B3-105B9 105BB-105BC 10600-10736 10740-10755 10760-10767 10780-10785 10787-107B0 107B2-107BA 10800-10805
10808 1080A-10835 10837-10838 1083C 1083F-10855 10857-1089E 108A7-108AF 108E0-108F2 108F4-108F5 108FB-1091B
1091F-10939 1093F 10980-109B7 109BC-109CF 109D2-10A03 10A05-10A06 10A0C-10A13 10A15-10A17 10A19-10A35
10A38-10A3A 10A3F-10A48 10A50-10A58 10A60-10A9F 10AC0-10AE6 10AEB-10AF6 10B00-10B35 10B39-10B55 10B58-10B72
10B78-10B91 10B99-10B9C 10BA9-10BAF 10C00-10C48 10C80-10CB2 10CC0-10CF2 10CFA-10D27 10D30-10D39 10E60-10E7E
10E80-10EA9 10EAB-10EAD 10EB0-10EB1 10F00-10F27 10F30-10F59 10F70-10F89 10FB0-10FCB 10FE0-10FF6 11000-1104D
11052-11075 1107F-110C2 110CD 110D0-110E8 110F0-110F9 11100-11134 11136-11147 11150-11176 11180-111DF
111E1-111F4 11200-11211 11213-1123E 11280-11286 11288 1128A-1128D 1128F-1129D 1129F-112A9 112B0-112EA
112F0-112F9 11300-11303 11305-1130C 1130F-11310 11313-11328 1132A-11330 11332-11333 11335-11339 1133B-11344
11347-11348 1134B-1134D 11350 11357 1135D-11363 11366-1136C 11370-11374 11400-1145B 1145D-11461 11480-114C7
114D0-114D9 11580-115B5 115B8-115DD 11600-11644 11650-11659 11660-1166C 11680-116B9 116C0-116C9 11700-1171A
1171D-1172B 11730-11746 11800-1183B 118A0-118F2 118FF-11906 11909 1190C-11913 11915-11916 11918-11935
11937-11938 1193B-11946 11950-11959 119A0-119A7 119AA-119D7 119DA-119E4 11A00-11A47 11A50-11AA2 11AB0-11AF8
11C00-11C08 11C0A-11C36 11C38-11C45 11C50-11C6C 11C70-11C8F 11C92-11CA7 11CA9-11CB6 11D00-11D06 11D08-11D09
11D0B-11D36 11D3A 11D3C-11D3D 11D3F-11D47 11D50-11D59 11D60-11D65 11D67-11D68 11D6A-11D8E 11D90-11D91
11D93-11D98 11DA0-11DA9 11EE0-11EF8 11FB0 11FC0-11FF1 11FFF-12399 12400-1246E 12470-12474 12480-12543
12F90-12FF2 13000-1342E 13430-13438 14400-14646 16800-16A38 16A40-16A5E 16A60-16A69 16A6E-16ABE 16AC0-16AC9
16AD0-16AED 16AF0-16AF5 16B00-16B45 16B50-16B59 16B5B-16B61 16B63-16B77 16B7D-16B8F 16E40-16E9A 16F00-16F4A
16F4F-16F87 16F8F-16F9F 16FE0-16FE4 16FF0-16FF1 17000-187F7 18800-18CD5 18D00-18D08 1AFF0-1AFF3 1AFF5-1AFFB
1AFFD-1AFFE 1B000-1B122 1B150-1B152 1B164-1B167 1B170-1B2FB 1BC00-1BC6A 1BC70-1BC7C 1BC80-1BC88 1BC90-1BC99
1BC9C-1BCA3 1CF00-1CF2D 1CF30-1CF46 1CF50-1CFC3 1D000-1D0F5 1D100-1D126 1D129-1D1EA 1D200-1D245 1D2E0-1D2F3
1D300-1D356 1D360-1D378 1D400-1D454 1D456-1D49C 1D49E-1D49F 1D4A2 1D4A5-1D4A6 1D4A9-1D4AC 1D4AE-1D4B9 1D4BB
1D4BD-1D4C3 1D4C5-1D505 1D507-1D50A 1D50D-1D514 1D516-1D51C 1D51E-1D539 1D53B-1D53E 1D540-1D544 1D546
1D54A-1D550 1D552-1D6A5 1D6A8-1D7CB 1D7CE-1DA8B 1DA9B-1DA9F 1DAA1-1DAAF 1DF00-1DF1E 1E000-1E006 1E008-1E018
1E01B-1E021 1E023-1E024 1E026-1E02A 1E100-1E12C 1E130-1E13D 1E140-1E149 1E14E-1E14F 1E290-1E2AE 1E2C0-1E2F9
1E2FF 1E7E0-1E7E6 1E7E8-1E7EB 1E7ED-1E7EE 1E7F0-1E7FE 1E800-1E8C4 1E8C7-1E8D6 1E900-1E94B 1E950-1E959
1E95E-1E95F 1EC71-1ECB4 1ED01-1ED3D 1EE00-1EE03 1EE05-1EE1F 1EE21-1EE22 1EE24 1EE27 1EE29-1EE32 1EE34-1EE37
1EE39 1EE3B 1EE42 1EE47 1EE49 1EE4B 1EE4D-1EE4F 1EE51-1EE52 1EE54 1EE57 1EE59 1EE5B 1EE5D 1EE5F 1EE61-1EE62
1EE64 1EE67-1EE6A 1EE6C-1EE72 1EE74-1EE77 1EE79-1EE7C 1EE7E 1EE80-1EE89 1EE8B-1EE9B 1EEA1-1EEA3 1EEA5-1EEA9
1EEAB-1EEBB 1EEF0-1EEF1 1F000-1F02B 1F030-1F093 1F0A0-1F0AE 1F0B1-1F0BF 1F0C1-1F0CF 1F0D1-1F0F5 1F100-1F1AD
1F1E6-1F202 1F210-1F23B 1F240-1F248 1F250-1F251 1F260-1F265 1F300-1F6D7 1F6DD-1F6EC 1F6F0-1F6FC 1F700-1F773
1F780-1F7D8 1F7E0-1F7EB 1F7F0 1F800-1F80B 1F810-1F847 1F850-1F859 1F860-1F887 1F890-1F8AD 1F8B0-1F8B1
1F900-1FA53 1FA60-1FA6D 1FA70-1FA74 1FA78-1FA7C 1FA80-1FA86 1FA90-1FAAC 1FAB0-1FABA 1FAC0-1FAC5 1FAD0-1FAD9
1FAE0-1FAE7 1FAF0-1FAF6 1FB00-1FB92 1FB94-1FBCA 1FBF0-1FBF9 20000-2A6DF 2A700-2B738 2B740-2B81D 2B820-2CEA1
2CEB0-2EBE0 2F800-2FA1D 30000-3134A E0001 E0020-E007F E0100-E01EF F0000-FFFFD 100000-10FFFD
"""


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
