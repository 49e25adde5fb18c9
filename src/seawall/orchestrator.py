"""The orchestrator: what a program makes, extends, opens, asks, and closes."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import msgspec

from seawall.admission.gate import AdmissionGate
from seawall.agents.definition import Agent
from seawall.agents.loop import Emit
from seawall.composition import Engine, Registrations, compose
from seawall.config import AgentSettings, Settings, load_settings
from seawall.errors import ConfigError, Overloaded, Problem
from seawall.events import Event, TurnFailed
from seawall.identity.port import Authenticator, Credential, Trusted
from seawall.models.port import Model
from seawall.models.upstream import Upstream
from seawall.pipeline.identifiers import new_request
from seawall.pipeline.live import LiveTurn
from seawall.pipeline.pipeline import Pipeline
from seawall.pipeline.report import Observe, Observers, TurnReport
from seawall.storage.open import open_memory_store
from seawall.storage.port import SessionStore
from seawall.tools.toolset import Tool, close_toolset, tool
from seawall.turn import Principal, TurnRequest

if TYPE_CHECKING:
    from seawall.hosts.http.app import HttpApplication

__all__ = ["Orchestrator"]

_log = logging.getLogger("seawall.turns")
_EVENTS_AHEAD = 256
_FLUSH_SECONDS = 1.0


class Orchestrator:
    """Answers turns. Made from a configuration, extended in code, opened once, closed once.

    ::

        app = Orchestrator.from_config("seawall.toml")

        @app.tool
        async def opening_hours(city: str) -> str:
            \"\"\"The opening hours of our shop in a city.\"\"\"

        async with app:
            async for event in app.run("When are you open in Oslo?", principal=customer):
                ...
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._tools: dict[str, Tool] = {}
        self._agents = dict(settings.agents)
        self._models: dict[str, Model] = {}
        self._observers = Observers()
        self._opened: Engine | None = None

    @classmethod
    def from_config(cls, path: str | Path) -> "Orchestrator":
        """Read `seawall.toml`.

        Raises:
            ConfigError: the file cannot be read, or something in it is wrong.
        """
        return cls(load_settings(Path(path)))

    def tool(self, function: Callable[..., Any], **options: Any) -> Tool:  # noqa: ANN401 - see `tool`
        """Register a typed function; agents may then name it among their tools.

        options: those of the function `tool`, such as `mutating=True`.
        """
        made = tool(function, **options)
        self._tools[made.name] = made
        return made

    def agent(self, name: str, settings: AgentSettings) -> None:
        """Register an agent in code, as `[agents.NAME]` does in the configuration."""
        self._agents[name] = settings

    def model(self, name: str, model: Model) -> None:
        """Register a model of your own, as `[models.NAME]` does in the configuration."""
        self._models[name] = model

    def observe(self, observer: Observe) -> None:
        """Have `observer` called with the report of every finished turn."""
        self._observers.add(observer)

    async def open(self, *, cold_start: bool = False, concurrency: int | None = None) -> None:
        """Open the store, load tools, train or load the classifier, warm connections and keys.

        quickly: for a cold start, as on Lambda: rather spend a little more on each turn; and do
        nothing between turns, where time may stand still.
        at_once: the most turns that will run at once; no more connections to a model are opened
        ahead.

        Raises:
            ConfigError: something that is configured cannot be had.
            StoreUnavailable: the session store cannot be opened.
        """
        source = self.settings.source
        try:
            self._opened = opened = await compose(
                self.settings,
                Registrations(self._tools, self._agents, self._models, self._observers),
                cold_start=cold_start,
                concurrency=concurrency,
            )
        except ConfigError as error:
            if not source or str(error).startswith(source):
                raise
            raise ConfigError(f"{source}: {error}") from error
        if not cold_start:
            opened.orphan_recovery.start()
        if opened.telemetry is not None:
            opened.telemetry.start()

    async def finish_background(self, seconds: float) -> None:
        """Wait for turns in the background; those that take longer than `seconds` are cancelled.

        Then telemetry is delivered: for a host whose process stands still between turns.
        """
        clock = asyncio.get_running_loop().time
        until = clock() + seconds
        await self._live.pipeline.live.close(seconds)
        if self._live.telemetry is not None:
            left = min(_FLUSH_SECONDS, max(0.0, until - clock()))
            await self._live.telemetry.flush(left)

    @asynccontextmanager
    async def rehearsal(self) -> AsyncGenerator["Orchestrator", None]:
        """The same agents and rules without outside effects: see `pipeline/warmup.py`."""
        from seawall.pipeline.warmup import warmup_ports  # noqa: PLC0415 - only at start

        async with open_memory_store() as store:
            ports = warmup_ports(self._live.pipeline.ports, store)
            stage = Orchestrator(self.settings)
            stage._opened = msgspec.structs.replace(
                self._live,
                pipeline=Pipeline(ports),
                store=ports.store,
                authenticator=ports.authenticator,
                gate=ports.gate,
            )
            yield stage

    async def stop_recovery(self) -> None:
        """The end is near: turns that others left undone are not taken over any more."""
        if self._opened is not None:
            await self._opened.orphan_recovery.stop()

    async def close(self, seconds: float | None = None) -> None:
        """Finish what was accepted by the store, release everything.

        seconds: how long turns in the background may take; None for `server.drain_seconds`.
        """
        opened, self._opened = self._opened, None
        if opened is None:
            return
        await opened.orphan_recovery.stop()
        drain = self.settings.server.drain_seconds if seconds is None else seconds
        await opened.pipeline.live.close(drain)
        await opened.metering.close()
        await opened.store.close()
        opened.detector.close()
        for model in opened.models.values():
            await model.close()
        await opened.client.close()
        if opened.telemetry is not None:
            await opened.telemetry.close()
        for toolset in opened.toolsets:
            await close_toolset(toolset)

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @property
    def ready(self) -> bool:
        """Whether turns can be answered."""
        return self._opened is not None

    @property
    def gate(self) -> AdmissionGate:
        """The admission gate."""
        return self._live.gate

    @property
    def store(self) -> SessionStore:
        """The session store."""
        return self._live.store

    @property
    def authenticator(self) -> Authenticator:
        """Decides who a credential is."""
        return self._live.authenticator

    @property
    def agents(self) -> Mapping[str, Agent]:
        """The agents by name."""
        return self._live.agents

    @property
    def upstreams(self) -> Mapping[str, Upstream]:
        """The configured model endpoints by name, with what is known of them."""
        return self._live.upstreams

    @property
    def upstream_streams(self) -> int:
        """Requests to upstreams that are open now."""
        return self._live.client.open_streams

    async def execute(self, request: TurnRequest, credential: Credential, emit: Emit) -> TurnReport:
        """See `Pipeline.execute`; what hosts call."""
        return await self._live.pipeline.execute(request, credential, emit)

    def start(self, request: TurnRequest, credential: Credential) -> LiveTurn:
        """See `Pipeline.start`; for turns in the background, and those with a key."""
        return self._live.pipeline.start(request, credential)

    def events(
        self, owner: Principal, turn: str, *, after: int = 0
    ) -> AsyncGenerator[tuple[int, Event], None]:
        """See `Pipeline.events`."""
        return self._live.pipeline.events(owner, turn, after=after)

    async def run(
        self, turn: TurnRequest | str, *, principal: Principal
    ) -> AsyncGenerator[Event, None]:
        """Answer one turn of a principal that the caller vouches for; yields events as they happen.

        The last event is `turn.completed` or `turn.failed`. Closing the generator cancels the
        turn.
        """
        request = turn if isinstance(turn, TurnRequest) else new_request(turn)
        events: asyncio.Queue[Event | None] = asyncio.Queue(_EVENTS_AHEAD)

        async def emit(*happened: Event) -> None:
            for event in happened:
                await events.put(event)

        async def produce() -> None:
            try:
                await self.execute(request, Trusted(principal), emit)
            except Problem as problem:
                await events.put(TurnFailed(request.id, problem.as_dict()))
            except Exception:
                await events.put(None)
                raise
            await events.put(None)

        task = asyncio.create_task(produce())
        try:
            while (event := await events.get()) is not None:
                yield event
            await task  # a defect shows here
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    def asgi(self) -> "HttpApplication":
        """The ASGI application: turns API, OpenAI-compatible API, health, metrics."""
        from seawall.hosts.http.app import HttpApplication  # noqa: PLC0415 - only where asked for

        return HttpApplication(self)

    @property
    def _live(self) -> Engine:
        if self._opened is None:
            raise Overloaded("The orchestrator is not open yet.", retry_after=1.0)
        return self._opened
