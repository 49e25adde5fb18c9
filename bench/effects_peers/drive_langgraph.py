"""One attempt of the turn in LangGraph's agent with its SQLite checkpointer.

RETRY=resume invokes the thread with None, RETRY=again with the input again.
"""

import json
import os
import sys
from typing import Annotated

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.tools import InjectedToolCallId, tool
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.prebuilt import create_react_agent
from scenario import ANSWER, ATTEMPT, QUESTION, ModelDied, interrupt, next_call, refund


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
    return refund(reason, f"thread-1:{call}")


with SqliteSaver.from_conn_string(os.environ["STORE"]) as saver:
    agent = create_react_agent(Scripted(), [get_order, refund_order], checkpointer=saver)
    resumes = ATTEMPT > 1 and os.environ["RETRY"] == "resume"
    given = None if resumes else {"messages": [("user", QUESTION)]}
    try:
        agent.invoke(given, {"configurable": {"thread_id": "thread-1"}}, durability="sync")
    except ModelDied:
        sys.exit(3)
interrupt("answered")
