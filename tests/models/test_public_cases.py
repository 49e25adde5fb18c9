"""Cases from public bug reports about model servers, each through a whole turn.

The inputs are those of the reports in our own words; what is checked is what a client of the server
sees, and what the model server is sent.
"""

import json
import logging
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.faulty_server import Request
from tests.models.player import Recording
from tests.models.serving import serving
from tests.models.wire import WIRES, Call

ANTHROPIC, BEDROCK, _, RESPONSES = WIRES
DONE = b"data: [DONE]\n\n"


def event(document: object) -> bytes:
    return b"data: " + json.dumps(document).encode() + b"\n\n"


def delta(finish: str | None = None, **fields: Any) -> bytes:
    return event({"choices": [{"index": 0, "delta": fields, "finish_reason": finish}]})


def said(*texts: str, finish: str = "stop") -> list[bytes]:
    return [*(delta(content=text) for text in texts), delta(finish), DONE]


def call(arguments: object, **fields: Any) -> dict[str, Any]:
    function = {"name": "lookup", "arguments": arguments}
    return {"index": 0, "id": "call_a", "type": "function", "function": function, **fields}


def asks(*calls: dict[str, Any], finish: str = "tool_calls") -> Recording:
    return Recording([*(delta(tool_calls=[each]) for each in calls), delta(finish), DONE])


ANSWER = Recording(said("All is well."))


@pytest.mark.parametrize(
    "second",
    [
        {"index": 0, "id": "call_b"},
        {"index": 0, "id": ""},
        {"index": None, "id": None},
        {"index": None, "id": "call_b"},
    ],
)
async def test_s1_calls_without_a_useful_index_are_distinguished(
    tmp_path: Path, second: dict[str, Any]
) -> None:
    first = call('{"path":"a"}', **({} if second["id"] else {"id": second["id"]}))
    both = asks(first, call('{"path":"b"}', **second))
    async with serving(tmp_path, both, ANSWER) as served:
        assert (await served.turn()).json()["text"] == "All is well."
        assert sorted(each["path"] for each in served.ran) == ["a", "b"]
        calls = served.sent()["messages"][-3]["tool_calls"]
        results = served.sent()["messages"][-2:]
        assert [each["id"] for each in calls] == [each["tool_call_id"] for each in results]
        assert len({each["id"] for each in calls}) == 2


@pytest.mark.parametrize("index", [None, "0", 0.0])
async def test_s2_an_index_that_is_no_number(tmp_path: Path, index: object) -> None:
    async with serving(tmp_path, asks(call('{"path":"a"}', index=index)), ANSWER) as served:
        assert (await served.turn()).status_code == 200
        assert served.ran == [{"path": "a"}]


NULLS: Sequence[bytes] = (
    event({"choices": None, "usage": {"prompt_tokens": 7, "completion_tokens": 3}}),
    event({"choices": [None]}),
    event({"choices": [], "error": None, "usage": None}),
    event({"choices": [{"delta": None}]}),
    event({"choices": [{"delta": {"content": None, "tool_calls": None, "refusal": None}}]}),
    event(
        {
            "choices": [],
            "usage": {"prompt_tokens": 7, "completion_tokens": 3, "prompt_tokens_details": None},
        }
    ),
    b"data: null\n\n",
    b"data:\n\n",
    b"data: : keepalive\n\n",
    b"data: ping\n\n",
    b"data: 42\n\n",
    b"data: []\n\n",
    b'data: "ping"\n\n',
    b": comment\n\n",
    b"event: ping\ndata: {}\n\n",
    b"retry: 3\nid: 7\n\n",
    b'data: {"choices":[],"logprobs":NaN}\n\n',
    b'data: \xef\xbb\xbf{"choices":[]}\n\n',
)


async def test_s3_keep_alives_are_skipped(tmp_path: Path) -> None:
    noisy = Recording([*NULLS, delta(content="All is "), *NULLS, delta(content="well."), *NULLS])
    noisy.chunks = [*noisy.chunks, delta("stop"), *NULLS, b"data: [DONE] \n\n"]
    async with serving(tmp_path, noisy) as served:
        answer = (await served.turn()).json()
        assert answer["text"] == "All is well."
        assert answer["usage"]["prompt_tokens"] == 7
        assert len(served.player.requests) == 1


async def test_s4_the_reason_counts_beside_a_delta_of_null(tmp_path: Path) -> None:
    last = event({"choices": [{"delta": None, "finish_reason": "length"}]})
    async with serving(tmp_path, Recording([delta(content="Hi"), last])) as served:
        assert (await served.turn()).json()["finish_reason"] == "length"


async def test_s5_content_may_be_a_list_of_parts(tmp_path: Path) -> None:
    thought = {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}
    parts = [delta(content=[thought, {"type": "text", "text": "Hi"}]), delta("stop"), DONE]
    async with serving(tmp_path, Recording(parts), agent="reasoning = true") as served:
        events = await served.events()
        assert [each["text"] for each in events if each["type"] == "text.delta"] == ["Hi"]
        assert [each["text"] for each in events if each["type"] == "reasoning.delta"] == ["hm"]


@pytest.mark.parametrize(
    ("error", "code", "asked"),
    [
        ({"code": 429, "message": "slow down"}, "upstream-throttled", 3),
        ({"code": "429"}, "upstream-throttled", 3),
        ({"code": "rate_limit_exceeded", "type": "requests"}, "upstream-throttled", 3),
        ({"code": 503, "status": "UNAVAILABLE"}, "upstream-failed", 3),
        ({"code": None, "type": "server_error"}, "upstream-failed", 3),
        ({"code": None, "type": "overloaded_error"}, "upstream-throttled", 3),
        ({"code": 400, "message": "too long"}, "upstream-refused", 1),
        ({"code": "context_length_exceeded"}, "upstream-refused", 1),
        ({"type": "insufficient_quota", "code": "insufficient_quota"}, "upstream-refused", 1),
        ({"code": 429, "type": "insufficient_quota"}, "upstream-refused", 1),
    ],
)
async def test_s6_errors_in_a_stream_are_classed_by_their_code(
    tmp_path: Path, error: dict[str, Any], code: str, asked: int
) -> None:
    async with serving(tmp_path, Recording([event({"error": error})])) as served:
        answer = await served.turn()
        assert answer.json()["code"] == code
        assert len(served.player.requests) == asked


@pytest.mark.parametrize("form", ["beside choices", "in the choice", "named", "bare", "list"])
async def test_c4_an_error_is_found_anywhere(tmp_path: Path, form: str) -> None:
    error = {"code": 429, "message": "slow down"}
    body = {
        "beside choices": event({"error": error, "choices": [{"delta": {"content": ""}}]}),
        "in the choice": event({"choices": [{"error": error, "finish_reason": "error"}]}),
        "named": b"event: error\n" + event({"error": error}),
        "bare": event({"object": "error", **error}),
        "list": event([{"error": error}]),
    }[form]
    async with serving(tmp_path, Recording([body])) as served:
        assert (await served.turn()).json()["code"] == "upstream-throttled"


@pytest.mark.parametrize("code", ["tool_use_failed", "json_validate_failed"])
async def test_unparsable_model_output_is_retried(tmp_path: Path, code: str) -> None:
    error = {"code": code, "type": "invalid_request_error", "failed_generation": "<function"}
    refusal = Recording([json.dumps({"error": error}).encode()], 400)
    midway = Recording([b"event: error\n" + event({"error": {**error, "status_code": 400}})])
    async with serving(tmp_path, refusal, midway, ANSWER) as served:
        assert (await served.turn()).json()["text"] == "All is well."


@pytest.mark.parametrize("status", [429, 403])
async def test_an_exhausted_quota_is_not_retried(tmp_path: Path, status: int) -> None:
    body = json.dumps({"error": {"code": "insufficient_quota", "message": "pay"}}).encode()
    async with serving(tmp_path, Recording([body], status)) as served:
        assert (await served.turn()).json()["code"] == "upstream-refused"
        assert len(served.player.requests) == 1


async def test_an_error_as_a_json_document_of_status_200(tmp_path: Path) -> None:
    body = json.dumps({"error": {"code": 429, "message": "slow down"}}).encode()
    recording = Recording([body], headers={"content-type": "application/json"})
    async with serving(tmp_path, recording, ANSWER) as served:
        assert (await served.turn()).status_code == 200
        assert len(served.player.requests) == 2


async def test_a_stream_with_a_json_content_type(tmp_path: Path) -> None:
    recording = Recording(said("All is well."), headers={"content-type": "application/json"})
    async with serving(tmp_path, recording) as served:
        assert (await served.turn()).json()["text"] == "All is well."


@pytest.mark.parametrize(
    ("headers", "least"),
    [({"retry-after-ms": "400"}, 0.4), ({"retry-after-ms": "300", "retry-after": "60"}, 0.3)],
)
async def test_retry_after_in_milliseconds(
    tmp_path: Path, headers: dict[str, str], least: float
) -> None:
    async with serving(tmp_path, Recording([b"{}"], 429, headers), ANSWER) as served:
        began = time.monotonic()
        assert (await served.turn()).status_code == 200
        assert least <= time.monotonic() - began < least + 5


BLANK_ANSWERS = [
    [delta("stop"), DONE],
    [delta(content=""), delta("stop"), DONE],
    [delta(content="\n"), delta(content=" \n"), delta("stop"), DONE],
    [DONE],
    [delta(reasoning_content="I am done."), delta("stop"), DONE],
    [delta("tool_calls"), DONE],
    [delta(tool_calls=[{"index": 0, "function": {"arguments": "{}"}}]), delta("stop"), DONE],
]


@pytest.mark.parametrize("chunks", BLANK_ANSWERS)
async def test_s7_an_empty_answer_is_retried_once(tmp_path: Path, chunks: list[bytes]) -> None:
    async with serving(tmp_path, Recording(chunks), ANSWER) as served:
        answer = await served.turn()
        assert answer.json()["text"] == "All is well."
        assert len(served.player.requests) == 2


@pytest.mark.parametrize("chunks", BLANK_ANSWERS)
async def test_s7_a_second_empty_answer_fails_and_is_not_stored(
    tmp_path: Path, chunks: list[bytes]
) -> None:
    def judge(request: Request) -> Recording:
        messages: Any = request.document["messages"]
        for each in messages:
            assert each.get("content") or each.get("tool_calls"), "refused by any server"
        return Recording(chunks) if messages[-1]["content"] == "nothing" else ANSWER

    async with serving(tmp_path, judge=judge) as served:
        session = (await served.turn("hello")).json()["session"]
        failed = await served.turn("nothing", session=session)
        assert (failed.status_code, failed.json()["code"]) == (502, "upstream-failed")
        assert "empty" in failed.json()["detail"]
        assert len(served.player.requests) == 3
        after = await served.turn("hello again", session=session)
        assert after.json()["version"] == 2


async def test_s8_done_ends_an_answer_whose_body_stays_open(tmp_path: Path) -> None:
    for chunks in (said("All is well."), [delta(content="All is well."), DONE]):
        async with serving(tmp_path, Recording(chunks, hangs=True)) as served:
            began = time.monotonic()
            assert (await served.turn()).json()["text"] == "All is well."
            assert (await served.turn()).json()["text"] == "All is well."
            assert time.monotonic() - began < 5


@pytest.mark.parametrize(
    "work",
    [
        {"reasoning_content": "hm "},
        {"reasoning": "hm "},
        {"reasoning_details": [{"type": "reasoning.encrypted", "data": "x"}]},
        {"content": [{"type": "thinking", "thinking": "hm "}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": " "}}]},
        {"content": "\n"},
    ],
)
async def test_s9_reasoning_and_arguments_reset_the_timeout(
    tmp_path: Path, work: dict[str, Any]
) -> None:
    busy = [delta(**work)] * 12
    if "tool_calls" in work:
        begun = delta(tool_calls=[call('{"path": "a"')])
        ended = delta(tool_calls=[{"index": 0, "function": {"arguments": "}"}}])
        chunks = [begun, *busy, ended, delta("tool_calls"), DONE]
    else:
        chunks = [*busy, *said("All is well.")]
    watch = "first_token_seconds = 0.5\nbetween_tokens_seconds = 0.5\nattempts = 1"
    slow = Recording(chunks, seconds=0.1)
    async with serving(tmp_path, slow, ANSWER, resilience=watch) as served:
        answer = await served.turn()
        assert answer.json().get("text", answer.text).strip() == "All is well."


async def test_reasoning_is_not_shown_unless_it_is_configured(tmp_path: Path) -> None:
    answer = [delta(reasoning_content="secret thoughts"), *said("Hi")]
    async with serving(tmp_path, Recording(answer)) as served:
        events = await served.events()
        assert "secret" not in json.dumps(events)


MISTRAL_IDS = "[a-zA-Z0-9]{9}"


def nine(request: Request) -> Recording:
    """Refuses ids that are not nine letters and digits, as Mistral does, and unknown ones."""
    messages: Any = request.document["messages"]
    calls = {each["id"] for m in messages for each in m.get("tool_calls") or ()}
    results = {m["tool_call_id"] for m in messages if m["role"] == "tool"}
    extras = [each for m in messages for each in m.get("tool_calls") or () if len(each) > 3]
    if calls != results or extras or not all(re.fullmatch(MISTRAL_IDS, each) for each in calls):
        return Recording([b'{"message": "not a valid id"}'], 400)
    return ANSWER


async def test_s10_a_fallback_takes_the_calls_of_the_first_model(tmp_path: Path) -> None:
    made = call('{"path":"a"}', id="call_abcdef0123456789")
    made["extra_content"] = {"google": {"thought_signature": "c2ln"}}
    fails = Recording([b"{}"], 500)
    async with serving(tmp_path, asks(made), fails, spare=nine) as served:
        assert (await served.turn()).json()["text"] == "All is well."
        back = served.sent(1)["messages"][-2]["tool_calls"][0]
        assert back["id"] == "call_abcdef0123456789"
        assert back["extra_content"] == {"google": {"thought_signature": "c2ln"}}


@pytest.mark.parametrize("arguments", ['{"pa', "", '{"path": "a"', '{"path": "a'])
async def test_s11_a_call_that_was_cut_off_is_not_executed(tmp_path: Path, arguments: str) -> None:
    cut = asks(call(arguments), finish="length")
    async with serving(tmp_path, cut, ANSWER) as served:
        assert (await served.turn()).json()["text"] == "All is well."
        assert served.ran == []
        *_, asked, result = served.sent()["messages"]
        assert "not executed" in result["content"]
        json.loads(asked["tool_calls"][0]["function"]["arguments"])


async def test_s11_cut_off_again_ends_the_turn(tmp_path: Path) -> None:
    async with serving(tmp_path, asks(call('{"pa'), finish="length")) as served:
        assert (await served.turn()).json()["code"] == "turn-limit-reached"
        assert served.ran == []
        assert len(served.player.requests) == 2


async def test_s11_calls_before_the_cut_are_executed(tmp_path: Path) -> None:
    cut = asks(call('{"path":"a"}'), call('{"pa', index=1, id="call_b"), finish="length")
    async with serving(tmp_path, cut, ANSWER) as served:
        events = await served.events()
        returned = [(e["id"], e["failed"]) for e in events if e["type"] == "tool.returned"]
        assert served.ran == [{"path": "a"}]
        assert returned == [("call_a", False), ("call_b", True)]


@pytest.mark.parametrize("finish", ["content_filter", "SAFETY", "refusal"])
async def test_calls_of_a_filtered_answer_are_not_executed(tmp_path: Path, finish: str) -> None:
    filtered = asks(call('{"path":"a"}'), finish=finish)
    async with serving(tmp_path, filtered) as served:
        assert (await served.turn()).json()["code"] == "upstream-failed"
        assert served.ran == []


@pytest.mark.parametrize("finish", ["length", "max_tokens", "MAX_TOKENS", "content_filter", "stop"])
async def test_s12_the_finish_reason_is_reported_by_every_api(tmp_path: Path, finish: str) -> None:
    wanted = "length" if "max" in finish.lower() else finish
    async with serving(tmp_path, Recording(said("Once upon", finish=finish))) as served:
        whole = (await served.turn()).json()
        assert whole["finish_reason"] == wanted
        for headers in ({"idempotency-key": "one"}, {"idempotency-key": "one"}):  # then a replay
            asked = {"text": "hello", "stream": False}
            again = await served.client.post("/v1/turns", json=asked, headers=headers)
            assert again.json()["finish_reason"] == wanted
        assert (await served.events())[-1]["finish_reason"] == wanted
        assert (await served.chat()).json()["choices"][0]["finish_reason"] == wanted
        streamed = (await served.chat(stream=True)).text
        assert f'"finish_reason":"{wanted}"' in streamed
        shown = await served.client.get(f"/v1/sessions/{whole['session']}")
        assert shown.json()["turns"][0]["finish_reason"] == wanted


@pytest.mark.parametrize("chunks", [[], [{"reasoning_content": "hm"}]])
async def test_a_token_limit_spent_on_reasoning_is_no_answer(
    tmp_path: Path, chunks: list[dict[str, Any]]
) -> None:
    events = [*(delta(**each) for each in chunks), delta("length"), DONE]
    async with serving(tmp_path, Recording(events)) as served:
        assert (await served.turn()).json()["code"] == "turn-limit-reached"


@pytest.mark.parametrize("finish", ["abort", "error", "insufficient_system_resource"])
async def test_s13_an_aborted_answer_is_a_failure(tmp_path: Path, finish: str) -> None:
    async with serving(tmp_path, Recording(said("Once", finish=finish))) as served:
        assert (await served.turn()).json()["code"] == "upstream-failed"
    given_up = Recording(said("Once", finish=finish))
    whole = Recording(said("Once upon a time."))
    async with serving(tmp_path, given_up, whole, resilience="resume = true") as served:
        assert (await served.turn()).json()["text"] == "Once upon a time."


@pytest.mark.parametrize("wire", [ANTHROPIC, BEDROCK], ids=["anthropic", "bedrock"])
async def test_p1_blank_answers_are_neither_kept_nor_sent(tmp_path: Path, wire: Any) -> None:
    blank, whole = Recording(wire.answer((" \n",))), Recording(wire.answer(("All is well.",)))
    async with serving(tmp_path, whole, blank, blank, whole, kind=wire.name) as served:
        session = (await served.turn()).json()["session"]
        assert (await served.turn(session=session)).json()["code"] == "upstream-failed"
        assert (await served.turn(session=session)).json()["version"] == 2
        assert '" \\n"' not in json.dumps(served.sent())


@pytest.mark.parametrize("wire", WIRES, ids=lambda wire: wire.name)
async def test_p2_blank_results_and_blank_text_before_a_call(tmp_path: Path, wire: Any) -> None:
    asked = Recording(wire.answer(("\n\n",), [Call("toolu_1", "silent", ())]))
    whole = Recording(wire.answer(("All is well.",)))
    async with serving(tmp_path, asked, whole, kind=wire.name) as served:
        assert (await served.turn()).json()["text"] == "All is well."
        assert served.ran == [{}]
        sent = json.dumps(served.sent())
        assert "(no content)" in sent
        assert '"\\n\\n"' not in sent
        assert '"text": ""' not in sent


@pytest.mark.parametrize("wire", WIRES, ids=lambda wire: wire.name)
async def test_p3_a_truncated_answer_is_reported(tmp_path: Path, wire: Any) -> None:
    cut = Recording(wire.answer(("Once upon",), end="length"))
    async with serving(tmp_path, cut, kind=wire.name) as served:
        assert (await served.turn()).json()["finish_reason"] == "length"


async def test_unreadable_data_is_logged_with_provider_and_model(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    odd = b"data: <html>" + b"x" * 5_000 + b"</html>\n\n"
    broken = b'data: {"choices": 7}\n\n'
    with caplog.at_level(logging.WARNING, "seawall.models"):
        async with serving(tmp_path, Recording([odd] * 50 + [*said("Hi")])) as served:
            assert (await served.turn()).status_code == 200
        async with serving(tmp_path, Recording([broken]), resilience="attempts = 1") as served:
            assert (await served.turn()).status_code == 502
    lines = [each.getMessage() for each in caplog.records if "unreadable" in each.getMessage()]
    assert len(lines) == 2
    assert all("model default (openai at 127.0.0.1:" in line for line in lines)
    assert all(len(line) < 800 for line in lines)


async def test_the_last_step_has_no_tools(tmp_path: Path) -> None:
    def judge(request: Request) -> Recording:
        return asks(call('{"path":"a"}')) if "tools" in request.document else ANSWER

    async with serving(tmp_path, judge=judge, limits="steps = 3") as served:
        assert (await served.turn()).json()["text"] == "All is well."
        assert served.ran == [{"path": "a"}] * 2
        assert "tools" not in served.sent()


async def test_a_call_on_the_last_step_is_not_executed(tmp_path: Path) -> None:
    async with serving(tmp_path, asks(call('{"path":"a"}')), limits="steps = 2") as served:
        assert (await served.turn()).json()["code"] == "turn-limit-reached"
        assert served.ran == [{"path": "a"}]


async def test_a_text_beside_a_call_on_the_last_step_is_the_answer(tmp_path: Path) -> None:
    asked = call('{"path":"a"}')
    both = Recording([delta(content="Here it is."), *asks(asked).chunks])
    async with serving(tmp_path, asks(asked), both, limits="steps = 2") as served:
        answer = (await served.turn()).json()
        assert (answer["text"], answer["finish_reason"]) == ("Here it is.", "stop")
        assert served.ran == [{"path": "a"}]


@pytest.mark.parametrize("arguments", [{"path": "a"}, '{"path": "a"}'])
async def test_arguments_may_be_an_object(tmp_path: Path, arguments: object) -> None:
    async with serving(tmp_path, asks(call(arguments)), ANSWER) as served:
        await served.turn()
        assert served.ran == [{"path": "a"}]


@pytest.mark.parametrize("arguments", ["null", None, "", "{}"])
async def test_no_arguments_in_every_form(tmp_path: Path, arguments: object) -> None:
    async with serving(tmp_path, asks(call(arguments)), ANSWER) as served:
        await served.turn()
        assert served.ran == [{"path": "none"}]


async def test_a_call_that_is_sent_whole_in_each_chunk_is_one(tmp_path: Path) -> None:
    whole = call('{"path":"a"}')
    async with serving(tmp_path, asks(whole, whole, whole), ANSWER) as served:
        await served.turn()
        assert served.ran == [{"path": "a"}]


async def test_impossible_token_counts_are_ignored(tmp_path: Path) -> None:
    used = {"prompt_tokens": -5, "completion_tokens": 1e300, "prompt_tokens_details": "none"}
    events = [*said("Hi")[:-1], event({"choices": [], "usage": used}), DONE]
    async with serving(tmp_path, Recording(events)) as served:
        answer = await served.turn()
        assert answer.status_code == 200
        assert all(each >= 0 for each in answer.json()["usage"].values())
