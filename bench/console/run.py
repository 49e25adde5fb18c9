"""What the console costs: a turn that is recorded, one that is not, and a second of the stream.

    .venv/bin/python bench/console/run.py [--quick]

Prints a table, and the figures as one JSON line at the end. See README.md.
"""

import argparse
import asyncio
import gc
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import msgspec

from seawall import Orchestrator
from seawall.config import parse_settings
from seawall.console import recording
from seawall.console.now import Sampler
from seawall.console.service import ConsoleService
from seawall.identity import Anonymous
from seawall.models.scripted import ScriptedModel
from seawall.requests import new_request
from seawall.settings import ConsoleSettings

WORDS = 40
CONFIGURATION = """
[identity]
anonymous = true
[sessions]
path = "{path}"
[models.default]
base_url = "http://127.0.0.1:9/v1"
model = "none"
[agents.only]
instructions = "Help."
[agents.only.limits]
steps = 2
"""
NOBODY = Anonymous(loopback=True)


async def turns(orchestrator: Orchestrator, count: int) -> float:
    """Processor seconds a turn."""

    async def emit(*_: object) -> None:
        pass

    began = time.process_time()
    for _ in range(count):
        await orchestrator.engine.execute(new_request("x"), NOBODY, emit)
    return (time.process_time() - began) / count


def made(folder: Path, name: str, *, console: bool) -> Orchestrator:
    """An orchestrator with a store of its own."""
    settings = parse_settings(CONFIGURATION.format(path=folder / f"{name}.db"), environment={})
    settings = msgspec.structs.replace(settings, console=ConsoleSettings(enabled=console))
    orchestrator = Orchestrator(settings)
    orchestrator.model("default", ScriptedModel(lambda _: " ".join(["word"] * WORDS)))
    return orchestrator


async def measure(rounds: int, count: int) -> dict[str, float]:
    """Microseconds of processor time."""
    with tempfile.TemporaryDirectory() as path:
        folder = Path(path)
        everyone = {
            name: made(folder, name, console=not name.startswith("off"))
            for name in ("off", "off_again", "counted", "recorded")
        }
        for each in everyone.values():
            await each.open()
        gc.collect()
        gc.freeze()  # as in a worker
        gc.set_threshold(200_000, 20, 100)
        spent: dict[str, list[float]] = {name: [] for name in everyone}
        for number in range(rounds + 1):
            order = list(everyone.items())
            for name, each in order[number % 4 :] + order[: number % 4]:
                recorder = each.engine.recorder
                if recorder is not None:
                    # No course, or one for each turn: what a crowd pays is nearly the former.
                    recorder._allowed = 1e9 if name == "recorded" else 0.0
                    recorder._filled_at = time.monotonic() + 1e6
                used = await turns(each, count)
                if number:  # the first warms up
                    spent[name].append(used)
        recorder = everyone["recorded"].engine.recorder
        assert recorder is not None
        sampler = Sampler(recorder)
        began, many = time.process_time(), 2_000
        for second in range(many):
            sampler._at = -second
            sampler.sample(everyone["recorded"].engine)
        sample = (time.process_time() - began) / many
        watching = await watch(everyone["recorded"], 6)
        for each in everyone.values():
            await each.close()
    # Differences within a round, as the machine's speed varies between rounds.
    found = {"off_us_a_turn": statistics.median(spent["off"]) * 1e6}
    for name in ("off_again", "counted", "recorded"):
        more = [one - other for one, other in zip(spent[name], spent["off"], strict=True)]
        found[f"{name}_more_us_a_turn"] = statistics.median(more) * 1e6
    courses = recording._COURSES_A_SECOND
    found["courses_share"] = courses * found["recorded_more_us_a_turn"] / 1e6
    found["sample_us"] = sample * 1e6
    found["stream_share"] = watching
    return {name: round(value, 5) for name, value in found.items()}


async def watch(orchestrator: Orchestrator, seconds: int) -> float:
    """Processor time of a stream to one viewer, as a share of one processor, history excluded."""
    engine = orchestrator.engine
    assert engine.recorder is not None
    service = ConsoleService(engine, engine.recorder, orchestrator.settings, None)
    frames = service.feed.watch()
    await anext(frames)
    began, at = time.process_time(), time.monotonic()
    for _ in range(seconds):
        await anext(frames)
    used = (time.process_time() - began) / (time.monotonic() - at)
    await frames.aclose()
    return used


def main() -> int:
    """Run it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="few rounds")
    quick = parser.parse_args().quick
    figures = asyncio.run(measure(5 if quick else 25, 100 if quick else 200))
    for name, value in figures.items():
        sys.stdout.write(f"{name:28} {value}\n")
    sys.stdout.write(json.dumps(figures | {"load_average": os.getloadavg()[0]}) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
