"""The life of a data folder, each step told before and after it: `python -m torture.session SEED ROOT`.

It runs in one thread what a server does in several processes, in an order that the seed chooses. ROOT/data is
the data folder, ROOT/backup-1 a backup. `promises` takes what is told here.
"""

import json
import os
import random
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, Final

from auditplane import backup, keeping, log, rotation, signing, ulid
from auditplane.access import Access
from auditplane.access.key import Role
from auditplane.errors import AuditplaneError, Conflict, Gone
from auditplane.event import Rules, parse
from auditplane.store.sqlite import sealing, statements
from auditplane.store.sqlite.folder import DataFolder, hold
from auditplane.times import DAY_US, SECOND_US
from torture import small
from torture.trace import traced

PROGRAM: Final = ("-m", "torture.session")
MEMORY: Final = Path("/dev/shm")  # noqa: S108 - folders are made there by mkdtemp
ACCOUNTS: Final = ("default", "other")
RETENTION_DAYS: Final = 30
USERS: Final = 5
BESIDE_A_READER: Final = 0.3
ROUNDS: Final = (6, 12)
TRIES_MAX: Final = 60
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
        self._batches = self._backups = 0
        self._ids: dict[str, list[str]] = {name: [] for name in ACCOUNTS}

    def live(self) -> None:
        """All steps, with recording and upkeep between them; one that fails is done again."""
        self._step(self.open)
        self._work()
        self._step(self.make_key)
        self._work()
        self._step(self.sign)
        self._step(self.place_hold)
        self._step(self.expire)
        self._work()
        self._step(self.erase)
        self._step(self.rotate)
        self._work()
        self._step(self.revoke_key)
        self._step(self.close)
        self._step(self.open)
        self._work()
        self._step(self.sign)
        self._step(self.back_up)
        self._step(self.close)
        tell("migrating")  # as if a newer version was installed
        statements.MIGRATIONS.append(MIGRATION)
        self._step(self.open)
        self._work()
        self._step(self.sign)
        self._step(self.close)

    def _step(self, work: Callable[[], None]) -> None:
        for _ in range(TRIES_MAX):
            try:
                work()
            except AuditplaneError as error:
                tell("failed", error=str(error))
            else:
                return
        raise SystemExit(f"{work} does not succeed, though the disk does not fail any more")

    def _work(self) -> None:
        for _ in range(self._chosen.randint(*ROUNDS)):
            name = self._chosen.choice(ACCOUNTS)
            self._step(partial(self.record, name))
            for _ in range(self._chosen.randrange(3)):
                self._step(partial(self.tend, name))
            if self._chosen.random() < BESIDE_A_READER:
                self._step(partial(self.tend_beside_a_reader, name))

    def open(self) -> None:
        """Starts as a server does."""
        tell("opening")
        with ExitStack() as undo:
            self._folder = DataFolder(self._data)
            undo.callback(self._folder.close)
            self._lock = hold(self._data)
            undo.callback(os.close, self._lock)
            self._access = Access(self._folder, self._clock)
            undo.callback(self._access.close)
            path = self._access.ensure_admin_key()
            for name in {*self._folder.accounts(), *ACCOUNTS}:
                with self._folder.account(name, may_begin=name in ACCOUNTS):
                    pass
            rotation.prepare(self._folder, None, None, self._clock)
            if path is not None:
                tell("key", account="default", secret=_read(path))
            tell("opened", key=str(self._log_key().verifier))
            undo.pop_all()

    def close(self) -> None:
        """Ends in order."""
        for name in self._folder.accounts():
            with self._folder.account(name) as store:
                sealing.settle(store)
        self._access.close()
        self._folder.close()
        os.close(self._lock)

    def tend(self, name: str) -> None:
        """A round of upkeep."""
        with self._account(name) as account:
            sealing.tend(account.store)
            keeping.expire(account, 0)
            keeping.purge(account, may_begin=True)
            account.store.empty_wal()

    def tend_beside_a_reader(self, name: str) -> None:
        """Upkeep that can copy a part of the log only, as beside a backup."""
        with self._folder.account(name) as store, store.long_view() as view:
            store.size_in(view)
            self.record(name)
            sealing.tend(store)
            store.checkpoint(whole=False)

    @contextmanager
    def _account(self, name: str) -> Iterator[keeping.Account]:
        with self._folder.account(name) as store:
            yield keeping.Account(name, store, self._clock)

    def record(self, name: str) -> None:
        """Records one or more requests in a commit."""
        requests = [self._request() for _ in range(self._chosen.choice((1, 1, 3)))]
        tell("recording", account=name, requests=requests)
        batches = [parse(json.dumps(events).encode(), Rules(account=name)) for events in requests]
        wanted = [log.Request(batch, "key") for batch in batches]
        with self._folder.account(name) as store:
            results = log.record(store, wanted, self._clock)
        ids: list[list[str]] = []
        for result in results:
            if isinstance(result, Exception):
                raise result
            ids.append(list(result))
            self._ids[name] += result
        tell("recorded", account=name, ids=ids)

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
                **(
                    {"id": ulid.make(self._chosen.getrandbits(63), self._chosen.randbytes(12))}
                    if own_ids
                    else {}
                ),
                **({"timestamp": f"2025-0{self._chosen.randint(1, 9)}-01T00:00:00Z"} if own_times else {}),
            }
            for at in range(self._chosen.choice((1, 2, 7, 20)))
        ]

    def make_key(self) -> None:
        """Makes two keys, one of a new account."""
        for account in ("default", "new"):
            self._key, secret = self._access.create(account=account, role=Role.WRITER, by="torture")
            tell("key", account=account, secret=secret, id=self._key.id)

    def revoke_key(self) -> None:
        """Revokes the last key."""
        tell("revoking", id=self._key.id)
        with suppress(Conflict):  # when it was done, and could not be acknowledged
            self._access.revoke(self._key.id, account=self._key.account, by="torture")
        tell("revoked", id=self._key.id)

    def sign(self) -> None:
        """Signs checkpoints."""
        for name in ACCOUNTS:
            signer = self._log_key().for_account(name)
            self._clock.us += 2 * SECOND_US
            with self._folder.account(name) as store:
                signed = log.checkpoint(store, signer, self._clock)
            tell("signed", account=name, note=signed.note.decode())

    def _log_key(self) -> signing.LogKey:
        return signing.log_key(self._data, None, None)

    def place_hold(self) -> None:
        """Keeps a user's events."""
        tell("holding", account="other", user="user0")
        with self._account("other") as account:
            keeping.place_hold(account, reason="torture", user="user0", min_us=None, max_us=None)
        tell("held", account="other", user="user0")

    def expire(self) -> None:
        """Lets all expire that was recorded up to now."""
        self._clock.us += (RETENTION_DAYS + 1) * DAY_US
        for name in ACCOUNTS:
            self._expire(name)

    def _expire(self, name: str) -> None:
        tell("expiring", account=name)
        with self._account(name) as account:
            keeping.set_retention(account, RETENTION_DAYS)
        tell("expired", account=name)
        self._ids[name].clear()

    def erase(self) -> None:
        """Erases some events of those that nothing holds."""
        wanted = self._ids["default"][:6]
        tell("erasing", account="default", ids=wanted)
        with self._account("default") as account:
            for each in wanted:  # some are gone when this was begun before
                with suppress(Gone):
                    keeping.erase(account, [each], reason="torture")
            while not account.store.empty_wal():
                pass
        tell("erased", account="default")

    def rotate(self) -> None:
        """Changes the log key."""
        tell("rotating")
        change = rotation.rotate(self._folder, "torture", self._clock)
        tell("rotated", key=str(change.new.verifier))

    def back_up(self) -> None:
        """Makes a backup."""
        self._backups += 1
        name = f"backup-{self._backups}"
        tell("backing up", name=name)
        with backup.begun(self._folder, self._access, self._clock) as wanted:
            backup.make(self._data, wanted, self._root / name, self._log_key(), with_key=True)
        tell("backed up", name=name)


def _read(path: Path) -> str:
    """What stands in a file, as somebody reads it who tries again."""
    for _ in range(TRIES_MAX):
        with suppress(OSError):
            return path.read_text().strip()
    raise SystemExit(f"{path} can't be read, though the disk does not fail any more")


@contextmanager
def watched(
    seed: int, *, inject: str = "", program: Sequence[str] = PROGRAM
) -> Iterator[tuple[Path, Path, int]]:
    """A session that has ended: its root, what strace saw of it, and its exit status."""
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as folder:
        root, output = Path(folder) / "root", Path(folder) / "trace"
        root.mkdir()
        yield root, output, traced([*program, str(seed), str(root)], output, inject=inject)


def tell(what: str, **members: Any) -> None:
    """Tells of a step, by a call that nothing else makes and that no fault is put into."""
    os.writev(1, [json.dumps([what, members]).encode()])


def main() -> None:
    """Lives once."""
    seed, root = sys.argv[1:]
    small.shrink(setattr, **SIZES)
    Session(Path(root), random.Random(int(seed))).live()


if __name__ == "__main__":
    main()
