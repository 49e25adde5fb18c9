"""Options of answers that clients request: stop sequences, JSON, reasoning."""

import json
from typing import Any

import pytest

from seawall.models import ModelRequest, OutputFormat, Prompt
from seawall.models.schemas import ANY_OBJECT
from seawall.models.wrappers import StopSequenceModel
from seawall.turn import UserMessage
from tests.models.player import Recording
from tests.models.test_contract import ask, each_wire, text_of, with_model
from tests.models.wire import WIRES, Wire

STOPS = {
    "openai": ("stop",),
    "anthropic": ("stop_sequences",),
    "bedrock": ("inferenceConfig", "stopSequences"),
}


async def sent(wire: Wire, request: ModelRequest) -> Any:
    """The body of the request that the provider got."""

    async def do(model: Any, player: Any, _: Any) -> Any:
        await ask(model, request)
        return json.loads(player.requests[0].body)

    return await with_model(wire, Recording(wire.answer(["a"])), do)


def asked(output: OutputFormat | None = None, stop: tuple[str, ...] = ()) -> ModelRequest:
    return ModelRequest(Prompt("Help.", (), output), (UserMessage("hi"),), 50, stop=stop)


@each_wire
@pytest.mark.parametrize("stop", [(), ("END", "\n\n")])
async def test_stop_sequences_are_sent_as_each_provider_accepts_them(
    wire: Wire, stop: tuple[str, ...]
) -> None:
    found = await sent(wire, asked(stop=stop))
    for key in STOPS.get(wire.name, ("stop",)):
        found = found.get(key, {})
    taken = {"openai": ["END", "\n\n"], "anthropic": ["END"], "bedrock": ["END"]}
    assert (found or []) == (taken.get(wire.name, []) if stop else [])


@each_wire
async def test_any_object_schema(wire: Wire) -> None:
    body = await sent(wire, asked(OutputFormat("answer", ANY_OBJECT)))
    assert "JSON" in json.dumps(body.get("messages", [])) + json.dumps(body)
    assert "additionalProperties" not in json.dumps(body)
    if wire.name == "openai":
        assert body["response_format"] == {"type": "json_object"}


async def test_reasoning_between_the_halves_of_a_stop_text() -> None:
    deltas = ({"content": "Hi. EN"}, {"reasoning_content": "hm"}, {"content": "D of it"})
    chunks = [json.dumps({"choices": [{"delta": each}]}).encode() for each in deltas]
    played = Recording([b"data: " + each + b"\n\n" for each in chunks], seconds=0.02)

    async def do(model: Any, *_: Any) -> Any:
        return await ask(StopSequenceModel(model, ("END",)))

    assert text_of(await with_model(WIRES[2], played, do)) == "Hi. "
