"""Curves as an SVG file: one panel below the other, each with its fitted line."""

from collections.abc import Sequence
from pathlib import Path

from msgspec import Struct

__all__ = ["Panel", "draw"]

WIDTH, HEIGHT, LEFT, GAP = 900, 150, 80, 40


class Panel(Struct):
    """A curve over minutes, and perhaps a line through it: value at minute 0, growth a minute."""

    title: str
    minutes: Sequence[float]
    values: Sequence[float]
    line: tuple[float, float] | None = None


def draw(path: Path, panels: Sequence[Panel]) -> None:
    """Write the picture."""
    height = len(panels) * (HEIGHT + GAP) + GAP
    parts = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH + LEFT + 20} {height}" '
            'font-family="sans-serif" font-size="12">'
        ),
        '<rect width="100%" height="100%" fill="white"/>',
    ]
    for index, panel in enumerate(panels):
        if panel.values:
            parts += _panel(panel, GAP + index * (HEIGHT + GAP))
    path.write_text("\n".join([*parts, "</svg>"]) + "\n")


def _panel(panel: Panel, top: float) -> list[str]:
    last = max(panel.minutes) or 1.0
    high = max(panel.values) * 1.1 or 1.0

    def at(minute: float, value: float) -> str:
        return f"{LEFT + minute / last * WIDTH:.1f},{top + HEIGHT * (1 - value / high):.1f}"

    points = " ".join(at(*each) for each in zip(panel.minutes, panel.values, strict=True))
    bottom = top + HEIGHT
    parts = [
        f'<text x="{LEFT}" y="{top - 6}" font-weight="bold">{panel.title}</text>',
        f'<path d="M{LEFT},{top}V{bottom}H{LEFT + WIDTH}" stroke="#999" fill="none"/>',
        f'<text x="{LEFT - 6}" y="{top + 10}" text-anchor="end">{high:.4g}</text>',
        f'<text x="{LEFT - 6}" y="{bottom}" text-anchor="end">0</text>',
        f'<text x="{LEFT + WIDTH}" y="{bottom + 14}" text-anchor="end">{last:.3g} min</text>',
        f'<polyline points="{points}" stroke="#1663a9" fill="none"/>',
    ]
    if panel.line is not None:
        start, growth = panel.line
        ends = f"{at(0, start)} {at(last, start + growth * last)}"
        parts.append(f'<polyline points="{ends}" stroke="#c22" stroke-dasharray="6" fill="none"/>')
    return parts
