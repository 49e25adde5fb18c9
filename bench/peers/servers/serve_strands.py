"""strands-agents: an agent of its own for each turn, since one serves one invocation at a time."""

import os
from collections.abc import AsyncIterator

import openai
from answering import application
from strands import Agent
from strands.models.openai import OpenAIModel

# With client_args, as its examples have it, it makes a client, and so connections, for each call.
client = openai.AsyncOpenAI(
    base_url=os.environ["MODEL_URL"], api_key="none", max_retries=0, timeout=120
)
model = OpenAIModel(client=client, model_id="simulated")


async def say(text: str) -> AsyncIterator[str]:
    """One run of an agent."""
    agent = Agent(model=model, system_prompt="Help the customer.", callback_handler=None)
    async for event in agent.stream_async(text):
        if "data" in event:
            yield event["data"]


app = application(say)
