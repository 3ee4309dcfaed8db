"""`profile`: servers and keys by name, in a file that only its owner can read."""

import getpass
import json
import os
import secrets
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Self

import cyclopts
from cyclopts import Parameter

from auditplane import config
from auditplane.cli.connection import DEFAULT_URL, Flag
from auditplane.cli.output import Output, print_table
from auditplane.errors import InvalidConfig, NotFound

app = cyclopts.App(name="profile", help="Keep servers and API keys by name.", help_format="plaintext")

Name = Annotated[str, Parameter(name="NAME", help="The name of the profile.")]


@dataclass(frozen=True)
class Profile:
    """A server, a key for it, and the file of certificates to trust."""

    url: str = ""
    api_key: str = field(default="", repr=False)
    ca_cert: str = ""


@dataclass(frozen=True)
class Profiles:
    """The profiles of a file, and which of them is in use."""

    path: Path
    current: str | None = None
    all: Mapping[str, Profile] = field(default_factory=dict)

    @classmethod
    def read(cls, environment: Mapping[str, str]) -> Self:
        """Those that are kept; raises InvalidConfig when the file can't be used or others may read it."""
        path = _path(environment)
        try:
            with path.open("rb") as file:
                if os.fstat(file.fileno()).st_mode & 0o077:
                    raise InvalidConfig(f"Others can read {path}, which holds keys; run `chmod 600 {path}`.")
                kept = json.load(file)
            profiles = {
                name: Profile(found["url"], found["apiKey"], found.get("caCert", ""))
                for name, found in kept["profiles"].items()
            }
            return cls(path, kept.get("current"), profiles)
        except FileNotFoundError:
            return cls(path)
        except OSError as error:
            raise InvalidConfig(f"The profiles in {path} can't be read: {error.strerror}.") from None
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise InvalidConfig(f"{path} does not hold profiles; move it away and set them anew.") from None

    def find(self, name: str | None) -> Profile | None:
        """The profile of this name, or that in use; raises InvalidConfig when none has the name."""
        name = name or self.current
        if name is None:
            return None
        if name not in self.all:
            known = f"there are {', '.join(self.all)}" if self.all else "there is none"
            raise InvalidConfig(f"There is no profile {name!r}; {known}.")
        return self.all[name]

    def write(self) -> None:
        """Puts the file in the place of the old one, whole or not at all."""
        profiles = {name: _written(profile) for name, profile in self.all.items()}
        text = json.dumps({"current": self.current, "profiles": profiles}, indent=2) + "\n"
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        unfinished = self.path.with_name(f".{self.path.name}.{secrets.token_hex(4)}")
        descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "w") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            unfinished.replace(self.path)
        except BaseException:
            unfinished.unlink(missing_ok=True)
            raise


@app.command(name="set")
def set_profile(
    name: Name,
    /,
    *,
    url: Annotated[str, Parameter(help="The address of the server.")] = DEFAULT_URL,
    api_key: Annotated[
        Flag, Parameter(help="The API key; without it, it is asked for or read from standard input.")
    ] = None,
    ca_cert: Annotated[
        Flag, Parameter(help="A file of certificates to trust, PEM, not those of the system.")
    ] = None,
) -> None:
    """Keep a server and an API key under a name. The first one is in use from then on.

    For example:

        auditplane profile set work --url https://audit.example.com:3001
        auditplane profile set here < ./data/admin.key
    """
    from auditplane.client import Client

    if not name.isprintable() or not name.strip():
        raise InvalidConfig("The name of a profile is one line of printable characters.")
    profiles = _read()
    given = api_key if api_key is not None else _asked_key()
    if not given:
        raise InvalidConfig("There is no API key: type one, or give it on standard input.")
    trusted = config.path_of(ca_cert).absolute() if ca_cert else None
    Client(url, given, ca_cert=trusted).close()  # looks whether they can be used
    profile = Profile(url, given, str(trusted or ""))
    replace(profiles, current=profiles.current or name, all={**profiles.all, name: profile}).write()
    print(f"Kept {name} in {profiles.path}.")


@app.command
def use(name: Name, /) -> None:
    """Use a profile from now on.

    For example:

        auditplane profile use work
    """
    profiles = _read()
    _known(profiles, name)
    replace(profiles, current=name).write()
    print(f"{name} is in use.")


@app.command(name="list")
def list_profiles(*, output: Output = "table") -> None:
    """List the profiles, without their keys.

    For example:

        auditplane profile list
        auditplane profile list -o json
    """
    profiles = _read()
    shown = [
        {"name": name, "url": profile.url, "caCert": profile.ca_cert, "inUse": name == profiles.current}
        for name, profile in profiles.all.items()
    ]
    if output == "json":
        print(json.dumps(shown, indent=2))
    else:
        rows = [
            (name, one.url, "yes" if name == profiles.current else "") for name, one in profiles.all.items()
        ]
        print_table(("NAME", "ADDRESS", "IN USE"), rows)


@app.command
def delete(name: Name, /) -> None:
    """Forget a profile and its key. The key goes on working; `auditplane keys revoke` ends it.

    For example:

        auditplane profile delete work
    """
    profiles = _read()
    _known(profiles, name)
    left = {other: profile for other, profile in profiles.all.items() if other != name}
    current = None if profiles.current == name else profiles.current
    replace(profiles, current=current, all=left).write()
    print(f"Forgot {name}.")


def _read() -> Profiles:
    config.refuse_unknown(os.environ)
    return Profiles.read(os.environ)


def _known(profiles: Profiles, name: str) -> None:
    if name not in profiles.all:
        raise NotFound(f"There is no profile {name!r}; `auditplane profile list` shows them.")


def _path(environment: Mapping[str, str]) -> Path:
    if named := environment.get("AUDITPLANE_PROFILES"):
        return config.path_of(named)
    home = environment.get("XDG_CONFIG_HOME") or "~/.config"
    return config.path_of(home) / "auditplane" / "profiles.json"


def _written(profile: Profile) -> dict[str, Any]:
    found = {"url": profile.url, "apiKey": profile.api_key}
    return {**found, "caCert": profile.ca_cert} if profile.ca_cert else found


def _asked_key() -> str:
    if sys.stdin.isatty():
        return getpass.getpass("API key: ").strip()
    return sys.stdin.readline().strip()
