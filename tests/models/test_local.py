"""A real small model in this process. Weights: `make local-model`."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing

import msgspec
import pytest

from seawall.errors import ConfigError, DeadlineExceeded
from seawall.models import Finish, ModelEvent, ModelRequest, OutputFormat, Prompt, Text
from seawall.models.local import LocalModel, open_local
from seawall.settings import ModelSettings
from seawall.turn import UserMessage
from tests.parts import require
from tests.parts.models import missing_local_model

SETTINGS = ModelSettings(kind="local", context_tokens=1_024, generations=1, threads=1)
ASKED = ModelRequest(Prompt("You are brief."), (UserMessage("Say hello."),), 24, 0.0)
LONG = msgspec.structs.replace(
    ASKED, messages=(UserMessage("Write a long story about the sea."),), max_tokens=900
)


async def ask(model: LocalModel, request: ModelRequest = ASKED) -> list[ModelEvent]:
    deadline = asyncio.get_running_loop().time() + 120
    async with aclosing(model.stream(request, deadline=deadline)) as stream:
        return [event async for event in stream]


async def test_a_real_conversation(caplog: pytest.LogCaptureFixture) -> None:
    """All scenarios with one load, which takes seconds."""
    require(missing_local_model())
    checks: list[Callable[[LocalModel], Awaitable[None]]] = [
        answers_beside_the_event_loop,
        keeps_to_a_schema,
        ends_without_a_reader,
        waits_for_a_slot_until_the_deadline,
    ]

    model = open_local("small", SETTINGS)
    with caplog.at_level("WARNING", "seawall.models"):
        await model.warm()
    assert "model small: the chat template of its weights ignores tools" in caplog.text
    try:
        for check in checks:
            await check(model)
    finally:
        await model.close()


async def answers_beside_the_event_loop(model: LocalModel) -> None:
    """The event loop runs during generation."""

    async def turn_often() -> None:
        for _ in range(100):
            await asyncio.sleep(0)

    answering = asyncio.create_task(ask(model))
    await turn_often()
    assert not answering.done()
    *texts, finish = await answering
    said = "".join(event.text for event in texts if isinstance(event, Text))
    assert said
    assert said == said.lstrip()
    assert isinstance(finish, Finish)
    assert finish.reason in ("stop", "length")
    assert finish.usage.prompt_tokens > 5
    assert 0 < finish.usage.completion_tokens <= 24


async def keeps_to_a_schema(model: LocalModel) -> None:
    """The examples, without which it fills its answer with blanks, have another key."""
    schema: dict[str, object] = {
        "type": "object",
        "properties": {"shade": {"enum": ["red", "blue"]}},
        "required": ["shade"],
        "additionalProperties": False,
    }
    examples = (
        'Answer in JSON.\n\nCustomer: Which colour has grass?\nAssistant: {"colour": "green"}'
        '\n\nCustomer: Which colour has snow?\nAssistant: {"colour": "white"}'
    )
    prompt = Prompt(examples, output=OutputFormat("answer", schema))
    request = ModelRequest(prompt, (UserMessage("Which colour has a leaf?"),), 30, 0.0)
    texts = [event.text for event in await ask(model, request) if isinstance(event, Text)]
    answer = msgspec.json.decode("".join(texts))
    assert answer["shade"] in ("red", "blue")


async def ends_without_a_reader(model: LocalModel) -> None:
    """The only slot is free again long before the generation would end."""
    stream = model.stream(LONG, deadline=asyncio.get_running_loop().time() + 60)
    assert isinstance(await anext(stream), Text)
    await stream.aclose()
    *_, finish = await ask(model)
    assert isinstance(finish, Finish)


async def waits_for_a_slot_until_the_deadline(model: LocalModel) -> None:
    loop = asyncio.get_running_loop()
    first = model.stream(LONG, deadline=loop.time() + 60)
    assert isinstance(await anext(first), Text)
    with pytest.raises(DeadlineExceeded, match="no free slot"):
        await anext(model.stream(ASKED, deadline=loop.time() + 0.05))
    await first.aclose()


def test_missing_weights() -> None:
    require(missing_local_model())
    with pytest.raises(ConfigError, match=r"models\.m\.path: file not found: nowhere"):
        open_local("m", ModelSettings(kind="local", path="nowhere.gguf"))
