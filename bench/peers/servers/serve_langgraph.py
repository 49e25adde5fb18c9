"""LangGraph: a graph of one node that calls the model."""

import os
from collections.abc import AsyncIterator
from typing import Any

from answering import application
from langchain_openai import ChatOpenAI
from langgraph.graph import END, START, MessagesState, StateGraph

model = ChatOpenAI(
    model="simulated", base_url=os.environ["MODEL_URL"], api_key="none", max_retries=0, timeout=120
)


async def answer(state: MessagesState) -> dict[str, Any]:
    """The node."""
    return {"messages": [await model.ainvoke(state["messages"])]}


graph = StateGraph(MessagesState)
graph.add_node("answer", answer)
graph.add_edge(START, "answer")
graph.add_edge("answer", END)
compiled = graph.compile()


async def say(text: str) -> AsyncIterator[str]:
    """One run of the graph."""
    state = {"messages": [{"role": "user", "content": text}]}
    async for piece, _ in compiled.astream(state, stream_mode="messages"):
        if piece.content:
            yield str(piece.content)


app = application(say)
