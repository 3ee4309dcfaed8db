"""`health`: asks the server of this machine whether it is well, for those who look after processes."""

import os
from http import HTTPStatus

from auditplane import config
from auditplane.cli.settings import ConfigFile, Data, Host, Port, TlsCert, TlsKey, Workers, by_setting
from auditplane.errors import Refused


def health(
    *,
    data: Data = None,
    host: Host = None,
    port: Port = None,
    workers: Workers = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    config_file: ConfigFile = None,
) -> None:
    """Ask the server on this machine whether it is well; the exit code is 0 when it is.

    It is found by the settings that it was started with, so it takes the flags of `auditplane serve`. Of the
    files that they name, only that of `--config` is read. The certificate is not checked: no secret is sent.

    For example:

        auditplane health
        auditplane health --host 0.0.0.0 --tls-cert cert.pem --tls-key key.pem
    """
    from auditplane import listening

    flags = by_setting(data=data, host=host, port=port, workers=workers, tls_cert=tls_cert, tls_key=tls_key)
    settings = config.load(flags, os.environ, config_file)
    status, body = listening.health(settings)
    if status != HTTPStatus.OK:
        raise Refused(status, f"{settings.own_url} answers {status}: {body.decode('utf-8', 'replace')}")
    print("ok")
