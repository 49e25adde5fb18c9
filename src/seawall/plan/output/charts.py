"""Line charts and tables on an HTML page that is one file and fetches nothing.

::

    from seawall.plan.output.charts import Series, chart, page, table

    figure = chart("In flight", [Series("turns", [0.0, 1.0, 2.0], [0.0, 5.0, 2.0])], y="turns")
    text = page("A load test", "What happened.", [table(["time", "ms"], [["p99", 12.3]]), figure])

The page follows light and dark mode and its own width, and prints. Charts show values under the
pointer, zoom by dragging, and switch their lines; each has its figures in a table too.
"""

import base64
import hashlib
import math
from collections.abc import Sequence
from html import escape
from importlib.resources import files
from itertools import groupby
from operator import itemgetter
from statistics import median
from typing import Literal

import msgspec
from msgspec import Struct

__all__ = ["Series", "asset", "chart", "document", "page", "table"]

_ASSETS = files("seawall.plan.output") / "assets"
_SCRIPTS = ("charts.js", "page.js")


class Series(Struct, frozen=True):
    """One line, or one set of dots, of a chart.

    Args:
        name: In the legend.
        xs: Rising, for a line.
        ys: As many as `xs`; NaN leaves a gap.
        kind: `line` for a course over time, `dots` for many single values.
    """

    name: str
    xs: Sequence[float]
    ys: Sequence[float]
    kind: Literal["line", "dots"] = "line"


def chart(title: str, series: Sequence[Series], *, x: str = "seconds", y: str = "") -> str:
    """A figure for `page`, as HTML.

    Args:
        title: Above the chart.
        series: In one pair of axes that begin at zero; colours by their order, six of them.
        x: Label of the axis; what stands before a comma is the unit.
        y: Unit of the values.
    """
    title = f"{title}, {y}" if y else title
    first, lines = itemgetter(0), []
    for each in series:
        points = [(_rounded(a), _rounded(b)) for a, b in zip(each.xs, each.ys, strict=True)]
        lines.append({"name": each.name, "kind": each.kind, "points": sorted(points, key=first)})
    data = msgspec.json.encode({"title": title, "x": x, "y": y, "series": lines}).decode()
    rows = [_summary(each) for each in series]
    figures = table(["", "points", "least", "median", "greatest", "last"], rows, caption=title)
    return (
        f'<div class="chart"><figure data-chart="{escape(data)}"></figure>'
        f"<details><summary>The same in figures</summary>{figures}</details></div>"
    )


def table(head: Sequence[str], rows: Sequence[Sequence[object]], *, caption: str = "") -> str:
    """An HTML table, which scrolls by itself where it is wider than the page.

    Args:
        head: Names of the columns. The first column names the rows; the others are aligned right.
        rows: Cells, as many as `head`. None is a dash; floats have three significant digits.
        caption: Above the table.
    """
    first, *others = [escape(each) for each in head]
    names = f'<th scope="col">{first}</th>' if first else "<td></td>"
    names += "".join(f'<th scope="col" class="n">{each}</th>' for each in others)
    body = "".join(
        f'<tr><th scope="row">{_cell(row[0])}</th>'
        + "".join(f'<td class="n">{_cell(each)}</td>' for each in row[1:])
        + "</tr>"
        for row in rows
    )
    above = f"<caption><span>{escape(caption)}</span></caption>" if caption else ""
    return (
        f'<div class="wide"><table>{above}<thead><tr>{names}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def page(
    title: str, lead: str, parts: Sequence[str], *, footer: str = "", kind: str = "Seawall lab"
) -> str:
    """A whole page.

    Args:
        title: Of the page, plain text; so are `lead`, `footer` and `kind`.
        lead: The first paragraph.
        parts: HTML, in order: charts and tables of this module, or other elements. Charts that
            follow one another stand in two columns where there is room.
        footer: The last paragraph.
        kind: What kind of page it is, above the title.
    """
    body = [f'<main id="content"><h1>{escape(title)}</h1><p>{escape(lead)}</p>']
    for charts, group in groupby(parts, lambda each: each.startswith('<div class="chart">')):
        text = "".join(group)
        body.append(f'<div class="pair">{text}</div>' if charts else text)
    body.append(f"</main><footer><p>{escape(footer)}</p></footer>")
    return document(title, kind, "".join(body), script="startPage(drawFigures());")


def document(title: str, kind: str, body: str, *, script: str) -> str:
    """An HTML document with the styles and scripts of charts, and a header with controls.

    A content security policy lets nothing else run and nothing be fetched.

    Args:
        title: Plain text, in the window's title.
        kind: Plain text, above the page.
        body: HTML, trusted: `main` with the id `content`, and what comes after it.
        script: JavaScript, trusted, after `charts.js` and `page.js`.
    """
    style = asset("style.css")
    script = "\n".join([*(asset(name) for name in _SCRIPTS), script])
    policy = (
        f"default-src 'none'; style-src '{_hash(style)}'; script-src '{_hash(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<title>{escape(title)}</title>
<style>{style}</style>
</head>
<body>
<a class="skip" href="#content">Skip to the content</a>
<header>
<p class="kind">{escape(kind)}</p>
<p class="controls"><label for="theme">Colours</label>
<select id="theme"><option value="">as the system</option><option value="light">light</option>\
<option value="dark">dark</option></select>
<button type="button" id="print">Print</button></p>
</header>
{body}
<script>{script}</script>
</body>
</html>
"""


def asset(name: str) -> str:
    """The text of a style sheet, script or template of the reports."""
    return (_ASSETS / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    """The hash by which a content security policy allows a script or style."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _rounded(value: float) -> float:
    return float(f"{value:.6g}")


def _summary(series: Series) -> list[object]:
    known = [each for each in series.ys if not math.isnan(each)]
    if not known:
        return [series.name, 0, None, None, None, None]
    return [series.name, len(known), min(known), float(median(known)), max(known), known[-1]]


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return escape(str(value))
