"""Other frameworks as servers of the same streamed turn, in one table.

    .venv/bin/python bench/peers/run.py [--quick] [--only NAME ...] [--crowds N,N,...]

Prints a table, and the figures as one JSON line at the end. See README.md.
"""

import argparse
import asyncio
import json
import os
import signal
import socket
import sys
import tempfile
import time
from asyncio.subprocess import DEVNULL
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from statistics import median

from install import HERE, PEERS, install, installed, python_of
from msgspec import Struct

from seawall.lab.demo import DemoIssuer, server_environment
from seawall.lab.processes import Service, parent_death_signal, raise_file_limit, run, run_service
from seawall.lab.sim_model.reply import SimTimes
from seawall.lab.surge.driver import drive
from seawall.lab.surge.outcome import SurgeResult
from seawall.lab.surge.process import ProcessUsage, drive_in_subprocess, drive_watched
from seawall.lab.surge.scenario import Api, Crowd, Instant, Open, Poisson, Scenario, Simulated

ROOT = HERE.parents[1]
OURS = "seawall"
TIMES = SimTimes()
PATIENCE = 60.0
START_SECONDS = 120.0
LITELLM = """
model_list:
  - model_name: simulated
    litellm_params: {{model: openai/simulated, api_base: "{url}", api_key: none, max_retries: 0}}
litellm_settings: {{telemetry: false, num_retries: 0, request_timeout: 120}}
"""


# LiteLLM's proxy requires explicit permission to start without a key, and would otherwise fetch
# prices from the network.
OPEN = {
    "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "LITELLM_LOG": "ERROR",
}


class Crowded(Struct):
    """One crowd at once. Milliseconds and kilobytes."""

    turns: int
    completed: int
    cpu_ms_a_turn: float
    added_p50_ms: float | None
    added_p99_ms: float | None
    kb_a_turn: float
    driver: list[str]
    errors: dict[str, int]


class Figures(Struct):
    """Of one server with one worker.

    cold_ms: from process start to the first text of the first turn, less the model's own. steady:
    at ten turns a second. most_without_error: the largest crowd of those tried.
    """

    server: str
    cold_ms: list[float]
    steady_cpu_ms: float
    steady_added_p50_ms: float | None
    steady_added_p99_ms: float | None
    steady_turns: int
    steady_completed: int
    resident_mb: float
    crowds: list[Crowded]
    most_without_error: int


class Peer:
    """How to start a server and how to send it turns."""

    def __init__(self, name: str, model: Service, folder: Path) -> None:
        self.name = name
        self.api: Api = "turns" if name == OURS else "chat"
        self.tokens: list[str] = []
        self._model = model
        self._folder = folder
        self._environment: dict[str, str] = {}
        if name == OURS:
            issuer = DemoIssuer(folder / "jwks.json")
            self.tokens = [issuer.token(f"customer-{each}", seconds=7_200) for each in range(256)]
            self._environment = server_environment(folder, model) | {
                "SEAWALL_ROUTING__CLASSIFIER_CACHE": str(folder / "classifier")
            }

    @asynccontextmanager
    async def serving(self) -> AsyncGenerator[Service, None]:
        """Run the server until the block ends."""
        if self.name == OURS:
            async with run_service(
                *("serve", "examples/store/seawall.toml", "--port", "0", "--workers", "1"),
                "--json",
                environment=self._environment,
                seconds=START_SECONDS,
                before=parent_death_signal(signal.SIGTERM),
            ) as service:
                yield service
            return
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        process = await asyncio.create_subprocess_exec(
            *self._command(port),
            cwd=HERE / "servers",
            env=os.environ | {"MODEL_URL": self._model.url, "DO_NOT_TRACK": "1"} | OPEN,
            stdout=DEVNULL,
            preexec_fn=parent_death_signal(signal.SIGTERM),
        )
        try:
            await _listening(port, process)
            yield Service(f"http://127.0.0.1:{port}", process.pid)
        finally:
            if process.returncode is None:
                process.terminate()
            await process.wait()

    def _command(self, port: int) -> list[str]:
        python = str(python_of(self.name))
        if self.name == "litellm":
            path = self._folder / "litellm.yaml"
            path.write_text(LITELLM.format(url=self._model.url))
            program = str(Path(python).parent / "litellm")
            return [program, "--config", str(path), "--port", str(port), "--host", "127.0.0.1"]
        return [
            *(python, "-m", "uvicorn", f"serve_{self.name}:app", "--port", str(port)),
            *("--log-level", "warning", "--no-access-log", "--backlog", "8192"),
        ]

    def scenario(self, url: str, load: Open) -> Scenario:
        """A scenario, the same for all."""
        crowds = [Crowd(shapes=each.shapes, tokens=self.tokens) for each in load.crowds]
        return Scenario(
            url=url,
            load=Open(crowds),
            questions=["Where is my order?"],
            api=self.api,
            model="simulated",
            simulated=Simulated(times=TIMES),
            patience=PATIENCE,
        )


async def _listening(port: int, process: asyncio.subprocess.Process) -> None:
    async with asyncio.timeout(START_SECONDS):
        while process.returncode is None:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.005)
            else:
                writer.close()
                return
    raise RuntimeError(f"the server ended with status {process.returncode}")


async def cold_ms(peer: Peer) -> float:
    """Milliseconds from process start to the first text of a turn, less the model's own time."""
    began = time.monotonic()
    async with peer.serving() as service:
        asked = time.monotonic()
        result = await drive(peer.scenario(service.url, Open([Crowd(shapes=[Instant(1)])])))
    if not result.good:
        raise RuntimeError(f"{peer.name}: {result.errors}")
    return round((asked - began) * 1e3 + (result.added_first_text.p50 or 0.0), 1)


def crowded(turns: int, result: SurgeResult, use: ProcessUsage) -> Crowded:
    """The figures of a crowd."""
    memory = max(0, use.grown_bytes) / max(1, result.peak_in_flight) / 1_024
    return Crowded(
        turns=turns,
        completed=result.completed,
        cpu_ms_a_turn=round(use.cpu_seconds / max(1, result.completed) * 1e3, 2),
        added_p50_ms=result.added_first_text.p50,
        added_p99_ms=result.added_first_text.p99,
        kb_a_turn=round(memory, 1),
        driver=result.driver.saturated,
        errors=dict(list(result.errors.items())[:3]),
    )


async def measure(peer: Peer, *, crowds: list[int], colds: int, seconds: float) -> Figures:
    """All figures of one server."""
    first = await cold_ms(peer)  # the file cache is warm after it
    sys.stderr.write(f"{peer.name}: first start {first:.0f} ms\n")
    cold = [await cold_ms(peer) for _ in range(colds)]
    found: list[Crowded] = []
    async with peer.serving() as service:
        warm = peer.scenario(service.url, Open([Crowd(shapes=[Instant(20)])]))
        await drive_in_subprocess(warm)
        load = Open([Crowd(shapes=[Poisson(10.0, seconds)])])
        steady, use = await drive_watched(peer.scenario(service.url, load), [service.pid])
        figures = crowded(steady.turns, steady, use)
        resident = use.samples[0].resident_bytes / 2**20
    for turns in crowds:
        async with peer.serving() as service:  # a new process, as memory is not returned
            await drive_in_subprocess(
                peer.scenario(service.url, Open([Crowd(shapes=[Instant(20)])]))
            )
            scenario = peer.scenario(service.url, Open([Crowd(shapes=[Instant(turns)])]))
            result, use = await drive_watched(scenario, [service.pid])
            found.append(crowded(turns, result, use))
            sys.stderr.write(f"{peer.name}: {found[-1]}\n")
        if result.completed < turns:
            break  # larger crowds are not tried
    return Figures(
        server=peer.name,
        cold_ms=cold,
        steady_cpu_ms=figures.cpu_ms_a_turn,
        steady_added_p50_ms=figures.added_p50_ms,
        steady_added_p99_ms=figures.added_p99_ms,
        steady_turns=figures.turns,
        steady_completed=figures.completed,
        resident_mb=round(resident, 1),
        crowds=found,
        most_without_error=max(
            (each.turns for each in found if each.completed == each.turns), default=0
        ),
    )


async def main(names: list[str], *, crowds: list[int], colds: int, seconds: float) -> list[Figures]:
    """Measure all servers in turn, in front of one simulated model."""
    found = []
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="seawall-bench-")))
        model = await stack.enter_async_context(
            run_service("sim-model", "--port", "0", before=parent_death_signal(signal.SIGTERM))
        )
        for name in names:
            peer = Peer(name, model, folder)
            try:
                found.append(await measure(peer, crowds=crowds, colds=colds, seconds=seconds))
            except (RuntimeError, TimeoutError) as error:
                sys.stderr.write(f"{name}: left out: {error}\n")
    return found


def table(found: list[Figures], sizes: list[int]) -> str:
    """One line per server, for the largest crowd that all but the worst server completed.

    A server that did not complete that crowd has the figures and the size of its own largest one.
    """
    most = sorted(each.most_without_error for each in found)
    size = max((each for each in sizes if each <= most[min(1, len(most) - 1)]), default=sizes[0])
    columns = (
        *("server", "cold start, ms", f"CPU a turn, ms (10 a second / {size:,} at once)"),
        f"added first text, ms (10 a second p50 / p99; {size:,} at once p50 / p99)",
        *(f"memory a turn, KB ({sizes[0]:,} at once)", "most without error"),
    )
    lines = [f"| {' | '.join(columns)} |", f"|{' --- |' * len(columns)}"]
    for each in found:
        fitting = min(size, each.most_without_error) or sizes[0]
        crowd = next(one for one in each.crowds if one.turns == fitting)
        name = each.server if fitting == size else f"{each.server} ({fitting:,} at once)"
        # Of the smallest crowd: of larger ones a slow server has only a part in memory.
        least = each.crowds[0]
        memory = f"{least.kb_a_turn:.0f}" if least.completed == least.turns else "-"
        failed = next((one for one in each.crowds if one.completed < one.turns), None)
        if each.steady_completed < each.steady_turns:
            name += f" ({each.steady_completed} of {each.steady_turns} at 10 a second)"
        beyond = f" ({failed.completed:,} of {failed.turns:,})" if failed else ""
        lines.append(
            f"| {name} | {median(each.cold_ms):,.0f} | {each.steady_cpu_ms:.1f} / "
            f"{crowd.cpu_ms_a_turn:.1f} | {_ms(each.steady_added_p50_ms)} / "
            f"{_ms(each.steady_added_p99_ms)}; {_ms(crowd.added_p50_ms)} / "
            f"{_ms(crowd.added_p99_ms)} | {memory} | {each.most_without_error:,}{beyond} |"
        )
    return "\n".join(lines)


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="small crowds, few starts")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", choices=[OURS, *PEERS])
    parser.add_argument("--crowds", default="", metavar="N,N", help="at once, growing")
    arguments = parser.parse_args()
    os.chdir(ROOT)
    raise_file_limit()
    sizes = [int(each) for each in arguments.crowds.split(",") if each]
    sizes = sizes or ([50, 100] if arguments.quick else [100, 500, 1_000, 2_000, 5_000])
    chosen = arguments.only or [OURS, *PEERS]
    for each in chosen:
        if each != OURS and not installed(each):
            install(each)
    quick = arguments.quick
    figures = run(main(chosen, crowds=sizes, colds=2 if quick else 5, seconds=10 if quick else 30))
    sys.stdout.write(table(figures, sizes) + "\n")
    rows = [
        {name: getattr(row, name) for name in Figures.__struct_fields__ if name != "crowds"}
        | {"crowds": [{n: getattr(c, n) for n in Crowded.__struct_fields__} for c in row.crowds]}
        for row in figures
    ]
    sys.stdout.write(json.dumps({"figures": rows}) + "\n")
