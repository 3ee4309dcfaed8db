"""One look at a log that is served: is it what was remembered, grown, and does everything below fit?

What is remembered stands in a folder: the last checkpoint that was verified, and how far the log was read.
The checkpoint is remembered only after everything fits. Where two signed checkpoints contradict each other,
both are kept beside it, as they are the evidence.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from auditplane.checkpoint import Checkpoint, VerifierKey, open_checkpoint
from auditplane.cli.remembered import Remembered
from auditplane.client import Client, ConnectionLost, Refused
from auditplane.client.reading import read_log
from auditplane.errors import InvalidConfig, ProofError
from auditplane.verifying import Reading, contradiction, decode_reading, listed

SAVE_SECONDS: Final = 2.0
_NOT_ALLOWED: Final = (401, 403)

Report = Callable[[int, int], None]
"""Takes how many entries were read, and how many of them in this look."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What was verified.

    `before` is the checkpoint that was remembered, if any. Entries were read from `start` on, `gone` of them
    without their events, for which the log accounts; `texts` tells whether events were looked at.
    """

    checkpoint: Checkpoint
    before: Checkpoint | None
    start: int
    gone: int
    texts: bool


class Watch:
    """Looks at one log, again and again."""

    def __init__(self, client: Client, keys: Sequence[VerifierKey], remembered: Remembered) -> None:
        self.origin = keys[0].name
        self.account = self.origin.rpartition("/")[2]
        self._client, self._keys, self._remembered = client, keys, remembered

    def checkpoint(self) -> tuple[bytes, Checkpoint]:
        """The checkpoint that is served now, with its note; raises ProofError when it is not signed."""
        note = self._client.checkpoint(self.account)
        try:
            return note, open_checkpoint(note, self.origin, self._keys)
        except ProofError as error:
            raise ProofError(
                f"The checkpoint that is served is not one of {self.origin} signed by the given key: "
                f"{error} If the operator says that the key was changed, check that, and give the new one."
            ) from None

    def look(self, report: Report) -> Seen:
        """Verifies all that came since the last look, or what an earlier one left.

        Raises ProofError for what does not fit.
        """
        before = self._before()
        note, now = self.checkpoint()
        if before is not None:
            self._compare(before, note, now)
        reading = self._reading()
        known = before == now and reading.proven == now.size
        if known and reading.texts:
            return Seen(now, before, now.size, 0, texts=True)
        texts = self._may_read(now.size)
        if known and not texts:
            return Seen(now, before, now.size, 0, texts=False)
        if reading.size > now.size or (texts and not reading.texts):
            reading = Reading()
        reading.texts = texts
        start = reading.size
        ended = self._read(reading, now, report)
        seen = Seen(now, before, start, ended.gone, ended.texts)
        self._remembered.keep(self.origin, note)
        reading.prove(now.size)
        self._save(reading)
        return seen

    def _before(self) -> Checkpoint | None:
        note = self._remembered.note(self.origin)
        try:
            return None if note is None else open_checkpoint(note, self.origin, self._keys)
        except ProofError as error:
            raise ProofError(
                f"The remembered checkpoint {self._remembered.path(self.origin)} can't be used: {error} "
                "It is damaged, or signed by an earlier key; if the operator says that the key was changed, "
                "check that, and give a file with both keys by --key."
            ) from None

    def _compare(self, before: Checkpoint, note: bytes, now: Checkpoint) -> None:
        path: list[bytes] = []
        if 0 < before.size < now.size:
            try:
                path = self._client.consistency(self.account, before.size, now.size)
            except Refused as error:
                if error.may_pass:
                    raise
                raise ProofError(
                    f"The server does not prove that the log of {now.size:,} entries goes on from that of "
                    f"{before.size:,} that is remembered: {error}"
                ) from None
        wrong = contradiction(before, now, path)
        if wrong is not None:
            raise ProofError(f"{wrong}. {self._keep_evidence(note)}")

    def _keep_evidence(self, note: bytes) -> str:
        """Keeps both notes, under names that are the same for the same two; returns where."""
        earlier = self._remembered.note(self.origin) or b""
        mark = sha256(earlier + note).hexdigest()[:8]
        paths = []
        for kind, data in (("remembered", earlier), ("served", note)):
            paths.append(self._remembered.path(self.origin, f"fork-{mark}.{kind}"))
            self._remembered.write(paths[-1], data)
        return f"Both signed checkpoints are kept as evidence: {paths[0]} and {paths[1]}."

    def _may_read(self, size: int) -> bool:
        """Whether the server shows events to this key."""
        try:
            for _ in self._client.entry_lines(self.account, size, size):
                pass
        except Refused as error:
            if error.status in _NOT_ALLOWED:
                return False
            raise
        return True

    def _reading(self) -> Reading:
        """How far the log was read."""
        path = self._remembered.path(self.origin, "progress")
        try:
            return decode_reading(path.read_bytes())
        except FileNotFoundError:
            return Reading()
        except (OSError, ProofError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise InvalidConfig(
                f"{path}, which remembers how far the log was read, can't be used: {reason} "
                "Remove it, and the log is read from its beginning."
            ) from None

    def _save(self, reading: Reading) -> None:
        self._remembered.write(self._remembered.path(self.origin, "progress"), reading.encode())

    def _read(self, reading: Reading, now: Checkpoint, report: Report) -> Reading:
        """Reads on up to a checkpoint; keeps how far it came now and then, and forgets what is wrong."""
        start, saved = reading.size, time.monotonic()

        def step() -> None:
            nonlocal saved
            report(reading.size, reading.size - start)
            if time.monotonic() - saved >= SAVE_SECONDS:
                self._save(reading)
                saved = time.monotonic()

        try:
            ended = read_log(self._client, self.account, reading, now.size, step)
            _check_whole(ended, now)
        except ProofError:
            self._remembered.path(self.origin, "progress").unlink(missing_ok=True)
            raise
        except (ConnectionLost, Refused):
            self._save(reading)
            raise
        return ended


def _check_whole(ended: Reading, now: Checkpoint) -> None:
    if not ended.leads_to(now):
        raise ProofError(
            f"The entries that are served do not lead to the root of the signed checkpoint of {now.size:,}."
        )
    unexplained = ended.unexplained()
    if unexplained:
        raise ProofError(
            f"Events are missing and the log does not say why; they were recorded at {listed(unexplained)}."
        )
