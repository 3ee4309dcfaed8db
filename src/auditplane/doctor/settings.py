"""Settings, and what a server listens with."""

import errno
import json
import os
import stat
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from auditplane import listening
from auditplane.config import Config, token
from auditplane.doctor.finding import Finding, Look, moment, ok, warn, wrong
from auditplane.errors import ConnectionLost, InvalidConfig, StoreError
from auditplane.times import DAY_US

ROOT_PORTS: Final = 1_024
CERTIFICATE_DAYS_MIN: Final = 30
READ_BY_ALL: Final = stat.S_IROTH


def check_settings(look: Look) -> Iterator[Finding]:
    """Each setting can be used."""
    for problem in look.problems:
        yield wrong("settings", problem, "Mend it: `auditplane serve` would not start with it.")
    processors = os.cpu_count() or 1
    if look.config.workers > processors:
        yield warn(
            "settings",
            f"{look.config.workers} workers are more than this machine has processors ({processors}).",
            f"Set workers to {processors} at most: more of them only take memory.",
        )
    if not look.problems:
        yield ok("settings", "All can be used.")


def check_address(look: Look) -> Iterator[Finding]:
    """The address is free, or the server of the folder answers there."""
    if look.holder is not None:
        yield _answer(look.config, look.holder)
    else:
        try:
            listening.address(look.config)
        except StoreError as error:
            yield _refused(look.config, str(error).partition(" Choose")[0])
            return
        yield ok("address", f"Port {look.config.port} of {look.config.host} is free.")
    if look.config.tls_cert is None and not _is_own(look.config.host):
        yield warn(
            "address",
            f"{look.config.host} can be reached from other machines, and there is no TLS: whoever is on the "
            "way can read keys and events.",
            "Give tls.cert and tls.key, or have a proxy with TLS before it and let nobody else reach it.",
        )


def _refused(config: Config, why: str) -> Finding:
    """Why nobody can listen there; a service may have a right that whoever runs this has not."""
    if config.port < ROOT_PORTS and os.geteuid() != 0 and os.strerror(errno.EACCES) in why:
        return warn(
            "address",
            f"{why} Ports below {ROOT_PORTS:,} need a right.",
            "Give it to the server (AmbientCapabilities=CAP_NET_BIND_SERVICE in a unit), or choose another.",
        )
    return wrong("address", why, "Free it, or choose another.")


def _is_own(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _answer(config: Config, holder: str) -> Finding:
    """What the running server says of itself."""
    url = config.own_url
    try:
        status, body = listening.health(config)
        said = json.loads(body)["status"]
    except (ConnectionLost, ValueError, LookupError, TypeError):
        return warn(
            "address",
            f"The process {holder} serves the folder, but {url} gives no answer of it.",
            "Run this with the settings of that server: --config, and its environment. If they are the same, "
            "it is just starting, or hangs: look at its log.",
        )
    if status != 200:
        return wrong(
            "address",
            f"The server (process {holder}) answers at {url}, and says: {said}.",
            "See what else is wrong here, and the server's log.",
        )
    return ok("address", f"The server (process {holder}) answers at {url}, and can record.")


def check_certificate(look: Look) -> Iterator[Finding]:
    """The certificate and its key can be read, belong together, and are of this time."""
    try:
        found = listening.certificate(look.config)
    except InvalidConfig as error:
        yield wrong("certificate", str(error).partition(" Give a")[0], _PAIR)
        return
    if found is None:
        yield ok("certificate", "There is none: it serves plain HTTP.")
        return
    if look.config.tls_key is not None:
        yield from _readable(look.config.tls_key, "certificate", "The key of the certificate")
    names = ", ".join(found.names)
    ends = moment(found.ends_us)
    renew = "Renew it, and start the server again: it reads certificates when it starts."
    if look.now_us >= found.ends_us:
        yield wrong("certificate", f"That for {names} ended at {ends}: clients refuse it.", renew)
    elif look.now_us < found.begins_us:
        begins = moment(found.begins_us)
        yield wrong(
            "certificate", f"That for {names} begins at {begins} only.", "See whether the clock is right."
        )
    elif look.now_us >= found.ends_us - CERTIFICATE_DAYS_MIN * DAY_US:
        days = (found.ends_us - look.now_us) // DAY_US
        yield warn("certificate", f"That for {names} ends in {days} days, at {ends}.", renew)
    else:
        yield ok("certificate", f"That for {names} and its key belong together; it ends at {ends}.")


_PAIR: Final = (
    "Give a certificate chain and its private key without a password, both PEM, readable for the server."
)


def check_token(look: Look) -> Iterator[Finding]:
    """The token of the metrics, where there is one, is one."""
    if look.config.metrics_token is None:
        return
    try:
        token(look.config.metrics_token)
    except InvalidConfig as error:
        yield wrong("metrics", str(error), "Write one to that file; the server would not start.")
        return
    yield from _readable(look.config.metrics_token, "metrics", "The token of the metrics")
    yield ok("metrics", "They are served to who sends the token.")


def _readable(path: Path, about: str, what: str) -> Iterator[Finding]:
    """Nobody but the server, and a group of those who renew it, may read a secret."""
    if path.stat().st_mode & READ_BY_ALL:
        yield warn(about, f"{what}, {path}, can be read by everybody on this machine.", f"chmod o= {path}")
