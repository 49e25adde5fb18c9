"""Fields of a chat completion: honoured, read past or refused by name; null is absent."""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import pytest
from pydantic import BaseModel

from seawall.agents import AgentLimits
from seawall.config import AgentSettings, Settings
from seawall.hosts.http.chat_body import IGNORED_FIELDS, REFUSED_FIELDS, ChatBody
from seawall.identity.settings import ApiKeySettings, IdentitySettings
from seawall.models import ModelRequest
from seawall.models.scripted import ScriptedModel
from seawall.orchestrator import Orchestrator
from seawall.settings import OutputSettings, SessionSettings

KEY = "sw_test"
ASKED = [{"role": "user", "content": "hi"}]
TEXT: dict[str, object] = {"type": "text", "text": "a"}
IMAGE = {"type": "image_url", "image_url": {"url": "x"}}


class Chat:
    """A client of OpenAI's in front of an application in this process, and what its model got."""

    def __init__(self, client: Any, http: httpx2.AsyncClient, model: ScriptedModel) -> None:
        self.client = client
        self.http = http
        self.model = model

    async def post(self, path: str = "/v1/chat/completions", /, **body: Any) -> httpx2.Response:
        sent = ({"model": "auto", "messages": ASKED} if "chat" in path else {}) | body
        return await self.http.post(path, json=sent, headers={"authorization": f"Bearer {KEY}"})

    @property
    def asked(self) -> ModelRequest:
        return self.model.requests[-1]


@asynccontextmanager
async def chatting(tmp: Any, *answers: str) -> AsyncIterator[Chat]:
    import openai  # noqa: PLC0415 - slow to import

    left = list(answers) or ["Hello there"]
    model = ScriptedModel(lambda _: left.pop(0) if len(left) > 1 else left[0])
    digest = hashlib.sha256(KEY.encode()).hexdigest()
    key = ApiKeySettings(sha256=digest, tenant="acme", subject="shop")
    app = Orchestrator(
        Settings(
            identity=IdentitySettings(api_keys=(key,)),
            sessions=SessionSettings(path=str(tmp / "sessions.db")),
            agents={
                "one": AgentSettings(
                    instructions="Help.", limits=AgentLimits(steps=3, completion_tokens=1_000)
                ),
                "typed": AgentSettings(
                    instructions="Help.", output=OutputSettings(schema={"type": "array"})
                ),
            },
        )
    )
    app.model("default", model)
    async with (
        app,
        httpx2.AsyncClient(
            transport=httpx2.ASGITransport(app=app.asgi()), base_url="http://test"
        ) as http,
        openai.AsyncOpenAI(
            base_url="http://test/v1", api_key=KEY, max_retries=0, http_client=http
        ) as client,
    ):
        yield Chat(client, http, model)


async def run(tmp: Any, do: Callable[[Chat], Awaitable[None]], *answers: str) -> None:
    async with asyncio.timeout(20), chatting(tmp, *answers) as chat:
        await do(chat)


NULLABLE = (
    "stream stream_options metadata max_tokens max_completion_tokens stop response_format n tools "
    "tool_choice functions function_call logprobs top_logprobs modalities audio temperature top_p "
    "seed user store service_tier web_search_options prediction reasoning_effort frequency_penalty "
    "logit_bias parallel_tool_calls presence_penalty safety_identifier verbosity"
)


@pytest.mark.parametrize("field", NULLABLE.split())
async def test_null_is_absent(tmp_path: Any, field: str) -> None:
    async def do(chat: Chat) -> None:
        answer = await chat.post(**{field: None})
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-type"] == "application/json"

    await run(tmp_path, do)


@pytest.mark.parametrize(
    "body",
    [
        {"stream_options": {"include_usage": None}, "stream": True},
        {"metadata": {"session": None}},
        {"response_format": {"type": "text", "json_schema": None}},
        {"messages": [{"role": "user", "content": "a", "name": None, "refusal": None}]},
        {"messages": [{"role": "assistant", "content": None}, *ASKED]},
        {
            "messages": [
                {
                    "role": "user",
                    "content": [{"type": "text", "text": None}, {"type": "text", "text": "a"}],
                }
            ]
        },
    ],
)
async def test_null_is_absent_within(tmp_path: Any, body: dict[str, object]) -> None:
    async def do(chat: Chat) -> None:
        answer = await chat.post(**body)
        assert answer.status_code == 200, answer.text

    await run(tmp_path, do)


@pytest.mark.parametrize("field", ["session", "agent", "stream", "background"])
async def test_null_is_absent_in_the_turns_api(tmp_path: Any, field: str) -> None:
    async def do(chat: Chat) -> None:
        answer = await chat.post("/v1/turns", text="hi", **{field: None})
        assert answer.status_code == 200, answer.text
        assert answer.json()["text"] == "Hello there"

    await run(tmp_path, do)


def schema(document: object, name: str = "a") -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": name, "schema": document}}


REFUSED: list[tuple[str, object, str]] = [
    ("tools", [{"type": "function", "function": {"name": "f"}}], "tools"),
    ("tool_choice", "required", "tool_choice"),
    ("tool_choice", {"type": "function", "function": {"name": "f"}}, "tool_choice"),
    ("functions", [{"name": "f"}], "functions"),
    ("function_call", "auto", "function_call"),
    ("function_call", {"name": "f"}, "function_call"),
    ("logprobs", True, "logprobs"),
    ("top_logprobs", 3, "top_logprobs"),
    ("modalities", ["text", "audio"], "modalities"),
    ("audio", {"voice": "x", "format": "mp3"}, "audio"),
    ("web_search_options", {}, "web_search_options"),
    ("n", 2, "n"),
    ("max_tokens", 0, "max_tokens"),
    ("max_completion_tokens", -1, "max_completion_tokens"),
    ("max_tokens", "5", "max_tokens"),
    ("max_tokens", 10**30, "max_tokens"),
    ("stop", "", "stop"),
    ("stop", ["a", ""], "stop"),
    ("stop", ["a"] * 5, "stop"),
    ("stop", "x" * 257, "stop"),
    ("stop", 5, "stop"),
    ("messages", [{"role": "user", "content": [IMAGE]}], "messages[0].content[0].image_url.url"),
    ("messages", [{"role": "alien", "content": "a"}], "messages[0].role"),
    ("response_format", {"type": "xml"}, "response_format.type"),
    ("response_format", {"type": "json_schema"}, "response_format.json_schema"),
    ("response_format", schema(None), "response_format.json_schema.schema"),
    ("response_format", schema({}, name="a b"), "response_format.json_schema.name"),
    ("response_format", schema({"if": {}}), "response_format.json_schema.schema.if"),
    ("response_format", schema({"type": "x"}), "response_format.json_schema.schema.type"),
]


@pytest.mark.parametrize(("field", "value", "named"), REFUSED)
async def test_unsupported_features_are_rejected_by_name(
    tmp_path: Any, field: str, value: object, named: str
) -> None:
    async def do(chat: Chat) -> None:
        answer = await chat.post(**{field: value})
        assert answer.status_code == 422, answer.text
        assert (
            answer.json()["field"] == named.removesuffix("[0].type")
            or answer.json()["field"] == named
        )
        assert answer.json()["error"]["param"] == answer.json()["field"]
        assert chat.model.requests == []

    await run(tmp_path, do)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("tools", []), ("tool_choice", "auto"), ("tool_choice", "none"), ("functions", []),
        ("function_call", "none"), ("logprobs", False), ("top_logprobs", 0),
        ("modalities", ["text"]), ("n", 1), ("stop", []), ("response_format", {"type": "text"}),
    ],
)  # fmt: skip
async def test_values_without_effect_are_accepted(tmp_path: Any, field: str, value: object) -> None:
    async def do(chat: Chat) -> None:
        assert (await chat.post(**{field: value})).status_code == 200
        assert chat.asked.max_tokens == 1_000
        assert chat.asked.prompt.output is None

    await run(tmp_path, do)


@pytest.mark.parametrize(
    ("body", "bound"),
    [
        ({"max_tokens": 7}, 7),
        ({"max_tokens": 7.0}, 7),  # an integer by JSON Schema
        ({"max_completion_tokens": 9}, 9),
        ({"max_tokens": 7, "max_completion_tokens": 9}, 7),
        ({"max_tokens": 5_000}, 1_000),  # the agent's own bound applies
    ],
)
async def test_token_limits(tmp_path: Any, body: dict[str, object], bound: int) -> None:
    async def do(chat: Chat) -> None:
        assert (await chat.post(**body)).status_code == 200
        assert chat.asked.max_tokens == bound

    await run(tmp_path, do)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("stop", "text"),
    [
        ("three", "one two "),
        ([" two"], "one"),
        (["o t"], "one tw"),
        (["four", "two three"], "one "),
        (["five"], "one two three four"),
        (["one"], ""),
    ],
)
async def test_the_answer_ends_before_a_stop(
    tmp_path: Any, stop: str | list[str], text: str, stream: bool
) -> None:
    async def do(chat: Chat) -> None:
        create = chat.client.chat.completions.create
        if stream:
            got = ""
            reason = None
            async for chunk in await create(model="one", messages=ASKED, stop=stop, stream=True):
                got += chunk.choices[0].delta.content or ""
                reason = chunk.choices[0].finish_reason or reason
        else:
            answer = await create(model="one", messages=ASKED, stop=stop)
            got, reason = answer.choices[0].message.content or "", answer.choices[0].finish_reason
        assert got == text
        assert reason == "stop"
        assert chat.asked.stop == ((stop,) if isinstance(stop, str) else tuple(stop))

    await run(tmp_path, do, "one two three four")


class Order(BaseModel):
    """What a client of OpenAI's makes a schema of."""

    number: int
    colour: str | None = None


async def test_a_schema_goes_to_the_model_and_is_checked(tmp_path: Any) -> None:
    async def do(chat: Chat) -> None:
        answer = await chat.client.chat.completions.parse(
            model="one",
            messages=[{"role": "user", "content": "hi"}],
            response_format=Order,
        )
        assert answer.choices[0].message.parsed == Order(number=5, colour=None)
        first, second = chat.model.requests
        assert first.prompt.output is not None
        assert first.prompt.output.name == "Order"
        assert first.prompt.output.schema["properties"]["number"]["type"] == "integer"
        assert "number must be of type integer" in str(second.messages[-1])  # it was asked again

    await run(tmp_path, do, '{"number": "5", "colour": null}', '{"number": 5, "colour": null}')


async def test_an_answer_that_stays_invalid_is_refused(tmp_path: Any) -> None:
    async def do(chat: Chat) -> None:
        answer = await chat.post(response_format={"type": "json_object"}, stream=True)
        assert answer.status_code == 200
        assert b"invalid-output" in answer.content
        assert b"not JSON" not in answer.content
        answer = await chat.post(response_format={"type": "json_object"})
        assert (answer.status_code, answer.json()["code"]) == (502, "invalid-output")

    await run(tmp_path, do, "not JSON")


@pytest.mark.parametrize("text", ['{"a": 1}', "{}"])
async def test_any_object(tmp_path: Any, text: str) -> None:
    async def do(chat: Chat) -> None:
        answer = await chat.client.chat.completions.create(
            model="one",
            messages=[{"role": "user", "content": "hi"}],
            response_format={"type": "json_object"},
        )
        assert type(answer).__name__ == "ChatCompletion"
        assert json.loads(answer.choices[0].message.content or "") == json.loads(text)
        assert chat.asked.prompt.output is not None

    await run(tmp_path, do, text)


async def test_an_agents_own_schema_has_priority(tmp_path: Any) -> None:
    wanted = schema({"type": "object", "properties": {}})

    async def do(chat: Chat) -> None:
        refused = await chat.post(model="typed", response_format=wanted)
        assert (refused.status_code, refused.json()["field"]) == (422, "response_format")
        kept = await chat.post(model="typed", response_format={"type": "json_object"})
        assert kept.status_code == 200
        assert kept.json()["choices"][0]["message"]["content"] == "[]"

    await run(tmp_path, do, "[]")


@pytest.mark.parametrize(
    "message",
    [
        {"role": "assistant", "content": ""},
        {"role": "assistant", "content": "  \n"},
        {"role": "assistant", "content": None, "refusal": "I will not."},
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "I will not."}]},
        {"role": "assistant", "content": [{"type": "refusal", "refusal": None}]},
        {"role": "assistant", "content": [], "tool_calls": None, "audio": None},
        {"role": "assistant", "content": None, "tool_calls": []},
    ],
)
async def test_any_history_is_accepted(tmp_path: Any, message: dict[str, object]) -> None:
    async def do(chat: Chat) -> None:
        answer = await chat.post(messages=[*ASKED, message, *ASKED])
        assert answer.status_code == 200, answer.text
        said = [str(each.text) for each in chat.asked.messages]  # type: ignore[union-attr]
        assert all(each.strip() for each in said)
        assert ("I will not." in said) == ("I will not." in str(message))

    await run(tmp_path, do)


@pytest.mark.parametrize("name", ["unknown", "gpt-4.1", "openai/gpt-5", "x" * 100])
@pytest.mark.parametrize("stream", [False, True])
async def test_an_unknown_model_names_the_field(tmp_path: Any, name: str, stream: bool) -> None:
    import openai  # noqa: PLC0415 - slow to import

    async def do(chat: Chat) -> None:
        with pytest.raises(openai.NotFoundError) as refused:
            await chat.client.chat.completions.create(model=name, messages=ASKED, stream=stream)
        assert refused.value.param == "model"
        assert refused.value.code == "unknown-agent"

    await run(tmp_path, do)


async def test_models_one_by_one(tmp_path: Any) -> None:
    import openai  # noqa: PLC0415 - slow to import

    async def do(chat: Chat) -> None:
        for name in ("auto", "one", "typed"):
            assert (await chat.client.models.retrieve(name)).id == name
        with pytest.raises(openai.NotFoundError) as unknown:
            await chat.client.models.retrieve("unknown")
        assert unknown.value.param == "model"
        assert (await chat.http.get("/v1/models/one")).status_code == 401

    await run(tmp_path, do)


async def test_the_same_key_with_other_options_is_another_request(tmp_path: Any) -> None:
    async def do(chat: Chat) -> None:
        headers = {"authorization": f"Bearer {KEY}", "idempotency-key": "k"}
        body = {"model": "one", "messages": ASKED}
        for more, status in (({}, 200), ({"max_tokens": None}, 200), ({"max_tokens": 5}, 422)):
            answer = await chat.http.post("/v1/chat/completions", json=body | more, headers=headers)
            assert answer.status_code == status

    await run(tmp_path, do)


def test_every_field_of_the_api_is_honoured_ignored_or_refused() -> None:
    """By the official client's own list of parameters."""
    from openai.types.chat import completion_create_params  # noqa: PLC0415 - slow to import

    known = set(completion_create_params.CompletionCreateParamsStreaming.__annotations__) | set(
        completion_create_params.CompletionCreateParamsBase.__annotations__
    )
    read = set(ChatBody.__struct_fields__)
    assert known == (read | set(IGNORED_FIELDS)) & known
    assert not read & set(IGNORED_FIELDS)
    assert set(REFUSED_FIELDS) <= read


@pytest.mark.parametrize("field", IGNORED_FIELDS)
async def test_what_belongs_to_the_agent_is_read_past(tmp_path: Any, field: str) -> None:
    async def do(chat: Chat) -> None:
        assert (await chat.post(**{field: "high"})).status_code == 200

    await run(tmp_path, do)
