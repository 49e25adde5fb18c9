"""The tool port: what the agent loop knows of tools, local and remote.

Adapters: Python functions (`toolset`), and operations of sources elsewhere (`remote`), which an
OpenAPI document or an MCP server describes.
"""

import logging
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from msgspec import Struct, json, structs

from seawall.models import ToolSpec
from seawall.turn import Image, PendingInput, Principal, Source, ToolMessage

if TYPE_CHECKING:
    from seawall.tools.policy import EffectPolicy

__all__ = [
    "MAX_ARGUMENT_CHARACTERS",
    "MAX_EFFECT_BYTES",
    "Cited",
    "PreparedCall",
    "ReadCache",
    "Tool",
    "ToolContext",
    "ToolError",
    "ToolOutcome",
    "at_most",
    "shown_sources",
    "truncate",
]

MAX_ARGUMENT_CHARACTERS = 65_536
"""Of the JSON that a model writes for one call."""

MAX_EFFECT_BYTES = 65_536
"""Of the arguments of an effect, so that its records fit into the store, also once edited."""

_MAX_SOURCES = 20
_MAX_SOURCE_CHARACTERS = 32_768

_log = logging.getLogger("seawall.tools")

_MAX_REFUSAL_BYTES = 4_096


class ToolContext(Struct, frozen=True):
    """The turn that calls a tool. It belongs to one call; turns share nothing through it.

    Attributes:
        principal: The tenant and subject on whose behalf the tool acts.
        session: Id of the session.
        turn: Id of the turn.
        agent: Name of the agent.
        call: Id of the call.
        idempotency_key: The same for every retry of this call of this turn, however the model words
            its arguments.
        deadline: In seconds on the event loop's clock.
        state: Notes of the session, stored when the turn is committed; at most 32 entries of 1,024
            characters.
        traceparent: Header for services that the tool calls (W3C Trace Context); empty if the turn
            is not traced.
        caller_token: The identity provider's token that the request of this turn presented; empty
            if there was none (API keys are not passed on), and in turns that continue without their
            caller (background, after a pause). It is never stored.
        may_ask: Whether the turn can pause for a question of the tool's server to the user.
        may_repeat: Whether the call may be made again from its beginning.
        given: Of a call that is made again, the answers to what its server asked.
    """

    principal: Principal
    session: str
    turn: str
    agent: str
    call: str
    idempotency_key: str
    deadline: float
    state: MutableMapping[str, str]
    traceparent: str = ""
    caller_token: str = ""
    may_ask: bool = False
    may_repeat: bool = False
    given: PendingInput | None = None

    def __repr__(self) -> str:
        return f"ToolContext(turn={self.turn!r}, agent={self.agent!r}, call={self.call!r})"


class ToolError(Exception):
    """An error for the model to read; it gets the message, up to 4 KiB."""


class Cited(Struct, frozen=True):
    """A result of a tool function, with what its parts were taken from.

    Attributes:
        content: The result for the model.
        sources: For clients to show, at most 20; an address is shown if it is of http or https.
    """

    content: Any
    sources: tuple[Source, ...]


class ToolOutcome(Struct, frozen=True):
    """The result for the model; `failed` if it is an error for it to read.

    Attributes:
        content: The text.
        failed: Whether it is an error.
        unknown: Whether a tool that changes something may have changed it nevertheless.
        started: Whether it was called.
        running: Whether it has not returned, in a thread that cannot be stopped.
        asks: What its server asks the user before it does anything; None if it has ended.
        images: For models that take them; the text names them.
        partial: Whether a part of it is missing, which is an error of a tool that reads.
        sources: What the parts of the text were taken from, for clients.
    """

    content: str
    failed: bool = False
    unknown: bool = False
    started: bool = True
    running: bool = False
    asks: PendingInput | None = None
    images: tuple[Image, ...] = ()
    partial: bool = False
    sources: tuple[Source, ...] = ()

    def message(self, call_id: str, name: str) -> ToolMessage:
        """As a message of the turn.

        Args:
            call_id: Id of the call.
            name: Name of the tool.
        """
        return ToolMessage(call_id, name, self.content, self.failed, self.images, self.sources)


class PreparedCall(Struct, frozen=True):
    """Valid arguments.

    Attributes:
        values: As the tool takes them.
        canonical: JSON, equal for all wordings; empty if not needed.
    """

    values: Any
    canonical: bytes


class Tool(Struct, frozen=True, kw_only=True, eq=False):
    """A tool that a model may call. Adapters have the rest: `prepare`, `run` and `check`.

    Attributes:
        spec: Name, description and JSON Schema, as models see them.
        policy: Of a tool that changes something; None for one that reads.
        cache_seconds: How long its result may be reused for the same arguments; None for never.
        shared: Whether it may be reused for every subject, not for the same subject only.
        read_cache: Where results are cached.
    """

    spec: ToolSpec
    policy: "EffectPolicy | None" = None
    cache_seconds: float | None = None
    shared: bool = False
    read_cache: "ReadCache | None" = None

    @property
    def name(self) -> str:
        """Its name, as models see it."""
        return self.spec.name

    @property
    def mutating(self) -> bool:
        """Whether it changes something."""
        return self.policy is not None

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names of its parameters."""
        raise NotImplementedError

    def has_parameter(self, path: Sequence[str]) -> bool:
        """Whether there is a parameter, or a member of one, of a path."""
        raise NotImplementedError

    def plain_arguments(self, prepared: PreparedCall) -> dict[str, Any]:
        """Arguments by name as plain data, for rules."""
        arguments: dict[str, Any] = json.decode(prepared.canonical)
        return arguments

    def prepare(self, arguments: str) -> PreparedCall:
        """Validate the JSON arguments that a model wrote.

        Raises:
            ToolError: They are invalid; the message is for the model.
        """
        raise NotImplementedError

    async def run(self, prepared: PreparedCall, context: ToolContext) -> ToolOutcome:
        """Call it, without a cache. What goes wrong is an outcome, never an exception."""
        raise NotImplementedError

    async def check(self, prepared: PreparedCall, context: ToolContext) -> ToolOutcome | None:  # noqa: ARG002 - the default
        """Ask whether a call of unknown outcome has changed something.

        Args:
            prepared: The arguments.
            context: The turn.

        Returns:
            The outcome of the call; failed if nothing has changed. None if it cannot be found out.
        """
        return None

    async def needs_approval(self, prepared: PreparedCall, context: ToolContext) -> bool:
        """Whether a call needs approval; also if its rule cannot be evaluated.

        Args:
            prepared: The arguments.
            context: The turn.
        """
        approval = self.policy.approval if self.policy is not None else None
        if approval is None or approval.when == "always":
            return approval is not None
        if isinstance(approval.when, str):
            from seawall.tools.rules import holds  # noqa: PLC0415 - only where there are rules

            owner = context.principal
            caller = {"tenant": owner.tenant, "subject": owner.subject, "roles": owner.roles}
            try:
                names = self.plain_arguments(prepared)
                return holds(approval.when, {**names, "caller": caller, "agent": context.agent})
            except Exception as error:  # noqa: BLE001 - deny by default
                _log.warning("tool %s: the rule %r failed: %s", self.name, approval.when, error)
        return True

    async def call(self, arguments: str, context: ToolContext) -> ToolOutcome:
        """Validate JSON `arguments` and call the tool.

        Never raises for what the model or the tool did wrong: invalid arguments, errors and
        timeouts become a failed outcome.

        Args:
            arguments: JSON text.
            context: The turn.
        """
        try:
            prepared = self.prepare(arguments)
        except ToolError as refusal:
            return ToolOutcome(str(refusal), True)
        return await self.call_prepared(prepared, context)

    async def call_prepared(self, prepared: PreparedCall, context: ToolContext) -> ToolOutcome:
        """Call the tool with valid arguments; see `call`."""
        if self.cache_seconds is not None:  # a reusable result must not depend on session or roles
            owner = Principal(context.principal.tenant, context.principal.subject)
            context = structs.replace(context, state={}, principal=owner, may_ask=False, given=None)
        if self.read_cache is None:
            return await self.run(prepared, context)
        run = partial(self.run, prepared, context)
        if self.mutating:
            return await self.read_cache.run_mutation(run)
        try:
            return await self.read_cache.read(self, prepared.canonical, context, run)
        except TimeoutError:
            return self.timed_out()

    def timed_out(self, *, running: bool = False) -> ToolOutcome:
        """The outcome of a call that did not end in time."""
        text = f"{self.name} did not answer in time."
        return ToolOutcome(text, True, unknown=self.mutating, running=running)


def shown_sources(sources: Sequence[Source]) -> tuple[Source, ...]:
    """The first of a result's sources, so that what is stored is bounded.

    Args:
        sources: In the order of the parts.

    Raises:
        TypeError: Something in one is not text.
    """
    shown: list[Source] = []
    room = _MAX_SOURCE_CHARACTERS
    for cited in sources[:_MAX_SOURCES]:
        each = Source(*map(str.__str__, structs.astuple(cited)))  # encoders take no subclass
        room -= sum(map(len, structs.astuple(each)))
        if room < 0:
            break
        is_page = each.url.startswith(("https://", "http://"))
        shown.append(each if is_page or not each.url else structs.replace(each, url=""))
    return tuple(shown)


class ReadCache(Protocol):
    """Cached results of tools that share a resource; see `caches.tool_reads`."""

    async def run_mutation(self, run: Callable[[], Awaitable[ToolOutcome]]) -> ToolOutcome:
        """Run a tool that changes something, then drop cached results."""
        ...

    async def read(
        self,
        tool: Tool,
        arguments: bytes,
        context: ToolContext,
        run: Callable[[], Awaitable[ToolOutcome]],
    ) -> ToolOutcome:
        """The outcome of a read: cached, or from `run`.

        Raises:
            TimeoutError: The deadline of the call passed.
        """
        ...


def truncate(text: str, limit: int = _MAX_REFUSAL_BYTES) -> str:
    """Text of at most `limit` bytes, with a note of how much is shown."""
    return at_most(text, limit)[0]


def at_most(text: str, limit: int) -> tuple[str, bool]:
    """As `truncate`, and whether it is complete. Lone surrogates are replaced."""
    data = text[: limit + 1].encode("utf-8", "replace")
    if len(data) <= limit:
        return data.decode(), True
    shown = data[:limit].decode("utf-8", "ignore")
    note = f"Cut: {len(shown)} of {len(text)} characters are shown; ask for less at once."
    return f"{shown}\n[{note}]", False
