"""`doctor`: looks at a configuration and a data folder, and says what is wrong and what to do."""

import json
import os
import sys
import time
from collections.abc import Iterable
from contextlib import nullcontext
from typing import TYPE_CHECKING

from auditplane import config
from auditplane.cli import FAILED
from auditplane.cli.folders import working_as_owner
from auditplane.cli.output import Output
from auditplane.cli.settings import ConfigFile, Data, Host, Port, TlsCert, TlsKey, Workers, by_setting

if TYPE_CHECKING:
    from auditplane.doctor import Finding


def doctor(
    *,
    data: Data = None,
    host: Host = None,
    port: Port = None,
    workers: Workers = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    config_file: ConfigFile = None,
    output: Output = "table",
) -> None:
    """Look at a configuration and a data folder, and say what is wrong and what to do.

    It takes the flags of `auditplane serve`, and may be run beside it: it changes nothing. Each line is `ok`,
    `warn` (to be looked after) or `wrong` (something does not work, or will not after the next start). The
    exit code is 1 when anything is wrong, and 0 otherwise.

    For example:

        auditplane doctor --data /var/lib/auditplane
        auditplane doctor --config /etc/auditplane.toml -o json
    """
    from auditplane.doctor import Level, Look, examine_folder, examine_settings

    flags = by_setting(data=data, host=host, port=port, workers=workers, tls_cert=tls_cert, tls_key=tls_key)
    settings, problems = config.read(flags, os.environ, config_file)
    look = Look(settings, problems, time.time_ns() // 1_000)
    findings = list(examine_settings(look))
    with working_as_owner(settings.data) if _is_there(settings) else nullcontext():
        findings += examine_folder(look)
    if output == "json":
        print(json.dumps([_members(finding) for finding in findings], indent=2))
    else:
        _print(findings)
    if any(finding.level is Level.WRONG for finding in findings):
        sys.exit(FAILED)


def _is_there(settings: config.Config) -> bool:
    try:
        return settings.data.exists()
    except OSError:  # which the examination tells
        return False


def _members(finding: "Finding") -> dict[str, str]:
    members = {"level": finding.level.value, "about": finding.about, "what": finding.what, "do": finding.do}
    return {name: value for name, value in members.items() if value}


def _print(findings: "Iterable[Finding]") -> None:
    """A line for each, and below it what to do; then how many there are."""
    from collections import Counter

    from auditplane.doctor import Level

    counts = Counter(finding.level for finding in findings)
    for finding in findings:
        print(f"{finding.level.value:<5}  {finding.about:<12}  {_plain(finding.what)}")
        if finding.do:
            print(f"{'':<21}→ {_plain(finding.do)}")
    wrong, warned, fine = counts[Level.WRONG], counts[Level.WARN], counts[Level.OK]
    print(f"\n{wrong} wrong, {warned} to be looked after, {fine} in order.")


def _plain(text: str) -> str:
    """A text without what would move the cursor: names of files may hold anything."""
    return text if text.isprintable() else "".join(each if each.isprintable() else "?" for each in text)
