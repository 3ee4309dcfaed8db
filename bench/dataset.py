"""The events that every system is given: invented, and the same on every machine for a size.

An event has neither id nor timestamp: a recorder leaves them to the server, and the other systems make
theirs. There are 500 users and 2,000 configurations in 40 versions, popular and rare ones; 15 kinds, 6
actions, about 100,000 resource names; descriptions of about 70 characters, of which one in 200 ends in the
number of a change, a word that hardly any other event has. A smaller set is the beginning of a larger one.
"""

import json
import os
import random
import re
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

BATCH_EVENTS: Final = 1_000
SAMPLED_A_BATCH: Final = 10
USERS: Final = 500
CONFIGURATIONS: Final = 2_000
VERSIONS: Final = 40
NAMES_A_KIND: Final = 6_667
CHANGES: Final = 1_000_000
KINDS: Final = (
    "Configuration", "Agent", "AgentType", "AgentVersion", "Source", "Processor", "Connector", "Destination",
    "Extension", "Rollout", "User", "Invitation", "Login", "APIKey", "Fleet",
)  # fmt: skip
ACTIONS: Final = ("Created", "Modified", "Deleted", "Started", "Paused", "Resumed")
MEMBERS: Final = ("resourceName", "description", "resourceKind", "configuration", "action", "user")

# Part of the names of cached files: to be raised with each change of what is made.
_VERSION: Final = 1
_SEED: Final = 20_260_101

Event = Mapping[str, str]


def lines(events: int) -> Iterator[str]:
    """The events as compact JSON, one a line, each with its line feed."""
    # Only random() is promised to give the same numbers in every version of Python.
    draw = random.Random(_SEED).random
    for _ in range(events):
        kind = KINDS[int(draw() * len(KINDS))]
        action = ACTIONS[int(draw() * len(ACTIONS))]
        user = f"user{int(draw() ** 2 * USERS)}@example.com"
        configured, configuration, version = draw() < 0.7, draw(), draw()
        name = f"{kind.lower()}-{int(draw() * NAMES_A_KIND)}"
        changed, change = draw() < 0.005, draw()
        suffix = f" for CHG-{int(change * CHANGES):06d}" if changed else ""
        about_what = f"config-{int(configuration**2 * CONFIGURATIONS)}:{1 + int(version * VERSIONS)}"
        member = f'"configuration":"{about_what}",' if configured else ""
        yield (
            f'{{"resourceName":"{name}","description":"{action} {kind} {name} in project default by {user}'
            f'{suffix}","resourceKind":"{kind}",{member}"action":"{action}","user":"{user}"}}\n'
        )


@dataclass(frozen=True)
class Dataset:
    """The events of a size in a file, in batches of BATCH_EVENTS."""

    path: Path
    starts: Sequence[int]

    @property
    def batches(self) -> int:
        """How many batches there are."""
        return len(self.starts) - 1

    @property
    def events(self) -> int:
        """How many events there are."""
        return self.batches * BATCH_EVENTS

    def ndjson(self, which: range) -> Iterator[bytes]:
        """Some batches, each as NDJSON."""
        with self.path.open("rb") as file:
            for number in which:
                file.seek(self.starts[number])
                yield file.read(self.starts[number + 1] - self.starts[number])

    def arrays(self, which: range) -> Iterator[bytes]:
        """Some batches, each as a JSON array: the body of a request."""
        for batch in self.ndjson(which):
            yield b"[" + batch[:-1].replace(b"\n", b",") + b"]"

    def sample(self, count: int, seed: int, fits: Callable[[Event], bool] = bool) -> list[Event]:
        """Events that fit, drawn from all batches, the same for a seed.

        Some events of every batch must fit, or this does not end.
        """
        draw = random.Random(seed)
        found: list[Event] = []
        while len(found) < count:
            number = draw.randrange(self.batches)
            (batch,) = self.ndjson(range(number, number + 1))
            events: list[Event] = [json.loads(line) for line in batch.splitlines()]
            fitting = [event for event in events if fits(event)]
            found += draw.sample(fitting, min(len(fitting), SAMPLED_A_BATCH))
        return found[:count]


_CHANGE = re.compile(r"CHG-([0-9]+)$")


def has_change(event: Event) -> bool:
    """Whether the description ends in the number of a change."""
    return bool(_CHANGE.search(event["description"]))


def change_of(event: Event) -> str:
    """That number: a word that is rare; ValueError when there is none."""
    match = _CHANGE.search(event["description"])
    if match is None:
        raise ValueError(f"no change in {event['description']!r}")
    return match[1]


def load(folder: Path, events: int) -> Dataset:
    """The set of a size, made when the folder does not have it; ValueError when it is not whole batches."""
    if events < BATCH_EVENTS or events % BATCH_EVENTS:
        raise ValueError(f"a set has a multiple of {BATCH_EVENTS} events, not {events}")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"events-v{_VERSION}-{events}.ndjson"
    starts = path.with_suffix(".starts")
    if not starts.exists():
        _make(path, starts, events)
    numbers = array("Q")
    numbers.frombytes(starts.read_bytes())
    return Dataset(path, numbers)


def _make(path: Path, starts: Path, events: int) -> None:
    """Both files, the small one last and whole: where it is, the other one is too."""
    numbers = array("Q", [0])
    made = lines(events)
    with path.open("wb") as file:
        for _ in range(events // BATCH_EVENTS):
            file.write("".join(next(made) for _ in range(BATCH_EVENTS)).encode())
            numbers.append(file.tell())
        file.flush()
        os.fsync(file.fileno())
    unfinished = starts.with_suffix(".unfinished")
    unfinished.write_bytes(numbers.tobytes())
    unfinished.replace(starts)
