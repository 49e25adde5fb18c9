"""What all peers that are libraries share: a FastAPI application that streams OpenAI's chunks.

Each peer brings a function that turns a question into pieces of text; this wraps them, as their
users do.
"""

import json
import time
from collections.abc import AsyncIterator, Callable

from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

Say = Callable[[str], AsyncIterator[str]]


class Message(BaseModel):
    """One message of a conversation."""

    role: str
    content: str


class Chat(BaseModel):
    """A chat completion request."""

    model: str
    messages: list[Message]
    stream: bool = False


def application(say: Say) -> FastAPI:
    """Serve `say` at /v1/chat/completions."""
    app = FastAPI()

    @app.get("/ready")
    async def ready() -> dict[str, bool]:
        return {"ready": True}

    @app.post("/v1/chat/completions")
    async def chat(body: Chat) -> StreamingResponse:
        async def stream() -> AsyncIterator[str]:
            head = {
                "id": f"chatcmpl-{time.time_ns()}",
                "object": "chat.completion.chunk",
                "created": int(time.time()),
                "model": body.model,
            }
            async for text in say(body.messages[-1].content):
                choice = {"index": 0, "delta": {"content": text}, "finish_reason": None}
                yield f"data: {json.dumps(head | {'choices': [choice]})}\n\n"
            choice = {"index": 0, "delta": {}, "finish_reason": "stop"}
            yield f"data: {json.dumps(head | {'choices': [choice]})}\n\n"
            yield "data: [DONE]\n\n"

        return StreamingResponse(stream(), media_type="text/event-stream")

    return app
