"""The checkpoints that this machine remembers of logs: what a log is checked against the next time.

A folder has a file for each log, named after its origin, which is the signed checkpoint as it was served:
`$XDG_STATE_HOME/auditplane/checkpoints`, or another that was given.
"""

import os
import secrets
from pathlib import Path

from auditplane.config import path_of
from auditplane.errors import InvalidConfig


class Remembered:
    """The remembered checkpoints in a folder, which is made when something is kept."""

    def __init__(self, folder: str | None) -> None:
        self.folder = path_of(folder) if folder else _default()

    def note(self, origin: str) -> bytes | None:
        """The signed note of the last checkpoint of a log that was kept."""
        try:
            return self.path(origin).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise InvalidConfig(f"{self.path(origin)} can't be read: {error.strerror}.") from None

    def keep(self, origin: str, note: bytes) -> None:
        """Keeps the signed note of a checkpoint in place of the last one."""
        self.write(self.path(origin), note)

    def write(self, path: Path, data: bytes) -> None:
        """Writes a file of the folder, wholly or not at all."""
        unfinished = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with unfinished.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            unfinished.replace(path)
        except OSError as error:
            unfinished.unlink(missing_ok=True)
            raise InvalidConfig(f"{path} can't be written: {error.strerror}.") from None

    def path(self, origin: str, kind: str = "checkpoint") -> Path:
        """The file of a log, of its last checkpoint or of something that belongs to it."""
        return self.folder / f"{origin.replace('/', '_')}.{kind}"


def _default() -> Path:
    base = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    return path_of(base) / "auditplane" / "checkpoints"
