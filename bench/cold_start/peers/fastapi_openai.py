"""What most teams write: FastAPI behind Mangum, the openai SDK, the whole answer at once."""

import os

import openai
from fastapi import FastAPI
from mangum import Mangum

app = FastAPI()
client = openai.AsyncOpenAI(base_url=os.environ["MODEL"], api_key="none")


@app.post("/v1/turns")
async def turn(body: dict) -> dict:
    text = ""
    stream = await client.chat.completions.create(
        model="simulated", messages=[{"role": "user", "content": body["text"]}], stream=True
    )
    async for chunk in stream:
        if chunk.choices:
            text += chunk.choices[0].delta.content or ""
    return {"text": text}


handler = Mangum(app, lifespan="off")
