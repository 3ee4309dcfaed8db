"""The key that signs the checkpoints of a data folder, kept in a file of its own.

Its name is that of the server: `auditplane/NAME`. The log of an account is called `auditplane/NAME/ACCOUNT`,
which is also the name under which the key signs for it. Keys that signed before it stand in a public file.
"""

import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from auditplane.checkpoint import (
    KEY_BYTES,
    SignerKey,
    VerifierKey,
    parse_signer_key,
    parse_verifier_key,
)
from auditplane.errors import InvalidConfig, ProofError, StoreError
from auditplane.store.sqlite.folder import write_secret

PREFIX: Final = "auditplane/"
KEY_FILE: Final = "log.key"
RETIRED_FILE: Final = "log.retired"

_RETIRED_HEAD: Final = "# Keys that sign no more: key, from when, until when, and why it was changed."
_FROM_THE_BEGINNING: Final = "-"


@dataclass(frozen=True)
class LogKey:
    """Signs for the logs of all accounts of a folder."""

    signer: SignerKey

    def for_account(self, account: str) -> SignerKey:
        """The key under the name of the log of an account."""
        return SignerKey(f"{self.signer.name}/{account}", self.signer.seed)

    @property
    def verifier(self) -> VerifierKey:
        """What verifies it, under the name of the server."""
        return self.signer.verifier


def verifier_for(key: VerifierKey, account: str) -> VerifierKey:
    """The verifier key of a server under the name of the log of an account."""
    return VerifierKey(f"{key.name}/{account}", key.public)


def new_signer(name: str) -> SignerKey:
    """A key that nobody can guess."""
    return SignerKey(name, secrets.token_bytes(KEY_BYTES))


def make_log_key(folder: Path, name: str | None) -> None:
    """Makes the first key of a folder; without a name it is called by eight random characters."""
    write_secret(folder / KEY_FILE, new_signer(PREFIX + (name or secrets.token_hex(4))).secret)


def log_key(folder: Path, name: str | None, given: Path | None) -> LogKey:
    """The key of a folder, from a file that was `given` or from its own.

    `name` is the name of the server that is wanted, if any. Raises InvalidConfig.
    """
    path = given or folder / KEY_FILE
    try:
        key = parse_signer_key(path.read_text("utf-8").strip())
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise InvalidConfig(f"The log key {path} can't be read: {reason}.") from None
    except ProofError as error:
        raise InvalidConfig(f"The log key {path} can't be used: {error}") from None
    if not key.name.startswith(PREFIX):
        raise InvalidConfig(f"The name of the log key {path} must begin with {PREFIX}, is {key.name}.")
    found = key.name.removeprefix(PREFIX)
    if name is not None and name != found:
        raise InvalidConfig(
            f"log.name is {name}, but the logs of this folder are called {found}; a name is fixed once used."
        )
    return LogKey(key)


class KeyFile:
    """The key of a folder as its file has it now: one that was changed signs without a restart."""

    def __init__(self, folder: Path, name: str | None, given: Path | None) -> None:
        self._folder, self._name, self._given = folder, name, given
        self._path = given or folder / KEY_FILE
        # The mark is taken first: a file that changes in between is read once more.
        mark = self._mark()
        # One value, as several threads look at it.
        self._seen = (mark, log_key(folder, name, given))

    def current(self) -> LogKey:
        """The key; raises StoreError when it can't be used any more."""
        mark = self._mark()
        seen, key = self._seen
        if mark == seen:
            return key
        try:
            found = log_key(self._folder, self._name, self._given)
        except InvalidConfig as error:
            raise StoreError(*error.messages) from None
        if found.signer.name != key.signer.name:
            raise StoreError(
                f"The log key {self._path} is one of {found.signer.name}, but the logs of this folder are "
                f"called {key.signer.name}; nothing is signed with it."
            )
        self._seen = (mark, found)
        return found

    def _mark(self) -> tuple[int, ...]:
        """Changes whenever the file is another one; without a file it is empty."""
        try:
            found = self._path.stat()
        except OSError:
            return ()
        return found.st_ino, found.st_mtime_ns, found.st_ctime_ns, found.st_size


# Keys that sign no more.


@dataclass(frozen=True)
class Retired:
    """A key that signs no more, when it did, and why it was changed: `replaced`, `leaked` or `lost`."""

    key: VerifierKey
    since: str
    until: str
    why: str


def retired_keys(folder: Path) -> list[Retired]:
    """The keys that signed before the one in use, oldest first; raises StoreError."""
    path = folder / RETIRED_FILE
    try:
        lines = [line for line in path.read_text("utf-8").splitlines() if line and not line.startswith("#")]
        return [_retired(line) for line in lines]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, ProofError) as error:
        raise StoreError(f"{path} can't be read: {error}") from None


def _retired(line: str) -> Retired:
    key, since, until, why = line.split(" ")
    return Retired(parse_verifier_key(key), since, until, why)


def retire(folder: Path, key: VerifierKey, until: str, why: str) -> None:
    """Adds a key to those that sign no more, unless it is among them."""
    known = retired_keys(folder)
    if any(each.key == key for each in known):
        return
    since = known[-1].until if known else _FROM_THE_BEGINNING
    lines = [f"{each.key} {each.since} {each.until} {each.why}" for each in known]
    write_secret(folder / RETIRED_FILE, "\n".join([_RETIRED_HEAD, *lines, f"{key} {since} {until} {why}"]))
