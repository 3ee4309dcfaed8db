"""Wrong and half-right input for every parser (`parsers`): each takes it, or refuses it as it documents.

Inputs are examples that were changed by pieces of others and of what is awkward somewhere. In a process of
its own, atheris chooses among them by the code that they reach; where there is no atheris, chance does. No
input may take more than linear time: patterns are measured at two sizes.
"""

import json
import random
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Final, TypeAlias

CHANGES_MAX: Final = 6
REPEATED_MAX: Final = 40
SECONDS_MAX: Final = 0.5  # for one input, of processor time
SHOWN_BYTES: Final = 200
SHOWN_BYTES_MAX: Final = 2_000


Pattern: TypeAlias = tuple[bytes, bytes, bytes]
"""A beginning, what is repeated, and an end."""


@dataclass(frozen=True)
class Parser:
    """What takes input: `feed` does with it all that the project does.

    It may raise what is in `raises`, and nothing else. `examples` are right, or nearly so; `words` are pieces
    that mean something. Of all inputs it gets a `share`, smaller where each takes long. Large inputs have
    `large_bytes`, and some times as many; `patterns` are among them.
    """

    name: str
    feed: Callable[[bytes], object]
    raises: tuple[type[BaseException], ...]
    examples: Sequence[bytes]
    words: Sequence[bytes] = ()
    bytes_max: int = 600
    share: float = 1.0
    large_bytes: int = 16 * 1024
    patterns: Sequence[Pattern] = ()

    def due(self, count: int) -> int:
        """Its share of so many inputs."""
        return max(1, round(self.share * count))


# What is awkward to some parser: ends of numbers, digits and blanks that only look so, what no UTF-8 is.
AWKWARD: Final = (
    b"", b"\0", b"\n", b"\r\n", b"\r", b"\t", b" ", b"\x0b", b"\x7f", b"\xc2\x85", b"\xc2\xa0",
    b"\xe2\x80\xa8", b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"\xf4\x8f\xbf\xbf", b"\xd9\xa1",
    b"\xc2\xb2",
    b"\xef\xbc\x91", b"\xc4\xb0", b"\xc3\x9f", b"\xe2\x80\x94", b"-", b"--", b"+", b"-1", b"0", b"00", b"1",
    b"2147483648", b"9223372036854775807", b"9223372036854775808", b"-9223372036854775809",
    b"18446744073709551616", b"9" * 20, b"9" * 400, b"1" * 5_000, b"1e999", b"-0.0", b"1_0", b"0x10", b"NaN",
    b"Infinity", b"null", b"true", b"[]", b"{}", b'""', b'"', b"'", b"\\", b"\\u0000", b"\\ud800", b"[" * 9,
    b"{" * 9, b"]", b"}", b",", b":", b";", b"=", b"&", b"%", b"%00", b"%ff", b"%zz", b"*", b"/", b"//",
    b"../", b"?", b"#", b"~", b"~root", b"~nobody-of-that-name", b"$HOME", b"0001-01-01",
    b"9999-12-31T23:59:59",
    b"23:59:60", b"+23:59", b"-23:59", b"+24:00", b"2024-02-29", b"2023-02-29", b"[::1", b"::ffff:1.2.3.4",
)  # fmt: skip
_PIECES = re.compile(rb"[A-Za-z]+|[0-9]+|[\x80-\xff]+|[ \t]+|.", re.DOTALL)


class Mutator:
    """Changes examples of what a parser takes, piece by piece."""

    def __init__(self, parser: Parser, chosen: random.Random) -> None:
        self._chosen, self._bytes_max = chosen, parser.bytes_max
        self._examples = [_PIECES.findall(example) for example in parser.examples]
        pieces = {piece for example in self._examples for piece in example}
        self._words = [*AWKWARD, *sorted(pieces), *parser.words]
        self._changes: Sequence[Callable[[list[bytes]], None]] = (
            self._put, self._put, self._replace, self._replace, self._drop, self._double, self._repeat,
            self._swap, self._flip, self._cut, self._splice,
        )  # fmt: skip

    def new(self) -> bytes:
        """An input; one of many is an example as it is."""
        pieces = list(self._chosen.choice(self._examples))
        for _ in range(min(self._chosen.randint(0, CHANGES_MAX), self._chosen.randint(0, CHANGES_MAX))):
            self._chosen.choice(self._changes)(pieces)
        return b"".join(pieces)[: self._bytes_max]

    def changed(self, data: bytes) -> bytes:
        """An input made of another one."""
        pieces = _PIECES.findall(data) or [b""]
        for _ in range(self._chosen.randint(1, CHANGES_MAX)):
            self._chosen.choice(self._changes)(pieces)
        return b"".join(pieces)[: self._bytes_max]

    def _at(self, pieces: list[bytes]) -> int:
        return int(self._chosen.random() * len(pieces))

    def _put(self, pieces: list[bytes]) -> None:
        pieces.insert(self._at(pieces), self._chosen.choice(self._words))

    def _replace(self, pieces: list[bytes]) -> None:
        if pieces:
            pieces[self._at(pieces)] = self._chosen.choice(self._words)

    def _drop(self, pieces: list[bytes]) -> None:
        at = self._at(pieces)
        del pieces[at : at + self._chosen.choice((1, 1, 1, 2, 5))]

    def _double(self, pieces: list[bytes]) -> None:
        at = self._at(pieces)
        part = pieces[at : at + self._chosen.randint(1, 8)]
        to = self._at(pieces)
        pieces[to:to] = part

    def _repeat(self, pieces: list[bytes]) -> None:
        if pieces:
            at = self._at(pieces)  # what was repeated before may be again
            as_many_as_fit = 1 + self._bytes_max // (len(pieces[at]) or 1)
            pieces[at] *= min(self._chosen.randint(2, REPEATED_MAX), as_many_as_fit)

    def _swap(self, pieces: list[bytes]) -> None:
        if pieces:
            a, b = self._at(pieces), self._at(pieces)
            pieces[a], pieces[b] = pieces[b], pieces[a]

    def _flip(self, pieces: list[bytes]) -> None:
        at = self._at(pieces)
        if pieces and pieces[at]:
            piece = bytearray(pieces[at])
            piece[int(self._chosen.random() * len(piece))] ^= 1 << self._chosen.randrange(8)
            pieces[at] = bytes(piece)

    def _cut(self, pieces: list[bytes]) -> None:
        del pieces[self._at(pieces) :]

    def _splice(self, pieces: list[bytes]) -> None:
        other = self._chosen.choice(self._examples)
        pieces[self._at(pieces) :] = other[self._at(other) :]


# The attack.


@dataclass
class Outcome:
    """What a parser did with many inputs; `wrong` has how often each thing went wrong, and a first input."""

    tried: int = 0
    taken: int = 0
    refused: int = 0
    wrong: Counter[str] = field(default_factory=Counter)
    inputs: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0

    @classmethod
    def read(cls, path: Path) -> "Outcome":
        """The outcome that another process wrote."""
        members = json.loads(path.read_text())
        return cls(**{**members, "wrong": Counter(members["wrong"])})

    def write(self, folder: Path) -> None:
        """Leaves it for the process that asked for it."""
        unfinished = folder / "unfinished"
        unfinished.write_text(json.dumps(vars(self)))
        unfinished.rename(folder / "outcome")

    def add(self, other: "Outcome") -> None:
        """Takes up what came of further inputs."""
        self.tried, self.taken, self.refused = (
            self.tried + other.tried,
            self.taken + other.taken,
            self.refused + other.refused,
        )
        self.wrong.update(other.wrong)
        self.inputs = {**other.inputs, **self.inputs}

    def feed(self, parser: Parser, data: bytes) -> None:
        """Has a parser take an input, and notes what came of it."""
        self.tried += 1
        began = time.thread_time()
        try:
            parser.feed(data)
        except parser.raises:
            self.refused += 1
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 - whatever it is, it is wrong
            self.note(f"{type(error).__name__} {_place(error)}", data, str(error))
        else:
            self.taken += 1
        if time.thread_time() - began > SECONDS_MAX:
            self.note(f"it took more than {SECONDS_MAX} s", data)

    def note(self, wrong: str, data: bytes, told: str = "") -> None:
        """Notes that an input did what it should not, with what was told of that."""
        self.wrong[wrong] += 1
        self.inputs.setdefault(wrong, f"{wrong} {told[:SHOWN_BYTES]} with {_shown(data)}")

    @property
    def problems(self) -> list[str]:
        """A sentence for each thing that went wrong."""
        return [f"{count:,} times: {self.inputs[kind]}" for kind, count in self.wrong.items()]


def _shown(data: bytes) -> str:
    """An input as one can type it; of one of many pieces only the beginning."""
    return repr(data) if len(data) <= SHOWN_BYTES_MAX else f"{data[:SHOWN_BYTES]!r}… of {len(data):,} bytes"


def _place(error: BaseException) -> str:
    """The function of the project that an error came through last."""
    place, traceback = "", error.__traceback__
    while traceback is not None:
        code = traceback.tb_frame.f_code
        if "/auditplane/" in code.co_filename:
            place = f"in {Path(code.co_filename).name}:{code.co_name}"
        traceback = traceback.tb_next
    return place


def attacked(parser: Parser, count: int, seed: int) -> Outcome:
    """Feeds a parser so many inputs, by chance, in this process."""
    outcome, mutator = Outcome(), Mutator(parser, random.Random(seed))
    for example in parser.examples[:count]:
        outcome.feed(parser, example)
    while outcome.tried < count:
        outcome.feed(parser, mutator.new())
    return outcome


# In a process of its own.


def tried(names: Sequence[str], count: int, seed: int, processes: int) -> Iterator[tuple[str, Outcome]]:
    """What came of attacks on some parsers, each in processes of its own, some at a time."""
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(processes) as threads:
        ended = threads.map(lambda name: _attacked_apart(name, count, seed, Path(folder)), names)
        yield from zip(names, ended, strict=True)


def _attacked_apart(name: str, count: int, seed: int, folder: Path) -> Outcome:
    """Many inputs, and then large ones, which are timed where nothing watches the code."""
    began = time.monotonic()
    outcome = in_a_process(folder / f"{name}, many".replace(" ", "-"), name, str(count), str(seed))
    outcome.add(in_a_process(folder / f"{name}, large".replace(" ", "-"), name))
    outcome.seconds = time.monotonic() - began
    return outcome


def in_a_process(folder: Path, *arguments: str) -> Outcome:
    """What `fuzzing` makes of its arguments; a process that ends otherwise is wrong."""
    folder.mkdir()
    program = [sys.executable, "-m", "torture.fuzzing", str(folder), *arguments]
    done = subprocess.run(program, capture_output=True, check=False)
    if (found := folder / "outcome").exists():
        return Outcome.read(found)
    outcome = Outcome()
    last = next((path.read_bytes() for path in folder.glob("*-*")), b"")
    outcome.note(f"the process ended with {done.returncode}", last, done.stderr.decode()[-SHOWN_BYTES:])
    return outcome


def has_atheris() -> bool:
    """Whether inputs are chosen by the code that they reach."""
    return find_spec("atheris") is not None


# Time.

TIMES: Final = 4  # how much larger the other size is
GROWTH_MAX: Final = 2.0 * TIMES  # linear is TIMES, quadratic its square
PATTERNS_MAX: Final = 200
UNNOTICED_SECONDS: Final = 0.002
MEASURED: Final = (1, 5, 15)
_UNITS: Final = (
    b"0", b"9", b"a", b" ", b"\t", b"\n", b"\r\n", b"\0", b"\xff", b"\xc3\xa9", b"\xc4\xb0", b'"', b"\\",
    b'\\"', b"\\u00e9", b"[", b"{", b'{"a":', b"[[],", b",", b";", b":", b"=", b"&", b"+", b"%41", b"-",
    b".", b"/",
    b"a=b&", b"a, ", b";q=0.1,", b'"",', b'"a":1,', b"x000/", b"\n\n",
)  # fmt: skip


def large(parser: Parser, patterns_max: int = PATTERNS_MAX) -> Outcome:
    """What came of large inputs; those that take more than linear time are wrong."""
    outcome, size = Outcome(), parser.large_bytes
    for pattern in _patterns(parser, patterns_max):
        outcome.feed(parser, _sized(pattern, size * TIMES))
        if all(_growth(parser, pattern, size, times) > GROWTH_MAX for times in MEASURED):
            outcome.note(
                f"{size:,} bytes and {TIMES} times as many take more than linear time", _named(pattern)
            )
    return outcome


def _patterns(parser: Parser, patterns_max: int) -> list[Pattern]:
    """Those of the parser, and examples that hold many of something, at their ends or by chance."""
    chosen = random.Random(0)
    found: list[Pattern] = []
    for example in parser.examples:
        pieces = _PIECES.findall(example)
        places = sorted({0, len(pieces), *(chosen.randrange(len(pieces) + 1) for _ in range(3))})
        units = (*_UNITS, *parser.words, *chosen.sample(pieces, min(4, len(pieces))), example + b"\n")
        found += [
            (b"".join(pieces[:place]), unit, b"".join(pieces[place:])) for place in places for unit in units
        ]
    chosen.shuffle(found)
    return [*parser.patterns, *found[:patterns_max]]


def _sized(pattern: Pattern, size: int) -> bytes:
    """An input of about so many bytes."""
    before, unit, after = pattern
    return before + unit * (size // max(1, len(unit))) + after


def _named(pattern: Pattern) -> bytes:
    before, unit, after = (part[:60] for part in pattern)
    return b"%s (%s many times) %s" % (before, unit, after)


def _growth(parser: Parser, pattern: Pattern, size: int, times: int) -> float:
    """How many times longer the larger of two sizes takes; 0 where that is nothing to speak of."""
    large = _seconds(parser, _sized(pattern, size * TIMES), times)
    return 0.0 if large < UNNOTICED_SECONDS else large / _seconds(parser, _sized(pattern, size), times)


def _seconds(parser: Parser, data: bytes, times: int) -> float:
    """The least processor time that an input takes, of several tries."""
    found = []
    for _ in range(times):
        began = time.process_time()
        Outcome().feed(parser, data)
        found.append(time.process_time() - began)
        if found[-1] < UNNOTICED_SECONDS / 10 or sum(found) > SECONDS_MAX:
            break
    return max(min(found), 1e-6)
