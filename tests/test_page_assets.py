import asyncio
import base64
import gzip
import hashlib
import http.client
import io
import json
import re
import shutil
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import zstandard

from auditplane.http.page import assets
from browser import PHONE, OpenPage, check_accessibility, screenshot
from server import Server
from tenants import client, problems_of

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = ROOT / "scripts" / "vendor-assets"
VENDORED = [assets.FOLDER / "vendor", ROOT / "tests" / "vendor"]
HTMX = "vendor/htmx/htmx.min.js"
DECODERS: dict[str | None, Callable[[bytes], bytes]] = {
    None: bytes,
    "gzip": gzip.decompress,
    "zstd": zstandard.decompress,
}
POLICY = "; ".join(
    ["default-src 'none'", *(f"{kind}-src 'self'" for kind in ("script", "style", "img", "connect"))]
)


# What others made.


def vendor_assets(*args: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def check(folder: Path) -> subprocess.CompletedProcess[str]:
    return vendor_assets("--check", folder)


@pytest.mark.parametrize("folder", VENDORED, ids=lambda folder: folder.parent.name)
def test_vendored_files_are_those_of_their_manifest(folder: Path) -> None:
    """Each file is the one that the manifest promises; each package has a licence and a line in the table."""
    done = check(folder)
    assert done.returncode == 0, done.stderr
    table = (folder / "README.md").read_text()
    for licence in folder.glob("*/LICENSE"):
        assert f"({licence.relative_to(folder)})" in table


@pytest.mark.parametrize(
    "attack",
    [
        lambda folder: (folder / "htmx/htmx.min.js").write_bytes(b"//"),
        lambda folder: (folder / "htmx/LICENSE").unlink(),
        lambda folder: (folder / "htmx/more.js").write_bytes(b""),
        lambda folder: (folder / "vendor.json").write_text(
            (folder / "vendor.json").read_text().replace("/LICENSE", "/LICENCE")
        ),
        lambda folder: (folder / "htmx/more.js").symlink_to("nowhere"),
    ],
    ids=["changed", "missing", "more", "no licence", "link"],
)
def test_a_vendored_file_that_is_not_in_order_is_found(
    attack: Callable[[Path], object], tmp_path: Path
) -> None:
    """A file that differs from the manifest, is missing there or here, or has no licence fails the check."""
    folder = tmp_path / "vendor"
    shutil.copytree(VENDORED[0], folder)
    attack(folder)
    done = check(folder)
    assert done.returncode == 1
    assert done.stderr.startswith("vendor-assets: ")


def packed(tarball: Path, **files: bytes) -> str:
    """Writes files as an npm package; returns its integrity."""
    with tarfile.open(tarball, "w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(f"package/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return f"sha512-{base64.b64encode(hashlib.sha512(tarball.read_bytes()).digest()).decode()}"


def test_only_what_the_manifest_promises_is_written(tmp_path: Path) -> None:
    """A tarball, or a file in it, that is not the promised one is refused, and no file is touched."""
    folder = tmp_path / "vendor"
    folder.mkdir()
    (folder / "README.md").touch()
    manifest = folder / "vendor.json"
    tarball = tmp_path / "thing-1.0.0.tgz"
    integrity = packed(tarball, code=b"good", LICENSE=b"free")
    package = {
        "name": "thing",
        "tarball": f"https://registry.invalid/{tarball.name}",
        "integrity": integrity,
        "files": [
            {
                "path": f"thing/{name}",
                "from": f"package/{name}",
                "sha256": hashlib.sha256(content).hexdigest(),
            }
            for name, content in (("code", b"good"), ("LICENSE", b"free"))
        ],
    }
    manifest.write_text(json.dumps({"packages": [package]}))
    assert vendor_assets("--tarballs", tmp_path, folder).returncode == 0
    assert (folder / "thing/code").read_bytes() == b"good"

    other = packed(tarball, code=b"evil", LICENSE=b"free")
    refused = vendor_assets("--tarballs", tmp_path, folder)
    assert "integrity" in refused.stderr
    manifest.write_text(json.dumps({"packages": [{**package, "integrity": other}]}))
    refused = vendor_assets("--tarballs", tmp_path, folder)
    assert "SHA-256" in refused.stderr
    assert refused.returncode == 1
    assert (folder / "thing/code").read_bytes() == b"good"


# Static files.


def raw(server: Server, path: str, method: str = "GET", **headers: str) -> tuple[int, bytes]:
    """The answer to a path that is sent as it stands."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    try:
        connection.putrequest(method, path, skip_accept_encoding=True)
        for name, value in headers.items():
            connection.putheader(name.replace("_", "-"), value)
        connection.endheaders()
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def test_every_static_file_is_served_as_it_is(server: Server) -> None:
    """Each file of the folder can be had without a key, for ever, with its own type and nothing guessed."""
    files = [path for path in assets.FOLDER.rglob("*") if path.is_file()]
    with client(server.url) as anybody:
        for path in files:
            answer = anybody.get(assets.url(path.relative_to(assets.FOLDER).as_posix()))
            assert answer.status_code == 200
            assert answer.content == path.read_bytes()
            assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["cross-origin-resource-policy"] == "same-origin"
            assert answer.headers["vary"] == "Accept-Encoding"
            assert int(answer.headers["content-length"]) == path.stat().st_size
            if path.suffix not in (".png", ".ico", ".json"):
                assert answer.headers["content-type"].endswith("; charset=utf-8")
    assert len(files) == len(assets.ASSETS)


@pytest.mark.parametrize(
    ("accepted", "sent"),
    [
        (None, None),
        ("identity", None),
        ("gzip", "gzip"),
        ("gzip, br, zstd", "zstd"),
        ("zstd;q=0, gzip", "gzip"),
    ],
)
def test_an_encoding_is_sent_to_those_who_take_it(
    server: Server, accepted: str | None, sent: str | None
) -> None:
    """The form that the caller accepts is sent, it decodes to the file, and each form has its own tag."""
    with (
        client(server.url) as anybody,
        anybody.stream(
            "GET", assets.url(HTMX), headers={"Accept-Encoding": accepted} if accepted else {}
        ) as answer,
    ):
        body = b"".join(answer.iter_raw())
    assert answer.headers.get("content-encoding") == sent
    assert DECODERS[sent](body) == (assets.FOLDER / HTMX).read_bytes()
    assert (f"-{sent}" in answer.headers["etag"]) == bool(sent)
    assert sent is None or len(body) < len(assets.ASSETS[HTMX].forms[None]) / 2


def test_a_copy_that_is_current_is_not_sent_again(server: Server) -> None:
    """A caller that names the tag of the form it would get is told that its copy is good."""
    with client(server.url) as anybody:
        tag = anybody.get(assets.url(HTMX)).headers["etag"]
        again = anybody.get(assets.url(HTMX), headers={"If-None-Match": f'"other", W/{tag}'})
        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["etag"] == tag
        assert anybody.get(assets.url(HTMX), headers={"If-None-Match": '"other"'}).status_code == 200
        head = anybody.head(assets.url(HTMX))
        assert (head.status_code, head.content) == (200, b"")


def test_another_version_is_not_served(server: Server) -> None:
    """A file of another version is refused, and nobody keeps that answer."""
    with client(server.url) as anybody:
        answer = anybody.get(f"/static/{'0' * 12}/{HTMX}")
        problems_of(answer, 404)
        assert answer.headers["cache-control"] == "no-store"


def test_the_version_tells_of_every_byte_and_name(tmp_path: Path) -> None:
    """A file that changes, comes, goes or is renamed brings another version; reading again does not."""
    versions = set()
    for name, content in [("a.js", b"1"), ("a.js", b"2"), ("b.css", b""), ("c/a.js", b"2"), (".a.js", b"")]:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        versions.add(assets.version(assets.read(tmp_path)))
    (tmp_path / "a.js").unlink()
    versions.add(assets.version(assets.read(tmp_path)))
    assert len(versions) == 5, "the hidden file alone makes no difference"
    assert assets.version(assets.read(tmp_path)) in versions


@pytest.mark.parametrize(
    "name",
    [
        "", "/", ".", "..", "../__init__.py", "..%2f__init__.py", "%2e%2e%2f__init__.py", "..%5c__init__.py",
        "..%252f__init__.py", "vendor", "vendor/", "vendor%2fhtmx", "vendor//htmx/htmx.min.js",
        "./favicon.svg", "vendor/../favicon.svg", "vendor/..%2ffavicon.svg", "favicon.svg%00", "%00",
        "favicon.svg%00.png", "/etc/passwd", "%2fetc%2fpasswd", "//etc/passwd", "favicon.svg/",
        "FAVICON.SVG", "favicon.svg%20", "%ff", "%c0%ae%c0%ae/__init__.py", "favicon.svg;.js",
        "../../../../../../../../etc/passwd",
    ],
)  # fmt: skip
def test_only_names_that_were_read_are_served(server: Server, name: str) -> None:
    """However a path is written, it finds a file by its exact name or nothing at all."""
    status, body = raw(server, f"/static/{assets.VERSION}/{name}")
    assert status in (400, 404)
    assert b"import" not in body
    assert b"root:" not in body


def test_an_encoded_slash_is_a_slash(server: Server) -> None:
    """Another spelling of a right name gives the same file, and no other."""
    status, body = raw(server, assets.url(HTMX).replace("htmx/", "htmx%2F"))
    assert (status, hashlib.sha256(body).hexdigest()) == (200, assets.ASSETS[HTMX].sha256)


def test_nothing_can_be_written(server: Server) -> None:
    """Static files are only read."""
    for method in ("PUT", "POST", "DELETE"):
        assert raw(server, assets.url(HTMX), method, Content_Length="0")[0] == 405


def test_the_icon_that_browsers_ask_for(server: Server) -> None:
    """`/favicon.ico` is an icon of 32 by 32 pixels, kept for a day."""
    with client(server.url) as anybody:
        answer = anybody.get("/favicon.ico")
    assert answer.headers["content-type"] == "image/x-icon"
    assert answer.headers["cache-control"] == "public, max-age=86400"
    assert answer.content[:8] == b"\0\0\1\0\1\0\x20\x20"


def test_no_url_is_made_for_a_file_that_is_not_there() -> None:
    """A template that names a missing file fails at once."""
    with pytest.raises(KeyError):
        assets.url("missing.js")


# Chromium: what watches the pages, on pages of this test's own.

HEAD = '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Test</title>'
GOOD = f"""{HEAD}<meta name="viewport" content="width=device-width">
<meta name="htmx-config" content='{{"includeIndicatorStyles": false, "allowEval": false}}'>
<link rel="stylesheet" href="/vendor/uplot/uPlot.min.css"><link rel="icon" href="/favicon.svg">
<script src="/vendor/htmx/htmx.min.js" defer></script>
<script src="/vendor/uplot/uPlot.iife.min.js" defer></script>
<script src="/chart.js" defer></script></head>
<body><main><h1>Test</h1><button hx-get="/part" hx-target="#part">Load</button><div id="part"></div>
<div id="chart"></div></main></body></html>"""
CHART = """new uPlot({width: 300, height: 200, series: [{}, {stroke: "#2f5fd0"}]},
  [[1700000000, 1700000060, 1700000120], [1, 3, 2]], document.getElementById("chart"));"""
PAGES = {
    "/good": GOOD,
    "/part": "<p>Loaded by htmx</p>",
    "/chart.js": CHART,
    "/quiet": f"{HEAD}</head><body><main><h1>Quiet</h1></main></body></html>",
    "/inline-script": f"{HEAD}<script>document.title = 'evil'</script></head><body></body></html>",
    "/inline-style": f'{HEAD}</head><body><p style="color: red">Red</p></body></html>',
    "/eval": f'{HEAD}<script src="/eval.js"></script></head><body></body></html>',
    "/eval.js": "try { eval('1') } catch {}",
    "/foreign": f'{HEAD}</head><body><img src="http://example.com/x.png" alt=""></body></html>',
    "/failing": f'{HEAD}</head><body><img src="/500" alt=""></body></html>',
    "/bad": '<!doctype html><html><head><title></title></head><body><img src="/favicon.svg">'
    '<p><font color="#eee">pale</font></p></body></html>',
    "/save": f'{HEAD}</head><a href="/file" download>Save</a><a href="/attached">Attached</a></html>',
    "/lax": f"{HEAD}</head><body></body></html>",
    "/attached": "some,text",
    "/file": "some,text",
}


class Pages(BaseHTTPRequestHandler):
    """The pages above, and the static files, under the policy that ours have."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        name = self.path.removeprefix("/")
        if self.path in PAGES:
            kind = "text/javascript" if self.path.endswith(".js") else "text/html; charset=utf-8"
            self.answer(200, PAGES[self.path].encode(), kind)
        elif name in assets.ASSETS:
            asset = assets.ASSETS[name]
            self.answer(200, asset.forms[None], asset.content_type)
        else:
            self.answer(500, b"", "text/plain")

    def answer(self, status: int, body: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        if self.path != "/lax":
            self.send_header("Content-Security-Policy", POLICY)
        if self.path == "/attached":
            self.send_header("Content-Disposition", "attachment")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def pages() -> Iterator[str]:
    """The address of a server of these pages."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Pages) as serving:
        serving.daemon_threads = True
        thread = threading.Thread(target=serving.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{serving.server_port}"
        serving.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("path", "script", "fault"),
    [
        ("/quiet", "console.error('a fault')", "console error: a fault"),
        ("/quiet", "console.warn('a doubt')", "console warning: a doubt"),
        ("/quiet", "setTimeout(() => { throw new Error('thrown') })", "page error: Error: thrown"),
        ("/quiet", "Promise.reject(new Error('refused'))", "page error: Error: refused"),
        ("/quiet", "fetch('/none').catch(() => 0)", "answer 500"),
        ("/quiet", "fetch('http://127.0.0.1:9/').catch(() => 0)", "connect-src refuses http://127.0.0.1:9/"),
        ("/lax", "fetch('http://127.0.0.1:9/').catch(() => 0)", "foreign request: http://127.0.0.1:9/"),
        ("/lax", "new WebSocket('ws://127.0.0.1:9/')", "foreign request: ws://127.0.0.1:9/"),
        ("/lax", "location = 'http://example.com/'", "foreign request: http://example.com/"),
        ("/lax", "open('http://example.com/')", "foreign request: http://example.com/"),
        ("/inline-script", "0", "Content Security Policy: script-src-elem refuses inline"),
        ("/inline-style", "0", "Content Security Policy: style-src-attr refuses inline"),
        ("/eval", "0", "Content Security Policy: script-src refuses eval"),
        ("/foreign", "0", "foreign request: http://example.com/x.png"),
        ("/failing", "0", "answer 500"),
    ],
)
def test_the_watcher_finds(open_page: OpenPage, pages: str, path: str, script: str, fault: str) -> None:
    """What goes wrong in a page fails its test, unless the test said that it would."""
    watched = open_page(pages)
    watched.page.goto(path)
    watched.page.evaluate(f"() => {{ {script} }}")
    deadline = time.monotonic() + 10  # on a busy machine
    while not any(fault in found for found in watched.faults()) and time.monotonic() < deadline:
        pass
    with pytest.raises(AssertionError, match=re.escape(fault)):
        open_page.close()  # as the fixture does after the test


def test_expected_faults_have_to_happen(open_page: OpenPage, pages: str) -> None:
    """An expected fault is none, one that never happens is; an allowed one may happen or not."""
    watched = open_page(pages)
    watched.expect("a fault")
    watched.allow("a doubt")
    watched.page.goto("/quiet")
    assert watched.faults() == ["expected, but did not happen: a fault"]
    watched.page.evaluate("console.error('a fault')")
    assert watched.faults() == []
    watched.page.evaluate("console.warn('a doubt')")
    assert watched.faults() == []


@pytest.mark.parametrize("link", ["Save", "Attached"])
def test_a_download_is_no_fault(open_page: OpenPage, pages: str, link: str) -> None:
    """A link that is answered with a file to keep ends a navigation, as it should."""
    watched = open_page(pages)
    watched.page.goto("/save")
    with watched.page.expect_download() as download:
        watched.page.get_by_text(link).click()
    assert download.value.path().read_text() == "some,text"


def test_what_is_not_accessible_is_found(open_page: OpenPage, pages: str) -> None:
    """Missing names, languages and contrast are told with the element; a rule can be left out."""
    page = open_page(pages).page
    page.goto("/bad")
    with pytest.raises(AssertionError) as caught:
        check_accessibility(page, but=["region"])
    told = str(caught.value)
    assert all(rule in told for rule in ("image-alt (critical)", "html-has-lang", "color-contrast"))
    assert '<img src="/favicon.svg">' in told
    assert "region (" not in told


@pytest.mark.parametrize("color_scheme", ["light", "dark"])
def test_htmx_and_uplot_run_under_a_strict_policy(
    open_page: OpenPage, pages: str, tmp_path: Path, color_scheme: str
) -> None:
    """Both work where neither inline code nor eval is allowed, on a phone too, without a violation."""
    page = open_page(pages, screen=PHONE, color_scheme="dark" if color_scheme == "dark" else "light").page
    page.goto("/good")
    page.get_by_role("button", name="Load").click()
    page.get_by_text("Loaded by htmx").wait_for()
    assert page.locator("#chart canvas").count() == 1
    assert page.evaluate("[innerWidth, navigator.maxTouchPoints > 0]") == [360, True]
    assert page.evaluate("matchMedia('(prefers-reduced-motion: reduce)').matches")
    assert page.evaluate(f"matchMedia('(prefers-color-scheme: {color_scheme})').matches")
    check_accessibility(page)
    screenshot(page, tmp_path / "shots" / "good.png")
    assert (tmp_path / "shots" / "good.png").stat().st_size > 1000


def test_a_page_without_scripts_can_be_tested(open_page: OpenPage, pages: str) -> None:
    """Where scripts are off, none runs, and the page is watched as any other."""
    watched = open_page(pages, java_script=False)
    watched.page.goto("/good")
    assert watched.page.locator("#chart canvas").count() == 0
    assert watched.page.get_by_role("heading").inner_text() == "Test"


def test_other_tests_can_run_loops_beside_the_browser(chromium: object) -> None:
    """A test after one in the browser, in the same process, finds no loop running."""
    assert asyncio.run(asyncio.sleep(0, "slept")) == "slept"
