"""The model's quota in the answer: which one is needed, which limit breaks first; its inputs."""

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from seawall.errors import ConfigError
from seawall.plan import (
    Arrivals,
    Eks,
    Lambda,
    ModelLimits,
    ModelUse,
    Options,
    PerRequest,
    Platform,
    Question,
    Spike,
    Workload,
    advise,
    constant,
    from_flags,
    from_trace,
    read_workload,
    simulate,
)
from seawall.plan.decision.limits_hit import limits_hit
from seawall.plan.decision.model_need import least_quota, model_need
from seawall.plan.decision.windows import Window
from seawall.plan.inputs.model_file import presets

ROOMY = Eks(pods=4, cores=64.0, concurrency=20_000, queue=0)


def crowd(size: int, bound: str = "") -> Workload:
    return from_flags(spikes=[f"{size}@20s"], duration="2s..4s", horizon="90s", max_tokens=bound)


def test_a_crowd_needs_what_it_reserves() -> None:
    need = model_need(crowd(400, "500"))
    assert need.reserved_tokens == 2_000
    # Those of the first second, and no more, since the answers take longer.
    assert need.tokens_a_minute == pytest.approx(400 * 2_000, rel=0.01)
    assert need.requests_a_minute == pytest.approx(400, rel=0.01)
    assert not need.simulated


def test_a_steady_rate_needs_its_mean_in_the_long_run() -> None:
    taken = np.full(3_600, 5.0)
    # What was in the bucket and what an hour adds are 61 minutes' quota.
    assert least_quota(taken, np.zeros(3_600), 1.0) == pytest.approx(18_000 / 61.0, rel=0.01)


def test_what_a_call_owes_in_the_end_refuses_no_other_by_itself() -> None:
    taken, returned = np.zeros(600), np.zeros(600)
    taken[0], returned[5] = 1_000.0, -5_000.0
    assert least_quota(taken, returned, 1.0) == pytest.approx(1_000, rel=0.01)
    taken[10] = 1.0  # until then, five seconds after, the debt is to be paid
    assert least_quota(taken, returned, 1.0) > 4_000


@given(
    size=st.integers(5, 600),
    rate=st.floats(0.0, 20.0),
    bound=st.integers(1, 10_000),
    burndown=st.sampled_from([1.0, 5.0]),
)
@settings(max_examples=15, deadline=None)
def test_the_quota_needed_suffices_and_much_less_does_not(
    size: int, rate: float, bound: int, burndown: float
) -> None:
    base = crowd(size)
    model = ModelUse(limits=ModelLimits(burndown=burndown), max_tokens=bound, retries=0)
    arrivals = structs.replace(base.arrivals, rate=rate)
    workload = structs.replace(base, arrivals=arrivals, model=model)
    need = model_need(workload)

    def refusals(factor: float) -> int:
        limits = ModelLimits(tokens_a_minute=factor * need.tokens_a_minute, burndown=burndown)
        limited = structs.replace(workload, model=structs.replace(model, limits=limits))
        found = simulate(limited, ROOMY).model
        assert found is not None
        return found.refusals

    assert refusals(1.1) == 0
    assert refusals(0.85) > 0


def window(workload: Workload) -> Window:
    """The whole of it, with its spike at 20 s."""
    return Window(
        workload=workload, seconds=1.0, at=20.0, until=25.0, size=1.0, event=True, recorded=False
    )


@pytest.mark.parametrize(
    ("platform", "model", "name", "value"),
    [
        (ROOMY, ModelLimits(tokens_a_minute=1e6), "model-tokens", 1e6),
        (ROOMY, ModelLimits(requests_a_minute=300, factor=2.0), "model-requests", 600),
        (ROOMY, ModelLimits(concurrent=50), "model-concurrency", 50),
        (Lambda(account_limit=900), None, "account-concurrency", 900),
        (Lambda(account_limit=9_000), None, "scaling-rate", 100),
        (Eks(pods=2, concurrency=300, cores=8.0), None, "pod-slots", 600),
        (Eks(pods=2, concurrency=9_000, cores=0.1), None, "pod-cores", 0.2),
    ],
)
def test_the_limit_that_breaks_first(
    platform: Platform, model: ModelLimits | None, name: str, value: float
) -> None:
    workload = structs.replace(crowd(2_500), model=ModelUse(limits=model, max_tokens=500))
    result = simulate(workload, platform)
    few = PerRequest(read_units=0.0, write_units=0.0)
    first, *_ = limits_hit(result, window(workload), platform, few)
    assert str(first.name) == name
    assert first.value == pytest.approx(value)
    assert 0.0 <= first.at <= 2.0
    assert first.requests > 0
    assert first.simulated


def test_a_small_crowd_meets_no_limit() -> None:
    workload = crowd(50)
    for platform in (ROOMY, Lambda()):
        result = simulate(workload, platform)
        assert limits_hit(result, window(workload), platform, PerRequest()) == ()


def test_a_new_table_is_compared_not_simulated() -> None:
    workload = crowd(8_000)
    result = simulate(workload, ROOMY)
    hits = limits_hit(result, window(workload), ROOMY, PerRequest())
    assert [each.name for each in hits] == ["database"]
    assert not hits[0].simulated
    # 8,000 reads of two units each in the first second: 4,000 beyond 12,000.
    assert hits[0].requests >= 4_000.0


def test_without_a_quota_the_answer_says_which_it_needs() -> None:
    question = Question(workload=from_flags(daily="2000", spikes=["100@20s"], duration="2s"))
    answer = advise(question, vary=False)
    assert answer.model is not None
    assert not answer.model.simulated
    assert "none was simulated" in answer.model.words
    assert answer.confidence.level != "high"
    assert "not simulated" in answer.confidence.words
    assert all(each.model is None for each in answer.platforms.values())


def test_a_quota_is_a_limit_on_every_platform() -> None:
    flags = {"daily": "2000", "spikes": ["40@20s"], "duration": "2s", "max_tokens": "500"}
    question = Question(workload=from_flags(**flags, model_tpm="20k"))  # type: ignore[arg-type]
    answer = advise(question, vary=False)
    assert not answer.met
    for each in answer.platforms.values():
        assert "model-tokens" in [limit.name for limit in each.limits]
        assert each.model is not None
        assert (each.model.failed.value or 0.0) > 30
        # 10 of 40 at once, and some of those that try again.
        assert 0.55 < (each.refused.value or 0.0) < 0.76
    for name in ("lambda", "eks"):
        first = answer.platforms[name].first_limit
        assert first is not None
        assert first.name == "model-tokens"
    assert answer.model is not None
    remedy = next(each for each in answer.remedies if each.name == "model.tokens_a_minute")
    assert remedy.value == pytest.approx(answer.model.tokens_a_minute, rel=0.15)
    enough = from_flags(**flags, model_tpm=str(remedy.value))  # type: ignore[arg-type]
    there = Options(platforms=(remedy.platform,))
    assert advise(Question(workload=enough, options=there), vary=False).met
    varied = advise(structs.replace(question, options=Options(platforms=("lambda",))))
    assert any(each.input == "model.tokens_a_minute" for each in varied.sensitivity)


def test_the_tokens_of_a_trace_reach_the_simulation_and_the_bill(tmp_path: Path) -> None:
    rows = [f"{at / 2:.1f},{100 + at},{at % 50}" for at in range(1_000)]
    path = tmp_path / "trace.csv"
    path.write_text("Timestamp,Request tokens,Response tokens\n" + "\n".join(rows) + "\n")
    question = Question(workload=from_trace(path))
    assert question.each.input_tokens == pytest.approx(599.5, rel=1e-3)
    assert question.each.output_tokens == pytest.approx(24.5, rel=1e-2)
    limits = ModelLimits(tokens_a_minute=1e9)
    model = structs.replace(question.workload.model, limits=limits)
    result = simulate(structs.replace(question.workload, model=model), ROOMY)
    assert result.model is not None
    assert result.model.input_tokens == pytest.approx(599_500, rel=0.03)
    assert result.model.output_tokens == pytest.approx(24_500, rel=0.05)


def test_tokens_of_the_bill_are_those_of_the_simulation() -> None:
    question = Question(workload=crowd(10), each=PerRequest(input_tokens=900.0))
    assert question.workload.model.input_tokens == constant(900.0)
    assert question.workload.model.output_tokens == constant(250.0)


def test_a_table_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "plan.toml"
    path.write_text(
        """
        [arrivals]
        spikes = ["400@20s"]
        [model]
        preset = "bedrock-claude-sonnet"
        tokens_a_minute = "3M"
        max_tokens = "none"
        output_tokens = "p50 250 p99 800"
        on_refusal = "queue"
        wait_seconds = "20s"
        provisioned = { output_tokens_a_minute = "100k", factor = 2 }
        [[model.fallbacks]]
        preset = "bedrock-nova-lite"
        slower = 0.7
        """
    )
    workload = read_workload(path)
    model = workload.model
    assert model.limits is not None
    assert (model.limits.tokens_a_minute, model.limits.burndown) == (3e6, 5.0)
    assert model.bound(model.limits) == 64_000
    assert (model.on_refusal, model.wait_seconds) == ("queue", 20.0)
    assert [each.name for each in model.endpoints] == [
        "provisioned throughput",
        "bedrock-claude-sonnet",
        "bedrock-nova-lite",
    ]
    assert model.endpoints[0].limits.factor == 2.0
    assert model.fallbacks[0].slower == 0.7
    assert "not verified: tokens_a_minute" in workload.sources["model.limits"]


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("preset = 'gpt-9'", "model.preset"),
        ("tokens_a_minut = 5", "model.tokens_a_minut"),
        ("tokens_a_minute = 0", "model.tokens_a_minute"),
        ("tokens_a_minute = '5 tokens'", "model.tokens_a_minute"),
        ("output_tokens = '5s'", "model.output_tokens"),
        ("max_tokens = 0", "model.max_tokens"),
        ("cached_share = 1.5", "model.cached_share"),
        ("on_refusal = 'wait'", "model.on_refusal"),
        ("retries = 21", "model.retries"),
        ("wait_seconds = 'long'", "model.wait_seconds"),
        ("fallbacks = 3", "model.fallbacks"),
        ("fallbacks = [{slow = 3}]", "model.fallbacks"),
        ("requests_a_minute = 5\nfallbacks = [{slower = 0}]", "model.fallbacks.0.slower"),
        ("provisioned = {tokens = 3}", "model.provisioned.tokens"),
        ("burndown = inf\ntokens_a_minute = 5", "model.burndown"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, line: str, named: str) -> None:
    path = tmp_path / "plan.toml"
    path.write_text(f"[model]\n{line}\n")
    with pytest.raises(ConfigError, match=named):
        read_workload(path)


def test_presets_have_sources_and_admit_a_usual_call() -> None:
    for name, preset in presets().items():
        assert preset.source.count("/") >= 2 or "public accounts" in preset.source, name
        assert set(preset.uncertain) <= set(ModelLimits.__struct_fields__), name
        model = ModelUse(limits=preset.limits, retries=0)
        arrivals = Arrivals(horizon=30.0, spikes=(Spike(2, 1.0),))
        result = simulate(Workload(arrivals=arrivals, model=model), ROOMY)
        if model.limited:
            assert result.served == 1 + (preset.limits.request_burst_seconds >= 0.12), name
        assert math.isfinite(preset.limits.factor)


def test_a_quota_of_one_model_and_prices_of_another_are_named() -> None:
    """The bill of a preset's quota has the default prices until a model is named."""
    workload = structs.replace(crowd(50), model=ModelUse(name="bedrock-claude-sonnet"))
    asked = Question(workload=workload, options=Options(platforms=("lambda",)))
    said = "The quota is that of bedrock-claude-sonnet, the bill has the prices of Claude Haiku 4.5"
    assert any(note.startswith(said) for note in advise(asked, vary=False).notes)
    named = structs.replace(asked.options, model="claude-sonnet-5-5")
    notes = advise(structs.replace(asked, options=named), vary=False).notes
    assert not any(note.startswith("The quota is that of") for note in notes)
