"""Markdown of a model's answer: whatever it writes is shown, in linear time."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.parts import require
from tests.parts.system import missing_node

_MODULE = Path(__file__).parents[2] / "src/seawall/widget/markdown.js"
_PROGRAM = """
import { render } from %(module)s;
class Node {
  constructor(name) { this.name = name; this.childNodes = []; }
  append(...children) { for (const each of children) this.childNodes.push(each); }
  setAttribute() {}
  get textContent() {
    return this.childNodes.map((each) => each.textContent ?? each).join("");
  }
}
globalThis.document = { createElement: (name) => new Node(name) };
const began = process.cpuUsage();
const element = new Node("div");
render(element, %(text)s);
const { user, system } = process.cpuUsage(began);
const milliseconds = (user + system) / 1e3;
console.log(JSON.stringify({ milliseconds, text: element.textContent }));
"""


def rendered(text: str) -> tuple[float, str]:
    """How many milliseconds of processor time it takes to show a text, and what is shown."""
    require(missing_node())
    values = {"module": json.dumps(_MODULE.as_uri()), "text": text}
    done = subprocess.run(
        [shutil.which("node") or "", "--input-type=module"],
        input=_PROGRAM % values,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    answer = json.loads(done.stdout)
    return answer["milliseconds"], answer["text"]


@pytest.mark.parametrize(
    ("text", "characters"),
    [
        ('"[".repeat(100000)', 100_000),
        ('"# a" + " ".repeat(100000) + "b"', 100_002),
        ('"# a" + " ".repeat(100000) + "\\u2028b"', 100_003),
        ('"**a".repeat(66000)', 66_000),
        ('"` ".repeat(99000)', 99_000),
    ],
)
def test_hostile_text_is_shown_at_once(text: str, characters: int) -> None:
    milliseconds, shown = rendered(text)
    assert milliseconds < 3_000
    assert len(shown) == characters


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("# Title", "Title"),
        ("## Title ##", "Title"),
        ("# A#b #", "A#b"),
        ("#no heading", "#no heading"),
        ("see [this](https://a.example/)", "see this"),
        ("[[this](https://a.example/)]", "[this]"),
        ("[no link](javascript:alert(1))", "[no link](javascript:alert(1))"),
    ],
)
def test_what_is_shown(text: str, shown: str) -> None:
    assert rendered(json.dumps(text))[1] == shown
