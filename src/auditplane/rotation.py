"""Changing the key that signs, also in place of one that leaked or was lost.

The logs keep their names and their trees, so checkpoints by the old key are still the beginning of those by
the new one. A change is these steps, each on the disk before the next:

1. `log.key.next` holds the new key, and what the change is.
2. The log of each account has an event of it, with an endorsement by the old key unless that one leaked.
3. `log.retired` names the old key.
4. `log.key` is the new key. Servers look at that file whenever they sign.
5. `log.key.next` is removed.

Until the fourth step the old key signs, from then on the new one. A change that was broken off is ended by
the next `log rotate`, `backup` or `serve`: each step is passed over where it was done, as the id of the
events is written down with the new key, and a log takes an id once. It is never undone, since from the second
step on somebody may have read of it.
"""

import fcntl
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

import msgspec

from auditplane import forgotten, limits, log, ulid
from auditplane.checkpoint import (
    SignerKey,
    VerifierKey,
    parse_signer_key,
    parse_verifier_key,
    sign_endorsement,
)
from auditplane.errors import (
    AuditplaneError,
    FolderInUse,
    Gone,
    InvalidInput,
    NotFound,
    ProofError,
    StoreError,
)
from auditplane.signing import (
    KEY_FILE,
    PREFIX,
    log_key,
    make_log_key,
    new_signer,
    retire,
    retired_keys,
    verifier_for,
)
from auditplane.store.sqlite.database import sync_folder, translated
from auditplane.store.sqlite.folder import DataFolder, write_secret
from auditplane.times import format_us

NEXT_FILE: Final = "log.key.next"
LOCK_FILE: Final = "log.lock"

_log = logging.getLogger(__name__)


class Why(StrEnum):
    """Why the key is changed."""

    REPLACED = "replaced"
    LEAKED = "leaked"
    LOST = "lost"


@dataclass(frozen=True)
class Change:
    """A change of the key: from `old`, None when that is unknown, to `new`; `id` is that of its events."""

    id: str
    at_us: int
    user: str
    reason: str
    why: Why
    old: VerifierKey | None
    new: SignerKey

    @property
    def is_endorsed(self) -> bool:
        """Whether the word of the old key counts."""
        return self.why == Why.REPLACED


def rotate(
    folder: DataFolder,
    user: str,
    clock: log.Clock,
    *,
    why: Why = Why.REPLACED,
    reason: str = "",
    name: str | None = None,
) -> Change:
    """Has a new key sign from now on; when it returns, it does.

    Ends a change that was broken off; a key that leaked meanwhile is then changed once more. `name` is for a
    lost key of which nothing in the folder tells the name. Raises InvalidInput, NotFound, InvalidConfig,
    FolderInUse and StoreError; nothing has changed then, or the next call ends it.
    """
    if len(reason) > limits.REASON_CHARS_MAX or not reason.isprintable():
        raise InvalidInput(f"The reason must be one line of at most {limits.REASON_CHARS_MAX} characters.")
    with translated(folder.path), alone(folder.path):
        begun = _begun(folder.path)
        if begun is not None:
            _finish(folder, begun, clock)
            if why != Why.LEAKED or begun.why == Why.LEAKED:
                return begun
        change = _change(folder, user, clock, why, reason, name)
        write_secret(folder.path / NEXT_FILE, _encoded(change))
        _finish(folder, change, clock)
        return change


def finish(folder: DataFolder, clock: log.Clock) -> None:
    """Ends a change that was broken off, if there is one; the caller is `alone`."""
    with translated(folder.path):
        begun = _begun(folder.path)
        if begun is not None:
            _finish(folder, begun, clock)


def prepare(folder: DataFolder, name: str | None, given: Path | None, clock: log.Clock) -> None:
    """Readies the key for a server: ends a change that was broken off, and makes the first key.

    Raises InvalidConfig when the key can't be used, and StoreError when the key of logs that have signed
    checkpoints is missing: another one would be that of other logs.
    """
    if given is None:
        try:
            with alone(folder.path):
                _finish_or_say(folder, clock)
                if not (folder.path / KEY_FILE).exists():
                    _make_first(folder, name)
        except FolderInUse:  # a change, or a backup, is under way
            if not (folder.path / KEY_FILE).exists():
                raise
    log_key(folder.path, name, given)


def _finish_or_say(folder: DataFolder, clock: log.Clock) -> None:
    """A change that can't be ended is no reason not to serve: the old key signs on."""
    try:
        finish(folder, clock)
    except AuditplaneError as error:
        _log.error("the change of the log key that was begun can't be ended: %s", error)


def _make_first(folder: DataFolder, name: str | None) -> None:
    known, _ = _known(folder)
    if known is not None:
        raise StoreError(
            f"The key {folder.path / KEY_FILE} is missing, which has signed for the logs of this folder, "
            f"{known}/…. Put it back from where it is kept; if it is lost, `auditplane log rotate --lost "
            f"--data {folder.path}` makes another one for them."
        )
    make_log_key(folder.path, name)


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Holds what is about the key of a folder against other changes and backups; raises FolderInUse."""
    with translated(path):
        descriptor = os.open(path / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise FolderInUse(
                f"A backup of {path} or a change of its log key is under way; try again when it has ended."
            ) from None
        yield
    finally:
        os.close(descriptor)


# The steps.


def _change(
    folder: DataFolder, user: str, clock: log.Clock, why: Why, reason: str, name: str | None
) -> Change:
    """A change that is wanted."""
    path = folder.path / KEY_FILE
    old: VerifierKey | None
    if why == Why.LOST:
        if path.exists():
            raise InvalidInput(f"The key is not lost, it is {path}. Leave out --lost to change it.")
        known, old = _known(folder)
        server = _lost_name(known, name)
    else:
        if not path.exists():
            raise NotFound(
                f"There is no log key {path} to change. If it is lost, add --lost; if the server has it from "
                "the setting log.key, copy it there first."
            )
        old = log_key(folder.path, name, None).verifier
        server = old.name
    retired_keys(folder.path)  # which must be legible before anything is begun
    now = clock()
    event_id = ulid.make(now << ulid.COUNTER_BITS, os.urandom(ulid.RANDOM_BYTES))
    return Change(event_id, now, user, reason, why, old, new_signer(server))


def _lost_name(known: str | None, name: str | None) -> str:
    """What a lost key was called."""
    given = None if name is None else PREFIX + name
    if known is None and given is None:
        raise InvalidInput("Nothing in the folder tells how its logs were called; say it with --name.")
    if known is not None and given not in (None, known):
        raise InvalidInput(f"The logs of this folder are called {known}/…, not {given}/….")
    return known or given or ""


def _known(folder: DataFolder) -> tuple[str | None, VerifierKey | None]:
    """How the key of the logs is called, and the key, as far as what was signed or restored tells."""
    name: str | None = None
    for account in folder.accounts():
        with suppress(AuditplaneError), folder.account(account) as store, store.snapshot() as connection:
            restored, signed = store.restored_in(connection), store.checkpoint_in(connection)
            if restored is not None and restored.key:
                key = parse_verifier_key(restored.key)
                name = key.name.removesuffix(f"/{account}")
                return name, VerifierKey(name, key.public)
            if signed is not None:
                name = signed.note.decode().partition("\n")[0].removesuffix(f"/{account}")
    if name is None:
        name = next((each.key.name for each in retired_keys(folder.path)), None)
    return name, None


def _finish(folder: DataFolder, change: Change, clock: log.Clock) -> None:
    """Does what is left of a change."""
    old = _signer_in_use(folder.path, change)
    recorded: set[str] = set()
    # Accounts may come to be meanwhile.
    while missing := set(folder.accounts()) - recorded:
        for account in sorted(missing):
            _record(folder, account, change, old, clock)
        recorded |= missing
    if change.old is not None:
        retire(folder.path, change.old, format_us(change.at_us), change.why)
    if old != change.new:
        write_secret(folder.path / KEY_FILE, change.new.secret)
    for account in sorted(set(folder.accounts()) - recorded):
        _record(folder, account, change, old, clock)
    (folder.path / NEXT_FILE).unlink()
    sync_folder(folder.path)


def _signer_in_use(path: Path, change: Change) -> SignerKey | None:
    """The key in `log.key`, if any; raises StoreError when it is neither of the change."""
    if not (path / KEY_FILE).exists():
        return None
    found = log_key(path, None, None).signer
    if found != change.new and found.verifier != change.old:
        raise StoreError(
            f"{path / NEXT_FILE} is of a change from another key than {path / KEY_FILE}, which was put there "
            f"since. Remove {path / NEXT_FILE}, and change the key again if it shall be."
        )
    return found


def _record(
    folder: DataFolder, account: str, change: Change, old: SignerKey | None, clock: log.Clock
) -> None:
    """Records a change in the log of an account, once."""
    with folder.account(account) as store:
        event_id = change.id
        try:
            if store.get(event_id) is not None:
                return
        except Gone:  # it was begun so long ago that what was recorded of it expired: it is told anew
            event_id = ""
        batch = log.of_the_trail(
            account,
            f"{change.new.name}/{account}",
            change.user,
            _description(change),
            _details(change, account, old),
            event_id,
        )
        (result,) = log.record(store, [log.Request(batch, forgotten.SYSTEM)], clock)
        if isinstance(result, Exception):
            raise result


def _description(change: Change) -> str:
    what = {
        Why.REPLACED: "The key that signs checkpoints was changed",
        Why.LEAKED: "The key that signs checkpoints leaked and was changed",
        Why.LOST: "The key that signs checkpoints was lost; another one was made",
    }[change.why]
    return f"{what}: {change.reason}" if change.reason else what


def _details(change: Change, account: str, old: SignerKey | None) -> dict[str, Any]:
    """What the event says: keys to verify with, and nothing secret."""
    new = verifier_for(change.new.verifier, account)
    details: dict[str, Any] = {
        "oldKey": None if change.old is None else str(verifier_for(change.old, account)),
        "newKey": str(new),
        "why": change.why,
    }
    if change.reason:
        details["reason"] = change.reason
    if change.is_endorsed and old is not None and old != change.new:
        note = sign_endorsement(SignerKey(f"{old.name}/{account}", old.seed), new)
        details["endorsement"] = note.decode()
    return details


# What is written down first.


class _Kept(msgspec.Struct):
    """A change in its file."""

    id: str
    at: int
    user: str
    reason: str
    why: Why
    old: str | None
    new: str


def _encoded(change: Change) -> str:
    old = None if change.old is None else str(change.old)
    kept = _Kept(change.id, change.at_us, change.user, change.reason, change.why, old, change.new.secret)
    return msgspec.json.encode(kept).decode()


def _begun(path: Path) -> Change | None:
    """The change that was begun and not ended; raises StoreError."""
    try:
        kept = msgspec.json.decode((path / NEXT_FILE).read_bytes(), type=_Kept)
        old = None if kept.old is None else parse_verifier_key(kept.old)
        new = parse_signer_key(kept.new)
        return Change(kept.id, kept.at, kept.user, kept.reason, kept.why, old, new)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ProofError):
        raise StoreError(
            f"{path / NEXT_FILE}, which was to be the next log key, can't be read. Remove it, and change the "
            "key again."
        ) from None
