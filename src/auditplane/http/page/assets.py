"""The static files of the page, read once at start and served from memory.

A name is looked up among those read, so no path of a request ever reaches the file system. The URL of a file
holds a hash over all files: a change of one gives all of them new URLs. So each may be kept for ever, and a
module finds those it imports beside itself. Whoever asks for another version gets none, rather than files of
two versions. The files hold nothing of any account, so they need no key.
"""

import gzip
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import zstandard
from starlette.requests import Request
from starlette.responses import Response

from auditplane.errors import NotFound
from auditplane.http import negotiation

FOLDER: Final = Path(__file__).with_name("static")
FOREVER: Final = "public, max-age=31536000, immutable"
A_DAY: Final = "public, max-age=86400"
VERSION_DIGITS: Final = 12
_GZIP_LEVEL: Final = 9
_ZSTD_LEVEL: Final = 12
_TEXT: Final = "text/plain; charset=utf-8"
_TYPES: Final = {
    "": _TEXT,  # LICENSE
    ".css": "text/css; charset=utf-8",
    ".ico": "image/x-icon",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".md": _TEXT,
    ".png": "image/png",
    ".svg": "image/svg+xml; charset=utf-8",
    ".txt": _TEXT,
}
_COMPRESSED_ALREADY: Final = {".png"}


@dataclass(frozen=True, slots=True)
class Asset:
    """A file: its bytes by Content-Encoding, None for the plain ones; all others are smaller."""

    content_type: str
    sha256: str
    forms: Mapping[str | None, bytes]


def read(folder: Path) -> dict[str, Asset]:
    """The files of a folder and those below it, by path; those of unknown types are left out."""
    return {
        path.relative_to(folder).as_posix(): _read(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.suffix in _TYPES and not path.name.startswith(".")
    }


def _read(path: Path) -> Asset:
    plain = path.read_bytes()
    forms: dict[str | None, bytes] = {None: plain}
    if path.suffix not in _COMPRESSED_ALREADY:
        made = {
            "gzip": gzip.compress(plain, _GZIP_LEVEL, mtime=0),
            "zstd": zstandard.ZstdCompressor(_ZSTD_LEVEL).compress(plain),
        }
        forms.update({name: form for name, form in made.items() if len(form) < len(plain)})
    return Asset(_TYPES[path.suffix], hashlib.sha256(plain).hexdigest(), forms)


def version(assets: Mapping[str, Asset]) -> str:
    """A hash over the names and bytes of some files."""
    lines = "".join(f"{asset.sha256} {name}\n" for name, asset in sorted(assets.items()))
    return hashlib.sha256(lines.encode()).hexdigest()[:VERSION_DIGITS]


ASSETS: Final = read(FOLDER)
VERSION: Final = version(ASSETS)


def url(name: str) -> str:
    """The path to ask for a file by; KeyError when there is none of that name."""
    if name not in ASSETS:
        raise KeyError(name)
    return f"/static/{VERSION}/{name}"


async def static_file(request: Request) -> Response:
    """`GET /static/VERSION/NAME`."""
    asset = ASSETS.get(request.path_params["name"])
    if asset is None or request.path_params["version"] != VERSION:
        raise NotFound("There is no such file in this version of the page; load the page again.")
    return _answer(request, asset, FOREVER)


async def favicon(request: Request) -> Response:
    """`GET /favicon.ico`, which browsers ask for by themselves."""
    return _answer(request, ASSETS["favicon.ico"], A_DAY)


def _answer(request: Request, asset: Asset, cache_control: str) -> Response:
    encoding = negotiation.encoding(request.headers.getlist("accept-encoding"))
    if encoding not in asset.forms:
        encoding = None
    etag = f'"{asset.sha256[:32]}{f"-{encoding}" if encoding else ""}"'
    headers = {
        "Cache-Control": cache_control,
        "Cross-Origin-Resource-Policy": "same-origin",
        "ETag": etag,
        "Vary": "Accept-Encoding",
        "X-Content-Type-Options": "nosniff",
    }
    if etag in ",".join(request.headers.getlist("if-none-match")):  # weakly (RFC 9110, section 13.1.2)
        return Response(status_code=304, headers=headers)
    if encoding:
        headers["Content-Encoding"] = encoding
    return Response(asset.forms[encoding], 200, {**headers, "Content-Type": asset.content_type})
