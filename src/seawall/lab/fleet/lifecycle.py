"""Starts and stops a fleet: model, servers or environments, balancer, and tokens for its users."""

import asyncio
import os
import signal
import tempfile
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from ipaddress import ip_address
from pathlib import Path
from uuid import uuid4

from msgspec import Struct, structs

from seawall.errors import ConfigError
from seawall.lab.control_groups import ControlGroups, ControlGroupsUnavailable
from seawall.lab.demo import DemoIssuer
from seawall.lab.fleet.balancer import find_balancer, run_balancer
from seawall.lab.fleet.dynamodb_table import make_table, table_credentials, table_region
from seawall.lab.fleet.overrides import fleet_overrides
from seawall.lab.fleet.spec import FleetSpec
from seawall.lab.fleet.state import (
    FleetState,
    classifier_cache_path,
    load_state,
    process_start_ticks,
    save_state,
    tear_down,
)
from seawall.lab.processes import (
    MARK,
    SERVER_NICENESS,
    Service,
    listening_process,
    parent_death_signal,
    run_service,
)
from seawall.settings import SessionSettings
from seawall.transport.http_client import Endpoint

__all__ = ["Fleet", "run_fleet"]

_USERS = 256
_DAY = 86_400
_START_SECONDS = 120.0
# Hundreds of environments share the processors here; on AWS each has its own. Longer timeouts keep
# turns from failing that would not fail there.
_RELAXED_TIMEOUTS = {
    "SEAWALL_TURN__TURN": "600",
    "SEAWALL_TURN__AUTHENTICATE": "120",
    "SEAWALL_TURN__SESSION": "120",
    "SEAWALL_TURN__INTENT": "120",
    "SEAWALL_TURN__COMMIT": "120",
    "SEAWALL_SESSIONS__LEASE_SECONDS": "300",
}


class Fleet(Struct, frozen=True, kw_only=True):
    """A running fleet.

    Attributes:
        spec: What it was started from.
        url: Of the balancer or the local Lambda.
        model: URL of the model.
        servers: Process ids of the pods; their children belong to them.
        infrastructure: Process ids of what the cloud provider would run: balancer or local Lambda.
        model_pid: Process id of the model; 0 if it is not on this machine.
        store_pid: Process id of the store; 0 for SQLite, or if it is not on this machine.
        tokens: Of its users, valid for a day.
        token_file: The same in a file.
        notes: Limitations on this machine.
    """

    spec: FleetSpec
    url: str
    model: str
    servers: tuple[int, ...]
    infrastructure: tuple[int, ...]
    model_pid: int
    store_pid: int
    tokens: list[str]
    token_file: Path
    notes: tuple[str, ...] = ()


@asynccontextmanager
async def run_fleet(
    spec: FleetSpec,
    source: Path,
    *,
    name: str,
    report: Callable[[str], None] = lambda _: None,
) -> AsyncGenerator[Fleet, None]:
    """Run a fleet until the block ends, after ending leftovers of one with the same name.

    Args:
        spec: The fleet.
        source: The configuration to serve; its models, store and identity are replaced.
        name: Identifies the fleet on this machine.
        report: Called with lines about leftovers.

    Raises:
        ConfigError: A fleet of this name is up, there is no balancer or configuration, or a part of
            the configuration cannot be replaced.
        SeawallError: Something did not start.
    """
    if not await asyncio.to_thread(source.is_file):
        raise ConfigError(f"{source}: no such file")
    before = load_state(name)
    if before is not None and before.alive:
        raise ConfigError(f"a fleet {name!r} is up already; end it with: seawall lab down {name}")
    if before is not None:
        killed = await asyncio.to_thread(tear_down, before, report)
        report(f"ended {killed} processes of an earlier fleet")
    balancer = find_balancer() if spec.kind == "pods" else None
    region = table_region() if spec.store != "sqlite" else ""
    mark = f"seawall-{uuid4().hex[:12]}"
    folder = Path(tempfile.mkdtemp(prefix="seawall-lab-"))
    state = FleetState(
        name=name,
        mark=mark,
        pid=os.getpid(),
        born=process_start_ticks(os.getpid()),
        folder=str(folder),
        title=spec.title,
        endpoint=spec.store if region else "",
        region=region,
    )
    save_state(state)
    try:
        async with AsyncExitStack() as stack:
            started = _Launcher(spec, source, folder, state, stack)
            fleet = await (started.pods(balancer) if balancer else started.environments())
            save_state(
                structs.replace(
                    state,
                    url=fleet.url,
                    model=fleet.model,
                    tokens=str(fleet.token_file),
                    notes=fleet.notes,
                )
            )
            yield fleet
    finally:
        await asyncio.to_thread(tear_down, state, report)


class _Launcher:
    def __init__(
        self, spec: FleetSpec, source: Path, folder: Path, state: FleetState, stack: AsyncExitStack
    ) -> None:
        self._spec = spec
        self._source = source
        self._folder = folder
        self._mark = state.mark
        self._region = state.region
        self._stack = stack
        self._notes: list[str] = []
        self._issuer = DemoIssuer(folder / "jwks.json")
        self._tokens = [
            self._issuer.token(f"customer-{each}", seconds=_DAY) for each in range(_USERS)
        ]
        self._token_file = folder / "tokens"
        self._token_file.touch(mode=0o600)
        self._token_file.write_text("\n".join(self._tokens) + "\n")

    async def pods(self, balancer: tuple[str, str]) -> Fleet:
        model = await self._model()
        environment = await self._environment(model)
        environment["SEAWALL_ADMISSION__IN_FLIGHT"] = str(self._spec.slots)
        shares = self._control_groups()
        try:
            async with asyncio.TaskGroup() as group:
                starting = [
                    group.create_task(self._pod(number, environment, shares))
                    for number in range(self._spec.pods)
                ]
        except ExceptionGroup as failed:  # report the first one
            raise failed.exceptions[0] from failed
        pods = [each.result() for each in starting]
        front = await self._stack.enter_async_context(
            run_balancer(
                [each.url for each in pods],
                self._folder,
                balance=self._spec.balance,
                environment=os.environ | {MARK: self._mark},
                found=balancer,
            )
        )
        return self._fleet(front, model, [each.pid for each in pods], (front.pid,))

    async def _pod(
        self, number: int, environment: dict[str, str], shares: ControlGroups | None
    ) -> Service:
        groups = []
        if shares is not None:
            groups = [shares.make(f"{self._mark}-pod{number}", self._spec.cpu)]
        return await self._stack.enter_async_context(
            run_service(
                *("serve", str(self._source), "--port", "0", "--workers", "1", "--json"),
                environment=environment,
                seconds=_START_SECONDS,
                before=parent_death_signal(signal.SIGTERM, groups, niceness=SERVER_NICENESS),
            )
        )

    async def environments(self) -> Fleet:
        spec = self._spec
        model = await self._model()
        arguments = [
            *("lab", "lambda", str(self._source), "--port", "0", "--json"),
            *("--memory", str(spec.memory), "--timeout", f"{spec.timeout:g}"),
            *("--in-flight", str(spec.in_flight), "--provisioned", str(spec.provisioned)),
            *("--concurrency", str(spec.concurrency), "--idle", f"{spec.idle:g}"),
            *("--init", f"{spec.init:g}"),
        ]
        if spec.snapstart:
            arguments.append("--snapstart")
        if spec.cpu and self._control_groups() is not None:
            arguments += ["--cpu-shares", f"{self._mark}-env"]
        front = await self._stack.enter_async_context(
            run_service(
                *arguments,
                environment=await self._environment(model),
                seconds=_START_SECONDS,
                before=parent_death_signal(signal.SIGTERM),
                log=self._folder / "lambda.log",
            )
        )
        return self._fleet(front, model, [], (front.pid,))

    def _fleet(
        self, front: Service, model: Service, servers: list[int], infrastructure: tuple[int, ...]
    ) -> Fleet:
        return Fleet(
            spec=self._spec,
            url=front.url,
            model=model.url,
            servers=tuple(servers),
            infrastructure=infrastructure,
            model_pid=model.pid,
            store_pid=self._store_pid(),
            tokens=self._tokens,
            token_file=self._token_file,
            notes=tuple(self._notes),
        )

    async def _model(self) -> Service:
        spec = self._spec
        if spec.model:
            return Service(spec.model, 0)
        first, whole = (
            f"{low:g}..{high:g}" for low, high in (spec.times.first_token, spec.times.duration)
        )
        return await self._stack.enter_async_context(
            run_service(
                *("sim-model", "--port", "0", "--first-token", first, "--duration", whole),
                *("--chunks", str(spec.times.chunks)),
                environment={MARK: self._mark},
                before=parent_death_signal(signal.SIGTERM),
            )
        )

    async def _environment(self, model: Service) -> dict[str, str]:
        """The environment of all servers. Creates the DynamoDB table, as a deployment does."""
        sessions = self._sessions()
        environment = await asyncio.to_thread(
            fleet_overrides,
            self._source,
            folder=self._folder,
            model=model.url,
            sessions=sessions,
            trusted=self._issuer.trusted,
        )
        environment |= _RELAXED_TIMEOUTS | {
            MARK: self._mark,
            "SEAWALL_ROUTING__CLASSIFIER_CACHE": str(classifier_cache_path()),
        }
        if sessions.store == "dynamodb":
            environment |= table_credentials()
            await make_table(sessions)
        return environment

    def _sessions(self) -> SessionSettings:
        if self._spec.store == "sqlite":
            return SessionSettings(path=str(self._folder / "sessions.db"))
        return SessionSettings(
            store="dynamodb", endpoint=self._spec.store, table=self._mark, region=self._region
        )

    def _store_pid(self) -> int:
        """Process id of the store; 0 for SQLite, or if it is not on this machine."""
        if self._spec.store == "sqlite":
            return 0
        origin = Endpoint.parse(self._spec.store).origin
        return listening_process(origin.port) if _is_loopback(origin.host) else 0

    def _control_groups(self) -> ControlGroups | None:
        """Control groups, if they are wanted and available; a note explains if they are not."""
        if not self._spec.cpu:
            return None
        try:
            shares = ControlGroups()
            shares.remove(shares.make(f"{self._mark}-try", 1.0))
        except ControlGroupsUnavailable as error:
            self._notes.append(str(error))
            return None
        self._stack.callback(shares.close)
        return shares


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:  # another name
        return False
