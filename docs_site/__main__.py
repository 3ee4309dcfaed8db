"""`python -m docs_site`: builds the site into ./site; any warning is an error.

The exit status is 1 when the site can't be built, or would load something from another host.
"""

import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from docs_site import pages

SITE: Final = pages.ROOT / "site"
HERE: Final = Path(__file__).parent

# What a browser loads by itself: not the links that one may follow.
_LOADED: Final = re.compile(
    r"<(?:script|img|iframe|source|video|audio|embed|object)\b[^>]*\b(?:src|srcset|data)=[\"']?\s*((?:https?:)?//[^\"'\s>]+)"
    r"|<link\b(?![^>]*\brel=[\"']?(?:canonical|next|prev|author|license)\b)[^>]*\bhref=[\"']?((?:https?:)?//[^\"'\s>]+)"
    r"|(?:url\(|@import)\s*[\"']?((?:https?:)?//[^\"')\s]+)",
    re.IGNORECASE,
)


def main() -> int:
    """Builds; returns the exit status."""
    with tempfile.TemporaryDirectory(prefix="auditplane-docs-") as folder:
        source, built = Path(folder, "pages"), Path(folder, "site")
        source.mkdir()
        pages.write(source)
        command = [sys.executable, "-m", "sphinx", "--builder", "html", "--quiet", "--nitpicky"]
        command += ["--fail-on-warning", "--conf-dir", str(HERE), "--doctree-dir", str(Path(folder, "trees"))]
        status = subprocess.run([*command, str(source), str(built)], check=False).returncode
        if status:
            return 1
        foreign = list(_foreign(built))
        for place in foreign:
            print(f"loaded from another host: {place}", file=sys.stderr)
        if foreign:
            return 1
        shutil.rmtree(SITE, ignore_errors=True)
        shutil.move(built, SITE)
    print(f"The site is in {SITE}; open {SITE / 'index.html'}")
    return 0


def _foreign(folder: Path) -> Iterator[str]:
    """What the pages and styles of a site would load from other hosts."""
    for path in sorted(folder.rglob("*")):
        if path.suffix in (".html", ".css"):
            for found in _LOADED.finditer(path.read_text()):
                address = next(filter(None, found.groups()))
                yield f"{path.relative_to(folder)}: {address}"


if __name__ == "__main__":
    sys.exit(main())
