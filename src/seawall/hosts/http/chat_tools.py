"""Tools in OpenAI's chat format: offered by a request, called and answered in its messages."""

from collections.abc import Sequence
from typing import Any

from msgspec import Struct

from seawall.errors import BodyTooLarge, InvalidField
from seawall.hosts.http.client_tools import MAX_TOOLS, ToolDefinition, client_tools
from seawall.tools.port import MAX_ARGUMENT_CHARACTERS
from seawall.turn import AnswerOptions, ClientTool, ToolCall, ToolMessage

__all__ = ["CalledFunction", "ChatCall", "ChatTool", "History", "tool_options"]

_MAX_ID_CHARACTERS = 256
_MODES = ("auto", "none", "required")


class ChatTool(Struct, frozen=True):
    """A tool that a request offers."""

    type: str
    function: ToolDefinition | None = None


class CalledFunction(Struct, frozen=True):
    """The function of a call."""

    name: str
    arguments: str = ""


class ChatCall(Struct, frozen=True):
    """A call in a message of the assistant."""

    id: str
    type: str = "function"
    function: CalledFunction | None = None


def tool_options(
    tools: Sequence[ChatTool] | None, choice: object, *, parallel: bool | None
) -> AnswerOptions:
    """The options of an answer that concern tools.

    Args:
        tools: As sent.
        choice: `tool_choice`, as sent.
        parallel: `parallel_tool_calls`, as sent.

    Raises:
        InvalidField: One of them is not valid.
    """
    definitions: list[ToolDefinition] = []
    for index, each in enumerate((tools or ())[: MAX_TOOLS + 1]):
        if each.type != "function" or each.function is None:
            member = "function" if each.type == "function" else "type"
            raise InvalidField(
                "Only tools of the type function are offered.", field=f"tools[{index}].{member}"
            )
        definitions.append(each.function)
    offered = client_tools(definitions, "tools", "function.")
    mode, offered = _chosen(choice, offered)
    return AnswerOptions(tools=offered, tool_choice=mode, parallel_tool_calls=parallel is not False)


def _chosen(choice: object, offered: tuple[ClientTool, ...]) -> tuple[str, tuple[ClientTool, ...]]:
    """The choice as of `AnswerOptions`, and the tools that it leaves."""
    if choice is None:
        return "auto", offered
    if isinstance(choice, str) and choice in _MODES:
        return choice, offered
    if isinstance(choice, dict):
        if choice.get("type") == "function":
            name = _function_name(choice)
            if name is not None and name not in _MODES:
                return name, offered
        allowed = choice.get("allowed_tools")
        if choice.get("type") == "allowed_tools" and isinstance(allowed, dict):
            return _allowed(allowed, offered)
    raise InvalidField(
        "Must be none, auto, required, a function, or allowed_tools.", field="tool_choice"
    )


def _allowed(
    allowed: dict[str, Any], offered: tuple[ClientTool, ...]
) -> tuple[str, tuple[ClientTool, ...]]:
    mode, listed = allowed.get("mode"), allowed.get("tools")
    field = "tool_choice.allowed_tools"
    if mode not in ("auto", "required"):
        raise InvalidField("Must be auto or required.", field=f"{field}.mode")
    if not isinstance(listed, list) or not listed:
        raise InvalidField("Must be a list of tools.", field=f"{field}.tools")
    names = {each.name for each in offered}
    wanted: set[str] = set()
    for index, each in enumerate(listed[:MAX_TOOLS]):
        name = _function_name(each) if isinstance(each, dict) else None
        if name not in names:
            raise InvalidField("There is no such tool in tools.", field=f"{field}.tools[{index}]")
        wanted.add(name)
    return mode, tuple(each for each in offered if each.name in wanted)


def _function_name(described: dict[str, Any]) -> str | None:
    function = described.get("function")
    name = function.get("name") if isinstance(function, dict) else None
    return name if isinstance(name, str) else None


class History:
    """The calls of a conversation that a client keeps: none without its result.

    Feed it with the messages in their order, then call `end`.
    """

    __slots__ = ("_open", "_where")

    def __init__(self) -> None:
        self._open: dict[str, str] = {}  # names of functions by the id of their call
        self._where = ""

    def called(self, calls: Sequence[ChatCall], field: str) -> tuple[ToolCall, ...]:
        """The calls of a message of the assistant.

        Args:
            calls: As sent.
            field: Path of their list.

        Raises:
            InvalidField: A call is not valid, or one of before has no result.
        """
        self.end()
        made: list[ToolCall] = []
        for index, each in enumerate(calls):
            path = f"{field}[{index}]"
            if each.type != "function" or each.function is None:
                raise InvalidField("Only calls of functions are offered.", field=f"{path}.type")
            if not 1 <= len(each.id) <= _MAX_ID_CHARACTERS or each.id in self._open:
                raise InvalidField(
                    f"Must be 1 to {_MAX_ID_CHARACTERS} characters, and the only one.",
                    field=f"{path}.id",
                )
            if len(each.function.arguments) > MAX_ARGUMENT_CHARACTERS:
                raise BodyTooLarge(f"Arguments exceed {MAX_ARGUMENT_CHARACTERS} characters.")
            self._open[each.id] = each.function.name
            made.append(ToolCall(each.id, each.function.name, each.function.arguments))
        self._where = field
        return tuple(made)

    def returned(self, call: str | None, content: str, field: str) -> ToolMessage:
        """The result of a call.

        Args:
            call: Its id, as sent.
            content: The result.
            field: Path of the message.

        Raises:
            InvalidField: No call of the message before has this id.
        """
        name = self._open.pop(call, None) if call is not None else None
        if name is None or call is None:
            raise InvalidField(
                "Must be the id of a call of the message of the assistant before.",
                field=f"{field}.tool_call_id",
            )
        return ToolMessage(call, name, content)

    def end(self) -> None:
        """Before a message that is no result.

        Raises:
            InvalidField: A call has none.
        """
        if self._open:
            missing = ", ".join(each[:64] for each in list(self._open)[:5])
            raise InvalidField(
                f"A message of the role tool must follow for each call; missing: {missing}.",
                field=self._where,
            )
