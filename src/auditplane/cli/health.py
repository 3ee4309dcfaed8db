"""`health`: asks the server of this machine whether it is well, for those who look after processes."""

import os
from contextlib import closing
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from auditplane import config
from auditplane.cli.settings import ConfigFile, Host, Port
from auditplane.errors import ConnectionLost, Refused

if TYPE_CHECKING:
    from http.client import HTTPConnection

SECONDS_MAX: Final = 5.0
ANSWER_BYTES_MAX: Final = 4_096


def health(
    *,
    host: Host = None,
    port: Port = None,
    config_file: ConfigFile = None,
) -> None:
    """Ask the server on this machine whether it is well; the exit code is 0 when it is.

    It is found by the settings that it was started with. Its certificate is not checked: no secret is sent.

    For example:

        auditplane health
        auditplane health --port 3002
    """
    settings = config.load({"host": host, "port": port}, os.environ, config_file)
    status, text = _asked(settings)
    if status != HTTPStatus.OK:
        raise Refused(status, f"{settings.own_url} answers {status}: {text}")
    print("ok")


def _asked(settings: config.Config) -> tuple[int, str]:
    from http.client import HTTPException

    with closing(_connection(settings)) as connection:
        try:
            connection.request("GET", "/health")
            answer = connection.getresponse()
            return answer.status, answer.read(ANSWER_BYTES_MAX).decode("utf-8", "replace")
        except (OSError, HTTPException) as error:
            raise ConnectionLost(f"{settings.own_url} does not answer: {error}") from None


def _connection(settings: config.Config) -> "HTTPConnection":
    import ssl
    from http.client import HTTPConnection, HTTPSConnection

    if settings.tls_cert is None:
        return HTTPConnection(settings.own_host, settings.port, timeout=SECONDS_MAX)
    # The certificate is for the name by which others reach the server.
    anybody = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    anybody.check_hostname, anybody.verify_mode = False, ssl.CERT_NONE
    return HTTPSConnection(settings.own_host, settings.port, timeout=SECONDS_MAX, context=anybody)
