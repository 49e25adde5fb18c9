"""The report: the answer as one HTML file with charts and tables, which needs no network."""

from pathlib import Path

import jinja2
import msgspec
from markupsafe import Markup
from msgspec import Struct

from seawall.plan.decision.answer import Answer, Figure, PlatformAnswer, PlatformName
from seawall.plan.decision.numbers import amount, money, price, seconds, share, within
from seawall.plan.decision.places.registry import title_of
from seawall.plan.output.charts import asset, document

__all__ = ["bill_rows", "render_report", "side_by_side", "spike_rows", "write_report"]

# In this order, after those of `charts`: each uses what is before it.
_SCRIPTS = ("spike.js", "figures.js", "what_if.js", "report.js")
# Colours of the platforms in their order, as in report.js.
_COLOURS = ("c2", "c6", "c4", "c5", "c1", "c3")
_INSTANTS = (-10.0, 0.0, 1.0, 2.0, 3.0, 5.0, 7.0, 10.0, 15.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0)
_SHOWN = ("in_service", "queued", "cold_starts", "throttled", "first_token_mean")


class BillRow(Struct, frozen=True):
    """A line of the bill, and its share of the whole."""

    title: str
    quantity: float
    unit: str
    price: float
    monthly: float
    share: float
    source: str
    uncertain: bool


class SpikeRow(Struct, frozen=True):
    """One time of the spike. at: seconds from it; the values of `_SHOWN` on both platforms."""

    at: float
    left: tuple[float | None, ...]
    right: tuple[float | None, ...]


def write_report(answer: Answer, path: Path) -> None:
    """Write the page of `render_report` to a file.

    Raises:
        OSError: The file cannot be written.
    """
    path.write_text(render_report(answer), encoding="utf-8")


def render_report(answer: Answer) -> str:
    """The answer as an HTML page.

    Nothing is fetched, text from outside is escaped, and a content security policy lets only the
    page's own script and style run. The answer is in it as JSON, as `--json` prints it, in the
    element with the id `answer`.
    """
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(asset),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "amount": amount,
        "price": price,
        "seconds": seconds,
        "share": share,
        "within": _within,
    }
    environment.globals["title_of"] = title_of
    environment.globals["money"] = lambda value: money(value, answer.currency)
    left, right = side_by_side(answer)
    body = environment.get_template("report.html").render(
        answer=answer,
        bills={name: bill_rows(each) for name, each in answer.platforms.items()},
        data=Markup(_json(answer)),  # noqa: S704 - escaped for a script element
        left=left,
        order=list(answer.platforms),
        right=right,
        spike=spike_rows(answer, left, right),
        steps=_steps(answer.platforms[right].series.bin_seconds),
        styles={name: _COLOURS[at % len(_COLOURS)] for at, name in enumerate(answer.platforms)},
    )
    return document(
        f"{answer.platforms[answer.choice].title}: Lambda or EKS, by simulation",
        "Seawall plan: Lambda or EKS",
        body,
        script="\n".join(asset(name) for name in _SCRIPTS),
    )


def side_by_side(answer: Answer) -> tuple[PlatformName, PlatformName]:
    """The two platforms whose spikes stand side by side: the best functions, the best containers.

    If there is only one of these kinds, its two best; if only one platform, twice the same.
    """
    ranks = (answer.choice, answer.runner_up)

    def rank(name: PlatformName) -> tuple[int, bool, float]:
        each = answer.platforms[name]
        place = ranks.index(name) if name in ranks else len(ranks)
        return place, not each.met, each.monthly_cost

    order = sorted((each.name for each in answer.platforms.values()), key=rank)
    functions = [each for each in order if answer.platforms[each].family == "functions"]
    containers = [each for each in order if answer.platforms[each].family == "containers"]
    if functions and containers:
        return functions[0], containers[0]
    return order[0], order[min(1, len(order) - 1)]


def bill_rows(platform: PlatformAnswer) -> list[BillRow]:
    """The bill of a platform, the most expensive item first."""
    whole = sum(item.monthly for item in platform.items)
    return [
        BillRow(
            item.title, item.quantity, item.unit, item.price, item.monthly,
            item.monthly / whole if whole else 0.0, item.source, item.uncertain,
        )
        for item in sorted(platform.items, key=lambda item: -item.monthly)
    ]  # fmt: skip


def spike_rows(answer: Answer, left: PlatformName, right: PlatformName) -> list[SpikeRow]:
    """The spike at some times, as a table: what the charts show."""
    both = answer.platforms[left].series, answer.platforms[right].series
    instants: tuple[float, ...] = _INSTANTS
    if not answer.traffic.spike_size:
        bins, width = len(both[0].values["arrived"]), both[0].bin_seconds
        instants = tuple(both[0].start + width * (bins * each // 12) for each in range(12))
    rows = []
    for at in instants:
        sides = []
        for series in both:
            # The bin that the time is in; the half second is the middle of one.
            index = int((at + 0.5 * series.bin_seconds - series.start) // series.bin_seconds)
            values = [series.values.get(name, ()) for name in _SHOWN]
            if all(0 <= index < len(each) for each in values):
                sides.append(tuple(each[index] for each in values))
        if len(sides) == len(both):
            rows.append(SpikeRow(at, sides[0], sides[1]))
    return rows


def _json(answer: Answer) -> str:
    """JSON for a script element: it contains neither an end tag nor the start of a comment."""
    text = msgspec.json.encode(answer).decode()
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _steps(bin_seconds: float) -> str:
    if bin_seconds == 1.0:
        return "second by second"
    if bin_seconds < 60:
        return f"in steps of {bin_seconds:.2g} s"
    return f"in steps of {bin_seconds / 60:.2g} min"


def _within(figure: Figure, kind: str) -> str:
    """A figure with half its interval, where there is one."""
    return within(figure.value, figure.half, kind)
