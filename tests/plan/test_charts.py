"""Pages with charts: complete without a network, escaped, and alive in a browser."""

import json
import math
import re
from typing import Any

import pytest

from seawall.plan.decision.numbers import amount, money, seconds, share
from seawall.plan.output.charts import Series, chart, page, table
from tests.plan.browser import Visit, visit

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


VALUES = (
    0.0, 1e-9, 0.00123, 0.0333, 0.1, 0.12345, 0.4999, 0.5, 0.9, 0.9994, 0.9995, 1.0, 1.005, 3.364,
    9.994, 9.996, 10.4, 11.74, 59.95, 99.94, 99.96, 100.4, 123.5, 599.9, 600.0, 6_001.0, 12_345.6,
    1_234_567.8, 0.717, 0.99949, 0.9996, 0.00005,
)  # fmt: skip
NUMBERS = f"""
const values = {json.dumps(VALUES)};
found.amount = values.map(count);
found.seconds = values.map(seconds);
found.share = values.filter((each) => each <= 1).map(percent);
found.money = values.map((each) => moneyIn("USD", each));
found.euros = values.map((each) => moneyIn("EUR", -each));
"""
WIDTHS = (1_200, 360)


@pytest.fixture(scope="module")
def visits(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What was found on the page as it is, on an empty one, and at each width."""
    text = example()
    narrow = [Visit(text, SCRIPT, width) for width in WIDTHS]
    empty = Visit(page("Numbers", "", []), NUMBERS)
    return visit([Visit(text), empty, *narrow], tmp_path_factory.mktemp("visits"))


def test_a_browser_opens_it_without_messages(visits: list[dict[str, Any]]) -> None:
    assert visits[0]["document"].count('class="frame"') == 3


def test_the_page_writes_numbers_as_python_does(visits: list[dict[str, Any]]) -> None:
    found = visits[1]
    assert found["amount"] == [amount(each) for each in VALUES]
    assert found["seconds"] == [seconds(each) for each in VALUES]
    assert found["share"] == [share(each) for each in VALUES if each <= 1]
    assert found["money"] == [money(each) for each in VALUES]
    assert found["euros"] == [money(-each, "EUR") for each in VALUES]


def test_charts_are_drawn_at_any_width(visits: list[dict[str, Any]]) -> None:
    for width, found in zip(WIDTHS, visits[2:], strict=True):
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
