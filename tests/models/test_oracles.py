"""The providers' own clients as oracles: they read our recordings and check our requests."""

import asyncio
import base64
import importlib
import json
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlsplit

import botocore.session
import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials
from botocore.validate import ParamValidator
from pydantic import TypeAdapter

from seawall.errors import UpstreamRefused
from seawall.models import Model, ModelRequest, OutputFormat, Prompt, ToolSpec
from seawall.models.schemas import is_strict
from seawall.transport.http_client import HttpClient
from seawall.turn import AssistantMessage, Image, Message, ToolCall, ToolMessage, UserMessage
from tests.faulty_server import Request
from tests.models.player import Player, Recording, playing
from tests.models.test_attachments import ALL, asking
from tests.models.test_contract import CALLS, TEXTS, each_wire, with_model
from tests.models.wire import CREDENTIALS, WIRES, Spent, Wire

ANTHROPIC, BEDROCK, OPENAI, RESPONSES = WIRES
SCHEMA: dict[str, object] = {
    "type": "object",
    "properties": {
        "order": {"type": "string", "pattern": "^#W", "description": "Its number."},
        "items": {"type": "array", "items": {"type": "integer", "minimum": 1}, "maxItems": 9},
    },
    "required": ["order"],
}
TOOL = ToolSpec("find_order", "Finds an order.", {"type": "object", "properties": {}})
HISTORY: tuple[Message, ...] = (
    AssistantMessage("Hello, how can I help?"),
    UserMessage("Where are my orders?"),
    AssistantMessage(
        "", (ToolCall("id_1", "find_order", "{}"), ToolCall("id_2", "find_order", '{"a": [1.50]}'))
    ),
    ToolMessage("id_1", "find_order", "There is none.", True),
    ToolMessage("id_2", "find_order", '{"status": "lost"}'),
    AssistantMessage(),
    UserMessage("And the “other” one?"),
)
FULL = ModelRequest(
    Prompt("Be brief.", (TOOL,), OutputFormat("answer", SCHEMA)), HISTORY, 200, temperature=0.25
)
# After a hand-over to an agent that has no tools.
TOOLLESS = ModelRequest(Prompt("Be brief."), HISTORY)
PIXEL = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAA"
    "DUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
PICTURE = Image("image/png", PIXEL)
STRICT = ToolSpec(
    "locate",
    "",
    {"type": "object", "properties": {}, "required": [], "additionalProperties": False},
    strict=True,
)
REQUIRED = ModelRequest(
    Prompt("Be brief.", (TOOL, STRICT)),
    HISTORY,
    tool_choice="required",
    parallel_tool_calls=False,
)
NAMED = ModelRequest(Prompt("Be brief.", (TOOL, STRICT)), HISTORY, tool_choice="locate")
UNCALLED = ModelRequest(Prompt("Be brief.", (TOOL,)), HISTORY, tool_choice="none")
SHOWN = ModelRequest(
    Prompt("Be brief.", (TOOL,)),
    (
        *HISTORY[1:3],
        ToolMessage("id_1", "find_order", "[image image/png]", False, (PICTURE, PICTURE)),
        ToolMessage("id_2", "find_order", "[image image/png]", True, (PICTURE,)),
        AssistantMessage("Two pictures."),
        UserMessage("Thanks."),
    ),
)


async def sent(wire: Wire, request: ModelRequest, **settings: Any) -> Request:
    async with playing(Recording(wire.answer(TEXTS))) as player:
        client = HttpClient()
        model = wire.model(player.url, client, **settings)
        deadline = asyncio.get_running_loop().time() + 20
        async for _ in model.stream(request, deadline=deadline):
            pass
        await client.close()
        return player.requests[0]


@each_wire
async def test_requests_match_the_documented_format(wire: Wire) -> None:
    requests = (FULL, TOOLLESS, SHOWN, REQUIRED, NAMED, UNCALLED)
    documents = [
        (await sent(wire, each, cache=cache, vision=True)).document
        for cache in ("off", "prefix", "conversation")
        for each in requests
    ]
    attached = await sent(wire, asking(*ALL), vision=True, documents=True)
    if wire is BEDROCK:
        model = botocore.session.get_session().get_service_model("bedrock-runtime")
        shape = model.operation_model("ConverseStream").input_shape
        for document in (*documents, _with_bytes(attached.document)):
            report = ParamValidator().validate({"modelId": "m", **document}, shape)
            assert not report.has_errors(), report.generate_report()
        return
    kind = _parameters(wire)
    validator = TypeAdapter(kind)  # takes long to make
    # Models before Claude 4.7 take it, and ours sends it only if an agent has one; the maker's
    # client has dropped it.
    known = {"temperature"} if wire is ANTHROPIC else set()
    for document in (*documents, attached.document):
        validator.validate_python(document)
        assert set(document) <= set(kind.__annotations__) | known, document


def _with_bytes(document: Any) -> Any:
    """As botocore takes it: bytes, which it encodes itself."""
    if isinstance(document, dict):
        return {
            key: base64.b64decode(value, validate=True) if key == "bytes" else _with_bytes(value)
            for key, value in document.items()
        }
    return [_with_bytes(each) for each in document] if isinstance(document, list) else document


@each_wire
async def test_the_choice_of_tools_is_each_providers(wire: Wire) -> None:
    """As the makers document it; the format is checked above."""
    bodies: list[Any] = [
        (await sent(wire, each)).document for each in (TOOLLESS, REQUIRED, NAMED, UNCALLED)
    ]
    plain, required, named, uncalled = bodies
    found = [each.get("tool_choice") for each in (required, named, uncalled)]
    one = required.get("parallel_tool_calls")
    if wire is BEDROCK:
        found = [each["toolConfig"].get("toolChoice") for each in (required, named, uncalled)]
        assert found == [{"any": {}}, {"tool": {"name": "locate"}}, None]
        assert "not available" in str(uncalled["toolConfig"]).lower()
    elif wire is ANTHROPIC:
        assert found == [
            {"type": "any", "disable_parallel_tool_use": True},
            {"type": "tool", "name": "locate"},
            {"type": "none"},
        ]
    elif wire is OPENAI:
        assert found == ["required", {"type": "function", "function": {"name": "locate"}}, "none"]
        strict = [each["function"].get("strict") for each in required["tools"]]
        assert (one, strict) == (False, [None, True])
    else:
        assert found == ["required", {"type": "function", "name": "locate"}, "none"]
        assert (one, [each["strict"] for each in required["tools"]]) == (False, [False, True])
    assert plain.get("tool_choice") in (None, {"type": "none"})  # of tools that were called before


async def test_a_model_that_thinks_cannot_be_made_to_call() -> None:
    with pytest.raises(UpstreamRefused, match="thinks"):
        await sent(ANTHROPIC, NAMED, thinking="adaptive")
    document = (await sent(ANTHROPIC, UNCALLED, thinking="adaptive")).document
    assert document["tool_choice"] == {"type": "none"}


def _parameters(wire: Wire) -> Any:
    """Of a request, as the maker's client declares them; the clients take seconds to import."""
    module, name = {
        "anthropic": ("anthropic.types.message_create_params", "MessageCreateParamsStreaming"),
        "openai": (
            "openai.types.chat.completion_create_params",
            "CompletionCreateParamsStreaming",
        ),
        "responses": (
            "openai.types.responses.response_create_params",
            "ResponseCreateParamsStreaming",
        ),
    }[wire.name]
    return getattr(importlib.import_module(module), name)


@each_wire
async def test_images_of_results_reach_models_that_take_them(wire: Wire) -> None:
    document: Any = (await sent(wire, SHOWN, vision=True)).document
    if wire is OPENAI:  # results are texts here; both come before the images
        roles = [each["role"] for each in document["messages"]]
        assert roles == ["system", "user", "assistant", "tool", "tool", "user", "assistant", "user"]
        shown = document["messages"][5]["content"]
        assert [each["type"] for each in shown] == [
            *("text", "image_url", "image_url", "text", "image_url"),
        ]
        assert shown[1]["image_url"]["url"] == f"data:image/png;base64,{PIXEL}"
    elif wire is RESPONSES:
        first, second = [
            each["output"]
            for each in document["input"]
            if each.get("type") == "function_call_output"
        ]
        assert [each["type"] for each in first] == ["input_text", "input_image", "input_image"]
        assert first[1]["image_url"] == f"data:image/png;base64,{PIXEL}"
        assert len(second) == 2
    elif wire is ANTHROPIC:
        first, second = document["messages"][2]["content"]
        assert [each["type"] for each in first["content"]] == ["text", "image", "image"]
        assert first["content"][1]["source"] == {
            "type": "base64",
            "media_type": "image/png",
            "data": PIXEL,
        }
        assert second["content"] == "[image image/png]"  # an error has text only
    else:
        first, second = [each["toolResult"] for each in document["messages"][2]["content"]]
        assert [[*each] for each in first["content"]] == [["text"], ["image"], ["image"]]
        assert first["content"][1]["image"] == {"format": "png", "source": {"bytes": PIXEL}}
        assert len(second["content"]) == 2


@each_wire
async def test_other_models_read_what_they_are_not_shown(wire: Wire) -> None:
    request = await sent(wire, SHOWN)
    sent_text = json.dumps(request.document)
    assert PIXEL not in sent_text
    assert sent_text.count("You cannot be shown its images.") == 2


async def test_anthropic_request() -> None:
    request = await sent(ANTHROPIC, FULL, cache="conversation")
    assert request.target == "/v1/messages"
    assert request.headers["x-api-key"] == "sk-ant-test"
    assert request.headers["anthropic-version"] == "2023-06-01"
    document: Any = request.document
    assert document["system"][-1]["cache_control"] == {"type": "ephemeral"}
    assert [each["role"] for each in document["messages"]] == [
        *("user", "assistant", "user", "assistant", "user"),
    ]
    calls, results = document["messages"][3:5]
    assert [block["type"] for block in calls["content"]] == ["tool_use", "tool_use"]
    kinds = [block["type"] for block in results["content"]]
    assert kinds == ["tool_result", "tool_result", "text"]
    assert [block.get("is_error") for block in results["content"]] == [True, False, None]
    assert results["content"][-1]["cache_control"] == {"type": "ephemeral"}
    assert calls["content"][1]["input"] == {"a": [1.5]}


async def test_the_schema_is_simplified_as_anthropic_does_it() -> None:
    import anthropic  # noqa: PLC0415 - slow to import

    asked: Any = (await sent(ANTHROPIC, FULL)).document
    assert asked["output_config"]["format"]["schema"] == anthropic.transform_schema(SCHEMA)
    bedrock: Any = (await sent(BEDROCK, FULL)).document
    schema = bedrock["outputConfig"]["textFormat"]["structure"]["jsonSchema"]["schema"]
    assert json.loads(schema) == anthropic.transform_schema(SCHEMA)


async def test_openai_is_strict_only_where_it_can_be() -> None:
    loose: Any = (await sent(OPENAI, FULL)).document
    assert loose["response_format"]["json_schema"]["strict"] is False
    closed = {**SCHEMA, "required": ["order", "items"], "additionalProperties": False}
    assert is_strict(closed)
    assert not is_strict({"anyOf": [SCHEMA]})


@each_wire
async def test_a_schema_in_the_instructions(wire: Wire) -> None:
    body = (await sent(wire, FULL, schema_in_instructions=True)).body
    assert b"valid against this JSON Schema" in body
    assert not any(each in body for each in (b"json_schema", b"response_format", b"outputConfig"))


async def test_requests_of_one_prompt_share_a_cache_key() -> None:
    other = ModelRequest(FULL.prompt, (UserMessage("Something else."),))
    for wire in (OPENAI, RESPONSES):
        keys = {
            (cache, each): (await sent(wire, request, cache=cache)).document["prompt_cache_key"]
            for cache in ("prefix", "conversation")
            for each, request in (("full", FULL), ("other", other))
        }
        assert keys["prefix", "full"] == keys["prefix", "other"]
        assert len(set(keys.values())) == 3
    assert "prompt_cache_key" not in (await sent(OPENAI, FULL)).document


async def with_player(
    wire: Wire, do: Callable[[Player], Awaitable[None]], *, headers: bool = True
) -> None:
    async def inner(_: Model, player: Player, __: HttpClient) -> None:
        await do(player)

    kind = {"content-type": wire.content_type} if headers else {}
    spent = Spent(1_000, 42, 700, 200)
    await with_model(wire, Recording(wire.answer(TEXTS, CALLS, spent=spent), headers=kind), inner)


async def test_anthropics_client_reads_the_recording() -> None:
    import anthropic  # noqa: PLC0415 - slow to import

    async def do(player: Player) -> None:
        client = anthropic.AsyncAnthropic(base_url=player.url, api_key="x", max_retries=0)
        async with (
            client,
            client.messages.stream(
                model="claude-sonnet-5",
                max_tokens=9,
                messages=[{"role": "user", "content": "Hello"}],
            ) as stream,
        ):
            message = await stream.get_final_message()
        text, *calls = message.content
        assert text.type == "text"
        assert text.text == "".join(TEXTS)
        assert [call.input for call in calls if call.type == "tool_use"] == [
            json.loads("".join(call.pieces) or "{}") for call in CALLS
        ]
        assert message.usage.cache_read_input_tokens == 700
        assert message.stop_reason == "tool_use"

    await with_player(ANTHROPIC, do)


async def test_openais_client_reads_the_recordings() -> None:
    import openai  # noqa: PLC0415 - slow to import

    async def chat(player: Player) -> None:
        async with (
            openai.AsyncOpenAI(base_url=f"{player.url}/v1", api_key="x", max_retries=0) as client,
            client.chat.completions.stream(
                model="gpt-5.6", messages=[{"role": "user", "content": "Hello"}]
            ) as stream,
        ):
            completion = await stream.get_final_completion()
        message = completion.choices[0].message
        assert message.content == "".join(TEXTS)
        assert [call.function.arguments for call in message.tool_calls or ()] == [
            "".join(call.pieces) for call in CALLS
        ]

    async def responses(player: Player) -> None:
        async with (
            openai.AsyncOpenAI(base_url=f"{player.url}/v1", api_key="x", max_retries=0) as client,
            client.responses.stream(model="gpt-5.6", input="Hello") as stream,
        ):
            response = await stream.get_final_response()
        assert response.output_text == "".join(TEXTS)
        calls = [each for each in response.output if each.type == "function_call"]
        assert [call.arguments for call in calls] == ["".join(call.pieces) for call in CALLS]
        assert response.usage is not None
        assert response.usage.input_tokens_details.cached_tokens == 700

    await with_player(OPENAI, chat)
    await with_player(RESPONSES, responses)


MODEL_IDS = [
    "anthropic.claude-sonnet-5-20260401-v1:0",
    "arn:aws:bedrock:eu-west-1:123456789012:inference-profile/eu.anthropic.claude-5:0",
    "amazon.nova-pro-v1:0",
]


@pytest.mark.parametrize("model_id", MODEL_IDS)
async def test_botocore_reads_the_recording_and_sends_the_same(model_id: str) -> None:
    ours = await sent(BEDROCK, FULL, model=model_id, cache="prefix")

    async def do(player: Player) -> None:
        asked = {"modelId": model_id, **ours.document}
        events = await asyncio.to_thread(_by_botocore, player.url, asked)
        deltas = [
            each["contentBlockDelta"]["delta"] for each in events if "contentBlockDelta" in each
        ]
        assert "".join(each.get("text", "") for each in deltas) == "".join(TEXTS)
        assert events[-1]["metadata"]["usage"]["cacheReadInputTokens"] == 700
        theirs = player.requests[-1]
        assert theirs.target == ours.target
        assert theirs.document == ours.document

    await with_player(BEDROCK, do)


def _by_botocore(url: str, asked: dict[str, Any]) -> list[dict[str, Any]]:
    client = botocore.session.get_session().create_client(
        "bedrock-runtime",
        region_name="eu-west-1",
        endpoint_url=url,
        aws_access_key_id=CREDENTIALS.access_key,
        aws_secret_access_key=CREDENTIALS.secret_key,
        aws_session_token=CREDENTIALS.token,
        config=Config(retries={"max_attempts": 0}, proxies={}),
    )
    try:
        return list(client.converse_stream(**asked)["stream"])
    finally:
        client.close()


@pytest.mark.parametrize("model_id", MODEL_IDS)
async def test_the_signature_is_the_one_that_botocore_makes(model_id: str) -> None:
    ours = await sent(BEDROCK, FULL, model=model_id)
    names = {"content-type", "host", "x-amz-date", "x-amz-security-token"}
    theirs = AWSRequest(
        "POST",
        f"http://{ours.headers['host']}{ours.target}",
        {name: value for name, value in ours.headers.items() if name in names},
        ours.body,
    )
    theirs.context["timestamp"] = ours.headers["x-amz-date"]
    keys = (CREDENTIALS.access_key, CREDENTIALS.secret_key, CREDENTIALS.token)
    signer = SigV4Auth(Credentials(*keys), "bedrock", "eu-west-1")
    signature = signer.signature(
        signer.string_to_sign(theirs, signer.canonical_request(theirs)), theirs
    )
    assert ours.headers["authorization"].endswith(f"Signature={signature}")
    assert ":" not in urlsplit(ours.target).path


async def test_a_bedrock_api_key_needs_no_signature() -> None:
    assert (await sent(BEDROCK, FULL, api_key="bedrock-key")).headers["authorization"] == (
        "Bearer bedrock-key"
    )
