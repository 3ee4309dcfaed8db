"""`evidence`: events in a file with what proves them, whole or not at all."""

from typing import Annotated

from cyclopts import Parameter

from auditplane.cli.connection import UNNAMED, Connection
from auditplane.cli.download import destination
from auditplane.cli.filters import ALL, Filters
from auditplane.cli.output import check_file


def evidence(
    *,
    output: Annotated[
        str,
        Parameter(name=["--output", "-o"], allow_leading_hyphen=True, help="The zip; - is standard output."),
    ],
    filters: Filters = ALL,
    connection: Connection = UNNAMED,
) -> None:
    """Save the audit events that match with what proves them, for somebody who trusts nobody.

    The zip holds the events, the same as CSV, a proof, and a program that checks all of it without a network,
    as `auditplane verify` does. The file is there once all of it has come.

    For example:

        auditplane evidence -o trail.zip
        auditplane evidence -o ann.zip --user ann@example.com --min-date 20260101 --max-date 20260331
    """
    check_file(output)
    with connection.client() as client, destination(output) as file:
        for chunk in client.evidence(filters.filter()):
            file.write(chunk)
