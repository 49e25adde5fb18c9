"""Refunds that a service makes when the turn that asks for one is interrupted and tried again.

    .venv/bin/python bench/effects_peers/run.py [--quick]

Prints a table, and the figures as one JSON line at the end. See README.md.
"""

import argparse
import json
import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "peers"))

from install import install, installed, python_of

POINTS = ("before", "made", "recorded", "answered", "model_dies")
CASES = (("seawall", "again"), ("langgraph", "resume"), ("langgraph", "again"), ("dbos", "again"))
UNKNOWN = 5  # the status of an attempt that reports an unknown outcome, to be reconciled
SECONDS = 60  # of an attempt, at most
LEASE_SECONDS = 2.5  # a killed owner's lease has ended after it


def attempt(name: str, number: int, environment: dict[str, str]) -> int:
    """Run one attempt in a process of its own; its status."""
    python = sys.executable if name == "seawall" else str(python_of(name, HERE))
    try:
        return subprocess.run(
            [python, HERE / f"drive_{name}.py"],
            env=os.environ | environment | {"ATTEMPT": str(number)},
            stderr=subprocess.PIPE,
            timeout=SECONDS,
            check=False,
        ).returncode
    except subprocess.TimeoutExpired:  # it is killed, and counts as failed
        return 124


def main(repetitions: int) -> list[dict[str, object]]:
    """The refunds made and statuses of both attempts, by framework, variant and point."""
    found = []
    with tempfile.TemporaryDirectory(prefix="seawall-bench-") as folder:
        ledger = Path(folder) / "ledger.db"
        service = subprocess.Popen(
            [sys.executable, HERE / "service.py", ledger], stdout=subprocess.PIPE, text=True
        )
        try:
            url = f"http://127.0.0.1:{service.stdout.readline().strip()}/"
            for name, retry in CASES:
                for keyed in (False, True):
                    for point in POINTS:
                        made, statuses = [], []
                        for each in range(repetitions):
                            run = f"{name}-{retry}-{keyed}-{point}-{each}"
                            environment = {
                                "POINT": point,
                                "KEYED": str(int(keyed)),
                                "RUN": run,
                                "SERVICE": url,
                                "STORE": f"{folder}/{run}.db",
                                "RETRY": retry,
                            }
                            first = attempt(name, 1, environment)
                            if name == "seawall":
                                time.sleep(LEASE_SECONDS)
                            statuses.append((first, attempt(name, 2, environment)))
                            with sqlite3.connect(ledger) as reading:
                                count = "SELECT count(*) FROM refunds WHERE run = ?"
                                made.append(reading.execute(count, (run,)).fetchone()[0])
                        row = {"framework": name, "retry": retry, "key": keyed, "point": point}
                        found.append(row | {"refunds": made, "statuses": sorted(set(statuses))})
                        sys.stderr.write(f"{found[-1]}\n")
        finally:
            service.kill()
            service.wait()
    return found


def table(found: list[dict[str, object]]) -> str:
    """Refunds made, least to most of the repetitions, one line per framework and variant."""
    lines = [f"| framework, retry, key | {' | '.join(POINTS)} |", "| --- " * 6 + "|"]
    for at in range(0, len(found), len(POINTS)):
        group = found[at : at + len(POINTS)]
        first = group[0]
        cells = []
        for each in group:
            least, most = min(each["refunds"]), max(each["refunds"])
            seconds = {second for _, second in each["statuses"]}
            made = str(most) if least == most else f"{least} to {most}"
            listed = " (unknown, listed)" if UNKNOWN in seconds else ""
            cells.append(made + listed + (" (retry fails)" if seconds - {0, UNKNOWN} else ""))
        key = "key" if first["key"] else "no key"
        lines.append(f"| {first['framework']}, {first['retry']}, {key} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="one repetition instead of 20")
    for each in ("langgraph", "dbos"):
        if not installed(each, HERE):
            install(each, HERE)
    figures = main(1 if parser.parse_args().quick else 20)
    sys.stdout.write(table(figures) + "\n")
    sys.stdout.write(json.dumps({"figures": figures}) + "\n")
