"""Data folders made without a server."""

import json
import random
from pathlib import Path

from auditplane import log
from auditplane.access import Access
from auditplane.event import DEFAULT_ACCOUNT, Rules, parse
from auditplane.store.sqlite import sealing
from folders import FreeFolder

BIG_EVENTS = 14_336
BIG_EVENT_BYTES = 4_000


def big_trail(path: Path, count: int = BIG_EVENTS) -> Path:
    """A folder whose default account has large events that compress badly: more than 50 MB of CSV."""
    chosen = random.Random(1)
    folder = FreeFolder(path)
    with folder.account(DEFAULT_ACCOUNT) as store:
        for first in range(0, count, 1024):
            given = [_event(number, chosen) for number in range(first, min(count, first + 1024))]
            batch = parse(json.dumps(given).encode(), Rules())
            (result,) = log.record(store, [log.Request(batch, "test")], log.clock)
            if isinstance(result, Exception):
                raise result
            while sealing.seal(store, everything=True):
                pass
        sealing.settle(store)
    folder.close()
    return made_folder(path)


def made_folder(path: Path) -> Path:
    """A data folder with its first key, as a first start leaves it."""
    folder = FreeFolder(path)
    access = Access(folder, log.clock)
    access.ensure_admin_key()
    access.close()
    folder.close()
    return path


def _event(number: int, chosen: random.Random) -> dict[str, str]:
    return {
        "user": f"user{number % 50}@example.com",
        "action": "Modified",
        "resourceKind": "Source",
        "resourceName": f"otlp-{number}",
        "description": chosen.randbytes(BIG_EVENT_BYTES // 2).hex(),
    }
