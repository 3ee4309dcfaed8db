"""What the program is made of: pinned, under known licences, listed in full."""

import json
import re
import subprocess
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import cyclonedx.schema
import jsonschema_rs
import pytest
from license_expression import get_spdx_licensing

from auditplane import __version__
from supply import audit, licences, locked, sbom

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
LOCKED: list[dict[str, Any]] = tomllib.loads((ROOT / "uv.lock").read_text())["package"]


def files_of(package: dict[str, Any]) -> list[dict[str, str]]:
    return [*package.get("wheels", ()), *([package["sdist"]] if "sdist" in package else [])]


def runtime() -> list[dict[str, Any]]:
    """What a server is installed with on some system, by walking uv.lock from the project."""
    reached, waiting = set(), ["auditplane"]
    while waiting:
        name = waiting.pop()
        if name not in reached:
            reached.add(name)
            for package in LOCKED:
                if package["name"] == name:
                    needed = package.get("dependencies", ())
                    assert not any("extra" in each for each in needed), name  # would be another walk
                    waiting += [each["name"] for each in needed]
    return [package for package in LOCKED if package["name"] in reached - {"auditplane"}]


# Pinned.


def test_every_package_of_every_kind_is_locked_with_the_hashes_of_its_files() -> None:
    """From a registry, with no file that could be another one tomorrow; tools too."""
    for package in LOCKED:
        if package["name"] == "auditplane":
            continue
        assert set(package["source"]) == {"registry"}, package["name"]
        assert files_of(package), package["name"]
        for file in files_of(package):
            assert re.fullmatch(r"sha256:[0-9a-f]{64}", file["hash"]), package["name"]


def test_what_installs_them_is_checked_too() -> None:
    """The uv that the set-up begins with is the one of uv.lock, with the hashes of all its files."""
    (uv,) = (package for package in LOCKED if package["name"] == "uv")
    printed = subprocess.run([ROOT / "scripts/pinned-uv"], capture_output=True, text=True, check=True).stdout
    requirement, *hashes = printed.split()
    assert requirement == f"uv=={uv['version']}"
    assert requirement in PROJECT["dependency-groups"]["dev"]
    assert set(hashes) == {f"--hash={file['hash']}" for file in files_of(uv)}


# Licences.


def test_every_licence_is_allowed() -> None:
    """Of each package, as an expression of SPDX, and of each file of others."""
    spdx = get_spdx_licensing()
    found = {name: licences.of_package(name) for name in locked.package_names()}
    found |= {each["name"]: each["license"] for each in locked.vendored()}
    for name, expression in found.items():
        assert spdx.validate(expression).errors == [], name
        assert set(licences.names_in(expression)) == set(spdx.license_keys(expression))
        assert set(licences.names_in(expression)) <= licences.ALLOWED, name


def test_a_licence_that_nobody_named_is_an_error() -> None:
    """Neither a package that is not there, nor one that says it in words of its own, passes unnoticed."""
    with pytest.raises(LookupError, match="no-such-package"):
        licences.of_package("no-such-package")
    assert "GPL-3.0-only" not in licences.ALLOWED
    assert licences.names_in("(MIT OR GPL-3.0-only) AND Zlib") == ["MIT", "GPL-3.0-only", "Zlib"]


def test_what_is_stated_of_licences_is_needed_and_true() -> None:
    """Each package that is stated or noted is locked; metadata that is clear says the same."""
    names = set(locked.package_names())
    assert licences.STATED.keys() | licences.NOTES.keys() <= names
    assert licences.STATED.keys() <= licences.NOTES.keys()
    for name, stated in licences.STATED.items():
        try:
            said = metadata.metadata(name).json.get("license_expression")
        except metadata.PackageNotFoundError:
            continue
        assert said in (None, stated), name
    text = metadata.distribution("jinja2").read_text("licenses/LICENSE.txt") or ""
    assert "Neither the name" in text
    text = metadata.distribution("apsw").read_text("licenses/LICENSE") or ""
    assert "This software is provided 'as-is', without any express or implied" in text


def test_the_page_of_licences_is_current() -> None:
    """`make licences` would change nothing."""
    assert licences.PAGE.read_text() == licences.page()


# The bill of materials.


def schema(name: str) -> Any:
    """A schema of those that come with CycloneDX's library, whose own validator takes 46 s for the bill."""
    folder = Path(cyclonedx.schema.__file__).parent / "_res"
    return json.loads((folder / f"{name}.SNAPSHOT.schema.json").read_text())


def retrieved(uri: str) -> Any:
    """A schema that another one names."""
    return schema(uri.rpartition("/")[2].partition(".SNAPSHOT")[0])


@pytest.fixture(scope="module")
def bill() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(sbom.text())
    return found


def test_the_bill_is_valid_and_the_same_each_time(bill: dict[str, Any]) -> None:
    """By the schema of CycloneDX; the same sources give the same text."""
    assert json.loads(sbom.text()) == bill
    assert bill["metadata"]["component"]["version"] == __version__
    valid = jsonschema_rs.Draft7Validator(schema("bom-1.5"), retriever=retrieved, validate_formats=True)
    valid.validate(bill)
    for wrong in ({"pearl": "a member that is none"}, {"licenses": [{"license": {"id": "None-1.0"}}]}):
        spoilt = bill | {"components": [bill["components"][0] | wrong]}
        assert not valid.is_valid(spoilt)


def test_the_bill_lists_what_is_locked_and_nothing_else(bill: dict[str, Any]) -> None:
    """Each package that a server is installed with, its version and the hash of each of its files."""
    listed = {
        (component["name"], component["version"]): sorted(hashes_of(component))
        for component in bill["components"]
        if component["purl"].startswith("pkg:pypi/")
    }
    due = {
        (package["name"], package["version"]): sorted(
            file["hash"].removeprefix("sha256:") for file in files_of(package)
        )
        for package in runtime()
    }
    assert listed == due
    direct = {re.split(r"[^\w.-]", need)[0].replace(".", "-") for need in PROJECT["project"]["dependencies"]}
    assert direct <= {name for name, _ in listed}
    assert "pytest" not in {name for name, _ in listed}


def hashes_of(component: dict[str, Any]) -> Iterator[str]:
    for reference in component["externalReferences"]:
        for each in reference["hashes"]:
            yield each["content"]


def test_the_bill_lists_the_files_of_others_on_the_page(bill: dict[str, Any]) -> None:
    """With the hashes that these files are checked against, and each known to be needed by the program."""
    listed = {each["name"]: each for each in bill["components"] if each["purl"].startswith("pkg:npm/")}
    assert listed.keys() == {package["name"] for package in locked.vendored()}
    for package in locked.vendored():
        component = listed[package["name"]]
        assert component["purl"] == f"pkg:npm/{package['name']}@{package['version']}"
        files = {file["name"]: file["hashes"][0]["content"] for file in component["components"]}
        assert files == {file["path"]: file["sha256"] for file in package["files"]}
    root = bill["metadata"]["component"]["bom-ref"]
    needed = {each["ref"]: set(each.get("dependsOn", ())) for each in bill["dependencies"]}
    assert {component["bom-ref"] for component in listed.values()} <= needed[root]
    assert needed.keys() == {root, *(component["bom-ref"] for component in bill["components"])}


def test_every_component_of_the_bill_has_a_licence(bill: dict[str, Any]) -> None:
    """An identifier of SPDX where it is one licence, else an expression."""
    for component in [bill["metadata"]["component"], *bill["components"]]:
        (licence,) = component["licenses"]
        named = licence.get("expression") or licence["license"]["id"]
        assert set(licences.names_in(named)) <= licences.ALLOWED


# Vulnerabilities.

KNOWN = {"name": "jinja2", "version": "2.0", "vulns": [{"id": "PYSEC-1", "fix_versions": ["2.1", "3.0"]}]}
CLEAN = {"name": "idna", "version": "3.20", "vulns": []}
SKIPPED = {"name": "apsw", "skip_reason": "Dependency not found"}


@pytest.mark.parametrize(
    ("packages", "status", "told"),
    [
        ([CLEAN], audit.CLEAN, "No vulnerability is known of the 1 packages."),
        ([CLEAN, KNOWN], audit.VULNERABLE, "jinja2 2.0: PYSEC-1, fixed in 2.1, 3.0"),
        ([SKIPPED, KNOWN], audit.VULNERABLE, "Not audited"),
        ([SKIPPED, CLEAN], audit.NOT_AUDITED, "1 of 2 packages (apsw"),
        ([], audit.NOT_AUDITED, ""),
    ],
)
def test_nothing_found_and_nobody_asked_are_two_things(
    packages: list[dict[str, Any]], status: int, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Only where every package was looked at, and nothing was found, is the audit clean."""
    assert audit.told(packages, "pypi") == status
    printed = capsys.readouterr()
    assert told in printed.out + printed.err
    assert ("No vulnerability" in printed.out) == (status == audit.CLEAN)
