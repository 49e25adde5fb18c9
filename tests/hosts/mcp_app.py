"""A server whose agents are tools for other agents; what they do is in the message.

`test_…` are names that the protocol's conformance suite calls.
"""

import asyncio
import os
from collections import Counter
from collections.abc import AsyncGenerator

from seawall import Orchestrator
from seawall.config import parse_settings
from seawall.models import Finish, ModelEvent, ModelRequest, Text
from seawall.models.scripted import ScriptedModel
from seawall.tools.handover import HAND_OVER
from seawall.tools.policy import Approval
from seawall.turn import ToolCall, ToolMessage, Usage, UserMessage
from tests.hosts import effect_tools

CONFIGURATION = """
[models.default]
base_url = "http://127.0.0.1:9/v1"
model = "none"
[models.slow]
base_url = "http://127.0.0.1:9/v1"
model = "none"
[agents.orders]
description = "Looks after orders: refunds them, says what was done."
instructions = "Help."
tools = ["refund", "grant", "slowly", "done"]
[agents.reader]
description = "Answers questions; changes nothing."
instructions = "Help."
[agents.slow]
description = "Writes for a long time."
instructions = "Help."
model = "slow"
[agents.desk]
description = "Hands over to a person."
instructions = "Help."
handover = true
[agents.hidden]
description = "Is no tool."
instructions = "Help."
[agents.test_simple_text]
description = "Is called by the conformance suite."
instructions = "Help."
[agents.test_error_handling]
description = "Is called by the conformance suite."
instructions = "Help."
[agents.test_streaming_elicitation]
description = "Is called by the conformance suite."
instructions = "Help."
[agents.test_logging_tool]
description = "Is called by the conformance suite."
instructions = "Help."
[routing]
default_agent = "orders"
[handover]
url = "http://127.0.0.1:9/"
secret_env = "DESK_SECRET"
role = "staff"
[mcp]
agents = [
  "orders", "reader", "slow", "desk",
  "test_simple_text", "test_error_handling", "test_streaming_elicitation", "test_logging_tool",
]
"""

_seen: Counter[str] = Counter()


def _answer(request: ModelRequest) -> str | tuple[ToolCall, ...]:
    """`seen WHAT`: how often it happened. `echo`: all of the conversation. A list: its script."""
    said = [each.text for each in request.messages if isinstance(each, UserMessage)]
    if said[-1].startswith("seen "):
        return str(_seen[said[-1].removeprefix("seen ")])
    if said[-1].startswith("["):
        return effect_tools.answer(request)
    if said[-1] == "A person!":
        if isinstance(request.messages[-1], ToolMessage):
            return "done"
        return (ToolCall("c1", HAND_OVER, '{"reason": "asked for it"}'),)
    _seen[said[-1]] += 1
    return "; ".join(said)


class SlowModel:
    """Writes a word every 50 ms for ten minutes."""

    async def stream(
        self, request: ModelRequest, *, deadline: float
    ) -> AsyncGenerator[ModelEvent, None]:
        del request, deadline
        _seen["slow begun"] += 1
        try:
            for _ in range(12_000):
                yield Text("word ")
                await asyncio.sleep(0.05)
        except (asyncio.CancelledError, GeneratorExit):
            _seen["slow cancelled"] += 1
            raise
        yield Finish("stop", Usage(1, 1, 1))

    async def warm(self) -> None:
        pass

    async def close(self) -> None:
        pass


app = Orchestrator(parse_settings(CONFIGURATION, environment=os.environ))
app.model("default", ScriptedModel(_answer))
app.model("slow", SlowModel())
app.tool(effect_tools.refund, mutating=True, approve="amount > 10", redact=("card",))
app.tool(effect_tools.grant, mutating=True, approve=Approval(role="manager"))
app.tool(effect_tools.slow, name="slowly", mutating=True)
app.tool(effect_tools.done)
