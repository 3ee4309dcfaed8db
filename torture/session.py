"""The life of a data folder, each step told before and after it: `python -m torture.session SEED ROOT`.

It runs in one thread what a server does in several processes, in an order that the seed chooses. ROOT/data is
the data folder, ROOT/backup a backup. `promises` takes what is told here.
"""

import json
import os
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from auditplane import backup, keeping, log, rotation, signing, ulid
from auditplane.access import Access, Role
from auditplane.event import Rules, parse
from auditplane.store.sqlite import sealing, statements
from auditplane.store.sqlite.account import AccountStore
from auditplane.store.sqlite.folder import DataFolder, hold
from auditplane.times import DAY_US, SECOND_US
from torture import small

ACCOUNTS: Final = ("default", "other")
RETENTION_DAYS: Final = 30
USERS: Final = 5
MIGRATION: Final = (
    "CREATE TABLE torture (id INTEGER PRIMARY KEY, text TEXT NOT NULL) STRICT;"
    "INSERT INTO torture (text) SELECT hex(doc) FROM tail;"
    "DROP TABLE torture;"
)
SIZES: Final = {
    "SEAL_EVENTS": 24, "TAIL_KEPT_EVENTS": 8, "BLOCK_EVENTS": 16, "FRAME_EVENTS": 4, "RUNS_MAX": 2,
    "MERGE_BLOCKS_MAX": 4, "JOINED_PIECES": 3, "PIECE_EVENTS": 64, "TILE_ENTRIES": 32, "REPACK_ENTRIES": 64,
    "TAIL_ROWS_AT_ONCE": 16, "BLOCKS_AT_ONCE": 1, "ENTRIES_AT_ONCE": 32, "ERASED_AT_ONCE": 4,
    "MERGED_PAGES": 2, "DROPPED_ROWS": 8, "MOVED_EVENTS_MAX": 40, "PIECES_AT_ONCE": 1,
    "WAL_BYTES_TO_COPY": 256 * 1024, "WAL_BYTES_MAX": 512 * 1024, "FREE_PAGES_KEPT": 4,
}  # fmt: skip


class Clock:
    """A clock that goes on a little whenever it is read."""

    def __init__(self, us: int) -> None:
        self.us = us

    def __call__(self) -> int:
        self.us += 1_000
        return self.us


class Session:
    """A data folder that is worked on."""

    def __init__(self, root: Path, chosen: random.Random) -> None:
        self._root, self._data, self._chosen = root, root / "data", chosen
        # All that is recorded before the first retention is older than it allows.
        self._clock = Clock(log.clock() - 2 * RETENTION_DAYS * DAY_US)
        self._batches = 0
        self._ids: dict[str, list[str]] = {name: [] for name in ACCOUNTS}

    def open(self) -> None:
        """Starts as a server does."""
        tell("opening")
        self._folder = DataFolder(self._data)
        self._lock = hold(self._data)
        self._access = Access(self._folder, self._clock)
        path = self._access.ensure_admin_key()
        for name in self._folder.accounts():
            with self._folder.account(name):
                pass
        rotation.prepare(self._folder, None, None, self._clock)
        if path is not None:
            tell("key", account="default", secret=path.read_text().strip())
        tell("opened", key=str(self._log_key().verifier))

    def close(self) -> None:
        """Ends in order."""
        for name in self._folder.accounts():
            self._with(name, sealing.settle)
        self._access.close()
        self._folder.close()
        os.close(self._lock)

    def live(self) -> None:
        """All steps, with recording and upkeep between them."""
        self.open()
        self._work()
        self.make_key()
        self._work()
        self.sign()
        self.place_hold()
        self.expire()
        self._work(purging=True)
        self.erase()
        self.rotate()
        self._work(purging=True)
        self.revoke_key()
        self.close()
        self.open()
        self._work(purging=True)
        self.sign()
        self.back_up()
        self.close()
        tell("migrating")  # as if a newer version was installed
        statements.MIGRATIONS.append(MIGRATION)
        self.open()
        self._work()
        self.sign()
        self.close()

    def _work(self, *, purging: bool = False) -> None:
        for _ in range(self._chosen.randint(6, 12)):
            name = self._chosen.choice(ACCOUNTS)
            self.record(name)
            for _ in range(self._chosen.randrange(3)):
                self._with(name, self._tend)
                if purging:
                    self._with(name, lambda store, name=name: self._purge(name, store))

    def _tend(self, store: AccountStore) -> None:
        sealing.tend(store)

    def _purge(self, name: str, store: AccountStore) -> None:
        account = keeping.Account(name, store, self._clock)
        keeping.expire(account, 0)
        keeping.purge(account, may_begin=True)
        store.empty_wal()

    def _with(self, name: str, work: Callable[[AccountStore], Any]) -> Any:
        with self._folder.account(name) as store:
            return work(store)

    def record(self, name: str) -> None:
        """Records one or more requests in a commit."""
        requests = [self._request() for _ in range(self._chosen.choice((1, 1, 3)))]
        tell("recording", account=name, requests=requests)
        batches = [parse(json.dumps(events).encode(), Rules(account=name)) for events in requests]
        results = self._with(
            name, lambda store: log.record(store, [log.Request(batch, "key") for batch in batches], self._clock)
        )
        for result in results:
            if isinstance(result, Exception):
                raise result
            self._ids[name] += result
        tell("recorded", account=name, ids=[list(result) for result in results])

    def _request(self) -> list[dict[str, Any]]:
        self._batches += 1
        own_ids, own_times = self._chosen.random() < 0.2, self._chosen.random() < 0.2
        return [
            {
                "resourceName": f"b{self._batches}-{at}",
                "resourceKind": "Source",
                "action": "Modified",
                "user": f"user{self._chosen.randrange(USERS)}",
                "description": self._chosen.randbytes(self._chosen.choice((10, 200, 1_800))).hex(),
                **({"id": ulid.make(self._chosen.getrandbits(63), self._chosen.randbytes(12))} if own_ids else {}),
                **({"timestamp": f"2025-0{self._chosen.randint(1, 9)}-01T00:00:00Z"} if own_times else {}),
            }
            for at in range(self._chosen.choice((1, 2, 7, 20)))
        ]

    def make_key(self) -> None:
        """Makes two keys, one of a new account."""
        for account in ("default", "new"):
            tell("making a key")
            key, secret = self._access.create(account=account, role=Role.WRITER, by="torture")
            tell("key", account=account, secret=secret, id=key.id)
        self._key = key

    def revoke_key(self) -> None:
        """Revokes the last key."""
        tell("revoking", id=self._key.id)
        self._access.revoke(self._key.id, account=self._key.account, by="torture")
        tell("revoked", id=self._key.id)

    def sign(self) -> None:
        """Signs checkpoints."""
        for name in ACCOUNTS:
            signer = self._log_key().for_account(name)
            self._clock.us += 2 * SECOND_US
            signed = self._with(name, lambda store, by=signer: log.checkpoint(store, by, self._clock))
            tell("signed", account=name, note=signed.note.decode())

    def _log_key(self) -> signing.LogKey:
        return signing.log_key(self._data, None, None)

    def place_hold(self) -> None:
        """Keeps a user's events."""
        tell("holding", account="other", user="user0")
        self._with(
            "other",
            lambda store: keeping.place_hold(
                keeping.Account("other", store, self._clock), reason="torture", user="user0", min_us=None, max_us=None
            ),
        )
        tell("held", account="other", user="user0")

    def expire(self) -> None:
        """Lets all expire that was recorded up to now."""
        self._clock.us += (RETENTION_DAYS + 1) * DAY_US
        for name in ACCOUNTS:
            self._expire(name)

    def _expire(self, name: str) -> None:
        tell("expiring", account=name)
        self._with(
            name,
            lambda store: keeping.set_retention(keeping.Account(name, store, self._clock), RETENTION_DAYS),
        )
        tell("expired", account=name)
        self._ids[name].clear()

    def erase(self) -> None:
        """Erases some events of those that nothing holds."""
        wanted = self._chosen.sample(self._ids["default"], 6)
        tell("erasing", account="default", ids=wanted)
        self._with(
            "default",
            lambda store: keeping.erase(
                keeping.Account("default", store, self._clock), wanted, reason="torture"
            ),
        )
        tell("erased", account="default", ids=wanted)

    def rotate(self) -> None:
        """Changes the log key."""
        tell("rotating")
        change = rotation.rotate(self._folder, "torture", self._clock)
        tell("rotated", key=str(change.new.verifier))

    def back_up(self) -> None:
        """Makes a backup."""
        tell("backing up")
        with backup.begun(self._folder, self._access, self._clock) as wanted:
            backup.make(self._data, wanted, self._root / "backup", self._log_key(), with_key=True)
        tell("backed up")


def tell(what: str, **members: Any) -> None:
    """Tells of a step, in one write."""
    os.write(1, f"{json.dumps([what, members])}\n".encode())


def main() -> None:
    """Lives once."""
    seed, root = sys.argv[1:]
    small.shrink(setattr, **SIZES)
    Session(Path(root), random.Random(int(seed))).live()


if __name__ == "__main__":
    main()
