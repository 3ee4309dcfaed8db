"""One look at a log that is served: is it what was remembered, grown, and does everything below fit?

What is remembered stands in a folder: the last checkpoint that was verified, and how far the log was read.
The checkpoint is remembered only after everything fits. Where two signed checkpoints contradict each other,
both are kept beside it, as they are the evidence.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Final, NamedTuple

from auditplane.checkpoint import Checkpoint, VerifierKey, open_checkpoint
from auditplane.cli.remembered import Remembered
from auditplane.client import Client, ConnectionLost, Refused
from auditplane.client.reading import read_log
from auditplane.errors import InvalidConfig, ProofError
from auditplane.verifying import Reading, contradiction, decode_reading, listed

SAVE_SECONDS: Final = 2.0
LATER_SECONDS: Final = 1.5  # a new checkpoint may take a second
_NOT_ALLOWED: Final = (401, 403)

Report = Callable[[int, int], None]
"""Takes how many entries were read, and how many of them in this look."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What was verified.

    `before` is the checkpoint that was remembered, if any. Entries were read from `start` on, `shown` of them
    with their events. `gone` are those without, and those of before of which the log had not told yet. It
    accounts for them but for `untold`, which the server says have expired, and of which the log is to tell
    when they are purged; `texts` tells whether events were looked at.
    """

    checkpoint: Checkpoint
    before: Checkpoint | None
    start: int
    shown: int
    gone: int
    untold: int
    texts: bool


class Signed(NamedTuple):
    """A checkpoint whose signature was verified, and its note."""

    note: bytes
    checkpoint: Checkpoint


class Watch:
    """Looks at one log, again and again."""

    def __init__(self, client: Client, keys: Sequence[VerifierKey], remembered: Remembered) -> None:
        self.origin = keys[0].name
        self.account = self.origin.rpartition("/")[2]
        self._client, self._keys, self._remembered = client, keys, remembered

    def signed(self) -> Signed:
        """The checkpoint that is served now; raises ProofError when it is not signed."""
        note = self._client.checkpoint(self.account)
        try:
            return Signed(note, open_checkpoint(note, self.origin, self._keys))
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
        now = self.signed()
        if before is not None:
            self._compare(before, now)
        reading = self._reading()
        size = now.checkpoint.size
        earlier = None if before is None else before.checkpoint
        known = earlier == now.checkpoint and reading.proven == size
        if known and reading.texts:
            return Seen(now.checkpoint, earlier, size, 0, 0, 0, texts=True)
        texts = self._may_read(size)
        if known and not texts:
            return Seen(now.checkpoint, earlier, size, 0, 0, 0, texts=False)
        if reading.size > size or (texts and not reading.texts):
            reading = Reading()
        reading.texts = texts
        start, untold_before = reading.size, reading.gone
        now, ended = self._read_whole(reading, now, report)
        self._remembered.keep(self.origin, now.note)
        gone = ended.gone
        shown = ended.size - start - (gone - untold_before)
        untold = len(ended.unexplained())
        reading.prove(ended.size)
        self._save(reading)
        return Seen(now.checkpoint, earlier, start, shown, gone, untold, texts)

    def _before(self) -> Signed | None:
        note = self._remembered.note(self.origin)
        try:
            return None if note is None else Signed(note, open_checkpoint(note, self.origin, self._keys))
        except ProofError as error:
            raise ProofError(
                f"The remembered checkpoint {self._remembered.path(self.origin)} can't be used: {error} "
                "It is damaged, or signed by an earlier key; if the operator says that the key was changed, "
                "check that, and give a file with both keys by --key."
            ) from None

    def _compare(self, before: Signed, now: Signed) -> None:
        """Raises ProofError when one checkpoint does not go on from the other, and keeps both."""
        old, new = before.checkpoint, now.checkpoint
        path: list[bytes] = []
        if 0 < old.size < new.size:
            try:
                path = self._client.consistency(self.account, old.size, new.size)
            except Refused as error:
                if error.may_pass:
                    raise
                raise ProofError(
                    f"The server does not prove that the log of {new.size:,} entries goes on from that of "
                    f"{old.size:,} that was verified before: {error} {self._keep_evidence(before, now)}"
                ) from None
        wrong = contradiction(old, new, path)
        if wrong is not None:
            raise ProofError(f"{wrong}. {self._keep_evidence(before, now)}")

    def _keep_evidence(self, before: Signed, now: Signed) -> str:
        """Keeps both notes, under names that are the same for the same two; returns where."""
        mark = sha256(before.note + now.note).hexdigest()[:8]
        paths = []
        for kind, signed in (("remembered", before), ("served", now)):
            paths.append(self._remembered.path(self.origin, f"fork-{mark}.{kind}"))
            self._remembered.write(paths[-1], signed.note)
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

    def _read_whole(self, reading: Reading, now: Signed, report: Report) -> tuple[Signed, Reading]:
        """Reads up to a checkpoint, or to a later one that explains what is gone."""
        try:
            ended = self._read(reading, now.checkpoint, report)
            if self._unexplained(ended):
                # What went while this read is explained by an event that came meanwhile.
                time.sleep(LATER_SECONDS)
                before, now = now, self.signed()
                self._compare(before, now)
                ended = self._read(reading, now.checkpoint, report)
            unexplained = self._unexplained(ended)
            if unexplained:
                raise ProofError(
                    "Events are missing and the log does not say why; they were recorded at "
                    f"{listed(unexplained)}."
                )
        except ProofError:
            self._remembered.path(self.origin, "progress").unlink(missing_ok=True)
            raise
        except (ConnectionLost, Refused):
            self._save(reading)
            raise
        return now, ended

    def _read(self, reading: Reading, now: Checkpoint, report: Report) -> Reading:
        """Reads on up to a checkpoint, and keeps now and then how far it came."""
        start, saved = reading.size, time.monotonic()

        def step() -> None:
            nonlocal saved
            report(reading.size, reading.size - start)
            if time.monotonic() - saved >= SAVE_SECONDS:
                self._save(reading)
                saved = time.monotonic()

        ended = read_log(self._client, self.account, reading, now.size, step)
        if not ended.leads_to(now):
            raise ProofError(
                "The entries that are served do not lead to the root of the signed checkpoint of "
                f"{now.size:,} entries."
            )
        return ended

    def _unexplained(self, ended: Reading) -> Sequence[int]:
        """The indexes of events that are gone for no reason; of those that expired a purge will tell."""
        found = ended.unexplained()
        expired_before = self._client.expired_before(self.account) if found else 0
        return [index for index in found if index >= expired_before]
