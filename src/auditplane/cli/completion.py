"""`completion`: scripts by which shells complete commands and flags."""

from typing import Annotated, Literal

from cyclopts import Parameter


def completion(
    shell: Annotated[Literal["bash", "zsh", "fish"], Parameter(name="SHELL", help="Which shell.")], /
) -> None:
    """Print a script by which a shell completes commands and flags.

    For example:

        auditplane completion bash > /etc/bash_completion.d/auditplane
        auditplane completion zsh > ~/.zfunc/_auditplane
        auditplane completion fish > ~/.config/fish/completions/auditplane.fish
    """
    from auditplane.cli.commands import app

    script = app.generate_completion(shell=shell)  # nosec B604 # names the kind of shell, starts none
    print(script)
