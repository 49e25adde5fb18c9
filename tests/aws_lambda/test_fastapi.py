"""A plain FastAPI application, served by our runtime on the local Lambda without an adapter."""

from tests.aws_lambda.running import running

APP = "tests.aws_lambda.fastapi_app:app"


async def test_a_fastapi_application_is_served_as_it_is() -> None:
    async with running(APP) as site:
        made = await site.client.post("/orders", json={"item": "lantern", "count": 2})
        assert (made.status_code, made.json()) == (201, {"item": "lantern", "count": 2})
        # Its lifespan is of the environment, not of the invocation: the stock is what is left.
        shown = await site.client.get("/items/lantern", headers={"cookie": "a=b"})
        assert shown.json() == {"name": "lantern", "left": 1, "cookie": "b"}
        refused = await site.client.post("/orders", json={"item": "lantern", "count": 2})
        assert (refused.status_code, refused.json()) == (409, {"detail": "sold out"})
        wrong = await site.client.post("/orders", json={"count": "many"})
        assert wrong.status_code == 422
        assert {each["loc"][-1] for each in wrong.json()["detail"]} == {"item", "count"}
        uploaded = await site.client.post("/upload", content=b"\0\xff" * 500)
        assert uploaded.json() == {"bytes": 1_000}
        assert (await site.client.get("/openapi.json")).json()["openapi"].startswith("3.")
        assert site.function.stats().started == 1
        async with site.client.stream("GET", "/stream?pause=0.5") as answer:
            pieces = answer.aiter_raw()
            assert await anext(pieces) == b"piece 0\n"
            assert site.function.environments[0].assigned == 1  # it is still being answered
            assert b"".join([each async for each in pieces]) == b"piece 1\npiece 2\n"
        assert site.logged() == []
