"""Tools: typed Python functions that a model may call.

The JSON Schema is made from the signature and the docstring, and so is the validation: a function
is only called with arguments that fit the schema.
"""

import asyncio
import inspect
import logging
import re
import typing
from collections.abc import Awaitable, Callable, MutableMapping
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol, overload

import msgspec
from msgspec import Struct, field

from seawall.models.port import ToolSpec
from seawall.tools.arguments import by_name, canonical, decode_arguments
from seawall.tools.execution import CallExecutor, CallRefused, CallResult
from seawall.turn import Principal

if TYPE_CHECKING:
    from seawall.tools.policy import Approval, EffectPolicy

__all__ = [
    "PreparedCall",
    "ReadCache",
    "Tool",
    "ToolContext",
    "ToolError",
    "ToolOutcome",
    "Toolset",
    "close_toolset",
    "tool",
    "truncate",
]

_MAX_RESULT_BYTES = 32_768  # a result is part of the prompt of every later model call
_MAX_REFUSAL_BYTES = 4_096
_MAX_ARGUMENT_CHARACTERS = 65_536
_MAX_EFFECT_BYTES = 65_536  # so that its records fit into the store, also once edited
_CLOSE_SECONDS = 3.0

_log = logging.getLogger("seawall.tools")
_section = re.compile(r"^(Args|Arguments|Returns|Raises|Yields|Example|Examples|Note|Notes):\s*$")
_argument = re.compile(r"^\s+(\w+)\s*(?:\([^)]*\))?:\s*(.*)$")


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


class ToolError(Exception):
    """An error for the model to read; it gets the message, up to 4 KiB."""


class ToolOutcome(Struct, frozen=True):
    """The result for the model; `failed` if it is an error for it to read.

    Attributes:
        content: The text.
        failed: Whether it is an error.
        unknown: Whether a tool that changes something may have changed it nevertheless.
        started: Whether the function was called.
        running: Whether it has not returned, in a thread that cannot be stopped.
    """

    content: str
    failed: bool = False
    unknown: bool = False
    started: bool = True
    running: bool = False


class ReadCache(Protocol):
    """Cached results of a toolset; see `caches.tool_reads`."""

    async def run_mutation(self, run: Callable[[], Awaitable[ToolOutcome]]) -> ToolOutcome:
        """Run a tool that changes something, then drop cached results."""
        ...

    async def read(
        self,
        tool: "Tool",
        arguments: bytes,
        context: ToolContext,
        run: Callable[[], Awaitable[ToolOutcome]],
    ) -> ToolOutcome:
        """The outcome of a read: cached, or from `run`."""
        ...


class Tool(Struct, frozen=True, eq=False):
    """A function with its schema. Made by `tool`.

    Attributes:
        spec: Name, description and JSON Schema, as models see them.
        policy: Of a function that changes something; None for one that reads.
        function: The function.
        arguments: The type that arguments are validated against.
        context_parameter: The parameter that gets the `ToolContext`, if any.
        is_async: Whether the function is a coroutine function.
        cache_seconds: How long its result may be reused for the same arguments; None for never.
        shared: Whether it may be reused for every subject, not for the same subject only.
        read_cache: Where results are cached.
        execution: Its calls that are running.
    """

    spec: ToolSpec
    policy: "EffectPolicy | None"
    function: Callable[..., Any]
    arguments: type[Struct]
    context_parameter: str | None
    is_async: bool
    cache_seconds: float | None = None
    shared: bool = False
    read_cache: ReadCache | None = None
    execution: CallExecutor = field(default_factory=CallExecutor)

    @property
    def name(self) -> str:
        """Its name, as models see it."""
        return self.spec.name

    @property
    def mutating(self) -> bool:
        """Whether the function changes something."""
        return self.policy is not None

    def prepare(self, arguments: str) -> "PreparedCall":
        """Validate the JSON arguments that a model wrote.

        Raises:
            ToolError: They are invalid; the message is for the model.
        """
        if len(arguments) > _MAX_ARGUMENT_CHARACTERS:
            raise ToolError(f"Arguments exceed {_MAX_ARGUMENT_CHARACTERS} characters.")
        try:
            values = decode_arguments(arguments, self.arguments)
            keyed = self.mutating or self.read_cache is not None
            plain = canonical(values) if keyed else b""
        except (msgspec.DecodeError, ValueError) as error:
            raise ToolError(truncate(f"Invalid arguments for {self.name}: {error}")) from error
        except RecursionError:
            raise ToolError(f"Invalid arguments for {self.name}: nested too deeply.") from None
        except BaseException as defect:  # of the types of its parameters, which are foreign code
            _log.error("tool %s cannot take its arguments", self.name, exc_info=defect)
            raise ToolError(f"{self.name} failed.") from defect
        if self.mutating and len(plain) > _MAX_EFFECT_BYTES:
            raise ToolError(f"Arguments exceed {_MAX_EFFECT_BYTES} bytes.")
        return PreparedCall(values, plain)

    async def call(self, arguments: str, context: ToolContext) -> ToolOutcome:
        """Validate JSON `arguments` and call the function.

        Never raises for what the model or the function did wrong: invalid arguments, a `ToolError`,
        any other exception and a timeout become a failed outcome. `execution.py` says what happens
        to functions that do not return.

        Args:
            arguments: JSON text.
            context: The turn.
        """
        try:
            prepared = self.prepare(arguments)
        except ToolError as refusal:
            return ToolOutcome(str(refusal), True)
        return await self.call_prepared(prepared, context)

    async def call_prepared(self, prepared: "PreparedCall", context: ToolContext) -> ToolOutcome:
        """Call the function with valid arguments; see `call`."""
        if self.cache_seconds is not None:  # a reusable result must not depend on session or roles
            owner = Principal(context.principal.tenant, context.principal.subject)
            context = msgspec.structs.replace(context, state={}, principal=owner)
        run = partial(self._run, prepared.values, context)
        if self.read_cache is None:
            return await run()
        if self.mutating:
            return await self.read_cache.run_mutation(run)
        try:
            return await self.read_cache.read(self, prepared.canonical, context, run)
        except TimeoutError:
            return self._timed_out()

    async def needs_approval(self, prepared: "PreparedCall", context: ToolContext) -> bool:
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
                names = by_name(prepared.values)
                return holds(approval.when, {**names, "caller": caller, "agent": context.agent})
            except Exception as error:  # noqa: BLE001 - deny by default
                _log.warning("tool %s: the rule %r failed: %s", self.name, approval.when, error)
                return True
        ended = await self._ended(approval.when, prepared, context)
        if ended.error is not None:
            _log.error("tool %s: its approval function failed", self.name, exc_info=ended.error)
            return True
        return bool(ended.value)

    async def check(self, prepared: "PreparedCall", context: ToolContext) -> ToolOutcome | None:
        """Ask whether a call of unknown outcome has changed something.

        Args:
            prepared: The arguments.
            context: The turn.

        Returns:
            The outcome of the call; failed if nothing has changed. None if it cannot be found out.
        """
        if self.policy is None or self.policy.check is None:
            return None
        ended = await self._ended(self.policy.check, prepared, context)
        if ended.error is not None:
            _log.error("tool %s: its check failed", self.name, exc_info=ended.error)
            return None
        if ended.value is None:
            return ToolOutcome(f"{self.name} failed; it has changed nothing.", True)
        return self._outcome(ended.value)

    async def _ended(
        self, function: Callable[..., Any], prepared: "PreparedCall", context: ToolContext
    ) -> CallResult:
        """Call a function of the policy like the tool itself."""
        call = partial(function, **self._keywords(prepared.values, context))
        try:
            if inspect.iscoroutinefunction(function):
                return await self.execution.in_task(self.name, call, context.deadline)
            return await self.execution.in_thread(self.name, call, context.deadline)
        except (CallRefused, TimeoutError) as failure:
            return CallResult(None, failure)

    def _keywords(self, values: Struct, context: ToolContext) -> dict[str, Any]:
        keywords = {name: getattr(values, name) for name in values.__struct_fields__}
        if self.context_parameter is not None:
            keywords[self.context_parameter] = context
        return keywords

    async def _run(self, values: Struct, context: ToolContext) -> ToolOutcome:
        function = partial(self.function, **self._keywords(values, context))
        try:
            if self.is_async:
                ended = await self.execution.in_task(
                    self.name, partial(self._awaited_outcome, function), context.deadline
                )
            else:
                ended = await self.execution.in_thread(
                    self.name, lambda: self._outcome(function()), context.deadline
                )
        except CallRefused as refusal:
            return ToolOutcome(str(refusal), True, started=False)
        except TimeoutError:
            return self._timed_out(running=not self.is_async)
        if ended.error is not None:
            return self._failed(ended.error)
        if self.cache_seconds is not None and context.state:
            return self._failed(TypeError("a cacheable tool must not write to context.state"))
        outcome: ToolOutcome = ended.value
        return outcome

    def _outcome(self, result: object) -> ToolOutcome:
        """A result for the model. A truncated read failed; a change was made."""
        text = result if isinstance(result, str) else msgspec.json.encode(result).decode()
        content, whole = _at_most(text, _MAX_RESULT_BYTES)
        return ToolOutcome(content, failed=not (whole or self.mutating))

    async def _awaited_outcome(self, function: Callable[[], Awaitable[object]]) -> ToolOutcome:
        return self._outcome(await function())

    def _failed(self, error: BaseException) -> ToolOutcome:
        """A failed outcome; the model gets the message of a `ToolError` only."""
        if isinstance(error, ToolError):
            try:
                return ToolOutcome(truncate(str(error)), True)
            except BaseException as defect:  # noqa: BLE001 - foreign code, of a subclass
                error = defect
        elif isinstance(error, TimeoutError):
            return self._timed_out()
        _log.error("tool %s failed", self.name, exc_info=error)
        return ToolOutcome(f"{self.name} failed.", True, unknown=self.mutating)

    def _timed_out(self, *, running: bool = False) -> ToolOutcome:
        text = f"{self.name} did not answer in time."
        return ToolOutcome(text, True, unknown=self.mutating, running=running)


class PreparedCall(Struct, frozen=True):
    """Valid arguments. `canonical`: equal for all wordings; empty if not needed."""

    values: Struct
    canonical: bytes


def truncate(text: str, limit: int = _MAX_REFUSAL_BYTES) -> str:
    """Text of at most `limit` bytes, with a note of how much is shown."""
    return _at_most(text, limit)[0]


def _at_most(text: str, limit: int) -> tuple[str, bool]:
    """As `truncate`, and whether it is complete. Lone surrogates are replaced."""
    data = text[: limit + 1].encode("utf-8", "replace")
    if len(data) <= limit:
        return data.decode(), True
    shown = data[:limit].decode("utf-8", "ignore")
    note = f"Cut: {len(shown)} of {len(text)} characters are shown; ask for less at once."
    return f"{shown}\n[{note}]", False


class Toolset(Struct, frozen=True):
    """Tools that share a resource.

    Attributes:
        tools: The tools.
        close: Called at shutdown.
    """

    tools: tuple[Tool, ...]
    close: Callable[[], None] = lambda: None

    def __post_init__(self) -> None:
        """Find the usual mistakes where they are made.

        Raises:
            TypeError: There is no tuple, or something in it is not a tool.
        """
        if isinstance(self.tools, Tool):
            raise TypeError(f"Toolset needs a tuple of tools: Toolset(({self.tools.name},))")
        for each in self.tools:
            if not isinstance(each, Tool):
                name = getattr(each, "__name__", repr(each))
                raise TypeError(f"Toolset: {name} is not a tool; decorate the function with @tool")


async def close_toolset(toolset: Toolset) -> None:
    """Call `close` of a toolset, for a few seconds at most."""
    deadline = asyncio.get_running_loop().time() + _CLOSE_SECONDS
    try:
        ended = await CallExecutor().in_thread("close", toolset.close, deadline)
    except TimeoutError:
        return  # it is logged
    if ended.error is not None:
        _log.error("a toolset cannot be closed", exc_info=ended.error)


@overload
def tool(function: Callable[..., Any], /) -> Tool: ...
@overload
def tool(
    *,
    name: str | None = None,
    mutating: bool = False,
    cache_seconds: float | None = None,
    shared: bool = False,
    retry: Literal["key"] | None = None,
    check: Callable[..., Any] | None = None,
    duplicates: Literal["refuse", "allow"] | None = None,
    independent: bool = False,
    approve: "Approval | str | Callable[..., Any] | None" = None,
    redact: tuple[str, ...] = (),
) -> Callable[[Callable[..., Any]], Tool]: ...
@overload
def tool(
    function: Callable[..., Any],
    /,
    *,
    name: str | None = None,
    mutating: bool = False,
    cache_seconds: float | None = None,
    shared: bool = False,
    retry: Literal["key"] | None = None,
    check: Callable[..., Any] | None = None,
    duplicates: Literal["refuse", "allow"] | None = None,
    independent: bool = False,
    approve: "Approval | str | Callable[..., Any] | None" = None,
    redact: tuple[str, ...] = (),
) -> Tool: ...
def tool(
    function: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    mutating: bool = False,
    cache_seconds: float | None = None,
    shared: bool = False,
    retry: Literal["key"] | None = None,
    check: Callable[..., Any] | None = None,
    duplicates: Literal["refuse", "allow"] | None = None,
    independent: bool = False,
    approve: "Approval | str | Callable[..., Any] | None" = None,
    redact: tuple[str, ...] = (),
) -> Tool | Callable[[Callable[..., Any]], Tool]:
    """Make a tool of a typed function or bound method; also a decorator.

    Every parameter needs a type annotation that msgspec can validate. A parameter annotated
    `ToolContext` is filled in and not shown to the model. The docstring's first paragraph is the
    description, its `Args:` section describes the parameters (Google style).

    Args:
        function: The function; may be async.
        name: Name of the tool; the function's by default.
        mutating: Whether the function changes something.
        cache_seconds: How long a result may be reused for the same arguments and the same subject;
            only for functions that read. None for not at all.
        shared: Whether it may be reused for every subject of every tenant; only without a
            `ToolContext`.
        retry: "key" if the service keeps `context.idempotency_key` with the change: then a call
            whose outcome is unknown is repeated with the same key. This and the following are only
            for functions that change something.
        check: Called like the function after a call of unknown outcome; returns the result if the
            change was made, else None. May be async.
        duplicates: What happens to a second call in one step with equal arguments: "refuse"
            (default; the model reads an error) or "allow".
        independent: Whether it may run at the same time as other changes of its step, which
            otherwise run in the order of the calls.
        approve: When a call needs approval: an `Approval`, or its `when` alone, for the customer.
        redact: Names of arguments, dotted for members, that are not shown in records.

    Raises:
        TypeError: A parameter has no annotation, or one without a JSON Schema; or the options
            contradict each other.
    """
    if function is None:
        return lambda later: tool(
            later,
            name=name,
            mutating=mutating,
            cache_seconds=cache_seconds,
            shared=shared,
            retry=retry,
            check=check,
            duplicates=duplicates,
            independent=independent,
            approve=approve,
            redact=redact,
        )
    tool_name = name or function.__name__
    description, descriptions = _read_docstring(inspect.getdoc(function) or "")
    hints = typing.get_type_hints(function, include_extras=True)
    fields: list[tuple[str, Any] | tuple[str, Any, Any]] = []
    context_parameter = None
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise TypeError(f"tool {tool_name}: *{parameter.name} has no JSON Schema")
        if parameter.name not in hints:
            raise TypeError(f"tool {tool_name}: parameter {parameter.name} needs a type annotation")
        hint = hints[parameter.name]
        if hint is ToolContext:
            context_parameter = parameter.name
            continue
        if text := descriptions.get(parameter.name):
            hint = Annotated[hint, msgspec.Meta(description=text)]
        if parameter.default is parameter.empty:
            fields.append((parameter.name, hint))
        else:
            fields.append((parameter.name, hint, parameter.default))
    if (cache_seconds is not None and (mutating or cache_seconds <= 0)) or (
        shared and (cache_seconds is None or context_parameter is not None)
    ):
        raise TypeError(
            f"tool {tool_name}: only a tool that reads can be cacheable, for more than 0 s; only a "
            "cacheable tool without ToolContext can be shared"
        )
    arguments = msgspec.defstruct("Arguments", fields, forbid_unknown_fields=True, kw_only=True)
    declared = retry or check or duplicates or independent or approve is not None or redact
    policy = None
    if mutating or declared:
        from seawall.tools.policy import make_policy  # noqa: PLC0415 - only for effects

        policy = make_policy(
            tool_name,
            arguments,
            mutating=mutating,
            retry=retry,
            check=check,
            duplicates=duplicates,
            independent=independent,
            approve=approve,
            redact=redact,
        )
    return Tool(
        spec=ToolSpec(tool_name, description, _schema(tool_name, arguments)),
        policy=policy,
        function=function,
        arguments=arguments,
        context_parameter=context_parameter,
        is_async=inspect.iscoroutinefunction(function),
        cache_seconds=cache_seconds,
        shared=shared,
    )


def _schema(tool_name: str, arguments: type[Struct]) -> dict[str, object]:
    try:
        _, components = msgspec.json.schema_components([arguments], ref_template="#/$defs/{name}")
    except TypeError as error:
        raise TypeError(f"tool {tool_name}: {error}") from error
    schema: dict[str, object] = dict(components.pop("Arguments"))
    schema.pop("title", None)
    if components:
        schema["$defs"] = dict(components)
    return schema


def _read_docstring(text: str) -> tuple[str, dict[str, str]]:
    """The first paragraph, and the descriptions under `Args:` by parameter."""
    first = " ".join(text.split("\n\n", 1)[0].split())
    descriptions: dict[str, str] = {}
    current, inside, indent = "", False, 0
    for line in text.splitlines():
        if heading := _section.match(line):
            inside, indent = heading[1] in ("Args", "Arguments"), 0
        elif inside and line.strip():
            depth = len(line) - len(line.lstrip())
            indent = indent or depth
            match = _argument.match(line) if depth == indent else None
            if match:
                current = match[1]
                descriptions[current] = match[2].strip()
            elif current:
                descriptions[current] += " " + line.strip()
    return first, descriptions
