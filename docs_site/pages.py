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
OTHERS: Final = {
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "reporting.md",
    "CHANGELOG.md": "changelog.md",
}

# The order of the pages, and what the first page says of each. One that is not there is left out; one that
# stands in no part comes into the last.
PARTS: Final[Mapping[str, Mapping[str, str]]] = {
    "Start": {
        "quick-start": "a server that records and answers, in five minutes",
        "recording": "from the shell and from Python, so that nothing is lost or doubled",
        "reading": "filters, forms, pages, and a feed that misses nothing",
        "page": "the trail in a browser: find, look, verify, export, and what keeps strangers out",
        "command-line": "the commands that read, follow, download, record and import",
        "proving": "checkpoints, proofs and evidence: how it works, and how to watch a log",
        "auditing": "step by step, for an auditor: from the verifier key to a checklist",
        "proved": "what each check proves, and who can still do what",
        "deploying": "as a service, as a container, behind a proxy, and upgrades",
        "backup": "copies of a running server, and what an older state means",
        "operating": "log lines, health, metrics, alerts and what to do, and a doctor",
        "keeping": "for how long events are kept, what must not go, and how to erase",
        "collector": "a whole configuration, and what its polls mean",
    },
    "Reference": {
        "api": "every path, parameter, answer and schema",
        "cli": "every command and flag",
        "configuration": "every setting, as flag, variable and line of a file",
        "limits": "every bound of size, number and time",
        "errors": "every status and exit code: what causes it, and what to do",
    },
    "Project": {
        "security": "who can do what, what is stored how, and what is out of scope",
        "security-checks": "what was attacked, what came of it, and what does not hold",
        "reporting": "how to report a weakness, and what to expect",
        "architecture": "what goes where, and why",
        "benchmarks": "how fast it is, and beside what",
        "reliability": "what was tried to make it lose something, and what came of it",
        "licences": "of what it is made of, and which are allowed",
        "contributing": "how to change it",
        "changelog": "what has changed",
    },
}


def texts() -> dict[str, str]:
    """The text of each page, by the name of its file."""
    found = {path.name: path.read_text() for path in sorted(DOCS.glob("*.md"))}
    found |= {name: (ROOT / source).read_text() for source, name in OTHERS.items()}
    found = {name: _relinked(text) for name, text in found.items()}
    found["api.md"] = api.reference(openapi.document(()))
    found["cli.md"] = commands.reference(app)
    found["index.md"] += _contents({name.removesuffix(".md"): text for name, text in found.items()})
    return found


def write(folder: Path) -> None:
    """Writes all pages into a folder, and their pictures."""
    for name, text in texts().items():
        (folder / name).write_text(text)
    for name in pictures():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes((DOCS / name).read_bytes())


def pictures() -> list[str]:
    """The pictures of the pages, by their paths."""
    found = [*DOCS.glob("*.svg"), *DOCS.glob("pictures/*.png")]
    return sorted(picture.relative_to(DOCS).as_posix() for picture in found)


def _relinked(text: str) -> str:
    """The links of a page of the repository, as they are where all pages stand in one folder."""
    text = re.sub(r"\]\(docs/", "](", text)
    for source, name in OTHERS.items():
        text = re.sub(rf"\]\((\.\./)?{re.escape(source)}", f"]({name}", text)
    return text


def _contents(pages: Mapping[str, str]) -> str:
    """The table of contents for the first page, and the same for Sphinx, which makes the side bar of it."""
    placed = {"index"}.union(*PARTS.values())
    text = ""
    for caption, told in PARTS.items():
        names = [page for page in told if page in pages]
        if caption == list(PARTS)[-1]:
            names += sorted(pages.keys() - placed)
        text += f"\n## {caption}\n\n"
        for page in names:
            title = pages[page].partition("\n")[0].removeprefix("# ")
            text += f"- [{title}]({page}.md)" + (f": {told[page]}\n" if page in told else "\n")
        entries = "\n".join(names)
        text += f"\n```{{toctree}}\n:caption: {caption}\n:hidden:\n:maxdepth: 1\n\n{entries}\n```\n"
    return text
