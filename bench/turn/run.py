"""The whole pipeline beside a bare pass-through: what a turn costs each, in one run.

    .venv/bin/python bench/turn/run.py [--quick]

Prints a table, and the figures as one JSON line at the end. See README.md.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
import venv
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from msgspec import Struct

from seawall.lab.demo import DemoIssuer, server_environment
from seawall.lab.processes import Service, raise_file_limit, run_service
from seawall.lab.surge.outcome import SurgeResult
from seawall.lab.surge.process import ProcessUsage, drive_watched
from seawall.lab.surge.scenario import Api, Crowd, Instant, Open, Scenario, Simulated

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
WARM_UP = 50


class Figures(Struct):
    """Of one server and one crowd. Milliseconds and kilobytes."""

    server: str
    crowd: int
    completed: int
    cpu_ms_a_turn: float
    added_first_text_p50: float
    added_first_text_p99: float
    kb_a_turn: float
    turns_a_second: float


def scenario_of(server: Service, crowd: int, tokens: list[str], api: Api = "turns") -> Scenario:
    """All of them at once."""
    return Scenario(
        url=server.url,
        load=Open([Crowd(shapes=[Instant(crowd)], tokens=tokens)]),
        questions=["Where is my order?"],
        api=api,
        simulated=Simulated(),
        patience=180.0,
    )


async def measure(
    name: str, server: Service, crowd: int, tokens: list[str], api: Api = "turns"
) -> Figures:
    """Warm the server up, then drive the crowd at it."""
    await drive_watched(scenario_of(server, WARM_UP, tokens, api), [server.pid])
    result, use = await drive_watched(scenario_of(server, crowd, tokens, api), [server.pid])
    return _figures(name, result, use)


def _figures(name: str, result: SurgeResult, use: ProcessUsage) -> Figures:
    return Figures(
        name,
        result.turns,
        result.completed,
        round(use.cpu_seconds / result.turns * 1e3, 2),
        round(result.added_first_text.p50 or 0.0, 1),
        round(result.added_first_text.p99 or 0.0, 1),
        round(max(0, use.grown_bytes) / max(1, result.peak_in_flight) / 1_024, 1),
        round(result.completed / result.seconds, 1),
    )


@asynccontextmanager
async def pass_through(model: Service, workers: int = 2) -> AsyncGenerator[Service, None]:
    """FastAPI in a venv of its own, with as many workers as ours."""
    python = await asyncio.to_thread(other_python)
    port = 18_431
    process = await asyncio.create_subprocess_exec(
        *(python, "-m", "uvicorn", "pass_through:app", "--port", str(port)),
        *("--workers", str(workers)),
        *("--log-level", "warning", "--no-access-log", "--backlog", "8192"),
        cwd=HERE,
        env={**os.environ, "MODEL_URL": model.url},
    )
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(200):
            try:
                await asyncio.to_thread(urllib.request.urlopen, f"{url}/openapi.json")
                break
            except OSError:
                await asyncio.sleep(0.1)
        await asyncio.sleep(1.0)  # the other worker
        yield Service(url, process.pid)
    finally:
        process.terminate()
        await process.wait()


def other_python() -> Path:
    """The Python of a venv with what is compared and measured with; made when it is not there."""
    python = HERE / ".venv" / "bin" / "python"
    if not (python.exists() and (python.parent / "py-spy").exists()):
        sys.stderr.write("making a venv for FastAPI, the openai SDK and py-spy ...\n")
        venv.create(HERE / ".venv", with_pip=True)
        subprocess.run(
            [python, "-m", "pip", "install", "-q", "-r", HERE / "requirements.txt"], check=True
        )
    return python


async def main(crowds: list[int]) -> list[Figures]:
    """Both servers, each crowd."""
    found: list[Figures] = []
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="seawall-bench-")))
        issuer = DemoIssuer(folder / "jwks.json")
        model = await stack.enter_async_context(run_service("sim-model", "--port", "0"))
        for crowd in crowds:
            async with run_service(
                *("serve", "examples/store/seawall.toml", "--port", "0", "--json"),
                environment=server_environment(folder, model),
            ) as server:
                tokens = [issuer.token(f"customer-{each}") for each in range(crowd)]
                found.append(await measure("seawall", server, crowd, tokens))
            async with pass_through(model) as other:
                found.append(await measure("fastapi + openai", other, crowd, [], "chat"))
            sys.stderr.write(f"{found[-2]}\n{found[-1]}\n")
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a small crowd only")
    quick = parser.parse_args().quick
    os.chdir(ROOT)
    raise_file_limit()
    began = time.monotonic()
    figures = asyncio.run(main([200] if quick else [500, 5_000]))
    names = Figures.__struct_fields__
    sys.stdout.write("  ".join(f"{name:>20}" for name in names) + "\n")
    for each in figures:
        sys.stdout.write("  ".join(f"{getattr(each, name):>20}" for name in names) + "\n")
    ratio = round(figures[1].cpu_ms_a_turn / figures[0].cpu_ms_a_turn, 2)
    rows = [{name: getattr(each, name) for name in names} for each in figures]
    sys.stdout.write(
        json.dumps(
            {"figures": rows, "cpu_ratio": ratio, "seconds": round(time.monotonic() - began)}
        )
        + "\n"
    )
