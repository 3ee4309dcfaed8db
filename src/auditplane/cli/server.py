"""`serve` and `demo`: the commands that stay in the foreground."""

import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Final

from cyclopts import Parameter

from auditplane import __version__, config
from auditplane.cli.settings import ConfigFile, Data, Host, Port, TlsCert, TlsKey, Workers, by_setting

AS_ROOT: Final = "It runs as root, and needs none of root's rights: give it a user of its own."


def serve(
    *,
    data: Data = None,
    host: Host = None,
    port: Port = None,
    workers: Workers = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    config_file: ConfigFile = None,
) -> None:
    """Serve the audit trail of a data folder until SIGTERM or Ctrl-C.

    The first start makes an admin key and prints the file it is in.

    For example:

        auditplane serve --data /var/lib/auditplane
        auditplane serve --host 0.0.0.0 --tls-cert cert.pem --tls-key key.pem
    """
    flags = by_setting(data=data, host=host, port=port, workers=workers, tls_cert=tls_cert, tls_key=tls_key)
    settings = config.load(flags, os.environ, config_file)

    def ready(admin_key: Path | None) -> None:
        _say(f"Auditplane {__version__} serves {settings.data} at {settings.own_url}")
        if admin_key:
            _say(f"The key of its first admin is in {admin_key}")
        if os.geteuid() == 0:
            _say(AS_ROOT)

    _serve(settings, ready)


def demo(
    *,
    data: Annotated[str, Parameter(help="The folder of the demo, made when it is not there.")] = "demo-data",
    host: Host = None,
    port: Port = None,
) -> None:
    """Serve an invented trail of 50,000 events to play with.

    For example:

        auditplane demo --data ./demo-data
    """
    from auditplane import demo as demonstration

    settings = config.load({"data": data, "host": host, "port": port}, os.environ)
    settings = replace(settings, log_requests=False)  # a person looks at what is printed
    demonstration.fill(settings.data, _say)

    def ready(_: Path | None) -> None:
        _say(demonstration.invitation(settings.own_url, *demonstration.fresh_key(settings.data)))

    _serve(settings, ready)


def _say(text: str) -> None:
    """Prints at once; that nobody reads it is no reason to end."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _serve(settings: config.Config, ready: Callable[[Any], None]) -> None:
    from auditplane.http.server import serve as run

    run(settings, ready)
