"""One attempt of the turn in LangGraph's agent with its SQLite or DynamoDB checkpointer.

RETRY=resume invokes the thread with None, RETRY=again with the input again.
"""

import asyncio
import json
import os
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Annotated

from langchain.agents import create_agent
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.tools import InjectedToolCallId, tool
from langgraph.checkpoint.base import BaseCheckpointSaver
from scenario import (
    ANSWER,
    ATTEMPT,
    COST,
    QUESTION,
    RUN,
    ModelDied,
    interrupt,
    measure,
    next_call,
    refund,
)


class Scripted(BaseChatModel):
    """The model."""

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def bind_tools(self, *_: object, **__: object) -> "Scripted":
        """The script knows its tools."""
        return self

    def _generate(self, messages: list[BaseMessage], *_: object, **__: object) -> ChatResult:
        call = next_call({str(each.name) for each in messages if isinstance(each, ToolMessage)})
        message = AIMessage(ANSWER)
        if call:
            asked = {"id": call[0], "name": call[1], "args": json.loads(call[2])}
            message = AIMessage("", tool_calls=[asked])
        return ChatResult(generations=[ChatGeneration(message=message)])


@tool
def get_order(order: str) -> str:
    """An order."""
    return f"order {order}: paid"


@tool
def refund_order(order: str, call: Annotated[str, InjectedToolCallId], reason: str = "") -> str:  # noqa: ARG001 - of the signature
    """Refund an order."""
    return refund(reason, f"{RUN}:{call}")


@asynccontextmanager
async def open_saver() -> AsyncGenerator[BaseCheckpointSaver, None]:
    """The checkpointer; the module of the other is not imported."""
    if os.environ["STATE"] == "sqlite":
        from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver  # noqa: PLC0415

        async with AsyncSqliteSaver.from_conn_string(os.environ["STORE"]) as saver:
            yield saver
        return
    from langgraph_checkpoint_aws import DynamoDBSaver  # noqa: PLC0415

    yield DynamoDBSaver("checkpoints", endpoint_url=os.environ["DYNAMODB"])


async def main() -> None:
    """Run the turn, or turns that are measured."""
    async with open_saver() as saver:
        agent = create_agent(Scripted(), [get_order, refund_order], checkpointer=saver)

        async def turn(thread: str, given: object = None) -> str:
            place = {"configurable": {"thread_id": thread}}
            state = await agent.ainvoke(given, place, durability="sync")
            return state["messages"][-1].text

        asked = {"messages": [("user", QUESTION)]}
        if COST:
            await measure(lambda thread: turn(thread, asked))
            return
        resumes = ATTEMPT > 1 and os.environ["RETRY"] == "resume"
        try:
            await turn(RUN, None if resumes else asked)
        except ModelDied:
            sys.exit(3)
    interrupt("answered")


asyncio.run(main())
