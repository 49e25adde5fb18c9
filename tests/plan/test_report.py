"""The report: complete, consistent with the answer, escaped, and alive in a browser."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec import structs

from seawall.plan import from_flags
from seawall.plan.decision.advice import advise
from seawall.plan.decision.answer import Answer, Figure, Input
from seawall.plan.decision.numbers import money, seconds, share
from seawall.plan.inputs.question import Question
from seawall.plan.output.report import render_report, write_report
from seawall.plan.output.terminal import format_answer
from tests.plan.browser import Visit, visit
from tests.plan.test_limits import question

EVIL = "<script>alert(1)</script>\"'&amp;</textarea>--></script>"
VOID = {"meta", "input", "br", "img", "link", "hr"}


@pytest.fixture(scope="module")
def answer() -> Answer:
    """A small spike and little traffic."""
    workload = from_flags(daily="20000", spikes=["400@20s"], duration="2s..4s", start="1s")
    return advise(Question(workload=workload))


class Page(HTMLParser):
    """Elements, what is open, and the text of scripts and cells."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        self.texts.setdefault(tag, []).append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> ends nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        for tag in set(self.open):
            self.texts[tag][-1] += data


def embedded(text: str) -> Any:
    found = re.search(
        r'<script type="application/json" id="answer">(.*?)</script>', text, re.DOTALL
    )
    assert found is not None
    return json.loads(found[1])


def test_the_page_is_well_formed_and_complete(answer: Answer) -> None:
    text = render_report(answer)
    page = Page(text)
    assert page.open == []
    assert text.startswith("<!doctype html>")
    ids = [attrs["id"] for _, attrs in page.elements if "id" in attrs]
    assert len(ids) == len(set(ids))
    for tag, attrs in page.elements:
        assert tag not in {"link", "iframe", "img", "object", "embed", "base"}, tag
        assert not {"src", "srcset", "action", "style"} & set(attrs), (tag, attrs)
        assert not any(name.startswith("on") for name in attrs), (tag, attrs)
        assert (attrs.get("href") or "#").startswith("#"), attrs
    assert not re.search(r"url\((?!#)|@import|fetch\(|XMLHttp|WebSocket|import\(", text)
    policy = next(attrs for tag, attrs in page.elements if "http-equiv" in attrs)["content"]
    assert policy is not None
    assert policy.startswith("default-src 'none'; style-src 'sha256-")


def test_the_page_is_complete_without_scripts(answer: Answer) -> None:
    page = Page(render_report(answer))
    assert ("html", {"lang": "en"}) in page.elements
    assert page.texts["h1"] == [answer.summary]
    captions = [words for words in page.texts["caption"] if words.strip()]
    assert len(captions) == len([1 for tag, _ in page.elements if tag == "table"])
    for tag, attrs in page.elements:
        if tag == "th":
            assert "scope" in attrs
    cells = " ".join(page.texts["td"]) + " ".join(page.texts["th"])
    for each in answer.platforms.values():
        assert each.title in cells
        assert f"${each.monthly_cost:,.0f}" in cells or f"${each.monthly_cost:.2f}" in cells
    for one in answer.inputs:
        assert one.name in " ".join(page.texts["code"])
        assert one.source in cells
    for case in answer.sensitivity:
        assert case.title in cells
    for criterion in answer.rule_of_thumb.criteria:
        assert criterion.because in cells


def test_the_page_contains_the_answer_as_json(answer: Answer) -> None:
    assert embedded(render_report(answer)) == json.loads(msgspec.json.encode(answer))


def test_text_from_outside_is_escaped(answer: Answer) -> None:
    """Names of files and models come from outside: they are only shown."""
    wild = structs.replace(
        answer,
        summary=EVIL,
        notes=(EVIL,),
        inputs=(Input(name=EVIL, value=EVIL, source=EVIL, given=True),),
        region=EVIL,
    )
    text = render_report(wild)
    page = Page(text)
    assert page.open == []
    assert "alert(1)</script>" not in text
    assert [tag for tag, _ in page.elements].count("script") == 2
    assert page.texts["h1"] == [EVIL]
    assert embedded(text)["summary"] == EVIL


def test_a_file_that_cannot_be_written(answer: Answer, tmp_path: Path) -> None:
    write_report(answer, tmp_path / "report.html")
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == render_report(answer)
    with pytest.raises(OSError, match="No such file"):
        write_report(answer, tmp_path / "none" / "report.html")


def nothing_served(answer: Answer) -> Answer:
    """No platform meets the objective, one serves nothing; no spike, no sensitivity."""
    one = answer.platforms["lambda"]
    none = structs.replace(
        one.first_token, **dict.fromkeys(("p50", "p90", "p95", "p99", "p99_9"), Figure(None)),
        distribution=(),
    )  # fmt: skip
    empty = structs.replace(
        one, first_token=none, latency=none, met=False, misses=("errors 100%",),
        served=Figure(0.0), refused=Figure(1.0), error_share=Figure(1.0),
        ordinary=structs.replace(one.ordinary, first_token_p50=None, first_token_p99=None),
    )  # fmt: skip
    return structs.replace(
        answer, met=False, platforms=answer.platforms | {"lambda": empty}, sensitivity=(),
        traffic=structs.replace(answer.traffic, spike_size=0), currency="EUR",
        curve=structs.replace(answer.curve, break_even=()),
    )  # fmt: skip


def test_an_answer_without_spike_and_sensitivity(answer: Answer) -> None:
    text = render_report(nothing_served(answer))
    assert Page(text).open == []
    assert "No platform meets the objective" in text
    assert "The busiest time, second by second" in text
    assert "in the spike" not in " ".join(Page(text).texts["caption"])
    assert "EUR " in text
    assert "No input was varied" in text


# The actions of a reader, in a script that fills `found`.
VISIT = """
const $ = (selector, within = document) => within.querySelector(selector);
const $$ = (selector, within = document) => [...within.querySelectorAll(selector)];
const at = (frame, part, kind) => {
  const box = $("svg", frame).getBoundingClientRect();
  const event = new PointerEvent(kind, { bubbles: true, clientX: box.left + part * box.width,
    clientY: box.top + 40 });
  (kind === "pointerup" ? window : frame).dispatchEvent(event);
};
const ticks = (frame) => $$(".axis text", frame).map((each) => each.textContent).join();
found.charts = $$(".frame > svg").length;
found.paths = $$(".frame path").map((each) => each.getAttribute("d"));
found.bars = $$(".track i").length;
const first = $("#spike-charts .frame");
at(first, 0.5, "pointermove");
found.tips = $$("#spike-charts .tip").filter((each) => !each.hidden).length;
found.tip = $(".tip", first).textContent;
const before = ticks(first);
at(first, 0.3, "pointerdown"); at(first, 0.6, "pointermove"); at(first, 0.6, "pointerup");
found.zoomed = ticks(first) !== before;
found.together = ticks(first) === ticks($$("#spike-charts .frame")[1]);
$("#zoom-all").click();
const lines = $$("path", first).length;
$("#spike-charts .legend button").click();
found.switched = lines - $$("path", first).length;
found.pressed = $("#spike-charts .legend button").getAttribute("aria-pressed");
first.dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowRight", bubbles: true }));
found.byKey = !$(".tip", first).hidden;
const left = $("#left");
left.value = "lambda-snapstart"; left.dispatchEvent(new Event("change"));
found.caption = $("#spike-charts figcaption").textContent;
window.dispatchEvent(new Event("beforeprint"));
found.unfolded = $$("details").every((each) => each.open);
$("#theme").value = "dark"; $("#theme").dispatchEvent(new Event("change"));
found.back = getComputedStyle(document.body).backgroundColor;
found.wide = [document.documentElement.scrollWidth, document.documentElement.clientWidth];
found.captions = $$("caption span").filter((each) =>
  each.getBoundingClientRect().right > document.documentElement.clientWidth
  || each.getBoundingClientRect().bottom > $("td, th", each.closest("table"))
    .getBoundingClientRect().top + 1).map((each) => each.textContent);
found.texts = $$(".axis text").filter((each) => {
  const [box, frame] = [each, each.closest("svg")].map((one) => one.getBoundingClientRect());
  return box.left < frame.left - 1 || box.right > frame.right + 1 || box.bottom > frame.bottom + 1;
}).map((each) => each.textContent);
"""


@pytest.fixture(scope="module")
def nowhere() -> Answer:
    """Forty gigabytes; with two hundred nothing can run it."""
    return advise(question(memory_mb=40_000.0))


@pytest.fixture(scope="module")
def visits(
    answer: Answer, nowhere: Answer, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, dict[str, Any]]:
    """What each visit has found; by "actions" and the width, and so on."""
    page = render_report(answer)
    visitors = {
        "whole": Visit(page),
        "nothing served": Visit(render_report(nothing_served(answer))),
        "nowhere": Visit(render_report(nowhere)),
        "actions-1200": Visit(page, VISIT, 1_200),
        "actions-360": Visit(page, VISIT, 360),
        "compared": Visit(page, COMPARE, 1_000),
        "tables": Visit(page, TABLES, 390),
    }
    found = visit(list(visitors.values()), tmp_path_factory.mktemp("visits"))
    return dict(zip(visitors, found, strict=True))


@pytest.mark.parametrize("name", ["whole", "nothing served"])
def test_a_browser_opens_it_without_messages(visits: dict[str, dict[str, Any]], name: str) -> None:
    assert visits[name]["document"].count('class="frame"') == 13


def test_a_case_in_which_nothing_can_run_is_shown(
    nowhere: Answer, visits: dict[str, dict[str, Any]]
) -> None:
    """Two hundred gigabytes fit nowhere: in the terminal, in the report, without messages."""
    row = next(each for each in nowhere.sensitivity if each.input == "service.memory_mb")
    assert (row.high.choice, row.high.costs, row.changes_choice) == (None, {}, True)
    assert "none can run it" in format_answer(nowhere)
    page = visits["nowhere"]["document"]
    assert "it has 32,768 MB at most" in page
    assert "none can run it" in page


@pytest.mark.parametrize("width", [1200, 360])
def test_pointing_zooming_switching_and_printing(
    answer: Answer, visits: dict[str, dict[str, Any]], width: int
) -> None:
    found = visits[f"actions-{width}"]
    assert found["charts"] == 13
    assert all(path and "NaN" not in path for path in found["paths"])
    assert found["bars"] > 2 * len(answer.platforms)
    assert found["tips"] == 10
    assert "in service" in found["tip"]
    assert found["zoomed"]
    assert found["together"]
    assert (found["switched"], found["pressed"]) == (1, "false")
    assert found["byKey"]
    assert found["caption"] == "Lambda, SnapStart"
    assert found["unfolded"]
    assert found["back"] == "rgb(15, 20, 25)"
    assert found["wide"][0] <= found["wide"][1] <= width, "wider than the window"
    assert found["captions"] == []
    assert found["texts"] == [], "labels beyond their chart"


# Two configurations are chosen, and what the page says about them is noted.
COMPARE = """
const choose = (id, value) => {
  const select = document.getElementById(id);
  select.value = value; select.dispatchEvent(new Event("change"));
};
const options = (id) => [...document.getElementById(id).options].map((each) => each.textContent);
const verdict = () => document.getElementById("verdict").textContent;
const cells = () => [...document.querySelectorAll("#verdict-table tbody tr")]
  .map((row) => [...row.cells].map((cell) => cell.textContent));
found.first = verdict();
found.platforms = options("what-a");
found.changes = options("if-a");
choose("what-a", "eks"); choose("what-b", "lambda-managed");
found.asked = [verdict(), cells()];
choose("what-b", "eks"); choose("if-b", document.getElementById("if-b").options.length - 1);
found.changed = [verdict(), cells()];
choose("if-b", 0);
found.same = verdict();
"""


def test_any_two_configurations_are_compared_in_a_sentence(
    answer: Answer, visits: dict[str, dict[str, Any]]
) -> None:
    found = visits["compared"]
    assert found["platforms"] == [each.title for each in answer.platforms.values()]
    assert found["changes"][0] == "as asked for"
    cases = [
        (row, case)
        for row in answer.sensitivity
        for case in (row.low, row.high)
        if case.value != row.base
    ]
    assert len(found["changes"]) == 1 + len(cases)
    assert found["first"].startswith(answer.platforms[answer.choice].title)
    pods, other = answer.platforms["eks"], answer.platforms["lambda-managed"]
    words, cells = found["asked"]
    gap = money(abs(other.monthly_cost - pods.monthly_cost))
    more = "less" if pods.monthly_cost < other.monthly_cost else "more"
    assert words.startswith(f"EKS costs {gap} a month {more} than {other.title} (")
    assert pods.met
    assert other.met
    assert "both meet the objective" in words
    assert f"cost {money(answer.shared.monthly)} with either" in words
    assert cells[0] == [
        "platform, a month", money(pods.monthly_cost), money(other.monthly_cost)
    ]  # fmt: skip
    assert cells[2][1:] == [
        seconds(pods.first_token.p99.value),
        seconds(other.first_token.p99.value),
    ]
    row, case = cases[-1]
    words, cells = found["changed"]
    assert f"EKS ({row.title}: {case.value}, not {row.base})" in words
    assert cells[1][2] == money(case.costs["eks"] + case.shared)
    assert cells[3][2] == share(case.errors["eks"])
    assert "EKS and EKS cost the same" in found["same"]


TABLES = """
window.dispatchEvent(new Event("beforeprint"));
const inside = (each) => each.getBoundingClientRect().right
  <= document.documentElement.clientWidth + 1;
const tables = [...document.querySelectorAll(".wide > table.stacked")];
found.tables = tables.length;
found.cut = tables.flatMap((table) => [...table.querySelectorAll("tbody th, tbody td")])
  .filter((each) => !inside(each)).map((each) => each.textContent);
found.unnamed = tables.flatMap((table) => [...table.querySelectorAll("tbody td")])
  .filter((each) => !each.dataset.label).map((each) => each.textContent);
found.scrolled = tables.filter((each) => each.parentElement.scrollWidth
  > each.parentElement.clientWidth + 1).length;
"""


def test_tables_are_whole_on_a_telephone(visits: dict[str, dict[str, Any]]) -> None:
    found = visits["tables"]
    assert found["tables"] > 15
    assert found["cut"] == []
    assert found["unnamed"] == []
    assert found["scrolled"] == 0
