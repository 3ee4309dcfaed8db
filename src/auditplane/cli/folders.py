"""The data folder, for commands that work on it with the server running or not."""

import getpass
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from auditplane import config
from auditplane.errors import NotFound
from auditplane.event import DEFAULT_ACCOUNT

if TYPE_CHECKING:
    from auditplane.access import Access
    from auditplane.keeping import Account
    from auditplane.store.sqlite.folder import DataFolder

Data = Annotated[str | None, Parameter(help=config.describe("data"), show_default=False)]

Whose = Annotated[str, Parameter(name="--account", help="Whose trail.")]


@contextmanager
def opened(data: str | None) -> "Iterator[tuple[DataFolder, Access]]":
    """The data folder that the flag or a setting names, and its keys; raises NotFound when there is none."""
    from auditplane.access import Access
    from auditplane.log import clock
    from auditplane.store.sqlite.folder import DataFolder

    path = config.load({"data": data}, os.environ).data
    if not (path / "control.db").exists():
        raise NotFound(f"There is no data folder at {path}; `auditplane serve --data {path}` makes one.")
    with working_as_owner(path):
        folder = DataFolder(path)
        access = Access(folder, clock)
        try:
            yield folder, access
        finally:
            access.close()
            folder.close()


@contextmanager
def opened_account(data: str | None, account: str = DEFAULT_ACCOUNT) -> "Iterator[Account]":
    """The log of an account, worked on by whoever runs the command; raises NotFound when there is none."""
    from auditplane.keeping import Account
    from auditplane.log import clock
    from auditplane.store.sqlite.folder import may_expire

    with opened(data) as (folder, _):
        if not folder.has_log(account):
            raise NotFound(f"There is no account {account} in {folder.path}.")
        with folder.account(account) as store:
            trusted = may_expire(folder.path, clock())
            yield Account(account, store, clock, by=operator(), may_expire=trusted)


def operator() -> str:
    """Who runs the command, by the name that stands in the trail."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError):
        name = f"user {os.getuid()}"  # one without a name, as in some containers
    return f"{name} (command line)"


@contextmanager
def working_as_owner(path: Path) -> Iterator[None]:
    """Root makes files in the name of the folder's owner; the server could not open those of root."""
    owner = path.stat()
    if os.geteuid() != 0 or owner.st_uid == 0:
        yield
        return
    group = os.getegid()
    os.setegid(owner.st_gid)
    os.seteuid(owner.st_uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(group)
