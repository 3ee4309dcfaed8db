"""What a server listens with: its address, and the certificate of its TLS; and whether one listens there."""

import socket
import ssl
from contextlib import closing
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from pathlib import Path
from typing import Final

from auditplane.config import Config
from auditplane.errors import ConnectionLost, InvalidConfig, StoreError
from auditplane.times import SECOND_US

ANSWER_SECONDS_MAX: Final = 5.0
ANSWER_BYTES_MAX: Final = 4_096


@dataclass(frozen=True)
class Certificate:
    """What a person is told of a certificate; times are microseconds since 1970."""

    names: tuple[str, ...]
    begins_us: int
    ends_us: int


def address(config: Config) -> str:
    """The IP address to listen on.

    Raises StoreError when that can't be done: the workers would share the port with others.
    """
    try:
        found = socket.getaddrinfo(config.host, config.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, bound = min(found, key=lambda info: info[0] != socket.AF_INET)
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(bound)
            probe.listen()
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise StoreError(
            f"Can't listen on {config.host} port {config.port}: {reason}. "
            "Choose another with --host and --port."
        ) from None
    return str(bound[0])


def certificate(config: Config) -> Certificate | None:
    """The certificate, None without TLS; raises InvalidConfig when it or its key can't be used."""
    if config.tls_cert is None or config.tls_key is None:
        return None
    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        # Without an answer OpenSSL would ask the terminal for the password of an encrypted key.
        context.load_cert_chain(config.tls_cert, config.tls_key, password=lambda: b"")
        return _first(config.tls_cert)
    except (OSError, ValueError) as error:
        raise InvalidConfig(
            f"tls.cert {config.tls_cert} and tls.key {config.tls_key} can't be used: {error}. "
            "Give a certificate chain and its private key without a password, both PEM."
        ) from None


def _first(path: Path) -> Certificate:
    """The first certificate of a chain, which is that of the server."""
    from cryptography import x509  # noqa: PLC0415 - servers without TLS start faster

    found = x509.load_pem_x509_certificates(path.read_bytes())[0]
    try:
        alternatives = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        names = tuple(str(name.value) for name in alternatives)
    except x509.ExtensionNotFound:
        names = (found.subject.rfc4514_string(),)
    begins, ends = found.not_valid_before_utc, found.not_valid_after_utc
    return Certificate(names, int(begins.timestamp()) * SECOND_US, int(ends.timestamp()) * SECOND_US)


def health(config: Config) -> tuple[int, bytes]:
    """The status and body of `/health` of the server with these settings; raises ConnectionLost."""
    with closing(_connection(config)) as connection:
        try:
            connection.request("GET", "/health")
            answer = connection.getresponse()
            return answer.status, answer.read(ANSWER_BYTES_MAX)
        except (OSError, HTTPException) as error:
            raise ConnectionLost(f"{config.own_url} does not answer: {error}") from None


def _connection(config: Config) -> HTTPConnection:
    if config.tls_cert is None:
        return HTTPConnection(config.own_host, config.port, timeout=ANSWER_SECONDS_MAX)
    # The certificate is for the name by which others reach the server, and no secret is sent.
    anybody = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    anybody.check_hostname, anybody.verify_mode = False, ssl.CERT_NONE
    return HTTPSConnection(config.own_host, config.port, timeout=ANSWER_SECONDS_MAX, context=anybody)
