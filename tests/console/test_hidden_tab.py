"""The page Now in a window that is minimized: it draws nothing, and catches up when it is shown."""

import time
from pathlib import Path

from tests.console.conftest import Console
from tests.parts.tabs import tabs

COUNT = """
window.draws = 0;
const { clearRect } = CanvasRenderingContext2D.prototype;
CanvasRenderingContext2D.prototype.clearRect = function (...area) {
  draws += 1;
  return clearRect.apply(this, area);
};
window.changed = 0;
new MutationObserver((all) => { changed += all.length; }).observe(
  document.body, { subtree: true, childList: true, characterData: true, attributes: true });
"""


def test_it_draws_nothing_and_catches_up(local: Console, tmp_path: Path) -> None:
    with tabs(tmp_path) as browser:
        now = browser.open(f"{local.url}/console/#/now")
        now.until("document.querySelectorAll('.plot canvas').length === 6")
        now.evaluate(COUNT)
        now.until("draws > 0 && changed > 0")
        now.hide()
        now.until("document.hidden")
        now.evaluate("draws = changed = 0")
        local.turn(key="")
        time.sleep(3.0)  # for some samples
        assert now.evaluate("[draws, changed]") == [0, 0]
        now.show()
        now.until("!document.hidden && draws >= 6 && changed > 0")
        shown = """[...document.querySelectorAll(".figure")].find((each) =>
          each.textContent.startsWith("First text p50")).querySelector("dd").textContent"""
        assert now.evaluate(shown) != "-", "the turn that ended meanwhile"
