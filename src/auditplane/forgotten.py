"""How a log accounts for events that are gone: by events of its own, which stay longer than those. Pure.

The hash of an event stays in the log when its text is destroyed. Whoever checks the log finds an index
without an event, and asks whether the log says why: a purge names the index before which everything expired
that no hold kept, an erasure names the indexes that it took. Only the server itself records such events: the
stamp tells, which is committed to.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from auditplane.event import decode_doc

SYSTEM: Final = "auditplane"
"""What stands in place of the id of an API key in the stamp of what the server records by itself."""
KIND: Final = "AuditTrail"
DELETED: Final = "Deleted"
PURGED_BEFORE: Final = "purgedBefore"
ERASED: Final = "erased"

_MARKS: Final = (b'"resourceKind":"AuditTrail"', b'"action":"Deleted"', b'"details":{')


def is_servers(stamp: bytes) -> bool:
    """Whether the server recorded an event itself, of what was done: of keys, exports, what is kept."""
    return bool(json.loads(stamp).get("by") == SYSTEM)


def told(doc: bytes, stamp: bytes) -> Mapping[str, Any]:
    """What an event tells of what is gone: its details, or nothing."""
    if not all(mark in doc for mark in _MARKS):
        return {}
    event = decode_doc(doc)
    if event.resourceKind != KIND or event.action != DELETED or not is_servers(stamp):
        return {}
    try:
        details = json.loads(bytes(event.details))
    except ValueError:  # such as a number of thousands of digits, which no server of ours records
        return {}
    return details if isinstance(details, dict) else {}


@dataclass(slots=True)
class Accounts:
    """What a log says of what is gone, as far as its events were shown to this."""

    purged_before: int = 0
    erased: set[int] = field(default_factory=set)

    def learn(self, doc: bytes, stamp: bytes) -> None:
        """Takes up an event that was checked against the log; only some say anything of this."""
        details = told(doc, stamp)
        before = details.get(PURGED_BEFORE)
        if isinstance(before, int):
            self.purged_before = max(self.purged_before, before)
        erased = details.get(ERASED)
        if isinstance(erased, list):
            self.erased.update(index for index in erased if isinstance(index, int))

    def unexplained(self, missing: Iterable[int]) -> Sequence[int]:
        """Those of some missing indexes of which the log does not say why."""
        return [index for index in missing if index >= self.purged_before and index not in self.erased]
