"""Pods and Lambda under the same load, measured and as predicted by the planner.

    .venv/bin/python bench/compare/run.py [--quick] [--store dynamodb] [--folder FOLDER]

Prints tables, writes compare.html and calibration.json, and ends with one JSON line of figures. See
README.md.
"""

import argparse
import json
import os
import sys
import tempfile
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path

from seawall.cli.terminal import show_progress
from seawall.lab.calibrate import calibrate
from seawall.lab.calibration import save_calibration
from seawall.lab.compare import Comparison, compare, largest_crowd
from seawall.lab.compare_report import compare_html, compare_table
from seawall.lab.fleet.spec import FleetSpec
from seawall.lab.machine import this_machine
from seawall.lab.processes import raise_file_limit, run
from seawall.lab.sim_model.reply import SimTimes
from seawall.lab.surge.scenario import Crowd, Instant, Open, Poisson, Shape

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.dynamodb_local import running_dynamodb  # noqa: E402

SOURCE = Path("examples/store/seawall.toml")
# None of them is used by the calibration.
QUICK: list[Shape] = [Instant(8), Poisson(1.0, 20.0)]
FULL: list[Shape] = [Instant(8), Instant(30), Instant(100), Poisson(1.0, 60.0), Poisson(2.0, 60.0)]
GOAL = 0.15


def report(line: str) -> None:
    """Print progress to standard error."""
    sys.stderr.write(line + "\n")


async def main(*, quick: bool, store: str, most: int) -> Comparison:
    """Calibrate, then run every crowd on both; unless quick, also the largest that fits."""
    times = SimTimes()
    calibration = await calibrate(
        SOURCE, pods=2, store=store, times=times, report=report, quick=quick
    )
    bound = largest_crowd(calibration, this_machine(), files=raise_file_limit(), most=most)
    report(f"the largest crowd: {bound.why}")
    shapes = QUICK if quick else [*FULL, Instant(bound.turns)]
    specs = [
        FleetSpec(kind="pods", pods=2, store=store, times=times),
        FleetSpec(kind="lambda", store=store, times=times),
    ]
    runs = await compare(
        calibration,
        specs,
        [Open([Crowd(shapes=[shape])]) for shape in shapes],
        SOURCE,
        report=report,
        progress=show_progress(),
    )
    return Comparison(
        machine=this_machine().name,
        date=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        store=store,
        calibration=calibration,
        runs=runs,
        bound=bound,
    )


def figures(found: Comparison) -> dict[str, object]:
    """The error of each prediction, and how many are within the goal."""
    rows = [
        {
            "crowd": each.title,
            "fleet": fleet.title,
            "completed": fleet.result.completed,
            "turns": fleet.result.turns,
            "initialisations": fleet.initialisations,
            "model_opened": fleet.model_opened,
            "store_opened": fleet.store_opened,
            "other_processors": fleet.other_processors,
            "cpu_time_ratio": fleet.cpu_time_ratio,
            "errors": fleet.errors,
        }
        for each in found.runs
        for fleet in each.fleets
    ]
    errors = [
        abs(error)
        for each in found.runs
        for fleet in each.fleets
        for error in fleet.errors.values()
    ]
    within = sum(error <= GOAL for error in errors)
    return {
        "machine": found.machine,
        "date": found.date,
        "calibrated_while_others_used": found.calibration.lab.others,
        "predictions": len(errors),
        "within_15_percent": within,
        "runs": rows,
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="two small crowds")
    parser.add_argument("--store", default="sqlite", help="dynamodb: DynamoDB Local; or a URL")
    parser.add_argument("--most", type=int, default=1_000, help="turns at once (default: 1000)")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    arguments = parser.parse_args()
    folder = arguments.folder.resolve()
    os.chdir(ROOT)
    raise_file_limit()
    local = running_dynamodb() if arguments.store == "dynamodb" else nullcontext(arguments.store)
    with local as store:
        comparison = run(main(quick=arguments.quick, store=store, most=arguments.most))
    save_calibration(comparison.calibration, folder / "calibration.json")
    (folder / "compare.html").write_text(compare_html(comparison), encoding="utf-8")
    report(f"{folder}/calibration.json, {folder}/compare.html")
    sys.stdout.write(compare_table(comparison))
    sys.stdout.write(json.dumps(figures(comparison)) + "\n")
