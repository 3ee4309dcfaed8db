"""Bit rot: single bits of a stored log flip, and whatever is read of it is right, or refused.

The check of the log has to find each of them, but in pages that nothing uses. A write-ahead log ends where a
bit has flipped: what is left must be what was once there, and what is behind must be told of. A database of
keys lets nobody in by it.
"""

import json
import random
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from auditplane import checking, log
from auditplane.access import Access
from auditplane.access.key import Key, Role
from auditplane.access.stored import CONTROL_FILE, look_at
from auditplane.errors import Damaged, NotAuthenticated, NotFound, StoreError
from auditplane.event import Rules, parse
from auditplane.query import Order, Query
from auditplane.render import Form
from auditplane.store.sqlite import sealing, statements
from auditplane.store.sqlite.account import AccountStore
from auditplane.store.sqlite.folder import DataFolder
from auditplane.store.sqlite.wal import commits_behind
from torture import session, small

ACCOUNT: Final = "other"
UNSEALED_EVENTS: Final = 100
COMMITS_BEHIND: Final = 6
KEYS: Final = 60
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
    outcome = Outcome()
    with _log_of_a_session(seed) as source:
        with closing(AccountStore(source)) as store:
            _record_unsealed(store)
            if problems := checking.check(store, deep=True).problems:
                raise RuntimeError(f"the session {seed} left a log that does not verify: {problems}")
            docs = {str(json.loads(doc)["id"]): doc for doc in log.page(store, Query(), 1_000)[0]}
            right = _read(store)
        for path, what in _flipped(seed, flips, source, (source,)):
            _try(path, docs, right, outcome, what)
    return outcome


def tried_behind(seed: int, flips: int) -> Outcome:
    """The same with the write-ahead log that a kill leaves: it ends before the bit."""
    outcome = Outcome()
    with _log_of_a_session(seed) as source, closing(AccountStore(source)) as store:
        right = {store.size(): _read(store)}
        for _ in range(COMMITS_BEHIND):
            _record_unsealed(store)
            right[store.size()] = _read(store)
            sealing.seal(store)
        wal = source.with_name(source.name + "-wal")
        for path, what in _flipped(seed, flips, wal, (source, wal)):
            _try_behind(path.with_name(source.name), right, outcome, what)
    return outcome


def tried_keys(seed: int, flips: int) -> Outcome:
    """The same with the database of the keys."""
    outcome = Outcome()
    with tempfile.TemporaryDirectory() as name:
        folder = DataFolder(Path(name) / "data")
        access = Access(folder, log.clock)
        keys: dict[str, Key | None] = {}
        for at in range(KEYS):
            key, secret = access.create(account=ACCOUNT, role=list(Role)[at % 3], by="rot", description="rot")
            keys[secret] = key
            if at % 4 == 0:
                access.revoke(key.id, account=ACCOUNT, by="rot")
                keys[secret] = None
        access.close()
        folder.close()
        source = Path(name) / "data" / CONTROL_FILE
        for path, what in _flipped(seed, flips, source, (source,)):
            _try_keys(path.parent, keys, outcome, what)
    return outcome


@contextmanager
def _log_of_a_session(seed: int) -> Iterator[Path]:
    """The database that a session has left."""
    small.shrink(setattr, **session.SIZES)
    with session.watched(seed) as (root, _, code):
        if code:
            raise RuntimeError(f"the session {seed} failed")
        statements.MIGRATIONS[1:] = [session.MIGRATION]  # the session ended so
        yield root / "data" / "accounts" / f"{ACCOUNT}.db"
        del statements.MIGRATIONS[1:]


def _flipped(seed: int, flips: int, file: Path, needed: Sequence[Path]) -> Iterator[tuple[Path, str]]:
    """So many copies of a file and what it needs, in each of which a bit of the file is another."""
    chosen = random.Random(seed)
    contents = {path.name: path.read_bytes() for path in needed}
    for _ in range(flips):
        bit = chosen.randrange(len(contents[file.name]) * 8)
        with tempfile.TemporaryDirectory() as folder:
            for name, data in contents.items():
                (Path(folder) / name).write_bytes(data)
            flipped = bytearray(contents[file.name])
            flipped[bit // 8] ^= 1 << bit % 8
            (Path(folder) / file.name).write_bytes(flipped)
            yield Path(folder) / file.name, f"bit {bit}"


def _read(store: AccountStore) -> dict[str, object]:
    return {name: read(store) for name, read in READS.items()}


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


def _try_behind(path: Path, right: dict[int, dict[str, object]], outcome: Outcome, what: str) -> None:
    outcome.flips += 1
    told = commits_behind(path)
    with closing(AccountStore(path)) as store:
        size, was = store.size(), max(right)
        if _read(store) != right.get(size):
            outcome.problems.append(f"{what}: of {was} events {size} are left, and they are not as they were")
        if problems := checking.check(store, deep=True).problems:
            outcome.problems.append(f"{what}: the check found {problems}")
    if size < was and told:
        outcome.found += 1
    elif size < was and sorted(right)[-2:] != [size, was]:  # the last commit of all may be beyond knowing
        outcome.problems.append(f"{what}: {was - size} events are gone, and nothing tells of it")
    outcome.refused["of the last commits"] += size < was


def _try_keys(folder: Path, keys: Mapping[str, Key | None], outcome: Outcome, what: str) -> None:
    outcome.flips += 1
    try:
        is_found = bool(look_at(folder)[1])
    except StoreError:
        is_found = True
    outcome.found += is_found
    try:
        data = DataFolder(folder)
        access = Access(data, log.clock)
    except StoreError:
        outcome.refused["all"] += 1
        return
    refused = 0
    for secret, key in keys.items():
        try:
            found = access.authenticate(secret)
        except NotAuthenticated:
            found = None
        except StoreError:
            refused += 1
            continue
        if found != key:
            outcome.problems.append(f"{what}: a key was {found}, not {key}")
    outcome.refused["a key"] += refused
    if refused and not is_found:
        outcome.problems.append(f"{what}: keys were refused, but the check found nothing")
    access.close()
    data.close()
