"""Which events a command is about: the flags of Bindplane's command line, and ours."""

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Final

from cyclopts import Parameter

from auditplane.cli.spans import span_us
from auditplane.times import format_us

if TYPE_CHECKING:
    from auditplane.client import Filter

DATE_HELP: Final = "YYYYMMDDHHMMSS, YYYYMMDD (UTC), RFC 3339, or ago such as 30m, 12h, 7d, 2w."

Texts = Annotated[tuple[str, ...], Parameter(negative="", show_default=False)]
Date = Annotated[str | None, Parameter(show_default=False)]


@Parameter(name="*")
@dataclass(frozen=True)
class Filters:
    """The flags; any of the values of one that is repeated may match."""

    configurations: Annotated[
        Texts,
        Parameter(name="--configuration", help="Name of the configuration; name:version for one version."),
    ] = ()
    users: Annotated[Texts, Parameter(name="--user", help="Who did it, in any case.")] = ()
    min_date: Annotated[Date, Parameter(help=f"Not earlier: {DATE_HELP}")] = None
    max_date: Annotated[Date, Parameter(help="Not later; in the same forms.")] = None
    actions: Annotated[Texts, Parameter(name="--action", help="What was done, such as Modified.")] = ()
    kinds: Annotated[Texts, Parameter(name="--kind", help="Kind of the resource, such as Source.")] = ()
    names: Annotated[Texts, Parameter(name="--name", help="Name of the resource.")] = ()
    words: Annotated[
        Texts,
        Parameter(
            name=["--query", "-q"],
            help="Words of description, resource name, user and configuration; all must occur.",
        ),
    ] = ()

    def filter(self) -> "Filter":
        """What the server is asked for."""
        from auditplane.client import Filter

        return Filter(
            configurations=self.configurations,
            users=self.users,
            actions=self.actions,
            kinds=self.kinds,
            names=self.names,
            words=self.words,
            min_date=date(self.min_date),
            max_date=date(self.max_date),
        )


ALL: Final = Filters()


def date(text: str | None) -> str | None:
    """A date as the server takes it."""
    span = None if text is None else span_us(text)
    return text if span is None else format_us(max(0, time.time_ns() // 1000 - span))
