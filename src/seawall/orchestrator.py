"""The orchestrator: what a program creates, extends, opens, runs turns on, and closes."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from msgspec import structs

from seawall.composition import Engine, Registrations, compose
from seawall.config import AgentSettings, Settings, load_settings
from seawall.errors import ConfigError, InvalidField, Overloaded, Problem
from seawall.events import Event, TurnFailed
from seawall.identity import Trusted
from seawall.intents.cascade import IntentDetector
from seawall.models import Model
from seawall.pipeline.context import Observe, Observers
from seawall.requests import new_request
from seawall.tools.port import Tool
from seawall.tools.toolset import tool
from seawall.turn import Principal, TurnRequest

if TYPE_CHECKING:
    from seawall.hosts.http.app import HttpApplication

__all__ = ["Orchestrator"]

_EVENTS_AHEAD = 256


class Orchestrator:
    """Runs turns. Created from a configuration, extended in code, opened once, closed once.

    ::

        app = Orchestrator.from_config("seawall.toml")

        @app.tool
        async def opening_hours(city: str) -> str:
            \"\"\"The opening hours of our shop in a city.\"\"\"

        async with app:
            async for event in app.run("When are you open in Oslo?", principal=user):
                ...
    """

    def __init__(self, settings: Settings, *, engine: Engine | None = None) -> None:
        """Create an orchestrator.

        Args:
            settings: The configuration; `from_config` reads it from a file.
            engine: An engine that is open already, for hosts; else `open` makes one.
        """
        self.settings = settings
        self._tools: dict[str, Tool] = {}
        self._agents = dict(settings.agents)
        self._models: dict[str, Model] = {}
        self._observers = Observers()
        self._engine = engine
        self._detector: IntentDetector | None = None  # of an engine that was closed

    @classmethod
    def from_config(cls, path: str | Path) -> "Orchestrator":
        """Create an orchestrator from a configuration file.

        Args:
            path: The file, usually `seawall.toml`.

        Raises:
            ConfigError: The file cannot be read, or something in it is wrong.
        """
        return cls(load_settings(Path(path)))

    def tool(self, function: Callable[..., Any], **options: Any) -> Tool:  # noqa: ANN401 - see `tool`
        """Register a typed function as a tool, which agents may then name; also a decorator.

        Args:
            function: The function; see `tool`.
            options: Options of `tool`, such as `mutating=True`.
        """
        made = tool(function, **options)
        self._tools[made.name] = made
        return made

    def agent(self, name: str, settings: AgentSettings) -> None:
        """Register an agent, as `[agents.NAME]` does in the configuration."""
        self._agents[name] = settings

    def model(self, name: str, model: Model) -> None:
        """Register a model; it replaces the table `[models.NAME]` of the same name.

        Args:
            name: Name by which agents refer to it.
            model: An implementation of the `Model` port, such as a `ScriptedModel`.
        """
        self._models[name] = model

    def observe(self, observer: Observe) -> None:
        """Call `observer` with the `TurnReport` of every finished turn; it must not block."""
        self._observers.add(observer)

    async def open(
        self,
        *,
        cold_start: bool = False,
        concurrency: int | None = None,
        stateless: bool = False,
    ) -> None:
        """Open the store, load tools, train or load the classifier, warm connections and keys.

        Args:
            cold_start: Start as quickly as possible, at a slightly higher cost of each turn, and do
                nothing between turns, when the process may be frozen (AWS Lambda).
            concurrency: The most turns that will run at once; no more connections to a model are
                opened ahead. None for no bound.
            stateless: Refuse tools whose server is started here or keeps a session: the process may
                be frozen or end after any turn (AWS Lambda).

        Raises:
            ConfigError: Something that is configured is missing or invalid.
            StoreUnavailable: The session store cannot be opened.
        """
        source = self.settings.source
        try:
            self._engine = await compose(
                self.settings,
                Registrations(self._tools, self._agents, self._models, self._observers),
                cold_start=cold_start,
                concurrency=concurrency,
                stateless=stateless,
                detector=self._detector,
            )
        except ConfigError as error:
            if not source or str(error).startswith(source):
                raise
            raise ConfigError(f"{source}: {error}") from error
        self._engine.start_tasks()

    async def close(self, seconds: float | None = None) -> None:
        """Drain background turns, then release everything. Idempotent.

        Args:
            seconds: How long background turns may take; None for `server.drain_seconds`.
        """
        engine, self._engine = self._engine, None
        if engine is not None:
            await engine.close(self.settings.server.drain_seconds if seconds is None else seconds)
            self._detector = None if engine.detector.may_wait else engine.detector

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @property
    def ready(self) -> bool:
        """Whether it is open, so that turns can be answered."""
        return self._engine is not None

    @property
    def engine(self) -> Engine:
        """What is open, for hosts: programs need it only to write a host of their own.

        Raises:
            Overloaded: The orchestrator is not open.
        """
        if self._engine is None:
            raise Overloaded("The orchestrator is not open yet.", retry_after=1.0)
        return self._engine

    async def run(
        self, turn: TurnRequest | str, *, principal: Principal
    ) -> AsyncGenerator[Event, None]:
        """Run one turn and yield its events as they happen.

        Closing the generator cancels the turn.

        Args:
            turn: The user's message, or a request made by `new_request`.
            principal: Tenant and subject of the turn; the caller has authenticated them.

        Yields:
            Events; the last one is `TurnCompleted` or `TurnFailed`.
        """
        request = turn if isinstance(turn, TurnRequest) else new_request(turn)
        events: asyncio.Queue[Event | None] = asyncio.Queue(_EVENTS_AHEAD)

        async def emit(*happened: Event) -> None:
            for event in happened:
                await events.put(event)

        async def produce() -> None:
            try:
                await self.engine.execute(request, Trusted(principal), emit)
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
            await task  # raises if there was a defect
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def attach(
        self, request: TurnRequest, content: bytes, *, principal: Principal, name: str = ""
    ) -> TurnRequest:
        """Add a file to the message of a request; see `[blobs]`.

        Args:
            request: Made by `new_request`.
            content: Bytes of an image, a PDF or a text.
            principal: Tenant and subject of the turn.
            name: As the user calls the file.

        Returns:
            The request with the file.

        Raises:
            InvalidField: The file is not accepted, or no store for files is configured.
            StorageExhausted: There is no room for it.
        """
        files = self.engine.files
        if files is None:
            raise InvalidField("[blobs] is not configured.", field="attachments")
        intake, number = files.intake, len(request.attachments)
        intake.check_count(number + 1, number + 1, "attachments")
        made = await intake.attach_content(
            principal, request.session, content, name=name, field="attachments"
        )
        attachments = (*request.attachments, made)
        intake.check_together(attachments, "attachments")
        return structs.replace(request, attachments=attachments)

    def asgi(self) -> "HttpApplication":
        """The ASGI application: turns API, OpenAI-compatible API, health, metrics."""
        from seawall.hosts.http.app import HttpApplication  # noqa: PLC0415 - only where asked for

        return HttpApplication(self)
