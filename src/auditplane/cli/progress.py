"""How far a long command has come, on standard error, where that is a terminal."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Report = Callable[[int, int], None]
"""Takes how much of the total is done, and how many events that is."""


@contextmanager
def progress(title: str, total: int | None) -> Iterator[Report]:
    """Shows a bar while it is open; nothing where nobody looks."""
    if not sys.stderr.isatty():
        yield lambda _done, _events: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TextColumn("{task.fields[told]}"))
    console = Console(stderr=True)
    with Progress(*columns, TimeRemainingColumn(), console=console, transient=True) as bar:
        task = bar.add_task(title, total=total, told="")

        def report(done: int, events: int) -> None:
            rate = events / (bar.tasks[0].elapsed or 1)
            bar.update(task, completed=done, told=f"{events:,} events, {rate:,.0f}/s")

        yield report
