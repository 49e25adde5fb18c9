"""One attempt of the turn in Seawall, sent again with the same idempotency key.

Where the service keeps keys, the tool declares it (`retry="key"`).
"""

import asyncio
import os
import sys

from scenario import (
    ANSWER,
    ATTEMPT,
    COST,
    KEYED,
    POINT,
    QUESTION,
    RUN,
    ModelDied,
    interrupt,
    measure,
    next_call,
    refund,
)

from seawall import (
    AgentSettings,
    ModelRequest,
    Orchestrator,
    Principal,
    ScriptedModel,
    SessionSettings,
    Settings,
    TextDelta,
    ToolCall,
    ToolContext,
    ToolMessage,
    TurnCompleted,
    TurnFailed,
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


async def answer(app: Orchestrator, principal: Principal) -> str:
    """The answer of a turn in a new session."""
    text = ""
    async for event in app.run(new_request(QUESTION, agent="shop"), principal=principal):
        if isinstance(event, TurnFailed):
            sys.exit(f"a turn failed: {event.problem}")
        text += event.text if isinstance(event, TextDelta) else ""
    return text


async def main() -> None:
    """Run the turn, or turns that are measured."""
    lease = 20 if COST else 2  # seconds; a killed attempt's ends before the next one begins
    sessions = SessionSettings(path=os.environ["STORE"], lease_seconds=lease)
    if os.environ["STATE"] == "dynamodb":
        sessions = SessionSettings(
            store="dynamodb",
            endpoint=os.environ["DYNAMODB"],
            create_table=True,
            lease_seconds=lease,
        )
    app = Orchestrator(Settings(sessions=sessions))
    app.model("scripted", ScriptedModel(script))
    app.tool(get_order)
    app.tool(refund_order, mutating=True, retry="key" if KEYED else None)
    app.agent(
        "shop",
        AgentSettings(instructions="Help.", model="scripted", tools=["get_order", "refund_order"]),
    )
    ann = Principal("shop", RUN)
    async with app:
        if COST:
            await measure(lambda _: answer(app, ann))
            return
        again = POINT == "model_dies" and ATTEMPT > 1  # a new message of the customer
        session = None
        if again:
            (page,) = (await app.engine.store.sessions(ann, limit=1)).sessions
            session = page.key.session
        request = new_request(
            QUESTION,
            agent="shop",
            session=session,
            idempotency_key="second" if again else "first",
        )
        done = unknown = False
        async for event in app.run(request, principal=ann):
            done = done or isinstance(event, TurnCompleted)
            unknown = isinstance(event, TurnFailed) and event.problem["code"] == "effect-unknown"
        if unknown:
            waits = (await app.engine.store.waits("shop", limit=9)).waits
            sys.exit(5 if [each.kind for each in waits] == ["unknown"] else 3)
    interrupt("answered")
    sys.exit(0 if done else 3)


asyncio.run(main())
