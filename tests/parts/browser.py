"""Chromium driven by Playwright, for tests of pages; axe-core, which checks accessibility.

Playwright's synchronous interface has an event loop of its own: start it in a fixture of a module
whose tests are all synchronous.
"""

import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from tests.parts import require
from tests.parts.system import missing_browser, missing_node, require_browser

__all__ = [
    "DESKTOP",
    "OPTIONS",
    "PHONE",
    "install",
    "kept_context",
    "missing",
    "new_context",
    "new_page",
    "serious",
    "started",
    "wrong",
]

DESKTOP = (1280, 800)
PHONE = (390, 844)
_LOOKS = ((DESKTOP, False), (PHONE, True))  # sizes of the window, and whether it is dark

_FOLDER = Path(__file__).resolve().parents[2] / ".venv/.browser"
_AXE = _FOLDER / "node_modules/axe-core/axe.min.js"
_PACKAGES = {"axe-core": "4.14.1"}
_MILLISECONDS = 30_000  # in which something happens, on a machine that is busy
# The last list counts, so Playwright's own is repeated. Without the last two each window loads a
# hidden page of the address bar, which takes more processor time than a test's own page.
_DISABLED = (
    "AimEnabled",
    "AvoidCorsURLLoaderRestartOnRedirect",
    "AvoidUnnecessaryBeforeUnloadCheckSync",
    "DestroyProfileOnBrowserClose",
    "HttpsFirstBalancedModeAutoEnable",
    "HttpsUpgrades",
    "LensOverlay",
    "MediaRouter",
    "NetworkTimeServiceQuerying",
    "OptimizationHints",
    "PaintHolding",
    "PreconnectToSearch",
    "ThirdPartyStoragePartitioning",
    "WebUIOmniboxAimPopup",
    "WebUIOmniboxPopup",
)
OPTIONS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--renderer-process-limit=1",  # else each page starts a process of its own
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    f"--disable-features={','.join(_DISABLED)}",
)
# Once all that depends on the size of the window has it: charts are drawn in the frame after.
_WIDTH = """() => new Promise((done) => {
  const after = (frames) => frames ? requestAnimationFrame(() => after(frames - 1))
    : done(document.documentElement.scrollWidth);
  after(3);
})"""
# Each rule has an impact, which is that of all that it finds: the others need not run.
_SERIOUS = """async (without) => {
  const serious = (each) => ["serious", "critical"].includes(each.impact);
  const others = axe._audit.rules.filter(
    (each) => !serious(each) || without.includes(each.id));
  const found = await axe.run(document, {
    resultTypes: ["violations"],
    rules: Object.fromEntries(others.map((each) => [each.id, { enabled: false }])),
  });
  return found.violations.filter(serious).flatMap((each) => each.nodes.map(
    (node) => `${each.id}: ${each.help}: ${node.target} ${node.html.slice(0, 200)}`));
}"""


@contextmanager
def started() -> Iterator[Browser]:
    """A browser with a fresh profile; without one the test is skipped."""
    program = require_browser()
    expect.set_options(timeout=_MILLISECONDS)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=list(OPTIONS))
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def new_context(
    browser: Browser, size: tuple[int, int] = DESKTOP, *, dark: bool = False
) -> Iterator[BrowserContext]:
    """A context of its own storage.

    Args:
        browser: Where it is opened.
        size: Of the window, in pixels.
        dark: Whether the user prefers a dark page.
    """
    context = browser.new_context(
        viewport={"width": size[0], "height": size[1]},
        color_scheme="dark" if dark else "light",
        reduced_motion="reduce",
    )
    context.set_default_timeout(_MILLISECONDS)
    try:
        yield context
    finally:
        context.close()


@contextmanager
def kept_context(browser: Browser) -> Iterator[BrowserContext]:
    """A context for the pages of several tests.

    An empty page of it stays open. With the last page the browser ends the process of a context,
    and half of what a page takes is the start of one.
    """
    with new_context(browser) as context:
        context.new_page()
        yield context


@contextmanager
def new_page(
    context: BrowserContext, size: tuple[int, int] = DESKTOP, *, dark: bool = False
) -> Iterator[Page]:
    """A page in a context that was opened for a light desktop.

    Args:
        context: Where it is opened.
        size: Of the window, in pixels.
        dark: Whether the user prefers a dark page.
    """
    page = context.new_page()
    try:
        if size != DESKTOP:
            page.set_viewport_size({"width": size[0], "height": size[1]})
        if dark:
            page.emulate_media(color_scheme="dark")
        yield page
    finally:
        page.close()


def wrong(page: Page) -> list[str]:
    """What is wrong with a page as it is now, and as it is in a light desktop and a dark phone.

    That is what is wider than the window, and the serious violations of axe-core.
    """
    dark = page.evaluate("matchMedia('(prefers-color-scheme: dark)').matches")
    assert page.viewport_size is not None
    own = (page.viewport_size["width"], page.viewport_size["height"]), dark
    found = []
    for (width, height), dark in (*(each for each in _LOOKS if each != own), own):
        page.set_viewport_size({"width": width, "height": height})
        page.emulate_media(color_scheme="dark" if dark else "light")
        if (taken := page.evaluate(_WIDTH)) > width:
            found.append(f"{taken} of {width} pixels are wide")
        found += serious(page)
    return found


def serious(page: Page, *, without: Sequence[str] = ()) -> list[str]:
    """The serious and critical violations that axe-core finds in a page, one a line.

    Args:
        page: As it is now.
        without: Rules that are not applied.
    """
    require("" if _AXE.exists() else "axe-core is not installed: make parts")
    if not page.evaluate("() => Boolean(window.axe)"):
        # As text of the debugger's, not of the page's: the page's policy does not apply.
        page.evaluate(_AXE.read_text(encoding="utf-8"))
    found: list[str] = page.evaluate(_SERIOUS, list(without))
    return found


def missing() -> str:
    """Why they cannot run here; empty if they can."""
    there = "" if _AXE.exists() else "axe-core is not installed: make parts"
    return missing_browser() or missing_node() or there


def install() -> None:
    """Install what is missing."""
    npm = shutil.which("npm")
    if _AXE.exists() or npm is None:
        return
    _FOLDER.mkdir(parents=True, exist_ok=True)
    wanted = [f"{name}@{version}" for name, version in _PACKAGES.items()]
    options = ("--silent", "--ignore-scripts", "--no-audit", "--no-fund", "--no-save")
    subprocess.run(
        (npm, "install", *options, "--prefix", str(_FOLDER), *wanted),
        check=False,
        stdout=subprocess.DEVNULL,
    )
