"""The HTML page of a surge: readable at any width, with unambiguous rows."""

import re
from pathlib import Path

from seawall.lab.surge.health import DriverHealth
from seawall.lab.surge.outcome import Outcome, summarise
from seawall.lab.surge.report import as_html
from seawall.lab.surge.scenario import Open, Scenario
from tests.plan.browser import Visit, visit

OVERFLOW = "found.overflow = document.documentElement.scrollWidth - window.innerWidth;"


def page() -> str:
    """A page with completed, refused and failed turns."""
    outcomes = [
        Outcome(
            number, due=number / 10, status=200, first_text=0.734, total=3.1, model_first=0.5,
            model_total=2.9, turn="t", session="s",
        )
        for number in range(40)
    ]  # fmt: skip
    outcomes += [Outcome(40, due=1.0, status=503, total=0.01, error="status 503: overloaded")]
    outcomes += [Outcome(41, due=2.0, total=60.0, error="no answer in time")]
    driver = DriverHealth(
        cpu_seconds=1.0, cpu_share=0.1, busiest=0.2, starved=0.0, late_ms=1.0, lag_ms=1.0,
        saturated=["its timers fired up to 120 ms late (p99)"],
    )  # fmt: skip
    result = summarise(
        outcomes, loop="open", seconds=62.0, peak_in_flight=30, connections=42, driver=driver
    )
    return as_html(result, Scenario(url="http://127.0.0.1:8080", load=Open([])))


def test_rows_have_unique_names_and_rounded_figures() -> None:
    times = page().split("<tbody>")[1].split("</tbody>")[0]
    names = re.findall(r'<th scope="row">(.*?)</th>', times)
    assert len(names) == len(set(names)) == 7
    assert ">734<" in times
    assert "734.0" not in times


def test_the_page_fits_any_width(tmp_path: Path) -> None:
    narrow, wide = visit([Visit(page(), OVERFLOW, width) for width in (360, 1_280)], tmp_path)
    assert narrow["overflow"] <= 0
    assert wide["overflow"] <= 0
