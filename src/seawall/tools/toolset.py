"""Tools: typed Python functions that a model may call.

The JSON Schema is made from the signature and the docstring, and so is the validation: a function
is only called with arguments that fit the schema.
"""

import asyncio
import inspect
import logging
import re
import typing
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Literal, overload
from weakref import WeakKeyDictionary

import msgspec
from msgspec import Struct, field

from seawall.models import ToolSpec
from seawall.tools.arguments import by_name, canonical, decode_arguments
from seawall.tools.execution import CallExecutor, CallRefused, CallResult
from seawall.tools.port import (
    MAX_ARGUMENT_CHARACTERS,
    MAX_EFFECT_BYTES,
    Cited,
    PreparedCall,
    Tool,
    ToolContext,
    ToolError,
    ToolOutcome,
    at_most,
    shown_sources,
    truncate,
)
from seawall.turn import Source

if TYPE_CHECKING:
    from seawall.tools.policy import Approval

__all__ = ["FunctionTool", "Toolset", "close_toolset", "tool"]

_MAX_RESULT_BYTES = 32_768  # a result is part of the prompt of every later model call
_CLOSE_SECONDS = 3.0

_log = logging.getLogger("seawall.tools")
_SECTIONS = (
    *("Args:", "Arguments:", "Returns:", "Raises:", "Yields:", "Example:", "Examples:", "Note:"),
    "Notes:",
)
_argument = re.compile(r"^\s+(\w+)\s*(?:\([^)]*\))?:\s*(.*)$")


class FunctionTool(Tool, frozen=True, kw_only=True, eq=False):
    """A function with its schema. Made by `tool`.

    Attributes:
        function: The function.
        arguments: The type that arguments are validated against.
        context_parameter: The parameter that gets the `ToolContext`, if any.
        is_async: Whether the function is a coroutine function.
        execution: Its calls that are running; `execution.py` says what happens to functions that
            do not return.
    """

    function: Callable[..., Any]
    arguments: type[Struct]
    context_parameter: str | None
    is_async: bool
    execution: CallExecutor = field(default_factory=CallExecutor)

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names of its parameters."""
        return self.arguments.__struct_fields__

    def has_parameter(self, path: Sequence[str]) -> bool:
        """See `Tool.has_parameter`."""
        return _has_member(self.arguments, path)

    def plain_arguments(self, prepared: PreparedCall) -> dict[str, Any]:
        """See `Tool.plain_arguments`."""
        return by_name(prepared.values)

    def prepare(self, arguments: str) -> PreparedCall:
        """See `Tool.prepare`."""
        if len(arguments) > MAX_ARGUMENT_CHARACTERS:
            raise ToolError(f"Arguments exceed {MAX_ARGUMENT_CHARACTERS} characters.")
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
        if self.mutating and len(plain) > MAX_EFFECT_BYTES:
            raise ToolError(f"Arguments exceed {MAX_EFFECT_BYTES} bytes.")
        return PreparedCall(values, plain)

    async def needs_approval(self, prepared: PreparedCall, context: ToolContext) -> bool:
        """See `Tool.needs_approval`."""
        approval = self.policy.approval if self.policy is not None else None
        if approval is None or isinstance(approval.when, str):
            return await Tool.needs_approval(self, prepared, context)
        ended = await self._ended(approval.when, bool, prepared, context)
        if ended.error is not None:
            _log.error("tool %s: its approval function failed", self.name, exc_info=ended.error)
            return True
        needed: bool = ended.value
        return needed

    async def check(self, prepared: PreparedCall, context: ToolContext) -> ToolOutcome | None:
        """See `Tool.check`."""
        if self.policy is None or self.policy.check is None:
            return None
        ended = await self._ended(self.policy.check, self._found, prepared, context)
        if ended.error is not None:
            _log.error("tool %s: its check failed", self.name, exc_info=ended.error)
            return None
        found: ToolOutcome = ended.value
        return found

    def _found(self, result: object) -> ToolOutcome:
        """What the check has found."""
        if result is None:
            return ToolOutcome(f"{self.name} failed; it has changed nothing.", True)
        return self._outcome(result)

    async def _ended(
        self,
        function: Callable[..., Any],
        read: Callable[[Any], object],
        prepared: PreparedCall,
        context: ToolContext,
    ) -> CallResult:
        """Call a function of the policy, and read its result, like the tool itself."""
        call = partial(function, **self._keywords(prepared.values, context))

        async def awaited() -> object:
            return read(await call())

        try:
            if inspect.iscoroutinefunction(function):
                return await self.execution.in_task(self.name, awaited, context.deadline)
            return await self.execution.in_thread(self.name, lambda: read(call()), context.deadline)
        except (CallRefused, TimeoutError) as failure:
            return CallResult(None, failure)

    def _keywords(self, values: Struct, context: ToolContext) -> dict[str, Any]:
        keywords = {name: getattr(values, name) for name in values.__struct_fields__}
        if self.context_parameter is not None:
            keywords[self.context_parameter] = context
        return keywords

    async def run(self, prepared: PreparedCall, context: ToolContext) -> ToolOutcome:
        """See `Tool.run`."""
        function = partial(self.function, **self._keywords(prepared.values, context))
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
            return self.timed_out(running=not self.is_async)
        if ended.error is not None:
            return self._failed(ended.error)
        if self.cache_seconds is not None and context.state:
            return self._failed(TypeError("a cacheable tool must not write to context.state"))
        outcome: ToolOutcome = ended.value
        return outcome

    def _outcome(self, result: object) -> ToolOutcome:
        """A result for the model. A truncated read failed; a change was made."""
        sources: tuple[Source, ...] = ()
        if isinstance(result, Cited):
            sources = shown_sources(result.sources)
            result = result.content
        text = result if isinstance(result, str) else msgspec.json.encode(result).decode()
        content, whole = at_most(text, _MAX_RESULT_BYTES)
        failed = not (whole or self.mutating)
        return ToolOutcome(content, failed, sources=() if failed else sources)

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
            return self.timed_out()
        _log.error("tool %s failed", self.name, exc_info=error)
        return ToolOutcome(f"{self.name} failed.", True, unknown=self.mutating)


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
def tool(function: Callable[..., Any], /) -> FunctionTool: ...
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
) -> Callable[[Callable[..., Any]], FunctionTool]: ...
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
) -> FunctionTool: ...
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
) -> FunctionTool | Callable[[Callable[..., Any]], FunctionTool]:
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
    signature = _signature(function, tool_name)
    arguments, context_parameter = signature.arguments, signature.context_parameter
    if (cache_seconds is not None and (mutating or cache_seconds <= 0)) or (
        shared and (cache_seconds is None or context_parameter is not None)
    ):
        raise TypeError(
            f"tool {tool_name}: only a tool that reads can be cacheable, for more than 0 s; only a "
            "cacheable tool without ToolContext can be shared"
        )
    declared = retry or check or duplicates or independent or approve is not None or redact
    policy = None
    if mutating or declared:
        from seawall.tools.policy import make_policy  # noqa: PLC0415 - only for effects

        policy = make_policy(
            tool_name,
            arguments.__struct_fields__,
            partial(_has_member, arguments),
            mutating=mutating,
            retry=retry,
            check=check,
            duplicates=duplicates,
            independent=independent,
            approve=approve,
            redact=redact,
        )
    return FunctionTool(
        spec=ToolSpec(tool_name, signature.description, signature.schema),
        policy=policy,
        function=function,
        arguments=arguments,
        context_parameter=context_parameter,
        is_async=inspect.iscoroutinefunction(function),
        cache_seconds=cache_seconds,
        shared=shared,
    )


def _has_member(arguments: type[Struct], path: Sequence[str]) -> bool:
    from seawall.tools.members import has_member  # noqa: PLC0415 - only where it is declared

    return has_member(arguments, list(path))


class _Signature(Struct, frozen=True):
    """What a function's signature and docstring say of a tool; see `FunctionTool`."""

    docstring: str | None
    description: str
    schema: dict[str, object]
    arguments: type[Struct]
    context_parameter: str | None


_of_methods: WeakKeyDictionary[Callable[..., Any], _Signature] = WeakKeyDictionary()
"""Of methods, by their functions: a toolset that is opened again, as after a snapshot, has them."""


def _signature(function: Callable[..., Any], tool_name: str) -> _Signature:
    """Read a function's signature, or take it from the last time.

    Raises:
        TypeError: See `tool`.
    """
    own = function.__func__ if inspect.ismethod(function) else None
    # A method without a docstring has the one of the class that it overrides.
    if not inspect.isfunction(own) or own.__doc__ is None:
        return _read_signature(function, tool_name)
    known = _of_methods.get(own)
    if known is None or known.docstring is not own.__doc__:
        known = _of_methods[own] = _read_signature(function, tool_name)
    return known


def _read_signature(function: Callable[..., Any], tool_name: str) -> _Signature:
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
    arguments = msgspec.defstruct("Arguments", fields, forbid_unknown_fields=True, kw_only=True)
    schema = _schema(tool_name, arguments)
    return _Signature(function.__doc__, description, schema, arguments, context_parameter)


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
        if (heading := line.rstrip()) in _SECTIONS:
            inside, indent = heading in ("Args:", "Arguments:"), 0
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
