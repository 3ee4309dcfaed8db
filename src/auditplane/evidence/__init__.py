"""Evidence: events in a zip with all that an outsider needs to check them, made while it is sent.

`docs/proving.md` tells what is in it. `verify` checks one: it is a program of its own, which imports nothing
of Auditplane, and goes into each zip as it is.
"""

import json
import zipfile
from array import array
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from hashlib import sha256
from importlib.resources import files
from itertools import islice
from tempfile import SpooledTemporaryFile
from typing import IO, Any, Final, cast

from auditplane import log, merkle, render
from auditplane.checkpoint import SignerKey
from auditplane.errors import Unavailable
from auditplane.evidence import verify
from auditplane.merkle import Node
from auditplane.query import Query
from auditplane.render import Form
from auditplane.store import Signed
from auditplane.store.sqlite.account import AccountStore
from auditplane.store.sqlite.recorded import Recorded
from auditplane.store.sqlite.tree import Tree
from auditplane.times import format_us

Steps = Iterator[list[bytes]]

DEFLATE_LEVEL: Final = 1
NODES_AT_ONCE: Final = 4096
RANGES_BYTES_KEPT: Final = 4 * 1024 * 1024
_RANGE_BYTES: Final = 16
_PERMISSIONS: Final = 0o644 << 16


@dataclass(frozen=True, slots=True)
class Asked:
    """Which events of which account are asked for, and by which key; `filters` is as it was given."""

    account: str
    key_id: str
    key_description: str
    query: Query
    filters: Sequence[tuple[str, str]]


class Evidence:
    """The zip, made step by step while it is iterated; a step is a list of parts.

    It shows the first `size` entries of the log, which is all at its start. Raises Unavailable when events go
    away meanwhile, as its parts would contradict each other.
    """

    def __init__(self, store: AccountStore, asked: Asked, signer: SignerKey, clock: log.Clock) -> None:
        self._store, self._asked, self._key = store, asked, str(signer.verifier)
        self._made = format_us(clock())
        self._signed: Signed = log.checkpoint(store, signer, clock, size_min=store.size())
        self.size = self._signed.size
        self._digests: dict[str, str] = {}

    def __iter__(self) -> Steps:
        pipe = _Pipe()
        with _Ranges() as ranges, zipfile.ZipFile(cast(IO[bytes], pipe), "w") as archive:
            for made in (
                self._events(archive, ranges),
                self._table(archive, ranges),
                self._proof(archive, ranges),
                self._rest(archive, ranges),
            ):
                with closing(made):  # before the zip, in which it has a file open
                    for _ in made:
                        yield pipe.take()
        yield pipe.take()

    def _events(self, archive: zipfile.ZipFile, ranges: "_Ranges") -> Generator[None, None, None]:
        """Each event with all that its commitment is made of."""
        with self._member(archive, verify.EVENTS) as member:
            for found in Recorded(self._store, self._asked.query, 0, self.size):
                if found:
                    member.write(render.entry_lines((each.index, each.doc, each.stamp) for each in found))
                    ranges.add([each.index for each in found])
                yield
        ranges.finish()

    def _table(self, archive: zipfile.ZipFile, ranges: "_Ranges") -> Generator[None, None, None]:
        """The same events as CSV."""
        indexes = sha256()
        start, end = (0, 0) if ranges.first is None else (ranges.first, ranges.end)
        with self._member(archive, verify.CSV) as member:
            member.write(render.head(Form.CSV))
            for found in Recorded(self._store, self._asked.query, start, end):
                if found:
                    member.write(render.body([each.doc for each in found], Form.CSV))
                    indexes.update(_packed([each.index for each in found]))
                yield
        if indexes.digest() != ranges.digest:
            raise Unavailable("Events expired or were erased while the evidence was made; ask again.")

    def _proof(self, archive: zipfile.ZipFile, ranges: "_Ranges") -> Generator[None, None, None]:
        """The hashes of all that is not among the events."""
        nodes = merkle.gap_nodes(ranges.all(), self.size)
        with self._member(archive, verify.PROOF) as member:
            while some := list(islice(nodes, NODES_AT_ONCE)):
                member.write(self._hashes(some))
                yield

    def _hashes(self, nodes: Iterable[Node]) -> bytes:
        with self._store.snapshot() as connection:
            hash_of = Tree(self._store, connection).nodes(self.size)
            return b"".join([hash_of(level, index) for level, index in nodes])

    def _rest(self, archive: zipfile.ZipFile, ranges: "_Ranges") -> Generator[None, None, None]:
        """What the log has signed and with which key, the program that checks, and what the file says."""
        for name, data in (
            (verify.CHECKPOINT, self._signed.note),
            (verify.KEY, f"{self._key}\n".encode()),
            (verify.PROGRAM, files("auditplane.evidence").joinpath(verify.PROGRAM).read_bytes()),
        ):
            with self._member(archive, name) as member:
                member.write(data)
        text = json.dumps(self._manifest(ranges), indent=2, ensure_ascii=False) + "\n"
        with self._member(archive, verify.MANIFEST) as member:
            member.write(text.encode())
        yield

    def _manifest(self, ranges: "_Ranges") -> dict[str, Any]:
        asked, query = self._asked, self._asked.query
        filters: dict[str, list[str]] = {}
        for name, value in asked.filters:
            filters.setdefault(name, []).append(value)
        return {
            "format": verify.FORMAT,
            "origin": self._key.partition("+")[0],
            "account": asked.account,
            "filters": filters,
            "dates": {
                "from": None if query.min_us is None else format_us(query.min_us),
                "to": None if query.max_us is None else format_us(query.max_us),
            },
            "made": self._made,
            "by": {"key": asked.key_id, "description": asked.key_description},
            "events": {
                "count": ranges.count,
                "first": ranges.first,
                "last": ranges.last,
                "complete": ranges.is_one,
            },
            "size": self.size,
            "files": {name: self._digests[name] for name in verify.FILES},
        }

    @contextmanager
    def _member(self, archive: zipfile.ZipFile, name: str) -> Iterator["_Member"]:
        """A new file in the zip; its SHA-256 is known when it ends."""
        info = zipfile.ZipInfo(name, _moment(self._made))
        info.compress_type = zipfile.ZIP_DEFLATED
        info._compresslevel = DEFLATE_LEVEL  # type: ignore[attr-defined]  # noqa: SLF001 - no other way before 3.13
        info.external_attr = _PERMISSIONS
        with archive.open(info, "w", force_zip64=name in (verify.EVENTS, verify.CSV, verify.PROOF)) as file:
            member = _Member(file)
            yield member
        self._digests[name] = member.hash.hexdigest()


def _moment(text: str) -> tuple[int, int, int, int, int, int]:
    """A time as a zip has it, in two seconds."""
    year, month, day = map(int, text[:10].split("-"))
    hour, minute, second = map(int, text[11:19].split(":"))
    return year, month, day, hour, minute, second


class _Pipe:
    """Where a zip is written to: it is taken out again after each step."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def write(self, data: bytes) -> int:
        if data:
            self._parts.append(bytes(data))
        return len(data)

    def flush(self) -> None:
        """Nothing is held back."""

    def take(self) -> list[bytes]:
        """What was written since the last time."""
        parts, self._parts = self._parts, []
        return parts


class _Member:
    """A file in the zip, with the SHA-256 of what was written."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self.hash = file, sha256()

    def write(self, data: bytes) -> None:
        self.hash.update(data)
        self._file.write(data)


class _Ranges:
    """The indexes of events as ranges, which are kept on the disk when there are many.

    `digest` is known at the end: it is of all indexes.
    """

    def __init__(self) -> None:
        self._file = SpooledTemporaryFile(RANGES_BYTES_KEPT)  # noqa: SIM115 - closed by __exit__
        self._hash = sha256()
        self._start: int | None = None
        self.first: int | None = None
        self.last: int | None = None
        self.count = 0

    def __enter__(self) -> "_Ranges":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    @property
    def is_one(self) -> bool:
        """Whether they are all from the first to the last."""
        return self.first is not None and self._start == self.first

    @property
    def end(self) -> int:
        """The index after the last one."""
        return 0 if self.last is None else self.last + 1

    @property
    def digest(self) -> bytes:
        return self._hash.digest()

    def add(self, indexes: Sequence[int]) -> None:
        """Adds indexes, ascending and above those before."""
        self._hash.update(_packed(indexes))
        self.count += len(indexes)
        if self.first is None:
            self.first = self._start = indexes[0]
        last = indexes[0] - 1 if self.last is None else self.last
        if indexes[-1] - last == len(indexes):
            self.last = indexes[-1]
            return
        for index in indexes:
            if index != last + 1:
                self._keep(last + 1)
                self._start = index
            last = index
        self.last = last

    def finish(self) -> None:
        """Adds nothing more."""
        if self.last is not None:
            self._keep(self.end)

    def _keep(self, end: int) -> None:
        self._file.write(_packed((self._start or 0, end)))

    def all(self) -> Iterator[tuple[int, int]]:
        """The first index of each range, and the one after its last."""
        self._file.seek(0)
        while packed := self._file.read(_RANGE_BYTES * NODES_AT_ONCE):
            numbers = iter(array("q", packed))
            yield from zip(numbers, numbers, strict=True)


def _packed(numbers: Iterable[int]) -> bytes:
    return array("q", numbers).tobytes()
