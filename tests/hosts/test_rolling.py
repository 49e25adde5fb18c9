"""A rolling restart of servers behind a load balancer, which loses no turn."""

import asyncio
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

from seawall.lab.sim_model.reply import SimTimes
from seawall.lab.surge.driver import drive
from seawall.lab.surge.outcome import Outcome
from seawall.lab.surge.scenario import Closed, Scenario, Simulated
from tests.attack.balancer import require_balancer, running_balancer
from tests.hosts.conftest import identity
from tests.issuer import Issuer
from tests.servers import ServerProcess, running_model, running_server

CUSTOMERS = 60
SERVERS = 2


class ReplaceableServer:
    """One address, whose server is replaced by another."""

    def __init__(self, folder: Path, model: ServerProcess, settings: dict[str, str]) -> None:
        self._folder = folder
        self._model = model
        self._settings = settings
        self._stack = ExitStack()
        self._server = self._start("0")
        self.url = self._server.url

    def restart(self) -> int:
        """The exit status of the one before."""
        status = self._server.stop()
        self._server = self._start(self.url.rpartition(":")[2])
        return status

    def close(self) -> None:
        self._stack.close()

    def _start(self, port: str) -> ServerProcess:
        return self._stack.enter_context(
            running_server(self._folder, self._model, **self._settings, SERVER__PORT=port)
        )


async def test_a_rolling_restart_loses_no_turn(tmp_path: Path, issuer: Issuer) -> None:
    """Sessions of several turns move from server to server."""
    require_balancer()
    times = SimTimes(first_token=(0.1, 0.2), duration=(0.4, 0.6), chunks=10)
    settings = identity(tmp_path, issuer) | {
        "SERVER__WORKERS": "1",
        "SERVER__SHUTDOWN_DELAY_SECONDS": "1",
        "SERVER__DRAIN_SECONDS": "15",
    }
    outcomes: Counter[str] = Counter()
    with ExitStack() as stack:
        model = stack.enter_context(
            running_model("--first-token", "0.1..0.2", "--duration", "0.4..0.6", "--chunks", "10")
        )
        slots = [ReplaceableServer(tmp_path, model, settings) for _ in range(SERVERS)]
        for slot in slots:
            stack.callback(slot.close)
        front = stack.enter_context(running_balancer([slot.url for slot in slots], checked=True))
        crowd = Scenario(
            url=front, load=Closed(users=CUSTOMERS, turns=3), simulated=Simulated(times=times)
        )

        def on_outcome(outcome: Outcome) -> None:
            outcomes[outcome.error] += 1

        over = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            group.create_task(drive(crowd, token=issuer.token, on_outcome=on_outcome, until=over))
            for slot in slots:
                await asyncio.sleep(0.5)  # the balancer has to see the one before
                assert await asyncio.to_thread(slot.restart) == 0
            over.set()
    assert set(outcomes) == {""}, outcomes
    assert outcomes[""] > 2 * CUSTOMERS
