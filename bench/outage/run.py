"""A provider with an outage of 30 seconds: its fallback, and the recovery afterwards.

    .venv/bin/python bench/outage/run.py [--quick] [--kind hang|error|refuse]

Prints a line a second, and the figures as one JSON line at the end. See README.md.
"""

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
import urllib.request
from contextlib import AsyncExitStack
from pathlib import Path
from statistics import median

import msgspec
from msgspec import Struct

from seawall.lab.demo import DemoIssuer, server_environment
from seawall.lab.processes import Service, raise_file_limit, run, run_service
from seawall.lab.sim_model.reply import SimTimes
from seawall.lab.surge.driver import drive
from seawall.lab.surge.outcome import Outcome
from seawall.lab.surge.scenario import Closed, Scenario, Simulated

ROOT = Path(__file__).resolve().parents[2]
TIMES = SimTimes(first_token=(0.1, 0.3), duration=(0.8, 1.6), chunks=20)
FIRST_TOKEN_SECONDS = 2.0
WINDOW_SECONDS = 5.0
KINDS: dict[str, dict[str, object]] = {
    "hang": {"kind": "hang", "at": "before-head"},
    "error": {"kind": "error", "status": 503},
    "refuse": {"kind": "refuse"},
}


class Second(Struct):
    """One second: turns that ended in it, and calls that the two models got in it."""

    completed: int = 0
    failed: int = 0
    slowest_first_text: float = 0.0
    primary: int = 0
    spare: int = 0


def environment_of(folder: Path, primary: Service, spare: Service) -> dict[str, str]:
    """The server's settings."""
    settings = {
        "TURN__TURN": 20.0,
        "MODELS__DEFAULT__FALLBACKS": '["spare"]',
        "MODELS__DEFAULT__RESILIENCE__FIRST_TOKEN_SECONDS": FIRST_TOKEN_SECONDS,
        "MODELS__DEFAULT__RESILIENCE__WINDOW_SECONDS": WINDOW_SECONDS,
        "MODELS__SPARE__BASE_URL": spare.url,
        "MODELS__SPARE__MODEL": "spare",
    }
    own = {f"SEAWALL_{name}": str(value) for name, value in settings.items()}
    return server_environment(folder, primary) | own


def calls(model: Service) -> int:
    """Requests that a model has received."""
    url = model.url.removesuffix("/v1") + "/sim/stats"
    with urllib.request.urlopen(url, timeout=5) as answer:
        return int(json.loads(answer.read())["requests"])


def begin_outage(model: Service, rule: dict[str, object], seconds: float) -> None:
    """Start the outage."""
    script = msgspec.json.encode({"rules": [rule | {"from": 0.0, "until": seconds}]})
    url = model.url.removesuffix("/v1") + "/sim/faults"
    urllib.request.urlopen(urllib.request.Request(url, data=script), timeout=5)


async def main(*, quick: bool, kind: str) -> dict[str, object]:
    """Measure before, during and after the outage."""
    os.chdir(ROOT)
    calm, out = (5, 8) if quick else (15, 30)
    users = 40 if quick else 150
    first, whole = (f"{low:g}..{high:g}" for low, high in (TIMES.first_token, TIMES.duration))
    arguments = ("sim-model", "--port", "0", "--first-token", first, "--duration", whole)
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="seawall-bench-")))
        issuer = DemoIssuer(folder / "jwks.json")
        chunks = ("--chunks", str(TIMES.chunks))
        primary = await stack.enter_async_context(run_service(*arguments, *chunks))
        spare = await stack.enter_async_context(run_service(*arguments, *chunks))
        server = await stack.enter_async_context(
            run_service(
                *("serve", "examples/store/seawall.toml", "--port", "0", "--json"),
                environment=environment_of(folder, primary, spare),
            )
        )
        seconds = [Second()]

        def on_outcome(outcome: Outcome) -> None:
            now = seconds[-1]
            if outcome.error:
                now.failed += 1
                sys.stderr.write(outcome.error + "\n")
            else:
                now.completed += 1
                added = outcome.added or 0.0
                now.slowest_first_text = max(now.slowest_first_text, added)

        crowd = Scenario(url=server.url, load=Closed(users=users), simulated=Simulated(times=TIMES))
        over = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            asking = group.create_task(
                drive(crowd, token=issuer.token, on_outcome=on_outcome, until=over)
            )
            before = [0, 0]
            began = time.monotonic()
            for number in range(calm + out + 2 * calm):
                if number == calm:
                    await asyncio.to_thread(begin_outage, primary, KINDS[kind], float(out))
                    sys.stderr.write(f"out: {kind}\n")
                await asyncio.sleep(max(0.0, began + number + 1 - time.monotonic()))
                for index, model in enumerate((primary, spare)):
                    try:
                        count = await asyncio.to_thread(calls, model)
                    except OSError:  # it refuses connections
                        count = before[index]
                    setattr(seconds[-1], ("primary", "spare")[index], count - before[index])
                    before[index] = count
                sys.stderr.write(f"{number:3} {seconds[-1]}\n")
                seconds.append(Second())
            over.set()
            await asking
    seconds = seconds[: calm + out + 2 * calm]
    usual, during, back = seconds[2:calm], seconds[calm : calm + out], seconds[calm + out :]
    usual_calls = sum(each.primary for each in usual) / len(usual)
    completed = median(each.completed for each in usual)
    waited = [
        number
        for number, each in enumerate(during)
        if each.slowest_first_text > FIRST_TOKEN_SECONDS / 2
    ]
    return {
        "kind": kind,
        "turns": sum(each.completed + each.failed for each in seconds),
        "failed": sum(each.failed for each in seconds),
        "usual_calls_a_second": round(usual_calls, 1),
        "completed_a_second": {
            "usual": completed,
            "out": median(each.completed for each in during),
            "back": median(each.completed for each in back),
        },
        "seconds_with_waiting_users": len(waited),
        "last_of_these_seconds": waited[-1] + 1 if waited else 0,
        "calls_during_the_outage": sum(each.primary for each in during),
        "slowest_added_first_text_seconds": {
            "usual": round(max(each.slowest_first_text for each in usual), 2),
            "out": round(max(each.slowest_first_text for each in during), 2),
            "back": round(max(each.slowest_first_text for each in back), 2),
        },
        "most_calls_a_second_when_back": max(each.primary for each in back),
        "primary_calls_by_second_when_back": [each.primary for each in back],
        "spare_calls_by_second_when_back": [each.spare for each in back],
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="8 seconds instead of 30")
    parser.add_argument("--kind", choices=sorted(KINDS), default="hang", help="(default: hang)")
    arguments = parser.parse_args()
    raise_file_limit()
    figures = run(main(quick=arguments.quick, kind=arguments.kind))
    sys.stdout.write(json.dumps(figures) + "\n")
    sys.exit(1 if figures["failed"] else 0)
