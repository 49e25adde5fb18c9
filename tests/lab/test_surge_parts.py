"""Parts of the surge driver without sockets and clocks."""

import json
import math
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seawall.errors import ConfigError
from seawall.lab.surge.answer import Answer
from seawall.lab.surge.export import to_k6, to_locust
from seawall.lab.surge.health import saturation_reasons
from seawall.lab.surge.questions import read_questions
from seawall.lab.surge.scenario import (
    Closed,
    Crowd,
    Instant,
    Open,
    Poisson,
    Ramp,
    Replay,
    Scenario,
    Shape,
    arrivals,
)
from seawall.transport.sse import ServerSentEvent
from tests.parts import data_file, require
from tests.parts.system import missing_node

URL = "http://127.0.0.1:1"


def due(*shapes: Shape, seed: int = 0) -> list[float]:
    return [at for at, _ in arrivals([Crowd(shapes=list(shapes))], seed)]


@given(
    low=st.floats(0, 50),
    high=st.floats(0.1, 50),
    seconds=st.floats(0.1, 30),
    start=st.floats(0, 5),
    seed=st.integers(0, 1_000),
)
def test_arrivals_are_ordered_and_within_their_time(
    low: float, high: float, seconds: float, start: float, seed: int
) -> None:
    found = due(Ramp(low, high, seconds, start), Instant(3, at=1.0), seed=seed)
    assert found == sorted(found)
    assert found.count(1.0) >= 3
    assert all(start <= at <= start + seconds + 1e-6 or at == 1.0 for at in found)


def test_the_arrivals_of_a_ramp_match_its_integral() -> None:
    """The count of a Poisson process is Poisson, its mean the integral of the rate."""
    runs = [due(Ramp(0.0, 40.0, 10.0), seed=seed) for seed in range(200)]
    early = [sum(at < 5.0 for at in run) for run in runs]
    whole = [len(run) for run in runs]
    for counts, mean in ((whole, 200.0), (early, 50.0)):  # half of the time, a quarter of the area
        assert abs(sum(counts) / 200 - mean) < 5 * math.sqrt(mean / 200)
    variance = sum((count - 200.0) ** 2 for count in whole) / 200
    assert 0.6 * 200 < variance < 1.5 * 200


def test_a_constant_rate_is_a_flat_ramp() -> None:
    assert due(Poisson(20.0, 10.0, 2.0), seed=3) == due(Ramp(20.0, 20.0, 10.0, 2.0), seed=3)


def turn(*texts: str) -> list[ServerSentEvent]:
    """The events of a valid turn (docs/http-api.md)."""
    events, at = [], 1
    ids = b'"turn":"t","session":"s"'
    events.append(ServerSentEvent(b"turn.started", b'{%b,"new":true}' % ids, b"1"))
    for text in texts:
        at += len(text)
        data = json.dumps({"text": text}).encode()
        events.append(ServerSentEvent(b"text.delta", data, b"%d" % at))
    done = b'{%b,"version":1}' % ids
    events.append(ServerSentEvent(b"turn.completed", done, b"%d" % (at + 1)))
    return events


def judged(events: list[ServerSentEvent], expected: str | None = None) -> str:
    answer = Answer("turns")
    for event in events:
        answer.take(event)
    answer.close(expected)
    return answer.error


def test_a_valid_answer_has_no_error() -> None:
    assert judged(turn("Grüße", " und", " 🌊"), "Grüße und 🌊") == ""


def test_errors_of_invalid_answers() -> None:
    good = turn("one", " two", " three")
    assert "was expected" in judged([*good[:2], *good[3:]]), "an event is missing"
    assert "was expected" in judged([*good[:3], good[2], *good[3:]]), "one is doubled"
    assert "was expected" in judged([good[0], good[2], good[1], *good[3:]]), "two are swapped"
    assert "before the turn was completed" in judged(good[:-1])
    assert "after the end" in judged([*good, good[1]])
    assert "does not match" in judged(good, "one two four")
    other = ServerSentEvent(b"turn.completed", b'{"turn":"u","session":"s"}', good[-1].id)
    assert "not the one that was started" in judged([*good[:-1], other])


def test_a_late_or_busy_driver_is_saturated() -> None:
    assert saturation_reasons(0.5, 20.0, 10.0, 600.0) == []
    assert "95 %" in saturation_reasons(0.95, 20.0, 10.0, 600.0)[0].replace("95%", "95 %")
    assert "300 ms late" in saturation_reasons(0.5, 300.0, 10.0, 600.0)[0]
    assert saturation_reasons(0.5, 300.0, 10.0, 6_000.0) == [], "a twentieth of what it measured"


def test_questions_from_csv_json_and_text(tmp_path: Path) -> None:
    table, tree, lines = (tmp_path / name for name in ("a.csv", "b.json", "c.txt"))
    table.write_text('id,text\n1,"Where, please?"\n2,When?\n')
    tree.write_text('[{"user": {"reason_for_call": "My parcel."}, "other": "no"}]')
    lines.write_text("One?\n\nTwo?\n")
    assert read_questions(table) == ["Where, please?", "When?"]
    assert read_questions(table, "id") == ["1", "2"]
    assert read_questions(tree) == ["My parcel."]
    assert read_questions(lines) == ["One?", "Two?"]
    with pytest.raises(ConfigError, match=r"a\.csv:1: no column nothing; there are: id, text"):
        read_questions(table, "nothing")


def test_questions_from_tsv_and_json_lines(tmp_path: Path) -> None:
    table, lines, wrong = (tmp_path / name for name in ("a.TSV", "b.jsonl", "c.csv"))
    table.write_text("id\ttext\n1\tRed, or blue?\n")
    lines.write_text('{"text": "One\u2028and a half?"}\n\n{"other": 1, "text": "Two?"}\n')
    wrong.write_text('id,text\n1,"' + "x" * 200_000 + '"\n')
    assert read_questions(table) == ["Red, or blue?"]
    assert read_questions(lines) == ["One\u2028and a half?", "Two?"]
    with pytest.raises(ConfigError, match=r"c\.csv:2: field larger than field limit"):
        read_questions(wrong)
    lines.write_text('{"text": "One?"}\n{"text" "Two?"}\n')
    with pytest.raises(ConfigError, match=r"b\.jsonl:2: Expecting"):
        read_questions(lines)


SCENARIOS = {
    "open": Scenario(url=URL, load=Open([Crowd(shapes=[Replay([0.0, 0.5, 2.0])])])),
    "chat": Scenario(url=URL, api="chat", load=Open([Crowd(shapes=[Instant(4)])])),
    "closed": Scenario(url=URL, load=Closed(users=3, seconds=5.0, think=1.0)),
}


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_locustfile_is_python(name: str) -> None:
    compile(to_locust(SCENARIOS[name]), "locustfile.py", "exec")


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_k6_script_is_a_module(name: str, tmp_path: Path) -> None:
    require(missing_node())
    script = tmp_path / "surge.mjs"
    script.write_text(to_k6(SCENARIOS[name]))
    done = subprocess.run(["node", "--check", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_exports_contain_the_arrival_times() -> None:
    assert "DUE = [0.0, 0.5, 2.0]" in to_locust(SCENARIOS["open"])
    assert "'due', () => [0.0, 0.5, 2.0])" in to_k6(SCENARIOS["open"])


def test_the_command_of_a_locustfile_has_an_end() -> None:
    """Open loop: a lead of 2 s, the last turn due after 2 s, patience of 60 s."""
    assert "-u 3 -r 3 -t 64s" in to_locust(SCENARIOS["open"])
    assert "-u 3 -r 3 -t 5s -s 60" in to_locust(SCENARIOS["closed"])


def test_the_retail_tasks_are_read() -> None:
    questions = read_questions(data_file("retail/tasks_train.json"))
    assert len(questions) == 74
    assert questions[0].startswith("You received your order #W2378156 and wish to exchange")


def test_the_banking_questions_are_read() -> None:
    questions = read_questions(data_file("banking77_test.csv"))
    assert len(questions) == 3_080
    assert questions[1].startswith("I still have not received my new card, I ordered")
