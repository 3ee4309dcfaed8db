"""What is kept, and what is not: retention, legal holds and erasure, each told of in the log itself.

Events expire when they were committed longer ago than the retention of their account: a timestamp is never
later than the commit, but for some microseconds. They are hidden at once, and destroyed in rounds. What a
hold covers does not expire and can't be erased, nor does what tells of purges and erasures; nor can anything
else be erased that the server records itself, of keys, exports, retention and holds. What was destroyed
keeps its place and its hash in the log, so that all proofs stay valid; `forgotten` says how the log accounts
for it.
"""

import base64
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

from auditplane import limits, log, ulid
from auditplane.errors import Conflict, Gone, InvalidInput, NotFound, Unavailable
from auditplane.event import Rules, decode_doc, parse
from auditplane.forgotten import DELETED, ERASED, KIND, PURGED_BEFORE, SYSTEM, is_servers
from auditplane.query import Query, fold
from auditplane.store import Hold, Stored
from auditplane.store.sqlite import forgetting
from auditplane.store.sqlite.account import AccountStore, Transaction
from auditplane.store.sqlite.forgetting import Purge
from auditplane.store.sqlite.shown import Held
from auditplane.times import DAY_US, format_us
from auditplane.ulid import COUNTER_BITS

ERASED_PAGE_EVENTS: Final = 1_000
EMPTY_SECONDS_MAX: Final = 10.0


@dataclass(frozen=True, slots=True)
class Account:
    """The log of an account, and who works on it: `by` is the person's name, `key` the id of an API key.

    `check` raises when he may not go on, and is called before each commit of what takes long.
    Where the clock is not trusted, `may_expire` is false, and nothing is hidden.
    """

    name: str
    store: AccountStore
    clock: log.Clock
    by: str = SYSTEM
    key: str = SYSTEM
    check: Callable[[], None] = lambda: None
    may_expire: bool = True

    def request(
        self, action: str, what: str, details: Mapping[str, Any], event_id: str | None = None
    ) -> log.Request:
        """The event that tells of a change."""
        event = {
            "resourceName": self.name,
            "resourceKind": KIND,
            "action": action,
            "user": self.by[: limits.NAME_CHARS_MAX],
            "description": what[: limits.DESCRIPTION_CHARS_MAX],
            "details": {**details, **({} if self.key == SYSTEM else {"key": self.key})},
            **({"id": event_id} if event_id else {}),
        }
        return log.Request(parse(json.dumps(event).encode(), Rules(account=self.name)), SYSTEM)

    def change(
        self, action: str, what: str, details: Mapping[str, Any], change: Callable[[Transaction], None]
    ) -> None:
        """Makes a change and tells of it, both or neither."""
        with self.store.transaction() as transaction:
            change(transaction)
            log.add(transaction, self.request(action, what, details), self.clock)


# Retention.


def set_retention(account: Account, days: int | None) -> None:
    """Sets how many days the events of an account are kept: 0 for ever, None as the server is set.

    Raises InvalidInput.
    """
    if days is not None and not 0 <= days <= limits.RETENTION_DAYS_MAX:
        raise InvalidInput(f"The retention must be from 0 to {limits.RETENTION_DAYS_MAX:,} days, is {days}.")
    before = forgetting.retention_days(account.store)
    kept = "as the server is set" if days is None else "for ever" if days == 0 else f"for {days} days"
    account.change(
        "Updated",
        f"Set the retention: events are kept {kept}.",
        {"retentionDays": days, "retentionDaysBefore": before},
        lambda transaction: forgetting.set_retention_days(transaction, days),
    )
    expire(account, days or 0)


def expire(account: Account, default_days: int) -> int | None:
    """Hides what has expired; returns when the next event will, in microseconds since 1970, if one will."""
    own = forgetting.retention_days(account.store)
    kept_us = (default_days if own is None else own) * DAY_US
    if not kept_us or not account.may_expire:
        return None
    left_us = forgetting.expire(account.store, account.clock() - kept_us)
    return None if left_us is None else left_us + kept_us


def purge(account: Account, *, may_begin: bool) -> bool:
    """A step of destroying what has expired; says whether there is more to do.

    A round that may begin does so when there is something to destroy, and is told of at its end.
    """
    going = forgetting.purge_under_way(account.store)
    if going is None:
        if may_begin:
            event_id = ulid.make(account.clock() << COUNTER_BITS, os.urandom(ulid.RANDOM_BYTES))
            forgetting.begin_purge(account.store, event_id)
        return may_begin and forgetting.purge_under_way(account.store) is not None
    if not going.is_done:
        forgetting.go_on(account.store)
        return True
    if going.destroyed:
        with account.store.transaction() as transaction:
            if transaction.find(going.id) is None:  # else it was told of before a crash
                log.add(transaction, _purge_request(account, going), account.clock)
                forgetting.note_told(transaction)
    forgetting.end_purge(account.store, going)
    return True


def _purge_request(account: Account, done: Purge) -> log.Request:
    oldest, newest = (format_us(key >> COUNTER_BITS) for key in (done.low, done.high))
    return replace(account, by=SYSTEM, key=SYSTEM).request(
        DELETED,
        f"Purged {done.destroyed:,} expired events from {oldest} to {newest}.",
        {
            PURGED_BEFORE: done.target,
            "count": done.destroyed,
            "oldest": oldest,
            "newest": newest,
            "size": done.size,
            "root": base64.b64encode(done.root).decode(),
        },
        done.id,
    )


# Legal holds.


def place_hold(
    account: Account, *, reason: str, user: str | None, min_us: int | None, max_us: int | None
) -> Hold:
    """Keeps events from expiring and from erasure: those of a user, between two dates, or all of the account.

    Raises InvalidInput.
    """
    _check_reason(reason)
    if user is not None and not 0 < len(user) <= limits.NAME_CHARS_MAX:
        raise InvalidInput(f"The user of a hold must have 1 to {limits.NAME_CHARS_MAX} characters.")
    if min_us is not None and max_us is not None and min_us > max_us:
        raise InvalidInput("The hold would begin after its end.")
    now = account.clock()
    hold_id = ulid.make(now << COUNTER_BITS, os.urandom(ulid.RANDOM_BYTES))
    hold = Hold(hold_id, now, account.by, reason, user, min_us, max_us)
    what = f"Placed the hold {hold.id} on {covered(hold)}: {reason}"
    details = {"hold": hold.id, **_shown(hold)}
    account.change("Created", what, details, lambda transaction: forgetting.add_hold(transaction, hold))
    return hold


def lift_hold(account: Account, hold_id: str) -> Hold:
    """Lifts a hold; raises NotFound."""
    hold = next((hold for hold in forgetting.holds(account.store) if hold.id == hold_id), None)
    if hold is None:
        raise NotFound(f"The account {account.name} has no hold {hold_id}.")
    what = f"Lifted the hold {hold.id} on {covered(hold)}: {hold.reason}"
    details = {"hold": hold.id, **_shown(hold)}
    account.change("Updated", what, details, lambda transaction: forgetting.drop_hold(transaction, hold_id))
    return hold


def covered(hold: Hold) -> str:
    """What a hold covers, in words."""
    whose = "all events" if hold.user is None else f"the events of {hold.user}"
    since = "" if hold.min_us is None else f" from {format_us(hold.min_us)}"
    until = "" if hold.max_us is None else f" to {format_us(hold.max_us)}"
    return whose + since + until


def shown_hold(hold: Hold) -> dict[str, Any]:
    """The JSON form of a hold."""
    return {"id": hold.id, "placed": format_us(hold.placed_us), "placedBy": hold.placed_by, **_shown(hold)}


def _shown(hold: Hold) -> dict[str, Any]:
    members = {
        "reason": hold.reason,
        "user": hold.user,
        "minDate": None if hold.min_us is None else format_us(hold.min_us),
        "maxDate": None if hold.max_us is None else format_us(hold.max_us),
    }
    return {name: value for name, value in members.items() if value is not None}


# Erasure.


def erase(account: Account, ids: Sequence[str], *, reason: str) -> int:
    """Erases the events of some ids; returns how many there were.

    Nothing is erased when one of them is on hold or the server's own (Conflict), or is not there (NotFound,
    Gone).
    """
    _check_reason(reason)
    events = {event.index: event for event in map(partial(log.stored, account.store), ids)}
    _check_may_erase(account, events.values())
    _erase(account, sorted(events.values(), key=_by_key), reason)
    _empty_wal(account)
    return len(events)


def erase_user(account: Account, user: str, *, reason: str) -> int:
    """Erases the events of a user, in any case of the letters; returns how many there were.

    Raises Conflict, and erases none, when one of them is on hold or the server's own.
    What has expired is destroyed as well.
    """
    _check_reason(reason)
    query = Query(users=(fold(user),))
    for page in _pages(account.store, query):
        _check_may_erase(account, page)
    erased = 0
    for page in _pages(account.store, query):
        _erase(account, sorted(page, key=_by_key), reason, is_first=not erased)
        erased += len(page)
    # Some may have expired: the query does not show them, and a new hold would bring them back.
    while purge(account, may_begin=True):
        pass
    _empty_wal(account)
    return erased


def _pages(store: AccountStore, query: Query) -> Iterator[list[Stored]]:
    """The events that match, as far as they are not gone when they are come to."""
    cursor = None
    while True:
        docs, cursor, _ = log.page(store, replace(query, cursor=cursor), ERASED_PAGE_EVENTS)
        found = (_still_there(store, decode_doc(doc).id or "") for doc in docs)
        yield [stored for stored in found if stored is not None]
        if cursor is None:
            return


def _still_there(store: AccountStore, event_id: str) -> Stored | None:
    try:
        return store.get(event_id)
    except Gone:
        return None


def _erase(account: Account, events: Sequence[Stored], reason: str, *, is_first: bool = True) -> None:
    """Erases events in the order of their keys, some a commit, each told of by one event."""
    left = list(events)
    outcome = "nothing was erased" if is_first else "only a part was erased"
    while left:
        account.check()
        with account.store.transaction() as transaction:
            some = left[: forgetting.ERASED_AT_ONCE]
            there = [event for event in some if transaction.find(_id(event)) is not None]
            _check_may_erase(account, there, outcome)
            erased = forgetting.erase(account.store, transaction, there, account.clock(), reason)
            if erased:
                what = f"Erased {len(erased):,} event{'s' * (len(erased) > 1)}: {reason}"
                details = {ERASED: sorted(event.index for event in erased), "reason": reason}
                log.add(transaction, account.request(DELETED, what, details), account.clock)
                forgetting.note_told(transaction)
        # What went in between, by a purge, is not there any more.
        done = {event.index for event in erased}.union(event.index for event in some if event not in there)
        left = [event for event in left if event.index not in done]
        outcome = "only a part was erased"


def _check_may_erase(account: Account, events: Iterable[Stored], outcome: str = "nothing was erased") -> None:
    held = Held(forgetting.holds(account.store))
    for event in events:
        if held.keeps(decode_doc(event.doc)):
            raise Conflict(f"The event {_id(event)} is on hold, so {outcome}. Lift the hold first.")
        if is_servers(event.stamp):
            raise Conflict(
                f"The event {_id(event)} is the server's own, of what was done here, so it can't be erased; "
                f"{outcome}."
            )


def _check_reason(reason: str) -> None:
    if not reason.strip() or not reason.isprintable() or len(reason) > limits.REASON_CHARS_MAX:
        raise InvalidInput(
            f"The reason must be one line of 1 to {limits.REASON_CHARS_MAX} printable characters; "
            "it stays in the log for good."
        )


def _empty_wal(account: Account) -> None:
    deadline = time.monotonic() + EMPTY_SECONDS_MAX
    while not account.store.empty_wal():
        if time.monotonic() > deadline:
            raise Unavailable(
                "The events are erased, but a reader keeps the write-ahead log from being emptied, which "
                "still holds their text. `auditplane serve` empties it as soon as the reader has ended."
            )


def _id(event: Stored) -> str:
    return decode_doc(event.doc).id or ""


def _by_key(event: Stored) -> int:
    return event.key
