"""Where the events of accounts are kept.

There is one engine, `store.sqlite`. What it owes its callers:

- A `Transaction` holds the account alone, across threads and processes. What it added is on disk when it
  ends without an error, and nothing of it is stored otherwise. Reads never wait for it.
- An index is a position in commit order, from 0, without gaps. A key orders events by time.
- `Reader` steps yield what matched among the events with an index below the size of the log at its start,
  each once and in order, however much is recorded, sealed or compacted meanwhile. Between two steps it
  holds neither a lock nor a snapshot.
- A doc and its stamp come back as the bytes that were given, until the event expires or is erased. Then it is
  in no answer any more; its index, its entry and all proofs stay.
"""

from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple


class Member(Enum):
    """A member of events whose values are counted; of a configuration it is the name without the version."""

    USER = "user"
    CONFIGURATION = "configuration"
    KIND = "kind"
    ACTION = "action"
    NAME = "name"


@dataclass(slots=True)
class State:
    """Where an account's log stands.

    `size` is the next index; `newest_us` the greatest timestamp, `at_us` the greatest commit time so far.
    """

    size: int
    newest_us: int
    at_us: int


@dataclass(slots=True)
class Stored:
    """A stored event."""

    key: int
    index: int
    doc: bytes
    stamp: bytes


class Signed(NamedTuple):
    """A signed checkpoint as it is stored: `at_us` is when, `note` its text."""

    size: int
    root: bytes
    at_us: int
    note: bytes


class Restored(NamedTuple):
    """That a log was restored: when, from a backup of when, and how large it was.

    `key` is the verifier key that the log had in the backup, or empty.
    """

    at_us: int
    backup_us: int
    size: int
    root: bytes
    key: str


class Hold(NamedTuple):
    """A legal hold: events that it covers neither expire nor can be erased.

    Those of `user`, with a timestamp from `min_us` to `max_us`, both included; None is any.
    """

    id: str
    placed_us: int
    placed_by: str
    reason: str
    user: str | None
    min_us: int | None
    max_us: int | None

    @property
    def keeps_all(self) -> bool:
        """Whether it covers every event of the account."""
        return self.user is None and self.min_us is None and self.max_us is None


class Piece(NamedTuple):
    """Some events of an answer, in its order: docs, or else the zstd frames of their rendered text.

    That is NDJSON, or CSV when it was asked for.
    """

    docs: list[bytes]
    frames: list[bytes]
