"""How long `seawall plan` takes, cold: process start to output, and its memory at any traffic.

    .venv/bin/python bench/plan/answer.py [--quick]

Each figure is the median, and the least, of processes of their own; the loops are compiled already,
and so is the source, as after any first run.
"""

import argparse
import json
import os
import statistics
import sys
import time

# Requests a day, and the size of the spike.
TRAFFIC = {"12k": 5_000, "120k": 5_000, "1.2M": 5_000, "12M": 5_000, "100M": 200_000}


def once(daily: str, spike: int) -> tuple[float, float, float]:
    """Wall and processor seconds, and the greatest memory in MB, of one process."""
    command = [sys.executable, "-m", "seawall", "plan", "--daily", daily, "--json"]
    command += ["--spike", f"{spike}@20s", "--duration", "4s..7s", "--init", "1s"]
    keeps = {name: text for name, text in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    quiet = os.open(os.devnull, os.O_WRONLY)
    began = time.perf_counter()
    process = os.posix_spawn(
        sys.executable, command, keeps, file_actions=[(os.POSIX_SPAWN_DUP2, quiet, 1)]
    )
    _, status, usage = os.wait4(process, 0)
    took = time.perf_counter() - began
    os.close(quiet)
    if status:
        raise SystemExit(f"seawall plan --daily {daily} failed")
    return took, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1_024.0


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="three processes each, not eleven")
    repeats = 3 if parser.parse_args().quick else 11
    print(f"seawall plan, {repeats} processes each; load {os.getloadavg()[0]:.1f}")
    once("1.2M", 5_000)
    figures = {}
    for daily, spike in TRAFFIC.items():
        taken = [once(daily, spike) for _ in range(repeats)]
        wall, cpu, memory = (
            [round(statistics.median(column), 2), round(min(column), 2)]
            for column in zip(*taken, strict=True)
        )
        figures[daily] = {"wall_s": wall, "cpu_s": cpu, "memory_mb": memory}
        print(
            f"{daily:>5} a day, {spike:,} at once: {wall[0]:.2f} s ({wall[1]:.2f}), "
            f"processor {cpu[0]:.2f} s ({cpu[1]:.2f}), {memory[0]:.0f} MB"
        )
    print(json.dumps({"bench": "plan-answer", "repeats": repeats, "figures": figures}))


if __name__ == "__main__":
    main()
