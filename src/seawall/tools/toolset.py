"""Tools: typed Python functions that a model may call.

The JSON Schema comes from the signature and the docstring, and so does the validation: what the
schema promises is what the function gets.
"""

import asyncio
import inspect
import logging
import re
import typing
from collections.abc import Awaitable, Callable, MutableMapping
from functools import partial
from typing import Annotated, Any, Protocol, overload

import msgspec
from msgspec import Struct, field

from seawall.models.port import ToolSpec
from seawall.tools.arguments import canonical, decode_arguments
from seawall.tools.execution import CallExecutor, CallRefused
from seawall.turn import Principal

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

_MAX_RESULT_BYTES = 32_768  # a tool's answer is paid for again at every later model call
_MAX_REFUSAL_BYTES = 4_096
_MAX_ARGUMENT_CHARACTERS = 65_536
_CLOSE_SECONDS = 3.0

_log = logging.getLogger("seawall.tools")
_section = re.compile(r"^(Args|Arguments|Returns|Raises|Yields|Example|Examples|Note|Notes):\s*$")
_argument = re.compile(r"^\s+(\w+)\s*(?:\([^)]*\))?:\s*(.*)$")


class ToolContext(Struct, frozen=True):
    """The turn, as a tool may see it. It travels with the call; turns share nothing.

    principal: on whose behalf the tool acts.
    deadline: seconds on the event loop's monotonic clock.
    idempotency_key: the same for every retry of this very call of this very turn, however the
        model words its arguments.
    state: the session's notes, kept with the turn when it is committed; string to string,
        at most 32 entries of 1,024 characters.
    traceparent: what a callee is told, so that its spans are part of the turn's trace (W3C Trace
        Context); empty where the turn is not traced.
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
    """A refusal that the model should read and act on; it is given the message, up to 4 KiB."""


class ToolOutcome(Struct, frozen=True):
    """What goes back to the model; `failed` when the content is an error for it to read."""

    content: str
    failed: bool = False


class ReadCache(Protocol):
    """What the cacheable tools of a set have read; see `caches.read_cache`."""

    async def run_mutation(self, run: Callable[[], Awaitable[ToolOutcome]]) -> ToolOutcome:
        """Run a tool that changes something."""
        ...

    async def read(
        self,
        tool: "Tool",
        arguments: bytes,
        context: ToolContext,
        run: Callable[[], Awaitable[ToolOutcome]],
    ) -> ToolOutcome:
        """The outcome of a read, which need not be run for it."""
        ...


class Tool(Struct, frozen=True, eq=False):
    """A function with its schema. Make one with `tool`.

    mutating: the function changes something in the world. cache_seconds: how long its outcome may
    be given again for the same arguments, to the same subject, or to everybody if `shared`; None
    for not at all. reads: where that is kept. execution: the calls that are under way.
    """

    spec: ToolSpec
    mutating: bool
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
        """The name by which models call it."""
        return self.spec.name

    def prepare(self, arguments: str) -> "PreparedCall":
        """Validate the JSON arguments that a model wrote.

        Raises:
            ToolError: they are not valid; the text is for the model.
        """
        if len(arguments) > _MAX_ARGUMENT_CHARACTERS:
            raise ToolError(f"Arguments exceed {_MAX_ARGUMENT_CHARACTERS} characters.")
        try:
            values = decode_arguments(arguments, self.arguments)
            keyed = self.context_parameter is not None or self.read_cache is not None
            return PreparedCall(values, canonical(values) if keyed else b"")
        except (msgspec.DecodeError, ValueError) as error:
            raise ToolError(truncate(f"Invalid arguments for {self.name}: {error}")) from error
        except RecursionError:
            raise ToolError(f"Invalid arguments for {self.name}: nested too deeply.") from None
        except BaseException as defect:  # of the types of its parameters, which are foreign code
            _log.error("tool %s cannot take its arguments", self.name, exc_info=defect)
            raise ToolError(f"{self.name} failed.") from defect

    async def call(self, arguments: str, context: ToolContext) -> ToolOutcome:
        """Validate the model's JSON `arguments` and call the function.

        Never raises for what the model or the function did wrong: wrong arguments, a ToolError
        and whatever else the function raises all become a failed outcome, and so does a deadline
        that passes. See `execution` for functions that do not return.
        """
        try:
            prepared = self.prepare(arguments)
        except ToolError as refusal:
            return ToolOutcome(str(refusal), True)
        return await self.call_prepared(prepared, context)

    async def call_prepared(self, prepared: "PreparedCall", context: ToolContext) -> ToolOutcome:
        """Call the function with arguments that are valid; see `call`."""
        if self.cache_seconds is not None:  # what others may get depends on no session's notes
            context = msgspec.structs.replace(context, state={})
        run = partial(self._run, prepared.values, context)
        if self.read_cache is None:
            return await run()
        if self.mutating:
            return await self.read_cache.run_mutation(run)
        try:
            return await self.read_cache.read(self, prepared.canonical, context, run)
        except TimeoutError:
            return self._timed_out()

    async def _run(self, values: Struct, context: ToolContext) -> ToolOutcome:
        keywords = {name: getattr(values, name) for name in values.__struct_fields__}
        if self.context_parameter is not None:
            keywords[self.context_parameter] = context
        function = partial(self.function, **keywords)
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
            return ToolOutcome(str(refusal), True)
        except TimeoutError:
            return self._timed_out()
        if ended.error is not None:
            return self._failed(ended.error)
        if self.cache_seconds is not None and context.state:
            return self._failed(TypeError("a cacheable tool keeps no notes"))
        outcome: ToolOutcome = ended.value
        return outcome

    def _outcome(self, result: object) -> ToolOutcome:
        """What a function returned. A read that had to be cut failed; a change was made."""
        text = result if isinstance(result, str) else msgspec.json.encode(result).decode()
        content, whole = _at_most(text, _MAX_RESULT_BYTES)
        return ToolOutcome(content, failed=not (whole or self.mutating))

    async def _awaited_outcome(self, function: Callable[[], Awaitable[object]]) -> ToolOutcome:
        return self._outcome(await function())

    def _failed(self, error: BaseException) -> ToolOutcome:
        """The model reads a refusal; of a defect only that it happened."""
        if isinstance(error, ToolError):
            try:
                return ToolOutcome(truncate(str(error)), True)
            except BaseException as defect:  # noqa: BLE001 - foreign code, of a subclass
                error = defect
        elif isinstance(error, TimeoutError):
            return self._timed_out()
        _log.error("tool %s failed", self.name, exc_info=error)
        return ToolOutcome(f"{self.name} failed.", True)

    def _timed_out(self) -> ToolOutcome:
        return ToolOutcome(f"{self.name} did not answer in time.", True)


class PreparedCall(Struct, frozen=True):
    """Arguments that are valid. canonical: the same for all wordings; empty where not needed."""

    values: Struct
    canonical: bytes


def truncate(text: str, limit: int = _MAX_REFUSAL_BYTES) -> str:
    """The text, or as much of it as has so many bytes, with a note of what is missing."""
    return _at_most(text, limit)[0]


def _at_most(text: str, limit: int) -> tuple[str, bool]:
    """As `truncate`, and whether it is whole. Half characters, which cannot be sent, are replaced."""
    data = text[: limit + 1].encode("utf-8", "replace")
    if len(data) <= limit:
        return data.decode(), True
    shown = data[:limit].decode("utf-8", "ignore")
    note = f"Cut: {len(shown)} of {len(text)} characters are shown; ask for less at once."
    return f"{shown}\n[{note}]", False


class Toolset(Struct, frozen=True):
    """Tools that share something opened at start, and how to close it."""

    tools: tuple[Tool, ...]
    close: Callable[[], None] = lambda: None


async def close_toolset(toolset: Toolset) -> None:
    """Close what the tools share, as far as that can be had within some seconds."""
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
) -> Tool: ...
def tool(
    function: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    mutating: bool = False,
    cache_seconds: float | None = None,
    shared: bool = False,
) -> Tool | Callable[[Callable[..., Any]], Tool]:
    """Make a tool of a typed function or bound method; also a decorator.

    Every parameter needs a type annotation that msgspec can validate. A parameter annotated
    `ToolContext` is filled in and not shown to the model. The docstring's first paragraph is the
    description, its `Args:` section describes the parameters (Google style).

    cache_seconds: the function only reads, and what it answers depends on its arguments and on
    whom it answers: it may be given again for so long. shared: to anybody at all, so that such a
    function is not told who asks.

    Raises:
        TypeError: a parameter has no annotation, or one that has no JSON Schema; or what is said
            about caching cannot be.
    """
    if function is None:
        return lambda later: tool(
            later, name=name, mutating=mutating, cache_seconds=cache_seconds, shared=shared
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
            f"tool {tool_name}: only what reads can be cacheable, for more than 0 s, and shared only "
            "what is cacheable and takes no ToolContext"
        )
    arguments = msgspec.defstruct("Arguments", fields, forbid_unknown_fields=True, kw_only=True)
    return Tool(
        spec=ToolSpec(tool_name, description, _schema(tool_name, arguments)),
        mutating=mutating,
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
