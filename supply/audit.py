"""Asks a public database for known vulnerabilities of the locked packages, by pip-audit.

That nothing was found and that nobody could be asked are two things: pip-audit passes over what its database
does not know, so what it skipped counts as not looked at.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from supply import locked
from supply.locked import Json

CLEAN: Final = 0
VULNERABLE: Final = 1
NOT_AUDITED: Final = 2


def run(service: str) -> int:
    """Audits; prints what came of it, and returns the exit status."""
    with tempfile.TemporaryDirectory(prefix="auditplane-audit-") as folder:
        requirements = Path(folder, "requirements.txt")
        requirements.write_text(locked.requirements())
        command = [sys.executable, "-m", "pip_audit", "--requirement", str(requirements), "--disable-pip"]
        command += ["--require-hashes", "--vulnerability-service", service, "--progress-spinner", "off"]
        done = subprocess.run([*command, "--format", "json"], capture_output=True, text=True, check=False)
    try:
        packages = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError):
        reason = (done.stderr.strip().splitlines() or ["pip-audit said nothing"])[-1][:200]
        print(f"Not audited: the database {service} could not be asked. {reason}", file=sys.stderr)
        return NOT_AUDITED
    return told(packages, service)


def told(packages: list[Json], service: str) -> int:
    """Prints the vulnerabilities, and what was not looked at."""
    found = [(package, each) for package in packages for each in package.get("vulns", ())]
    for package, each in found:
        fixed = ", ".join(each["fix_versions"]) or "no version"
        print(f"{package['name']} {package['version']}: {each['id']}, fixed in {fixed}")
    skipped = [package["name"] for package in packages if "skip_reason" in package]
    if skipped:
        print(
            f"Not audited: the database {service} told nothing of {len(skipped)} of {len(packages)} packages "
            f"({', '.join(skipped[:3])}, …). It may be out of reach, or asked by a mirror that has none.",
            file=sys.stderr,
        )
    if found:
        return VULNERABLE
    if skipped or not packages:
        return NOT_AUDITED
    print(f"No vulnerability is known of the {len(packages)} packages.")
    return CLEAN
