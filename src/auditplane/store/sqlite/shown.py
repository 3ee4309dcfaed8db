"""Which events of a log a view shows: those below its size that have not expired, or that a hold keeps.

What has expired is a beginning of the log, as age counts from the commit. It is hidden at once, and destroyed
later, in small steps: only the events from `purged` to before `expired` can be stored and yet not be shown.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import apsw

from auditplane.event import Event, decode_doc
from auditplane.query import fold
from auditplane.store import Hold
from auditplane.store.sqlite.block import Header
from auditplane.store.sqlite.database import fetch
from auditplane.store.sqlite.statements import QUERIES
from auditplane.times import parse_rfc3339


class Held:
    """What some holds keep; those of a user are found by the user, as there may be thousands."""

    def __init__(self, holds: Sequence[Hold] = ()) -> None:
        self._by_user: dict[str | None, list[Hold]] = {}
        for hold in holds:
            self._by_user.setdefault(None if hold.user is None else fold(hold.user), []).append(hold)

    def __bool__(self) -> bool:
        return bool(self._by_user)

    def keeps(self, event: Event) -> bool:
        """Whether a hold keeps an event."""
        holds = [hold for user in (None, fold(event.user)) for hold in self._by_user.get(user, ())]
        if not holds:
            return False
        us = parse_rfc3339(event.timestamp or "")
        return any(
            (hold.min_us is None or hold.min_us <= us) and (hold.max_us is None or us <= hold.max_us)
            for hold in holds
        )


@dataclass(frozen=True, slots=True)
class Shown:
    """What is shown below the index `size`. No event that is hidden has a key above `high`.

    `told` are the indexes of events that could have expired and have not, as they say why others are gone.
    """

    size: int
    purged: int
    expired: int
    high: int
    held: Held = field(default_factory=Held)
    told: Collection[int] = ()

    @property
    def hides(self) -> bool:
        """Whether there may be events that are stored and have expired."""
        return self.purged < self.expired

    def whole(self, header: Header) -> bool:
        """Whether all events of a block are shown for certain, by their indexes and keys."""
        return header.last_index < self.size and (not self.hides or header.low > self.high)

    def none(self, header: Header) -> bool:
        """Whether no event of a block is shown for certain, by their indexes."""
        return (
            not self.held
            and header.last_index < self.expired
            and header.first_index >= self.purged
            and not any(header.first_index <= index <= header.last_index for index in self.told)
        )

    def event(self, index: int, doc: bytes) -> bool:
        """Whether an event is shown."""
        return index < self.size and (not self.has_expired(index) or self.held.keeps(decode_doc(doc)))

    def decoded(self, index: int, event: Event) -> bool:
        """Whether a decoded event is shown."""
        return index < self.size and (not self.has_expired(index) or self.held.keeps(event))

    def may_show(self, index: int) -> bool:
        """Whether an event of this index can be shown, whatever it holds."""
        return index < self.size and (bool(self.held) or not self.has_expired(index))

    def has_expired(self, index: int) -> bool:
        """Whether an event that is stored has expired, unless a hold keeps it."""
        return self.purged <= index < self.expired and index not in self.told


def shown_in(connection: apsw.Connection, size: int | None = None) -> Shown:
    """What a view shows, of the whole log or of the events below `size`."""
    whole, purged, expired, high = fetch(connection, QUERIES["shown"])[0]
    size = whole if size is None else size
    if purged == expired:
        return Shown(size, purged, expired, high)
    holds = holds_in(connection)
    if any(hold.keeps_all for hold in holds):
        return Shown(size, purged, purged, high)
    return Shown(size, purged, expired, high, Held(holds), told_in(connection, purged, expired))


def told_in(connection: apsw.Connection, start: int, end: int) -> Collection[int]:
    """The indexes from `start` to before `end` of events that say why others are gone."""
    return {row[0] for row in fetch(connection, QUERIES["told_between"], (start, end))}


def holds_in(connection: apsw.Connection) -> list[Hold]:
    """The holds that are in force, oldest first."""
    return [Hold(*row) for row in fetch(connection, QUERIES["holds"])]
