"""The pages of the site, a folder of Markdown: those of the repository, and those made from the program."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from auditplane.cli.commands import app
from auditplane.http import openapi
from docs_site import api, commands

ROOT: Final = Path(__file__).resolve().parents[1]
DOCS: Final = ROOT / "docs"

# What the site takes from elsewhere in the repository, and under which name.
OTHERS: Final = {"CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}

# The order of the pages. One that is not there is left out; one that stands in no part comes into the last.
PARTS: Final[Mapping[str, tuple[str, ...]]] = {
    "Start": ("quick-start", "recording", "collector"),
    "Reference": ("api", "cli", "configuration", "errors"),
    "Project": ("architecture", "benchmarks", "contributing", "changelog"),
}


def texts() -> dict[str, str]:
    """The text of each page, by the name of its file."""
    found = {path.name: path.read_text() for path in sorted(DOCS.glob("*.md"))}
    found |= {name: (ROOT / source).read_text() for source, name in OTHERS.items()}
    found = {name: _relinked(text) for name, text in found.items()}
    found["api.md"] = api.reference(openapi.document(()))
    found["cli.md"] = commands.reference(app)
    found["index.md"] += _contents({name.removesuffix(".md") for name in found} - {"index"})
    return found


def write(folder: Path) -> None:
    """Writes all pages into a folder."""
    for name, text in texts().items():
        (folder / name).write_text(text)


def _relinked(text: str) -> str:
    """The links of a page of the repository, as they are where all pages stand in one folder."""
    text = re.sub(r"\]\(docs/", "](", text)
    for source, name in OTHERS.items():
        text = re.sub(rf"\]\((\.\./)?{re.escape(source)}", f"]({name}", text)
    return text


def _contents(pages: set[str]) -> str:
    """The site's table of contents, as Sphinx wants it."""
    placed = {page for part in PARTS.values() for page in part}
    text = ""
    for caption, part in PARTS.items():
        names = [page for page in part if page in pages]
        if caption == list(PARTS)[-1]:
            names += sorted(pages - placed)
        text += f"\n```{{toctree}}\n:caption: {caption}\n:maxdepth: 1\n\n" + "\n".join(names) + "\n```\n"
    return text
