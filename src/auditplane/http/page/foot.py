"""The line at the foot of each page: how large the log is, and since when that is signed."""

from dataclasses import dataclass

from auditplane import log
from auditplane.errors import StoreError
from auditplane.http import problems
from auditplane.http.state import State
from auditplane.store.sqlite.account import AccountStore
from auditplane.store.sqlite.verified import Verified, last_verified


@dataclass(frozen=True, slots=True)
class Foot:
    """What the newest checkpoint says, or `problem`, why there is none; and what the last check came to."""

    size: int
    signed_us: int | None
    verified: Verified | None
    problem: str | None = None


def foot(store: AccountStore, state: State, account: str) -> Foot:
    """The foot of a page about a log."""
    verified = last_verified(state.folder.path, account)
    try:
        signed = log.checkpoint(store, state.log_key.for_account(account), state.clock)
    except StoreError as error:
        return Foot(store.size(), None, verified, "; ".join(problems.told(error)))
    return Foot(signed.size, signed.at_us, verified)
