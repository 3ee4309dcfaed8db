"""`tail`: the end of the log, and what comes after it; nothing missed, nothing twice.

A page is shown when all of it has come, and only then the next one is asked for, after the index that the
server names. So a connection that is lost is taken up where it was.
"""

import math
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Annotated, Final, Literal

from cyclopts import Parameter
from cyclopts.validators import Number

from auditplane.cli.connection import UNNAMED, Connection
from auditplane.cli.filters import ALL, Filters
from auditplane.errors import InvalidInput

if TYPE_CHECKING:
    from auditplane.client import Recorded

PAGE_EVENTS: Final = 1_000
POLL_SECONDS: Final = 1.0

_Pages = Callable[[int], "Recorded"]
"""Gives the page after an index."""


def tail(
    *,
    last: Annotated[
        int, Parameter(name=["--lines", "-n"], help="How many to begin with.", validator=Number(gte=0))
    ] = 10,
    follow: Annotated[
        bool, Parameter(name=["--follow", "-f"], negative="", help="Go on with what is recorded from now on.")
    ] = False,
    after: Annotated[
        int | None,
        Parameter(
            help="Begin after the event of this index, counted from 0 as recorded; -1 for the whole log.",
            validator=Number(gte=-1),
            show_default=False,
        ),
    ] = None,
    filters: Filters = ALL,
    output: Annotated[
        Literal["table", "ndjson"], Parameter(name=["--output", "-o"], help="How to print them.")
    ] = "table",
    connection: Connection = UNNAMED,
) -> None:
    """Print the audit events that were recorded last, in the order of their recording.

    For example:

        auditplane tail -n 50
        auditplane tail -f --action Deleted
        auditplane tail --after 1999 -o ndjson
    """
    from auditplane.cli import forms
    from auditplane.cli.patience import Patience

    where = filters.filter()
    patience = Patience(math.inf if follow else 0)
    writer = forms.new_writer(output)
    with connection.client() as client:

        def page(index: int) -> "Recorded":
            return patience.ask(lambda: client.recorded_after(index, where, limit=PAGE_EVENTS))

        if after is None:
            size = patience.ask(lambda: client.recorded_after(-1, limit=1)).log_size
            if filters == ALL:
                after = max(-1, size - 1 - last)
            else:
                docs, after = _last(page, size, last)
                if docs:
                    writer.write(docs)
        for found in _pages(page, after, follow=follow):
            if found.docs:
                writer.write(found.docs)
            sys.stdout.flush()
    writer.end()


def _pages(page: _Pages, after: int, *, follow: bool) -> "Iterator[Recorded]":
    """The pages after an index up to the end of the log, or for ever."""
    while True:
        found = page(after)
        if found.log_size <= after:
            raise InvalidInput(
                f"The log has {found.log_size:,} events, and none of the index {after:,}: "
                "it is not the one that was followed. Begin without --after."
            )
        yield found
        after = found.next_after
        if found.is_last:
            if not follow:
                return
            time.sleep(POLL_SECONDS)


def _last(page: _Pages, size: int, count: int) -> tuple[list[bytes], int]:
    """The last `count` events that match, and the index after which the log goes on.

    The filters are tried on a piece of the log's end that grows until they match often enough.
    """
    span = max(count, PAGE_EVENTS)
    while True:
        start = max(-1, size - 1 - span)
        docs: deque[bytes] = deque(maxlen=count)
        after = start
        for found in _pages(page, start, follow=False):
            docs.extend(found.docs)
            after = found.next_after
        if len(docs) == count or start == -1:
            return list(docs), after
        span *= 8
