"""The licences of what the program is made of: which are allowed, and what each package has.

They come from the metadata of the installed packages. Where that says nothing clear, it is stated here, with
the reason.
"""

import re
from collections.abc import Sequence
from importlib import metadata
from typing import Final

from supply import locked

PAGE: Final = locked.ROOT / "docs" / "licences.md"

# By their names in the list of SPDX. All of them let the program be used, changed and passed on, also in what
# is sold; what they ask for is that their text and the names of their authors stay with it.
ALLOWED: Final = {
    "0BSD", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "CC0-1.0", "MIT", "MIT-0", "PSF-2.0", "Zlib",
}  # fmt: skip

# Where the metadata is not clear, or the package is not installed with every Python.
STATED: Final = {
    "apsw": "Zlib",
    "backports-zstd": "PSF-2.0",
    "httpx2-jsfetch": "BSD-3-Clause",
    "jinja2": "BSD-3-Clause",
    "typing-extensions": "PSF-2.0",
}

# Why it is stated, and what the metadata does not tell.
NOTES: Final = {
    "apsw": "its metadata says `any-OSI`, and its text is that of zlib's; SQLite, which is in it, is in the "
    "public domain",
    "backports-zstd": "not installed with Python 3.14 and later; zstd, which is in it, is under BSD-3-Clause",
    "httpx2-jsfetch": "for Python in a browser only, and so never installed with a server",
    "jinja2": "its metadata says `BSD License`, and its text has the three clauses",
    "numpy": "its wheels for Linux have OpenBLAS (BSD-3-Clause) beside it, and as shared libraries "
    "libgfortran (GPL-3.0-or-later WITH GCC-exception-3.1) and libquadmath (LGPL-2.1-or-later); they get "
    "into a container image of the server, not into its wheel",
    "rich-rst": "has a part of docutils in it, in the public domain or under BSD-2-Clause",
    "typing-extensions": "not installed with Python 3.15 and later",
}

_PAGE: Final = """\
# Licences

Auditplane is under the Apache License 2.0. What it is installed with, and what of others lies among its
files, is under the licences below. With any of them the program can be used, changed and passed on, if their
texts stay with it.

`make licences` writes this page, from `uv.lock` and the metadata of the packages. A test compares them, and
lets no package in whose licence is not one of these:
{allowed}.

## Packages

| package | licence | |
| --- | --- | --- |
{packages}

## Files of the page

They come with the program, with their licences beside them.

| package | licence | version |
| --- | --- | --- |
{vendored}
"""

_BY_CLASSIFIER: Final = {
    "License :: OSI Approved :: Apache Software License": "Apache-2.0",
    "License :: OSI Approved :: MIT License": "MIT",
}


def of_package(name: str) -> str:
    """The licence of a package as an SPDX expression; raises LookupError where it is nowhere clear."""
    found = _by_metadata(name)
    found = found or STATED.get(name)
    if found is None:
        raise LookupError(f"{name}: its metadata names no licence clearly; state it in supply/licences.py")
    return found


def _by_metadata(name: str) -> str | None:
    try:
        fields = metadata.metadata(name).json
    except metadata.PackageNotFoundError:
        return None
    if expression := fields.get("license_expression"):
        return str(expression)
    if fields.get("license") in ALLOWED:
        return str(fields["license"])
    kinds = {kind for kind in fields.get("classifier", ()) if kind.startswith("License :: ")}
    return _BY_CLASSIFIER.get(kinds.pop()) if len(kinds) == 1 else None


def names_in(expression: str) -> Sequence[str]:
    """The licences that an SPDX expression names."""
    return [word for word in re.findall(r"[\w.+-]+", expression) if word not in ("AND", "OR")]


def page() -> str:
    """The page that lists them."""
    packages = [_row(name, of_package(name), NOTES.get(name, "")) for name in locked.package_names()]
    vendored = [_row(each["name"], each["license"], each["version"]) for each in locked.vendored()]
    return _PAGE.format(
        allowed=", ".join(sorted(ALLOWED)), packages="\n".join(packages), vendored="\n".join(vendored)
    )


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |".replace("|  |", "| |")
