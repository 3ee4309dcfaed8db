"""`health`: asks the server of this machine whether it is well, for those who look after processes."""

import os
from http import HTTPStatus

from auditplane import config
from auditplane.cli.settings import ConfigFile, Host, Port
from auditplane.errors import Refused


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
    from auditplane import listening

    settings = config.load({"host": host, "port": port}, os.environ, config_file)
    status, body = listening.health(settings)
    if status != HTTPStatus.OK:
        raise Refused(status, f"{settings.own_url} answers {status}: {body.decode('utf-8', 'replace')}")
    print("ok")
