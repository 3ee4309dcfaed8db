"""What is looked at, and what is found."""

from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from pathlib import Path

from auditplane.access.stored import Control, look_into
from auditplane.config import Config
from auditplane.errors import AuditplaneError
from auditplane.store.sqlite.folder import ACCOUNTS, holder
from auditplane.times import format_us


class Level(Enum):
    """How bad it is: as it should be, to be looked after, or so that something does not work."""

    OK = "ok"
    WARN = "warn"
    WRONG = "wrong"


@dataclass(frozen=True)
class Finding:
    """What was found about something, and what to do about it."""

    level: Level
    about: str
    what: str
    do: str = ""


def ok(about: str, what: str) -> Finding:
    """It is as it should be."""
    return Finding(Level.OK, about, what)


def warn(about: str, what: str, do: str) -> Finding:
    """The server works, but somebody should look after this."""
    return Finding(Level.WARN, about, what, do)


def wrong(about: str, what: str, do: str) -> Finding:
    """Something does not work, or will not after the next start."""
    return Finding(Level.WRONG, about, what, do)


def disk_failed(what: str, when: str) -> Finding:
    """A sync of something failed, and it was not written again since, which happens `when` it is."""
    return warn(
        "disk",
        f"The disk failed while {what} was written.",
        "Look at the disk (`dmesg`, `smartctl`). Nothing that was acknowledged is lost: what was written "
        f"then is written again when {when}.",
    )


def moment(us: int) -> str:
    """A time as a person reads it."""
    return f"{format_us(us)[:16].replace('T', ' ')} UTC"


@dataclass(frozen=True)
class Look:
    """A configuration, as far as it can be used, what is wrong with it, and the time in microseconds."""

    config: Config
    problems: list[str]
    now_us: int

    @property
    def folder(self) -> Path:
        """The data folder."""
        return self.config.data

    @cached_property
    def holder(self) -> str | None:
        """The process that serves the folder, if one does."""
        return holder(self.folder)

    @cached_property
    def control(self) -> Control | AuditplaneError:
        """What the folder has of keys, or why that can't be read."""
        try:
            return look_into(self.folder, self.now_us)
        except AuditplaneError as error:
            return error

    @property
    def is_data_folder(self) -> bool:
        """Whether there is anything of ours in the folder, as far as one may look."""
        try:
            return any((self.folder / name).exists() for name in ("control.db", ACCOUNTS))
        except OSError:
            return False
