"""The composition root: settings and registered code become ports, ports become an orchestrator.

Nothing else in the package opens files, reads the environment or chooses an adapter.
"""

import asyncio
import importlib
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import msgspec
from msgspec import Struct

from seawall.admission.gate import Gate
from seawall.admission.open import open_gate
from seawall.agents.definition import Agent, build_agent
from seawall.agents.loop import Emit
from seawall.agents.tools import Tool, Toolset, tool
from seawall.caches.answers import open_answers
from seawall.caches.reads import cached_tools
from seawall.config import AgentSettings, Settings, load_settings
from seawall.errors import ConfigError, Overloaded, Problem
from seawall.events import Event, TurnFailed
from seawall.identity.authenticator import build_authenticator
from seawall.identity.port import Authenticator, Credential, Trusted
from seawall.intents.cascade import IntentDetector, build_detector
from seawall.intents.definition import IntentDefinition
from seawall.models.open import open_models, open_upstreams
from seawall.models.port import Model
from seawall.models.upstream import Upstream
from seawall.pipeline.identifiers import new_request
from seawall.pipeline.live import LiveTurn
from seawall.pipeline.pipeline import Pipeline, Ports
from seawall.pipeline.report import Observe, TurnReport
from seawall.pipeline.resuming import Resuming
from seawall.pipeline.routing import Routing
from seawall.sessions.open import open_store
from seawall.sessions.port import SessionStore
from seawall.transport.errors import TransportError
from seawall.transport.http_client import Endpoint, HttpClient
from seawall.turn import Principal, TurnRequest

if TYPE_CHECKING:
    from seawall.hosts.http.app import HttpApplication

__all__ = ["Orchestrator"]

_MAX_FETCH_BYTES = 1 << 20
_EVENTS_AHEAD = 256


class _Opened(Struct, frozen=True):
    """What exists between open and close."""

    pipeline: Pipeline
    resuming: Resuming
    store: SessionStore
    detector: IntentDetector
    authenticator: Authenticator
    gate: Gate
    agents: dict[str, Agent]
    models: dict[str, Model]
    upstreams: dict[str, Upstream]
    client: HttpClient
    toolsets: tuple[Toolset, ...]


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
        self._observers: list[Observe] = []
        self._opened: _Opened | None = None

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
        self._observers.append(observer)

    async def open(self) -> None:
        """Open the store, load tools, train or load the classifier, warm connections and keys.

        Raises:
            ConfigError: something that is configured cannot be had.
            StoreUnavailable: the session store cannot be opened.
        """
        settings = self.settings
        client = HttpClient(
            max_connections=max(
                (model.connections for model in settings.models.values()), default=1_024
            )
        )
        toolsets = tuple(
            _open_toolset(name, each.factory, each.arguments)
            for name, each in settings.tools.items()
        )
        upstreams = open_upstreams(settings.models, client)
        models = open_models(settings.models, upstreams) | self._models
        sets = (*(each.tools for each in toolsets), tuple(self._tools.values()))
        tools = {each.name: each for made in sets for each in cached_tools(made, settings.caches)}
        agents = {
            name: _build_agent(name, each, models, tools) for name, each in self._agents.items()
        }
        if not agents:
            raise ConfigError("there is no agent; add a table [agents.NAME] to the configuration")
        answers = open_answers(
            {name: each.cache for name, each in self._agents.items()},
            agents,
            settings.caches,
            seconds=settings.turn.turn,
        )
        default = settings.routing.default_agent or next(iter(agents))
        authenticator = build_authenticator(settings.identity, _fetcher(client))
        store = await open_store(settings.sessions)
        detector = await asyncio.to_thread(_build_detector, settings, models)
        gate = open_gate(settings.admission, processes=settings.server.workers)
        ports = Ports(
            authenticator=authenticator,
            store=store,
            detector=detector,
            agents=agents,
            routing=Routing(
                by_intent={
                    name: each.agent for name, each in settings.intents.items() if each.agent
                },
                default=default,
                sticky=settings.routing.sticky,
            ),
            gate=gate,
            limits=settings.turn,
            sessions=settings.sessions,
            observe=self._observe,
            answers=answers,
        )
        pipeline = Pipeline(ports)
        resuming = Resuming(store, settings.sessions, run=pipeline.resume, check=gate.check)
        self._opened = _Opened(
            pipeline=pipeline,
            resuming=resuming,
            store=store,
            detector=detector,
            authenticator=authenticator,
            gate=gate,
            agents=agents,
            models=models,
            upstreams=upstreams,
            client=client,
            toolsets=toolsets,
        )
        async with asyncio.TaskGroup() as group:
            group.create_task(authenticator.warm())
            for model in models.values():
                group.create_task(model.warm())
        resuming.start()

    @asynccontextmanager
    async def rehearsal(self) -> AsyncGenerator["Orchestrator", None]:
        """The same agents and rules without effect: see `pipeline/rehearsal.py`."""
        from seawall.pipeline.rehearsal import rehearsal_ports  # noqa: PLC0415 - only at start

        async with rehearsal_ports(self._live.pipeline.ports) as ports:
            stage = Orchestrator(self.settings)
            stage._opened = msgspec.structs.replace(
                self._live,
                pipeline=Pipeline(ports),
                store=ports.store,
                authenticator=ports.authenticator,
                gate=ports.gate,
            )
            yield stage

    async def leave(self) -> None:
        """The end is near: turns that others left undone are not taken over any more."""
        if self._opened is not None:
            await self._opened.resuming.stop()

    async def close(self, seconds: float | None = None) -> None:
        """Finish what was accepted by the store, release everything.

        seconds: how long turns in the background may take; None for `server.drain_seconds`.
        """
        opened, self._opened = self._opened, None
        if opened is None:
            return
        await opened.resuming.stop()
        drain = self.settings.server.drain_seconds if seconds is None else seconds
        await opened.pipeline.live.close(drain)
        await opened.store.close()
        opened.detector.close()
        for model in opened.models.values():
            await model.close()
        await opened.client.close()
        for toolset in opened.toolsets:
            await asyncio.to_thread(toolset.close)

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
    def gate(self) -> Gate:
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
    def _live(self) -> _Opened:
        if self._opened is None:
            raise Overloaded("The orchestrator is not open yet.", retry_after=1.0)
        return self._opened

    def _observe(self, report: TurnReport) -> None:
        for observer in self._observers:
            observer(report)


def _open_toolset(name: str, factory: str, arguments: dict[str, Any]) -> Toolset:
    module, _, function = factory.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:  # a tool module usually lies beside the configuration
        sys.path.insert(0, here)
    try:
        opened = getattr(importlib.import_module(module), function)(**arguments)
    except (ImportError, AttributeError, TypeError) as error:
        raise ConfigError(f"tools.{name}: {factory}: {error}") from error
    if not isinstance(opened, Toolset):
        raise ConfigError(f"tools.{name}: {factory} must return a Toolset")
    return opened


def _build_agent(
    name: str, settings: AgentSettings, models: dict[str, Model], tools: dict[str, Tool]
) -> Agent:
    if settings.model not in models:
        raise ConfigError(f'agents.{name}.model: unknown model "{settings.model}"')
    for each in settings.tools:
        if each not in tools:
            known = ", ".join(sorted(tools)) or "none"
            raise ConfigError(f'agents.{name}.tools: unknown tool "{each}"; known: {known}')
    return build_agent(
        name,
        instructions=settings.instructions,
        model=models[settings.model],
        tools=tuple(tools[each] for each in settings.tools),
        handoffs=settings.handoffs,
        limits=settings.limits,
        temperature=settings.temperature,
    )


def _build_detector(settings: Settings, models: dict[str, Model]) -> IntentDetector:
    definitions = tuple(
        IntentDefinition(name, each.description, each.examples, each.patterns)
        for name, each in settings.intents.items()
    )
    model = models[settings.routing.intent_model] if settings.routing.intent_model else None
    routing = settings.routing
    return build_detector(
        definitions,
        model=model,
        threshold=routing.intent_threshold,
        embedding_model=routing.embedding_model if routing.classifier == "embeddings" else None,
        cache=Path(routing.classifier_cache) if routing.classifier_cache else None,
    )


def _fetcher(client: HttpClient) -> Callable[[str, float], Awaitable[bytes]]:
    async def fetch(url: str, deadline: float) -> bytes:
        answer = await client.request(
            "GET", Endpoint.parse(url), deadline=deadline, limit=_MAX_FETCH_BYTES
        )
        if answer.status != 200:
            raise TransportError(f"{url} answered with status {answer.status}")
        return answer.body

    return fetch
