"""Traces of turns, as a receiver of OpenTelemetry's protocol gets them."""

import json
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from tests.servers import ROOT, ServerProcess, running_model, running_server
from tests.telemetry.receiver import Receiver, attributes, receiving

TRACE, CALLER = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SECRET = "Bearer a-secret-of-the-receiver"
QUESTION = "Hello, this is clara.costa102@example.com. Where is my order #W1005754?"


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


@pytest.fixture(scope="module")
def server(receiver: Receiver, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("traced")
    script = str(ROOT / "examples/store/conversation.json")
    quick = ("--first-token", "0.01", "--duration", "0.05", "--script", script)
    with (
        running_model(*quick) as model,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setenv("OTEL_EXPORTER_OTLP_HEADERS", f"authorization={SECRET.replace(' ', '%20')}")
        patch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")
        with running_server(
            folder,
            model,
            log=str(folder / "log"),
            SERVER__WORKERS="1",
            IDENTITY__ANONYMOUS="true",
            TELEMETRY__ENDPOINT=receiver.url,
            TELEMETRY__EXPORT_SECONDS="0.05",
            TELEMETRY__METRICS_SECONDS="0.05",
        ) as server:
            yield server


def ask(server: ServerProcess, text: str, **headers: str) -> httpx2.Response:
    answer = httpx2.post(f"{server.url}/v1/turns", json={"text": text}, headers=headers, timeout=20)
    assert answer.status_code == 200, answer.text
    return answer


def by_name(spans: list[Span]) -> dict[str, Span]:
    return {span.name: span for span in spans}


def trace_of(receiver: Receiver, trace: str) -> list[Span]:
    """Wait for the span of the turn; return all spans of the trace."""

    def found() -> list[Span]:
        return [span for span in receiver.spans if span.trace_id.hex() == trace]

    receiver.wait(lambda: any(span.name == "turn" for span in found()))
    return found()


def test_a_turn_with_every_stage(server: ServerProcess, receiver: Receiver) -> None:
    answer = ask(server, QUESTION, traceparent=f"00-{TRACE}-{CALLER}-01").json()
    spans = trace_of(receiver, TRACE)
    named = by_name(spans)
    turn = named["turn"]
    assert turn.parent_span_id.hex() == CALLER
    assert turn.kind == Span.SPAN_KIND_SERVER
    put = attributes(turn.attributes)
    assert put["seawall.turn"] == answer["turn"]
    assert put["gen_ai.conversation.id"] == answer["session"]
    assert put["seawall.outcome"] == "completed"

    ids = {span.span_id: span.name for span in spans}
    parents = {span.name: ids.get(span.parent_span_id, "the caller") for span in spans}
    model = "simulated"
    assert parents == {
        "turn": "the caller",
        "authenticate": "turn",
        "admission": "turn",
        "opening": "turn",
        "intent": "opening",
        f"invoke_agent {answer['agent']}": "turn",
        f"chat {model}": f"invoke_agent {answer['agent']}",
        "attempt default": f"chat {model}",
        "execute_tool find_user_id_by_email": f"invoke_agent {answer['agent']}",
        "execute_tool get_order_details": f"invoke_agent {answer['agent']}",
        "commit": "turn",
    }
    for span in spans:
        parent = next((each for each in spans if each.span_id == span.parent_span_id), None)
        assert span.start_time_unix_nano <= span.end_time_unix_nano
        if parent is not None:
            assert parent.start_time_unix_nano - 1_000_000 <= span.start_time_unix_nano
            assert span.end_time_unix_nano <= parent.end_time_unix_nano + 1_000_000

    # A session that exists is loaded: the stage that the first turn does not need.
    second = "5bf92f3577b34da6a3ce929d0e0e4736"
    httpx2.post(
        f"{server.url}/v1/turns",
        json={"text": "Thanks!", "session": answer["session"]},
        headers={"traceparent": f"00-{second}-{CALLER}-01"},
        timeout=20,
    )
    spans = trace_of(receiver, second)
    session = by_name(spans)["session"]
    assert session.parent_span_id == by_name(spans)["opening"].span_id


def test_model_calls_follow_the_conventions(server: ServerProcess, receiver: Receiver) -> None:
    trace = "6bf92f3577b34da6a3ce929d0e0e4736"
    ask(server, QUESTION, traceparent=f"00-{trace}-{CALLER}-01")
    spans = trace_of(receiver, trace)
    chats = [span for span in spans if span.name == "chat simulated"]
    assert len(chats) == 3
    for chat in chats:
        put = attributes(chat.attributes)
        assert chat.kind == Span.SPAN_KIND_CLIENT
        assert put["gen_ai.operation.name"] == "chat"
        assert put["gen_ai.provider.name"] == "openai"
        assert put["gen_ai.request.model"] == "simulated"
        assert put["gen_ai.request.stream"] is True
        assert put["server.address"] == "127.0.0.1"
        assert isinstance(put["server.port"], int)
        assert isinstance(put["gen_ai.usage.input_tokens"], int)
        assert put["gen_ai.response.time_to_first_chunk"] > 0.005  # type: ignore[operator]
    reasons = [attributes(each.attributes)["gen_ai.response.finish_reasons"] for each in chats]
    assert reasons == [["tool_calls"], ["tool_calls"], ["stop"]]
    tool = by_name(spans)["execute_tool get_order_details"]
    assert attributes(tool.attributes)["gen_ai.tool.name"] == "get_order_details"
    agent = next(span for span in spans if span.name.startswith("invoke_agent"))
    assert attributes(agent.attributes)["gen_ai.operation.name"] == "invoke_agent"


def test_content_is_not_exported_by_default(server: ServerProcess, receiver: Receiver) -> None:
    ask(server, QUESTION)
    trace = "7bf92f3577b34da6a3ce929d0e0e4736"
    ask(server, QUESTION, traceparent=f"00-{trace}-{CALLER}-01")
    trace_of(receiver, trace)
    sent = b"".join(body for _, _, body in receiver.requests)
    for said in (b"clara", b"W1005754", b"water filter", b"outdoor shop", b"a-secret"):
        assert said not in sent
    _, headers, _ = receiver.requests[0]
    assert headers["authorization"] == SECRET
    assert headers["content-type"] == "application/x-protobuf"
    resource = attributes(receiver.traces[0].resource_spans[0].resource.attributes)
    assert resource["service.name"] == "seawall"
    assert resource["deployment.environment.name"] == "test"


def test_the_sampling_decision_of_the_caller_is_kept(
    server: ServerProcess, receiver: Receiver
) -> None:
    quiet = "8bf92f3577b34da6a3ce929d0e0e4736"
    ask(server, QUESTION, traceparent=f"00-{quiet}-{CALLER}-00")
    loud = "9bf92f3577b34da6a3ce929d0e0e4736"
    ask(server, QUESTION, traceparent=f"00-{loud}-{CALLER}-01")
    trace_of(receiver, loud)
    assert not [span for span in receiver.spans if span.trace_id.hex() == quiet]


@pytest.mark.parametrize(
    "wrong", ["", "00-zz", f"00-{'0' * 32}-{CALLER}-01", f"ff-{TRACE}-{CALLER}-01", "x" * 5_000]
)
def test_an_invalid_traceparent_begins_a_new_trace(
    server: ServerProcess, receiver: Receiver, wrong: str
) -> None:
    turn = ask(server, "What are your opening hours?", traceparent=wrong).json()["turn"]

    def mine() -> list[Span]:
        return [
            span
            for span in receiver.spans
            if attributes(span.attributes).get("seawall.turn") == turn
        ]

    receiver.wait(lambda: bool(mine()))
    assert mine()[0].parent_span_id == b""


def test_a_refused_turn_has_an_error(server: ServerProcess, receiver: Receiver) -> None:
    trace = "abf92f3577b34da6a3ce929d0e0e4736"
    answer = httpx2.post(
        f"{server.url}/v1/turns",
        json={"text": "x", "session": "ses_that_is_not_there"},
        headers={"traceparent": f"00-{trace}-{CALLER}-01"},
        timeout=20,
    )
    assert answer.status_code == 404
    turn = by_name(trace_of(receiver, trace))["turn"]
    assert turn.status.code == Status.STATUS_CODE_ERROR
    assert attributes(turn.attributes)["error.type"] == "session-not-found"


def test_metrics_of_model_calls(server: ServerProcess, receiver: Receiver) -> None:
    ask(server, QUESTION)
    receiver.wait(lambda: "seawall.turn.time_to_first_text" in receiver.metrics)
    metrics = receiver.metrics
    assert metrics["gen_ai.client.operation.duration"].unit == "s"
    assert metrics["gen_ai.client.token.usage"].unit == "{token}"
    points = metrics["gen_ai.client.token.usage"].histogram.data_points
    kinds = {attributes(point.attributes)["gen_ai.token.type"] for point in points}
    assert kinds == {"input", "output"}
    for metric in metrics.values():
        for point in metric.histogram.data_points:
            assert sum(point.bucket_counts) == point.count > 0
            assert len(point.bucket_counts) == len(point.explicit_bounds) + 1
            assert point.start_time_unix_nano < point.time_unix_nano


def test_exports_are_retried_after_503(server: ServerProcess, receiver: Receiver) -> None:
    receiver.statuses[:] = [503, 503]
    trace = "bbf92f3577b34da6a3ce929d0e0e4736"
    ask(server, QUESTION, traceparent=f"00-{trace}-{CALLER}-01")
    assert len(trace_of(receiver, trace)) > 8


def test_log_records_of_a_turn_have_its_trace_id(receiver: Receiver, tmp_path: Path) -> None:
    trace = "cbf92f3577b34da6a3ce929d0e0e4736"
    with receiving() as model, running_model() as unused:
        model.statuses[:] = [400] * 100
        with running_server(
            tmp_path,
            unused,
            log=str(tmp_path / "log"),
            SERVER__WORKERS="2",
            SERVER__WARM_UP="false",
            IDENTITY__ANONYMOUS="true",
            MODELS__DEFAULT__BASE_URL=f"{model.url}/v1",
            TELEMETRY__ENDPOINT=receiver.url,
            TELEMETRY__EXPORT_SECONDS="0.05",
            LOG_FORMAT="json",
        ) as server:
            answer = httpx2.post(
                f"{server.url}/v1/turns",
                json={"text": "Hello?"},
                headers={"traceparent": f"00-{trace}-{CALLER}-01"},
                timeout=20,
            )
            assert answer.json()["code"] == "upstream-refused"
            spans = trace_of(receiver, trace)
    failed = by_name(spans)["chat simulated"]
    assert failed.status.code == Status.STATUS_CODE_ERROR
    assert attributes(failed.attributes)["error.type"] == "upstream-refused"
    lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    attempt, failure = [line for line in lines if line.get("trace_id") == trace]
    assert attempt["level"] == failure["level"] == "WARNING"
    assert failure["code"] == "upstream-refused"
    assert failure["request_id"] == trace
    assert attempt["span_id"] == by_name(spans)["attempt default"].span_id.hex()
