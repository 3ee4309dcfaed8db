"""The logs of the accounts."""

import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from auditplane import limits
from auditplane.access.stored import Control
from auditplane.checkpoint import VerifierKey, open_note
from auditplane.doctor.finding import Finding, Look, disk_failed, moment, ok, warn, wrong
from auditplane.errors import AuditplaneError, InvalidConfig, NewerFormat, ProofError, StoreError, Unavailable
from auditplane.keeping import covered
from auditplane.signing import log_key, retired_keys, verifier_for
from auditplane.store.sqlite import forgetting
from auditplane.store.sqlite.account import AccountStore, sync_failed
from auditplane.store.sqlite.checks.quick import check_pages_quickly
from auditplane.store.sqlite.folder import ACCOUNTS, accounts_in, format_of, last_backup_us, looked_at
from auditplane.store.sqlite.statements import MIGRATIONS
from auditplane.store.sqlite.verified import last_verified
from auditplane.times import DAY_US

LOOK_SECONDS_MAX: Final = 10.0
"""For the pages of all logs together."""
AHEAD_US_MAX: Final = limits.FUTURE_US_MAX
WAL_BYTES_MAX: Final = 512 * 1024 * 1024
UNSEALED_EVENTS_MAX: Final = 50_000
BACKUP_DAYS_MAX: Final = 7


def check_accounts(look: Look) -> Iterator[Finding]:
    """Each account has its log, and each log its keys."""
    if not isinstance(look.control, Control):
        return
    known, there = set(look.control.accounts), set(accounts_in(look.folder))
    for name in sorted(known - there):
        path = _file(look, name)
        yield wrong(
            "accounts",
            f"The account {name} has API keys, and its log is missing: {path}.",
            f"Put it back, or stop the server and restore a backup. Is there none, `touch {path}` has the "
            "log begin anew, which proves nothing of what was before.",
        )
    for name in sorted(there - known):
        yield warn(
            "accounts",
            f"The account {name} has a log and no API key.",
            f"If it is needed: auditplane keys create --role admin --account {name} --data {look.folder}",
        )


def check_logs(look: Look) -> Iterator[Finding]:
    """Each log can be read, its pages are sound as far as there is time to look, and it is looked after."""
    deadline = time.monotonic() + LOOK_SECONDS_MAX
    names = accounts_in(look.folder)
    seen = _Seen()
    for name in names:
        try:
            yield from _log(look, name, deadline, seen)
        except Unavailable as error:
            yield warn("logs", str(error), "Run this again.")
        except (AuditplaneError, OSError) as error:
            yield _unreadable(look, name, error)
        yield from _noted(look, name)
    pages = "all pages" if seen.whole == len(names) else f"the pages of {seen.whole:,} logs"
    yield ok("logs", f"Accounts: {len(names):,}, events: {seen.events:,}; {pages} were looked at.")


@dataclass(slots=True)
class _Seen:
    """How many events there are in the logs, and how many logs were looked over as a whole."""

    events: int = 0
    whole: int = 0


def _log(look: Look, name: str, deadline: float, seen: _Seen) -> Iterator[Finding]:
    """What is found in the log of an account."""
    path = _file(look, name)
    if not _wal_bytes(path) and format_of(path) != len(MIGRATIONS):
        raise StoreError("its file is none of this version")
    problems: list[str] = []
    with looked_at(look.folder, name) as store:
        seen.events += store.size()
        seen.whole += check_pages_quickly(store, problems.append, deadline - time.monotonic())
        if problems:
            yield _damaged(look, name, problems[0])
        else:
            yield from _state(look, name, store)


def _file(look: Look, name: str) -> Path:
    return look.folder / ACCOUNTS / f"{name}.db"


def _wal_bytes(path: Path) -> int:
    """The size of the write-ahead log, which may hold the newest state of each page."""
    with suppress(FileNotFoundError):
        return path.with_name(path.name + "-wal").stat().st_size
    return 0


def _unreadable(look: Look, name: str, error: Exception) -> Finding:
    """Why a log can't be opened: its format, or damage."""
    path = _file(look, name)
    found = None
    with suppress(OSError):
        found = format_of(path)
        if found is None and not _wal_bytes(path):
            return wrong(
                "logs",
                f"{path} is no database: it is empty, cut off, or something else.",
                f"Stop the server, keep {look.folder} as it is, and restore a backup to another folder.",
            )
    if isinstance(error, NewerFormat) or (found or 0) > len(MIGRATIONS):
        return wrong("logs", f"The log of {name} was written by a newer version.", "Install that version.")
    if found is not None and found < len(MIGRATIONS):
        return warn(
            "logs",
            f"The log of {name} has format {found}; the next start makes format {len(MIGRATIONS)} of it.",
            "Make a backup before: there is no way back to the older version.",
        )
    return _damaged(look, name, str(error))


def _damaged(look: Look, name: str, problem: str) -> Finding:
    return wrong(
        "logs",
        f"The log of {name} is damaged: {problem.rstrip('.')}.",
        "Keep the folder as it is. What is affected is told by: auditplane verify --deep --account "
        f"{name} --data {look.folder}. Then restore a backup.",
    )


def _state(look: Look, name: str, store: AccountStore) -> Iterator[Finding]:
    """How a log is looked after."""
    last_us = store.last_commit_us()
    if last_us > look.now_us + AHEAD_US_MAX:
        yield wrong(
            "clock",
            f"The log of {name} was written to at {moment(last_us)}, which is in the future: this clock "
            "was set back, or was wrong then.",
            "Set the clock. Until it is there, events get times after that one.",
        )
    restored = store.restored()
    if restored is not None:
        yield warn(
            "logs",
            f"The log of {name} was restored at {moment(restored.at_us)}; nothing is signed before "
            "somebody confirms that it goes on from there.",
            f"auditplane log confirm --data {look.folder}",
        )
    yield from _upkeep(look, name, store)
    yield from _held(look, name, store)
    yield from _signer(look, name, store)


def _upkeep(look: Look, name: str, store: AccountStore) -> Iterator[Finding]:
    if look.holder is None:
        return  # the next server does it
    if store.wal_bytes > WAL_BYTES_MAX:
        yield warn(
            "logs",
            f"The write-ahead log of {name} has {store.wal_bytes / 1e6:,.0f} MB.",
            "A backup or check that takes long keeps it from being emptied. If none is under way, see the "
            "server's log for why upkeep fails.",
        )
    unsealed = store.count_tail()
    if unsealed > UNSEALED_EVENTS_MAX:
        yield warn(
            "logs",
            f"Upkeep of {name} lags: {unsealed:,} events are not sealed.",
            f"Beyond {limits.TAIL_EVENTS_MAX:,} recording waits for it. Record more slowly, or on a faster "
            "disk; see the server's log for whether upkeep fails.",
        )


def _held(look: Look, name: str, store: AccountStore) -> Iterator[Finding]:
    """No hold keeps everything for ever while somebody believes that it expires."""
    own = forgetting.retention_days(store)
    days = look.config.retention_days if own is None else own
    for hold in forgetting.holds(store) if days else ():
        if hold.user is None and hold.min_us is None and hold.max_us is None:
            yield warn(
                "retention",
                f"Events of {name} are kept for {days} days, but the hold {hold.id} ({hold.reason}) covers "
                f"{covered(hold)}: nothing expires.",
                f"When it is not needed any more: auditplane hold lift {hold.id} --account {name} --data "
                f"{look.folder}",
            )


def _signer(look: Look, name: str, store: AccountStore) -> Iterator[Finding]:
    """The newest checkpoint is by a key that is known here."""
    with store.snapshot() as connection:
        signed = store.checkpoint_in(connection)
    keys = _verifiers(look, name)
    if signed is None or not keys:
        return
    try:
        open_note(signed.note, keys)
    except ProofError:
        yield wrong(
            "log key",
            f"The newest checkpoint of {name} was signed by none of the keys that this folder knows.",
            "Put the log.key back that signed it. If it is lost: auditplane log rotate --lost",
        )


def _verifiers(look: Look, name: str) -> list[VerifierKey]:
    try:
        current = log_key(look.folder, look.config.log_name, look.config.log_key).verifier
        before = [each.key for each in retired_keys(look.folder)]
    except (InvalidConfig, StoreError):
        return []  # which another check tells
    return [verifier_for(key, name) for key in (current, *before)]


def _noted(look: Look, name: str) -> Iterator[Finding]:
    """What was noted beside a log."""
    if sync_failed(_file(look, name)):
        yield disk_failed(f"the log of {name}", "something is recorded")
    verified = last_verified(look.folder, name)
    if verified is not None and verified.problems:
        yield wrong(
            "logs",
            f"The check of {name} at {moment(verified.at_us)} found {verified.problems:,} problems.",
            f"auditplane verify --data {look.folder} --account {name} names them.",
        )


def check_backup(look: Look) -> Iterator[Finding]:
    """There is a backup that is not too old, once there is something to lose."""
    last_us = last_backup_us(look.folder)
    old_us = look.now_us - BACKUP_DAYS_MAX * DAY_US
    make = f"auditplane backup DIR --data {look.folder}, from a timer"
    if last_us is not None and last_us < old_us:
        yield warn("backup", f"The last one was made at {moment(last_us)}.", make)
    elif last_us is not None:
        yield ok("backup", f"The last one was made at {moment(last_us)}.")
    elif _is_older(look, old_us):
        yield warn(
            "backup", "None was ever made by `auditplane backup`.", f"If nothing else copies it: {make}"
        )
    else:
        yield ok("backup", "There is none, and the folder is new.")


def _is_older(look: Look, us: int) -> bool:
    """Whether the folder is that old: its first key came with it."""
    keys = look.control.keys if isinstance(look.control, Control) else ()
    return bool(keys) and keys[0].created_us < us
