"""`python -m supply`: writes the page of licences, or a bill of materials, or asks for vulnerabilities."""

import argparse
import sys
from pathlib import Path

from supply import audit, licences, sbom


def main() -> int:
    """Does one of them; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m supply")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("licences", help="write docs/licences.md")
    bill = commands.add_parser("sbom", help="write a bill of materials, CycloneDX JSON")
    bill.add_argument("file", type=Path)
    asked = commands.add_parser("audit", help="ask for vulnerabilities: 0 none known, 1 some, 2 not audited")
    asked.add_argument("--service", choices=["pypi", "osv"], default="pypi", help="whose database")
    given = parser.parse_args()
    if given.command == "licences":
        licences.PAGE.write_text(licences.page())
    elif given.command == "sbom":
        given.file.write_text(sbom.text())
    else:
        return audit.run(given.service)
    return 0


if __name__ == "__main__":
    sys.exit(main())
