"""A rolling restart under load: four servers behind haproxy, none of 1,000 turns may fail.

    .venv/bin/python bench/rolling/run.py [--quick] [--store dynamodb]

Prints what it does, and the figures as one JSON line at the end. See README.md.
"""

import argparse
import asyncio
import json
import os
import socket
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path

from msgspec import Struct

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.attack.balancer import running_balancer
from tests.dynamodb_local import ENVIRONMENT, running_dynamodb
from tests.servers import ServerProcess, running
from tests.storage.stores import new_location

from seawall.lab.demo import DemoIssuer, server_environment
from seawall.lab.processes import Service, raise_file_limit, run, run_service
from seawall.lab.sim_model.reply import SimTimes
from seawall.lab.statistics import percentiles
from seawall.lab.surge.driver import drive
from seawall.lab.surge.outcome import Outcome
from seawall.lab.surge.scenario import Closed, Scenario, Simulated

SHUTDOWN_DELAY_SECONDS = 2.0
COOL_DOWN_SECONDS = 2.0


class Restart(Struct):
    """Of one server: exit status; seconds from signal to exit, and from start to ready."""

    status: int
    stopped_after: float
    ready_after: float


class Server:
    """A server at a fixed address, which can be restarted."""

    def __init__(self, environment: dict[str, str]) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self._port}"
        self._environment = environment | {"SEAWALL_SERVER__WARM_UP": "true"}
        self._stack = ExitStack()
        self._server: ServerProcess | None = None

    def start(self) -> None:
        """Start it; return when it accepts turns."""
        self._server = self._stack.enter_context(
            running(
                *("serve", "examples/store/seawall.toml", "--workers", "1", "--json"),
                *("--port", str(self._port)),
                environment=self._environment,
            )
        )

    def restart(self) -> Restart:
        """Send SIGTERM, wait for the exit, start again."""
        assert self._server is not None
        began = time.monotonic()
        status = self._server.stop(120.0)
        stopped = time.monotonic()
        self.start()
        return Restart(status, round(stopped - began, 2), round(time.monotonic() - stopped, 2))

    def close(self) -> None:
        """Stop it."""
        self._stack.close()


async def roll(
    servers: list[Server],
    crowd: Scenario,
    token: Callable[[str], str],
    report: Callable[[str], None],
) -> dict[str, object]:
    """Restart all servers in turn under load."""
    users = crowd.load.users if isinstance(crowd.load, Closed) else 0
    errors: Counter[str] = Counter()
    late: list[float] = []

    def on_outcome(outcome: Outcome) -> None:
        if outcome.error:
            errors[outcome.error] += 1
        else:
            late.append(outcome.added or 0.0)

    over = asyncio.Event()
    restarts: list[Restart] = []
    began = time.monotonic()
    async with asyncio.TaskGroup() as group:
        asking = group.create_task(drive(crowd, token=token, on_outcome=on_outcome, until=over))
        await asyncio.sleep(2 * COOL_DOWN_SECONDS)
        for number, server in enumerate(servers):
            report(f"server {number}: SIGTERM; {len(late)} turns so far, {errors.total()} failed")
            restarts.append(await asyncio.to_thread(server.restart))
            report(f"server {number}: {restarts[-1]}")
            await asyncio.sleep(COOL_DOWN_SECONDS)
        over.set()
        await asking
    spread = percentiles(late)
    return {
        "users": users,
        "servers": len(servers),
        "turns": len(late) + errors.total(),
        "failed": errors.total(),
        "errors": dict(errors),
        "exit_statuses": [each.status for each in restarts],
        "stopped_after_seconds": [each.stopped_after for each in restarts],
        "ready_after_seconds": [each.ready_after for each in restarts],
        "added_first_text_p50_ms": round(spread.p50 or 0.0, 1),
        "added_first_text_p99_ms": round(spread.p99 or 0.0, 1),
        "seconds": round(time.monotonic() - began, 1),
    }


async def main(*, quick: bool, store: str) -> dict[str, object]:
    """Set up, restart, tear down."""
    os.chdir(ROOT)
    times = SimTimes(duration=(0.6, 1.0)) if quick else SimTimes()
    first, whole = (f"{low:g}..{high:g}" for low, high in (times.first_token, times.duration))

    def report(line: str) -> None:
        sys.stderr.write(line + "\n")

    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="seawall-bench-")))
        issuer = DemoIssuer(folder / "jwks.json")
        model: Service = await stack.enter_async_context(
            run_service("sim-model", "--port", "0", "--first-token", first, "--duration", whole)
        )
        environment = server_environment(folder, model) | {
            "SEAWALL_SERVER__SHUTDOWN_DELAY_SECONDS": str(SHUTDOWN_DELAY_SECONDS),
            "SEAWALL_ADMISSION__IN_FLIGHT": "4000",
        }
        if store == "dynamodb":
            environment |= ENVIRONMENT | {
                "SEAWALL_SESSIONS__STORE": "dynamodb",
                "SEAWALL_SESSIONS__TABLE": new_location("dynamodb"),
                "SEAWALL_SESSIONS__ENDPOINT": stack.enter_context(running_dynamodb()),
                "SEAWALL_SESSIONS__CREATE_TABLE": "true",
            }
        servers = [Server(environment) for _ in range(2 if quick else 4)]
        for server in servers:
            stack.callback(server.close)
            await asyncio.to_thread(server.start)
        front = stack.enter_context(
            running_balancer([server.url for server in servers], checked=True)
        )
        report(f"{len(servers)} servers behind haproxy at {front}, sessions in {store}")
        crowd = Scenario(
            url=front,
            load=Closed(users=60 if quick else 1_000, turns=3),
            simulated=Simulated(times=times),
        )
        return {"store": store} | await roll(servers, crowd, issuer.token, report)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="two servers and 60 users")
    parser.add_argument("--store", choices=["sqlite", "dynamodb"], default="sqlite")
    arguments = parser.parse_args()
    raise_file_limit()
    figures = run(main(quick=arguments.quick, store=arguments.store))
    sys.stdout.write(json.dumps(figures) + "\n")
    sys.exit(1 if figures["failed"] else 0)
