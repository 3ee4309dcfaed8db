"""What a program did to the files in a folder, in order, as strace saw it.

The program may tell things in between, each by a `writev` to its standard output. So one knows at each moment
what had been acknowledged. It must have one thread, and change files by the calls of CALLS only: another one
that changes files is an error here, rather than overlooked.
"""

import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

CALLS: Final = (
    "openat", "write", "writev", "pwrite64", "lseek", "ftruncate", "fsync", "fdatasync",
    "rename", "unlink", "mkdir", "rmdir", "chmod",
)  # fmt: skip
REFUSED_CALLS: Final = (
    "open", "creat", "pwritev", "pwritev2", "truncate", "fallocate", "sync_file_range", "sendfile",
    "copy_file_range", "renameat", "renameat2", "unlinkat", "mkdirat", "link", "linkat", "symlink",
    "symlinkat", "clone", "clone3", "fork", "vfork", "io_uring_setup",
)  # fmt: skip
"""Calls that change files, or start what could, and that nothing here understands."""

STRING_BYTES_MAX: Final = 1 << 26


@dataclass(frozen=True, slots=True)
class Made:
    """A file or a folder came to be, by its path."""

    path: str
    is_folder: bool


@dataclass(frozen=True, slots=True)
class Written:
    """Bytes were written to a file."""

    path: str
    offset: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Cut:
    """A file was made shorter, or longer by zeros."""

    path: str
    size: int


@dataclass(frozen=True, slots=True)
class Synced:
    """A file or a folder was synced; when `failed`, the disk said that it could not."""

    path: str
    failed: bool = False


@dataclass(frozen=True, slots=True)
class Renamed:
    """A name was changed; what had the new one before is gone."""

    old: str
    new: str


@dataclass(frozen=True, slots=True)
class Removed:
    """A file or an empty folder was removed."""

    path: str


@dataclass(frozen=True, slots=True)
class Told:
    """The program said something."""

    text: str


Op: TypeAlias = Made | Written | Cut | Synced | Renamed | Removed | Told

# After the number of the process.
_LINE: Final = re.compile(r"\d+ +(\w+)\((.*)\) = (-?\w+)(?:<([^>]*)>)?")
_STRING: Final = re.compile(r'"([^"]*)"(\.\.\.)?')
_OPENED: Final = re.compile(r"(\w+)<([^>]*)>")
# Of what stands between hexadecimal digits, spaces: `bytes.fromhex` skips them.
_SPACES: Final = str.maketrans("\\x", "  ")


def traced(arguments: Sequence[str], output: Path, *, inject: str = "") -> int:
    """Runs a Python program under strace, whose output goes to a file; returns how it ended.

    `inject` has some of its calls fail, as strace's option of that name says it.
    """
    calls = ",".join((*CALLS, *REFUSED_CALLS))
    # The system stops the program at those calls alone; strace has that only together with `-f`.
    quick = ["-f", "--seccomp-bpf"]
    shown = ["-y", "-xx", "-s", str(STRING_BYTES_MAX), "-e", f"trace={calls}", "-o", str(output)]
    faults = ["-e", f"inject={inject}"] if inject else []
    command = ["strace", *quick, *shown, *faults, sys.executable, *arguments]
    return subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode


def calls_below(output: Path, root: Path) -> dict[str, list[int]]:
    """Of each kind of call, which ones were about files below `root`, counted from 1."""
    reading = _Reading(str(root))
    counts: Counter[str] = Counter()
    found: dict[str, list[int]] = {}
    with output.open(encoding="ascii") as lines:
        for line in lines:
            call = _LINE.match(line)
            if call:
                counts[call[1]] += 1
                if reading.is_below(call[2]):
                    found.setdefault(call[1], []).append(counts[call[1]])
    return found


def read(output: Path, root: Path, *, contents: bool = True) -> Iterator[Op]:
    """What was done below `root`, by paths relative to it; without `contents` no bytes that were written."""
    reading = _Reading(str(root), contents=contents)
    with output.open(encoding="ascii") as lines:
        for line in lines:
            found = _LINE.match(line)
            if found:
                yield from reading.understood(*found.groups(default=""))


class _Reading:
    """Turns one call after the other into what it did."""

    def __init__(self, root: str, *, contents: bool = True) -> None:
        self._root, self._contents = root + "/", contents
        self._places: dict[str, int] = {}
        self._known: set[str] = set()

    def understood(self, call: str, given: str, result: str, opened: str) -> Iterator[Op]:
        failed = result.startswith("-")
        if call in ("fsync", "fdatasync"):
            path = self._relative(_opened(given)[1])
            if path is not None:
                yield Synced(path, failed)
        elif not failed and call in CALLS:
            yield from getattr(self, f"_{call}")(given, result, opened)
        elif not failed:
            self._refuse(call, given)

    def is_below(self, given: str) -> bool:
        """Whether a call was given a file or a path below the root."""
        root = "".join(f"\\x{byte:02x}" for byte in self._root[:-1].encode())
        return re.search(rf'[<"]{re.escape(root)}(\\x2f|[>"])', given) is not None

    def _refuse(self, call: str, given: str) -> None:
        if call in ("clone", "clone3", "fork", "vfork") or self.is_below(given):
            raise ValueError(f"the traced program called {call}({given[:200]})")

    def _relative(self, path: str) -> str | None:
        """A path below the root, from there on; the root itself is an empty one."""
        if f"{path}/" == self._root:
            return ""
        return path.removeprefix(self._root) if path.startswith(self._root) else None

    def _openat(self, given: str, result: str, opened: str) -> Iterator[Op]:
        path = self._relative(_text(opened))
        self._places[result] = 0
        if path is None:
            return
        if "O_CREAT" in given and path not in self._known:
            self._known.add(path)
            yield Made(path, is_folder=False)
        if "O_TRUNC" in given:
            yield Cut(path, 0)
        if "O_APPEND" in given:
            raise ValueError(f"the traced program appends to {path}")

    def _writev(self, given: str, _result: str, _opened_path: str) -> Iterator[Op]:
        if _opened(given)[0] != "1":
            self._refuse("writev", given)
        yield Told(_strings(given)[0].decode())

    def _write(self, given: str, result: str, _opened_path: str) -> Iterator[Op]:
        number, path = _opened(given)
        place = self._places.get(number, 0)
        self._places[number] = place + int(result)
        relative = self._relative(path)
        if relative is not None:
            yield Written(relative, place, self._written(given, result))

    def _pwrite64(self, given: str, result: str, _opened_path: str) -> Iterator[Op]:
        path = self._relative(_opened(given)[1])
        if path is not None:
            offset = int(given.rpartition(", ")[2])
            yield Written(path, offset, self._written(given, result))

    def _written(self, given: str, result: str) -> bytes:
        return _strings(given)[0][: int(result)] if self._contents else b""

    def _lseek(self, given: str, result: str, _opened_path: str) -> Iterator[Op]:
        self._places[_opened(given)[0]] = int(result)
        yield from ()

    def _ftruncate(self, given: str, _result: str, _opened_path: str) -> Iterator[Op]:
        path = self._relative(_opened(given)[1])
        if path is not None:
            yield Cut(path, int(given.rpartition(", ")[2]))

    def _rename(self, given: str, _result: str, _opened_path: str) -> Iterator[Op]:
        old, new = (self._relative(each.decode()) for each in _strings(given))
        if old is not None and new is not None:
            self._known.discard(old)
            self._known.add(new)
            yield Renamed(old, new)

    def _unlink(self, given: str, _result: str, _opened_path: str) -> Iterator[Op]:
        path = self._relative(_strings(given)[0].decode())
        if path is not None:
            self._known.discard(path)
            yield Removed(path)

    _rmdir = _unlink

    def _mkdir(self, given: str, _result: str, _opened_path: str) -> Iterator[Op]:
        path = self._relative(_strings(given)[0].decode())
        if path is not None:
            yield Made(path, is_folder=True)

    def _chmod(self, *_given: str) -> Iterator[Op]:
        yield from ()  # what is lost of it is set again when the folder is opened


def _text(escaped: str) -> str:
    return _bytes(escaped).decode()


def _bytes(escaped: str) -> bytes:
    return bytes.fromhex(escaped.translate(_SPACES))


def _strings(given: str) -> list[bytes]:
    found = _STRING.findall(given)
    if any(more for _, more in found):
        raise ValueError("strace left out a part of what was written")
    return [_bytes(each) for each, _ in found]


def _opened(given: str) -> tuple[str, str]:
    """The descriptor that a call was given first, and the path of its file."""
    found = _OPENED.match(given)
    return (found[1], _text(found[2])) if found else ("", "")
