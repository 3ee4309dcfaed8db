"""Two bare servers, to see how much of the machine's speed is left: one reads an event and stores nothing,
the other sends a file. Both run on granian, with the options of this server.

`python -m bench.bare PORT WORKERS [FILE]`; FILE, when given, is served at /file.
"""

import os
import sys
from pathlib import Path
from typing import Final

import msgspec
from granian import Granian
from granian.constants import Interfaces, Loops
from granian.http import HTTP1Settings
from granian.log import LogLevels
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

FILE: Final = "BARE_FILE"


class Event(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """An event as it is sent."""

    resourceName: str  # noqa: N815 - the contract's name
    resourceKind: str  # noqa: N815 - the contract's name
    action: str
    user: str
    description: str = ""
    configuration: str = ""


_decode = msgspec.json.Decoder(Event).decode


async def nothing(request: Request) -> Response:
    """Reads the event and forgets it."""
    event = _decode(await request.body())
    return Response(msgspec.json.encode({"ids": [event.user]}), 201, media_type="application/json")


async def file(_request: Request) -> Response:
    """Sends the file."""
    return FileResponse(os.environ[FILE], media_type="text/csv")


app = Starlette(routes=[Route("/nothing", nothing, methods=["POST"]), Route("/file", file)])


def main(port: str, workers: str, path: str | None = None) -> None:
    """Serves until SIGTERM."""
    if path is not None:
        os.environ[FILE] = str(Path(path).resolve())
    Granian(
        "bench.bare:app",
        address="127.0.0.1",
        port=int(port),
        interface=Interfaces.ASGI,
        loop=Loops.asyncio,
        workers=int(workers),
        websockets=False,
        backlog=4096,
        http1_settings=HTTP1Settings(header_read_timeout=30_000),
        log_level=LogLevels.warning,
    ).serve()


if __name__ == "__main__":
    main(*sys.argv[1:])
