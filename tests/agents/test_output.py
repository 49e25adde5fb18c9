"""Structured output: answers are validated before clients see them, repaired once, or refused."""

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import jsonschema_rs
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seawall.agents import AgentLimits, build_agent
from seawall.agents.calls import AgentTurn, Answer
from seawall.agents.loop import run_agent
from seawall.agents.output import OutputCheck, build_output
from seawall.config import parse_settings
from seawall.errors import ConfigError, InvalidOutput, Problem, UpstreamFailed
from seawall.events import Event, TextDelta
from seawall.models import Finish, FinishReason, ModelEvent, ModelRequest, Text, ToolCalls
from seawall.settings import OutputSettings
from seawall.tools.toolset import tool
from seawall.turn import AssistantMessage, Principal, ToolCall, Usage, UserMessage

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"stars": {"type": "integer", "minimum": 1, "maximum": 5}},
    "required": ["stars"],
    "additionalProperties": False,
}


def made(schema: dict[str, Any] | None = None) -> OutputCheck:
    output = build_output("reviewer", OutputSettings(schema=schema or SCHEMA))
    assert output is not None
    return output


class Scripted:
    """Returns scripted answers in order, and records its requests."""

    def __init__(self, *steps: str | tuple[str, ToolCall], reason: FinishReason = "stop") -> None:
        self.steps = list(steps)
        self.reason = reason
        self.asked: list[ModelRequest] = []

    async def stream(
        self, request: ModelRequest, *, deadline: float
    ) -> AsyncGenerator[ModelEvent, None]:
        assert deadline
        self.asked.append(request)
        step = self.steps.pop(0)
        text, call = (step, None) if isinstance(step, str) else step
        for character in text:
            yield Text(character)
        if call:
            yield ToolCalls((call,))
        yield Finish("tool_calls" if call else self.reason, Usage(10, 5, 1))

    async def warm(self) -> None:
        pass

    async def close(self) -> None:
        pass


@tool
async def look() -> str:
    """Looks."""
    return "seen"


async def turn(model: Scripted, steps: int = 12) -> tuple[Answer, list[Event]]:
    agent = build_agent(
        "reviewer",
        instructions="Review.",
        model=model,
        tools=(look,),
        limits=AgentLimits(steps=steps),
        output=made(),
    )
    events: list[Event] = []

    async def emit(*happened: Event) -> None:
        events.extend(happened)

    what = AgentTurn(
        turn="t",
        session="s",
        principal=Principal("shop", "me"),
        history=(UserMessage("How is it?"),),
        effect_key="k",
        deadline=asyncio.get_running_loop().time() + 20,
        state={},
    )
    return await run_agent({"reviewer": agent}, "reviewer", what, emit), events


async def test_valid_text_is_sent_in_one_piece() -> None:
    model = Scripted('{"stars": 4}')
    answer, events = await turn(model)
    assert events == [TextDelta('{"stars": 4}')]
    assert answer.messages == (AssistantMessage('{"stars": 4}'),)
    assert model.asked[0].prompt.output is not None
    assert model.asked[0].prompt.output.schema == SCHEMA


async def test_a_repair_is_charged_but_not_stored() -> None:
    model = Scripted('```json\n{"stars": 4}\n```', '{"stars": 4}')
    answer, events = await turn(model)
    assert events == [TextDelta('{"stars": 4}')]
    assert answer.messages == (AssistantMessage('{"stars": 4}'),)
    assert answer.usage == Usage(20, 10, 2)
    invalid, repair = model.asked[1].messages[-2:]
    assert invalid == AssistantMessage('```json\n{"stars": 4}\n```')
    assert isinstance(repair, UserMessage)
    assert "not a JSON document" in repair.text


@pytest.mark.parametrize(("steps", "asked"), [(12, 2), (1, 1)])
async def test_a_second_invalid_answer_is_refused(steps: int, asked: int) -> None:
    model = Scripted('{"stars": 9}', '{"stars": 0}')
    with pytest.raises(InvalidOutput, match=r"stars must be .* than or equal"):
        await turn(model, steps)
    assert len(model.asked) == asked


async def test_text_beside_tool_calls_is_not_part_of_the_answer() -> None:
    model = Scripted(("Let me look. ", ToolCall("1", "look", "{}")), '{"stars": 2}')
    answer, events = await turn(model)
    assert [event.text for event in events if isinstance(event, TextDelta)] == ['{"stars": 2}']
    texts = [each.text for each in answer.messages if isinstance(each, AssistantMessage)]
    assert texts == ["", '{"stars": 2}']


async def test_a_refusal_is_not_repaired() -> None:
    model = Scripted("I would rather not.", reason="content_filter")
    with pytest.raises(UpstreamFailed, match="content filter"):
        await turn(model)


JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text("ab", max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("ab"), inner),
    max_leaves=6,
)
SCHEMAS: list[dict[str, Any]] = [
    SCHEMA,
    {"type": "array", "items": {"anyOf": [{"type": "integer"}, {"$ref": "#/$defs/a"}]}}
    | {"$defs": {"a": {"properties": {"a": {}}, "required": ["a"], "additionalProperties": False}}},
    {"enum": [1, "a", None, True, ["a"]]},
    {"type": ["object", "null"], "properties": {"a": {"const": 1}}, "maxProperties": 1},
    {"oneOf": [{"type": "integer"}, {"minimum": 3}], "not": {"type": "string"}},
]


@pytest.mark.parametrize("schema", SCHEMAS, ids=range(len(SCHEMAS)))
@given(document=JSON)
def test_it_agrees_with_another_validator(schema: dict[str, Any], document: Any) -> None:
    ours = made(schema).fault(msgspec.json.encode(document).decode()) is None
    assert ours == jsonschema_rs.Draft7Validator(schema).is_valid(document)


def test_hostile_text() -> None:
    assert made().fault("[" * 100_000)
    assert made().fault('{"stars": NaN}')
    assert made().fault("\ud800")


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (OutputSettings(), "either schema or schema_file"),
        (OutputSettings(schema=SCHEMA, schema_file="x"), "either schema or schema_file"),
        (OutputSettings(schema_file="nowhere.json"), r"schema_file: nowhere\.json"),
        (OutputSettings(schema=SCHEMA, name="a b"), r"output\.name"),
        (OutputSettings(schema={"type": "objekt"}), "not a JSON Schema"),
        (OutputSettings(schema={"items": {"prefixItems": []}}), "prefixItems is not supported"),
        (OutputSettings(schema={"$ref": "http://127.0.0.1/x"}), "must point into the schema"),
    ],
)
def test_invalid_settings(settings: OutputSettings, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        build_output("reviewer", settings)


def test_a_schema_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "schema.json"
    path.write_bytes(msgspec.json.encode(SCHEMA))
    output = build_output("reviewer", OutputSettings(schema_file=str(path)))
    assert output is not None
    assert output.fault('{"stars": 5}') is None


def test_the_schema_in_toml() -> None:
    settings = parse_settings(
        """
        [models.default]
        kind = "anthropic"
        model = "claude-sonnet-5"
        [agents.reviewer]
        instructions = "Review."
        [agents.reviewer.output.schema]
        type = "object"
        """
    )
    output = settings.agents["reviewer"].output
    assert output is not None
    assert output.schema == {"type": "object"}


def test_the_problem() -> None:
    assert issubclass(InvalidOutput, Problem)
    assert (InvalidOutput.status, InvalidOutput.code) == (502, "invalid-output")
