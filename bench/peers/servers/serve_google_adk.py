"""google-adk: one agent, its runner and its sessions in memory, a new session for each turn.

It reaches models of OpenAI's kind by LiteLLM, as its documentation has it.
"""

import os
from collections.abc import AsyncIterator
from uuid import uuid4

from answering import application
from google.adk.agents import LlmAgent
from google.adk.agents.run_config import RunConfig, StreamingMode
from google.adk.models.lite_llm import LiteLlm
from google.adk.runners import Runner
from google.adk.sessions import InMemorySessionService
from google.genai import types

APP, USER = "peer", "customer"
model = LiteLlm(
    model="openai/simulated", api_base=os.environ["MODEL_URL"], api_key="none", num_retries=0
)
agent = LlmAgent(name="helper", model=model, instruction="Help the customer.")
sessions = InMemorySessionService()
runner = Runner(app_name=APP, agent=agent, session_service=sessions)
streamed = RunConfig(streaming_mode=StreamingMode.SSE)


async def say(text: str) -> AsyncIterator[str]:
    """One run in a session of its own, which goes with it."""
    session = uuid4().hex
    await sessions.create_session(app_name=APP, user_id=USER, session_id=session)
    try:
        async for event in runner.run_async(
            user_id=USER,
            session_id=session,
            new_message=types.Content(role="user", parts=[types.Part(text=text)]),
            run_config=streamed,
        ):
            if event.partial and event.content and event.content.parts:
                for part in event.content.parts:
                    if part.text:
                        yield part.text
    finally:
        await sessions.delete_session(app_name=APP, user_id=USER, session_id=session)


app = application(say)
