"""What a session was told, so what must hold of its folder whenever its machine stops.

What was begun and not acknowledged may have happened or not, each request wholly. All else must be as it was
acknowledged, the log must verify from the entries up, and go on.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from auditplane import backup, checking, keeping, log, rotation, signing
from auditplane.access import Access
from auditplane.checkpoint import Checkpoint, VerifierKey, note_text, parse_checkpoint
from auditplane.errors import AuditplaneError, Gone, NotAuthenticated
from auditplane.event import Rules, parse
from auditplane.query import Query
from auditplane.store.sqlite import sealing, statements
from auditplane.store.sqlite.account import AccountStore
from auditplane.store.sqlite.folder import DataFolder, hold
from torture.session import MIGRATION

_MIGRATIONS: Final = tuple(statements.MIGRATIONS)
PAGE_EVENTS: Final = 1_000

Given = dict[str, Any]


class Broken(Exception):
    """A promise was not kept."""


@dataclass
class Log:
    """What was promised of the log of an account; events are known by their ids."""

    recorded: dict[str, Given] = field(default_factory=dict)
    requests: list[list[str]] = field(default_factory=list)
    begun: list[list[Given]] = field(default_factory=list)
    begun_before_expiry: int = 0
    """How many of those, if they were recorded, show only what a hold keeps since."""
    gone: set[str] = field(default_factory=set)
    going: set[str] = field(default_factory=set)
    held_users: set[str] = field(default_factory=set)
    checkpoints: list[str] = field(default_factory=list)

    def shown(self) -> dict[str, Given]:
        """The events that must be shown."""
        return {each: given for each, given in self.recorded.items() if each not in self.gone | self.going}

    def to_expire(self) -> set[str]:
        """The events that a retention does not keep."""
        return {each for each, given in self.shown().items() if given["user"] not in self.held_users}


class Promises:
    """All that a session has told so far."""

    def __init__(self) -> None:
        self.logs: dict[str, Log] = {}
        self.keys: dict[str, str] = {}
        self.revoked: set[str] = set()
        self.revoking = ""
        self.log_key = ""
        self.is_rotating = False
        self.has_migrated = False
        self.backups: dict[str, dict[str, set[str]] | None] = {}
        self.failures: list[str] = []

    def take(self, text: str) -> None:
        """Takes what was told."""
        what, told = json.loads(text)
        getattr(self, "_" + what.replace(" ", "_"))(**told)

    def _log(self, account: str) -> Log:
        return self.logs.setdefault(account, Log())

    def _opening(self) -> None:
        pass

    def _opened(self, key: str) -> None:
        self.log_key = key

    def _migrating(self) -> None:
        self.has_migrated = True

    def _failed(self, error: str) -> None:
        self.failures.append(error)

    def _recording(self, account: str, requests: list[list[Given]]) -> None:
        self._log(account).begun += requests

    def _recorded(self, account: str, ids: list[list[str]]) -> None:
        found = self._log(account)
        for request, given in zip(ids, found.begun[-len(ids) :], strict=True):
            found.recorded |= dict(zip(request, given, strict=True))
        found.requests += ids
        del found.begun[-len(ids) :]

    def _key(self, account: str, secret: str, id: str = "") -> None:
        self.keys[secret] = id
        self._log(account)

    def _revoking(self, id: str) -> None:
        self.revoking = id

    def _revoked(self, id: str) -> None:
        self.revoked.add(id)

    def _signed(self, account: str, note: str) -> None:
        self._log(account).checkpoints.append(note)

    def _holding(self, account: str, user: str) -> None:
        pass

    def _held(self, account: str, user: str) -> None:
        self._log(account).held_users.add(user)

    def _expiring(self, account: str) -> None:
        found = self._log(account)
        found.going |= found.to_expire()  # it may be begun again
        found.begun_before_expiry = len(found.begun)

    def _expired(self, account: str) -> None:
        self._done(account)

    def _erasing(self, account: str, ids: list[str]) -> None:
        self._log(account).going = set(ids)

    def _erased(self, account: str) -> None:
        self._done(account)

    def _done(self, account: str) -> None:
        found = self._log(account)
        found.gone |= found.going
        found.going = set()

    def _rotating(self) -> None:
        self.is_rotating = True

    def _rotated(self, key: str) -> None:
        self.log_key, self.is_rotating = key, False

    def _backing_up(self, name: str) -> None:
        self.backups[name] = None

    def _backed_up(self, name: str) -> None:
        self.backups[name] = {account: set(found.shown()) for account, found in self.logs.items()}


def examine(promises: Promises, root: Path) -> None:
    """Opens what is left of a session's folder as a server does; raises Broken and AuditplaneError."""
    statements.MIGRATIONS[:] = [*_MIGRATIONS, *([MIGRATION] if promises.has_migrated else [])]
    for is_first in (True, False):
        with _opened(root / "data") as (folder, access):
            _Examination(promises, folder, access).run(go_on=is_first)
    for name, promised in promises.backups.items():
        _examine_backup(root / name, root / f"restored-{name}", promised)


@contextmanager
def _opened(path: Path) -> Iterator[tuple[DataFolder, Access]]:
    """A folder as a server starts on it."""
    folder = DataFolder(path)
    lock = hold(path)
    access = Access(folder, log.clock)
    try:
        access.ensure_admin_key()
        rotation.prepare(folder, None, None, log.clock)
        for name in folder.accounts():
            with folder.account(name) as store:
                keeping.expire(keeping.Account(name, store, log.clock), 0)
        yield folder, access
    finally:
        access.close()
        folder.close()
        os.close(lock)


class _Examination:
    """One look at a folder."""

    def __init__(self, promises: Promises, folder: DataFolder, access: Access) -> None:
        self._promises, self._folder, self._access = promises, folder, access

    def run(self, *, go_on: bool) -> None:
        """All that was promised; with `go_on` the logs are then written to."""
        self._check_keys()
        key = signing.log_key(self._folder.path, None, None)
        self._check_log_key(str(key.verifier))
        verifiers = [key.verifier, *(each.key for each in signing.retired_keys(self._folder.path))]
        for name, promised in self._promises.logs.items():
            with self._folder.account(name, may_begin=not promised.recorded) as store:
                _check_events(store, promised)
                keys = [signing.verifier_for(each, name) for each in verifiers]
                if go_on:
                    _check_log(store, promised, keys, deep=True)
                    _go_on(name, store)
                    log.checkpoint(store, key.for_account(name), log.clock)
                _check_log(store, promised, keys, deep=not go_on)

    def _check_keys(self) -> None:
        for secret, key_id in self._promises.keys.items():
            works = False
            with suppress(NotAuthenticated):
                self._access.authenticate(secret)
                works = True
            if key_id in self._promises.revoked and works:
                raise Broken(f"the key {key_id} works, which was revoked")
            if not works and key_id not in self._promises.revoked and key_id != self._promises.revoking:
                raise Broken(f"the key {key_id} does not work")

    def _check_log_key(self, found: str) -> None:
        promised = self._promises.log_key
        if promised and found != promised and not self._promises.is_rotating:
            raise Broken(f"the log key is {found}, not {promised}")


def _check_events(store: AccountStore, promised: Log) -> None:
    """Those that were acknowledged, in their order, and what was begun wholly or not at all."""
    listed = {each["id"]: each for each in _listed(store) if each["resourceKind"] == "Source"}
    must = promised.shown()
    for event_id, given in must.items():
        found = listed.get(event_id)
        if found is None:
            raise Broken(f"the event {event_id} of {store.path.stem} is lost")
        if any(found[name] != value for name, value in given.items() if name != "timestamp"):
            raise Broken(f"the event {event_id} of {store.path.stem} was changed")
    last = -1
    for request in promised.requests:
        indexes = [store.get(each).index for each in request if each in must]  # type: ignore[union-attr]
        if indexes != sorted(indexes) or (indexes and indexes[0] <= last):
            raise Broken(f"the events of a request of {store.path.stem} are in another order")
        last = indexes[-1] if indexes else last
    for event_id in promised.gone:
        with suppress(Gone):
            if event_id in listed or store.get(event_id) is not None:
                raise Broken(f"the event {event_id} of {store.path.stem} is back")
    more = {each["resourceName"] for each in listed.values() if each["id"] not in promised.recorded}
    for at, begun in enumerate(promised.begun):
        names = {each["resourceName"] for each in begun}
        held = {each["resourceName"] for each in begun if each["user"] in promised.held_users}
        whole = [set(), names, *([held] if at < promised.begun_before_expiry else [])]
        if names & more not in whole:
            raise Broken(f"a request of {store.path.stem} was recorded by half")
        more -= names
    if more - {NEW["resourceName"]}:
        raise Broken(f"{store.path.stem} holds what nobody sent: {more}")


def _listed(store: AccountStore) -> Iterator[Given]:
    """All events that are shown."""
    query: Query | None = Query()
    while query is not None:
        docs, cursor, _ = log.page(store, query, PAGE_EVENTS)
        yield from map(json.loads, docs)
        query = None if cursor is None else Query(cursor=cursor)


def _check_log(store: AccountStore, promised: Log, keys: list[VerifierKey], *, deep: bool) -> None:
    """Verifies it, and that it goes on from every checkpoint that somebody was given."""
    earlier = {f"checkpoint {at}": _parsed(note) for at, note in enumerate(promised.checkpoints)}
    findings = checking.check(store, deep=deep, keys=keys, earlier=earlier)
    if findings.problems:
        raise Broken(f"{store.path.stem} does not verify: {findings.problems}")


def _parsed(note: str) -> Checkpoint:
    return parse_checkpoint(note_text(note.encode()))


NEW: Final = {"resourceName": "new", "resourceKind": "Source", "action": "Created", "user": "later"}


def _go_on(name: str, store: AccountStore) -> None:
    """Records, seals and purges."""
    for _ in range(3):
        batch = parse(json.dumps([NEW] * 12).encode(), Rules(account=name))
        (result,) = log.record(store, [log.Request(batch, "key")], log.clock)
        if isinstance(result, Exception):
            raise result
        sealing.tend(store)
    account = keeping.Account(name, store, log.clock)
    keeping.expire(account, 0)
    while keeping.purge(account, may_begin=True):
        pass
    sealing.settle(store)


def _examine_backup(source: Path, data: Path, promised: dict[str, set[str]] | None) -> None:
    """A backup that came to its end is whole; another one says that it is not."""
    try:
        backup.restore(source, data, log.clock)
    except AuditplaneError:
        if promised is not None:
            raise
        return
    folder = DataFolder(data)
    for name, ids in (promised or {}).items():
        with folder.account(name) as store:
            lost = ids - {each["id"] for each in _listed(store)}
            if lost:
                raise Broken(f"the backup lacks events of {name}: {sorted(lost)}")
    folder.close()
