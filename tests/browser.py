"""A real Chromium for the tests of the page, and what every page is held to: a plugin of conftest.py.

One browser runs for all tests of a process, started by the first that needs it. A test gets a context of its
own from `open_page`. It fails for whatever the browser complains of, for requests that fail, and for those to
anybody but the server, unless it said so before: `expect` what has to happen, `allow` what may.
"""

import asyncio
import contextlib
import os
import re
import shutil
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Page,
    Request,
    Response,
    WebError,
    WebSocket,
    sync_playwright,
)

ColorScheme: TypeAlias = Literal["light", "dark"]

AXE: Final = Path(__file__).with_name("vendor") / "axe-core" / "axe.min.js"
RULES: Final = ("wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice")
ARGUMENTS: Final = (
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-gpu",
    "--disable-quic",
    "--disable-sync",
    # A page that asks somebody else is found out; the request need not leave this machine.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost",
    "--no-first-run",
)
ABORTED: Final = "net::ERR_ABORTED"
WAIT_MS_MAX: Final = 15_000
SETTLE_MS: Final = 50

# Not every violation is told on the console by the browser itself.
_TELL_VIOLATIONS: Final = """
addEventListener("securitypolicyviolation", (event) => console.error(
  `Content Security Policy: ${event.effectiveDirective} refuses ${event.blockedURI} ${event.sample}`));
"""


@dataclass(frozen=True)
class Screen:
    """What a page is shown on; sizes in CSS pixels."""

    width: int
    height: int
    phone: bool = False


DESKTOP: Final = Screen(1280, 800)
PHONE: Final = Screen(360, 740, phone=True)


class Watched:
    """A page, and what was wrong with it and with the others of its context so far."""

    def __init__(self, context: BrowserContext, base_url: str) -> None:
        self._context = context
        self._server = urlsplit(base_url).netloc
        self._found: list[str] = []  # what is wrong, and the URL that it is about
        self._expected: list[str] = []
        self._allowed: list[str] = []
        self._closed = False
        context.add_init_script(_TELL_VIOLATIONS)
        context.on("console", self._on_console)
        context.on("weberror", self._on_error)
        context.on("request", self._on_request)
        context.on("requestfailed", self._on_failure)
        context.on("response", self._on_response)
        context.on("page", self._on_page)
        self.page = context.new_page()

    def expect(self, pattern: str) -> None:
        """What a regular expression finds is no fault; that it never happens is one."""
        self._expected.append(pattern)

    def allow(self, pattern: str) -> None:
        """What a regular expression finds is no fault, whether it happens or not."""
        self._allowed.append(pattern)

    def faults(self) -> list[str]:
        """What is wrong so far."""
        for page in self._context.pages:
            page.wait_for_timeout(SETTLE_MS)
        known = [*self._expected, *self._allowed]
        faults = [text for text in self._found if not any(re.search(pattern, text) for pattern in known)]
        missing = [
            pattern for pattern in self._expected if not any(re.search(pattern, text) for text in self._found)
        ]
        return [*faults, *(f"expected, but did not happen: {pattern}" for pattern in missing)]

    def close(self) -> None:
        """Ends the context; AssertionError when something was wrong. A second call does nothing."""
        if self._closed:
            return
        self._closed = True
        try:
            faults = self.faults()
        finally:
            self._context.close()
        if faults:
            raise AssertionError("\n".join(["The browser found faults:", *faults]))

    def _on_page(self, page: Page) -> None:
        page.on("websocket", self._on_websocket)

    def _on_console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            place = message.location
            self._add(f"console {message.type}: {message.text} ({place['url']}:{place['lineNumber'] + 1})")

    def _on_error(self, error: WebError) -> None:
        self._add(f"page error: {error.error.stack or error.error}")

    def _on_request(self, request: Request) -> None:
        self._look_at_host(request.url)

    def _on_websocket(self, websocket: WebSocket) -> None:
        self._look_at_host(websocket.url)

    def _look_at_host(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.netloc != self._server and parts.scheme not in ("about", "blob", "data"):
            self._add(f"foreign request: {url}")

    def _on_failure(self, request: Request) -> None:
        if request.failure != ABORTED:  # which the page does, and a navigation that ends as a download
            self._add(f"failed request: {request.method} {request.url}: {request.failure}")

    def _on_response(self, response: Response) -> None:
        if response.status >= 500:
            self._add(f"answer {response.status}: {response.url}")

    def _add(self, text: str) -> None:
        self._found.append(text)


class OpenPage:
    """Opens pages, and closes them."""

    def __init__(self, browser: Browser) -> None:
        self._browser = browser
        self._opened: list[Watched] = []

    def __call__(
        self,
        base_url: str,
        *,
        screen: Screen = DESKTOP,
        color_scheme: ColorScheme = "light",
        java_script: bool = True,
        less_motion: bool = True,
        locale: str = "en-GB",
        timezone: str = "UTC",
    ) -> Watched:
        """An empty page in a context of its own, for `page.goto` with paths of the server at `base_url`."""
        context = self._browser.new_context(
            base_url=base_url,
            viewport={"width": screen.width, "height": screen.height},
            is_mobile=screen.phone,
            has_touch=screen.phone,
            color_scheme=color_scheme,
            java_script_enabled=java_script,
            reduced_motion="reduce" if less_motion else "no-preference",
            locale=locale,
            timezone_id=timezone,
        )
        context.set_default_timeout(WAIT_MS_MAX)
        watched = Watched(context, base_url)
        self._opened.append(watched)
        return watched

    def close(self) -> None:
        """Ends all pages; raises the faults of all of them."""
        faults = []
        for watched in self._opened:
            try:
                watched.close()
            except AssertionError as error:
                faults.append(str(error))
        if faults:
            raise AssertionError("\n".join(faults))


class Chromium:
    """A browser that runs.

    Between its calls Playwright says that an event loop runs in this thread. So that other tests can run
    loops of their own, that is taken back where no test uses the browser.
    """

    def __init__(self) -> None:
        self._playwright = sync_playwright().start()
        self._loop = asyncio.get_running_loop()
        try:
            self.browser = self._playwright.chromium.launch(
                executable_path=_program(), args=list(ARGUMENTS), chromium_sandbox=os.geteuid() != 0
            )
        except BaseException:
            self._playwright.stop()
            raise
        finally:
            asyncio._set_running_loop(None)

    @contextlib.contextmanager
    def in_use(self) -> Iterator[Browser]:
        """The browser may be used within."""
        asyncio._set_running_loop(self._loop)
        try:
            yield self.browser
        finally:
            asyncio._set_running_loop(None)

    def close(self) -> None:
        """Ends the browser and what drives it."""
        with self.in_use():
            self.browser.close()
            self._playwright.stop()


def _program() -> str:
    found = shutil.which("chromium")
    if not found:
        pytest.fail("Chromium is missing: run scripts/debian-packages.", pytrace=False)
    return found


@pytest.fixture(scope="session")
def chromium() -> Iterator[Chromium]:
    """The browser of this process."""
    running = Chromium()
    yield running
    running.close()


@pytest.fixture
def open_page(chromium: Chromium) -> Iterator[OpenPage]:
    """Opens pages that are watched: `open_page(server.url, screen=PHONE).page.goto("/")`."""
    with chromium.in_use() as browser:
        opener = OpenPage(browser)
        yield opener
        opener.close()


def check_accessibility(page: Page, *, but: Collection[str] = ()) -> None:
    """AssertionError with what axe-core finds wrong in a page; `but` names rules that are not looked at."""
    # By evaluation: the page's policy would refuse a script tag.
    page.evaluate(_axe())
    options = {
        "runOnly": {"type": "tag", "values": RULES},
        "rules": {rule: {"enabled": False} for rule in but},
        "resultTypes": ["violations"],
    }
    result: dict[str, Any] = page.evaluate("options => axe.run(document, options)", options)
    faults = [_described(violation) for violation in result["violations"]]
    if faults:
        raise AssertionError("\n".join([f"{page.url} is not accessible to all:", *faults]))


@cache
def _axe() -> str:
    return AXE.read_text("utf-8")


def _described(violation: dict[str, Any]) -> str:
    lines = [f"{violation['id']} ({violation['impact']}): {violation['help']}, see {violation['helpUrl']}"]
    for node in violation["nodes"]:
        lines += [f"  {node['html']}", *(f"    {line}" for line in node["failureSummary"].splitlines())]
    return "\n".join(lines)


def screenshot(page: Page, path: Path) -> None:
    """Writes the whole page as PNG, its folder too when that is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=path, full_page=True, animations="disabled")
