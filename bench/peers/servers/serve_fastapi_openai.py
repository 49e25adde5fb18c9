"""FastAPI and the openai SDK: what most teams write."""

import os
from collections.abc import AsyncIterator

import openai
from answering import application

client = openai.AsyncOpenAI(
    base_url=os.environ["MODEL_URL"], api_key="none", max_retries=0, timeout=120
)


async def say(text: str) -> AsyncIterator[str]:
    """Pass the model's stream through."""
    chunks = await client.chat.completions.create(
        model="simulated", messages=[{"role": "user", "content": text}], stream=True
    )
    async for chunk in chunks:
        if chunk.choices and chunk.choices[0].delta.content:
            yield chunk.choices[0].delta.content


app = application(say)
