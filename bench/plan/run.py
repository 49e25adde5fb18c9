"""Requests a second beside simpy, ciw and simfaas, and cost against the length of a trace.

    .venv/bin/python bench/plan/run.py [--quick]

The others run in an environment of their own, made once beside this file. Prints tables, and the
figures as one JSON line at the end. See README.md.
"""

import argparse
import json
import math
import os
import resource
import subprocess
import sys
import time
import venv
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
PEERS = ("simpy", "simfaas", "ciw")
PACKAGES = ("simpy==4.1.2", "simfaas==0.2.2", "ciw==3.2.7", "matplotlib")
MODELS = {"simpy": "M/M/10", "ciw": "M/M/10", "simfaas": "scale per request"}


def environment() -> Path:
    """The interpreter of the peers' environment, which is created at first."""
    folder = HERE / ".venv"
    python = folder / "bin" / "python"
    if not python.exists():
        print("installing simpy, simfaas, ciw, matplotlib ...", flush=True)
        venv.create(folder, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "-q", *PACKAGES], check=True)
    return python


def ours(model: str, requests: int) -> dict[str, Any]:
    """One model in this process, compiled before the clock starts."""
    from seawall.plan import (  # noqa: PLC0415 - only the processes that measure it
        Arrivals,
        Clients,
        Eks,
        HpaSettings,
        Lambda,
        Platform,
        Servers,
        Service,
        Stage,
        Workload,
        exponential,
        simulate,
    )

    alone = Clients(retries=0, patience=math.inf)
    services = {
        "M/M/10": Service(stages=(Stage("work", exponential(1.0)),)),
        "scale per request": Service(
            stages=(Stage("work", exponential(1.991)),), cold_request=exponential(2.244)
        ),
    }
    rates = {"M/M/10": 8.0, "scale per request": 0.9}
    free = Lambda(
        account_limit=10_000, start_rate=math.inf, start_burst=math.inf,
        invocations_per_concurrency=math.inf, idle_seconds=600.0, lifetime=math.inf,
        reuse="newest",
    )  # fmt: skip
    platforms: dict[str, Platform] = {
        "M/M/10": Servers(slots=10),
        "scale per request": free,
        "lambda, article": Lambda(account_limit=10_000),
        "eks, article": Eks(pods=10),
        "eks with autoscaler, article": Eks(pods=10, scaler=HpaSettings()),
    }

    def workload(count: int) -> Workload:
        rate = rates.get(model, 100.0)
        arrivals = Arrivals(horizon=count / rate, rate=rate)
        return Workload(arrivals=arrivals, service=services.get(model, Service()), clients=alone)

    platform = platforms[model]
    simulate(workload(1_000), platform)
    began, wall = time.process_time(), time.perf_counter()
    result = simulate(workload(requests), platform)
    seconds, wall = time.process_time() - began, time.perf_counter() - wall
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024.0
    found = result.wait.mean if model == "M/M/10" else result.cold_share
    return {
        "requests": result.requests, "seconds": seconds, "wall": wall, "found": found,
        "megabytes": memory,
    }  # fmt: skip


def in_a_process(*command: str) -> dict[str, Any]:
    """The JSON line that a program prints."""
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def our_process(model: str, requests: int) -> dict[str, Any]:
    """`ours` in a process of its own."""
    return in_a_process(sys.executable, __file__, "--one", model, str(requests))


def beside(python: Path, size: int, repeats: int) -> dict[str, Any]:
    """Ours and theirs in turn; the median rates, and the ratio."""
    figures: dict[str, Any] = {}
    for peer in PEERS:
        model = MODELS[peer]
        theirs, mine = [], []
        for _ in range(repeats):
            theirs.append(in_a_process(str(python), str(HERE / "peers.py"), peer, str(size)))
            mine.append(our_process(model, 10_000_000))
        rates = [sorted(run["requests"] / run["seconds"] for run in runs)[len(runs) // 2]
                 for runs in (theirs, mine)]  # fmt: skip
        found = (theirs[0]["found"], mine[0]["found"])
        figures[peer] = {
            "theirs_per_second": rates[0], "ours_per_second": rates[1],
            "ratio": rates[1] / rates[0], "found": found,
        }  # fmt: skip
        print(
            f"{model:18} {peer:8} {rates[0] / 1e3:8.0f} k/s   ours {rates[1] / 1e6:6.2f} M/s"
            f"   x {rates[1] / rates[0]:5.0f}   found {found[0]:.5f} and {found[1]:.5f}",
            flush=True,
        )
    return figures


def lengths(most: int) -> dict[str, Any]:
    """Time and memory of runs from ten thousand to `most` requests."""
    sizes = [10**power for power in range(4, round(math.log10(most)) + 1)]
    figures: dict[str, Any] = {"sizes": sizes}
    for model in ("scale per request", "lambda, article", "eks, article"):
        runs = [our_process(model, size) for size in sizes]
        figures[model] = {key: [run[key] for run in runs] for key in ("seconds", "megabytes")}
        for size, run in zip(sizes, runs, strict=True):
            print(
                f"{model:18} {size:>11,} requests {run['seconds']:8.2f} s"
                f" {run['requests'] / run['seconds'] / 1e6:6.2f} M/s {run['megabytes']:5.0f} MB",
                flush=True,
            )
    return figures


def cold_answer() -> float:
    """Wall seconds of a process that imports, simulates the article's day on five platforms."""
    program = (
        "from seawall.plan import Eks, Lambda, Managed, from_flags, simulate\n"
        "w = from_flags(daily='1200000', spikes=['5000@20s'], duration='4s..7s', start='1s')\n"
        "for p in (Lambda(account_limit=10_000), Lambda(account_limit=10_000, snapstart=True),\n"
        "          Lambda(account_limit=10_000, provisioned=100), Managed(), Eks(pods=20)):\n"
        "    simulate(w, p)\n"
    )
    taken = []
    for _ in range(4):
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", program], check=True)
        taken.append(time.perf_counter() - began)
    return min(taken[1:])


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    if arguments.one:
        print(json.dumps(ours(arguments.one[0], int(arguments.one[1]))))
        return
    quick = arguments.quick
    python = environment()
    figures: dict[str, Any] = {"peers": beside(python, 200_000, 1 if quick else 3)}
    models = ("lambda, article", "eks, article", "eks with autoscaler, article")
    figures["models"] = {}
    for model in models:
        run = our_process(model, 2_000_000)
        figures["models"][model] = run["requests"] / run["seconds"]
        print(f"{model:30} {run['requests'] / run['seconds'] / 1e6:6.2f} M/s", flush=True)
    figures["lengths"] = lengths(10_000_000 if quick else 100_000_000)
    figures["cold_answer_seconds"] = cold_answer()
    print(
        f"five platforms, a day of 1,205,000, cold process: {figures['cold_answer_seconds']:.2f} s"
    )
    found = figures["lengths"]
    names = [name for name in found if name != "sizes"]
    drawn = [
        str(HERE / "lengths.svg"), found["sizes"],
        {name: found[name]["seconds"] for name in names},
        {name: found[name]["megabytes"] for name in names},
    ]  # fmt: skip
    subprocess.run([python, HERE / "peers.py", "plot", json.dumps(drawn)], check=True)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
