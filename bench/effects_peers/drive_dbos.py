"""One attempt of the turn as a pydantic-ai agent in a DBOS workflow on SQLite.

Both tools are DBOS steps, as pydantic-ai's documentation asks for tools with effects. DBOS recovers
pending workflows when it is launched; the workflow's id is the same in every attempt.
"""

import asyncio
import os
import sys

from dbos import DBOS, SetWorkflowID
from pydantic_ai import Agent
from pydantic_ai.durable_exec.dbos import DBOSDurability
from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart, ToolCallPart, ToolReturnPart
from pydantic_ai.models.function import AgentInfo, FunctionModel
from scenario import (
    ANSWER,
    ATTEMPT,
    COST,
    POINT,
    QUESTION,
    interrupt,
    measure,
    next_call,
    refund,
)

DBOS(
    config={
        "name": "shop",
        "system_database_url": f"sqlite:///{os.environ['STORE']}",
        "application_version": "1",
        "log_level": "ERROR",
    }
)


def script(messages: list[ModelMessage], _: AgentInfo) -> ModelResponse:
    """The model."""
    parts = [part for message in messages for part in message.parts]
    call = next_call({part.tool_name for part in parts if isinstance(part, ToolReturnPart)})
    if call is None:
        return ModelResponse(parts=[TextPart(ANSWER)])
    return ModelResponse(parts=[ToolCallPart(call[1], call[2], tool_call_id=call[0])])


agent = Agent(FunctionModel(script), name="shop", capabilities=[DBOSDurability()])


@agent.tool_plain
@DBOS.step()
def get_order(order: str) -> str:
    """An order."""
    return f"order {order}: paid"


@agent.tool_plain
@DBOS.step()
def refund_order(order: str, reason: str = "") -> str:  # noqa: ARG001 - of the signature
    """Refund an order."""
    return refund(reason, f"{DBOS.workflow_id}:{DBOS.step_id}")


@DBOS.workflow()
async def answer(question: str) -> str:
    """The turn."""
    return (await agent.run(question)).output


async def turn(workflow: str) -> str:
    """Run the turn as this workflow."""
    with SetWorkflowID(workflow):
        return await answer(QUESTION)


async def main() -> None:
    """Run the turn, or turns that are measured."""
    DBOS.launch()
    if COST:
        await measure(turn)
        return
    # A customer who asks again after a failure starts another workflow.
    again = POINT == "model_dies" and ATTEMPT > 1
    try:
        found = await turn("second" if again else "first")
    except Exception as error:  # noqa: BLE001 - whatever ends the workflow
        sys.stderr.write(f"{error!r}\n")
        sys.exit(3)
    interrupt("answered")
    sys.exit(0 if found == ANSWER else 4)


asyncio.run(main())
