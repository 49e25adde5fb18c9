"""openai-agents: a runner that streams."""

import os
from collections.abc import AsyncIterator

import openai
from answering import application

from agents import Agent, OpenAIChatCompletionsModel, Runner, set_tracing_disabled

set_tracing_disabled(True)
client = openai.AsyncOpenAI(
    base_url=os.environ["MODEL_URL"], api_key="none", max_retries=0, timeout=120
)
agent = Agent(
    name="assistant",
    instructions="Help the customer.",
    model=OpenAIChatCompletionsModel(model="simulated", openai_client=client),
)


async def say(text: str) -> AsyncIterator[str]:
    """One run of the agent."""
    async for event in Runner.run_streamed(agent, text).stream_events():
        if event.type == "raw_response_event" and event.data.type == "response.output_text.delta":
            yield event.data.delta


app = application(say)
