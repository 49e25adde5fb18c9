"""Refunds that a service makes when the turn that asks for one is interrupted and tried again.

    .venv/bin/python bench/effects_peers/run.py [--quick]

Also the processor time of a turn that is not interrupted. Prints tables, and the figures as one
JSON line at the end. See README.md.
"""

import argparse
import json
import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from queue import Empty, SimpleQueue
from statistics import median

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "peers"), str(HERE.parents[1])]

from install import install, installed, python_of
from tests.dynamodb_local import ENVIRONMENT, running_dynamodb

POINTS = ("before", "made", "recorded", "answered", "model_dies")
CASES = (
    ("seawall", "sqlite", "again"),
    ("seawall", "dynamodb", "again"),
    ("langgraph", "sqlite", "resume"),
    ("langgraph", "dynamodb", "resume"),
    ("langgraph", "sqlite", "again"),
    ("dbos", "sqlite", "again"),
    ("aws_durable", "runner", "at-least-once"),
    ("aws_durable", "runner", "at-most-once"),
)
COSTS = (*CASES[:4], *CASES[5:7])
# Turns in flight while their cost is measured; DynamoDB Local is slow.
AT_ONCE = {"sqlite": 50, "dynamodb": 10, "runner": 50}
# What each driver imports; its own modules read the environment of the attempt.
MODULES = {
    "seawall": ["seawall.orchestrator", "seawall.composition", "seawall.storage.dynamodb.store"],
    "langgraph": [
        "langchain.agents",
        "langgraph.checkpoint.sqlite.aio",
        "langgraph_checkpoint_aws",
    ],
    "dbos": ["dbos", "pydantic_ai.durable_exec.dbos", "pydantic_ai.models.function"],
    "aws_durable": [
        "aws_durable_execution_sdk_python",
        "aws_durable_execution_sdk_python_testing.runner",
        "aws_durable_execution_sdk_python_testing.web.server",
    ],
}
WORKERS = 2  # of each framework
REPORTED = {
    5: "unknown, listed",  # an effect of unknown outcome waits to be reconciled
    6: "fails as interrupted",
}
LEASE_SECONDS = 2.5  # a killed owner's lease has ended after it


def python(name: str) -> str:
    """The interpreter of a framework."""
    return sys.executable if name == "seawall" else str(python_of(name, HERE))


class Attempts:
    """Runs attempts of one framework, one at a time; see attempts.py."""

    def __init__(self, name: str, common: dict[str, str]) -> None:
        self.name = name
        self._process = subprocess.Popen(
            [python(name), HERE / "attempts.py", HERE / f"drive_{name}.py", *MODULES[name]],
            env=os.environ | common | {"PYTHONPATH": str(HERE)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def run(self, number: int, environment: dict[str, str]) -> int:
        """Run one attempt; its status."""
        self._process.stdin.write(json.dumps(environment | {"ATTEMPT": str(number)}) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()


Cell = tuple[str, str, str, bool, str, int]


def run_cell(attempts: Attempts, cell: Cell, folder: str) -> tuple[str, int]:
    """Run a turn, interrupted and tried again: its name and the last status."""
    name, state, retry, keyed, point, repetition = cell
    run = f"{name}-{state}-{retry}-{keyed}-{point}-{repetition}"
    environment = {
        "POINT": point,
        "KEYED": str(int(keyed)),
        "RUN": run,
        "STORE": f"{folder}/{run}.db",
        "STATE": state,
        "RETRY": retry,
    }
    status = attempts.run(1, environment)
    if name == "aws_durable":  # its service tries again by itself
        return run, status
    if name == "seawall":
        time.sleep(LEASE_SECONDS)
    return run, attempts.run(2, environment)


def interrupted(repetitions: int, common: dict[str, str], folder: str) -> dict[Cell, list[object]]:
    """The name of the run and the last status, by cell."""
    found: dict[Cell, list[object]] = {}

    def work(name: str, cells: "SimpleQueue[Cell]") -> None:
        attempts = Attempts(name, common)
        try:
            while True:
                cell = cells.get_nowait()
                found[cell] = list(run_cell(attempts, cell, folder))
                sys.stderr.write(f"{cell} {found[cell][1]}\n")
        except Empty:
            return
        finally:
            attempts.close()

    with ThreadPoolExecutor(WORKERS * len(MODULES)) as pool:
        ends = []
        for name in MODULES:
            cells: SimpleQueue[Cell] = SimpleQueue()
            for repetition in range(repetitions):
                for case in (each for each in CASES if each[0] == name):
                    for keyed in (False, True):
                        for point in POINTS:
                            cells.put((*case, keyed, point, repetition))
            ends += [pool.submit(work, name, cells) for _ in range(WORKERS)]
        for end in ends:
            end.result()
    return found


def costs(rounds: int, turns: int, common: dict[str, str], folder: str) -> dict[str, list[float]]:
    """Milliseconds of processor time of a turn, by framework and state; alternately."""
    found: dict[str, list[float]] = {}
    for number in range(rounds):
        for name, state, retry in COSTS:
            run = f"{name}-{state}-cost-{number}"
            cell = {"POINT": "cost", "KEYED": "1", "RUN": run, "STATE": state, "RETRY": retry}
            cell |= {"STORE": f"{folder}/{run}.db", "ATTEMPT": "1", "TURNS": str(turns)}
            cell["AT_ONCE"] = str(AT_ONCE[state])
            done = subprocess.run(
                [python(name), HERE / f"drive_{name}.py"],
                env=os.environ | common | cell,
                stdout=subprocess.PIPE,
                check=True,
            )
            found.setdefault(f"{name}, {state}", []).append(round(float(done.stdout), 2))
            sys.stderr.write(f"{name}, {state}: {found[f'{name}, {state}'][-1]} ms\n")
    return found


@contextmanager
def services(folder: str) -> Iterator[dict[str, str]]:
    """The refund service and DynamoDB Local, as environment variables."""
    with running_dynamodb() as dynamodb:
        service = subprocess.Popen(
            [sys.executable, HERE / "service.py", f"{folder}/ledger.db"],
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            common = {"SERVICE": f"http://127.0.0.1:{service.stdout.readline().strip()}/"}
            common |= ENVIRONMENT | {"DYNAMODB": dynamodb, "AWS_DEFAULT_REGION": "eu-west-1"}
            make = [python("langgraph"), HERE / "langgraph_table.py"]
            subprocess.run(make, env=os.environ | common, check=True)
            yield common
        finally:
            service.kill()
            service.wait()


def table(found: dict[Cell, list[object]], ledger: str) -> tuple[str, dict[str, list[int]]]:
    """Refunds made, least to most of the repetitions, a line per case; the same as data."""
    lines = [f"| framework, state, retry, key | {' | '.join(POINTS)} |", "| --- " * 6 + "|"]
    figures: dict[str, list[int]] = {}
    with sqlite3.connect(ledger) as reading:
        made = dict(reading.execute("SELECT run, count(*) FROM refunds GROUP BY run"))
    for name, state, retry in CASES:
        for keyed in (False, True):
            title = f"{name}, {state}, {retry}, {'key' if keyed else 'no key'}"
            cells = []
            for point in POINTS:
                group = [
                    found[each] for each in found if each[:5] == (name, state, retry, keyed, point)
                ]
                refunds = figures[f"{title}, {point}"] = [made.get(run, 0) for run, _ in group]
                least, most = min(refunds), max(refunds)
                ends = {REPORTED.get(status, "retry fails") for _, status in group if status}
                counted = str(most) if least == most else f"{least} to {most}"
                cells.append(counted + "".join(f" ({end})" for end in sorted(ends)))
            lines.append(f"| {title} | {' | '.join(cells)} |")
    return "\n".join(lines), figures


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="one repetition, one round")
    parser.add_argument("--repetitions", type=int, default=20)
    quick = parser.parse_args().quick
    repetitions = 1 if quick else parser.parse_args().repetitions
    for each in ("langgraph", "dbos", "aws_durable"):
        if not installed(each, HERE):
            install(each, HERE)
    with (
        tempfile.TemporaryDirectory(prefix="seawall-bench-") as folder,
        services(folder) as common,
    ):
        cost = costs(1 if quick else 3, 100, common, folder)
        print("| | CPU a turn, ms | lowest | highest |\n| --- | --- | --- | --- |")
        for name, values in cost.items():
            print(f"| {name} | {median(values)} | {min(values)} | {max(values)} |", flush=True)
        found = interrupted(repetitions, common, folder)
        lines, figures = table(found, f"{folder}/ledger.db")
    print(f"\n{lines}")
    print(json.dumps({"cost_ms": cost, "refunds": figures}))


if __name__ == "__main__":
    main()
