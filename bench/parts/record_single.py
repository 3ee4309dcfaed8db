"""One event a request, over many connections: this server, the ordinary one, and a POST that stores nothing.

This server and the ordinary one start with an empty trail, and are asked in the end whether they hold what
they answered 201 to.
"""

from pathlib import Path
from typing import Final

from bench.load import Load, load
from bench.measure import REPEATS
from bench.processes import Failed
from bench.run import Run, calm, say
from bench.servers import NOTHING, Auditplane, Bare, Ordinary

CONNECTIONS: Final = (8, 64)
SECONDS: Final = 6.0
BATCHES_SENT: Final = 5

Server = Auditplane | Ordinary | Bare


def run(run: Run) -> None:
    """Loads the servers in turns."""
    with run.scratch("single") as name:
        (run.folder / name).mkdir()
        bodies = run.folder / name / "bodies.ndjson"
        which = range(min(BATCHES_SENT, run.dataset.batches))
        bodies.write_bytes(b"".join(run.dataset.ndjson(which)))
        servers: list[Server] = [
            run.auditplane(f"{name}/auditplane"),
            run.ordinary(f"{name}/ordinary"),
            run.bare(NOTHING),
        ]
        started: list[Server] = []
        try:
            for server in servers:
                with run.attempt(server.name):
                    server.start()
                    started.append(server)
                    run.versions[server.name] = server.version()
            found: dict[tuple[str, int], list[Load]] = {}
            for repeat in range(REPEATS):
                say(f"  round {repeat + 1} of {REPEATS}")
                for server in started:
                    for connections in CONNECTIONS:
                        if server.name not in run.failures:
                            with run.attempt(server.name):
                                loaded = _loaded(server, bodies, connections)
                                found.setdefault((server.name, connections), []).append(loaded)
            _report(run, found)
        finally:
            for server in started:
                with run.attempt(server.name):
                    server.stop()


def _loaded(server: Server, bodies: Path, connections: int) -> Load:
    """Loads a server, and checks that it kept what it promised to."""
    before = _stored(server)
    loaded = load(server.target, server.single_path, bodies, connections, SECONDS)
    calm(server.pid)
    kept = _stored(server) - before
    if not isinstance(server, Bare) and not loaded.requests <= kept <= loaded.requests + connections:
        raise Failed(f"{server.name} answered {loaded.requests} requests and kept {kept} events")
    return loaded


def _stored(server: Server) -> int:
    return 0 if isinstance(server, Bare) else server.stored()


def _report(run: Run, found: dict[tuple[str, int], list[Load]]) -> None:
    for (name, connections), loads in found.items():
        run.add(f"rate-{connections}", name, *(each.requests / each.seconds for each in loads))
        run.add(f"p50-{connections}", name, *(each.p50_ms for each in loads))
        run.add(f"p99-{connections}", name, *(each.p99_ms for each in loads))
