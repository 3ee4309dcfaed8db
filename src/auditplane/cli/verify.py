"""`verify`: checks a folder, a log that is served, or a file of evidence."""

from typing import Annotated

from cyclopts import Parameter

from auditplane.cli.connection import UNNAMED, Connection
from auditplane.errors import InvalidConfig


def verify(
    file: Annotated[
        str | None, Parameter(help="A file of evidence, as `auditplane evidence` makes it.")
    ] = None,
    /,
    *,
    data: Annotated[
        str | None, Parameter(help="The data folder to check, with the server running or not.")
    ] = None,
    account: Annotated[str | None, Parameter(help="Only the log of this account.")] = None,
    deep: Annotated[
        bool, Parameter(negative="", help="With --data: what events are found by, and every page, too.")
    ] = False,
    record: Annotated[
        bool,
        Parameter(negative="", help="With --data: keep the outcome in the folder, for its page to show."),
    ] = False,
    key: Annotated[
        str | None, Parameter(help="The verifier key of the log, or a file it is in; kept from before.")
    ] = None,
    state: Annotated[
        str | None,
        Parameter(
            help="The folder that remembers checkpoints. Default: ~/.local/state/auditplane/checkpoints."
        ),
    ] = None,
    follow: Annotated[
        bool,
        Parameter(negative="", help="With --url: go on watching, and end when the log is not what it was."),
    ] = False,
    connection: Connection = UNNAMED,
) -> None:
    """Check that nothing was altered, removed or back-dated, and say what was found.

    For example:

        auditplane verify trail.zip --key auditplane/4f1c2ab9/default+1a2b3c4d+AQ...
        auditplane verify --url https://audit.example.com --key log.vkey --follow
        auditplane verify --data /var/lib/auditplane --deep
    """
    if file is not None:
        from auditplane.cli.verify_file import verify_file

        verify_file(file, key=key)
    elif data is not None:
        from auditplane.cli.verify_folder import verify_folder

        verify_folder(data, account=account, deep=deep, record=record, key=key, state=state)
    elif connection.url is not None:
        from auditplane.cli.verify_url import verify_url

        verify_url(connection, key=key, state=state, follow=follow)
    else:
        raise InvalidConfig("Say what to verify: FILE.zip, --data DIR, or --url URL with --key.")
