"""Composition root: builds the engine from settings and registered code.

Adapters are chosen here and nowhere else. The environment is read by `config.load_settings`, and
here, from where it is passed on; only hosts and commands read it besides. Files are opened by the
adapters that need them, all while `compose` runs: databases, keys, schemas, classifiers, tools.
"""

import asyncio
import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from msgspec import Struct, structs

from seawall.admission.gate import AdmissionGate, open_gate
from seawall.agents import HAND_OFF, Agent, Compaction, Routing, build_agent
from seawall.agents.calls import Emit
from seawall.budgets import Metering, open_metering
from seawall.config import AgentSettings, Settings, ToolsetSettings
from seawall.errors import ConfigError, did_you_mean
from seawall.events import Event
from seawall.identity import Authenticator, Credential
from seawall.identity.authenticator import build_authenticator
from seawall.intents import IntentDefinition
from seawall.intents.cascade import IntentDetector, build_detector
from seawall.models import Model, ModelRequest, TextSink
from seawall.models.open import open_models, open_upstreams
from seawall.models.resilient import ResilientModel
from seawall.models.upstream import Upstream
from seawall.pipeline.context import Observe, Observers, Ports
from seawall.pipeline.live import LiveTurn
from seawall.pipeline.pipeline import Pipeline
from seawall.storage.open import open_memory_store, open_store
from seawall.storage.port import SessionStore
from seawall.tools.port import Tool
from seawall.tools.toolset import Toolset, close_toolset
from seawall.transport.connection import TransportError
from seawall.transport.http_client import Endpoint, HttpClient, Origin
from seawall.turn import Principal, TurnReport, TurnRequest

if TYPE_CHECKING:
    from seawall.agents.attachments import TurnAttachments
    from seawall.attachments.open import OpenAttachments
    from seawall.caches.answers import AnswerCache
    from seawall.console.recording import TurnRecorder
    from seawall.pipeline.compaction import Compactions
    from seawall.pipeline.delivery import NotificationDelivery
    from seawall.pipeline.memory import MemoryReads
    from seawall.pipeline.recovery import OrphanRecovery
    from seawall.storage.counters import Counters
    from seawall.telemetry.open import Telemetry
    from seawall.tools.catalog import ToolCatalog
    from seawall.transport.pacing import ReadPacer

__all__ = [
    "Engine",
    "OpenTools",
    "Registrations",
    "compose",
    "isolated_engine",
    "open_client",
    "open_tools",
]

_MAX_FETCH_BYTES = 1 << 20
_LOOP_PASSES = 12  # of the event loop, until tasks that were started have sent their requests
_FLUSH_SECONDS = 1.0


class Engine(Struct, frozen=True):
    """An open orchestrator, as hosts use it: the pipeline with its ports and their owners.

    Attributes:
        catalog: Tools that live elsewhere; None without any.
        offer: Gives the agents the tools that there are now.
        frozen: Whether the process may be frozen between requests, so that nothing runs then.
        recorder: Recent turns, for the console; None where it is off.
        files: What takes, keeps and expires files of customers; None without `[blobs]`.
    """

    pipeline: Pipeline
    orphan_recovery: "OrphanRecovery | None"
    store: SessionStore
    metering: Metering
    detector: IntentDetector
    authenticator: Authenticator
    gate: AdmissionGate
    agents: dict[str, Agent]
    models: dict[str, Model]
    upstreams: dict[str, Upstream]
    client: HttpClient
    toolsets: tuple[Toolset, ...]
    catalog: "ToolCatalog | None"
    offer: Callable[[], None]
    telemetry: "Telemetry | None"
    frozen: bool
    recorder: "TurnRecorder | None" = None
    files: "OpenAttachments | None" = None

    def execute(
        self,
        request: TurnRequest,
        credential: Credential,
        emit: Emit,
        *,
        sink: TextSink | None = None,
    ) -> Coroutine[Any, Any, TurnReport]:
        """Run a turn; see `Pipeline.execute`."""
        return self.pipeline.execute(request, credential, emit, sink=sink)

    def start(self, request: TurnRequest, credential: Credential) -> LiveTurn:
        """Start a background turn, or one with an idempotency key; see `Pipeline.start`."""
        return self.pipeline.start(request, credential)

    def events(
        self, owner: Principal, turn: str, *, after: int = 0
    ) -> AsyncGenerator[tuple[int, Event], None]:
        """Events of a turn; see `Pipeline.events`."""
        return self.pipeline.events(owner, turn, after=after)

    @property
    def upstream_streams(self) -> int:
        """Requests to upstreams that are open now."""
        return self.client.open_streams

    def start_tasks(self) -> None:
        """Start what runs in the background: telemetry, and recovery of orphaned turns."""
        if self.orphan_recovery is not None and not self.frozen:
            self.orphan_recovery.start()
        if self.catalog is not None:
            self.catalog.start(self.offer)
        if self.files is not None and not self.frozen:
            self.files.sweep.start()
        if self.telemetry is not None:
            self.telemetry.start()

    async def stop_recovery(self) -> None:
        """Stop recovering orphaned turns: the process is about to end."""
        if self.orphan_recovery is not None:
            await self.orphan_recovery.stop()

    async def drain(self, seconds: float) -> None:
        """Wait for background turns and deliver what is due; for hosts that freeze between turns.

        Args:
            seconds: Background turns that take longer are cancelled.
        """
        clock = asyncio.get_running_loop().time
        until = clock() + seconds
        if self.orphan_recovery is not None and self.frozen:
            await self.orphan_recovery.scan_if_due(seconds)
        await self.pipeline.live.close(max(0.0, until - clock()))
        if self.pipeline.ports.notifications is not None:
            await self.pipeline.ports.notifications.settle(max(0.0, until - clock()))
        if self.pipeline.ports.compactions is not None:
            await self.pipeline.ports.compactions.settle(max(0.0, until - clock()))
        if self.telemetry is not None:
            await self.telemetry.flush(min(_FLUSH_SECONDS, max(0.0, until - clock())))

    async def close(self, seconds: float) -> None:
        """Release everything.

        Args:
            seconds: How long background turns may take before.
        """
        await self.stop_recovery()
        await self.pipeline.live.close(seconds)
        if self.pipeline.ports.notifications is not None:
            await self.pipeline.ports.notifications.close()
        if self.pipeline.ports.compactions is not None:
            await self.pipeline.ports.compactions.settle(0.0)
        await self.metering.close()
        if self.files is not None:
            await self.files.close()
        await self.store.close()
        self.detector.close()
        for model in self.models.values():
            await model.close()
        if self.catalog is not None:
            await self.catalog.close()
        await self.client.close()
        if self.telemetry is not None:
            await self.telemetry.close()
        for toolset in self.toolsets:
            await close_toolset(toolset)


@asynccontextmanager
async def isolated_engine(engine: Engine) -> AsyncGenerator[Engine, None]:
    """An engine for warm-up turns, without effects on anything outside."""
    from seawall.pipeline.warmup import warmup_ports  # noqa: PLC0415 - only at start

    async with open_memory_store() as store:
        ports = warmup_ports(engine.pipeline.ports, store)
        yield structs.replace(
            engine,
            pipeline=Pipeline(ports),
            store=ports.store,
            authenticator=ports.authenticator,
            gate=ports.gate,
        )


class OpenTools(Struct, frozen=True):
    """The tools of a configuration, without the rest of it.

    Attributes:
        tools: By name, with what is declared of them.
        sources: The table that each is of, by its name.
        catalog: Tools that live elsewhere; None without any.
    """

    tools: dict[str, Tool]
    sources: dict[str, str]
    catalog: "ToolCatalog | None"


@asynccontextmanager
async def open_tools(
    settings: Settings, environment: Mapping[str, str] = os.environ
) -> AsyncGenerator[OpenTools, None]:
    """The tools that a configuration names, for commands.

    Raises:
        ConfigError: Something that is configured is missing or invalid.
    """
    opened = {
        name: _open_toolset(name, each, settings.folder) for name, each in settings.tools.items()
    }
    toolsets = tuple(opened.values())
    catalog = None
    try:
        documents: tuple[Tool, ...] = ()
        if settings.knowledge:
            toolsets += (_open_knowledge(settings, light=True),)
            documents = toolsets[-1].tools
        catalog = await _open_catalog(settings, {}, toolsets, environment, stateless=False)
        made = {name: each.tools for name, each in opened.items()}
        if catalog is not None:
            made |= catalog.tools
        yield OpenTools(
            tools=_offered(_without_memory_tools(settings), {}, toolsets, catalog),
            sources={tool.name: name for name, each in made.items() for tool in each}
            | {tool.name: "knowledge" for tool in documents},
            catalog=catalog,
        )
    finally:
        if catalog is not None:
            await catalog.close()
        for each in toolsets:
            await close_toolset(each)


class Registrations(Struct, frozen=True):
    """What was registered in code; `observe` is called with the report of every finished turn."""

    tools: dict[str, Tool]
    agents: dict[str, AgentSettings]
    models: dict[str, Model]
    observe: Observe


async def compose(
    settings: Settings,
    registered: Registrations,
    *,
    cold_start: bool,
    concurrency: int | None = None,
    stateless: bool = False,
    environment: Mapping[str, str] = os.environ,
    detector: IntentDetector | None = None,
) -> Engine:
    """Open and warm everything; see `Orchestrator.open`.

    Args:
        settings: The configuration.
        registered: What was registered in code.
        cold_start: As for `Orchestrator.open`.
        concurrency: As for `Orchestrator.open`.
        stateless: As for `Orchestrator.open`.
        environment: Credentials, regions and OpenTelemetry's variables are read from it.
        detector: One that was built before of the same configuration; None to build one.

    Raises:
        ConfigError: Something that is configured is missing or invalid.
        StoreUnavailable: The session store cannot be opened.
    """
    if concurrency is not None:
        settings = _cap_warm_connections(settings, concurrency)
    async with AsyncExitStack() as opened:  # closed again if anything fails or is cancelled
        gate = open_gate(settings.admission, processes=settings.server.workers)
        client = open_client(settings, None if cold_start else _open_pacer(settings, gate))
        _close_on_failure(opened, client)
        first = await _open_first(
            settings, client, environment, opened, light=cold_start, detector=detector
        )
        catalog = await _open_catalog(
            settings, registered.tools, first.toolsets, environment, stateless=stateless
        )
        _close_on_failure(opened, catalog)
        engine = await _assemble(
            settings,
            registered,
            first,
            opened,
            client=client,
            catalog=catalog,
            gate=gate,
            light=cold_start,
            frozen=cold_start and (concurrency or 1) == 1,
            environment=environment,
        )
        opened.pop_all()
    return engine


class _Closes(Protocol):
    async def close(self) -> None: ...


def _close_on_failure(opened: AsyncExitStack, *each: _Closes | None) -> None:
    for one in each:
        if one is not None:
            opened.push_async_callback(one.close)


def _open_pacer(settings: Settings, gate: AdmissionGate) -> "ReadPacer | None":
    """What paces the streams of models; None if they may not be delayed."""
    if not settings.server.flush_delay_seconds:
        return None
    from seawall.transport.pacing import ReadPacer  # noqa: PLC0415 - not for one turn at a time

    return ReadPacer(settings.server.flush_delay_seconds, waited=lambda: gate.waited)


def open_client(settings: Settings, pacer: "ReadPacer | None" = None) -> HttpClient:
    """The HTTP client of models, key sets and notifications.

    Args:
        settings: The configuration.
        pacer: Of the streams of models.

    Raises:
        ConfigError: A file of authorities cannot be used.
    """
    client = HttpClient(
        max_connections=max(
            (model.max_connections for model in settings.models.values()), default=1_024
        ),
        pacer=pacer,
    )
    files: dict[Origin, str] = {}
    for key, url, file in _authorities(settings):
        from seawall.transport.tls import tls_context  # noqa: PLC0415 - only if configured

        origin = Endpoint.parse(url).origin
        if files.setdefault(origin, file) != file:
            raise ConfigError(f"{key}: {files[origin]} is set for {origin.host}:{origin.port}")
        client.trust(origin, tls_context(file, key=key))
    return client


def _authorities(settings: Settings) -> Iterator[tuple[str, str, str]]:
    """The files of authorities: their keys, the addresses that they are for, and their paths."""
    for name, model in settings.models.items():
        if model.ca_file:
            yield f"models.{name}.ca_file", model.base_url, model.ca_file
    jwt, handover = settings.identity.jwt, settings.handover
    if jwt is not None and jwt.ca_file:
        yield "identity.jwt.ca_file", jwt.jwks_url, jwt.ca_file
    if handover.ca_file:
        yield "handover.ca_file", handover.url, handover.ca_file


def _cap_warm_connections(settings: Settings, connections: int) -> Settings:
    models = {
        name: structs.replace(each, warm_connections=min(each.warm_connections, connections))
        for name, each in settings.models.items()
    }
    return structs.replace(settings, models=models)


async def _assemble(
    settings: Settings,
    registered: Registrations,
    first: "_OpenedFirst",
    opened: AsyncExitStack,
    *,
    client: HttpClient,
    catalog: "ToolCatalog | None",
    gate: AdmissionGate,
    light: bool,
    frozen: bool,
    environment: Mapping[str, str],
) -> Engine:
    """Build everything that uses the open store."""
    authenticator, store, toolsets = first.authenticator, first.store, first.toolsets
    metering = await open_metering(settings, partial(_open_counters, store))
    telemetry = _telemetry(settings, environment)
    _close_on_failure(opened, metering, telemetry)
    recorder = None
    if settings.has_console and not light:
        from seawall.console.recording import TurnRecorder  # noqa: PLC0415 - only where it is on

        recorder = TurnRecorder(settings.console.turns)

    def trace_attempts(name: str, model: Model) -> Model:
        metered = _metered(metering, name, model)
        if telemetry is None and recorder is not None:
            return recorder.model(f"attempt {name}", metered, traced=False)
        return metered if telemetry is None else telemetry.trace_attempts(name, metered)

    upstreams = open_upstreams(
        settings.models,
        client,
        environment,
        metered=trace_attempts,
        quotas=metering.quotas,
    )
    resilient = open_models(settings.models, upstreams)
    models: dict[str, Model] = dict(resilient)
    if registered.models:
        from seawall.models.wrappers import GuardedModel  # noqa: PLC0415 - only where there are

        models |= {
            name: _metered(metering, name, GuardedModel(name, each))
            for name, each in registered.models.items()
        }
    if recorder is not None:
        models = {
            name: recorder.model(f"model {name}", each, traced=telemetry is not None)
            for name, each in models.items()
        }
    if telemetry is not None:
        models = {name: telemetry.trace_chat(name, each) for name, each in models.items()}
    _close_on_failure(opened, *models.values())
    notifications, built_in = None, dict[str, Tool]()
    if settings.handover.url:
        notifications, built_in = _open_handover(settings, store, client, environment)
    remembering = _memory_tools(settings, registered.agents, store)
    agents: dict[str, Agent] = {}

    def offer() -> None:
        tools = _offered(
            settings,
            registered.tools,
            toolsets,
            catalog,
            built_in=built_in,
            remembering=remembering,
        )
        made = {
            name: _build_agent(name, each, models, tools, catalog)
            for name, each in registered.agents.items()
        }
        _check_agents(made, settings)
        agents.update(made)

    offer()
    _check_exposed(settings, agents)
    answers = _open_answers(settings, registered, agents)
    files = await _open_files(settings, store, environment)
    _close_on_failure(opened, files)
    default = settings.routing.default_agent or next(iter(agents))
    detector = await _open_detector(settings, models, first.detector, light=light)
    ports = Ports(
        authenticator=authenticator,
        store=store,
        detector=detector,
        agents=agents,
        routing=Routing(
            by_intent={name: each.agent for name, each in settings.intents.items() if each.agent},
            default=default,
            sticky=settings.routing.sticky,
        ),
        gate=gate,
        limits=settings.turn,
        sessions=settings.sessions,
        observe=_observers(registered.observe, telemetry, recorder),
        answers=answers,
        spending=metering.spending,
        tracer=telemetry.recorder if telemetry is not None else None,
        next_message=settings.effects.next_message,
        approval_seconds=settings.effects.approval_seconds,
        client_seconds=settings.effects.client_seconds,
        notifications=notifications,
        person_notice=settings.handover.notice,
        check_quota=_quota_check(registered, resilient) if metering.quotas else None,
        compactions=_open_compactions(registered, store, metering),
        attachments=_turn_attachments(settings, files),
        memory=_open_memory(settings, registered, store),
    )
    pipeline = Pipeline(ports, recorder)
    orphan_recovery = None
    if not light or notifications is not None:
        from seawall.pipeline.recovery import OrphanRecovery  # noqa: PLC0415

        orphan_recovery = OrphanRecovery(
            store,
            settings.sessions,
            run=pipeline.run_job,
            busy=lambda: gate.busy,
            notifications=notifications,
        )
    return Engine(
        pipeline=pipeline,
        orphan_recovery=orphan_recovery,
        store=store,
        metering=metering,
        detector=detector,
        authenticator=authenticator,
        gate=gate,
        agents=agents,
        models=models,
        upstreams=upstreams,
        client=client,
        toolsets=toolsets,
        catalog=catalog,
        offer=offer if answers is None else partial(_offer_anew, offer, answers),
        telemetry=telemetry,
        frozen=frozen,
        recorder=recorder,
        files=files,
    )


def _check_exposed(settings: Settings, agents: Mapping[str, Agent]) -> None:
    """Check that the agents of `[mcp]` are there; settings from a file were checked before."""
    for name in settings.mcp.agents if settings.mcp is not None else ():
        if name not in agents:
            raise ConfigError(f'mcp.agents: unknown agent "{name}"; known: {", ".join(agents)}')


async def _open_files(
    settings: Settings, store: SessionStore, environment: Mapping[str, str]
) -> "OpenAttachments | None":
    """What takes files of customers; None without `[blobs]`."""
    if settings.blobs is None:
        return None
    from seawall.attachments.open import open_attachments  # noqa: PLC0415 - only if configured

    return await open_attachments(
        settings.blobs,
        settings.attachments,
        store,
        grace_seconds=settings.sessions.background_seconds + settings.turn.turn,
        environment=environment,
    )


def _turn_attachments(
    settings: Settings, files: "OpenAttachments | None"
) -> "TurnAttachments | None":
    if files is None:
        return None
    from seawall.agents.attachments import ShownBounds, TurnAttachments  # noqa: PLC0415 - likewise

    shown = settings.attachments
    bounds = ShownBounds(
        shown.shown_images, shown.shown_documents, shown.shown_bytes, shown.shown_tokens
    )
    return TurnAttachments(bounds, files.contents_of)


def _open_answers(
    settings: Settings, registered: Registrations, agents: dict[str, Agent]
) -> "AnswerCache | None":
    """The cache of answers; None if no agent is cacheable."""
    cacheable = {
        name: each.cache for name, each in registered.agents.items() if each.cache is not None
    }
    if not cacheable:
        return None
    from seawall.caches.answers import AnswerCache  # noqa: PLC0415 - only if configured

    return AnswerCache(cacheable, agents, settings.caches, seconds=settings.turn.turn)


def _open_compactions(
    registered: Registrations, store: SessionStore, metering: Metering
) -> "Compactions | None":
    """The compactions of sessions; None if no agent has any."""
    if all(each.compaction == "none" for each in registered.agents.values()):
        return None
    from seawall.pipeline.compaction import Compactions  # noqa: PLC0415 - only if configured

    return Compactions(store, metering.spending)


def _open_memory(
    settings: Settings, registered: Registrations, store: SessionStore
) -> "MemoryReads | None":
    """What reads the memories of users; None if no agent has one."""
    owners = frozenset(name for name, each in registered.agents.items() if each.memory)
    if not owners:
        return None
    from seawall.pipeline.memory import MemoryReads  # noqa: PLC0415 - only if configured

    return MemoryReads(
        store.facts(),
        owners=owners,
        handoffs={name: each.handoffs for name, each in registered.agents.items()},
        seconds=settings.memory.read_seconds,
    )


def _memory_tools(
    settings: Settings, agents: Mapping[str, AgentSettings], store: SessionStore
) -> dict[str, Tool]:
    """The built-in tools of agents with a memory; none if there are no such agents."""
    if not any(each.memory for each in agents.values()):
        return {}
    from seawall.tools.memory import MEMORY_TOOLS, memory_tools  # noqa: PLC0415 - if configured

    for name, each in agents.items():
        for wanted in MEMORY_TOOLS:
            if wanted in each.tools:
                raise ConfigError(
                    f"agents.{name}.tools: {wanted} is a built-in tool; set agents.{name}.memory"
                )
    return memory_tools(store.facts(), settings.memory)


def _without_memory_tools(settings: Settings) -> Settings:
    """The settings without what they declare of tools that are not opened for commands."""
    if not any(each.memory for each in settings.agents.values()):
        return settings
    from seawall.tools.memory import MEMORY_TOOLS  # noqa: PLC0415 - only if configured

    declared = settings.effects.tools.items()
    tools = {name: each for name, each in declared if name not in MEMORY_TOOLS}
    return structs.replace(settings, effects=structs.replace(settings.effects, tools=tools))


def _offer_anew(offer: Callable[[], None], answers: "AnswerCache") -> None:
    offer()
    answers.follow_agents()


async def _open_catalog(
    settings: Settings,
    registered: Mapping[str, Tool],
    toolsets: tuple[Toolset, ...],
    environment: Mapping[str, str],
    *,
    stateless: bool,
) -> "ToolCatalog | None":
    """The tools of sources elsewhere, listed; None if none is configured."""
    if not settings.sources:
        return None
    try:
        from seawall.tools.sources import open_catalog  # noqa: PLC0415 - only if configured
    except ImportError as error:
        raise ConfigError(
            f"tools of OpenAPI documents and MCP servers need the extra 'tools': "
            f"pip install 'seawall[tools]' ({error})"
        ) from None

    own = {each.name for made in toolsets for each in made.tools}
    catalog = open_catalog(
        settings.sources,
        folder=settings.folder,
        environment=environment,
        tenants=settings.tenants,
        taken=frozenset(own | registered.keys() | {HAND_OFF}),
        stateless=stateless,
    )
    try:
        await catalog.list_all()
    except BaseException:
        await catalog.close()
        raise
    return catalog


def _offered(
    settings: Settings,
    registered: Mapping[str, Tool],
    toolsets: tuple[Toolset, ...],
    catalog: "ToolCatalog | None",
    *,
    built_in: Mapping[str, Tool] = {},
    remembering: Mapping[str, Tool] = {},
) -> dict[str, Tool]:
    """All tools by name, with their caches and what the configuration declares of them.

    `built_in`: that of the hand-over, of which nothing is declared. `remembering`: those of memory.
    """
    elsewhere = catalog.tools.values() if catalog is not None else ()
    sets = (*(each.tools for each in toolsets), tuple(registered.values()), *elsewhere)
    if any(each.cache_seconds is not None for made in sets for each in made):
        from seawall.caches.tool_reads import cached_tools, share_of_limits  # noqa: PLC0415

        share = share_of_limits(settings.caches, sets)
        sets = tuple(cached_tools(each, share) for each in sets)
    tools = {each.name: each for made in sets for each in made}
    if settings.knowledge:
        _check_searches(settings, [each.name for made in sets for each in made])
    for name in built_in.keys() & tools.keys():
        raise ConfigError(f"handover: the name of the tool {name} is that of the built-in one")
    for name in remembering.keys() & tools.keys():
        raise ConfigError(f"memory: the name of the tool {name} is that of the built-in one")
    tools |= remembering
    declared = settings.effects.tools
    if declared:
        from seawall.tools.declared import apply_policies  # noqa: PLC0415 - only if configured

        if catalog is not None and catalog.unavailable:
            declared = {name: each for name, each in declared.items() if name in tools}
        tools = apply_policies(tools, declared)
    return {**tools, **built_in}


def _check_searches(settings: Settings, names: list[str]) -> None:
    """Check that no other tool has the name of one that searches documents."""
    for name in settings.knowledge:
        if names.count(f"search_{name}") > 1:
            raise ConfigError(f"knowledge.{name}: there is another tool search_{name}")


def _open_handover(
    settings: Settings,
    store: SessionStore,
    client: HttpClient,
    environment: Mapping[str, str],
) -> "tuple[NotificationDelivery, dict[str, Tool]]":
    """What delivers notifications of the hand-over, and its built-in tool."""
    from seawall.pipeline.delivery import NotificationDelivery  # noqa: PLC0415 - likewise
    from seawall.tools.handover import HAND_OVER, handover_tool  # noqa: PLC0415 - if configured
    from seawall.transport.webhook import Webhook, decode_secret  # noqa: PLC0415 - likewise

    handover = settings.handover
    try:
        secret = (
            environment.get(handover.secret_env, "")
            if handover.secret_env
            else Path(handover.secret_file).read_text(encoding="utf-8").strip()
        )
        webhook = Webhook(client, handover.url, decode_secret(secret))
    except (OSError, ValueError) as error:
        raise ConfigError(f"handover: secret: {error}") from error
    made = handover_tool(handover.description, role=handover.role, seconds=handover.seconds)
    return NotificationDelivery(store, webhook.deliver), {HAND_OVER: made}


def _quota_check(
    registered: Registrations, models: Mapping[str, ResilientModel]
) -> Callable[[str, ModelRequest, float, str], None]:
    """See `Ports.check_quota`; models that were registered in code have no quota."""
    by_agent = {
        name: models[each.model]
        for name, each in registered.agents.items()
        if each.model in models and each.model not in registered.models
    }

    def check(agent: str, request: ModelRequest, deadline: float, tenant: str) -> None:
        if agent in by_agent:
            by_agent[agent].check_quota(request, deadline, tenant)

    return check


def _metered(metering: Metering, name: str, model: Model) -> Model:
    """The model with its price; as it is, where nothing is metered."""
    if not metering.counts:
        return model
    from seawall.models.metering import MeteredModel  # noqa: PLC0415 - only if configured

    return MeteredModel(name, model, price=metering.price_of(name))


async def _open_counters(store: SessionStore) -> "Counters":
    counters = store.counters()
    await counters.open()
    return counters


def _telemetry(settings: Settings, environment: Mapping[str, str]) -> "Telemetry | None":
    """None without an endpoint to export to; nothing of it is imported then."""
    if not (settings.telemetry.endpoint or environment.get("OTEL_EXPORTER_OTLP_ENDPOINT")):
        return None
    if environment.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return None
    from seawall.telemetry.open import open_telemetry  # noqa: PLC0415

    return open_telemetry(settings.telemetry, settings.models, environment)


def _observers(
    observe: Observe, telemetry: "Telemetry | None", recorder: "TurnRecorder | None"
) -> Observe:
    observers = Observers()
    observers.add(observe)
    if recorder is not None:
        observers.add(recorder.observe)
    if telemetry is not None:
        observers.add(telemetry.observe)
    return observers


def _open_toolset(name: str, settings: ToolsetSettings, folder: str) -> Toolset:
    """The toolset that a factory makes; its module is beside the configuration or importable."""
    from seawall.user_code import call_factory, find_object  # noqa: PLC0415 - only if configured

    key = f"tools.{name}"
    here = str(Path.cwd())
    beside = str(Path(here, folder))
    factory = find_object(settings.factory, (beside, here), key=key)

    def resolve(argument: str, value: str) -> str:
        return str(Path(here if argument in settings.from_environment else beside, value))

    opened = call_factory(factory, settings.arguments, key=key, resolve=resolve)
    if not isinstance(opened, Toolset):
        raise ConfigError(
            f"{key}: {settings.factory} must return a Toolset, not {type(opened).__name__}"
        )
    return opened


def _open_knowledge(settings: Settings, *, light: bool) -> Toolset:
    """The tools that search the folders of documents."""
    from seawall.knowledge.tool import open_knowledge  # noqa: PLC0415 - only if configured

    return open_knowledge(settings.knowledge, light=light)


def _build_agent(
    name: str,
    settings: AgentSettings,
    models: dict[str, Model],
    tools: dict[str, Tool],
    catalog: "ToolCatalog | None",
) -> Agent:
    if settings.model not in models:
        raise ConfigError(f'agents.{name}.model: unknown model "{settings.model}"')
    names, missing = _tool_names(name, settings.tools, tools, catalog)
    if settings.handover:
        from seawall.tools.handover import HAND_OVER  # noqa: PLC0415 - only if configured

        if HAND_OVER not in tools:
            raise ConfigError(
                f"agents.{name}.handover: set handover.url, handover.role and a secret"
            )
        names = (*(each for each in names if each != HAND_OVER), HAND_OVER)
    if settings.memory:
        from seawall.tools.memory import MEMORY_TOOLS  # noqa: PLC0415 - only if configured

        names = (*names, *MEMORY_TOOLS)
    output = None
    if settings.output is not None:
        from seawall.agents.output import build_output  # noqa: PLC0415 - only if configured

        output = build_output(name, settings.output)
    instructions = settings.instructions
    if missing:
        instructions += (
            f"\n\nThe tools of {', '.join(sorted(missing))} are not available now. If they are "
            "needed, say that it cannot be done at the moment."
        )
    return build_agent(
        name,
        instructions=instructions,
        model=models[settings.model],
        tools=tuple(tools[each] for each in names),
        handoffs=settings.handoffs,
        limits=settings.limits,
        temperature=settings.temperature,
        output=output,
        reasoning=settings.reasoning,
        description=settings.description,
        compaction=_compaction(name, settings, models),
        client_tools=settings.client_tools,
        client_instructions=settings.client_instructions,
        memory=settings.memory,
    )


def _compaction(
    name: str, settings: AgentSettings, models: Mapping[str, Model]
) -> Compaction | None:
    """How an agent's conversations are summarised; None if they are not."""
    if settings.compaction == "none":
        return None
    wanted = settings.summary_model or settings.model
    if wanted not in models:
        raise ConfigError(f'agents.{name}.summary_model: unknown model "{wanted}"')
    return Compaction(models[wanted], settings.summary_tokens, settings.limits.model_seconds)


def _tool_names(
    agent: str,
    wanted: tuple[str, ...],
    tools: dict[str, Tool],
    catalog: "ToolCatalog | None",
) -> tuple[tuple[str, ...], set[str]]:
    """The tools that an agent names, "SOURCE.*" for all of a source; and sources that are down.

    Raises:
        ConfigError: A tool does not exist.
    """
    names: dict[str, None] = {}
    missing: set[str] = set()
    down = catalog.unavailable if catalog is not None else set()
    for each in wanted:
        source, _, rest = each.partition(".")
        if rest == "*" and catalog is not None and source in catalog.sources:
            names |= dict.fromkeys(made.name for made in catalog.tools.get(source, ()))
            missing |= {source} & down
        elif each in tools:
            names[each] = None
        elif down:  # it may be of a source that is not listed yet
            missing |= down
        else:
            known = ", ".join(sorted(tools)) or "none"
            meant = did_you_mean(each, tools)
            raise ConfigError(f'agents.{agent}.tools: unknown tool "{each}"{meant}; known: {known}')
    return tuple(names), missing


def _check_agents(agents: Mapping[str, Agent], settings: Settings) -> None:
    """Check that there are agents, and leases under which their journals are written.

    Raises:
        ConfigError: There are none.
    """
    if not agents:
        raise ConfigError("there is no agent; add a table [agents.NAME] to the configuration")
    for agent in agents.values() if not settings.sessions.lease_seconds else ():
        for each in agent.tools.values():
            if each.mutating:
                raise ConfigError(
                    f"sessions.lease_seconds: must be more than 0, because the tool {each.name} "
                    f"of the agent {agent.name} changes something"
                )


class _OpenedFirst(Struct, frozen=True):
    """What is opened before all that uses the store; `detector` only if it was built already."""

    store: SessionStore
    authenticator: Authenticator
    toolsets: tuple[Toolset, ...]
    detector: IntentDetector | None


async def _open_first(
    settings: Settings,
    client: HttpClient,
    environment: Mapping[str, str],
    opened: AsyncExitStack,
    *,
    light: bool,
    detector: IntentDetector | None,
) -> _OpenedFirst:
    """Open the store and, while it answers, load keys, tools and a light intent detector.

    All but the store are imported on the event loop and block it, so its request is sent before,
    and what arrives in between is read after each of them.
    """

    async def open_sessions() -> SessionStore:
        store = await open_store(
            settings.sessions,
            environment,
            read_only=False,
            audit_keep_seconds=settings.effects.keep_seconds,
        )
        _close_on_failure(opened, store)
        return store

    try:
        async with asyncio.TaskGroup() as group:
            opening = group.create_task(open_sessions())
            await _let_others_run()
            authenticator = build_authenticator(settings.identity, _fetcher(client), light=light)
            group.create_task(authenticator.warm())
            await _let_others_run()
            toolsets: tuple[Toolset, ...] = ()
            for name, each in settings.tools.items():
                toolsets += (_open_toolset(name, each, settings.folder),)
                opened.push_async_callback(close_toolset, toolsets[-1])
                await _let_others_run()
            if settings.knowledge:
                toolsets += (await asyncio.to_thread(_open_knowledge, settings, light=light),)
                opened.push_async_callback(close_toolset, toolsets[-1])
            if detector is None and light and not settings.routing.intent_model:
                detector = _build_detector(settings, {})
                opened.callback(detector.close)
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from None
    return _OpenedFirst(opening.result(), authenticator, toolsets, detector)


async def _let_others_run() -> None:
    """Let tasks that were started send their requests and read what arrived."""
    for _ in range(_LOOP_PASSES):
        await asyncio.sleep(0)


async def _open_detector(
    settings: Settings, models: dict[str, Model], built: IntentDetector | None, *, light: bool
) -> IntentDetector:
    """Build the intent detector, if it is not built already, while connections to models open.

    Building it may take seconds and is done in a thread. A light one is built on the event loop,
    which has nothing else to do then.
    """
    try:
        async with asyncio.TaskGroup() as group:
            for model in models.values():
                group.create_task(model.warm())
            if built is not None:
                return built
            if light:
                await _let_others_run()
                return _build_detector(settings, models)
            building = asyncio.to_thread(_build_detector, settings, models)
            detecting = group.create_task(building)
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from None
    return detecting.result()


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
