"""A crowd larger than the model's quota: the real server beside what the plan predicts for it.

    .venv/bin/python bench/quota/run.py [--quick] [--only CASE ...]

The simulated model enforces the rule of Amazon Bedrock. Prints what it does, a table, and the
figures as one JSON line. Exit status 1 if a prediction is off by more than 15 %. See README.md.
"""

import argparse
import asyncio
import json
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path

from msgspec import Struct, structs

from seawall.lab.processes import Service, raise_file_limit, run, run_service
from seawall.lab.sim_model.reply import SimTimes
from seawall.lab.statistics import percentiles
from seawall.lab.surge.outcome import SurgeResult
from seawall.lab.surge.process import drive_watched
from seawall.lab.surge.scenario import Crowd, Instant, Open, Scenario, Simulated
from seawall.plan import Arrivals, Clients, Stage, Workload, simulate
from seawall.plan import Service as PlannedService
from seawall.plan.inputs.arrivals import Spike
from seawall.plan.inputs.distributions import constant, uniform
from seawall.plan.inputs.model import ModelLimits, ModelUse
from seawall.plan.inputs.platforms import Eks
from seawall.plan.simulator.result import Result

TIMES = SimTimes(first_token=(0.4, 0.8), duration=(3.0, 6.0), chunks=40)
BOUND = 1_000
INSTRUCTIONS = "You help the customers of a shop. " * 60
WITHIN = 0.15
WARM_TURNS = 20
SEEDS = 10
CONFIG = """
[models.default]
base_url = "{model}"
model = "simulated"
length_field = "max_tokens"
{quota}

[agents.shop]
instructions = "{instructions}"

[agents.shop.limits]
call_tokens = {bound}
model_seconds = 120.0

[turn]
turn = {turn}

[identity]
anonymous = true

[sessions]
path = "{path}"
"""
QUOTA = """quota = "account"

[quotas.account]
tokens_per_minute = {tokens}
reserve = "input+max_tokens"
"""


class Case(Struct, frozen=True):
    """A crowd and the server that it meets.

    Attributes:
        crowd: Turns at once.
        tokens: The quota, a minute.
        turn: Seconds that a turn may take.
        queue: Whether the server knows the quota.
    """

    crowd: int
    tokens: int
    turn: float
    queue: bool = True


class Figures(Struct, frozen=True):
    """What a crowd met; times in seconds. `refused`: share of the turns; `throttled`: 429s."""

    refused: float
    drained: float
    first_p50: float
    first_p99: float
    throttled: float


CASES = {
    "served": Case(600, 150_000, 120.0),
    "refused": Case(600, 150_000, 60.0),
    "without": Case(600, 150_000, 60.0, queue=False),
}
QUICK = {
    "served": Case(200, 75_000, 60.0),
    "refused": Case(200, 75_000, 16.0),
    "without": Case(200, 75_000, 16.0, queue=False),
}


def say(text: str) -> None:
    """Print progress to standard error."""
    sys.stderr.write(text + "\n")


def get(url: str, body: object = None) -> dict[str, object]:
    """The JSON answer of a request."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        found: dict[str, object] = json.loads(answer.read())
        return found


def refused_by(model: Service) -> int:
    """429s that the model has sent."""
    return int(str(get(model.url.removesuffix("/v1") + "/sim/stats")["refused"]))


async def measure(case: Case, folder: Path) -> tuple[Figures, int, dict[str, int]]:
    """The crowd at the real server; also the tokens of a prompt, and errors by their number."""
    first, whole = (f"{low:g}..{high:g}" for low, high in (TIMES.first_token, TIMES.duration))
    async with AsyncExitStack() as stack:
        model = await stack.enter_async_context(
            run_service(
                *("sim-model", "--port", "0", "--first-token", first, "--duration", whole),
                *("--tokens-per-minute", str(case.tokens), "--reserve", "input+max_tokens"),
            )
        )
        config = folder / "seawall.toml"
        config.write_text(
            CONFIG.format(
                model=model.url,
                quota=QUOTA.format(tokens=case.tokens) if case.queue else "",
                instructions=INSTRUCTIONS,
                bound=BOUND,
                turn=case.turn,
                path=folder / f"{case.crowd}-{case.turn}-{case.queue}.db",
            )
        )
        server = await stack.enter_async_context(
            run_service("serve", str(config), "--port", "0", "--json", "--workers", "1")
        )
        # As in production, the server has seen calls before the crowd comes.
        text = "Where is my parcel? It was to come on Monday."
        asking = [
            asyncio.to_thread(get, f"{server.url}/v1/turns", {"text": f"{text} {number}"})
            for number in range(WARM_TURNS)
        ]
        answers = await asyncio.gather(*asking)
        prompt = dict(answers[0]["usage"])["prompt_tokens"]  # type: ignore[call-overload]
        await asyncio.sleep(60.0 * 2 * WARM_TURNS * prompt / case.tokens)  # the bucket is full
        before = refused_by(model)
        load = Scenario(
            url=server.url,
            load=Open([Crowd(shapes=[Instant(case.crowd)])]),
            simulated=Simulated(times=TIMES),
            patience=case.turn + 30.0,
        )
        result, _ = await drive_watched(load, [server.pid])
        figures = figures_of(result, refused_by(model) - before)
        return figures, prompt, result.errors


def figures_of(result: SurgeResult, throttled: int) -> Figures:
    """What the driver saw."""
    ok = [each for each in result.outcomes if not each.error]
    first = percentiles([each.first_text or 0.0 for each in ok])
    assert first.p50 is not None
    assert first.p99 is not None
    return Figures(
        refused=round(1 - len(ok) / len(result.outcomes), 3),
        drained=round(max(each.due + each.total for each in ok), 2),
        first_p50=round(first.p50 / 1e3, 2),
        first_p99=round(first.p99 / 1e3, 2),
        throttled=throttled,
    )


def predict(case: Case, prompt: int) -> Figures:
    """The same by the plan's simulation: the mean of several seeds."""
    call = uniform(*TIMES.duration)
    model = ModelUse(
        limits=ModelLimits(tokens_a_minute=case.tokens, counting="reserve"),
        input_tokens=constant(float(prompt)),
        output_tokens=constant(float(TIMES.chunks)),
        max_tokens=BOUND,
        on_refusal="queue" if case.queue else "retry",
        # A call must end before its turn's deadline.
        wait_seconds=case.turn - sum(TIMES.duration) / 2,
        retries=2,
        backoff=0.25,
        backoff_cap=5.0,
        retry_after=True,
    )
    workload = Workload(
        arrivals=Arrivals(horizon=case.turn + 60.0, spikes=(Spike(case.crowd, 0.0),)),
        service=PlannedService(
            stages=(Stage("model", call, model=True),),
            start=constant(0.0),
            first_token=uniform(*TIMES.first_token),
        ),
        clients=Clients(retries=0, patience=case.turn + 30.0),
        model=model,
    )
    platform = Eks(pods=4, cores=8.0, concurrency=20_000, queue=0)  # nothing else is short
    runs = [simulate(workload, platform, seed=seed, keep=True) for seed in range(1, SEEDS + 1)]
    found = [predicted_figures(each) for each in runs]
    return Figures(
        *(
            round(sum(getattr(each, name) for each in found) / len(found), 3)
            for name in Figures.__struct_fields__
        )
    )


def predicted_figures(result: Result) -> Figures:
    """What the simulation says."""
    assert result.model is not None
    assert result.samples is not None
    served = result.samples.outcome == 0
    ended = result.samples.arrival + result.samples.latency
    return Figures(
        refused=1 - result.served / result.requests,
        drained=float(ended[served].max()),
        first_p50=result.first_token.quantile(0.5),
        first_p99=result.first_token.quantile(0.99),
        throttled=float(result.model.refusals),
    )


def deviation(name: str, measured: float, predicted: float) -> float:
    """Relative to the prediction; of shares the difference."""
    if name == "refused":
        return measured - predicted
    return measured / predicted - 1 if predicted else 0.0


async def main(cases: dict[str, Case]) -> dict[str, object]:
    """All cases."""
    found: dict[str, object] = {}
    worst = 0.0
    with tempfile.TemporaryDirectory(prefix="seawall-bench-") as folder:
        for name, case in cases.items():
            say(f"{name}: {case.crowd} turns at once, {case.tokens:,} tokens a minute")
            measured, prompt, errors = await measure(case, Path(folder))
            predicted = predict(case, prompt)
            say(f"  {'':10} {'measured':>9} {'plan':>9} {'off':>6}")
            off = {}
            for key in Figures.__struct_fields__:
                pair = getattr(measured, key), getattr(predicted, key)
                off[key] = round(deviation(key, *pair), 3)
                shown = f"{off[key]:+.1%}" if key != "throttled" else ""
                say(f"  {key:10} {pair[0]:9.2f} {pair[1]:9.2f} {shown:>6}")
            if case.queue:
                compared = [abs(each) for key, each in off.items() if key != "throttled"]
                worst = max(worst, *compared)
            causes = Counter({error[:120]: count for error, count in errors.items()})
            for error, count in causes.most_common(3):
                say(f"  {count} x {error}")
            found[name] = {
                "case": structs.asdict(case) | {"prompt_tokens": prompt, "bound": BOUND},
                "measured": structs.asdict(measured),
                "predicted": structs.asdict(predicted),
                "off": off,
            }
    return found | {"worst": round(worst, 3), "within": worst <= WITHIN}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="200 turns instead of 600")
    parser.add_argument("--only", nargs="+", choices=tuple(CASES), default=tuple(CASES))
    chosen = parser.parse_args()
    raise_file_limit()
    began = time.monotonic()
    cases = QUICK if chosen.quick else CASES
    figures = run(main({name: cases[name] for name in chosen.only}))
    figures["seconds"] = round(time.monotonic() - began)
    sys.stdout.write(json.dumps(figures) + "\n")
    sys.exit(0 if figures["within"] else 1)
