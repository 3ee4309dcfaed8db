"""Bit rot: single bits of a stored log flip, and whatever is read of it is right, or refused.

The check of the log has to find each of them, but in pages that nothing uses.
"""

import json
import random
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from auditplane import checking, log
from auditplane.errors import Damaged, NotFound, StoreError
from auditplane.event import Rules, parse
from auditplane.query import Order, Query
from auditplane.render import Form
from auditplane.store.sqlite import statements
from auditplane.store.sqlite.account import AccountStore
from torture import session, small

ACCOUNT: Final = "other"
UNSEALED_EVENTS: Final = 100
READS: Final[dict[str, Callable[[AccountStore], object]]] = {
    "a list": lambda store: log.page(store, Query(), 1_000)[0],
    "a list in recorded order": lambda store: log.page(store, Query(order=Order.RECORDED), 1_000)[0],
    "events of a user": lambda store: log.page(store, Query(users=("user1",)), 1_000)[0],
    "events with a word": lambda store: log.page(store, Query(words=(("b20",),)), 1_000)[0],
    "a count": lambda store: log.count(store, Query(users=("user2",))),
    "a download": lambda store: b"".join(
        part for step in log.Answer(store, Query(), Form.CSV, packed=False) for part in step
    ),
}


@dataclass
class Outcome:
    """What came of many flips."""

    flips: int = 0
    found: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)


def tried(seed: int, flips: int) -> Outcome:
    """Flips so many bits, one after the other, each in a copy of the log of a session."""
    small.shrink(setattr, **session.SIZES)
    outcome = Outcome()
    chosen = random.Random(seed)
    with session.watched(seed) as (root, _, code), tempfile.TemporaryDirectory() as folder:
        if code:
            raise RuntimeError(f"the session {seed} failed")
        statements.MIGRATIONS[1:] = [session.MIGRATION]  # the session ended so
        source = root / "data" / "accounts" / f"{ACCOUNT}.db"
        with closing(AccountStore(source)) as store:
            _record_unsealed(store)
            if problems := checking.check(store, deep=True).problems:
                raise RuntimeError(f"the session {seed} left a log that does not verify: {problems}")
            docs = {str(json.loads(doc)["id"]): doc for doc in log.page(store, Query(), 1_000)[0]}
            right = {name: read(store) for name, read in READS.items()}
        data = source.read_bytes()
        for number in range(flips):
            copy = Path(folder) / str(number) / source.name
            copy.parent.mkdir()
            bit = chosen.randrange(len(data) * 8)
            flipped = bytearray(data)
            flipped[bit // 8] ^= 1 << bit % 8
            copy.write_bytes(flipped)
            _try(copy, docs, right, outcome, f"bit {bit}")
            shutil.rmtree(copy.parent)
        del statements.MIGRATIONS[1:]
    return outcome


def _record_unsealed(store: AccountStore) -> None:
    """Events that stand in rows of their own still."""
    events = [
        {"user": f"user{at % 5}", "action": "Paused", "resourceKind": "Source", "resourceName": f"last-{at}"}
        for at in range(UNSEALED_EVENTS)
    ]
    batch = parse(json.dumps(events).encode(), Rules(account=ACCOUNT))
    (result,) = log.record(store, [log.Request(batch, "key")], log.clock)
    if isinstance(result, Exception):
        raise result


def _try(path: Path, docs: dict[str, bytes], right: dict[str, object], outcome: Outcome, what: str) -> None:
    outcome.flips += 1
    try:
        store = AccountStore(path)
    except StoreError:
        outcome.found += 1
        outcome.refused["all"] += 1
        return
    with closing(store):
        refused = 0
        for name, read in READS.items():
            try:
                if read(store) != right[name]:
                    outcome.problems.append(f"{what}: {name} was wrong")
            except StoreError:
                outcome.refused[name] += 1
                refused += 1
        for event_id, doc in docs.items():
            try:
                if log.get(store, event_id) != doc:
                    outcome.problems.append(f"{what}: the event {event_id} was wrong")
            except StoreError:
                outcome.refused["an event"] += 1
                refused += 1
            except NotFound:
                outcome.problems.append(f"{what}: the event {event_id} was not found")
        try:
            is_found = bool(checking.check(store, deep=True).problems)
        except Damaged:
            is_found = True
        outcome.found += is_found
        if refused and not is_found:
            outcome.problems.append(f"{what}: reads were refused, but the check found nothing")
