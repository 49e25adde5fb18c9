"""`seawall plan --explain`: the steps agree with the answer and with arithmetic."""

import json
import re

import pytest
from msgspec import structs

from seawall.cli.main import main
from seawall.plan import from_flags
from seawall.plan.decision.advice import advise
from seawall.plan.decision.explain import Explanation, explain
from seawall.plan.decision.runs import SimulationRunner
from seawall.plan.decision.variations import with_traffic
from seawall.plan.decision.windows import month_of
from seawall.plan.inputs.question import Options, Question

QUESTION = Question(
    workload=from_flags(daily="20000", spikes=["400@20s"], duration="2s..4s", start="1s")
)
STEPS = [
    "arrivals", "in-flight", "capacity", "waits", "percentiles", "bill", "margin", "breaks-first",
]  # fmt: skip


@pytest.fixture(scope="module")
def pods() -> Explanation:
    return explain(QUESTION, "eks")


def test_the_steps_agree_with_the_answer(pods: Explanation) -> None:
    alone = structs.replace(QUESTION, options=Options(platforms=("eks",)))
    answer = advise(alone, vary=False).platforms["eks"]
    steps = {step.name: step for step in pods.steps}
    assert list(steps) == STEPS
    assert (pods.met, pods.configuration) == (answer.met, answer.words)
    bill = dict(steps["bill"].values)
    assert bill.pop("total") == pytest.approx(answer.monthly_cost)
    assert sum(value or 0.0 for value in bill.values()) == pytest.approx(answer.monthly_cost)
    assert steps["percentiles"].values["first_token_p99"] == pytest.approx(
        answer.first_token.p99.value
    )
    assert steps["in-flight"].values["simulated_peak"] == answer.peak["in_service"]
    assert steps["margin"].values["first_token_p99_most"] == QUESTION.objective.first_token_p99
    flight = steps["in-flight"].values
    assert flight["in_flight"] == pytest.approx(20_000 / 86_400 * 3.0, rel=0.01)  # Little's law


def test_what_breaks_first_breaks_and_not_before(pods: Explanation) -> None:
    """The same pods serve a tenth less traffic than the multiple at which they fail."""
    multiple = pods.steps[-1].values["multiple"]
    assert multiple is not None
    runs = SimulationRunner()
    from seawall.plan.decision.search import CandidateSearch, misses_of  # noqa: PLC0415

    candidate = CandidateSearch(QUESTION, month_of(QUESTION), runs).find("eks").candidate
    missed = [
        misses_of(
            QUESTION.objective,
            runs.judged(candidate, month_of(with_traffic(QUESTION, each)).judged).figures,
        )
        for each in (multiple / 1.1, multiple)
    ]
    runs.close()
    assert missed[0] == ()
    assert missed[1]
    assert missed[1][0] in pods.steps[-1].words[0]


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--daily", "100", "--duration", "2s", "--explain"]
    assert main(["plan", *flags, "lambda"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("Lambda meets the objective.\n\n1. Arrivals\n")
    assert max(len(line) for line in out.splitlines()) <= 80
    assert main(["plan", *flags, "lambda", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["schema"] == "seawall.plan.explain/1"
    assert [step["name"] for step in found["steps"]] == STEPS
    assert main(["plan", *flags, "vm"]) == 2
    assert "--explain: 'vm' is unknown; known: lambda" in capsys.readouterr().err


def test_capacity_over_time_is_that_of_the_spike() -> None:
    """The run begins earlier where it was not stationary; second 0 is the spike's nevertheless."""
    question = Question(
        workload=from_flags(daily="300000", spikes=["2000@30s+5s"], duration="2s..6s", start="1s"),
        options=Options(announced=True, platforms=("container-apps",)),
    )
    steps = {step.name: step for step in explain(question, "container-apps").steps}
    served = {
        float(found[1]): float(found[2].replace(",", ""))
        for words in steps["capacity"].words
        if (found := re.match(r"(-?\d+) s: .* ([\d,]+) in service", words))
    }
    at_most = steps["in-flight"].values["simulated_peak"]
    assert at_most is not None
    assert served[-1.0] < 0.05 * at_most
    assert served[5.0] > 0.8 * at_most
    slots = re.search(r"the slots of the pods \(([\d,]+) at once\)", steps["breaks-first"].words[0])
    assert slots is not None  # those that there were when they were all taken
    assert float(slots[1].replace(",", "")) == at_most
