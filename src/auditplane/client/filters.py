"""Which events are asked for, as a value."""

from dataclasses import dataclass

from auditplane import query as queries


@dataclass(frozen=True, slots=True)
class Filter:
    """Choices of values; an event must match one value of each choice that is given.

    Dates are in one of the forms that the server takes (`query.DATE_FORMS`), both ends included. Each of
    `words` is a text whose words must all occur in an event.
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
        """The parameters of a URL that ask for it."""
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
