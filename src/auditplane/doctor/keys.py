"""Who may do what, and what signs."""

from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from typing import Final

from auditplane.access.key import Key, Right
from auditplane.access.stored import CONTROL_FILE, Control, opens, sync_failed
from auditplane.doctor.finding import Finding, Look, disk_failed, moment, ok, warn, wrong
from auditplane.errors import AuditplaneError, InvalidConfig, NewerFormat, StoreError
from auditplane.rotation import NEXT_FILE
from auditplane.signing import KEY_FILE, log_key, retired_keys
from auditplane.store.sqlite.folder import accounts_in, looked_at
from auditplane.times import DAY_US

ADMIN_KEY_FILE: Final = "admin.key"
EXPIRES_DAYS_MIN: Final = 14
ADMIN_KEY_DAYS_MAX: Final = 7
ATTEMPTS_MAX: Final = 10
LISTED_MAX: Final = 10
READ_BY_OTHERS: Final = 0o077


def check_keys(look: Look) -> Iterator[Finding]:
    """Keys can be looked up, some work, and none ends soon."""
    if isinstance(look.control, Control):
        yield from _working(look, look.control)
        yield from _ending(look, look.control)
        if sync_failed(look.folder):
            yield disk_failed("a change of API keys", "the next change is made")
    else:
        yield _unreadable(look, look.control)


def _unreadable(look: Look, error: AuditplaneError) -> Finding:
    path = look.folder / CONTROL_FILE
    if isinstance(error, NewerFormat):
        return wrong("keys", str(error), "Install that version; an older one can't go back.")
    if not path.exists() and not _was_started(look):
        return ok("keys", "There are none yet: the first start makes the first one.")
    if not path.exists():
        return wrong(
            "keys",
            f"{path}, which holds all API keys, is missing.",
            "Put it back from a backup: without it the server does not start, or begins with none of them.",
        )
    return wrong(
        "keys", f"{path} can't be read: {str(error).rstrip('.')}.", "Stop the server, and restore a backup."
    )


def _was_started(look: Look) -> bool:
    """Whether a server has ever come further than to find its address taken."""
    made = [look.folder / name for name in (ADMIN_KEY_FILE, KEY_FILE)]
    return any(path.exists() for path in made) or bool(accounts_in(look.folder))


def _working(look: Look, control: Control) -> Iterator[Finding]:
    """Each account has somebody who can manage it."""
    working = [key for key in control.keys if key.works_at(look.now_us)]
    managed = {key.account for key in working if key.may(Right.MANAGE)}
    make = f"auditplane keys create --role admin --data {look.folder} --account"
    if not working:
        yield wrong("keys", "No API key works: nobody can record or read.", f"{make} default")
        return
    for account in sorted({key.account for key in control.keys} - managed)[:LISTED_MAX]:
        yield warn("keys", f"No key of an admin works in the account {account}.", f"{make} {account}")
    counts = Counter(key.role.value for key in working)
    roles = ", ".join(f"{role}s: {count:,}" for role, count in sorted(counts.items()))
    yield ok("keys", f"{len(working):,} of {len(control.keys):,} work ({roles}).")


def _ending(look: Look, control: Control) -> Iterator[Finding]:
    soon_us = look.now_us + EXPIRES_DAYS_MIN * DAY_US
    for key in control.keys[-1_000:]:
        if key.works_at(look.now_us) and key.expires_us is not None and key.expires_us < soon_us:
            yield warn(
                "keys",
                f"The key {_named(key)} of the account {key.account} ends at {moment(key.expires_us)}.",
                f"If it is still needed: auditplane keys create --role {key.role.value} --account "
                f"{key.account} --data {look.folder}",
            )


def _named(key: Key) -> str:
    return f"{key.id} ({key.description})" if key.description else key.id


def check_admin_key(look: Look) -> Iterator[Finding]:
    """The key of the first start does not lie there for ever."""
    path = look.folder / ADMIN_KEY_FILE
    if not isinstance(look.control, Control):
        return
    try:
        secret, found = path.read_text("utf-8").strip(), path.stat()
    except FileNotFoundError:
        return
    except UnicodeDecodeError:
        yield warn("admin.key", f"{path} holds no key.", f"Remove it: rm {path}")
        return
    key_id = opens(secret, look.folder)
    keys = [key for key in look.control.keys if key.id == key_id]
    if not keys or not keys[0].works_at(look.now_us):
        yield warn("admin.key", f"The key in {path} does not work any more.", f"Remove it: rm {path}")
    elif look.now_us > found.st_mtime_ns // 1_000 + ADMIN_KEY_DAYS_MAX * DAY_US:
        yield warn(
            "admin.key",
            f"The key of the first start still lies in {path}.",
            "Keep it where you keep secrets, or make keys for each purpose, and remove the file.",
        )
    else:
        yield ok("admin.key", f"The key of the first start is in {path}: keep it elsewhere, and remove it.")


def check_signing_in(look: Look) -> Iterator[Finding]:
    """Nobody tries keys at the page."""
    control = look.control
    if not isinstance(control, Control):
        return
    if control.failed_attempts >= ATTEMPTS_MAX:
        yield warn(
            "signing in",
            f"Signing in failed {control.failed_attempts:,} times within ten minutes.",
            "See in the server's log where `/sign-in` was asked from. Keys can't be guessed, and each "
            "address is refused for a while.",
        )
    else:
        yield ok("signing in", f"{control.sessions:,} are signed in to the page.")


# What signs.


def check_log_key(look: Look) -> Iterator[Finding]:
    """The key that signs checkpoints can be read, and by nobody else."""
    path = look.config.log_key or look.folder / KEY_FILE
    if not path.exists() and look.config.log_key is None and not _has_signed(look):
        yield ok("log key", "There is none yet: the first start makes it.")
        return
    try:
        key = log_key(look.folder, look.config.log_name, look.config.log_key)
        retired = retired_keys(look.folder)
    except (InvalidConfig, StoreError) as error:
        yield wrong("log key", f"{str(error).rstrip('.')}.", _LOST)
        return
    if path.stat().st_mode & READ_BY_OTHERS:
        yield wrong(
            "log key",
            f"The mode of {path} lets others read it, and sign with it, wherever its folder is open to them.",
            f"chmod 600 {path}; if somebody has read it: auditplane log rotate --leaked --data {look.folder}",
        )
    else:
        before = f", after {len(retired)} others" if retired else ""
        yield ok("log key", f"{path} signs for {key.verifier.name}{before}.")


_LOST: Final = (
    "Put it back from where a copy is kept; if it is lost, `auditplane log rotate --lost` makes another one."
)


def _has_signed(look: Look) -> bool:
    """Whether there is a checkpoint of any log, as far as they can be read."""
    for name in accounts_in(look.folder):
        with (
            suppress(AuditplaneError, OSError),
            looked_at(look.folder, name) as store,
            store.snapshot() as connection,
        ):
            if store.checkpoint_in(connection) is not None:
                return True
    return False


def check_changed_key(look: Look) -> Iterator[Finding]:
    """No change of the key was left unfinished."""
    if (look.folder / NEXT_FILE).exists():
        yield warn(
            "log key",
            f"A change of the log key was begun and has not ended: there is {look.folder / NEXT_FILE}.",
            f"auditplane log rotate --data {look.folder} ends it, as the next start does.",
        )
