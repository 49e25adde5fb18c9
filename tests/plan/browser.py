"""Pages in a real browser, checked by a script in the page."""

import html
import json
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tests.parts.browser import OPTIONS
from tests.parts.system import require_browser

__all__ = ["Visit", "visit"]

_RESULT = """
window.parent.document.body.append(Object.assign(window.parent.document.createElement("pre"),
  { className: "visit", id: "visit-NUMBER", textContent: JSON.stringify(found) }));
"""
_DOCUMENTS = """
addEventListener("load", () => {
  for (const frame of document.querySelectorAll("iframe[data-opened]")) {
    const found = { document: frame.contentDocument.documentElement.outerHTML };
    document.body.append(Object.assign(document.createElement("pre"),
      { className: "visit", id: frame.dataset.opened, textContent: JSON.stringify(found) }));
  }
});
"""


class Visit(NamedTuple):
    """A visit of a page.

    Attributes:
        page: Its text.
        script: Fills an object `found`. Without one the page is opened as it is, with its policy,
            and found is its `document` after its own scripts.
        width: Of the page.
    """

    page: str
    script: str = ""
    width: int = 1_280


def visit(visits: Sequence[Visit], tmp_path: Path) -> list[dict[str, Any]]:
    """Visit pages in one start of the browser, which has nothing to complain of.

    Args:
        visits: Each in a frame of its own.
        tmp_path: For the browser's files.

    Returns:
        What each visit has found.
    """
    frames = []
    for number, each in enumerate(visits):
        text, opened = each.page, f' data-opened="visit-{number}"'
        if each.script:
            # The page's own policy would not allow the script.
            text = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", text)
            result = _RESULT.replace("NUMBER", str(number))
            added = f"<script>const found = {{}};{each.script}{result}</script></body>"
            text, opened = text.replace("</body>", added), ""
        # A window cannot be as narrow as a telephone; a frame can.
        size = f'width="{each.width}" height="1200"'
        frames.append(f'<iframe srcdoc="{html.escape(text)}" {size}{opened}></iframe>')
    page = tmp_path / "visit.html"
    script = f"<script>{_DOCUMENTS}</script>"
    page.write_text(f"<!doctype html><body>{script}{''.join(frames)}</body>", encoding="utf-8")
    document, messages = _open(page, tmp_path)
    assert messages == "", messages
    found = dict(
        re.findall(r'<pre class="visit" id="visit-(\d+)">(.*?)</pre>', document, re.DOTALL)
    )
    return [json.loads(html.unescape(found[str(number)])) for number in range(len(visits))]


def _open(page: Path, tmp_path: Path) -> tuple[str, str]:
    """The document after its scripts ran, and the browser's console messages."""
    done = subprocess.run(
        [require_browser(), "--headless", *OPTIONS, f"--user-data-dir={tmp_path / 'profile'}",
         "--enable-logging=stderr", "--window-size=1280,1200", "--dump-dom", page.as_uri()],
        capture_output=True, text=True, check=True, timeout=200,
    )  # fmt: skip
    messages = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return done.stdout, "\n".join(messages)
