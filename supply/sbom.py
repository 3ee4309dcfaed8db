"""A bill of materials, CycloneDX JSON: the locked packages, with licences, and what the page has of others.

It is the same for the same sources: it holds no time, and its serial number is made of what it says.
"""

import json
import re
import uuid
from base64 import b64decode
from collections.abc import Mapping
from typing import Any

from auditplane import __version__
from supply import licences, locked
from supply.locked import Json


def text() -> str:
    """The bill of materials of this version."""
    bill = locked.bill()
    bill.pop("serialNumber")
    bill["metadata"].pop("timestamp")
    root = bill["metadata"]["component"]
    root |= {
        "type": "application",
        "version": __version__,
        "purl": f"pkg:pypi/auditplane@{__version__}",
        "licenses": _licenses("Apache-2.0"),
    }
    for component in bill["components"]:
        component["licenses"] = _licenses(licences.of_package(component["name"]))
    vendored = [_vendored(package) for package in locked.vendored()]
    bill["components"] += vendored
    _depend(bill, root["bom-ref"], [component["bom-ref"] for component in vendored])
    named = json.dumps(bill, sort_keys=True)
    return json.dumps({"serialNumber": uuid.uuid5(uuid.NAMESPACE_OID, named).urn} | bill, indent=1) + "\n"


def _licenses(expression: str) -> list[Json]:
    if re.fullmatch(r"\S+", expression):
        return [{"license": {"id": expression}}]
    return [{"expression": expression}]


def _vendored(package: Mapping[str, Any]) -> Json:
    """A package of npm of which some files are among ours."""
    purl = f"pkg:npm/{package['name']}@{package['version']}"
    tarball = {"alg": "SHA-512", "content": b64decode(package["integrity"].removeprefix("sha512-")).hex()}
    return {
        "type": "library",
        "bom-ref": purl,
        "name": package["name"],
        "version": package["version"],
        "purl": purl,
        "licenses": _licenses(package["license"]),
        "externalReferences": [{"type": "distribution", "url": package["tarball"], "hashes": [tarball]}],
        "components": [
            {
                "type": "file",
                "name": file["path"],
                "hashes": [{"alg": "SHA-256", "content": file["sha256"]}],
            }
            for file in package["files"]
        ],
    }


def _depend(bill: Json, root: str, on: list[str]) -> None:
    (of_root,) = (each for each in bill["dependencies"] if each["ref"] == root)
    of_root["dependsOn"] += on
    bill["dependencies"] += [{"ref": ref} for ref in on]
