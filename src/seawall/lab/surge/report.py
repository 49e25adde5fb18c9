"""Reports of a surge: JSON, terminal table and HTML page."""

from collections.abc import Sequence
from html import escape

import msgspec

from seawall.lab.statistics import Percentiles
from seawall.lab.surge.outcome import Outcome, SurgeResult
from seawall.lab.surge.scenario import Scenario
from seawall.printable import printable

__all__ = ["as_html", "as_json", "as_table", "by_arrival", "headline", "in_flight", "per_second"]

_COLUMNS = ("p50", "p95", "p99", "max")
_DOTS = 4_000
_ERRORS = 8


def as_json(result: SurgeResult, *, outcomes: bool = False) -> bytes:
    """The result as JSON, with every turn's outcome if wanted."""
    shown = result if outcomes else msgspec.structs.replace(result, outcomes=[])
    return msgspec.json.encode(shown)


def _percentile_rows(result: SurgeResult) -> list[tuple[str, Percentiles]]:
    """The percentiles that exist, by name; of completed turns, except for the last two."""
    rows = [
        ("first text", result.first_text),
        ("first text, model's own", result.model_first_text),
        ("first text, added", result.added_first_text),
        ("whole turn", result.total),
        ("whole turn, model's own", result.model_total),
        (f"refusal, of {result.refused:,}", result.refusal),
        (f"failure, of {result.failed:,}", result.failure),
    ]
    return [(name, each) for name, each in rows if each.p50 is not None]


def as_table(result: SurgeResult) -> str:
    """A table for a terminal."""
    lines = [
        "",
        headline(result),
        "",
        _subtitle(result),
        f"{'milliseconds':28}" + "".join(f"{c:>9}" for c in _COLUMNS),
    ]
    for name, times in _percentile_rows(result):
        cells = [getattr(times, column) for column in _COLUMNS]
        lines.append(f"{name:28}" + "".join(f"{round(cell):>9}" for cell in cells))
    lines += ["", f"peak in flight      {result.peak_in_flight:>9}"]
    lines.append(f"connections opened  {result.connections:>9}")
    lines.append(_driver_line(result))
    lines += [
        f"WARNING: the driver itself may have been the bottleneck: {printable(each)}"
        for each in result.driver.saturated
    ]
    for error, count in list(result.errors.items())[:_ERRORS]:
        lines.append(f"error: {count} x {printable(error[:160])}")
    if result.durability is not None:
        lines += [f"not durable: {printable(each)}" for each in result.durability.missing]
        lines += [f"not read back: {printable(each)}" for each in result.durability.why_unread]
    return "\n".join(lines) + "\n"


def as_html(result: SurgeResult, scenario: Scenario) -> str:
    """A self-contained HTML page."""
    from seawall.plan.output.charts import (  # noqa: PLC0415 - imports the planner
        Series,
        chart,
        page,
        table,
    )

    def ended(outcomes: Sequence[Outcome]) -> tuple[list[float], list[float]]:
        return per_second([each.due + each.total for each in outcomes])

    served = [each for each in result.outcomes if not each.error]
    drawn = served[:: max(1, len(served) // _DOTS)]
    axis, arrived = by_arrival(drawn)
    refused = [each for each in result.outcomes if each.error and each.refused]
    failed = [each for each in result.outcomes if each.error and not each.refused]
    parts = [
        *(
            f'<p class="warning">The driver may have been the bottleneck: '
            f"{escape(printable(each))}.</p>"
            for each in result.driver.saturated
        ),
        f"<p>{escape(_subtitle(result))}</p>",
        table(
            ["milliseconds", *_COLUMNS],
            [
                [name, *(getattr(times, column) for column in _COLUMNS)]
                for name, times in _percentile_rows(result)
            ],
        ),
        chart(
            "Time to first text of completed turns",
            [Series("turns", arrived, [e.first_text or 0.0 for e in drawn], "dots")],
            x=axis,
            y="seconds",
        ),
        chart(
            "Whole time of completed turns",
            [Series("turns", arrived, [e.total for e in drawn], "dots")],
            x=axis,
            y="seconds",
        ),
        chart(
            "Each second",
            [
                Series("arrived", *per_second([each.due for each in result.outcomes])),
                Series("completed", *ended(served)),
                Series("refused", *ended(refused)),
                Series("failed", *ended(failed)),
            ],
            y="turns",
        ),
        chart("In flight", [Series("turns", *in_flight(result.outcomes))], y="turns"),
        "<h2>The driver</h2><p>" + escape(_driver_line(result)) + "</p>",
    ]
    if result.errors:
        parts.append("<h2>Errors</h2>")
        rows = [[printable(error), count] for error, count in result.errors.items()]
        parts.append(table(["error", "turns"], rows))
    return page(f"Surge at {scenario.url}", headline(result), parts)


def by_arrival(outcomes: Sequence[Outcome]) -> tuple[str, list[float]]:
    """The x axis of turns: time of arrival, or the turn's number if all arrived at once."""
    if all(each.due == outcomes[0].due for each in outcomes):
        return "turn number", [float(each.number) for each in outcomes]
    return "seconds, arrival", [each.due for each in outcomes]


def per_second(times: Sequence[float]) -> tuple[list[float], list[float]]:
    """The number of times in each second."""
    seconds = int(max(times, default=0.0)) + 1
    counts = [0.0] * seconds
    for each in times:
        counts[int(each)] += 1.0
    return [float(at) for at in range(seconds)], counts


def in_flight(outcomes: Sequence[Outcome]) -> tuple[list[float], list[float]]:
    """Turns in flight at each change, thinned out for a chart."""
    changes = sorted(
        change for each in outcomes for change in ((each.due, 1), (each.due + each.total, -1))
    )
    now, xs, ys = 0, [0.0], [0.0]
    step = max(1, len(changes) // 1_000)
    for number, (at, change) in enumerate(changes):
        now += change
        if number % step == 0 or number == len(changes) - 1:
            xs.append(at)
            ys.append(float(now))
    return xs, ys


def headline(result: SurgeResult) -> str:
    """What became of the turns, in one sentence."""
    parts = [
        f"{result.completed} of {result.turns} turns completed",
        f"{result.refused} refused",
        f"{result.failed} failed",
    ]
    durability = result.durability
    if durability is not None:
        parts.append(f"{durability.found} of {durability.looked_up} found durable")
        if durability.unread:
            parts.append(f"{durability.unread} could not be read back")
    if (interrupted := result.interrupted) is not None:
        parts.append(
            f"interrupted with {interrupted.unsent} not sent and {interrupted.abandoned} in flight"
        )
    return f"{', '.join(parts)}, in {result.seconds:.1f} s, {result.loop} loop"


def _subtitle(result: SurgeResult) -> str:
    """Which turns the times are of."""
    return f"{result.completed:,} completed turns of {result.turns:,}, times since they were due"


def _driver_line(result: SurgeResult) -> str:
    driver = result.driver
    return (
        f"driver: {driver.cpu_share:.0%} of a processor (at most {driver.busiest:.0%} in 5 s), "
        f"waited for a processor {driver.starved:.0%} of the time, "
        f"turns sent {driver.late_ms:.0f} ms late (p99), timers {driver.lag_ms:.0f} ms late (p99)"
    )
