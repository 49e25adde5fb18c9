"""Reports of a comparison: terminal table and HTML page."""

from collections.abc import Sequence
from html import escape

from seawall.lab.compare import Comparison, FleetResult, Run
from seawall.lab.surge.report import by_arrival, in_flight, per_second
from seawall.plan.output.charts import Series, chart, page, table

__all__ = ["compare_html", "compare_table"]

_DOTS = 2_500
_COLUMN = 22  # characters, at least
_MEBIBYTE = 2**20
_PREDICTED_NOTE = (
    "<p>Predicted: simulated by <code>seawall.plan</code> for this fleet and this crowd from the "
    "calibration alone. Driver, model, balancer and fleet share one machine.</p>"
)


def compare_table(comparison: Comparison) -> str:
    """A table for a terminal."""
    lines = [comparison.machine]
    if comparison.bound is not None:
        lines.append(f"the crowd: {comparison.bound.why}")
    for run in comparison.runs:
        titles = ("", [each.title for each in run.fleets])
        rows = [titles, *_rows(run.fleets), *_predicted_rows(run.fleets)]
        width = max(_COLUMN, *(len(cell) + 2 for _, cells in rows for cell in cells))
        lines += ["", run.title]
        lines += [
            f"{name:38}" + "".join(f"{cell:>{width}}" for cell in cells) for name, cells in rows
        ]
        lines += [f"note: {note}" for each in run.fleets for note in each.notes]
        for each in run.fleets:
            lines += [
                f"WARNING: {each.title}: driver: {why}" for why in each.result.driver.saturated
            ]
            lines += [
                f"{each.title}: {count} x {what[:140]}"
                for what, count in list(each.result.errors.items())[:5]
            ]
    return "\n".join(lines) + "\n"


def compare_html(comparison: Comparison) -> str:
    """A self-contained HTML page."""
    parts = []
    for run in comparison.runs:
        parts += _section(run)
    lab = comparison.calibration.lab
    parts += [
        "<h2>Calibration</h2>",
        table(
            ["figure", "value"],
            [
                [
                    "start, added to the first text, seconds",
                    _list(comparison.calibration.start_seconds),
                ],
                *([f"start: {name}, seconds", value] for name, value in lab.start_parts.items()),
                ["processor time of a start, seconds", lab.start_cpu_seconds],
                ["processor time of a turn, ms", comparison.calibration.cpu_ms],
                ["memory of an environment alone, MB", comparison.calibration.memory_mb],
                [
                    "memory of a turn in flight, KB",
                    comparison.calibration.memory_kb_in_flight,
                ],
                ["opening a connection, ms", lab.connect_ms],
            ],
        ),
        _PREDICTED_NOTE,
    ]
    lead = (
        f"{comparison.machine}. The same turns, at the same moments, on real processes: pods "
        "behind a balancer, and environments under a local Runtime API. "
        f"Store: {comparison.store}."
    )
    if comparison.bound is not None:
        lead += f" The crowd: {comparison.bound.why}."
    return page("Pods and Lambda under the same crowd", lead, parts, footer=comparison.date)


def _section(run: Run) -> list[str]:
    fleets = run.fleets
    parts = [f"<h2>{escape(run.title)}</h2>"]
    for each in fleets:
        parts += [
            f'<p class="warning">{escape(each.title)}: the driver may have been the bottleneck: '
            f"{escape(why)}.</p>"
            for why in each.result.driver.saturated
        ]
        parts += [f'<p class="warning">{escape(note)}</p>' for note in each.notes]
    head = ["measurement", *(each.title for each in fleets)]
    parts.append(table(head, [[name, *cells] for name, cells in _rows(fleets)]))
    parts.append(
        table(
            ["prediction", *head[1:]], [[name, *cells] for name, cells in _predicted_rows(fleets)]
        )
    )
    parts += [
        _dots("Time to first text", fleets, "first_text"),
        _dots("Whole turn", fleets, "total"),
        chart("First text: share of turns that had it", _shares(fleets), x="seconds", y="%"),
        chart(
            "Turns in flight",
            [Series(each.title, *in_flight(each.result.outcomes)) for each in fleets],
        ),
        chart(
            "Completed each second",
            [
                Series(
                    each.title,
                    *per_second([o.due + o.total for o in each.result.outcomes if not o.error]),
                )
                for each in fleets
            ],
        ),
        chart("Processes that serve", _sample_series(fleets, "processes")),
        chart("Memory of the fleet", _sample_series(fleets, "memory_bytes", 1 / _MEBIBYTE), y="MB"),
        chart("Processor time of the fleet", _sample_series(fleets, "cpu_seconds"), y="seconds"),
        chart("Connections to the model", _sample_series(fleets, "model_connections")),
        chart("Connections to the store", _sample_series(fleets, "store_connections")),
    ]
    return parts


def _rows(fleets: Sequence[FleetResult]) -> list[tuple[str, list[str]]]:
    def row(name: str, cell: str) -> tuple[str, list[str]]:
        return name, [
            cell.format(m=each, r=each.result, d=each.result.durability) for each in fleets
        ]

    def times(name: str, key: str) -> tuple[str, list[str]]:
        found = [getattr(each.result, key) for each in fleets]
        return name, [
            " / ".join("-" if t is None else f"{t / 1e3:.2f}" for t in (p.p50, p.p95, p.p99))
            for p in found
        ]

    return [
        row("turns", "{r.turns:,}"),
        row("completed", "{r.completed:,}"),
        row("refused / failed", "{r.refused:,} / {r.failed:,}"),
        row("read back / durable", "{d.looked_up:,} / {d.found:,}"),
        times("first text, s (p50/p95/p99)", "first_text"),
        times("first text, added, s (p50/p95/p99)", "added_first_text"),
        times("whole turn, s (p50/p95/p99)", "total"),
        row("initialisations", "{m.initialisations:,}"),
        row("cold starts", "{m.cold_starts:,}"),
        row("connections opened to the model", "{m.model_opened:,}"),
        row("connections opened to the store", "{m.store_opened:,}"),
        (
            "processor time per turn, ms",
            [f"{each.cpu_seconds / max(1, each.result.turns) * 1e3:.1f}" for each in fleets],
        ),
        (
            "of balancer or local Lambda, ms per turn",
            [
                f"{each.infrastructure_cpu_seconds / max(1, each.result.turns) * 1e3:.1f}"
                for each in fleets
            ],
        ),
        *(
            [
                (
                    "of the store, ms per turn",
                    [
                        f"{each.store_cpu_seconds / max(1, each.result.turns) * 1e3:.1f}"
                        for each in fleets
                    ],
                )
            ]
            if any(each.store_cpu_seconds for each in fleets)
            else []
        ),
        (
            "memory before / peak, MB",
            [
                f"{each.memory_before / _MEBIBYTE:,.0f} / {each.memory_peak / _MEBIBYTE:,.0f}"
                for each in fleets
            ],
        ),
        ("processors used by other processes", [f"{each.other_processors:.2f}" for each in fleets]),
        (
            "processor time, calibration = 1",
            [
                "-" if each.cpu_time_ratio is None else f"{each.cpu_time_ratio:.2f}"
                for each in fleets
            ],
        ),
        ("driver, of a processor", [f"{each.result.driver.cpu_share:.0%}" for each in fleets]),
    ]


def _predicted_rows(fleets: Sequence[FleetResult]) -> list[tuple[str, list[str]]]:
    def first_text(each: FleetResult, key: str) -> str:
        if each.prediction is None:
            return "-"
        predicted = getattr(each.prediction.first_text, key)
        return _beside(predicted / 1e3, each.errors.get(f"first text {key}"), "{:.2f}")

    def cold_starts(each: FleetResult) -> str:
        if each.prediction is None:
            return "-"
        return _beside(each.prediction.cold_starts, each.errors.get("cold starts"), "{:.0f}")

    return [
        *(
            (f"predicted first text {key}, s", [first_text(each, key) for each in fleets])
            for key in ("p50", "p95", "p99")
        ),
        ("predicted cold starts", [cold_starts(each) for each in fleets]),
    ]


def _beside(value: float, error: float | None, how: str) -> str:
    return how.format(value) + ("" if error is None else f" ({error:+.0%})")


def _list(values: Sequence[float]) -> str:
    return ", ".join(f"{each:.2f}" for each in values)


def _dots(title: str, fleets: Sequence[FleetResult], name: str) -> str:
    found, axis = [], ""
    for each in fleets:
        served = [o for o in each.result.outcomes if not o.error]
        drawn = served[:: max(1, len(served) // _DOTS)]
        axis, arrived = by_arrival(drawn)
        found.append(Series(each.title, arrived, [getattr(o, name) or 0.0 for o in drawn], "dots"))
    return chart(title, found, x=axis, y="seconds")


def _shares(fleets: Sequence[FleetResult]) -> list[Series]:
    """The measured distribution of time to first text."""
    found = []
    for each in fleets:
        times = sorted(o.first_text or 0.0 for o in each.result.outcomes if not o.error)
        count = max(1, len(each.result.outcomes))
        step = max(1, len(times) // 400)
        xs = [0.0, *times[::step], *times[-1:]]
        ys = [0.0, *(100.0 * n / count for n in range(1, len(times) + 1, step))]
        ys += [100.0 * len(times) / count] * (len(xs) - len(ys))
        found.append(Series(each.title, xs, ys))
    return found


def _sample_series(fleets: Sequence[FleetResult], name: str, scale: float = 1.0) -> list[Series]:
    return [
        Series(
            each.title,
            [sample.at for sample in each.samples],
            [getattr(sample, name) * scale for sample in each.samples],
        )
        for each in fleets
    ]
