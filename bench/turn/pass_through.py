"""The code that most teams write: FastAPI and the openai SDK, passing a stream through.

No session, no authentication, no intent, no tools. Runs in the venv that `run.py` makes.
"""

import os
from collections.abc import AsyncIterator

import openai
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

app = FastAPI()
client = openai.AsyncOpenAI(
    base_url=os.environ["MODEL_URL"], api_key="none", max_retries=0, timeout=120
)


class Message(BaseModel):
    """One message of a conversation."""

    role: str
    content: str


class Chat(BaseModel):
    """A chat completion request."""

    model: str
    messages: list[Message]
    stream: bool = False


@app.post("/v1/chat/completions")
async def chat(body: Chat) -> StreamingResponse:
    """Pass the model's stream through."""

    async def stream() -> AsyncIterator[str]:
        chunks = await client.chat.completions.create(
            model=body.model, messages=[each.model_dump() for each in body.messages], stream=True
        )
        async for chunk in chunks:
            yield f"data: {chunk.model_dump_json()}\n\n"
        yield "data: [DONE]\n\n"

    return StreamingResponse(stream(), media_type="text/event-stream")
