"""The line at the foot of each page: how large the log is, and since when that is signed."""

from dataclasses import dataclass

from auditplane import log
from auditplane.checkpoint import SignerKey
from auditplane.errors import StoreError
from auditplane.store.sqlite.account import AccountStore


@dataclass(frozen=True, slots=True)
class Foot:
    """What the newest checkpoint says; `problem` is why there is none."""

    size: int
    signed_us: int | None
    problem: str | None = None


def foot(store: AccountStore, key: SignerKey, clock: log.Clock) -> Foot:
    """The foot of a page about a log."""
    try:
        signed = log.checkpoint(store, key, clock)
    except StoreError as error:
        return Foot(store.size(), None, str(error))
    return Foot(signed.size, signed.at_us)
