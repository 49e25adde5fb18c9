"""Charts as SVG text, and a page around them that needs nothing else to be read."""

import math
from collections.abc import Sequence
from html import escape
from itertools import groupby
from typing import Literal

from msgspec import Struct

__all__ = ["Series", "chart", "page", "table"]

_WIDTH, _HEIGHT = 640, 250
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 14, 34, 36
_COLOURS = ("#1f5fa8", "#d2691e", "#2e8b57", "#8b3a8b", "#b22222", "#555555")
_STYLE = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, sans-serif; color: #1b2733; background: #fff;
  max-width: 1340px; margin: 2rem auto; padding: 0 1.2rem; }
h1 { font-size: 1.6rem; margin: 0 0 .3rem; } h2 { font-size: 1.15rem; margin: 2rem 0 .5rem; }
p.lead { color: #4a5a6a; margin: 0 0 1rem; max-width: 90ch; }
p.warning { background: #fff3d6; border-left: 4px solid #d28a00; padding: .5rem .8rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: .4rem 0; }
th, td { padding: .22rem .8rem; text-align: right; border-bottom: 1px solid #e3e8ee; }
th:first-child, td:first-child { text-align: left; } thead th { border-bottom: 2px solid #9fb0c0; }
.row { display: flex; flex-wrap: wrap; gap: 12px; align-items: flex-start; }
.apart { gap: 48px; margin-bottom: 12px; }
figure { margin: 0; border: 1px solid #e3e8ee; border-radius: 6px; }
svg text { font: 12px system-ui, sans-serif; fill: #33475b; }
svg .title { font-weight: 600; font-size: 13px; }
footer { margin: 2.5rem 0 1rem; color: #6b7b8b; font-size: 13px; }
"""


class Series(Struct, frozen=True):
    """What is drawn of one thing. dots: for many single values; line: for a course over time."""

    name: str
    xs: Sequence[float]
    ys: Sequence[float]
    kind: Literal["line", "dots"] = "line"


def chart(title: str, series: Sequence[Series], *, x: str = "seconds", y: str = "") -> str:
    """An SVG element: all series over one pair of axes that begin at zero; colours by order."""
    title = f"{title}, {y}" if y else title
    right = _nice(max((max(each.xs, default=0.0) for each in series), default=0.0))
    top = _nice(max((max(each.ys, default=0.0) for each in series), default=0.0))
    across = (_WIDTH - _LEFT - _RIGHT) / right
    upward = (_HEIGHT - _TOP - _BOTTOM) / top
    base = _HEIGHT - _BOTTOM
    size = f'viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" height="{_HEIGHT}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-label="{escape(title)}">',
        f'<text class="title" x="{_LEFT}" y="17">{escape(title)}</text>',
    ]
    for step in range(5):
        value, at = top * step / 4, base - top * step / 4 * upward
        parts.append(
            f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{at:.1f}" y2="{at:.1f}" '
            f'stroke="#e3e8ee"/><text x="{_LEFT - 6}" y="{at + 4:.1f}" '
            f'text-anchor="end">{value:g}</text>'
        )
        value, at = right * step / 4, _LEFT + right * step / 4 * across
        parts.append(f'<text x="{at:.1f}" y="{base + 16}" text-anchor="middle">{value:g}</text>')
    parts.append(
        f'<text x="{_WIDTH - _RIGHT}" y="{_HEIGHT - 5}" text-anchor="end">{escape(x)}</text>'
    )
    legend = _WIDTH - _RIGHT
    for number, each in reversed(list(enumerate(series))):
        colour = _COLOURS[number % len(_COLOURS)]
        points = [
            (_LEFT + at * across, base - value * upward)
            for at, value in zip(each.xs, each.ys, strict=True)
        ]
        if each.kind == "dots":
            parts.append(f'<g fill="{colour}" fill-opacity="0.45">')
            parts += [f'<circle cx="{a:.1f}" cy="{b:.1f}" r="2"/>' for a, b in points]
            parts.append("</g>")
        elif points:
            line = " ".join(f"{a:.1f},{b:.1f}" for a, b in points)
            parts.append(
                f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="1.8"/>'
            )
        legend -= 7 * len(each.name) + 26
        parts.append(
            f'<rect x="{legend}" y="9" width="10" height="10" fill="{colour}"/>'
            f'<text x="{legend + 14}" y="18">{escape(each.name)}</text>'
        )
    return "".join([*parts, "</svg>"])


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """An HTML table; None is shown as a dash, numbers as they are."""
    cells = "".join(f"<th>{escape(each)}</th>" for each in head)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(_shown(each))}</td>" for each in row) + "</tr>"
        for row in rows
    )
    return f"<table><thead><tr>{cells}</tr></thead><tbody>{body}</tbody></table>"


def page(title: str, lead: str, parts: Sequence[str], *, footer: str = "") -> str:
    """A whole page. parts: HTML; charts, or tables, that follow each other share a row."""
    body: list[str] = []
    for kind, group in groupby(parts, lambda each: each[:4]):
        if kind == "<svg":
            charts = "".join(f"<figure>{each}</figure>" for each in group)
            body.append(f'<div class="row">{charts}</div>')
        elif kind == "<tab":
            body.append(f'<div class="row apart">{"".join(group)}</div>')
        else:
            body += group
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head><body>'
        f'<h1>{escape(title)}</h1><p class="lead">{escape(lead)}</p>{"".join(body)}'
        f"<footer>{escape(footer)}</footer></body></html>\n"
    )


def _shown(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _nice(value: float) -> float:
    """The next number above with a first figure that divides well by four."""
    if value <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 2, 4, 6, 8, 10) if value <= step * power * (1 + 1e-9))
