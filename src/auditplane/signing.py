"""The key that signs the checkpoints of a data folder, kept in a file of its own.

Its name is that of the server: `auditplane/NAME`. The log of an account is called `auditplane/NAME/ACCOUNT`,
which is also the name under which the key signs for it.
"""

import secrets
from pathlib import Path
from typing import Final

from auditplane.checkpoint import KEY_BYTES, SignerKey, parse_signer_key
from auditplane.errors import InvalidConfig, ProofError
from auditplane.store.sqlite.folder import write_secret

PREFIX: Final = "auditplane/"


class LogKey:
    """Signs for the logs of all accounts of a folder."""

    def __init__(self, key: SignerKey) -> None:
        self._key = key

    def for_account(self, account: str) -> SignerKey:
        """The key under the name of the log of an account."""
        return SignerKey(f"{self._key.name}/{account}", self._key.seed)


def ensure_log_key(folder: Path, name: str | None, given: Path | None) -> None:
    """Makes the key of a folder when there is none; raises InvalidConfig when it can't be used."""
    path = folder / "log.key"
    if given is None and not path.exists():
        key = SignerKey(PREFIX + (name or secrets.token_hex(4)), secrets.token_bytes(KEY_BYTES))
        write_secret(path, key.secret)
    log_key(folder, name, given)


def log_key(folder: Path, name: str | None, given: Path | None) -> LogKey:
    """The key of a folder, from a file that was `given` or from its own.

    `name` is the name of the server that is wanted, if any. Raises InvalidConfig.
    """
    path = given or folder / "log.key"
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
