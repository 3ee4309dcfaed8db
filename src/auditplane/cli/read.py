"""`get` and `count`: the events that match, and how many they are."""

import json
from typing import Annotated, Literal

import cyclopts
from cyclopts import Parameter
from cyclopts.validators import Number

from auditplane.cli.connection import UNNAMED, Connection
from auditplane.cli.filters import ALL, Filters
from auditplane.cli.output import Output

app = cyclopts.App(name="get", help="Print what the server has.", help_format="plaintext")


@app.command(name="audit-events")
def audit_events(
    *,
    filters: Filters = ALL,
    order: Annotated[
        Literal["desc", "asc", "recorded"], Parameter(help="Newest first, oldest first, or as recorded.")
    ] = "desc",
    limit: Annotated[
        int | None, Parameter(help="At most so many.", validator=Number(gte=1), show_default=False)
    ] = None,
    output: Annotated[
        Literal["table", "json", "yaml", "csv", "raw", "ndjson"],
        Parameter(
            name=["--output", "-o"],
            help="How to print them; raw is CSV with cells that look like formulas left as recorded.",
        ),
    ] = "table",
    connection: Connection = UNNAMED,
) -> None:
    """Print the audit events that match all filters. One that is repeated may match any of its values.

    For example:

        auditplane get audit-events --min-date 7d
        auditplane get audit-events --configuration gateway --user ann -o json
        auditplane get audit-events -q "otlp timeout" --action Modified --limit 20
    """
    from auditplane.cli import forms

    with connection.client() as client:
        forms.write(client.lines(filters.filter(), order=order, limit=limit), output)


def count(*, filters: Filters = ALL, output: Output = "table", connection: Connection = UNNAMED) -> None:
    """Print how many audit events match.

    For example:

        auditplane count --user ann@example.com --min-date 30d
        auditplane count --action Deleted -o json
    """
    with connection.client() as client:
        found = client.count(filters.filter())
    print(json.dumps({"count": found}) if output == "json" else found)
