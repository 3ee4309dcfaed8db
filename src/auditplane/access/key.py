"""API keys: what they may do, how they look, and who is signed in with one."""

import hmac
import secrets
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

from auditplane.errors import Forbidden
from auditplane.times import format_us

KEY_PREFIX: Final = "ap_"
KEY_BITS: Final = 256
KEY_CHARS: Final = 43
CHECKSUM_CHARS: Final = 6

_BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


class Role(Enum):
    """What a key may do: read, record, or everything in its account, its keys included."""

    READER = "reader"
    WRITER = "writer"
    ADMIN = "admin"


class Right(Enum):
    """What a request needs."""

    READ = "read"
    RECORD = "record"
    MANAGE = "manage"
    VERIFY = "verify"


_RIGHTS: Final = {
    Role.READER: {Right.READ, Right.VERIFY},
    Role.WRITER: {Right.RECORD, Right.VERIFY},
    Role.ADMIN: {Right.READ, Right.RECORD, Right.MANAGE, Right.VERIFY},
}
_NEEDED_ROLE: Final = {
    Right.READ: "a reader or an admin",
    Right.RECORD: "a writer or an admin",
    Right.MANAGE: "an admin",
}


@dataclass(frozen=True, slots=True)
class Key:
    """An API key without its secret. Times are microseconds since 1970."""

    id: str
    account: str
    role: Role
    description: str
    envelope: bool
    created_us: int
    expires_us: int | None
    revoked_us: int | None
    last_used_us: int | None

    @property
    def name(self) -> str:
        """What a person calls it."""
        return self.description or self.id

    def shown(self) -> dict[str, Any]:
        """Its JSON form, which never holds the secret."""
        times = {
            "created": self.created_us,
            "expires": self.expires_us,
            "revoked": self.revoked_us,
            "lastUsed": self.last_used_us,
        }
        return {
            "id": self.id,
            "account": self.account,
            "role": self.role.value,
            "description": self.description,
            "envelope": self.envelope,
            **{name: format_us(us) for name, us in times.items() if us is not None},
        }

    def may(self, right: Right) -> bool:
        """Whether the key has a right."""
        return right in _RIGHTS[self.role]

    def require(self, right: Right) -> None:
        """Raises Forbidden when the key lacks a right."""
        if not self.may(right):
            raise Forbidden(
                f"This API key is of a {self.role.value}; this needs one of {_NEEDED_ROLE[right]}."
            )

    def require_sign_in(self) -> None:
        """Raises Forbidden for a key that would see nothing on the page."""
        if not self.may(Right.READ):
            raise Forbidden(
                f"A {self.role.value}'s key can't sign in; use one of {_NEEDED_ROLE[Right.READ]}."
            )

    def works_at(self, us: int) -> bool:
        """Whether it is neither revoked nor expired."""
        return self.revoked_us is None and (self.expires_us is None or us < self.expires_us)


@dataclass(frozen=True, slots=True)
class Session:
    """Somebody who is signed in with a key, until some microseconds since 1970.

    `csrf` is what a form of the page carries to show that the page made it.
    """

    key: Key
    expires_us: int
    csrf: str

    def is_own(self, csrf: str) -> bool:
        """Whether a form carried the `csrf` of this session."""
        return hmac.compare_digest(self.csrf.encode(), csrf.encode("utf-8", "surrogatepass"))

    def works_at(self, us: int) -> bool:
        """Whether it has not ended, nor its key."""
        return us < self.expires_us and self.key.works_at(us)


def new_secret() -> str:
    """A fresh key: 256 random bits and a checksum, by which scanners know a leaked one."""
    text = _base62(secrets.randbits(KEY_BITS), KEY_CHARS)
    return f"{KEY_PREFIX}{text}{_checksum(text)}"


def is_well_formed(secret: str) -> bool:
    """Whether a text has the form and the checksum of a key."""
    text = secret.removeprefix(KEY_PREFIX)
    body, checksum = text[:KEY_CHARS], text[KEY_CHARS:]
    return secret.isascii() and secret.startswith(KEY_PREFIX) and checksum == _checksum(body)


def _checksum(text: str) -> str:
    return _base62(zlib.crc32(text.encode()), CHECKSUM_CHARS)


def _base62(number: int, chars: int) -> str:
    digits = []
    for _ in range(chars):
        number, digit = divmod(number, len(_BASE62))
        digits.append(_BASE62[digit])
    return "".join(reversed(digits))


def key_of(row: Sequence[Any]) -> Key:
    """The key of a row of the database."""
    key_id, account, role, description, envelope, *times = row
    return Key(key_id, account, Role(role), description, bool(envelope), *times)
