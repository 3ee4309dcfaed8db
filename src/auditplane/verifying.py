"""What an outsider finds out of a log, who trusts a verifier key and what he remembers. Pure.

Two signed checkpoints of a log are of the same log when the later one grew out of the earlier one. Below a
checkpoint a `Reading` takes the entries from the first to the last, with the events that are shown for them:
each event is the one that its entry commits to, none was committed before the one that precedes it, and those
that are gone are accounted for by the log itself. That the entries are those that were signed is known once
all of them lead to the root of the checkpoint: what was read before that is a promise only.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import chain
from typing import Final, Literal

import msgspec

from auditplane import merkle
from auditplane.checkpoint import Checkpoint
from auditplane.errors import ProofError
from auditplane.forgotten import Accounts
from auditplane.merkle import ENTRY_BYTES
from auditplane.tiles import Frontier, Tile
from auditplane.times import parse_rfc3339

NAMED_MAX: Final = 10

_INDEX, _EVENT, _STAMP, _END = b'{"index":', b',"event":', b',"stamp":', b"}"
_INDEX_DIGITS_MAX: Final = 18
_INDEX_MAX: Final = 10**_INDEX_DIGITS_MAX - 1
_HEAD_CHARS: Final = len('{"at":"2026-01-01T00:00:00.000000Z"')


@dataclass(slots=True)
class Shown:
    """An event as a server shows it: its index, and what its commitment is made of."""

    index: int
    doc: bytes
    stamp: bytes


def parse_entry_line(line: bytes) -> Shown:
    """The event of a line such as `render.entry_lines` makes; raises ProofError."""
    head, event, rest = line.partition(_EVENT)
    doc, stamp, end = rest.rpartition(_STAMP)
    digits = head[len(_INDEX) :]
    if not (event and stamp and head[: len(_INDEX)] == _INDEX and _is_index(digits) and end[-1:] == _END):
        raise ProofError("The events of the log are not shown as index, event and stamp.")
    return Shown(int(digits), doc, end[:-1])


def _is_index(digits: bytes) -> bool:
    return digits.isdigit() and len(digits) <= _INDEX_DIGITS_MAX


def contradiction(before: Checkpoint, now: Checkpoint, path: Sequence[bytes]) -> str | None:
    """What is wrong when a log of an earlier checkpoint has become one of a later; None when it has grown.

    `path` is the consistency path between them, empty where there is nothing to prove.
    """
    if now.size < before.size:
        return f"The log has SHRUNK from {before.size:,} to {now.size:,} entries"
    try:
        merkle.verify_consistency(before.size, now.size, path, before.root, now.root)
    except ProofError as error:
        return (
            f"The log has FORKED: its checkpoint of {now.size:,} entries does not go on from that of "
            f"{before.size:,} that is remembered ({str(error).rstrip('.')})"
        )
    return None


class Reading:
    """How far a log was read, and what was found.

    `texts` tells whether all entries were taken with the events that are shown for them, `proven` which size
    a checkpoint has proved; what is beyond it was read, and is not proved yet.
    """

    def __init__(self, kept: "_Kept | None" = None) -> None:
        kept = kept or _Kept()
        self.frontier = Frontier(kept.size, kept.edge)
        self.texts = kept.texts
        self.proven = kept.proven
        self._head = kept.head.encode()
        self._accounts = Accounts(kept.purged_before, set(kept.erased))
        self._gone = list(kept.gone)

    @property
    def size(self) -> int:
        """How many entries were read."""
        return self.frontier.size

    @property
    def gone(self) -> int:
        """How many came without their events, of those that are not proved yet or not explained."""
        return sum(end - first for first, end in self._gone)

    def copy(self) -> "Reading":
        """Another one that goes on by itself."""
        return Reading(self._kept())

    def take(self, entries: bytes, shown: Sequence[Shown] | None) -> list[tuple[Tile, bytes]]:
        """Takes the next entries, packed, and the events that are shown for them; None when none can be.

        Returns the tiles that are full now, with their hashes. Raises ProofError, and is of no use then.
        """
        if shown is None:
            self.texts = False
        else:
            self._match(entries, shown)
            for event in shown:
                self._learn(event)
        return self.frontier.append(merkle.leaf_hashes(entries))

    def _match(self, entries: bytes, shown: Sequence[Shown]) -> None:
        """Each event is that of its entry; notes which entries are without one."""
        start, count = self.size, len(entries) // ENTRY_BYTES
        made = [merkle.entry(event.doc, event.stamp) for event in shown]
        due = range(start, start + count)
        if [event.index for event in shown] == list(due) and b"".join(made) == entries:
            return
        next_index = start
        for event, entry in zip(shown, made, strict=True):
            index = event.index
            if not next_index <= index < due.stop:
                raise ProofError(f"An event of the index {index} is shown where {next_index} is due.")
            at = (index - start) * ENTRY_BYTES
            if entry != entries[at : at + ENTRY_BYTES]:
                raise ProofError(
                    f"The event of index {index}{_id_of(event.doc)} is not the one that was recorded: "
                    "its text or its stamp was altered."
                )
            self._miss(next_index, index)
            next_index = index + 1
        self._miss(next_index, due.stop)

    def _miss(self, first: int, end: int) -> None:
        if first == end:
            return
        if self._gone and self._gone[-1][1] == first:
            first, _ = self._gone.pop()
        self._gone.append((first, end))

    def _learn(self, event: Shown) -> None:
        """Takes up what an event says of time, and of events that are gone; it fits its entry."""
        try:
            if event.stamp[:_HEAD_CHARS] != self._head:
                self._pass_to(event)
            self._accounts.learn(event.doc, event.stamp)
        except (ValueError, TypeError, AttributeError, RecursionError, msgspec.MsgspecError):
            raise ProofError(
                f"The event of index {event.index} fits its entry, but is none that a server records."
            ) from None

    def _pass_to(self, event: Shown) -> None:
        """Goes on to another time of commit; ValueError when the stamp does not begin with one."""
        head = event.stamp[:_HEAD_CHARS]
        at, before = _at_of(head), _at_of(self._head)
        parse_rfc3339(at)
        if head != f'{{"at":"{at}"'.encode():
            raise ValueError
        if at < before:
            raise ProofError(
                f"The event of index {event.index} was recorded at {at} by its stamp, "
                f"and one ahead of it later, at {before}."
            )
        self._head = head

    def leads_to(self, checkpoint: Checkpoint) -> bool:
        """Whether the entries that were read are those of a checkpoint."""
        return self.size == checkpoint.size and self.frontier.root() == checkpoint.root

    def unexplained(self) -> Sequence[int]:
        """The indexes of events that are gone although the log does not say why."""
        return self._accounts.unexplained(chain.from_iterable(range(*each) for each in self._gone))

    def prove(self, size: int) -> None:
        """Notes that a checkpoint of so many entries was proved; what is not explained stays to be."""
        self.proven = size
        unexplained = self.unexplained()
        self._gone.clear()
        for index in unexplained:
            self._miss(index, index + 1)

    # How it is kept.

    def _kept(self) -> "_Kept":
        return _Kept(
            size=self.size,
            edge=list(self.frontier.edge),
            head=self._head.decode(),
            gone=list(self._gone),
            purged_before=min(self._accounts.purged_before, _INDEX_MAX),
            erased=sorted(index for index in self._accounts.erased if 0 <= index <= _INDEX_MAX),
            texts=self.texts,
            proven=self.proven,
        )

    def encode(self) -> bytes:
        """Its JSON text, with a digest that tells damage."""
        text = msgspec.json.encode(self._kept())
        return msgspec.json.encode(_File(sha256(text).hexdigest(), msgspec.Raw(text))) + b"\n"


def decode_reading(data: bytes) -> Reading:
    """The reading of such a text; raises ProofError when it is damaged."""
    try:
        found = msgspec.json.decode(data, type=_File)
        text = bytes(found.reading)
        if sha256(text).hexdigest() != found.sha256:
            raise ProofError("It is damaged.")
        return Reading(msgspec.json.decode(text, type=_Kept))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise ProofError("It is damaged, or of another version.") from None


class _Kept(msgspec.Struct, rename="camel", forbid_unknown_fields=True, kw_only=True):
    version: Literal[1] = 1
    size: int = 0
    edge: list[bytes] = []
    head: str = ""
    gone: list[tuple[int, int]] = []
    purged_before: int = 0
    erased: list[int] = []
    texts: bool = True
    proven: int = 0


class _File(msgspec.Struct, forbid_unknown_fields=True):
    sha256: str
    reading: msgspec.Raw


def _at_of(head: bytes) -> str:
    """The time in the beginning of a stamp; empty where there is none."""
    return head[len('{"at":"') : -1].decode("ascii")


def _id_of(doc: bytes) -> str:
    """` (its id)` of an event that is not to be trusted; empty when it shows none."""
    try:
        found = json.loads(doc).get("id")
    except (ValueError, AttributeError, RecursionError):
        return ""
    return f" (id {found[:64]})" if isinstance(found, str) and found.isprintable() else ""


def listed(indexes: Iterable[int]) -> str:
    """Some indexes for a sentence."""
    named = list(indexes)
    text = ", ".join(map(str, named[:NAMED_MAX]))
    return f"{text} and {len(named) - NAMED_MAX:,} more" if len(named) > NAMED_MAX else text
