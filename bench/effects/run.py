"""kill -9 before and after every write of a store and every effect of a tool: what happens twice?

    .venv/bin/python bench/effects/run.py [--quick] [--store sqlite|dynamodb|both] [--broken NAME]

Prints what it does, a table by kill point, and the figures as one JSON line at the end. See
README.md.
"""

import argparse
import asyncio
import json
import os
import random
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import msgspec
from bench.effects.broken import BROKEN, VARIANTS
from bench.effects.check import KINDS, Evidence, Row, Turn, Violation, check, tabulate
from bench.effects.ledger import read_log
from bench.effects.server import METHODS
from bench.effects.servers import Planner, Server, kill_points, read_kills, service
from bench.effects.traffic import Clients, read_back
from tests.dynamodb_local import ENVIRONMENT, running_dynamodb
from tests.storage.stores import new_location

SERVERS = 2
CLIENTS = 8
STOPS = 0.12
MODES = {"keyed": 0.45, "background": 0.2, "unkeyed": 0.15, "fails": 0.1, "leaves": 0.1}


def report(line: str) -> None:
    """Print what happens."""
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} {line}\n")


def run_one(store: str, arguments: argparse.Namespace) -> dict[str, object]:
    """Run the harness on one store."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="seawall-bench-")))
        environment = {"PYTHONPATH": f"{ROOT}:{ROOT / 'src'}", BROKEN: arguments.broken or ""}
        environment |= _store_environment(store, folder, stack)
        ledger = stack.enter_context(service("bench.effects.ledger", str(folder / "ledger.db")))
        model = stack.enter_context(service("bench.effects.model", str(arguments.seed)))
        environment |= {
            "SEAWALL_TOOLS__REFUNDS__LEDGER": ledger,
            "SEAWALL_MODELS__DEFAULT__BASE_URL": model,
            METHODS: str(folder / "methods.json"),
        }
        points = [each for each in kill_points() if _is_wanted(each, arguments.only)]
        report(f"{store}: kill points {', '.join(points)}")
        evidence, starts = asyncio.run(
            _drive(environment, folder, points=points, arguments=arguments)
        )
        if arguments.keep:
            kept = Path(arguments.keep)
            kept.mkdir(parents=True, exist_ok=True)
            (kept / f"{store}.json").write_bytes(msgspec.json.encode(evidence))
            (kept / f"{store}.log").write_bytes((folder / "server.log").read_bytes())
    violations = check(evidence)
    rows = tabulate(evidence, violations)
    print_table(store, rows)
    for each in violations[: arguments.show]:
        report(f"{each.kind} at {each.point}: {each.op} {each.tool} {each.way} {each.detail}")
    return {"starts": starts, **summary(evidence, violations, rows)}


def _is_wanted(point: str, only: str | None) -> bool:
    return only is None or any(point.startswith(each) for each in only.split(","))


def _store_environment(store: str, folder: Path, stack: ExitStack) -> dict[str, str]:
    if store == "sqlite":
        return {"SEAWALL_SESSIONS__PATH": str(folder / "sessions.db")}
    return ENVIRONMENT | {
        "SEAWALL_SESSIONS__STORE": "dynamodb",
        "SEAWALL_SESSIONS__TABLE": new_location("dynamodb"),
        "SEAWALL_SESSIONS__ENDPOINT": stack.enter_context(running_dynamodb()),
        "SEAWALL_SESSIONS__CREATE_TABLE": "true",
    }


async def _drive(
    environment: dict[str, str], folder: Path, *, points: list[str], arguments: argparse.Namespace
) -> tuple[Evidence, int]:
    """Clients against servers that are killed; then read what is left with servers that are not."""
    kills = folder / "kills"
    chance = random.Random(arguments.seed)
    planner = Planner(points, chance, kills=kills, stops=arguments.stops)
    servers = [
        Server(number, environment, kills=kills, log=folder / "server.log", planner=planner)
        for number in range(SERVERS)
    ]
    done = 0

    def on_turn(_: Turn) -> None:
        nonlocal done
        done += 1
        if done % max(1, arguments.turns // 10) == 0:
            killed = len(read_kills(kills))
            report(f"{done} of {arguments.turns} turns, {killed} kills")

    clients = Clients(
        [each.url for each in servers],
        turns=arguments.turns,
        chance=random.Random(arguments.seed + 1),
        modes=MODES,
        on_turn=on_turn,
    )
    over = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        for each in servers:
            group.create_task(each.keep_up(random.Random(f"{arguments.seed} {each.url[-1]}"), over))
        await clients.run(arguments.clients)
        over.set()
    await clients.close()
    report("over; reading sessions")
    with servers[0].calm():
        await asyncio.sleep(3.0)
        sessions, effects = await read_back(servers[0].url, clients.turns)
    evidence = Evidence(
        turns=clients.turns,
        refunds=read_log(folder / "ledger.db"),
        sessions=sessions,
        effects=effects,
        kills=read_kills(kills),
    )
    return evidence, sum(each.starts for each in servers)


def print_table(store: str, rows: list[Row]) -> None:
    """Print the table by kill point."""
    head = ["kill point", "kills", "turns", "doubled keyed", "unkeyed", "checked", "by next turn"]
    head += ["unknown", "lost", "forgotten", "other"]
    lines = [[*_cells(each)] for each in rows]
    total = [sum(int(line[at]) for line in lines) for at in range(1, len(head))]
    lines.append(["all", *map(str, total)])
    widths = [max(len(line[at]) for line in [head, *lines]) for at in range(len(head))]
    sys.stderr.write(f"\n{store}\n")
    for line in [head, *lines]:
        cells = [
            each.rjust(width) if at else each.ljust(width)
            for at, (each, width) in enumerate(zip(line, widths, strict=True))
        ]
        sys.stderr.write("  ".join(cells) + "\n")
    sys.stderr.write("\n")


def _cells(row: Row) -> list[str]:
    other = sum(each for kind, each in row.others.items() if kind not in ("lost", "forgotten"))
    numbers = (
        row.kills,
        row.turns,
        row.doubled["refund_keyed"],
        row.doubled["refund_unkeyed"],
        row.doubled["refund_checked"],
        row.by_next_turn,
        row.unknown,
        row.others["lost"],
        row.others["forgotten"],
        other,
    )
    return [row.point, *map(str, numbers)]


def summary(evidence: Evidence, violations: list[Violation], rows: list[Row]) -> dict[str, object]:
    """The figures of a run."""
    wishes = [each for each in evidence.turns if each.wish is not None]
    operations = {
        each.op: each.tool for turn in wishes if turn.wish for each in turn.wish.operations
    }
    doubled = [each for each in violations if each.kind == "doubled"]
    return {
        "turns": sum(not each.follow_up for each in wishes),
        "follow_ups": sum(each.follow_up for each in wishes),
        "acknowledged": sum(bool(each.turn) for each in wishes if not each.follow_up),
        "attempts": sum(len(each.attempts) for each in wishes),
        "outcomes": dict(Counter(one.outcome for each in wishes for one in each.attempts)),
        "kills": len(evidence.kills),
        "operations": dict(Counter(operations.values())),
        "refunds": sum(each.applied for each in evidence.refunds),
        "doubled": dict(Counter(each.tool for each in doubled)),
        "operations_doubled": dict(Counter(operations[op] for op in {each.op for each in doubled})),
        "doubled_by": dict(Counter(each.way for each in doubled)),
        "violations": {
            kind: count
            for kind in KINDS
            if (count := sum(each.kind == kind for each in violations))
        },
        "unknown": sum(each.problem == "effect-unknown" for each in wishes),
        "listed": None if evidence.effects is None else len(evidence.effects),
        "problems": dict(Counter(each.problem for each in wishes if each.problem)),
        "by_point": {
            each.point: {
                "kills": each.kills,
                "turns": each.turns,
                "doubled": each.doubled.total(),
                "unknown": each.unknown,
                "others": dict(each.others),
            }
            for each in rows
        },
    }


def main(arguments: argparse.Namespace) -> dict[str, object]:
    """Run on each store."""
    os.chdir(ROOT)
    stores = ["sqlite", "dynamodb"] if arguments.store == "both" else [arguments.store]
    figures: dict[str, object] = {"seed": arguments.seed, "broken": arguments.broken}
    for store in stores:
        began = time.monotonic()
        figures[store] = run_one(store, arguments) | {"seconds": round(time.monotonic() - began, 1)}
    return figures


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="200 turns instead of 2,000")
    parser.add_argument("--turns", type=int, help="turns with refunds, on each store")
    parser.add_argument("--store", choices=["sqlite", "dynamodb", "both"], default="both")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--clients", type=int, default=CLIENTS)
    parser.add_argument("--only", help="only kill points that begin so; several with commas")
    parser.add_argument(
        "--stops", type=float, default=STOPS, help="share of plans that stop a process for a while"
    )
    parser.add_argument("--broken", choices=sorted(VARIANTS), help="break the product on purpose")
    parser.add_argument("--show", type=int, default=20, help="violations to print")
    parser.add_argument("--keep", help="folder for the evidence and the servers' log")
    parsed = parser.parse_args()
    parsed.turns = parsed.turns or (200 if parsed.quick else 2_000)
    sys.stdout.write(json.dumps(main(parsed)) + "\n")
