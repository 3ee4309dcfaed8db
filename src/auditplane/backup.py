"""Backups of a data folder, and folders made from them.

A backup is a folder with a copy of each database, as each was in one moment, and `backup.json`, which tells
what must be in them. That file is written at the end, when all copies have been checked: a folder without it
is no backup. As long as one is made, and when making it failed, there is a file `UNFINISHED`.

Which keys are in it: those that worked when the backup began, less those that were revoked until it ended. So
each of them is in the trail of its account, and none works that was revoked before.

What is restored is checked before it is in its place, and marked: nothing is signed until the operator
confirms that the logs go on from there (see `log.confirm`).
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Final

import msgspec

from auditplane import __version__, log, rotation
from auditplane.access import Access
from auditplane.access.stored import CONTROL_FILE, copy_keys
from auditplane.checking import Findings, check
from auditplane.checkpoint import VerifierKey, parse_verifier_key
from auditplane.errors import (
    AuditplaneError,
    Damaged,
    InvalidInput,
    NewerFormat,
    NotFound,
    ProofError,
    StorageFull,
    StoreError,
)
from auditplane.signing import KEY_FILE, RETIRED_FILE, LogKey, log_key, verifier_for
from auditplane.store import Restored
from auditplane.store.sqlite.account import AccountStore
from auditplane.store.sqlite.copying import copy_database
from auditplane.store.sqlite.database import make_folder, sync_folder, translated
from auditplane.store.sqlite.folder import (
    ACCOUNT_NAME,
    ACCOUNTS,
    RESTORING,
    DataFolder,
    accounts_in,
    write_secret,
)
from auditplane.times import format_us, parse_rfc3339

MANIFEST: Final = "backup.json"
UNFINISHED: Final = "UNFINISHED"
FORMAT: Final = 1
COPY_BYTES: Final = 1024 * 1024

_NOT_OURS: Final = {"lost+found"}


Watch = Callable[[str, int | None], AbstractContextManager[Callable[[int, int], None]]]
"""Shows how far something has come: opened with a title and a total, told how much and how many are done."""


@contextmanager
def unwatched(_title: str, _total: int | None) -> Iterator[Callable[[int, int], None]]:
    """Where nobody looks."""
    yield lambda _done, _events: None


class File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a file of a backup must be."""

    bytes: int
    sha256: str


class Account(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the log of an account must be. `key` is its verifier key, and empty where the folder had none."""

    name: str
    size: int
    root: bytes
    origin: str
    key: str


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """What `backup.json` tells; `at` is when the backup began, `key` the verifier key of the server."""

    version: int
    program: str
    at: str
    key: str
    with_key: bool
    accounts: list[Account]
    files: dict[str, File]

    @property
    def verifier(self) -> VerifierKey | None:
        """The verifier key of the server."""
        return parse_verifier_key(self.key) if self.key else None


@dataclass(frozen=True)
class Begun:
    """What is to be copied."""

    at_us: int
    accounts: Sequence[str]
    key_ids: Sequence[str]


@contextmanager
def begun(folder: DataFolder, access: Access, clock: log.Clock) -> Iterator[Begun]:
    """What to copy of a folder, whose log key nobody changes meanwhile; raises FolderInUse."""
    with rotation.alone(folder.path):
        rotation.finish(folder, clock)
        now = clock()
        # Keys first: each account that has one has its log by then.
        key_ids = [key.id for key in access.keys(None)]
        yield Begun(now, folder.accounts(), key_ids)


def make(
    data: Path,
    wanted: Begun,
    target: Path,
    key: LogKey | None,
    *,
    with_key: bool,
    watch: Watch = unwatched,
) -> Manifest:
    """Makes a backup in a new or empty folder; `key` is the one that signs, if there is one.

    Raises InvalidInput for a folder that is not empty, and Damaged when what was copied is not sound: it is
    left there, marked as unfinished.
    """
    if with_key and key is None:
        raise NotFound("There is no log key to put into the backup.")
    if target.resolve().is_relative_to(data.resolve()):
        raise InvalidInput(f"{target} is in the data folder; a backup belongs elsewhere.")
    _make_empty(target)
    try:
        with translated(target):
            return _made(data, wanted, target, key, with_key, watch)
    except StorageFull:
        raise StorageFull(f"The disk that holds {target} is full; the backup is not finished.") from None


def _made(
    data: Path, wanted: Begun, target: Path, key: LogKey | None, with_key: bool, watch: Watch
) -> Manifest:
    """Makes a backup in an empty folder, which is marked until it is finished."""
    mark = target / UNFINISHED
    write_secret(
        mark, f"The backup of {data} that began at {format_us(wanted.at_us)} has not come to its end."
    )
    _copy(data, wanted, target)
    if with_key and key is not None:
        write_secret(target / KEY_FILE, key.signer.secret)
    accounts = _checked(target, wanted, None if key is None else key.verifier, watch)
    manifest = Manifest(
        version=FORMAT,
        program=__version__,
        at=format_us(wanted.at_us),
        key="" if key is None else str(key.verifier),
        with_key=with_key,
        accounts=accounts,
        files={path.relative_to(target).as_posix(): _file(path) for path in _files(target)},
    )
    sync_folder(target / ACCOUNTS)
    write_secret(target / MANIFEST, msgspec.json.format(msgspec.json.encode(manifest)).decode())
    mark.unlink()
    sync_folder(target)
    return manifest


def _copy(data: Path, wanted: Begun, target: Path) -> None:
    """Copies what there is of a folder but for the key that signs; keys come last."""
    (target / ACCOUNTS).mkdir(mode=0o700)
    for name in wanted.accounts:
        copy_database(data / ACCOUNTS / f"{name}.db", target / ACCOUNTS / f"{name}.db")
    copy_keys(data, target / CONTROL_FILE, wanted.key_ids)
    with suppress(FileNotFoundError):
        write_secret(target / RETIRED_FILE, (data / RETIRED_FILE).read_text("utf-8").rstrip("\n"))


def _make_empty(path: Path) -> None:
    """Makes a folder, or takes one that is empty."""
    try:
        make_folder(path)
        if {entry.name for entry in path.iterdir()} - _NOT_OURS:
            raise InvalidInput(f"{path} is not empty. Give the path of a new folder, or of an empty one.")
        path.chmod(0o700)
    except OSError as error:
        raise StoreError(f"The folder {path} can't be used: {error.strerror}.") from None


def _files(folder: Path) -> list[Path]:
    """The files that the manifest tells of."""
    found = [folder / ACCOUNTS / f"{name}.db" for name in accounts_in(folder)]
    return [
        path
        for path in (folder / CONTROL_FILE, folder / RETIRED_FILE, folder / KEY_FILE, *found)
        if path.exists()
    ]


def _file(path: Path) -> File:
    hashed = sha256()
    size = 0
    with path.open("rb") as file:
        while part := file.read(COPY_BYTES):
            hashed.update(part)
            size += len(part)
    return File(size, hashed.hexdigest())


def _checked(target: Path, wanted: Begun, key: VerifierKey | None, watch: Watch) -> list[Account]:
    """What was copied, checked; raises Damaged, and says why beside the copies."""
    accounts = []
    problems: list[str] = []
    for name in wanted.accounts:
        verifier = None if key is None else verifier_for(key, name)
        try:
            with _opened(target / ACCOUNTS, name, readonly=True) as store:
                findings = _check(store, name, watch)
        except (AuditplaneError, OSError) as error:
            problems.append(f"{name}: {error}")
        else:
            problems += [f"{name}: {problem}" for problem in findings.problems]
            origin, text = ("", "") if verifier is None else (verifier.name, str(verifier))
            accounts.append(Account(name, findings.size, findings.root, origin, text))
    if problems:
        write_secret(target / UNFINISHED, "\n".join(["What was copied is not sound.", *problems]))
        raise Damaged(
            f"The backup in {target} is of no use: what was copied is not sound. {problems[0]} "
            f"{target / UNFINISHED} lists all that was found; check the folder itself with auditplane verify."
        )
    return accounts


def _check(store: AccountStore, name: str, watch: Watch) -> Findings:
    """Checks a log that was copied."""
    with watch(f"check {name}", store.size()) as shown:
        return check(store, report=lambda done, _total: shown(done, done))


@contextmanager
def _opened(folder: Path, name: str, *, readonly: bool = False) -> Iterator[AccountStore]:
    store = AccountStore(folder / f"{name}.db", readonly=readonly)
    try:
        yield store
    finally:
        store.close()


# Restoring.


def restore(source: Path, data: Path, clock: log.Clock, *, watch: Watch = unwatched) -> Manifest:
    """Makes a data folder from a backup; raises InvalidInput, NotFound, NewerFormat, StoreError and Damaged.

    When it fails, what was copied is left in a folder of its own, and no server takes the data folder.
    """
    manifest = read_manifest(source)
    _make_empty(data)
    with translated(data):
        _restore(source, data, manifest, clock, watch)
    return manifest


def _restore(source: Path, data: Path, manifest: Manifest, clock: log.Clock, watch: Watch) -> None:
    """Copies a backup to an empty folder, checks the copy, and puts it in its place."""
    unfinished = data / RESTORING
    unfinished.mkdir(mode=0o700)
    (unfinished / ACCOUNTS).mkdir(mode=0o700)
    for name, expected in manifest.files.items():
        _copy_file(source / name, unfinished / name, expected)
    _check_key(unfinished, manifest)
    for account in manifest.accounts:
        with _opened(unfinished / ACCOUNTS, account.name) as store:
            _check_expected(_check(store, account.name, watch), account)
            backup_us = parse_rfc3339(manifest.at)
            store.mark_restored(Restored(clock(), backup_us, account.size, account.root, account.key))
    sync_folder(unfinished / ACCOUNTS)
    # The keys come last: a folder without them is taken for none.
    for name in (ACCOUNTS, RETIRED_FILE, KEY_FILE, CONTROL_FILE):
        if (unfinished / name).exists():
            (unfinished / name).rename(data / name)
    sync_folder(data)
    unfinished.rmdir()
    sync_folder(data)


def read_manifest(source: Path) -> Manifest:
    """What a backup is said to hold."""
    if (source / UNFINISHED).exists():
        raise Damaged(
            f"The backup in {source} was never finished; {source / UNFINISHED} says what is known of it."
        )
    try:
        text = (source / MANIFEST).read_bytes()
    except OSError as error:
        raise NotFound(f"{source} is no backup: {MANIFEST} can't be read ({error.strerror}).") from None
    try:
        version = msgspec.json.decode(text, type=dict[str, msgspec.Raw])["version"]
        if msgspec.json.decode(version, type=int) > FORMAT:
            raise NewerFormat(
                f"{source} was made by a newer version of Auditplane. Update it to restore this."
            )
        manifest = msgspec.json.decode(text, type=Manifest)
        parse_rfc3339(manifest.at)
        for account in manifest.accounts:
            _check_account(manifest, account)
        needed = {CONTROL_FILE, *(_path(account.name) for account in manifest.accounts)}
        if not needed <= manifest.files.keys() <= needed | {RETIRED_FILE, KEY_FILE}:
            raise ValueError("its files are not those of a backup")
        if manifest.with_key != (KEY_FILE in manifest.files):
            raise ValueError("withKey is wrong")
    except (msgspec.MsgspecError, KeyError, ValueError, RecursionError, ProofError) as error:
        raise Damaged(f"{source / MANIFEST} is not what a backup writes: {error}.") from None
    return manifest


def _path(account: str) -> str:
    return f"{ACCOUNTS}/{account}.db"


def _check_account(manifest: Manifest, account: Account) -> None:
    """Raises ValueError when what is said of an account can't be."""
    if not ACCOUNT_NAME.fullmatch(account.name):
        raise ValueError(f"{account.name!r} is not the name of an account")
    expected = "" if manifest.verifier is None else str(verifier_for(manifest.verifier, account.name))
    if account.key != expected:
        raise ValueError(f"the key of {account.name} is not that of the server")


def _copy_file(source: Path, target: Path, expected: File) -> None:
    """Copies a file to the disk; raises Damaged when it is not what it must be."""
    hashed = sha256()
    size = 0
    try:
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as writing, source.open("rb") as reading:
            while part := reading.read(COPY_BYTES):
                hashed.update(part)
                size += writing.write(part)
            writing.flush()
            os.fsync(writing.fileno())
    except OSError as error:
        raise StoreError(f"{source} can't be copied to {target}: {error.strerror}.") from None
    if File(size, hashed.hexdigest()) != expected:
        raise Damaged(f"{source} is not what it was when the backup was made; nothing was restored.")


def _check_key(folder: Path, manifest: Manifest) -> None:
    """Raises InvalidConfig or Damaged when the key of a backup is not the one it tells."""
    if manifest.with_key and log_key(folder, None, None).verifier != manifest.verifier:
        raise Damaged("The log key in the backup is another one than it tells; nothing was restored.")


def _check_expected(findings: Findings, account: Account) -> None:
    """Raises Damaged when a log is not sound, or another one than the backup tells."""
    if findings.problems:
        raise Damaged(
            f"The log of {account.name} in the backup is not sound, nothing was restored: "
            f"{findings.problems[0]}"
        )
    if (findings.size, findings.root) != (account.size, account.root):
        raise Damaged(
            f"The log of {account.name} is not that of which the backup tells: it has {findings.size} "
            f"events, and should have {account.size} and their root. Nothing was restored."
        )
