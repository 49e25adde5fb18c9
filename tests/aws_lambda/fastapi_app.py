"""A plain FastAPI application, as users write it: models, a dependency, a lifespan."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import Cookie, Depends, FastAPI, HTTPException, Request
from fastapi.responses import StreamingResponse
from pydantic import BaseModel


@asynccontextmanager
async def lifespan(made: FastAPI) -> AsyncIterator[None]:
    made.state.stock = {"lantern": 3}
    yield


app = FastAPI(lifespan=lifespan)


class Order(BaseModel):
    item: str
    count: int = 1


def stock(request: Request) -> dict[str, int]:
    found: dict[str, int] = request.app.state.stock
    return found


@app.post("/orders", status_code=201)
async def order(wanted: Order, left: Annotated[dict[str, int], Depends(stock)]) -> Order:
    if left.get(wanted.item, 0) < wanted.count:
        raise HTTPException(409, "sold out")
    left[wanted.item] -= wanted.count
    return wanted


@app.get("/items/{name}")
def item(
    name: str, left: Annotated[dict[str, int], Depends(stock)], a: Annotated[str, Cookie()] = ""
) -> dict[str, object]:
    return {"name": name, "left": left.get(name, 0), "cookie": a}


@app.post("/upload")
async def upload(request: Request) -> dict[str, int]:
    return {"bytes": len(await request.body())}


@app.get("/stream")
async def stream(pause: float = 0.0) -> StreamingResponse:
    async def pieces() -> AsyncIterator[str]:
        for index in range(3):
            yield f"piece {index}\n"
            await asyncio.sleep(pause)

    return StreamingResponse(pieces(), media_type="text/plain")
