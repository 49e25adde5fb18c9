"""Scripted model that answers from a function: for tests of agents, and for warm-up turns.

::

    def answer(request: ModelRequest) -> str | tuple[ToolCall, ...]:
        if isinstance(request.messages[-1], ToolMessage):
            return "It is on its way."
        return (ToolCall("1", "get_order_details", '{"order_id": "#W1"}'),)

    app.model("default", ScriptedModel(answer))
"""

from collections.abc import AsyncGenerator, Callable

from seawall.models import Finish, ModelEvent, ModelRequest, Text, ToolCalls
from seawall.turn import ToolCall, Usage

__all__ = ["ScriptedModel"]

Script = Callable[[ModelRequest], str | tuple[ToolCall, ...]]


class ScriptedModel:
    """A model for tests: streams a text word by word, and counts words as tokens.

    Attributes:
        requests: Every request so far.
    """

    def __init__(self, script: Script) -> None:
        """Create the model.

        Args:
            script: Returns the answer to a request: a text, or tool calls.
        """
        self._script = script
        self.requests: list[ModelRequest] = []

    async def stream(
        self, request: ModelRequest, *, deadline: float
    ) -> AsyncGenerator[ModelEvent, None]:
        """See `Model.stream`; it takes no time, so the deadline is ignored."""
        del deadline
        self.requests.append(request)
        answer = self._script(request)
        prompt = len(request.prompt.instructions.split())
        if isinstance(answer, str):
            words = answer.split(" ")
            for index, word in enumerate(words):
                yield Text(f" {word}" if index else word)
            yield Finish("stop", Usage(prompt, len(words), 1))
        else:
            yield ToolCalls(answer)
            yield Finish("tool_calls", Usage(prompt, len(answer), 1))

    async def warm(self) -> None:
        """See `Model.warm`."""

    async def close(self) -> None:
        """See `Model.close`."""
