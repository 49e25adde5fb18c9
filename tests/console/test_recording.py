"""Recording of turns: what is kept, what is bounded, and that it changes nothing."""

import asyncio

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from seawall.console import recording
from seawall.console.recording import Course, TurnRecorder
from seawall.console.shown import search, show_turn
from seawall.events import Event, TextDelta, ToolCalled, ToolReturned
from seawall.requests import new_request
from seawall.spans import current_span, within_span
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
            characters_kept = sum(each.course.characters for each in kept if each.course)
            assert recorder._characters == characters_kept <= recording._MAX_CHARACTERS
            assert list(recorder._with_course) == [
                each.report.turn for each in reversed(kept) if each.course
            ]

    before = recording._MAX_CHARACTERS
    recording._MAX_CHARACTERS = 100_000
    try:
        asyncio.run(run())
    finally:
        recording._MAX_CHARACTERS = before


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
    counted = course.characters
    await record(TextDelta("x" * 300_000), TextDelta("more"))
    assert course.characters == counted, "what is not kept does not count"
    shown = show_turn(recorder, request.id, content=True).turn
    assert shown is not None
    assert shown.row.outcome == "running"
    assert shown.events is not None
    assert len(shown.events) == shown.recorded < 10_000
    assert [each.id for each in shown.events[:3]] == [1, 2, 3]


async def test_contents_of_tools_count() -> None:
    recorder = TurnRecorder(turns=5)
    course = recorder.begin(new_request("x"), None)
    assert course is not None
    record = course.recording(nothing)
    for number in range(100):
        await record(
            ToolCalled(
                f"c{number}", "look_up", msgspec.json.encode({"order": "a" * 1_000}).decode()
            ),
            ToolReturned(f"c{number}", "look_up", "r" * 30_000, failed=False),
        )
    kept = sum(len(msgspec.json.encode(event)) for _, event in course.events)
    assert course.truncated
    assert kept <= course.characters <= recording._MAX_TURN_CHARACTERS


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
