"""pydantic-ai: an agent that streams."""

import os
from collections.abc import AsyncIterator

import openai
from answering import application
from pydantic_ai import Agent
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider

client = openai.AsyncOpenAI(
    base_url=os.environ["MODEL_URL"], api_key="none", max_retries=0, timeout=120
)
provider = OpenAIProvider(openai_client=client)
agent = Agent(OpenAIChatModel("simulated", provider=provider), instructions="Help the customer.")


async def say(text: str) -> AsyncIterator[str]:
    """One run of the agent."""
    async with agent.run_stream(text) as result:
        async for piece in result.stream_text(delta=True, debounce_by=None):
            yield piece


app = application(say)
