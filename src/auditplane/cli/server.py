"""`serve` and `demo`: the commands that stay in the foreground."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from auditplane import __version__, config

Flag = Annotated[str | None, Parameter(show_default=False)]
PathFlag = Annotated[Path | None, Parameter(show_default=False)]


def _help(name: str) -> str:
    setting = config.SETTINGS[name]
    return f"{setting.help} Default: {setting.shown_default}. Environment: {config.variable(name)}."


def serve(
    *,
    data: Annotated[PathFlag, Parameter(help=_help("data"))] = None,
    host: Annotated[Flag, Parameter(help=_help("host"))] = None,
    port: Annotated[Flag, Parameter(help=_help("port"))] = None,
    workers: Annotated[Flag, Parameter(help=_help("workers"))] = None,
    tls_cert: Annotated[PathFlag, Parameter(help=_help("tls.cert"))] = None,
    tls_key: Annotated[PathFlag, Parameter(help=_help("tls.key"))] = None,
    config_file: Annotated[
        PathFlag, Parameter(name="--config", help="A TOML file of settings. Environment: AUDITPLANE_CONFIG.")
    ] = None,
) -> None:
    """Serve the audit trail of a data folder until SIGTERM or Ctrl-C.

    The first start makes an admin key and prints the file it is in.

    Examples:
        auditplane serve --data /var/lib/auditplane
        auditplane serve --data ./data --host 0.0.0.0 --tls-cert cert.pem --tls-key key.pem
    """
    flags = {
        "data": data,
        "host": host,
        "port": port,
        "workers": workers,
        "tls.cert": tls_cert,
        "tls.key": tls_key,
    }
    settings = config.load(flags, os.environ, config_file)

    def ready(admin_key: Path | None) -> None:
        print(f"Auditplane {__version__} serves {settings.data} at {address(settings)}", flush=True)
        if admin_key:
            print(f"The key of its first admin is in {admin_key}", flush=True)

    _serve(settings, ready)


def demo(
    *,
    data: Annotated[Path, Parameter(help="The folder of the demo, made when it is not there.")] = Path(
        "demo-data"
    ),
    host: Annotated[Flag, Parameter(help=_help("host"))] = None,
    port: Annotated[Flag, Parameter(help=_help("port"))] = None,
) -> None:
    """Serve an invented trail of 50,000 events to play with.

    Example:
        auditplane demo --data ./demo-data
    """
    from auditplane import demo as demonstration

    settings = config.load({"data": data, "host": host, "port": port}, os.environ)
    demonstration.fill(settings.data, lambda text: print(text, flush=True))
    secret = demonstration.fresh_key(settings.data)
    _serve(settings, lambda _: print(demonstration.invitation(address(settings), secret), flush=True))


def address(settings: config.Config) -> str:
    """Where a server of these settings is reached from its own machine."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)  # noqa: S104 - shown, not bound
    scheme = "https" if settings.tls_cert else "http"
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{settings.port}"


def _serve(settings: config.Config, ready: Callable[[Any], None]) -> None:
    from auditplane.http.server import serve as run

    run(settings, ready)
