"""What an account's log commits to. Pure.

An entry of the log is SHA-256(doc, line feed, stamp): 32 bytes that show nothing of the event, whose salt
is in the stamp, and that stay when doc and stamp are destroyed.
"""

from hashlib import sha256
from typing import Final

ENTRY_BYTES: Final = 32


def entry(doc: bytes, stamp: bytes) -> bytes:
    """The commitment to one event."""
    return sha256(doc + b"\n" + stamp).digest()
