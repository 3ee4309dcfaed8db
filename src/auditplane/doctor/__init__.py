"""Looks at a configuration and a data folder, and says what is wrong and what to do.

It may be run beside a server. Nothing is changed: one file is made in the folder, to see what the disk takes,
and removed again. Whatever is in the folder, an examination comes to its end.
"""

from collections.abc import Callable, Iterator

from auditplane.doctor import keys, logs, machine, place, settings
from auditplane.doctor.finding import Finding, Level, Look, wrong
from auditplane.errors import AuditplaneError

__all__ = ["Finding", "Level", "Look", "examine_folder", "examine_settings"]

Check = Callable[[Look], Iterator[Finding]]

_OF_THE_SETTINGS: tuple[Check, ...] = (
    settings.check_settings,
    settings.check_address,
    settings.check_certificate,
    settings.check_token,
    machine.check_versions,
    machine.check_clock,
    machine.check_open_files,
)
_OF_THE_FOLDER: tuple[Check, ...] = (
    place.check_modes,
    place.check_contents,
    place.check_file_system,
    place.check_room,
    place.check_disk,
    keys.check_keys,
    keys.check_admin_key,
    keys.check_signing_in,
    keys.check_log_key,
    keys.check_changed_key,
    logs.check_accounts,
    logs.check_logs,
    logs.check_backup,
)


def examine_settings(look: Look) -> Iterator[Finding]:
    """Everything that is found of settings and machine, good or bad, in the order of the checks."""
    for check in _OF_THE_SETTINGS:
        yield from _guarded(check, look)


def examine_folder(look: Look) -> Iterator[Finding]:
    """Everything that is found of the folder; it is best looked at by the user who serves it."""
    found = list(_guarded(place.check_folder, look))
    yield from found
    if look.is_data_folder and all(finding.level is not Level.WRONG for finding in found):
        for check in _OF_THE_FOLDER:
            yield from _guarded(check, look)


def _guarded(check: Check, look: Look) -> Iterator[Finding]:
    """What a check finds, and that it failed when it does."""
    about = check.__name__.removeprefix("check_").replace("_", " ")
    try:
        yield from check(look)
    except (AuditplaneError, OSError) as error:
        what = f"It can't be looked at: {str(error).rstrip('.')}."
        yield wrong(about, what, "Mend what this says, and run this again.")
    except Exception as error:  # noqa: BLE001 - the other checks must not suffer
        what = f"This check failed: {type(error).__name__}: {error}."
        yield wrong(about, what, "Report this as a bug of Auditplane; the other checks don't depend on it.")
