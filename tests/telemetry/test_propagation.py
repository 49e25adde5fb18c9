"""Trace context that upstreams, tools and the receiver get, from an orchestrator in process."""

import json
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from seawall import Orchestrator, ToolContext
from seawall.config import AgentSettings, parse_settings
from seawall.errors import ConfigError
from seawall.hosts.aws_lambda.runtime_api import traceparent_of
from seawall.spans import incoming_trace
from seawall.turn import Principal
from tests.faulty_server import Answer, Request, serving
from tests.telemetry.receiver import Receiver, attributes, receiving

TRACE, CALLER = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


def chunk(delta: dict[str, object], reason: str | None = None) -> bytes:
    choice = {"delta": delta, "finish_reason": reason}
    return f"data: {json.dumps({'choices': [choice]})}\n\n".encode()


CALL = {"index": 0, "id": "call_1", "function": {"name": "hours", "arguments": '{"city": "Oslo"}'}}
FIRST = chunk({"tool_calls": [CALL]}, "tool_calls")
SECOND = chunk({"content": "Until eight."}, "stop")


def settings(folder: Path, receiver: Receiver, model: str, **telemetry: object) -> str:
    listed = "\n".join(f"{key} = {json.dumps(value)}" for key, value in telemetry.items())
    return f"""
[sessions]
path = "{folder}/sessions.db"
[models.default]
base_url = "{model}/v1"
model = "m"
[telemetry]
endpoint = "{receiver.url}"
{listed}
"""


async def converse(folder: Path, receiver: Receiver, incoming: str, **telemetry: object) -> Any:
    """One turn with a tool: the requests that the model got, and the tool's traceparent."""
    received: list[str] = []
    requests: list[Request] = []

    async def answer(request: Request) -> Answer:
        requests.append(request)
        return Answer(body=FIRST if len(requests) == 1 else SECOND)

    async with serving(answer) as model:
        app = Orchestrator(parse_settings(settings(folder, receiver, model.url, **telemetry)))

        @app.tool
        async def hours(city: str, context: ToolContext) -> str:
            """The opening hours."""
            received.append(context.traceparent)
            return f"{city}: 8 to 8"

        app.agent("one", AgentSettings(instructions="Be kind.", tools=("hours",)))
        incoming_trace.set(incoming.encode())
        async with app:
            events = [event async for event in app.run("When?", principal=Principal("shop", "ada"))]
        assert type(events[-1]).__name__ == "TurnCompleted", events
    return requests, received


def spans_by_id(receiver: Receiver) -> dict[str, Span]:
    return {span.span_id.hex(): span for span in receiver.spans}


async def test_upstream_and_tool_get_the_span_that_calls_them(tmp_path: Path) -> None:
    with receiving() as receiver:
        requests, received = await converse(tmp_path, receiver, f"00-{TRACE}-{CALLER}-01")
        spans = spans_by_id(receiver)
    assert len(requests) == 2
    for request in requests:
        version, trace, span, flags = request.headers["traceparent"].split("-")
        assert (version, trace, flags) == ("00", TRACE, "01")
        assert spans[span].name == "attempt default"
    _, trace, span, _ = received[0].split("-")
    assert trace == TRACE
    assert spans[span].name == "execute_tool hours"


async def test_an_unsampled_trace_is_propagated_as_unsampled(tmp_path: Path) -> None:
    with receiving() as receiver:
        requests, received = await converse(tmp_path, receiver, f"00-{TRACE}-{CALLER}-00")
        assert receiver.spans == []
        assert "gen_ai.client.operation.duration" in receiver.metrics  # counted all the same
    for traceparent in (requests[0].headers["traceparent"], received[0]):
        assert traceparent.startswith(f"00-{TRACE}-")
        assert traceparent.endswith("-00")


async def test_content_is_exported_only_when_enabled(tmp_path: Path) -> None:
    with receiving() as receiver:
        await converse(tmp_path, receiver, "", content=True)
        chats = [attributes(each.attributes) for each in receiver.spans if each.name == "chat m"]
        tool = next(each for each in receiver.spans if each.name == "execute_tool hours")
    instructions = chats[0]["gen_ai.system_instructions"]
    assert json.loads(str(instructions)) == [{"type": "text", "content": "Be kind."}]
    first, second = (json.loads(str(each["gen_ai.input.messages"])) for each in chats)
    assert first == [{"role": "user", "parts": [{"type": "text", "content": "When?"}]}]
    assert [each["role"] for each in second] == ["user", "assistant", "tool"]
    (said,) = json.loads(str(chats[1]["gen_ai.output.messages"]))
    assert said["parts"] == [{"type": "text", "content": "Until eight."}]
    assert attributes(tool.attributes)["gen_ai.tool.call.result"] == "Oslo: 8 to 8"


async def test_a_share_of_turns_is_traced_whole_or_not_at_all(tmp_path: Path) -> None:
    with receiving() as receiver:
        await converse(tmp_path, receiver, "", sample=0.0)
        assert receiver.spans == []
        await converse(tmp_path, receiver, f"00-{TRACE}-{CALLER}-01", sample=0.0)
        assert {span.trace_id.hex() for span in receiver.spans} == {TRACE}
        before = len(receiver.spans)
        await converse(tmp_path, receiver, f"00-{TRACE}-{CALLER}-01", sample=1.0, follow=False)
        after = receiver.spans[before:]
    assert TRACE not in {span.trace_id.hex() for span in after}
    assert len({span.trace_id for span in after}) == 1


async def test_an_unreachable_receiver_fails_no_turn(tmp_path: Path) -> None:
    with receiving() as receiver:
        pass  # it has gone
    requests, _ = await converse(tmp_path, receiver, "", queued=64)
    assert len(requests) == 2


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (
            "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1",
            b"00-5759e988bd862e3fe1be46a994272793-53995c3f42cd8ad8-01",
        ),
        # Lambda names a trace even where tracing is off: then our own sampling decides.
        ("Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=0", b""),
        ("Root=1-5759e988-bd862e3fe1be46a994272793", b""),  # a load balancer's
        ("", b""),
        ("Root=;Parent;=Sampled=1;;", b""),
    ],
)
def test_aws_tracing_header(header: str, expected: bytes) -> None:
    assert traceparent_of(header) == expected


async def test_a_closed_turn_ends_its_spans_without_an_error(tmp_path: Path) -> None:
    with receiving() as receiver:
        async with serving(lambda _: Answer(body=chunk({"content": "It"}), sized=False)) as model:
            app = Orchestrator(parse_settings(settings(tmp_path, receiver, model.url)))
            app.agent("one", AgentSettings(instructions="Be kind."))
            async with app:
                events = app.run("When?", principal=Principal("shop", "ada"))
                async for event in events:
                    if type(event).__name__ == "TextDelta":
                        break
                await events.aclose()
        named = {span.name: span for span in receiver.spans}
    for name in ("turn", "invoke_agent one", "chat m", "attempt default"):
        assert attributes(named[name].attributes)["error.type"] == "cancelled", name
        assert named[name].status.code == 0


async def test_standard_environment_variables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Standard variables switch it on and off, and an unsupported protocol is refused."""
    with receiving() as receiver:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.url)
        monkeypatch.setenv("OTEL_SERVICE_NAME", "shop")
        await converse(tmp_path, Receiver(), "")
        (named,) = {
            str(attributes(each.resource_spans[0].resource.attributes)["service.name"])
            for each in receiver.traces
        }
        assert named == "shop"
        before = len(receiver.requests)
        monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
        await converse(tmp_path, Receiver(), "")
        assert len(receiver.requests) == before
        monkeypatch.delenv("OTEL_SDK_DISABLED")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
        with pytest.raises(ConfigError, match="http/protobuf"):
            await converse(tmp_path, Receiver(), "")


@pytest.mark.parametrize("wrong", ["ftp://x", "http://user:password@x", "nowhere"])
async def test_an_invalid_endpoint_is_refused(tmp_path: Path, wrong: str) -> None:
    receiver = Receiver()
    receiver.url = wrong
    with pytest.raises(ConfigError, match=r"telemetry\.endpoint") as refused:
        await converse(tmp_path, receiver, "")
    assert "password" not in str(refused.value).replace("user name or password", "")
