"""The demo: a data folder filled with the trail of an invented organisation, and how to greet its visitor."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Final

from auditplane import demo_org, limits, log
from auditplane.access import SYSTEM, Access
from auditplane.access.key import Role
from auditplane.errors import StoreError
from auditplane.event import DEFAULT_ACCOUNT, Batch, Rules, parse
from auditplane.store.sqlite import sealing
from auditplane.store.sqlite.folder import DataFolder, hold
from auditplane.times import DAY_US

EVENTS: Final = 50_000
DAYS: Final = 90
BATCH_EVENTS: Final = 5_000
KEY_DAYS: Final = 7


def fill(path: Path, say: Callable[[str], None]) -> None:
    """Makes the folder of the demo, whole or not at all; leaves one that is there as it is.

    Raises StoreError when the folder holds other things, and FolderInUse when another process fills it.
    """
    if (path / "control.db").exists():
        say(f"Using the trail in {path}.")
        return
    if path.exists() and any(path.iterdir()):
        raise StoreError(f"{path} is not a data folder, and not empty. Give the path of a new folder.")
    say(f"Inventing {EVENTS:,} events of the last {DAYS} days in {path} …")
    whole = path.absolute()
    unfinished = whole.with_name(f".{whole.name}.unfinished")
    unfinished.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = hold(unfinished)
    try:
        _clear(unfinished)
        _record_all(unfinished)
        unfinished.rename(whole)
    finally:
        os.close(lock)


def _clear(folder: Path) -> None:
    """Removes what a run that was broken off has left."""
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != "lock":
            path.unlink()


def _record_all(path: Path) -> None:
    folder = DataFolder(path)
    try:
        with folder.account(DEFAULT_ACCOUNT, may_begin=True) as store:
            for batch in _batches():
                (result,) = log.record(store, [log.Request(batch, "demo")], log.clock)
                if isinstance(result, Exception):
                    raise result
                sealing.settle(store)  # each time: the file would keep the room of a long tail
        access = Access(folder, log.clock)
        access.ensure_admin_key()
        access.close()
    finally:
        folder.close()


def _batches() -> Iterator[Batch]:
    events = demo_org.events(until_us=log.clock(), days=DAYS, count=EVENTS)
    while part := list(islice(events, BATCH_EVENTS)):
        yield parse(json.dumps(part).encode(), Rules())


def fresh_key(path: Path) -> tuple[str, str]:
    """A new admin key of the demo, which ends by itself, and the token of a link that signs in with it."""
    folder = DataFolder(path)
    access = Access(folder, log.clock)
    try:
        key, secret = access.create(
            account=DEFAULT_ACCOUNT,
            role=Role.ADMIN,
            by=SYSTEM,
            description="demo",
            expires_us=log.clock() + KEY_DAYS * DAY_US,
        )
        return secret, access.make_link(key.id)
    finally:
        access.close()
        folder.close()


def invitation(address: str, secret: str, link: str) -> str:
    """What the visitor reads once the server listens."""
    header = f'-H "X-Bindplane-Api-Key: {secret}"'
    return f"""
Open {address}/sign-in/{link}
That signs you in, once, in the next {limits.LINK_SECONDS // 60} minutes.

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
