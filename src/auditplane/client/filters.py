"""Which events are asked for, as a value."""

from dataclasses import dataclass

from auditplane import query as queries


@dataclass(frozen=True, slots=True)
class Filter:
    """Choices of values; an event must match one value of each choice that is given.

    `configurations` are names, of any version, or `name:version`; `users` match in any case; `kinds` and
    `names` are those of the resource. Each of `words` is a text whose words must all occur in an event.

    Dates are texts such as `20260318`, a whole day in UTC, `20260318173000`, or RFC 3339; both ends are
    included. The server refuses what it can't read.
    """

    configurations: tuple[str, ...] = ()
    users: tuple[str, ...] = ()
    actions: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    words: tuple[str, ...] = ()
    min_date: str | None = None
    max_date: str | None = None

    def parameters(self) -> list[tuple[str, str]]:
        """The parameters of a URL that ask for it, in the names of the API."""
        choices = {
            queries.CONFIGURATION: self.configurations,
            queries.USER: self.users,
            queries.ACTION: self.actions,
            queries.KIND: self.kinds,
            queries.NAME: self.names,
            queries.WORDS: self.words,
            queries.MIN_DATE: (self.min_date,),
            queries.MAX_DATE: (self.max_date,),
        }
        return [(name, value) for name, values in choices.items() for value in values if value is not None]


EVERYTHING = Filter()
