"""`python -m supply`: writes what follows from uv.lock, or asks for vulnerabilities."""

import argparse
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from supply import audit, licences, locked, sbom

_TEXTS: Final[Mapping[str, tuple[str, Callable[[], str]]]] = {
    "sbom": ("a bill of materials, CycloneDX JSON", sbom.text),
    "requirements": ("the locked packages with their hashes, for pip", locked.requirements),
}


def main() -> int:
    """Does one of them; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m supply")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("licences", help="write docs/licences.md")
    for name, told in _TEXTS.items():
        commands.add_parser(name, help=f"write {told[0]}").add_argument("file", type=Path)
    asked = commands.add_parser("audit", help="ask for vulnerabilities: 0 none known, 1 some, 2 not audited")
    asked.add_argument("--service", choices=["pypi", "osv"], default="pypi", help="whose database")
    given = parser.parse_args()
    if given.command == "licences":
        licences.PAGE.write_text(licences.page())
    elif given.command in _TEXTS:
        given.file.write_text(_TEXTS[given.command][1]())
    else:
        return audit.run(given.service)
    return 0


if __name__ == "__main__":
    sys.exit(main())
