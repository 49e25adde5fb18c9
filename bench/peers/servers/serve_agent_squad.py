"""agent-squad: its OpenAI agent; without its classifier, which would need a second model call."""

import os
from collections.abc import AsyncIterator

import openai
from agent_squad.agents import OpenAIAgent, OpenAIAgentOptions
from answering import application

agent = OpenAIAgent(
    OpenAIAgentOptions(
        name="assistant",
        description="Helps the customer.",
        api_key="none",
        model="simulated",
        streaming=True,
        client=openai.OpenAI(
            base_url=os.environ["MODEL_URL"], api_key="none", max_retries=0, timeout=120
        ),
    )
)


async def say(text: str) -> AsyncIterator[str]:
    """One request to the agent."""
    answer = await agent.process_request(text, "customer", "session", [])
    async for piece in answer:
        if piece.text:
            yield piece.text


app = application(say)
