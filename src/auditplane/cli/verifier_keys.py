"""The verifier keys that a person gave: the text of one, or the file that one or several are in."""

from pathlib import Path

from auditplane.checkpoint import VerifierKey, parse_verifier_key
from auditplane.errors import InvalidConfig, ProofError


def verifier_keys(given: str | None) -> list[VerifierKey]:
    """The keys of one log, of which any may have signed; raises InvalidConfig.

    A file may have several, one a line: those that the log had one after the other.
    """
    if not given:
        raise InvalidConfig(
            "Give the verifier key of the log, or the file it is in, by --key: `auditplane log key` on its "
            "server prints it. Have it from the operator by a way you trust."
        )
    texts = [given]
    if not given.startswith("-") and Path(given).is_file():
        try:
            texts = [line.strip() for line in Path(given).read_text("utf-8").splitlines() if line.strip()]
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is no text"
            raise InvalidConfig(f"--key: {given} can't be read: {reason}.") from None
    try:
        keys = [parse_verifier_key(text) for text in texts]
    except ProofError as error:
        raise InvalidConfig(f"--key: {given[:80]!r} is neither a file nor a verifier key. {error}") from None
    if len({key.name for key in keys}) != 1:
        raise InvalidConfig(f"--key: {given} must hold verifier keys of one log, and at least one.")
    return keys
