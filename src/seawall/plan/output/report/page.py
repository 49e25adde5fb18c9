"""From an answer to the text of the page: template, styles, scripts and data in one file."""

import base64
import hashlib
from importlib.resources import files
from pathlib import Path

import jinja2
import msgspec
from markupsafe import Markup

from seawall.plan.decision.answer import PLATFORMS, Answer, Figure
from seawall.plan.decision.text import amount, money, seconds
from seawall.plan.output.report.tables import bill_rows, side_by_side, spike_rows

__all__ = ["render_report", "write_report"]

_ASSETS = files("seawall.plan.output.report") / "assets"
# In this order: each uses what is before it.
_SCRIPTS = ("scales.js", "chart.js", "spike.js", "figures.js", "page.js")


def write_report(answer: Answer, path: Path) -> None:
    """Write the page of `render_report`. Raises OSError where it cannot be written."""
    path.write_text(render_report(answer), encoding="utf-8")


def render_report(answer: Answer) -> str:
    """The page: everything is in it, nothing is fetched, and what others wrote is escaped.

    The answer is in it as JSON, in the element `answer`, as `--json` prints it. Only its own
    script and style run: the page forbids all else by a content security policy.
    """
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_asset),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "amount": amount,
        "price": _price,
        "seconds": seconds,
        "share": _share,
        "within": _within,
    }
    environment.globals["money"] = lambda value: money(value, answer.currency)
    style, script = _asset("style.css"), "\n".join(_asset(name) for name in _SCRIPTS)
    left, right = side_by_side(answer)
    return environment.get_template("report.html").render(
        answer=answer,
        bills={name: bill_rows(each) for name, each in answer.platforms.items()},
        data=Markup(_json(answer)),  # noqa: S704 - escaped for a script element
        left=left,
        order=PLATFORMS,
        right=right,
        script=Markup(script),  # noqa: S704 - our own file
        script_hash=_hash(script),
        spike=spike_rows(answer, left, right),
        steps=_steps(answer.platforms[right].series.bin_seconds),
        style=Markup(style),  # noqa: S704 - our own file
        style_hash=_hash(style),
    )


def _asset(name: str) -> str:
    return (_ASSETS / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    """As a content security policy names what may run."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _json(answer: Answer) -> str:
    """JSON that can stand in a script element: no end tag nor comment begins in it."""
    text = msgspec.json.encode(answer).decode()
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _steps(bin_seconds: float) -> str:
    if bin_seconds == 1.0:
        return "second by second"
    return (
        f"in steps of {bin_seconds:.2g} s"
        if bin_seconds < 60
        else (f"in steps of {bin_seconds / 60:.2g} min")
    )


def _price(value: float) -> str:
    """`0.0000133334`: all its digits, without an exponent."""
    return f"{value:.10f}".rstrip("0").rstrip(".")


def _share(value: float | None) -> str:
    """`0.3 %`; `-` of nobody."""
    if value is None:
        return "-"
    percent = value * 100.0
    if 0.0 < percent < 0.01:
        return "< 0.01 %"
    return f"{percent:.0f} %" if percent in (0.0, 100.0) or percent >= 10 else f"{percent:.2g} %"


def _within(figure: Figure, kind: str) -> str:
    """A figure with half its interval, where there is one: `3.36 s ± 0.06`."""
    value, half = figure.value, figure.half
    if value is None:
        return "-"
    if kind == "seconds":
        return seconds(value) + (f" ± {half:.2f}" if half and half >= 0.005 else "")
    if kind == "share":
        return _share(value) + (f" ± {half * 100:.1f}" if half and half >= 0.0005 else "")
    return f"{value:,.0f}" + (f" ± {half:,.0f}" if half and half >= 0.5 else "")
