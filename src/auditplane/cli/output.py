"""What several commands print in the same way."""

from collections.abc import Iterable, Sequence
from typing import Annotated, Literal

from cyclopts import Parameter

from auditplane.errors import InvalidConfig

Output = Annotated[Literal["table", "json"], Parameter(name=["--output", "-o"], help="How to print it.")]


def check_file(name: str) -> None:
    """Raises InvalidConfig for a flag where the name of a file is due; `-` alone is one."""
    if name.startswith("-") and name != "-":
        raise InvalidConfig(f"{name} is not the name of a file; write ./{name} if it is.")


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Prints a short table for people."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(*columns, box=box.SIMPLE)
    table.columns[0].no_wrap = True  # the id or name that other commands take
    for row in rows:
        table.add_row(*row)
    # A text is no markup.
    Console(soft_wrap=True, markup=False, emoji=False, highlight=False).print(table)
