"""The flags of settings, as the commands take them that read a whole configuration."""

from typing import Annotated, TypeAlias

from cyclopts import Parameter

from auditplane import config


def _flag(name: str) -> Parameter:
    return Parameter(show_default=False, help=config.describe(name))


Data: TypeAlias = Annotated[str | None, _flag("data")]
Host: TypeAlias = Annotated[str | None, _flag("host")]
Port: TypeAlias = Annotated[str | None, _flag("port")]
Workers: TypeAlias = Annotated[str | None, _flag("workers")]
TlsCert: TypeAlias = Annotated[str | None, _flag("tls.cert")]
TlsKey: TypeAlias = Annotated[str | None, _flag("tls.key")]
ConfigFile: TypeAlias = Annotated[
    str | None,
    Parameter(
        name="--config", show_default=False, help="A TOML file of settings. Environment: AUDITPLANE_CONFIG."
    ),
]


def by_setting(
    *,
    data: str | None,
    host: str | None,
    port: str | None,
    workers: str | None,
    tls_cert: str | None,
    tls_key: str | None,
) -> dict[str, str | None]:
    """The flags of `auditplane serve`, which other commands take too, by the names of their settings."""
    return {
        "data": data,
        "host": host,
        "port": port,
        "workers": workers,
        "tls.cert": tls_cert,
        "tls.key": tls_key,
    }
