"""Recording of turns: what is kept, what is bounded, and that it changes nothing."""

import asyncio
import logging
import tracemalloc

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seawall.console import recording
from seawall.console.recording import Course, TurnRecorder
from seawall.console.shown import search, show_turn
from seawall.events import Event, ReasoningDelta, TextDelta, ToolCalled, ToolReturned
from seawall.requests import new_request
from seawall.spans import current_span, within_span
from seawall.telemetry.open import _TraceContextFilter
from seawall.telemetry.recorder import RecordedSpan, Recorder
from seawall.turn import TurnReport


async def nothing(*_: Event) -> None:
    pass


def report(turn: str, outcome: str = "completed", milliseconds: float = 5.0) -> TurnReport:
    return TurnReport(
        turn,
        outcome,
        tenant="acme",
        subject="ada",
        session="s",
        timings={"total": milliseconds, "first_text": 2.0},
    )


async def test_a_sample_of_a_crowd_is_recorded_and_all_are_counted() -> None:
    recorder = TurnRecorder(turns=2_000)
    requests = [new_request("x") for _ in range(1_000)]
    courses = [recorder.begin(each, None) for each in requests]
    recorded = sum(each is not None for each in courses)
    assert 100 <= recorded <= 110
    for each in requests:
        recorder.observe(report(each.id))
    assert (recorder.began, recorder.ended) == (1_000, [1_000, 0])
    assert len(recorder.finished()) == 1_000
    assert sum(each.course is not None for each in recorder.finished()) == recorded
    assert recorder.running() == []
    assert len(recorder.take_first_texts()) == 1_000
    assert recorder.take_first_texts() == []


async def test_turns_that_were_asked_for_are_recorded_and_kept_beside_a_crowd() -> None:
    recorder = TurnRecorder(turns=50)
    crowd = [new_request("x") for _ in range(600)]
    for each in crowd:
        recorder.begin(each, None)
    mine = [new_request("x", recorded=True) for _ in range(3)]
    for each in mine:
        course = recorder.begin(each, None)
        assert course is not None
        await course.recording(nothing)(TextDelta("mine"))
        recorder.observe(report(each.id))
    for each in crowd:
        recorder.observe(report(each.id))
    assert len(recorder.finished()) == 53
    for each in mine:
        shown = show_turn(recorder, each.id, content=True).turn
        assert shown is not None
        assert shown.events is not None
        assert [event.event["text"] for event in shown.events] == ["mine"]
    # One that goes on is asked for still, when the sample has its share for now.
    while recorder.begin(new_request("x"), None) is not None:
        pass
    assert recorder.begin(msgspec.structs.replace(mine[0], recorded=False), None) is not None


async def test_those_that_were_asked_for_are_bounded_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording, "_MAX_BYTES", 20_000)
    recorder = TurnRecorder(turns=10)
    recorder._allowed = 0.0
    monkeypatch.setattr(recording, "_COURSES_A_SECOND", 0.0)
    requests = [new_request("x", recorded=True) for _ in range(300)]
    courses = [recorder.begin(each, None) for each in requests]
    assert sum(each is not None for each in courses) == recording._ASKED_RUNNING
    for each in requests:
        recorder.observe(report(each.id))
    assert len(recorder._asked) == recording._ASKED_RUNNING
    assert recorder._asked_running == 0
    for _ in range(300):
        request = new_request("x", recorded=True)
        recorder.begin(request, None)
        course = recorder.begin(request, None)  # another attempt
        assert course is not None
        await course.recording(nothing)(TextDelta("x" * 1_000))
        recorder.observe(report(request.id))
    assert len(recorder._asked) == recording._ASKED_TURNS
    assert recorder._asked_running == 0
    assert recorder._bytes <= recording._MAX_BYTES


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 40_000)), max_size=60))
def test_what_is_kept_is_bounded(turns: list[tuple[int, int]]) -> None:
    async def run() -> None:
        recorder = TurnRecorder(turns=10)
        for number, characters in turns:
            request = new_request("x")
            course = recorder.begin(request, None)
            assert course is not None
            course.turn = f"turn-{number}"
            recorder._running[course.turn] = recorder._running.pop(request.id)
            await course.recording(nothing)(TextDelta("x" * characters))
            recorder.observe(report(course.turn))
            kept = recorder.finished()
            assert len(kept) <= 10
            assert len({each.report.turn for each in kept}) == len(kept)
            bytes_kept = sum(each.course.bytes for each in kept if each.course)
            assert recorder._bytes == bytes_kept <= recording._MAX_BYTES
            assert len(recorder._courses) == sum(each.course is not None for each in kept)

    before = recording._MAX_BYTES
    recording._MAX_BYTES = 100_000
    try:
        asyncio.run(run())
    finally:
        recording._MAX_BYTES = before


@pytest.mark.parametrize(
    "event",
    [
        ToolReturned("c1", "look_up", "x" * 1_000, failed=False),
        ToolCalled("c1", "look_up", '"' + "x" * 1_000 + '"'),
        TextDelta("x"),
        ReasoningDelta("x" * 1_000),
    ],
    ids=lambda each: type(each).__name__,
)
async def test_memory_is_bounded_whatever_events_a_turn_has(
    event: Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recording, "_MAX_BYTES", 2_000_000)
    recorder = TurnRecorder(turns=1_000)
    tracemalloc.start()
    try:
        for _ in range(40):
            request = new_request("x")
            course = recorder.begin(request, None)
            assert course is not None
            record = course.recording(nothing)
            for _ in range(500):
                await record(msgspec.json.decode(msgspec.json.encode(event), type=type(event)))
            recorder.observe(report(request.id))
            del course, record
        taken = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert len(recorder.finished()) == 40
    assert recorder.finished()[0].course is not None, "the newest stays"
    assert taken < 1.5 * recording._MAX_BYTES


async def test_what_a_long_turn_leaves_out_does_not_displace_other_courses() -> None:
    recorder = TurnRecorder(turns=1_000)
    for length in (1, 40_000):
        request = new_request("x")
        course = recorder.begin(request, None)
        assert course is not None
        record = course.recording(nothing)
        for _ in range(length):
            await record(TextDelta("x" * 1_000))
        recorder.observe(report(request.id))
    newest, first = recorder.finished()
    assert newest.course is not None
    assert newest.course.truncated
    assert first.course is not None


async def test_of_courses_that_are_not_kept_nothing_is_left() -> None:
    recorder = TurnRecorder(turns=10)
    for _ in range(80):
        request = new_request("x")
        assert recorder.begin(request, None) is not None
        recorder.observe(report(request.id))
    assert len(recorder._courses) == len(recorder.finished()) == 10
    assert recorder._bytes == 0


def test_times_that_are_not_sampled_are_bounded() -> None:
    """Another ASGI server than ours takes no samples unless a page watches."""
    recorder = TurnRecorder(turns=10)
    for _ in range(10_500):
        recorder.observe(report("one"))
    assert len(recorder.take_first_texts()) == 10_000
    assert recorder.take_first_texts() == []


def test_what_a_span_has_is_bounded() -> None:
    course = Course(new_request("x"), None)
    for _ in range(1_000):
        span = course.begin(b"").child("execute_tool " + "x" * 100_000)
        for number in range(100):
            span.put(f"attribute {number}", "x" * 100_000)
    spans = course.spans.spans
    assert len(spans) == 400
    assert max(len(each.name) for each in spans) == 256
    assert sum(len(str(each.attributes)) for each in spans) < 400 * 32 * 300


async def test_turns_that_do_not_end_are_recorded_in_bounded_number(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(recording, "_COURSES_A_SECOND", 1e9)
    recorder = TurnRecorder(turns=10)
    for _ in range(2_000):
        recorder.begin(new_request("x"), None)
    assert len(recorder.running()) == recording._COURSES_RUNNING


async def test_a_course_has_the_events_with_their_times_and_is_truncated() -> None:
    recorder = TurnRecorder(turns=5)
    request = new_request("x")
    course = recorder.begin(request, None)
    assert course is not None
    passed: list[Event] = []

    async def emit(*events: Event) -> None:
        passed.extend(events)

    record = course.recording(emit)
    for _ in range(5_000):
        await record(TextDelta("y"), TextDelta("z"))
    assert len(passed) == 10_000, "the client gets all of them"
    assert course.truncated
    shown = show_turn(recorder, request.id, content=True).turn
    assert shown is not None
    assert shown.row.outcome == "running"
    assert shown.events is not None
    assert len(shown.events) == shown.recorded < 10_000
    assert [each.id for each in shown.events[:3]] == [1, 2, 3]


async def test_spans_nest_and_telemetry_gets_them_too() -> None:
    exported: list[RecordedSpan] = []
    telemetry = Recorder(exported.append, sample=1.0, follow=True, content=True)
    course = Course(new_request("x"), telemetry)
    root = course.begin(b"")
    token = current_span.set(root)
    with within_span("agent") as agent:
        assert agent is not None
        assert agent.content
        agent.put("gen_ai.input.messages", "private")
        agent.put("gen_ai.agent.name", "only")
        with within_span("tool"):
            pass
    current_span.reset(token)
    root.end()
    spans = course.spans.spans
    assert [(each.name, each.depth) for each in spans] == [("agent", 1), ("tool", 2)]
    assert spans[0].attributes == {"gen_ai.agent.name": "only"}, "no contents"
    by_name = {each.name: each for each in exported}
    assert by_name["tool"].parent == by_name["agent"].id
    assert by_name["agent"].attributes["gen_ai.input.messages"] == "private"
    assert root.traceparent.count(b"-") == 3


async def test_without_telemetry_nothing_is_sent_to_upstreams() -> None:
    assert Course(new_request("x"), None).begin(b"").traceparent == b""


async def test_turns_are_found_by_all_their_fields() -> None:
    recorder = TurnRecorder(turns=10)
    for number, outcome in enumerate(("completed", "paused", "deadline-exceeded")):
        recorder.observe(report(f"t{number}", outcome))
    runs = recorder.begin(new_request("x"), None)

    def found(**wanted: str) -> list[str]:
        return [each.turn for each in search(recorder, wanted).turns]

    assert runs is not None
    assert found() == [runs.turn, "t2", "t1", "t0"]
    assert found(outcome="succeeded") == ["t1", "t0"]
    assert found(outcome="failed") == ["t2"]
    assert found(outcome="running") == [runs.turn]
    assert found(outcome="paused", tenant="acme") == ["t1"]
    assert found(tenant="acm") == []
    assert found(turn="t1", subject="ada") == ["t1"]
    assert found(until="0") == []


def test_what_is_logged_in_a_turn_that_is_recorded_and_not_traced() -> None:
    """Another orchestrator of the process may be traced, whose filter sees the records of all."""
    course = TurnRecorder(turns=1).begin(new_request("x"), None)
    assert course is not None
    record = logging.makeLogRecord({"msg": "x"})
    token = current_span.set(course.begin(b""))
    try:
        assert _TraceContextFilter().filter(record)
    finally:
        current_span.reset(token)
    assert not hasattr(record, "trace_id")
