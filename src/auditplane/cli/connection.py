"""Which server a command talks to, and with which key: flags before environment before profile.

The key of a profile goes to the server of that profile only.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

from cyclopts import Parameter

from auditplane import config
from auditplane.errors import InvalidConfig

if TYPE_CHECKING:
    from auditplane.client import Client

DEFAULT_URL: Final = "http://127.0.0.1:3001"

Flag = Annotated[str | None, Parameter(show_default=False)]


@Parameter(name="*")
@dataclass(frozen=True)
class Connection:
    """The flags that say which server."""

    url: Annotated[
        Flag,
        Parameter(help=f"The address of the server. Default: {DEFAULT_URL}. Environment: AUDITPLANE_URL."),
    ] = None
    api_key: Annotated[
        Flag, Parameter(help="The API key; others may see a flag. Environment: AUDITPLANE_API_KEY.")
    ] = field(default=None, repr=False)
    ca_cert: Annotated[
        Flag,
        Parameter(
            help="A file of certificates to trust, PEM, not those of the system. "
            "Environment: AUDITPLANE_CA_CERT."
        ),
    ] = None
    profile: Annotated[
        Flag,
        Parameter(help="A server and a key kept by `auditplane profile`. Environment: AUDITPLANE_PROFILE."),
    ] = None

    def client(self, *, key_needed: bool = True) -> "Client":
        """A client of the server; raises InvalidConfig."""
        from auditplane.client import Client

        server = self.chosen(os.environ, key_needed=key_needed)
        return Client(server.url, server.api_key, ca_cert=server.ca_cert)

    def chosen(self, environment: Mapping[str, str], *, key_needed: bool = True) -> "Server":
        """The server and the key, which is empty where there is none and none is needed.

        Raises InvalidConfig.
        """
        from auditplane.cli.profiles import Profile, Profiles

        config.refuse_unknown(environment)
        flags = Profile(self.url or "", self.api_key or "", self.ca_cert or "")
        variables = Profile(*(environment.get(name, "") for name in _VARIABLES))
        profiles = Profiles.read(environment)
        kept = profiles.find(self.profile or environment.get("AUDITPLANE_PROFILE") or None) or Profile()
        # A profile that was named by a flag goes before variables.
        places = (flags, kept, variables) if self.profile else (flags, variables, kept)
        url = next(filter(None, (place.url for place in places)), DEFAULT_URL)
        trusted = [place for place in places if place is not kept or url == kept.url]
        api_key = next(filter(None, (place.api_key for place in trusted)), "")
        ca_cert = next(filter(None, (place.ca_cert for place in trusted)), "")
        if key_needed and not api_key:
            raise InvalidConfig(
                f"There is no API key for {url}: set AUDITPLANE_API_KEY, or keep one by "
                "`auditplane profile set NAME --url URL`."
            )
        return Server(url, api_key, config.path_of(ca_cert) if ca_cert else None)


_VARIABLES: Final = ("AUDITPLANE_URL", "AUDITPLANE_API_KEY", "AUDITPLANE_CA_CERT")
UNNAMED: Final = Connection()


@dataclass(frozen=True)
class Server:
    """A server and the key for it."""

    url: str
    api_key: str = field(repr=False)
    ca_cert: Path | None
