"""Pages in a real browser, checked by a script in the page."""

import html
import json
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.parts.browser import OPTIONS
from tests.parts.system import require_browser

__all__ = ["open_page", "visit"]

_RESULT = """
window.parent.document.body.append(Object.assign(window.parent.document.createElement("pre"),
  { className: "visit", id: "visit-NUMBER", textContent: JSON.stringify(found) }));
"""


def open_page(page: Path, tmp_path: Path) -> tuple[str, str]:
    """The document after its scripts ran, and the browser's console messages."""
    done = subprocess.run(
        [require_browser(), "--headless", *OPTIONS, f"--user-data-dir={tmp_path / 'profile'}",
         "--enable-logging=stderr", "--window-size=1280,1200", "--dump-dom", page.as_uri()],
        capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    messages = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return done.stdout, "\n".join(messages)


def visit(text: str, visitors: Sequence[tuple[str, int]], tmp_path: Path) -> list[dict[str, Any]]:
    """Visit a page in one start of the browser.

    Args:
        text: The page.
        visitors: For each visit a script, which fills an object `found`, and the page's width.
        tmp_path: For the browser's files.

    Returns:
        The object of each visit.
    """
    # The page's own policy would not allow the script.
    text = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", text)
    frames = []
    for number, (script, width) in enumerate(visitors):
        result = _RESULT.replace("NUMBER", str(number))
        added = f"<script>const found = {{}};{script}{result}</script></body>"
        source = html.escape(text.replace("</body>", added))
        # A window cannot be as narrow as a telephone; a frame can.
        frames.append(f'<iframe srcdoc="{source}" width="{width}" height="1200"></iframe>')
    page = tmp_path / "visit.html"
    page.write_text(f"<!doctype html><body>{''.join(frames)}</body>", encoding="utf-8")
    document, messages = open_page(page, tmp_path)
    assert messages == ""
    found = dict(
        re.findall(r'<pre class="visit" id="visit-(\d+)">(.*?)</pre>', document, re.DOTALL)
    )
    return [json.loads(html.unescape(found[str(number)])) for number in range(len(visitors))]
