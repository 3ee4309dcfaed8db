"""`verify --url`: checks a served log, as one who trusts its verifier key and what was remembered of it."""

import math
import time
from typing import Final

from auditplane.cli.connection import Connection
from auditplane.cli.patience import Patience
from auditplane.cli.progress import progress
from auditplane.cli.remembered import Remembered
from auditplane.cli.verifier_keys import verifier_keys
from auditplane.cli.watching import Seen, Watch

POLL_SECONDS: Final = 2.0


def verify_url(connection: Connection, *, key: str | None, state: str | None, follow: bool) -> None:
    """Verifies the log that is served, prints what was proved, and with `follow` goes on watching it.

    Raises ProofError for whatever does not fit.
    """
    keys = verifier_keys(key)
    remembered = Remembered(state)
    patience = Patience(math.inf if follow else 0)
    with connection.client(key_needed=False) as client:
        watch = Watch(client, keys, remembered)
        size = patience.ask(watch.signed).checkpoint.size
        with progress("Verifying", size) as report:
            seen = patience.ask(lambda: watch.look(report))
        _tell(watch.origin, seen, remembered)
        while follow:
            time.sleep(POLL_SECONDS)
            seen = patience.ask(lambda: watch.look(_quiet))
            if seen.before != seen.checkpoint:
                _tell_growth(seen)


def _quiet(_done: int, _events: int) -> None:
    """Reports nothing."""


def _tell(origin: str, seen: Seen, remembered: Remembered) -> None:
    size = seen.checkpoint.size
    said = [f"{origin}: {size:,} entries, signed by its key."]
    said.append(_history(seen))
    if seen.start < size:
        since = f"Entries {seen.start:,} to {size - 1:,}" if seen.start else f"All {size:,} entries"
        said.append(f"{since} were read: entries and tiles lead to the signed root.")
        if seen.texts:
            said.append(_events(seen))
    if seen.untold:
        said.append(
            f"{_expired(seen)} by the word of the server; the log tells of it within the hour, "
            "and the next look checks that."
        )
    if not seen.texts:
        said.append(
            "NOT checked: the texts of the events, which this API key may not read. The commitments fit; "
            "give a key that may read (AUDITPLANE_API_KEY) to check what they stand for."
        )
    said.append(
        "Not proved, as no log can: that what was recorded is true, and that all that happened was recorded."
    )
    said.append(f"Remembered for the next time in {remembered.folder}.")
    print("\n".join(said), flush=True)


def _history(seen: Seen) -> str:
    before, size = seen.before, seen.checkpoint.size
    if before is None:
        return (
            "Nothing was remembered of this log: whether it was another one before can't be told. "
            "From now on it can."
        )
    if before.size == size:
        return f"It is the log of {before.size:,} entries that is remembered; nothing was added."
    return (
        f"It goes on from the {before.size:,} entries that are remembered: none of them was changed, taken "
        "out or moved."
    )


def _events(seen: Seen) -> str:
    are = "event is" if seen.shown == 1 else "events are"
    text = f"{seen.shown:,} {are} shown; each is what was recorded there, in the order of their recording."
    return f"{text} {_gone(seen)}, and the log says why." if _told(seen) else text


def _told(seen: Seen) -> int:
    """How many are gone of which the log says why."""
    return seen.gone - seen.untold


def _gone(seen: Seen) -> str:
    return f"{_told(seen):,} {'is' if _told(seen) == 1 else 'are'} gone"


def _expired(seen: Seen) -> str:
    return f"{seen.untold:,} {'has' if seen.untold == 1 else 'have'} expired"


def _tell_growth(seen: Seen) -> None:
    size = seen.checkpoint.size
    new = size - (seen.before.size if seen.before else 0)
    what = "all fits" if seen.texts else "the commitments fit, texts were not checked"
    gone = f", {_told(seen):,} gone and accounted for" if _told(seen) else ""
    gone += f", {_expired(seen)} by the word of the server" if seen.untold else ""
    print(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {size:,} entries, {new:,} new: {what}{gone}.", flush=True)
