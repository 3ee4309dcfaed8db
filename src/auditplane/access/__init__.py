"""Who is let in: the API keys of all accounts, and who is signed in with which key.

A key is shown once, when it is made; only its SHA-256 is kept. Making and revoking one is an event of its
account, recorded before it takes effect, so that no key works that the trail does not show.

Whoever is signed in has a token that stands for a key, for some hours and never longer than the key works.
"""

import hmac
import json
import os
import secrets
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import apsw

from auditplane import limits, log, ulid
from auditplane.access import attempts
from auditplane.access.key import Key, Role, Session, is_well_formed, key_of, new_secret
from auditplane.access.stored import (
    CONTROL_FILE,
    IN_CHANGE,
    MIGRATIONS,
    QUERIES,
    SHARED_BYTES,
    SHARED_FILE,
    SYNCS_AT,
    VERSION,
)
from auditplane.errors import (
    AuditplaneError,
    Conflict,
    InvalidInput,
    NotAuthenticated,
    NotFound,
    StoreError,
)
from auditplane.event import DEFAULT_ACCOUNT, Rules, parse
from auditplane.store.sqlite.database import (
    PAGE_BYTES,
    Connected,
    begun,
    connect,
    fetch,
    is_current,
    migrate,
    one,
    translated,
)
from auditplane.store.sqlite.folder import ACCOUNT_NAME, DataFolder, may_expire, write_secret
from auditplane.store.sqlite.syncing import Syncs, locked, shared_bytes
from auditplane.times import SECOND_US, format_us

SYSTEM: Final = "auditplane"
WAL_BYTES_MAX: Final = 64 * PAGE_BYTES
TOKEN_BYTES: Final = 32


class Access:
    """The keys of a data folder; safe to use from several threads, and beside other processes."""

    def __init__(self, folder: DataFolder, clock: log.Clock) -> None:
        path = folder.path / CONTROL_FILE
        self._folder, self._clock, self._path = folder, clock, path
        # Two connections: a change, which waits for the disk, must not hold up who is let in.
        self._mutex = threading.Lock()
        self._change_mutex = threading.Lock()
        self._changes = Connected(path, durable=True)
        self._connection = Connected(path, durable=False)
        self._known: dict[bytes, Key] = {}
        self._sessions: dict[bytes, Session] = {}
        self._known_version = b""
        self._used: dict[str, int] = {}
        with translated(path.parent), ExitStack() as undo:
            self._lock_file = os.open(folder.path / SHARED_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            undo.callback(os.close, self._lock_file)
            self._shared = shared_bytes(self._lock_file, SHARED_BYTES)
            undo.callback(self._shared.close)
            self._syncs = Syncs(path, self._shared, SYNCS_AT)
            undo.callback(self._changes.close)
            with locked(self._lock_file), self._changes.use() as connection:
                path.chmod(0o600)
                with suppress(OSError, StoreError):  # what can be read is, also where the disk fails
                    self._syncs.make_sure_at_start(upkeep_is_over=True)
                if not is_current(connection, MIGRATIONS):
                    with self._syncs.committing():
                        migrate(connection, MIGRATIONS, str(path))
                self._tell_of_a_change()  # also of one in the midst of which a process was killed
            undo.pop_all()

    def close(self) -> None:
        """Writes down when keys were last used, unless the disk is full, and closes the database."""
        with suppress(AuditplaneError):
            self.write_last_use()
        with self._mutex, self._change_mutex:
            self._connection.close()
            with locked(self._lock_file):
                # The last one of all copies the write-ahead log into the database.
                self._changes.close(copying=self._syncs.is_synced() and self._syncs.may_copy)
            self._shared.close()
            os.close(self._lock_file)

    def check(self) -> None:
        """Raises StoreError when keys can't be looked up, or there is none: the first start makes one."""
        with translated(self._path.parent), self._mutex, self._connection.use() as connection:
            found = fetch(connection, QUERIES["any_key"])
        if not found:
            raise StoreError(f"There is no API key in {self._path}; it is not the file that it was.")

    def authenticate(self, secret: str | None) -> Key:
        """The key of a secret; raises NotAuthenticated. A key that was just revoked is refused at once."""
        if not secret:
            raise NotAuthenticated(
                "An API key is needed: send it in the header X-Bindplane-Api-Key or Authorization: Bearer."
            )
        now = self._clock()
        hashed = sha256(secret.encode("utf-8", "surrogatepass")).digest()
        with translated(self._path.parent), self._mutex:
            self._forget_what_changed()
            key = self._known.get(hashed)
            if key is None or not key.works_at(now):
                key = self._look_up(hashed, now) if is_well_formed(secret) else None
            if key is None:
                raise NotAuthenticated("The API key is unknown, expired or revoked.")
            self._used[key.id] = now
        return key

    def _look_up(self, hashed: bytes, now_us: int) -> Key | None:
        """The key that has a hash, if it works.

        One that has ended is looked up each time, as one that never was: the time tells nobody which it is.
        """
        self._known.pop(hashed, None)
        with self._connection.use() as connection:
            rows = fetch(connection, QUERIES["working_key_by_hash"], (hashed, now_us))
        if not rows:
            return None
        self._known[hashed] = key = key_of(rows[0])
        return key

    def watch(self, key: Key) -> Callable[[], None]:
        """What raises NotAuthenticated, whenever it is called, once a key that was let in has ended.

        It asks the database only when any key has changed. For one thread at a time.
        """
        seen = b""
        current: Key | None = key

        def check() -> None:
            nonlocal seen, current
            version = self._shared[VERSION]
            if version != seen or version == IN_CHANGE:
                with translated(self._path.parent), self._mutex, self._connection.use() as connection:
                    rows = fetch(connection, QUERIES["key_of_any_account"], (key.id,))
                current, seen = key_of(rows[0]) if rows else None, version
            if current is None or not current.works_at(self._clock()):
                raise NotAuthenticated("The API key has expired, or was revoked, meanwhile.")

        return check

    def open_session(self, secret: str, *, address: str | None = None) -> tuple[str, Session]:
        """Signs in with a key; returns the token, which is not kept, and the session.

        `address` is where the attempt comes from; None where it did not come over the network. Raises
        NotAuthenticated, Forbidden for the key of a writer, and TooManyAttempts, then for a right key too.
        """
        tried = attempts.sources(address, secret)
        self._refuse_many(tried)
        try:
            key = self.authenticate(secret)
        except NotAuthenticated:
            self._count_failure(tried)
            raise
        key.require_sign_in()
        with self._changing() as connection:
            attempts.refuse_many(connection, tried, self._clock())
            return self._open_session(connection, key)

    def session(self, token: str) -> Session:
        """The session of a token; raises NotAuthenticated once it or its key has ended. It uses the key."""
        now, hashed = self._clock(), _token_hash(token)
        with translated(self._path.parent), self._mutex:
            self._forget_what_changed()
            session = self._sessions.get(hashed)
            if session is None:
                with self._connection.use() as connection:
                    rows = fetch(connection, QUERIES["session_by_hash"], (hashed,))
                for expires_us, *key in rows:
                    session = self._sessions[hashed] = Session(key_of(key), expires_us, _csrf(token))
            if session is None or not session.works_at(now):
                raise NotAuthenticated("You are not signed in any more; sign in again.")
            self._used[session.key.id] = now
        return session

    def close_session(self, token: str) -> None:
        """Signs out, if the token is that of a session."""
        with self._changing() as connection:
            fetch(connection, QUERIES["drop_session"], (_token_hash(token),))

    def make_link(self, key_id: str) -> str:
        """The token of a link that signs in with a key, once, within LINK_SECONDS.

        Raises NotFound, Conflict when the key has ended, and Forbidden when it is that of a writer.
        """
        rows = self._rows("key_of_any_account", (key_id,))
        if not rows:
            raise NotFound("There is no API key of this id.")
        key, now, token = key_of(rows[0]), self._clock(), secrets.token_urlsafe(TOKEN_BYTES)
        if not key.works_at(now):
            raise Conflict(f"The API key {key_id} has expired or was revoked.")
        key.require_sign_in()
        row = (_token_hash(token), key_id, now + limits.LINK_SECONDS * SECOND_US)
        with self._changing() as connection:
            fetch(connection, QUERIES["drop_ended_links"], (now,))
            fetch(connection, QUERIES["add_link"], row)
        return token

    def follow_link(self, token: str, *, address: str | None = None) -> tuple[str, Session]:
        """Signs in by a link, which is used up by that; otherwise as `open_session`."""
        tried = attempts.sources(address, token)
        self._refuse_many(tried)
        with self._changing() as connection:
            now = self._clock()
            attempts.refuse_many(connection, tried, now)
            taken = fetch(connection, QUERIES["take_link"], (_token_hash(token), now))
            if taken:
                (row,) = fetch(connection, QUERIES["key_of_any_account"], taken[0])
                key = key_of(row)
                if key.works_at(now):
                    return self._open_session(connection, key)
        self._count_failure(tried)
        raise NotAuthenticated(
            f"This link was used, or is older than {limits.LINK_SECONDS // 60} minutes; sign in with a key."
        )

    def _open_session(self, connection: apsw.Connection, key: Key) -> tuple[str, Session]:
        """A new session, in the change that is under way; drops those that have ended."""
        now, token = self._clock(), secrets.token_urlsafe(TOKEN_BYTES)
        expires_us = now + limits.SESSION_SECONDS * SECOND_US
        if key.expires_us is not None:
            expires_us = min(expires_us, key.expires_us)
        kept = limits.SESSIONS_PER_KEY_MAX - 1
        fetch(connection, QUERIES["drop_ended_sessions"], (now,))
        fetch(connection, QUERIES["drop_oldest_sessions"], (key.id, kept))
        fetch(connection, QUERIES["add_session"], (_token_hash(token), key.id, now, expires_us))
        return token, Session(key, expires_us, _csrf(token))

    def _refuse_many(self, tried: Sequence[attempts.Source]) -> None:
        with translated(self._path.parent), self._mutex, self._connection.use() as connection:
            attempts.refuse_many(connection, tried, self._clock())

    def _count_failure(self, tried: Sequence[attempts.Source]) -> None:
        """Counts a failed attempt; raises TooManyAttempts where others have reached the limit meanwhile."""
        with self._changing() as connection:
            now = self._clock()
            attempts.refuse_many(connection, tried, now)
            attempts.add_failure(connection, tried, now)

    def _forget_what_changed(self) -> None:
        """Drops what is known of keys and sessions when any process has changed them."""
        version = self._shared[VERSION]
        if version != self._known_version or version == IN_CHANGE:
            self._known.clear()
            self._sessions.clear()
            self._known_version = version

    def write_last_use(self) -> None:
        """Writes down when keys were last used."""
        with self._mutex:
            used, self._used = self._used, {}
        if used:
            with self._changing() as connection:
                connection.executemany(QUERIES["used_key"], [(us, key_id) for key_id, us in used.items()])

    def keys(self, account: str | None) -> list[Key]:
        """The keys of an account, or of all, oldest first."""
        # By a connection of its own: whoever is let in would wait for a long list.
        with translated(self._path.parent):
            self._changes.check_files()
            with closing(connect(self._path, durable=False)) as connection:
                if account is None:
                    return [key_of(row) for row in fetch(connection, QUERIES["keys"])]
                return [key_of(row) for row in fetch(connection, QUERIES["keys_of"], (account,))]

    def key(self, key_id: str, account: str) -> Key:
        """The key of an account that has an id; raises NotFound."""
        rows = self._rows("key_by_id", (key_id, account))
        if not rows:
            raise NotFound(f"The account {account} has no API key of this id.")
        return key_of(rows[0])

    def accounts(self) -> list[str]:
        """The names of all accounts."""
        return [row[0] for row in self._rows("accounts")]

    def create(
        self,
        *,
        account: str,
        role: Role,
        by: str,
        by_key: str = SYSTEM,
        description: str = "",
        expires_us: int | None = None,
        envelope: bool = False,
        keep_at: Path | None = None,
    ) -> tuple[Key, str]:
        """A new key and its secret; `by` is who makes it, `by_key` with which key.

        Its account comes to be with it. With `keep_at`, the secret is in that file before the key works.
        Raises InvalidInput, and Conflict beyond KEYS_MAX.
        """
        if not ACCOUNT_NAME.fullmatch(account):
            raise InvalidInput(
                f"account: must be 1 to 63 of a-z, 0-9 and -, not beginning with -, is {json.dumps(account)}."
            )
        if len(description) > limits.KEY_DESCRIPTION_CHARS_MAX:
            raise InvalidInput(f"description: must be at most {limits.KEY_DESCRIPTION_CHARS_MAX} characters.")
        if not description.isprintable():
            raise InvalidInput("description: must be one line of printable characters.")
        now = self._clock()
        if expires_us is not None and expires_us <= now:
            raise InvalidInput(f"expires: {format_us(expires_us)} is in the past.")
        secret = new_secret()
        key_id = ulid.make(now << ulid.COUNTER_BITS, os.urandom(ulid.RANDOM_BYTES))
        key = Key(key_id, account, role, description, envelope, now, expires_us, None, None)
        row = (
            key_id,
            sha256(secret.encode()).digest(),
            account,
            role.value,
            description,
            envelope,
            now,
            expires_us,
        )

        def added(connection: apsw.Connection) -> Key:
            if one(connection, QUERIES["count_working_keys"], (account, now)) >= limits.KEYS_MAX:
                raise Conflict(
                    f"The account has {limits.KEYS_MAX:,} API keys that work, which is the most; revoke some."
                )
            fetch(connection, QUERIES["add_account"], (account, now))
            fetch(connection, QUERIES["add_key"], row)
            self._drop_ended(connection, account, now)
            if keep_at is not None:
                write_secret(keep_at, secret)
            return key

        is_new = not self._rows("account", (account,))
        return self._change(account, "Created", by, by_key, added, may_begin=is_new), secret

    def _drop_ended(self, connection: apsw.Connection, account: str, now_us: int) -> None:
        """Drops keys of an account that ended, but for the last ones; by a wrong clock none has.

        The trail still tells of them.
        """
        if may_expire(self._folder.path, now_us):
            dropped = fetch(connection, QUERIES["drop_ended_keys"], (account, now_us, limits.KEYS_ENDED_MAX))
            connection.executemany(QUERIES["drop_sessions_of"], dropped)
            connection.executemany(QUERIES["drop_links_of"], dropped)

    def revoke(self, key_id: str, *, account: str, by: str, by_key: str = SYSTEM) -> Key:
        """Revokes a key of an account; raises NotFound when it has none of that id, and Conflict."""

        def revoked(connection: apsw.Connection) -> Key:
            rows = fetch(connection, QUERIES["key_by_id"], (key_id, account))
            if not rows:
                raise NotFound(f"The account {account} has no API key of this id.")
            key = key_of(rows[0])
            if key.revoked_us is not None:
                raise Conflict(f"The API key {key_id} was revoked at {format_us(key.revoked_us)}.")
            fetch(connection, QUERIES["revoke_key"], (self._clock(), key_id))
            return key

        return self._change(account, "Deleted", by, by_key, revoked)

    def _change(
        self,
        account: str,
        action: str,
        by: str,
        by_key: str,
        change: Callable[[apsw.Connection], Key],
        *,
        may_begin: bool = False,
    ) -> Key:
        """Changes a key and records that in the account's log, which `may_begin` with it: first the event.

        The log is waited for first, as its commits may take long, and the keys are those of all accounts:
        who holds them waits for the disk only. Nobody may wait for a log while he holds them.
        """
        with (
            self._folder.account(account, may_begin=may_begin) as store,
            ExitStack() as after_the_event,
            store.transaction() as transaction,
        ):
            connection = after_the_event.enter_context(self._changing())
            with translated(self._path.parent):
                self._require_working(connection, by_key)
                key = change(connection)
            log.add(transaction, _told(key, action, by, by_key), self._clock)
        return key

    def _require_working(self, connection: apsw.Connection, by_key: str) -> None:
        """Raises NotAuthenticated when the key with which somebody changes keys has ended meanwhile."""
        rows = fetch(connection, QUERIES["key_of_any_account"], (by_key,))
        if by_key != SYSTEM and not (rows and key_of(rows[0]).works_at(self._clock())):
            raise NotAuthenticated("The API key has expired, or was revoked, meanwhile.")

    def account_of(self, key_id: str) -> str:
        """The account of a key; raises NotFound."""
        rows = self._rows("account_of_key", (key_id,))
        if not rows:
            raise NotFound("There is no API key of this id.")
        return str(rows[0][0])

    def ensure_admin_key(self) -> Path | None:
        """When there is no key at all, makes an admin key and returns the file it is in."""
        if self._rows("any_key"):
            return None
        path = self._folder.path / "admin.key"
        self.create(
            account=DEFAULT_ACCOUNT,
            role=Role.ADMIN,
            by=SYSTEM,
            description="made at first start",
            keep_at=path,
        )
        return path

    def _rows(self, query: str, bindings: Sequence[Any] = ()) -> list[Any]:
        """What a quick query finds, whatever is changed meanwhile."""
        with translated(self._path.parent), self._mutex, self._connection.use() as connection:
            return fetch(connection, QUERIES[query], bindings)

    @contextmanager
    def _changing(self) -> Iterator[apsw.Connection]:
        """A transaction that is on disk afterwards, and seen by all processes."""
        with (
            translated(self._path.parent),
            self._change_mutex,
            locked(self._lock_file),
            self._changes.use() as connection,
        ):
            with self._syncs.committing(), self._telling_of_a_change(), begun(connection, "BEGIN IMMEDIATE"):
                yield connection
            self._copy_log(connection)

    @contextmanager
    def _telling_of_a_change(self) -> Iterator[None]:
        """Keeps all processes from knowing keys and sessions by heart until it is over."""
        self._shared[VERSION] = IN_CHANGE
        try:
            yield
        finally:
            self._tell_of_a_change()

    def _tell_of_a_change(self) -> None:
        """Has all processes forget what they know of keys and sessions."""
        self._shared[VERSION] = os.urandom(VERSION.stop - 1) + b"!"

    def _copy_log(self, connection: apsw.Connection) -> None:
        """Copies a write-ahead log that has grown into the database; where that fails, the next one does."""
        with suppress(apsw.Error, OSError), self._syncs.noting():
            if self._path.with_name(self._path.name + "-wal").stat().st_size > WAL_BYTES_MAX:
                self._syncs.mend_copies(connection)
                self._syncs.copy(connection, apsw.SQLITE_CHECKPOINT_PASSIVE)


def _told(key: Key, action: str, by: str, by_key: str) -> log.Request:
    """The event of a key that was made or revoked."""
    event: dict[str, Any] = {
        "resourceName": key.id,
        "resourceKind": "APIKey",
        "action": action,
        "user": by[: limits.NAME_CHARS_MAX],
        "description": f"{action} {key.role.value} API key {key.id}"
        + (f": {key.description}" if key.description else ""),
        "details": {
            "role": key.role.value,
            "description": key.description,
            "envelope": key.envelope,
            "expires": None if key.expires_us is None else format_us(key.expires_us),
            **({} if by_key == SYSTEM else {"key": by_key}),
        },
    }
    return log.Request(parse(json.dumps(event).encode(), Rules(account=key.account)), SYSTEM)


def _token_hash(token: str) -> bytes:
    return sha256(token.encode("utf-8", "surrogatepass")).digest()


def _csrf(token: str) -> str:
    """Made of the token, so that it needs no storage; the token can't be found from it."""
    return hmac.digest(token.encode("utf-8", "surrogatepass"), b"auditplane csrf", "sha256").hex()
