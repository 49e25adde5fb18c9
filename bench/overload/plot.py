"""The figures of run.py, on standard input, as overload.png beside this file."""

import json
import sys
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")

from matplotlib import pyplot as plt

COLOURS = {
    "seawall, slots": "#0b6e99",
    "seawall, processor": "#1a936f",
    "fastapi + openai": "#c8553d",
}


def main() -> None:
    """Six panels: goodput, latency, refusals, memory, processor, fairness."""
    figures = json.load(sys.stdin)
    rows = figures["rows"]
    board, panels = plt.subplots(2, 3, figsize=(15, 8.5), layout="constrained")
    (goodput, latency, refusal), (memory, processor, fairness) = panels
    for server in dict.fromkeys(row["server"] for row in rows):
        mine = [row for row in rows if row["server"] == server]
        levels = [row["level"] for row in mine]
        style = {"marker": "o", "color": COLOURS[server], "label": server}
        goodput.plot(levels, [row["goodput"] for row in mine], **style)
        served = [row for row in mine if row["p99_s"] is not None]
        at = [row["level"] for row in served]
        latency.plot(at, [row["p99_s"] for row in served], **style)
        latency.plot(at, [row["p50_s"] for row in served], ls=":", color=COLOURS[server])
        turned = [row for row in mine if row["refusal_p50_ms"]]
        at = [row["level"] for row in turned]
        refusal.plot(at, [row["refusal_p99_ms"] for row in turned], **style)
        refusal.plot(at, [row["refusal_p50_ms"] for row in turned], ls=":", color=COLOURS[server])
        processor.plot(levels, [row["server_cpu"] for row in mine], **style)
        processor.plot(levels, [row["driver_cpu"] for row in mine], ls=":", color=COLOURS[server])
        for row in mine:
            times, sizes = zip(*row["memory_mb"], strict=True)
            memory.plot(times, sizes, color=COLOURS[server], alpha=0.3 + 0.07 * row["level"])
    for panel, title, unit in (
        (goodput, "Goodput", "completed turns a second"),
        (latency, "Latency of completed turns: p99, p50 dotted", "seconds"),
        (refusal, "Answering a refusal: p99, p50 dotted", "milliseconds"),
        (processor, "Processors used: server, driver dotted", "processors"),
    ):
        panel.set(title=title, ylabel=unit, xlabel="offered load, times capacity", ylim=(0, None))
        panel.set_xticks(sorted({row["level"] for row in rows}))
        panel.legend(fontsize=8)
    memory.set(
        title="Server memory, a line a level (darker: more load)",
        xlabel="seconds",
        ylabel="MiB",
        ylim=(0, None),
    )
    if tenants := figures.get("fairness"):
        names = {
            "alone": "100 alone",
            "beside": f"100 beside\n{tenants['beside_big']['turns']:,}",
            "beside_big": f"the\n{tenants['beside_big']['turns']:,}",
        }
        for shift, quantile in ((-0.2, "p50_ms"), (0.2, "p99_ms")):
            fairness.bar(
                [index + shift for index in range(3)],
                [(tenants[name][quantile] or 0) / 1e3 for name in names],
                width=0.4,
                label=quantile[:3],
            )
        fairness.set_xticks(range(3), list(names.values()))
        fairness.set(title="A small tenant beside a crowd", ylabel="seconds")
        fairness.legend()
    board.savefig(Path(__file__).with_name("overload.png"), dpi=90)


main()
