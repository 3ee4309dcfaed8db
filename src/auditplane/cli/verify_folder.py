"""`verify --data`: checks the logs of a data folder, which it does not change."""

import os
import sys
import time
from base64 import b64encode
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from auditplane import config
from auditplane.checkpoint import (
    Checkpoint,
    VerifierKey,
    note_text,
    open_note,
    parse_checkpoint,
    parse_verifier_key,
)
from auditplane.cli.folders import working_as_owner
from auditplane.cli.progress import progress
from auditplane.cli.remembered import Remembered
from auditplane.errors import Damaged, InvalidConfig, NotFound, ProofError, StorageFull, StoreError
from auditplane.times import format_us

if TYPE_CHECKING:
    from auditplane.checking import Findings
    from auditplane.signing import LogKey
    from auditplane.store import Signed
    from auditplane.store.sqlite.account import AccountStore


def verify_folder(
    data: str, *, account: str | None, deep: bool, record: bool, key: str | None, state: str | None
) -> None:
    """Checks the log of an account, or of each; raises Damaged when anything is wrong."""
    from auditplane.store.sqlite.folder import accounts_in

    settings = config.load({"data": data}, os.environ)
    path = settings.data
    if not path.is_dir():
        raise NotFound(f"There is no data folder at {path}.")
    given = None if key is None else _given_key(key)
    names = accounts_in(path)
    if account is not None and account not in names:
        raise NotFound(f"There is no log of an account {account} in {path}.")
    verification = _Verification(path, deep, record, _folder_key(settings), given, state)
    if account is None:
        verification.check_control(names)
        if not names:
            raise NotFound(f"There is no log in {path}.")
    for name in names if account is None else [account]:
        verification.check(name)
    verification.end(len(names) if account is None else 1)


def _given_key(text: str) -> VerifierKey:
    """The key that was given, itself or as the file it is in."""
    try:
        if "+" not in text or Path(text).exists():
            text = Path(text).read_text("utf-8")
        return parse_verifier_key(text.strip())
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise InvalidConfig(f"The verifier key {text} can't be read: {reason}.") from None
    except ProofError as error:
        raise InvalidConfig(f"The verifier key can't be used: {error}") from None


def _folder_key(settings: config.Config) -> "LogKey | None":
    """The key that signs in this folder, where it can be read."""
    from auditplane.signing import log_key

    try:
        return log_key(settings.data, settings.log_name, settings.log_key)
    except InvalidConfig:
        return None


class _Verification:
    """Checks one log after the other, and tells what it finds."""

    def __init__(
        self,
        path: Path,
        deep: bool,
        record: bool,
        folder_key: "LogKey | None",
        given_key: VerifierKey | None,
        state: str | None,
    ) -> None:
        self._path, self._deep, self._record = path, deep, record
        self._folder_key, self._given_key = folder_key, given_key
        self._remembered, self._must_remember = Remembered(state), state is not None
        self._problems = 0

    def check_control(self, names: Sequence[str]) -> None:
        """The database of the keys is whole, and each account that it knows has its log."""
        from auditplane.access.stored import CONTROL_FILE, look_at

        self._look_behind("control.db", self._path / CONTROL_FILE)
        try:
            accounts, problems = look_at(self._path)
        except StoreError as error:
            self._tell("control.db", str(error))
            return
        for problem in problems:
            self._tell("control.db", f"the database is damaged: {problem}")
        for name in sorted({*accounts} - {*names}):
            self._tell(name, "it has API keys, which its log recorded, and the log is missing")

    def check(self, name: str) -> None:
        """Checks the log of an account."""
        from auditplane.store.sqlite.folder import ACCOUNTS, looked_at

        self._look_behind(name, self._path / ACCOUNTS / f"{name}.db")
        try:
            with looked_at(self._path, name) as store:
                self._check(name, store)
        except StoreError as error:
            self._tell(name, str(error))

    def _look_behind(self, name: str, database: Path) -> None:
        """Tells of what stands behind the end of a write-ahead log, which is no problem after a power cut."""
        from auditplane.store.sqlite.folder import holder
        from auditplane.store.sqlite.wal import commits_behind, told_of_commits_behind

        with suppress(StoreError):  # the check tells why it can't be opened
            if holder(self._path) is None and (commits := commits_behind(database)):
                print(f"{name}: {told_of_commits_behind(commits)}")

    def _check(self, name: str, store: "AccountStore") -> None:
        from auditplane import checking

        keys = self._keys(name)
        total, signed = self._glance(store)
        origins = [key.name for key in keys] + ([] if signed is None else _origin(signed.note))
        earlier = dict(
            found for origin in dict.fromkeys(origins) for found in self._earlier(name, origin, keys)
        )
        begun = time.monotonic()
        with progress(f"verify {name}", total) as report:
            findings = checking.check(
                store, deep=self._deep, report=lambda done, _: report(done, done), keys=keys, earlier=earlier
            )
        self._show(name, findings, keys, list(earlier), time.monotonic() - begun)
        if self._record:
            self._keep_outcome(name, findings)
        signed = findings.signed
        if signed is None or not keys or findings.problems_total:
            return
        if all(checkpoint.size <= signed.size for checkpoint in earlier.values()):
            self._keep(name, keys[0].name, signed.note)

    def _keep_outcome(self, name: str, found: "Findings") -> None:
        from auditplane.store.sqlite.verified import Verified, keep_verified

        outcome = Verified(time.time_ns() // 1000, found.size, self._deep, found.problems_total)
        try:
            with working_as_owner(self._path):
                keep_verified(self._path, name, outcome)
        except (StorageFull, StoreError) as error:
            self._tell(name, f"the outcome can't be kept in the folder: {error}")

    def _glance(self, store: "AccountStore") -> "tuple[int | None, Signed | None]":
        """The size of a log and its checkpoint, as far as they can be read; the check tells what can't."""
        from auditplane.store.sqlite.checks import NONSENSE

        try:
            with store.snapshot() as connection:
                return store.size_in(connection), store.checkpoint_in(connection)
        except NONSENSE:
            return None, None

    def _keys(self, name: str) -> list[VerifierKey]:
        """The keys of which one must have signed the checkpoint of an account; none when that is not known.

        The first is the one that signs now; the others did before it.
        """
        from auditplane.signing import retired_keys, verifier_for

        if self._given_key is not None and self._given_key.name.rpartition("/")[2] == name:
            return [self._given_key]
        if self._folder_key is None:
            return []
        before = [verifier_for(each.key, name) for each in retired_keys(self._path)]
        return [self._folder_key.for_account(name).verifier, *reversed(before)]

    def _earlier(self, name: str, origin: str, keys: Sequence[VerifierKey]) -> list[tuple[str, Checkpoint]]:
        """The checkpoint of a log that this machine remembers, and what it is called."""
        note = self._remembered.note(origin)
        if note is None:
            return []
        path = self._remembered.path(origin)
        try:
            checkpoint = parse_checkpoint(note_text(note))
        except ProofError as error:
            raise ProofError(f"{path} holds no checkpoint: {error}") from None
        what = f"the checkpoint of {checkpoint.size} entries remembered at {path}"
        try:
            open_note(note, keys)
        except ProofError:
            # Another key may have signed before; what was signed must still be the beginning of this log.
            print(f"{name}: {what} is signed by another key, and compared all the same.")
        return [(what, checkpoint)]

    # What is told.

    def _show(
        self,
        name: str,
        found: "Findings",
        keys: Sequence[VerifierKey],
        earlier: Sequence[str],
        seconds: float,
    ) -> None:
        print(f"{name}: {f'problems: {found.problems_total:,}' if found.problems_total else 'whole'}")
        rows = [
            ("size", f"{found.size:,} entries, {found.checked_bytes:,} bytes hashed"),
            ("root", b64encode(found.root).decode()),
            ("events", f"{found.events:,} there, {found.gone:,} gone{_why(found)}"),
            *(
                [("expired", f"{found.hidden:,} of those there, not shown unless held")]
                if found.hidden
                else []
            ),
            ("checkpoint", _signed(found, keys)),
            *(("continues", what) for what in earlier if not found.problems_total),
            ("seconds", f"{seconds:.1f}, {found.events / (seconds or 1):,.0f} events/s"),
        ]
        for title, text in rows:
            print(f"  {title:<10} {text}")
        sys.stdout.flush()
        for problem in found.problems:
            print(f"{name}: {problem}")
        hidden = found.problems_total - len(found.problems)
        if hidden:
            print(f"{name}: and {hidden:,} more problems")
        self._problems += found.problems_total

    def _tell(self, name: str, problem: str) -> None:
        print(f"{name}: {problem}")
        self._problems += 1

    def _keep(self, name: str, origin: str, note: bytes) -> None:
        """Remembers the checkpoint of a log that was whole."""
        try:
            self._remembered.keep(origin, note)
        except InvalidConfig as error:
            if self._must_remember:
                raise
            print(f"{name}: its checkpoint is not remembered: {error}")

    def end(self, logs: int) -> None:
        """Raises Damaged when there were problems."""
        if self._problems:
            raise Damaged(
                f"Problems found in {self._path}: {self._problems:,}, each named above. Keep the folder "
                "as it is, and find out what changed it."
            )
        print(f"Nothing is wrong with {logs} {'log' if logs == 1 else 'logs'} in {self._path}.")


def _origin(note: bytes) -> list[str]:
    """The name of the log in a note, which nobody has verified."""
    try:
        return [parse_checkpoint(note_text(note)).origin]
    except (ProofError, AttributeError):  # it may be anything
        return []


def _why(found: "Findings") -> str:
    if not found.gone:
        return ""
    expired = found.gone - found.erased - found.being_purged
    going = f", {found.being_purged:,} by the purge that is under way" if found.being_purged else ""
    return f" ({expired:,} expired, {found.erased:,} erased{going})"


def _signed(found: "Findings", keys: Sequence[VerifierKey]) -> str:
    if found.signed is None:
        return "none was signed yet"
    signers = [key for key in keys if _is_by(found.signed.note, key)]
    by = f"by {signers[0]}" if signers else "by a key that is not known here; give it with --key"
    return f"of {found.signed.size:,} entries, signed {format_us(found.signed.at_us)} {by}"


def _is_by(note: bytes, key: VerifierKey) -> bool:
    try:
        open_note(note, [key])
    except ProofError:
        return False
    return True
