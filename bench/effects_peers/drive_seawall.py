"""One attempt of the turn in Seawall: the same session and idempotency key in every attempt."""

import asyncio
import os
import sys

from scenario import ANSWER, ATTEMPT, POINT, QUESTION, ModelDied, interrupt, next_call, refund

from seawall import (
    AgentSettings,
    ModelRequest,
    Orchestrator,
    Principal,
    ScriptedModel,
    SessionSettings,
    Settings,
    ToolCall,
    ToolContext,
    ToolMessage,
    TurnCompleted,
    UpstreamFailed,
    new_request,
)


def script(request: ModelRequest) -> str | tuple[ToolCall, ...]:
    """The model."""
    names = {
        call.id: call.name
        for message in request.messages
        for call in getattr(message, "tool_calls", ())
    }
    done = {names[each.call_id] for each in request.messages if isinstance(each, ToolMessage)}
    try:
        call = next_call(done)
    except ModelDied:
        raise UpstreamFailed("the model answered with status 500") from None
    return ANSWER if call is None else (ToolCall(*call),)


async def get_order(order: str) -> str:
    """An order."""
    return f"order {order}: paid"


async def refund_order(order: str, context: ToolContext, reason: str = "") -> str:  # noqa: ARG001 - of the signature
    """Refund an order."""
    return await asyncio.to_thread(refund, reason, context.idempotency_key)


async def main() -> None:
    """Run the turn."""
    path = os.environ["STORE"]
    app = Orchestrator(Settings(sessions=SessionSettings(path=path, lease_seconds=2)))
    app.model("scripted", ScriptedModel(script))
    app.tool(get_order)
    app.tool(refund_order, mutating=True)
    app.agent(
        "shop",
        AgentSettings(instructions="Help.", model="scripted", tools=["get_order", "refund_order"]),
    )
    # A customer who asks again sends a new request; a retry has the same key.
    again = POINT == "model_dies" and ATTEMPT > 1
    request = new_request(QUESTION, agent="shop", idempotency_key="second" if again else "first")
    async with app:
        done = False
        async for event in app.run(request, principal=Principal("shop", "ann")):
            done = done or isinstance(event, TurnCompleted)
    interrupt("answered")
    sys.exit(0 if done else 3)


asyncio.run(main())
