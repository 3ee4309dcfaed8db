"""Whether the time that a refusal takes tells an unknown key from one that was revoked or has expired."""

import http.client
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Final

from auditplane import log
from auditplane.access import Access
from auditplane.access.key import Role, new_secret
from auditplane.store.sqlite.folder import DataFolder
from auditplane.times import SECOND_US
from server import start
from torture.attackers import EVENTS

KINDS: Final = ("unknown", "revoked", "expired")
APART_MAX: Final = 0.05
"""The part of the time by which the medians of two kinds may differ."""
KEYS_OF_A_KIND: Final = 200


@dataclass
class Outcome:
    """Microseconds of refusals, by kind, and what was wrong."""

    took_us: dict[str, list[float]] = field(default_factory=lambda: {kind: [] for kind in KINDS})
    problems: list[str] = field(default_factory=list)

    def medians(self) -> dict[str, float]:
        """The median of each kind."""
        return {kind: median(took) for kind, took in self.took_us.items()}


def tried(asked: int) -> Outcome:
    """Asks so many times with keys of each kind, in turns, over one connection."""
    outcome = Outcome()
    with tempfile.TemporaryDirectory(prefix="auditplane-refusals-") as name:
        data = Path(name) / "data"
        secrets = _made(data)
        with start(data) as server:
            connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
            bodies = set()
            for number in range(asked):
                for kind in KINDS:
                    secret = secrets[kind][number % KEYS_OF_A_KIND]
                    began = time.perf_counter()
                    connection.request("GET", EVENTS, headers={"X-Bindplane-Api-Key": secret})
                    answer = connection.getresponse()
                    bodies.add((answer.status, answer.read()))
                    outcome.took_us[kind].append(1e6 * (time.perf_counter() - began))
            connection.close()
            server.stop()
    if len(bodies) > 1:
        outcome.problems.append(f"the answers differ: {bodies}")
    medians = outcome.medians().values()
    if max(medians) > (1 + APART_MAX) * min(medians):
        outcome.problems.append(f"the times differ: {outcome.medians()}")
    return outcome


def _made(data: Path) -> dict[str, Sequence[str]]:
    """A folder with keys that have ended; returns secrets of each kind."""
    folder = DataFolder(data)
    access = Access(folder, log.clock)
    access.ensure_admin_key()
    secrets: dict[str, list[str]] = {kind: [] for kind in KINDS}
    for _ in range(KEYS_OF_A_KIND):
        secrets["unknown"].append(new_secret())
        key, secret = access.create(account="default", role=Role.READER, by="torture")
        access.revoke(key.id, account="default", by="torture")
        secrets["revoked"].append(secret)
    late = Access(folder, lambda: log.clock() - 100 * SECOND_US)
    for _ in range(KEYS_OF_A_KIND):
        expires_us = log.clock() - 50 * SECOND_US
        _, secret = late.create(account="other", role=Role.READER, by="torture", expires_us=expires_us)
        secrets["expired"].append(secret)
    late.close()
    access.close()
    folder.close()
    return {kind: tuple(some) for kind, some in secrets.items()}
