"""Accounts whose events were recorded long ago, for tests of what is kept."""

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from msgspec import Raw

from auditplane import keeping, log
from auditplane.event import Batch, Rules, parse
from auditplane.times import DAY_US
from folders import FreeFolder
from tenants import Json, event

T = TypeVar("T")
SECONDS_MAX = 30.0


def days_ago(days: float) -> log.Clock:
    """A clock that is late."""
    return lambda: log.clock() - int(days * DAY_US)


def work(data: Path, account: str, work_on: Callable[[keeping.Account], T]) -> T:
    """Works on an account in this process."""
    folder = FreeFolder(data)
    try:
        with folder.account(account) as store:
            return work_on(keeping.Account(account, store, log.clock, by="tests"))
    finally:
        folder.close()


def record_old(data: Path, account: str, days: float, given: Sequence[Json]) -> list[str]:
    """Records events as if it were some days ago; nothing newer may be in the account."""

    def record(opened: keeping.Account) -> list[str]:
        batch = parse(json.dumps(given).encode(), Rules(account=account))
        return _recorded(opened, batch, days_ago(days))

    return work(data, account, record)


def record_unchecked(data: Path, account: str, details: bytes) -> str:
    """Records an event with details that nobody checks, as an older version may have taken them."""

    def record(opened: keeping.Account) -> str:
        batch = parse(json.dumps(event()).encode(), Rules(account=account))
        batch.events[0].details = Raw(details)
        return _recorded(opened, batch, log.clock)[0]

    return work(data, account, record)


def _recorded(opened: keeping.Account, batch: Batch, clock: log.Clock) -> list[str]:
    (result,) = log.record(opened.store, [log.Request(batch, "test")], clock)
    if isinstance(result, Exception):
        raise result
    return list(result)


def wait_for(found: Callable[[], T | None]) -> T:
    """What is found once it is there; at most half a minute."""
    deadline = time.monotonic() + SECONDS_MAX
    while True:
        value = found()
        if value:
            return value
        assert time.monotonic() < deadline
        time.sleep(0.05)
