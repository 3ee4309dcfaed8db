"""`record`: one event from flags, or several from standard input."""

import json
import sys
from typing import Annotated

from cyclopts import Parameter

from auditplane.cli.connection import UNNAMED, Connection, Flag
from auditplane.cli.output import Output
from auditplane.errors import InvalidConfig


def record(
    *,
    user: Annotated[Flag, Parameter(help="Who did it.")] = None,
    action: Annotated[Flag, Parameter(help="What was done, such as Modified.")] = None,
    kind: Annotated[Flag, Parameter(help="Kind of the resource, such as Source.")] = None,
    name: Annotated[Flag, Parameter(help="Name of the resource.")] = None,
    configuration: Annotated[Flag, Parameter(help="The configuration: name or name:version.")] = None,
    description: Annotated[Flag, Parameter(help="Composed when it is left out.")] = None,
    details: Annotated[Flag, Parameter(help="A JSON object.")] = None,
    event_id: Annotated[
        Flag, Parameter(name="--id", help="A ULID; sending the event again stores nothing twice.")
    ] = None,
    timestamp: Annotated[Flag, Parameter(help="RFC 3339; the server's time when it is left out.")] = None,
    output: Output = "table",
    connection: Connection = UNNAMED,
) -> None:
    """Record an audit event, or those on standard input: JSON, or one JSON object a line. Prints their ids.

    All events of a call are stored or none.

    For example:

        auditplane record --user ann --action Modified --kind Source --name otlp
        auditplane record < events.ndjson
    """
    event = {
        "id": event_id,
        "timestamp": timestamp,
        "resourceName": name,
        "description": description,
        "resourceKind": kind,
        "configuration": configuration,
        "action": action,
        "user": user,
        "details": details,
    }
    given: dict[str, object] = {member: value for member, value in event.items() if value is not None}
    with connection.client() as client:
        if given:
            if details is not None:
                given["details"] = _json(details)
            ids = client.record([given])
        elif sys.stdin.isatty():
            raise InvalidConfig("There is no event: give --user, --action, --kind and --name, or pipe JSON.")
        else:
            body = sys.stdin.buffer.read()
            ids = client.record_json(body) if _is_json(body) else client.record_lines(body)
    print(json.dumps({"ids": ids}, indent=2) if output == "json" else "\n".join(ids))


def _json(details: str) -> object:
    """The JSON as it was written."""
    import msgspec

    try:
        return msgspec.json.decode(details, type=msgspec.Raw)
    except (msgspec.MsgspecError, UnicodeEncodeError) as error:
        raise InvalidConfig(f"--details: is not valid JSON: {error}.") from None


def _is_json(body: bytes) -> bool:
    """Whether it is one JSON text, not one in each line."""
    try:
        json.loads(body)
    except (ValueError, RecursionError):
        return body.lstrip()[:1] == b"["
    return True
