"""The demo: a data folder filled with the trail of an invented organisation, and how to greet its visitor."""

import json
import shutil
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Final

from auditplane import demo_org, log
from auditplane.access import SYSTEM, Access, Role
from auditplane.event import DEFAULT_ACCOUNT, Batch, Rules, parse
from auditplane.store.sqlite import sealing
from auditplane.store.sqlite.folder import DataFolder
from auditplane.times import DAY_US

EVENTS: Final = 50_000
DAYS: Final = 90
BATCH_EVENTS: Final = 5_000
KEY_DAYS: Final = 7


def _clock() -> int:
    return time.time_ns() // 1000


def fill(path: Path, say: Callable[[str], None]) -> None:
    """Makes the folder of the demo, whole or not at all; leaves one that is there as it is."""
    if (path / "control.db").exists():
        say(f"Using the trail in {path}.")
        return
    say(f"Inventing {EVENTS:,} events of the last {DAYS} days in {path} …")
    unfinished = path.with_name(path.name + ".new")
    shutil.rmtree(unfinished, ignore_errors=True)
    folder = DataFolder(unfinished)
    try:
        with folder.account(DEFAULT_ACCOUNT) as store:
            for batch in _batches():
                (result,) = log.record(store, [log.Request(batch, SYSTEM)], _clock)
                if isinstance(result, Exception):
                    raise result
            sealing.settle(store)
        access = Access(folder, _clock)
        access.ensure_admin_key()
        access.close()
    finally:
        folder.close()
    unfinished.rename(path)


def _batches() -> Iterator[Batch]:
    events = demo_org.events(until_us=_clock(), days=DAYS, count=EVENTS)
    while part := list(islice(events, BATCH_EVENTS)):
        yield parse(json.dumps(part).encode(), Rules())


def fresh_key(path: Path) -> str:
    """A new admin key of the demo, which ends by itself."""
    folder = DataFolder(path)
    access = Access(folder, _clock)
    try:
        _, secret = access.create(
            account=DEFAULT_ACCOUNT,
            role=Role.ADMIN,
            by=SYSTEM,
            description="demo",
            expires_us=_clock() + KEY_DAYS * DAY_US,
        )
        return secret
    finally:
        access.close()
        folder.close()


def invitation(address: str, secret: str) -> str:
    """What the visitor reads once the server listens."""
    header = f'-H "X-Bindplane-Api-Key: {secret}"'
    return f"""
Auditplane listens at {address}
Your admin key, good for {KEY_DAYS} days: {secret}

Three things to try in another terminal:

1. What happened last
   curl -s {header} "{address}/v1/audit-events?limit=5"

2. All that happened to one configuration, as a CSV file
   curl -sOJ {header} "{address}/v1/audit-events/download?configuration-name=prod-gateway"

3. Record an event of your own
   curl -s {header} -H "Content-Type: application/json" "{address}/v1/audit-events" \\
     -d '{{"user": "me", "action": "Modified", "resourceKind": "Source", "resourceName": "otlp"}}'

Ctrl-C ends it; the data stays.
"""
