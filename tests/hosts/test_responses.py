"""OpenAI's Responses API by its own client, unmodified."""

import base64
import io
import itertools
import json
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_type_hints

import httpx2
import pytest
from pydantic import BaseModel

from seawall.hosts.http.responses_body import ResponsesBody
from tests.hosts.test_effects_api import keys_of_callers
from tests.servers import ServerProcess, running

if TYPE_CHECKING:  # slow to import
    import openai

OWN_TOOLS: Any = {"type": "mcp", "server_label": "seawall"}
WEATHER: Any = {
    "type": "function",
    "name": "get_weather",
    "description": "Weather of a place.",
    "parameters": {"type": "object", "properties": {"location": {"type": "string"}}},
}


@contextmanager
def serving(folder: Path) -> Iterator[ServerProcess]:
    environment = {
        "SEAWALL_SESSIONS__PATH": str(folder / "sessions.db"),
        "SEAWALL_BLOBS__PATH": str(folder / "files"),
        "SEAWALL_SERVER__PORT": "0",
        "SEAWALL_SERVER__WORKERS": "1",
        "SEAWALL_SESSIONS__ORPHAN_SCAN_SECONDS": "0.2",
        "SEAWALL_IDENTITY__API_KEYS": keys_of_callers(),
    }
    source = "tests.hosts.responses_app:app"
    with running("serve", source, "--json", environment=environment, log=folder / "log") as server:
        yield server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with serving(tmp_path_factory.mktemp("responses")) as server:
        yield server


def client_of(server: ServerProcess, name: str) -> "openai.OpenAI":
    import openai  # noqa: PLC0415 - slow to import

    return openai.OpenAI(base_url=f"{server.url}/v1", api_key=f"sw_{name}", max_retries=0)


@pytest.fixture(scope="module")
def client(server: ServerProcess) -> "Iterator[openai.OpenAI]":
    with client_of(server, "ann") as made:
        yield made


@pytest.fixture(scope="module")
def other(server: ServerProcess) -> "Iterator[openai.OpenAI]":
    with client_of(server, "bob") as made:
        yield made


def script(*steps: object) -> str:
    return json.dumps(steps)


def order() -> str:
    return uuid.uuid4().hex


def plain(response: Any) -> list[object]:
    """What the items of a response say, whether the client has parsed it or not."""
    return [
        (each.type, each.id, [part.text for part in getattr(each, "content", None) or ()],
         getattr(each, "arguments", None))
        for each in response.output
    ]  # fmt: skip


def check_open(shown: object) -> None:
    """Check a response against types that were generated from the open specification."""
    from openresponses_types.types import ResponseResource  # noqa: PLC0415 - slow to import

    ResponseResource.model_validate(shown)


def refused(call: Any, **arguments: Any) -> tuple[int, str, str | None]:
    import openai  # noqa: PLC0415 - slow to import

    with pytest.raises(openai.APIStatusError) as problem:
        call(**arguments)
    return problem.value.status_code, str(problem.value.code), problem.value.param


def test_it_answers(client: Any) -> None:
    raw = client.responses.with_raw_response.create(model="auto", input="Good morning")
    response = raw.parse()
    assert response.output_text == "I have read 1: Good morning"
    assert (response.status, response.model, response.object) == ("completed", "open", "response")
    assert response.usage is not None
    assert response.usage.total_tokens == 1 + 6
    assert raw.headers["seawall-session"] == response.id.split(".")[0].removeprefix("resp_")
    check_open(json.loads(raw.content))
    again = client.responses.retrieve(response.id)
    assert again.output == response.output
    assert again.usage == response.usage
    (asked,) = client.responses.input_items.list(response.id)
    assert asked.type == "message"
    assert asked.content[0].text == "Good morning"


def test_it_streams(client: Any) -> None:
    with client.responses.stream(model="open", input="Good day") as stream:
        events = list(stream)
        final = stream.get_final_response()
    assert final.output_text == "I have read 1: Good day"
    pieces = [each.delta for each in events if each.type == "response.output_text.delta"]
    assert len(pieces) > 2
    assert "".join(pieces) == final.output_text
    assert plain(client.responses.retrieve(final.id)) == plain(final)


def test_a_response_continues_another(client: Any, other: Any) -> None:
    first = client.responses.create(model="auto", input="one")
    second = client.responses.create(model="auto", input="two", previous_response_id=first.id)
    assert second.output_text == "I have read 3: one | two"
    assert second.previous_response_id == first.id
    third = client.responses.create(
        model="auto",
        previous_response_id=second.id,
        input=[{"role": "user", "content": "three"}, {"role": "user", "content": "four"}],
    )
    assert third.output_text == "I have read 5: one | two | three\n\nfour"
    create = client.responses.create
    named = "previous_response_id"
    assert refused(create, model="auto", input="x", previous_response_id=first.id) == (
        409, "session-conflict", named,
    )  # fmt: skip
    assert refused(create, model="auto", input="x", previous_response_id="resp_ses_0.1") == (
        404, "turn-not-found", named,
    )  # fmt: skip
    theirs = refused(other.responses.create, model="auto", input="x", previous_response_id=third.id)
    assert theirs == (404, "turn-not-found", named)
    assert refused(other.responses.retrieve, response_id=third.id)[:2] == (404, "turn-not-found")


def test_a_conversation_is_a_session(client: Any, other: Any) -> None:
    made = client.conversations.create()
    assert client.conversations.retrieve(made.id).created_at == made.created_at
    assert list(client.conversations.items.list(made.id)) == []
    first = client.responses.create(model="auto", input="one", conversation=made.id)
    assert first.conversation is not None
    assert first.conversation.id == made.id
    second = client.responses.create(model="auto", input="two", conversation={"id": made.id})
    assert second.output_text == "I have read 3: one | two"
    listed = list(client.conversations.items.list(made.id, order="asc", limit=3))
    texts = [each.content[0].text for each in listed if each.type == "message"]
    assert texts == ["one", first.output_text, "two", second.output_text]
    newest = client.conversations.items.list(made.id, limit=1)
    assert newest.data[0].id == second.output[0].id
    assert newest.has_more
    assert refused(other.conversations.delete, conversation_id=f"mine-{made.id}")[0] == 404
    assert client.conversations.delete(made.id).deleted
    assert list(client.conversations.items.list(made.id)) == []
    assert refused(client.responses.retrieve, response_id=first.id)[0] == 404


def test_what_conversations_do_not_have_is_refused(client: Any) -> None:
    create = client.conversations.create
    assert refused(create, metadata={"topic": "x"})[2] == "metadata"
    assert refused(create, items=[{"role": "user", "content": "x"}])[2] == "items"
    assert refused(client.conversations.retrieve, conversation_id="unknown")[0] == 404
    made = create()
    assert client.conversations.update(made.id, metadata={}).id == made.id
    assert refused(client.conversations.update, conversation_id=made.id, metadata={"a": "b"})[
        2
    ] == ("metadata")
    adding = refused(
        client.conversations.items.create,
        conversation_id=made.id,
        items=[{"role": "user", "content": "x"}],
    )
    assert adding == (422, "invalid-field", "items")


def test_without_a_session_the_input_is_the_history(client: Any) -> None:
    items: Any = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "input_text", "text": "one"}]},
        {"type": "reasoning", "id": "rs_1", "summary": []},
        {"type": "function_call", "call_id": "c1", "name": "get_weather", "arguments": "{}"},
        {"type": "function_call", "call_id": "c2", "name": "get_weather", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c1", "output": "rain"},
        {
            "type": "function_call_output",
            "call_id": "c2",
            "output": [{"type": "input_text", "text": "sun"}],
        },
        {
            "type": "message",
            "role": "assistant",
            "content": [{"type": "output_text", "text": "Both.", "annotations": []}],
        },
        {"role": "user", "content": "two"},
    ]
    raw = client.responses.with_raw_response.create(model="open", input=items)
    response = raw.parse()
    assert response.output_text == "I have read 6: one | two"
    assert raw.headers["seawall-client-instructions"] == "appended"
    without = [each for each in items if each.get("call_id") != "c2" or "output" not in each]
    assert refused(client.responses.create, model="open", input=without)[2] == "input[3]"


def test_items_may_be_referred_to(client: Any, other: Any) -> None:
    first = client.responses.create(model="auto", input="one")
    items: Any = [
        {"role": "user", "content": "one"},
        {"type": "item_reference", "id": first.output[0].id},
        {"role": "user", "content": "two"},
    ]
    again = client.responses.create(model="auto", input=items)
    assert again.output_text == "I have read 3: one | two"
    theirs = refused(other.responses.create, model="auto", input=items)
    assert theirs == (422, "invalid-field", "input[1].id")


def test_instructions_by_policy(client: Any) -> None:
    raw = client.responses.with_raw_response.create(
        model="open", input="hi", instructions="Be brief.", stream=True
    )
    assert raw.headers["seawall-client-instructions"] == "appended"
    final = list(raw.parse())[-1]
    assert final.type == "response.completed"
    assert final.response.instructions == "Be brief."
    closed = refused(client.responses.create, model="closed", input="x", instructions="y")
    assert closed == (422, "invalid-field", "instructions")


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("stateless", [False, True])
def test_the_client_runs_its_tool(client: Any, *, streamed: bool, stateless: bool) -> None:
    """With its items of before, or with the id of the response."""

    def run(**arguments: Any) -> Any:
        if not streamed:
            return client.responses.create(model="open", tools=[WEATHER], **arguments)
        with client.responses.stream(model="open", tools=[WEATHER], **arguments) as stream:
            for _ in stream:
                pass
            return stream.get_final_response()

    asked: Any = {"role": "user", "content": "What is the weather?"}
    first = run(input=[asked])
    (call,) = first.output
    assert (first.status, call.type, call.status) == ("completed", "function_call", "completed")
    assert json.loads(call.arguments) == {"location": "San Francisco, CA"}
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "sunny"}
    made = {name: getattr(call, name) for name in ("type", "id", "call_id", "name", "arguments")}
    further = (
        {"input": [asked, made, result]}
        if stateless
        else {"input": [result], "previous_response_id": first.id}
    )
    second = run(**further)
    assert second.output_text == "The tool says: sunny"
    assert second.id != first.id
    assert run(**further).output_text == second.output_text  # a retry
    assert plain(client.responses.retrieve(first.id)) == plain(first)
    assert plain(client.responses.retrieve(second.id)) == plain(second)
    assert client.responses.retrieve(second.id).usage == second.usage
    (returned,) = client.responses.input_items.list(second.id)
    assert (returned.type, returned.output) == ("function_call_output", "sunny")
    third = client.responses.create(model="auto", input="so?", previous_response_id=second.id)
    assert third.output_text == "I have read 5: What is the weather? | so?"
    assert refused(client.responses.create, model="auto", input="x", previous_response_id=first.id)[
        :2
    ] == (409, "session-conflict")


def test_results_of_calls_come_together(client: Any) -> None:
    both = [["get_weather", {"location": "a"}], ["get_weather", {"location": "b"}]]
    first = client.responses.create(model="open", input=script(both, "Thank you."), tools=[WEATHER])
    one, two = first.output
    results: Any = [
        {"type": "function_call_output", "call_id": each.call_id, "output": "fine"}
        for each in (one, two)
    ]
    create = client.responses.create
    assert refused(create, model="open", input=results[:1], tools=[WEATHER])[2] == "input"
    mixed = [{"role": "user", "content": "and?"}, *results]
    assert refused(create, model="open", input=mixed, previous_response_id=first.id)[2] == (
        "input[0]"
    )
    done = create(model="open", input=results, tools=[WEATHER], previous_response_id=first.id)
    assert done.output_text == "Thank you."
    changed = [results[0] | {"output": "other"}, results[1]]
    assert refused(create, model="open", input=changed) == (
        409, "already-decided", "input[0].output",
    )  # fmt: skip
    unknown = [results[0] | {"call_id": "call_x"}]
    assert refused(create, model="open", input=unknown) == (
        404, "turn-not-found", "input[0].call_id",
    )  # fmt: skip


@pytest.mark.parametrize("approve", [True, False])
def test_an_approval_is_requested_and_given(client: Any, *, approve: bool) -> None:
    arguments = {"order": order(), "amount": 50, "card": "4111"}
    first = client.responses.create(
        model="open", input=script([["refund", arguments]], "So it is."), tools=[OWN_TOOLS]
    )
    said, asked = first.output
    assert (said.type, asked.type) == ("message", "mcp_approval_request")
    assert "4111" not in asked.arguments
    decision: Any = {
        "type": "mcp_approval_response",
        "approval_request_id": asked.id,
        "approve": approve,
    }
    second = client.responses.create(model="open", input=[decision], previous_response_id=first.id)
    call, text = second.output
    assert (call.type, call.approval_request_id) == ("mcp_call", asked.id)
    assert call.status == ("completed" if approve else "failed")
    assert text.content[0].text == "So it is."
    assert client.responses.retrieve(first.id).output == first.output
    assert client.responses.retrieve(second.id).output == second.output
    (taken,) = client.responses.input_items.list(second.id)
    assert (taken.type, taken.approve) == ("mcp_approval_response", approve)


def test_results_and_decisions_come_together_or_one_by_one(client: Any) -> None:
    asked = script([["get_weather", {}], ["refund", {"order": order(), "amount": 50}]], "end")
    tools = [WEATHER, OWN_TOOLS]
    first = client.responses.create(model="open", input=asked, tools=tools)
    call, approval = first.output
    output = {"type": "function_call_output", "call_id": call.call_id, "output": "rain"}
    decision = {"type": "mcp_approval_response", "approval_request_id": approval.id}
    decision |= {"approve": True}
    other = client.responses.create(model="open", input=asked, tools=tools)
    foreign = decision | {"approval_request_id": other.output[1].id}
    assert refused(client.responses.create, model="open", input=[output, foreign], tools=tools) == (
        422,
        "invalid-field",
        "input[1].approval_request_id",
    )
    alone = client.responses.create(model="open", input=[decision], tools=tools)
    assert [each.type for each in alone.output] == ["function_call"]
    both = [
        client.responses.create(model="open", input=[output, decision], tools=tools)
        for _ in range(2)
    ]
    assert both[0].output_text == "end"
    assert len({first.id, alone.id, both[0].id}) == 3
    assert plain(both[0]) == plain(both[1]) == plain(client.responses.retrieve(both[0].id))
    assert plain(client.responses.retrieve(alone.id)) == plain(alone)
    assert first.conversation is not None
    pages = client.conversations.items.list(first.conversation.id, order="asc", limit=1)
    listed = [each.type for each in itertools.islice(pages, 20)]
    requested = ["message", "function_call", "mcp_approval_request", "mcp_approval_response"]
    assert listed == [*requested, "function_call_output", "mcp_call", "message"]
    one = client.conversations.items.retrieve
    named: Any = {"conversation_id": first.conversation.id}
    assert one(approval.id, **named).model_dump() == approval.model_dump()
    assert refused(one, item_id="msg_other", **named) == (404, "not-found", "item_id")


def test_a_decision_that_is_repeated_gets_the_same_response(client: Any) -> None:
    asked = script([["refund", {"order": order(), "amount": 50}]], "end")
    first = client.responses.create(model="open", input=asked, tools=[OWN_TOOLS])
    decision = {"type": "mcp_approval_response", "approval_request_id": first.output[-1].id}
    decided: Any = {"model": "open", "tools": [OWN_TOOLS]}
    made = [
        client.responses.create(input=[decision | {"approve": True}], **decided) for _ in range(2)
    ]
    assert made[0].id == made[1].id
    assert plain(made[0]) == plain(made[1])
    assert made[0].usage == made[1].usage
    for other in ({"approve": False}, {"approve": True, "reason": "Because."}):
        assert refused(client.responses.create, input=[decision | other], **decided)[2] == (
            "input[0].approval_request_id"
        )


def test_a_client_that_does_not_know_approvals_gets_a_text(client: Any) -> None:
    steps = script([["refund", {"order": order(), "amount": 50}]], "So it is.")
    response = client.responses.create(model="open", input=steps)
    (said,) = response.output
    assert said.content[0].text.startswith("This waits for approval: refund (decide at /v1/turns/")
    assert len(client.responses.retrieve(response.id).output) == 2


def test_what_a_manager_decides_is_explained(client: Any, server: ServerProcess) -> None:
    first = client.responses.create(
        model="open", input=script([["grant", {"order": order()}]], "Granted.")
    )
    assert first.output_text.startswith("This waits for approval: grant (decide at /v1/turns/")
    (waiting,) = first.model_extra["seawall"]["approvals"]
    done = httpx2.post(
        server.url + waiting["decide"],
        json={"decision": "approve"},
        headers={"x-api-key": "sw_meg"},
        timeout=10,
    )
    assert done.status_code == 200
    session = first.model_extra["seawall"]["session"]
    deadline = time.monotonic() + 10
    while "Granted." not in (
        shown := [
            each.content[0].text
            for each in client.conversations.items.list(session)
            if each.type == "message"
        ]
    ):
        assert time.monotonic() < deadline, shown
        time.sleep(0.05)


def test_a_background_response_is_polled_and_resumed(client: Any) -> None:
    steps = script([["wait", {"seconds": 0.3}]], "It is done now.")
    first = client.responses.create(model="open", input=steps, background=True)
    assert (first.status, first.output) == ("in_progress", [])
    assert client.responses.retrieve(first.id).status == "in_progress"
    events = list(client.responses.retrieve(first.id, stream=True))
    assert events[-1].type == "response.completed"
    done = client.responses.retrieve(first.id)
    assert (done.status, done.output_text) == ("completed", "It is done now.")
    assert events[-1].response.output == done.output
    for known in events:
        after = known.sequence_number
        rest = list(client.responses.retrieve(first.id, stream=True, starting_after=after))
        assert [each.sequence_number for each in rest] == sorted(
            {each.sequence_number for each in rest}
        )
        assert all(each.sequence_number > after for each in rest)
        pieces = [
            "".join(each.delta for each in part if each.type == "response.output_text.delta")
            for part in ([each for each in events if each.sequence_number <= after], rest)
        ]
        assert "".join(pieces) == "It is done now."


def test_a_continuation_in_the_background_is_polled(client: Any) -> None:
    steps = script(
        [["get_weather", {"location": "a"}]], [["wait", {"seconds": 0.5}]], "Now it is done."
    )
    first = client.responses.create(model="open", input=steps, tools=[WEATHER])
    (call,) = first.output
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "sunny"}
    second = client.responses.create(model="open", input=[result], tools=[WEATHER], background=True)
    assert (second.status, second.output) == ("in_progress", [])
    seen = {second.status}
    deadline = time.monotonic() + 10
    while (shown := client.responses.retrieve(second.id)).status == "in_progress":
        assert time.monotonic() < deadline
        assert all(each.type == "mcp_call" for each in shown.output)
        seen.add(shown.status)
        time.sleep(0.02)
    assert seen == {"in_progress"}
    assert (shown.status, shown.output_text) == ("completed", "Now it is done.")
    assert client.responses.retrieve(first.id).output == first.output
    later = f"{first.id}.7"
    assert refused(client.responses.retrieve, response_id=later)[0] == 404


def test_a_background_stream_outlives_its_client(client: Any) -> None:
    steps = script([["wait", {"seconds": 0.3}]], "Still done.")
    stream = client.responses.create(model="open", input=steps, background=True, stream=True)
    begun = next(iter(stream))
    assert begun.type == "response.created"
    stream.close()
    after = begun.sequence_number
    rest = list(client.responses.retrieve(begun.response.id, stream=True, starting_after=after))
    assert rest[0].type == "response.in_progress"
    assert rest[-1].response.output_text == "Still done."


def test_a_response_is_cancelled(client: Any) -> None:
    first = client.responses.create(
        model="open", input=script([["wait", {"seconds": 30}]], "never"), background=True
    )
    assert client.responses.cancel(first.id).status == "cancelled"
    assert client.responses.retrieve(first.id).status == "cancelled"
    *_, last = client.responses.retrieve(first.id, stream=True)
    assert last.response.status == "cancelled"
    done = client.responses.create(model="open", input="hi")
    assert client.responses.cancel(done.id).output == done.output


def test_a_failed_background_response_says_why(client: Any) -> None:
    first = client.responses.create(model="open", input=script("FAIL", order()), background=True)
    deadline = time.monotonic() + 10
    while (shown := client.responses.retrieve(first.id)).status == "in_progress":
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert shown.status == "failed"
    assert shown.error is not None
    assert (shown.error.code, shown.error.message) == ("upstream-failed", "The model failed.")
    for known in (-1, 1, 500):
        resumed = client.responses.retrieve(first.id, stream=True, starting_after=max(known, 0))
        *_, last = resumed
        assert (last.type, last.response.error.code) == ("response.failed", "upstream-failed")
        assert last.sequence_number > known


def test_a_failure_ends_a_stream(client: Any) -> None:
    events = list(client.responses.create(model="open", input=script("FAIL", order()), stream=True))
    assert [each.type for each in events] == [
        "response.created", "response.in_progress", "response.failed",
    ]  # fmt: skip
    assert events[-1].response.error.code == "upstream-failed"
    failed = refused(client.responses.create, model="open", input=script("FAIL", order()))
    assert failed[:2] == (502, "upstream-failed")


def test_another_server_has_it_too(client: Any, server: ServerProcess) -> None:
    """A response of one server is shown, resumed and continued by another with the same store."""
    asked = client.responses.create(model="open", input="weather?", tools=[WEATHER])
    done = client.responses.create(
        model="open", input=script([["done", {"order": "x"}]], "Known."), background=True
    )
    events = list(client.responses.retrieve(done.id, stream=True))
    folder = Path(server.environment["SEAWALL_SESSIONS__PATH"]).parent
    with serving(folder) as another, client_of(another, "ann") as elsewhere:
        for after in (-1, events[3].sequence_number):
            options: Any = {"starting_after": after} if after >= 0 else {}
            again = list(elsewhere.responses.retrieve(done.id, stream=True, **options))
            expected = [each.type for each in events if each.sequence_number > after]
            assert [each.type for each in again] == expected
            assert plain(again[-1].response) == plain(events[-1].response)
        assert plain(elsewhere.responses.retrieve(asked.id)) == plain(asked)
        second = elsewhere.responses.create(
            model="open",
            previous_response_id=asked.id,
            input=[
                {
                    "type": "function_call_output",
                    "call_id": asked.output[0].call_id,
                    "output": "rain",
                }
            ],
        )
        assert second.output_text == "The tool says: rain"
    assert plain(client.responses.retrieve(second.id)) == plain(second)


def test_deletion(client: Any) -> None:
    first = client.responses.create(model="open", input="one")
    client.responses.delete(first.id)
    assert refused(client.responses.retrieve, response_id=first.id)[0] == 404
    assert refused(client.responses.delete, response_id=first.id)[0] == 404
    kept = client.responses.create(model="open", input="one")
    assert refused(client.responses.delete, response_id=f"{kept.id}.7")[0] == 404
    second = client.responses.create(model="open", input="two", previous_response_id=kept.id)
    for each in (kept, second):
        assert refused(client.responses.delete, response_id=each.id)[:2] == (
            409, "session-conflict",
        )  # fmt: skip
    assert client.responses.retrieve(kept.id).output == kept.output


@pytest.mark.parametrize("streamed", [False, True])
def test_a_response_that_is_not_stored_is_gone(client: Any, *, streamed: bool) -> None:
    if streamed:
        events = list(client.responses.create(model="open", input="x", store=False, stream=True))
        response = events[-1].response
    else:
        response = client.responses.create(model="open", input="x", store=False)
    assert response.status == "completed"
    assert response.conversation is None
    assert refused(client.responses.retrieve, response_id=response.id)[0] == 404


@pytest.mark.parametrize("number", [1, 2, 7])
def test_a_turn_has_no_other_responses(client: Any, number: int) -> None:
    made = client.responses.create(model="open", input="x")
    name = f"{made.id}.{number}"
    stored = client.responses
    for call in (stored.retrieve, stored.delete, stored.input_items.list):
        assert refused(call, response_id=name)[::2] == (404, "response_id")
    assert refused(stored.retrieve, response_id=name, stream=True)[0] == 404
    continued = refused(stored.create, model="open", input="x", previous_response_id=name)
    assert continued[::2] == (404, "previous_response_id")


def test_a_turn_that_waits_is_stored_until_it_is_done(client: Any) -> None:
    first = client.responses.create(model="open", input="weather?", tools=[WEATHER], store=False)
    (call,) = first.output
    items: Any = [
        {"role": "user", "content": "weather?"},
        call.model_dump(include={"type", "call_id", "name", "arguments"}),
        {"type": "function_call_output", "call_id": call.call_id, "output": "sunny"},
    ]
    second = client.responses.create(model="open", input=items, tools=[WEATHER], store=False)
    assert second.output_text == "The tool says: sunny"
    assert refused(client.responses.retrieve, response_id=first.id)[0] == 404


def test_the_first_of_two_responses_is_not_deleted(client: Any) -> None:
    first = client.responses.create(model="open", input="weather?", tools=[WEATHER])
    output: Any = {"type": "function_call_output", "call_id": first.output[0].call_id}
    second = client.responses.create(
        model="open", input=[output | {"output": "rain"}], tools=[WEATHER]
    )
    assert refused(client.responses.delete, response_id=first.id)[:2] == (409, "session-conflict")
    assert client.responses.retrieve(second.id).output == second.output


def test_results_of_a_stored_conversation_do_not_delete_it(client: Any) -> None:
    first = client.responses.create(model="open", input="weather?", tools=[WEATHER])
    call = first.output[0].model_dump(include={"type", "call_id", "name", "arguments"})
    output: Any = {"type": "function_call_output", "call_id": call["call_id"], "output": "rain"}
    second = client.responses.create(model="open", input=[output], tools=[WEATHER])
    third = client.responses.create(model="open", input="x", previous_response_id=second.id)
    items = [{"role": "user", "content": "weather?"}, call, output]
    assert refused(client.responses.create, model="open", input=items, store=False)[2] == "store"
    assert client.responses.retrieve(third.id).output == third.output


@pytest.mark.parametrize("way", ["json", "stream", "after a failure"])
def test_an_effect_happens_once_though_nothing_is_stored(
    client: Any, server: ServerProcess, way: str
) -> None:
    effect = [["refund", {"order": order(), "amount": 5}]]
    steps = [effect, "FAIL"] if way == "after a failure" else [effect, "ok"]
    asked: Any = {"model": "open", "input": script(*steps), "store": False}
    asked |= {"stream": way == "stream", "extra_headers": {"idempotency-key": order()}}
    if way == "after a failure":
        assert refused(client.responses.create, **asked)[0] == 502
    made = []
    for _ in range(2):
        answer = client.responses.create(**asked)
        made.append(list(answer)[-1].response if way == "stream" else answer)
    assert [each.status for each in made] == ["completed"] * 2
    assert made[0].id == made[1].id
    (turn,) = session_of(server, made[0].id)["turns"]
    assert [each["status"] for each in turn["effects"]] == ["done"]


def test_what_is_not_stored_expires_though_nobody_deletes_it(
    client: Any, server: ServerProcess
) -> None:
    headers = {"idempotency-key": order()}
    made = client.responses.create(model="open", input="x", store=False, extra_headers=headers)
    kept = client.responses.create(model="open", input="x")
    assert seconds_kept(server, made.id) <= 3_600 < seconds_kept(server, kept.id)


@pytest.mark.parametrize("unknown", [False, True])
def test_of_what_failed_only_an_effect_to_reconcile_is_kept_long(
    client: Any, server: ServerProcess, *, unknown: bool
) -> None:
    effect = (
        ["lose", {"order": order()}] if unknown else ["refund", {"order": order(), "amount": 5}]
    )
    asked: Any = {"model": "open", "input": script([effect], "FAIL"), "store": False}
    code = "effect-unknown" if unknown else "upstream-failed"
    assert refused(client.responses.create, **asked)[1] == code
    caller = {"authorization": "Bearer sw_ann"}
    newest = httpx2.get(f"{server.url}/v1/sessions?limit=1", headers=caller).json()["sessions"]
    assert (newest[0]["expires_at"] - time.time() > 3_600) == unknown


def session_of(server: ServerProcess, response: str) -> dict[str, Any]:
    session = response.removeprefix("resp_").partition(".")[0]
    headers = {"authorization": "Bearer sw_ann"}
    shown: dict[str, Any] = httpx2.get(
        f"{server.url}/v1/sessions/{session}", headers=headers
    ).json()
    return shown


def seconds_kept(server: ServerProcess, response: str) -> float:
    return float(session_of(server, response)["expires_at"]) - time.time()


@pytest.fixture(scope="module")
def picture() -> str:
    """A data URL."""
    pytest.importorskip("PIL", reason="the extra images is not installed")
    from PIL import Image  # noqa: PLC0415 - an extra

    made = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(made, "PNG")
    return "data:image/png;base64," + base64.b64encode(made.getvalue()).decode()


def test_files_are_attachments(client: Any, picture: str) -> None:
    parts: Any = [
        {"type": "input_text", "text": "What is this?"},
        {"type": "input_image", "image_url": picture, "detail": "auto"},
        {"type": "input_file", "filename": "a.txt", "file_data": "data:text/plain;base64,YWJj"},
    ]
    response = client.responses.create(model="open", input=[{"role": "user", "content": parts}])
    assert response.output_text.startswith("I have read 1: What is this?")
    (asked,) = client.responses.input_items.list(response.id)
    assert [each.type for each in asked.content] == ["input_text", "input_image", "input_file"]
    image = asked.content[1].file_id
    again = [{"role": "user", "content": [{"type": "input_image", "file_id": image}]}]
    client.responses.create(model="open", input=again, previous_response_id=response.id)


@pytest.mark.parametrize(
    ("part", "field"),
    [
        ({"type": "input_image", "image_url": "https://example.com/a.png"}, "image_url"),
        ({"type": "input_image", "file_id": "file_unknown"}, "file_id"),
        ({"type": "input_file", "file_url": "https://example.com/a.pdf"}, "file_url"),
        ({"type": "input_file", "file_data": "data:image/png;base64,iVBORw0KGgo="}, "file_data"),
    ],
)
def test_files_that_are_not_taken(client: Any, part: Any, field: str) -> None:
    content = [{"type": "input_text", "text": "x"}, part]
    asked = [{"role": "user", "content": content}]
    assert refused(client.responses.create, model="open", input=asked)[2] == (
        f"input[0].content[1].{field}"
    )


class Party(BaseModel):
    name: str
    guests: int


def test_structured_output(client: Any) -> None:
    parsed = client.responses.parse(model="open", input="A party", text_format=Party)
    assert parsed.output_parsed == Party(name="fair", guests=3)
    loose = client.responses.create(
        model="open", input="x", text={"format": {"type": "json_object"}}
    )
    assert json.loads(loose.output_text)["guests"] == 3
    assert loose.text is not None
    assert loose.text.format is not None
    assert loose.text.format.type == "json_object"


def test_what_is_repeated(client: Any) -> None:
    raw = client.responses.with_raw_response.create(
        model="open",
        input="x",
        tools=[WEATHER],
        tool_choice="none",
        metadata={"a": "b"},
        max_output_tokens=100,
        prompt_cache_key="k",
        safety_identifier="s",
        temperature=0.2,
        include=["reasoning.encrypted_content"],
        extra_headers={"idempotency-key": order()},
    )
    shown = raw.parse()
    check_open(json.loads(raw.content))
    assert (shown.metadata, shown.max_output_tokens) == ({"a": "b"}, 100)
    assert (shown.tool_choice, shown.tools[0].type) == ("none", "function")
    assert (shown.prompt_cache_key, shown.safety_identifier) == ("k", "s")


def test_the_same_key_returns_the_first_response(client: Any) -> None:
    headers = {"idempotency-key": order()}
    made = [
        client.responses.create(model="open", input="x", extra_headers=headers) for _ in range(2)
    ]
    assert made[0].id == made[1].id
    assert made[0].output == made[1].output
    streamed = client.responses.create(model="open", input="x", extra_headers=headers, stream=True)
    assert next(iter(streamed)).response.id == made[0].id


@pytest.mark.parametrize("waits", [False, True])
def test_the_same_key_continues_the_same_response_once(client: Any, *, waits: bool) -> None:
    first = client.responses.create(model="open", input="x")
    asked: Any = {"model": "open", "input": "weather?", "previous_response_id": first.id}
    asked |= {"extra_headers": {"idempotency-key": order()}, "tools": [WEATHER] if waits else []}
    made = [client.responses.create(**asked) for _ in range(2)]
    assert made[0].id == made[1].id
    assert made[0].output == made[1].output
    asked["extra_headers"] = {"idempotency-key": order()}
    assert refused(client.responses.create, **asked)[:2] == (409, "session-conflict")


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"model": "unknown"}, "model"),
        ({"model": "no such model!"}, "model"),
        ({"input": []}, "input"),
        ({"input": " "}, "input"),
        ({"input": [{"role": "user", "content": " "}]}, "input[0].content"),
        ({"input": [{"role": "critic", "content": "x"}]}, "input[0].role"),
        ({"input": [{"role": "assistant", "content": "x"}]}, "input[0].role"),
        ({"input": [{}]}, "input[0]"),
        ({"input": [{"type": "item_reference", "id": "msg_x"}]}, "input[0].id"),
        ({"input": [{"type": "computer_call_output", "call_id": "c"}]}, "input[0].type"),
        ({"input": [{"type": "function_call_output", "call_id": 1}]}, "input[0].call_id"),
        (
            {"input": [{"type": "mcp_approval_response", "approval_request_id": "x",
                        "approve": True}]},
            "input[0].approval_request_id",
        ),
        (
            {"input": [{"role": "user", "content": [{"type": "input_audio", "data": ""}]}]},
            "input[0].content[0].type",
        ),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"tools": [{"type": "mcp", "server_label": "x"}]}, "tools[0].server_label"),
        ({"tools": [OWN_TOOLS | {"headers": {"a": "b"}}]}, "tools[0].headers"),
        ({"tools": [{"type": "function"}]}, "tools[0].name"),
        ({"tools": [{"type": "function", "name": "refund", "parameters": {}}]}, "tools[0].name"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tool_choice": {"type": "function", "name": "other"}}, "tool_choice"),
        ({"tool_choice": {"type": "web_search"}}, "tool_choice"),
        ({"text": {"format": {"type": "json_schema", "name": "a"}}}, "text.format.schema"),
        ({"text": {"format": {"type": "json_schema", "schema": {}}}}, "text.format.name"),
        ({"text": {"verbosity": "loud"}}, "text.verbosity"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"conversation": "c", "previous_response_id": "resp_a.b"}, "conversation"),
        ({"conversation": "not a name"}, "conversation"),
        ({"conversation": {}}, "conversation.id"),
        ({"previous_response_id": "x"}, "previous_response_id"),
        ({"conversation": "c", "input": [{"id": "msg_other.0-1"}]}, "input[0].id"),
        ({"conversation": "c", "input": [{"id": "unknown"}]}, "input[0].id"),
        ({"store": False, "background": True}, "background"),
        ({"store": False, "conversation": "c"}, "conversation"),
        ({"include": ["message.output_text.logprobs"]}, "include[0]"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"truncation": "other"}, "truncation"),
        ({"service_tier": "flex"}, "service_tier"),
        ({"prompt": {"id": "p"}}, "prompt"),
        ({"max_tool_calls": 3}, "max_tool_calls"),
        ({"context_management": [{"type": "compaction"}]}, "context_management"),
        ({"moderation": {"model": "m"}}, "moderation"),
        ({"background_options": {"completion_window": "8h"}}, "background_options"),
        ({"stream_options": {"include_obfuscation": True}}, "stream_options.include_obfuscation"),
        ({"metadata": {"a": 1}}, "metadata[...]"),
        ({"best_of": 2}, "best_of"),
    ],
)  # fmt: skip
def test_what_is_not_offered_is_refused_by_name(
    client: Any, given: dict[str, Any], field: str
) -> None:
    arguments: dict[str, Any] = {"model": "open", "input": "x", **given}
    known = {"extra_body": {"best_of": arguments.pop("best_of")}} if "best_of" in given else {}
    status, _, param = refused(client.responses.create, **arguments, **known)
    assert (status in (404, 422), param) == (True, field)


def test_every_field_of_the_client_is_known() -> None:
    """A new version of the client shows here what it can ask for."""
    from openai.types.responses import response_create_params as official  # noqa: PLC0415

    named = get_type_hints(official.ResponseCreateParamsStreaming)
    assert set(named) <= set(ResponsesBody.__struct_fields__)


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("?starting_after=3", "starting_after"),
        ("?stream=true&starting_after=x", "starting_after"),
        ("?stream=true&starting_after=", "starting_after"),
        ("?stream=maybe", "stream"),
        ("?stream=", "stream"),
        ("?include_obfuscation=true", "include_obfuscation"),
        ("/input_items?limit=0", "limit"),
        ("/input_items?limit=", "limit"),
        ("/input_items?order=up", "order"),
        ("/input_items?after=x", "after"),
    ],
)
def test_parameters_are_checked(client: Any, server: ServerProcess, path: str, field: str) -> None:
    response = client.responses.create(model="open", input="x")
    got = httpx2.get(
        f"{server.url}/v1/responses/{response.id}{path}",
        headers={"x-api-key": "sw_ann"},
        timeout=10,
    )
    assert (got.status_code, got.json()["field"]) == (422, field)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/responses/resp_ses_0.1"),
        ("GET", "/v1/responses/resp_ses_0.1?stream=true"),
        ("DELETE", "/v1/responses/resp_ses_0.1"),
        ("POST", "/v1/responses/resp_ses_0.1/cancel"),
        ("GET", "/v1/responses/resp_ses_0.1/input_items"),
        ("POST", "/v1/responses/compact"),
        ("POST", "/v1/responses/input_tokens"),
        ("GET", "/v1/conversations/unknown/items"),
        ("DELETE", "/v1/conversations/not%20a%20name"),
    ],
)
def test_what_is_not_there(server: ServerProcess, method: str, path: str) -> None:
    def status(headers: dict[str, str]) -> int:
        return httpx2.request(method, server.url + path, headers=headers, timeout=10).status_code

    assert status({"x-api-key": "sw_ann"}) in (404, 405)
    if not path.endswith(("compact", "input_tokens")):
        assert status({"x-api-key": "wrong"}) == 401
