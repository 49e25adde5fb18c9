"""Pages in a real browser, checked by a script in the page."""

import html
import json
import re
import subprocess
from pathlib import Path
from typing import Any

from tests.parts.system import require_browser

__all__ = ["open_page", "visit"]

_RESULT = """
window.parent.document.body.append(Object.assign(window.parent.document.createElement("pre"),
  { id: "visit", textContent: JSON.stringify(found) }));
"""


def open_page(page: Path, tmp_path: Path) -> tuple[str, str]:
    """The document after its scripts ran, and the browser's console messages."""
    done = subprocess.run(
        [require_browser(), "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
         "--disable-background-networking", f"--user-data-dir={tmp_path / 'profile'}",
         "--enable-logging=stderr", "--window-size=1280,1200", "--dump-dom", page.as_uri()],
        capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    messages = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return done.stdout, "\n".join(messages)


def visit(text: str, script: str, width: int, tmp_path: Path) -> dict[str, Any]:
    """Run a script, which fills an object `found`, in a page of this width; returns the object."""
    page = tmp_path / "visit.html"
    # The page's own policy would not allow the script.
    text = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", text)
    text = text.replace("</body>", f"<script>const found = {{}};{script}{_RESULT}</script></body>")
    # A window cannot be as narrow as a telephone; a frame can.
    frame = f'<iframe srcdoc="{html.escape(text)}" width="{width}" height="1200"></iframe>'
    page.write_text(f"<!doctype html><body>{frame}</body>", encoding="utf-8")
    document, messages = open_page(page, tmp_path)
    assert messages == ""
    result = re.search(r'<pre id="visit">(.*?)</pre>', document, re.DOTALL)
    assert result is not None
    found: dict[str, Any] = json.loads(html.unescape(result[1]))
    return found
