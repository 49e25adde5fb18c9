"""Tools of sources elsewhere: one tool for each operation that a source lists."""

import logging
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import msgspec
from msgspec import Struct, structs

from seawall.spans import within_span
from seawall.tools.arguments import canonical_json
from seawall.tools.foreign_schema import ForeignSchema
from seawall.tools.port import (
    MAX_ARGUMENT_CHARACTERS,
    MAX_EFFECT_BYTES,
    PreparedCall,
    Tool,
    ToolContext,
    ToolError,
    ToolOutcome,
    at_most,
    truncate,
)
from seawall.tools.upstream import ToolUpstream, UpstreamFault

__all__ = [
    "ArgumentCheck",
    "Invoke",
    "RemoteOperation",
    "RemoteTool",
    "ToolSource",
    "UnusableOperation",
]

_log = logging.getLogger("seawall.tools")
_MAX_SCHEMA_DEPTH = 32


class Invoke(Protocol):
    """Makes one attempt at a call."""

    async def __call__(
        self, arguments: dict[str, Any], context: ToolContext, deadline: float, /
    ) -> ToolOutcome:
        """Call the operation once.

        Args:
            arguments: Valid by the operation's schema.
            context: The turn; its idempotency key goes out with the call.
            deadline: Of this attempt, on the event loop's clock; not after the context's.

        Returns:
            The result for the model; failed for an error that it should read.

        Raises:
            UpstreamFault: The attempt failed.
        """
        ...


class RemoteOperation(Struct, frozen=True, kw_only=True, eq=False):
    """Something that a source can do.

    Attributes:
        name: As the source calls it.
        description: For models; foreign text.
        schema: JSON Schema (2020-12) of an object, the arguments.
        changes: Whether it changes something outside.
        invoke: Calls it.
        output_schema: Of its structured result; None for none.
        aliases: Other names by which the configuration may refer to it.
        address: The server that it is sent to, if the source says so; empty if the configuration
            does.
    """

    name: str
    description: str
    schema: dict[str, Any]
    changes: bool
    invoke: Invoke
    output_schema: dict[str, Any] | None = None
    aliases: tuple[str, ...] = ()
    address: str = ""


class ToolSource(Protocol):
    """Where tools come from: an OpenAPI document, an MCP server."""

    async def list(self, *, deadline: float) -> tuple[RemoteOperation, ...]:
        """What it can do now, as far as it is included by its configuration.

        Args:
            deadline: In seconds on the event loop's clock.

        Raises:
            UpstreamFault: It cannot be reached now.
            ConfigError: Its configuration is wrong.
        """
        ...

    def subscribe(self, changed: Callable[[], None]) -> None:
        """Have `changed` called on the event loop whenever a new listing is worth making."""
        ...

    async def close(self) -> None:
        """Release connections and processes."""
        ...


class UnusableOperation(Exception):
    """An operation cannot be offered; the message says why."""


class ArgumentCheck:
    """Validation of arguments by a JSON Schema; see `ForeignSchema`."""

    def __init__(self, schema: dict[str, Any]) -> None:
        """Compile a schema.

        Raises:
            UnusableOperation: It cannot be used.
        """
        try:
            self._schema = ForeignSchema(schema)
        except ValueError as error:
            raise UnusableOperation(f"its schema is not usable: {error}") from error
        self._required = frozenset(_names(schema.get("required")))
        properties = schema.get("properties")
        self.parameters = tuple(properties) if isinstance(properties, dict) else ()

    def take(self, arguments: str) -> dict[str, Any]:
        """Decode arguments and check them; null for an optional one means absent.

        Args:
            arguments: JSON text.

        Raises:
            ValueError: They do not fit; the message says where.
        """
        text = arguments.strip()
        decoded = msgspec.json.decode(text) if text not in ("", "null") else {}
        if not isinstance(decoded, dict):
            raise ValueError("they must be an object")  # noqa: TRY004 - a value of the model
        if self._schema.is_valid(decoded):
            return decoded
        given = {
            name: each
            for name, each in decoded.items()
            if each is not None or name in self._required
        }
        if len(given) < len(decoded) and self._schema.is_valid(given):
            return given
        raise ValueError(self._schema.fault(decoded))


def _names(value: object) -> list[str]:
    return [each for each in value if isinstance(each, str)] if isinstance(value, list) else []


def _has(schema: Any, root: dict[str, Any], path: tuple[str, ...]) -> bool:  # noqa: ANN401 - any JSON
    """Whether a schema describes a member of a path; members of the items of a list count."""
    seen: set[tuple[int, int]] = set()  # each part is looked at once for each rest of the path

    def has(schema: Any, path: tuple[str, ...], depth: int) -> bool:  # noqa: ANN401
        if not path:
            return True
        place = (id(schema), len(path))
        if not isinstance(schema, dict) or depth > _MAX_SCHEMA_DEPTH or place in seen:
            return False
        seen.add(place)
        reference = schema.get("$ref", "")
        if isinstance(reference, str) and reference.startswith("#/$defs/"):
            found = root.get("$defs", {}).get(reference.removeprefix("#/$defs/"))
            if has(found, path, depth + 1):
                return True
        properties = schema.get("properties")
        if isinstance(properties, dict) and path[0] in properties:
            return has(properties[path[0]], path[1:], depth + 1)
        inner = [schema.get("items")]
        for key in ("allOf", "anyOf", "oneOf"):
            inner += schema[key] if isinstance(schema.get(key), list) else []
        return any(has(each, path, depth + 1) for each in inner)

    return has(schema, path, 0)


class RemoteTool(Tool, frozen=True, kw_only=True, eq=False):
    """A tool of a source.

    Attributes:
        source: Name of the source.
        operation: What it calls.
        upstream: The calls to the source.
        arguments: Their check.
        max_result_bytes: Of a result for the model.
    """

    source: str
    operation: RemoteOperation
    upstream: ToolUpstream
    arguments: ArgumentCheck
    max_result_bytes: int

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names of its parameters."""
        return self.arguments.parameters

    def has_parameter(self, path: Sequence[str]) -> bool:
        """See `Tool.has_parameter`."""
        return _has(self.operation.schema, self.operation.schema, tuple(path))

    def prepare(self, arguments: str) -> PreparedCall:
        """See `Tool.prepare`."""
        if len(arguments) > MAX_ARGUMENT_CHARACTERS:
            raise ToolError(f"Arguments exceed {MAX_ARGUMENT_CHARACTERS} characters.")
        try:
            values = self.arguments.take(arguments)
            keyed = self.mutating or self.read_cache is not None
            plain = canonical_json(values) if keyed else b""
        except (msgspec.DecodeError, ValueError) as error:
            raise ToolError(truncate(f"Invalid arguments for {self.name}: {error}")) from error
        except RecursionError:
            raise ToolError(f"Invalid arguments for {self.name}: nested too deeply.") from None
        if self.mutating and len(plain) > MAX_EFFECT_BYTES:
            raise ToolError(f"Arguments exceed {MAX_EFFECT_BYTES} bytes.")
        return PreparedCall(values, plain)

    async def run(self, prepared: PreparedCall, context: ToolContext) -> ToolOutcome:
        """See `Tool.run`."""

        async def attempt(deadline: float) -> ToolOutcome:
            return await self.operation.invoke(prepared.values, context, deadline)

        with within_span(f"{self.source} {self.operation.name}", "client") as span:
            try:
                outcome = await self.upstream.call(
                    attempt,
                    deadline=context.deadline,
                    read=not self.mutating,
                    principal=context.principal,
                )
            except UpstreamFault as fault:
                if span is not None:
                    span.end(fault.kind)
                return self._unavailable(fault)
            except Exception as defect:  # noqa: BLE001 - of an answer that is foreign
                _log.error("tool %s failed", self.name, exc_info=defect)
                return ToolOutcome(f"{self.name} failed.", True, unknown=self.mutating)
        if outcome.asks is not None:
            return outcome
        content, whole = at_most(outcome.content, self.max_result_bytes)
        if whole and not outcome.partial:
            return outcome
        return structs.replace(outcome, content=content, failed=outcome.failed or not self.mutating)

    def _unavailable(self, fault: UpstreamFault) -> ToolOutcome:
        """What the model reads of a call that failed; the log has one line of it."""
        _log.warning("tool %s of %s: %s", self.name, self.source, fault)
        if self.mutating and fault.sent:
            return ToolOutcome(f"{self.name} did not answer.", True, unknown=True)
        done = " Nothing was changed." if self.mutating else ""
        if fault.kind == "refused":
            text = f"{self.name} is not permitted for this user now.{done}"
        else:
            wait = ""
            if fault.retry_after and fault.retry_after < 3_600:
                wait = f" It may work again in {max(1, round(fault.retry_after))} seconds."
            text = f"{self.name} is not available now.{done}{wait}"
        return ToolOutcome(f"{text} Answer without it, or say so; do not call it again now.", True)
