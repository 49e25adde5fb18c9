"""Goodput of turns beside a flood of cheap requests.

    .venv/bin/python bench/flood/run.py [--quick] [--seconds 20] [--connections 64]

One server process with signed tokens and sessions, and virtual users in a closed loop. Another
process sends the flood on persistent connections, each with the next request when it is answered.
Goodput without a flood is measured between two floods. Prints each step, and the figures as one
JSON line at the end. See README.md.
"""

import argparse
import asyncio
import json
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path

from seawall.lab.demo import DemoIssuer, server_environment
from seawall.lab.processes import consumption, raise_file_limit, run, run_service
from seawall.lab.sim_model.reply import SimTimes
from seawall.lab.surge.driver import drive
from seawall.lab.surge.outcome import Outcome
from seawall.lab.surge.scenario import Closed, Scenario, Simulated

TIMES = SimTimes(first_token=(0.1, 0.2), duration=(0.3, 0.5))
COOL_DOWN_SECONDS = 2.0
FLOODS = {
    "livez": b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n",
    "not found": b"GET /nothing HTTP/1.1\r\nhost: x\r\n\r\n",
    "no credential": b"POST /v1/turns HTTP/1.1\r\nhost: x\r\ncontent-length: 14\r\n\r\n"
    b'{"text": "hi"}',
}


class Asking(asyncio.Protocol):
    """Sends the next request whenever it is answered; responses nearly always arrive at once."""

    answers = 0

    def __init__(self, request: bytes) -> None:
        self._request = request

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        if data.startswith(b"HTTP/1.1 "):
            Asking.answers += 1
            self._transport.write(self._request)


async def flood(url: str, kind: str, connections: int, seconds: float) -> None:
    """Run the flood; print the number of responses."""
    host, port = url.removeprefix("http://").split(":")
    loop = asyncio.get_running_loop()
    for _ in range(connections):
        await loop.create_connection(lambda: Asking(FLOODS[kind]), host, int(port))
    await asyncio.sleep(seconds)
    sys.stdout.write(f"{Asking.answers}\n")


async def measure(options: argparse.Namespace) -> dict[str, object]:
    """Measure goodput without and with each flood, alternately."""
    async with AsyncExitStack() as stack:
        data = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        issuer = DemoIssuer(data / "jwks.json")
        times = [f"{low}..{high}" for low, high in (TIMES.first_token, TIMES.duration)]
        model = await stack.enter_async_context(
            run_service(
                "sim-model", "--port", "0", "--first-token", times[0], "--duration", times[1]
            )
        )
        server = await stack.enter_async_context(
            run_service(
                *("serve", "examples/store/seawall.toml", "--port", "0", "--json"),
                *("--workers", "1"),
                environment=server_environment(data, model),
            )
        )
        counts = {"done": 0, "failed": 0}

        def on_outcome(outcome: Outcome) -> None:
            counts["failed" if outcome.error else "done"] += 1

        crowd = Scenario(
            url=server.url,
            load=Closed(users=options.users, turns=10, think=0.2),
            simulated=Simulated(times=TIMES),
        )
        over = asyncio.Event()
        rows: list[dict[str, object]] = []
        async with asyncio.TaskGroup() as group:
            group.create_task(drive(crowd, token=issuer.token, on_outcome=on_outcome, until=over))
            for kind in ("", "livez", "", "not found", "", "no credential", ""):
                flooding = None
                if kind:
                    flooding = await asyncio.create_subprocess_exec(
                        *(sys.executable, __file__, "--flood", kind, "--url", server.url),
                        *("--connections", str(options.connections)),
                        *("--seconds", str(options.seconds + COOL_DOWN_SECONDS)),
                        stdout=asyncio.subprocess.PIPE,
                    )
                await asyncio.sleep(COOL_DOWN_SECONDS)
                before, began = dict(counts), time.monotonic()
                spent = consumption(server.pid).cpu_seconds
                await asyncio.sleep(options.seconds)
                seconds = time.monotonic() - began
                spent = consumption(server.pid).cpu_seconds - spent
                row: dict[str, object] = {
                    "flood": kind or "none",
                    "turns_per_second": round((counts["done"] - before["done"]) / seconds, 1),
                    "failed": counts["failed"] - before["failed"],
                    "server_cpu": round(spent / seconds, 2),
                    "turns_per_cpu_second": round((counts["done"] - before["done"]) / spent),
                }
                if flooding is not None:
                    output, _ = await flooding.communicate()
                    row["answers_per_second"] = round(int(output) / (seconds + COOL_DOWN_SECONDS))
                rows.append(row)
                print(row, flush=True)
            over.set()
    return {
        "rows": rows,
        "goodput_ratios": ratios(rows, "turns_per_second"),
        "processor_ratios": ratios(rows, "turns_per_cpu_second"),
        "connections": options.connections,
    }


def ratios(rows: list[dict[str, object]], figure: str) -> dict[str, float]:
    """A figure with each flood over the mean of those before and after it."""
    found = {}
    for at in range(1, len(rows), 2):
        beside = [float(str(rows[each][figure])) for each in (at - 1, at + 1)]
        with_flood = float(str(rows[at][figure]))
        found[str(rows[at]["flood"])] = round(2 * with_flood / max(sum(beside), 0.1), 2)
    return found


def main() -> None:
    """Measure, or run the flood."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a few seconds a step")
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--users", type=int, default=60)
    parser.add_argument("--flood", choices=FLOODS, help=argparse.SUPPRESS)
    parser.add_argument("--url", help=argparse.SUPPRESS)
    options = parser.parse_args()
    raise_file_limit()
    if options.quick:
        options.seconds = 5.0
    if options.flood:
        run(flood(options.url, options.flood, options.connections, options.seconds))
        return
    print(json.dumps(run(measure(options))))


if __name__ == "__main__":
    main()
