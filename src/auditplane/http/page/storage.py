"""The page of the storage: how much there is, and how it grows."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from auditplane import keeping, overview
from auditplane.http.page.administration import admin, on_account
from auditplane.http.page.foot import Foot, foot
from auditplane.http.page.rendering import html, page_route
from auditplane.query import Query
from auditplane.store import Member
from auditplane.store.sqlite import forgetting
from auditplane.times import DAY_US

DAYS: Final = 30
YEAR_DAYS: Final = 365


@dataclass(frozen=True, slots=True)
class Storage:
    """What an account's log takes, and how many events each of the last days had, the oldest first."""

    events: int
    log_bytes: int
    free_bytes: int
    oldest_us: int | None
    newest_us: int | None
    retention_days: int
    days: Sequence[tuple[int, int]]

    @property
    def event_bytes(self) -> float:
        """The bytes of an event, on average."""
        return self.log_bytes / self.events if self.events else 0.0

    @property
    def daily(self) -> float:
        """How many events a day had, on average of the last days that are over."""
        over = self.days[:-1]
        return sum(count for _, count in over) / len(over)

    @property
    def yearly_bytes(self) -> float:
        """What a year takes when it goes on so."""
        return self.daily * YEAR_DAYS * self.event_bytes


@page_route
async def show(request: Request) -> Response:
    """`GET /storage`: what the account's log takes."""
    state, session = admin(request)
    name = session.key.account

    def read(account: keeping.Account) -> tuple[Storage, Foot]:
        whole = overview.overview(account.store, Query(), stacked=Member.ACTION)
        own = forgetting.retention_days(account.store)
        return (
            Storage(
                events=whole.counted,
                log_bytes=state.folder.log_bytes(name),
                free_bytes=shutil.disk_usage(state.folder.path).free,
                oldest_us=whole.oldest_us,
                newest_us=whole.newest_us,
                retention_days=state.config.retention_days if own is None else own,
                days=_days(account, state.clock()),
            ),
            foot(account.store, state, name),
        )

    storage, at_foot = await on_account(state, session, read)
    return await html(request, "storage.html", session=session, storage=storage, foot=at_foot)


def _days(account: keeping.Account, now_us: int) -> Sequence[tuple[int, int]]:
    """The start and the number of events of each of the last days in UTC, the current one among them."""
    first = now_us // DAY_US - DAYS
    query = Query(min_us=first * DAY_US, max_us=(first + DAYS + 1) * DAY_US - 1)
    found = overview.overview(account.store, query, stacked=Member.ACTION, buckets_max=24 * (DAYS + 1))
    counts = [0] * (DAYS + 1)
    for start, *row in zip(found.starts_us, *found.series.values(), strict=False):
        counts[start // DAY_US - first] += sum(row)
    return [((first + at) * DAY_US, count) for at, count in enumerate(counts)]
