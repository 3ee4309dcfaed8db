"""`backup` and `restore`: copies of a data folder, and folders made from them."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from auditplane import config
from auditplane.cli.folders import Data, opened
from auditplane.cli.output import check_file
from auditplane.cli.progress import progress

if TYPE_CHECKING:
    from auditplane.backup import Manifest
    from auditplane.signing import LogKey


def backup(
    folder: Annotated[str, Parameter(name="DIR", help="A new folder for the backup, or an empty one.")],
    /,
    *,
    data: Data = None,
    with_key: Annotated[
        bool,
        Parameter(
            negative="", help="With the key that signs checkpoints, which whoever has the backup can use."
        ),
    ] = False,
) -> None:
    """Copy a data folder, with the server running or not, and check the copy.

    All that was recorded when the command began is in it. The file admin.key is not; the key in it works
    after a restore as well.

    For example:

        auditplane backup /mnt/backups/2026-11-24 --data ./data
        auditplane backup /mnt/backups/2026-11-24 --data ./data --with-key
    """
    from contextlib import ExitStack

    from auditplane import backup as backups
    from auditplane.log import clock

    check_file(folder)
    settings = config.load({"data": data}, os.environ)
    with ExitStack() as held:
        # Root works as the owner of the folder there, but writes the backup as itself.
        with opened(data) as (source, access):
            wanted = held.enter_context(backups.begun(source, access, clock))
        manifest = backups.make(
            settings.data, wanted, Path(folder), _key(settings), with_key=with_key, watch=progress
        )
    _note(data, manifest)
    events = sum(account.size for account in manifest.accounts)
    print(f"Backed up {events:,} events of {_accounts(manifest)} to {folder}, and checked them.")
    if not manifest.with_key:
        print("The key that signs checkpoints is not in it: keep a copy of that elsewhere.")


def _note(data: str | None, manifest: "Manifest") -> None:
    """Notes in the folder when the backup was begun; that this fails makes the backup no worse."""
    from contextlib import suppress

    from auditplane.errors import AuditplaneError
    from auditplane.store.sqlite.folder import note_backup
    from auditplane.times import parse_rfc3339

    with suppress(AuditplaneError), opened(data) as (source, _):
        note_backup(source.path, parse_rfc3339(manifest.at))


def _key(settings: config.Config) -> "LogKey | None":
    from auditplane.signing import KEY_FILE, log_key

    if settings.log_key is None and not (settings.data / KEY_FILE).exists():
        return None
    return log_key(settings.data, settings.log_name, settings.log_key)


def restore(
    folder: Annotated[str, Parameter(name="BACKUP", help="The folder of the backup.")],
    /,
    *,
    data: Data = None,
) -> None:
    """Make a data folder from a backup, and check it. The folder must be new or empty.

    Nothing is signed by its server until `auditplane log confirm`.

    For example:

        auditplane restore /mnt/backups/2026-11-24 --data ./restored
    """
    from auditplane.backup import restore as run
    from auditplane.log import clock

    check_file(folder)
    path = config.load({"data": data}, os.environ).data
    manifest = run(Path(folder), path, clock, watch=progress)
    events = sum(account.size for account in manifest.accounts)
    print(
        f"Restored {events:,} events of {_accounts(manifest)} to {path}, and checked them. "
        f"They are those of {manifest.at}.\n"
        "- What was recorded later is not in it. Whoever keeps a checkpoint from later will see that this "
        "log does not continue it: tell them first.\n"
        "- API keys that were revoked later work again, and events that were erased later are there again: "
        "revoke and erase them anew."
    )
    if not manifest.with_key:
        print(
            f"- The key that signs checkpoints was not in the backup: put it to {path / 'log.key'} before "
            f"the server starts. If it is lost, make another one: auditplane log rotate --lost --data {path}"
        )
    print(f"- Nothing is signed until you confirm: auditplane log confirm --data {path}")


def _accounts(manifest: "Manifest") -> str:
    count = len(manifest.accounts)
    return f"{count:,} account{'s' * (count != 1)}"
