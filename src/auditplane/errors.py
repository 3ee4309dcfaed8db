"""Every exception that Auditplane raises on purpose.

One tree: `http` maps it to status codes by ancestry, `cli` to exit codes. Each message is one clear
sentence for the person who reads it: what is wrong, and what would be right. None repeats an API key that
stood where none belongs: callers log what they are told.
"""

import re
from collections.abc import Sequence
from typing import Final

_KEY: Final = re.compile(r"ap_[0-9A-Za-z]{8,}")


def without_keys(text: str) -> str:
    """A text in which `ap_…` stands in place of all that may be an API key, or the beginning of one."""
    return _KEY.sub("ap_…", text)


class AuditplaneError(Exception):
    """Ancestor of all the others; `messages` holds one sentence for each thing that is wrong."""

    def __init__(self, *messages: str) -> None:
        told = tuple(map(without_keys, messages))
        super().__init__(*told)
        self.messages: Sequence[str] = told

    def __str__(self) -> str:
        return "; ".join(self.messages)


class InvalidInput(AuditplaneError):
    """What was sent can't be taken as it is."""


class InvalidEvents(InvalidInput):
    """At least one event of a request is wrong; none was stored."""


class InvalidQuery(InvalidInput):
    """A parameter of a read is wrong, unknown, or contradicts another."""


class InvalidConfig(InvalidInput):
    """A setting is wrong or unknown."""


class NotAuthenticated(AuditplaneError):
    """No API key, or one that is unknown, expired or revoked."""


class Forbidden(AuditplaneError):
    """A valid key without the right to do this."""


class TooManyRequests(AuditplaneError):
    """More than is allowed in some time; it is refused for `retry_after_seconds`."""

    def __init__(self, *messages: str, retry_after_seconds: int = 1) -> None:
        super().__init__(*messages)
        self.retry_after_seconds = retry_after_seconds


class TooManyAttempts(TooManyRequests):
    """Signing in failed too often."""


class NotFound(AuditplaneError):
    """There is nothing of that name in this account."""


class Gone(AuditplaneError):
    """There was an event of this id, and its text is destroyed: it expired, or it was erased."""


class MethodNotAllowed(AuditplaneError):
    """The path exists, but not with this method."""


class NotAcceptable(AuditplaneError):
    """None of the representations that the caller accepts can be served."""


class Conflict(AuditplaneError):
    """The id was recorded before, with other content."""


class TooLarge(AuditplaneError):
    """More events or bytes than one request may have."""


class UnsupportedMedia(AuditplaneError):
    """A content type or content encoding that is not read here."""


class RequestTimeout(AuditplaneError):
    """The body of the request did not arrive in time."""


class Unavailable(AuditplaneError):
    """The server can't take this now; the same request may work in a moment."""


class StorageFull(AuditplaneError):
    """The disk has no room for more events; what is stored is safe and can be read."""


class StoreError(AuditplaneError):
    """The store can't do what was asked of it."""


class Damaged(StoreError):
    """Stored bytes are not what was written."""


class LogMissing(StoreError):
    """An account has API keys, and its log is gone."""


class Unconfirmed(StoreError):
    """The log was restored from a backup, and nobody has said yet that it shall go on from there."""


class FolderInUse(StoreError):
    """Another server holds the data folder."""


class NewerFormat(StoreError):
    """The data folder was written by a newer version."""


class ProofError(AuditplaneError):
    """A proof, a checkpoint or a key of the log is malformed, or proves something else."""


class Refused(AuditplaneError):
    """A server answered a request with an error.

    `status` is that of the answer; `may_pass` tells whether the same request may work in a moment.
    """

    def __init__(self, status: int, *messages: str, may_pass: bool = False) -> None:
        super().__init__(*messages)
        self.status = status
        self.may_pass = may_pass


class ConnectionLost(AuditplaneError):
    """A server can't be reached, or an answer of it broke off."""
