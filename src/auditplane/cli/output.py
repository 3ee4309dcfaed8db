"""What several commands print in the same way."""

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Final, Literal, TypeAlias

from cyclopts import Parameter

from auditplane.errors import InvalidConfig

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

Output = Annotated[Literal["table", "json"], Parameter(name=["--output", "-o"], help="How to print it.")]

Rows: TypeAlias = Iterable[Sequence[str]]
ANY_WIDTH: Final = 100_000


def check_file(name: str) -> None:
    """Raises InvalidConfig for a flag where the name of a file is due; `-` alone is one."""
    if name.startswith("-") and name != "-":
        raise InvalidConfig(f"{name} is not the name of a file; write ./{name} if it is.")


def on_one_line(text: str) -> str:
    """A text on one line, in which nothing acts on a terminal or turns its direction."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else _stand_in(char) for char in text)


def _stand_in(char: str) -> str:
    return " " if char.isspace() else char.encode("unicode_escape").decode()


def print_table(columns: Sequence[str], rows: Rows) -> None:
    """Prints a short table for people, as wide as the terminal; of any width where there is none."""
    table = _table(columns, rows)
    table.columns[0].no_wrap = True  # the id or name that other commands take
    _console().print(table)


@dataclass(frozen=True)
class Layout:
    """A table, and the columns whose lines may be broken where it is too wide, each with its least width.

    Where it is `dense`, columns stand closer together.
    """

    columns: Sequence[str]
    rows: Rows
    breaking: Mapping[str, int]
    dense: bool = False


def print_fitting(layouts: Sequence[Layout]) -> None:
    """Prints the first of some tables that fits, each narrower than the one before; else the last."""
    console = _console()
    for layout in layouts:
        table = _table(layout.columns, layout.rows)
        if layout.dense:
            table.padding = (0, 1, 0, 0)
        if _fit(console, table, layout.breaking) or layout is layouts[-1]:
            console.print(table)
            return


def _fit(console: "Console", table: "Table", breaking: Mapping[str, int]) -> bool:
    """Sets the widths: those of the texts, or less where lines may be broken. Whether that will do."""
    for column in table.columns:
        column.overflow = "fold"
        column.width = max(console.measure(text).maximum for text in (column.header, *column.cells))
    unbound = console.options.update_width(ANY_WIDTH)
    excess = console.measure(table, options=unbound).maximum - console.width
    for column in table.columns:
        width, least = column.width or 0, breaking.get(str(column.header))
        if least is not None and excess > 0 and least < width:
            column.width = max(least, width - excess)
            excess -= width - column.width
    return excess <= 0


def _table(columns: Sequence[str], rows: Rows) -> "Table":
    from rich import box
    from rich.table import Table

    table = Table(*columns, box=box.SIMPLE)
    for row in rows:
        table.add_row(*row)
    return table


def _console() -> "Console":
    from rich.console import Console

    has_width = sys.stdout.isatty() or os.environ.get("COLUMNS")
    # A text is no markup.
    return Console(
        soft_wrap=True, markup=False, emoji=False, highlight=False, width=None if has_width else ANY_WIDTH
    )
