"""Pages with charts: complete without a network, escaped, and alive in a browser."""

import math
import re
from pathlib import Path
from typing import Any

from seawall.plan.output.charts import Series, chart, page, table
from tests.plan.browser import open_page, visit

EVIL = "<script>alert(1)</script>\"'&amp;-->"

SCRIPT = """
const $$ = (selector, within = document) => [...within.querySelectorAll(selector)];
found.paths = $$("figure .frame path").map((each) => each.getAttribute("d"));
found.captions = $$("figcaption").map((each) => each.textContent);
found.dots = $$("path.dots").length;
found.none = $$(".none").map((each) => each.textContent);
const frame = $$(".frame")[1];
const box = frame.querySelector("svg").getBoundingClientRect();
frame.dispatchEvent(new PointerEvent("pointermove",
  { bubbles: true, clientX: box.left + 0.3 * box.width, clientY: box.top + 40 }));
found.tip = frame.querySelector(".tip").textContent;
document.getElementById("theme").value = "dark";
document.getElementById("theme").dispatchEvent(new Event("change"));
found.back = getComputedStyle(document.body).backgroundColor;
found.wide = [document.documentElement.scrollWidth, document.documentElement.clientWidth];
found.tops = $$(".pair .chart").map((each) => each.getBoundingClientRect().top);
"""


def example() -> str:
    columns = [f"a long name of column {at}" for at in range(8)]
    return page(
        "A load test",
        EVIL,
        [
            table(columns, [[EVIL, 734.0, 12_345, None, 0.12345, True, "text", 1.5]], caption="c"),
            chart("Times", [Series("turns", [2.0, 1.0], [3.0, 0.5], "dots")], y="seconds"),
            chart(
                "Each second",
                [
                    Series("arrived", [0.0, 1.0, 2.0], [1.0, 5.0, 3.0]),
                    Series(EVIL, [0.0, 1.0, 2.0], [0.0, math.nan, 3.0]),
                ],
                y="turns",
            ),
            "<h2>Nothing</h2>",
            chart("Empty", [Series("none", [], [])]),
        ],
        footer="today",
    )


def test_a_page_is_complete_and_escaped() -> None:
    text = example()
    assert "alert(1)</script>" not in text
    assert "alert(1)&lt;/script&gt;" in text
    assert text.count("data-chart=") == 3
    assert not re.search(
        r"url\((?!#)|@import|fetch\(|XMLHttp|WebSocket|import\(|http://", text[:900]
    )
    assert "default-src 'none'; style-src 'sha256-" in text
    for shown in (">734<", ">12,345<", ">-<", ">0.123<", ">True<", ">1.5<"):
        assert shown in text


def test_each_chart_has_its_figures_in_a_table() -> None:
    text = chart("t", [Series("a", [0.0, 1.0, 2.0], [4.0, math.nan, 2.0]), Series("b", [], [])])
    rows = re.findall(r"<tr><th scope=\"row\">(\w)</th>(.*?)</tr>", text)
    cells = {name: re.findall(r">([^<]*)</td>", row) for name, row in rows}
    assert cells == {"a": ["2", "2", "3", "4", "2"], "b": ["0", "-", "-", "-", "-"]}


def test_a_browser_opens_it_without_messages(tmp_path: Path) -> None:
    file = tmp_path / "page.html"
    file.write_text(example(), encoding="utf-8")
    document, messages = open_page(file, tmp_path)
    assert messages == ""
    assert document.count('class="frame"') == 3


WIDTHS = (1_200, 360)


def test_charts_are_drawn_at_any_width(tmp_path: Path) -> None:
    visits = visit(example(), [(SCRIPT, width) for width in WIDTHS], tmp_path)
    for width, found in zip(WIDTHS, visits, strict=True):
        check_drawn(found, width)


def check_drawn(found: dict[str, Any], width: int) -> None:
    assert found["captions"] == ["Times, seconds", "Each second, turns", "Empty"]
    assert all("NaN" not in path for path in found["paths"])
    assert (found["dots"], found["none"]) == (1, ["none"])
    assert "arrived" in found["tip"]
    assert "5 turns" in found["tip"]
    assert found["back"] == "rgb(15, 20, 25)"
    assert found["wide"][0] <= found["wide"][1] <= width, "wider than the window"
    assert (found["tops"][0] == found["tops"][1]) == (width == 1_200)
