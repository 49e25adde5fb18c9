"""The whole bill, levers on it, and the way to the model: against amounts worked out by hand."""

import math
from pathlib import Path

import pytest
from msgspec import structs

from seawall.errors import ConfigError
from seawall.plan import Arrivals, from_flags, from_trace
from seawall.plan.decision.bill import Used, shared_costs
from seawall.plan.decision.egress import egress_lines, egress_of
from seawall.plan.decision.levers import levers_of, prompt_cache_hits
from seawall.plan.decision.places.eks import eks
from seawall.plan.decision.places.lambda_function import CLASSIC, function
from seawall.plan.decision.places.port import bill_of
from seawall.plan.decision.windows import month_of
from seawall.plan.inputs.model_prices import known_models, model_price
from seawall.plan.inputs.prices import load_prices
from seawall.plan.inputs.question import LeverShares, Options, PerRequest, Question

DAILY = 100_000
MONTHLY = DAILY * 730 / 24
EACH = PerRequest(input_tokens=2_000, output_tokens=500)


def question_of(model: str = "claude-sonnet-5-5", **levers: float) -> Question:
    return Question(
        workload=from_flags(daily=str(DAILY), duration="2s", start="1s"),
        each=EACH,
        options=Options(model=model),
        levers=LeverShares(**levers),
    )


def saved(question: Question) -> dict[str, float]:
    found = levers_of(question, month_of(question), 10_000.0, None)
    assert list(found) == sorted(found, key=lambda each: -each.saves)
    for each in found:
        assert each.share == pytest.approx(each.saves / 10_000.0)
        assert each.basis and each.source  # noqa: PT018
    return {each.name: each.saves for each in found}


def test_amounts_by_hand() -> None:
    """Claude Sonnet 5.5: $2 in, $10 out, $0.10 from the cache; a request costs 0.9 cents."""
    question = question_of(prefix=0.75, batch=0.2, smaller=0.5, answers=0.1, output=0.4)
    found = saved(question)
    each = (2_000 * 2 + 500 * 10) / 1e6
    assert each == pytest.approx(0.009)
    assert found["batch"] == pytest.approx(0.2 * 0.5 * each * MONTHLY)
    assert found["answer-cache"] == pytest.approx(0.1 * each * MONTHLY)
    assert found["shorter-output"] == pytest.approx(0.4 * 500 * 10 / 1e6 * MONTHLY)
    # Claude Haiku 5.5: $0.10 and $0.50.
    assert found["smaller-model"] == pytest.approx(0.5 * (each - each / 20) * MONTHLY)
    # More than one request a second: all but 1 of exp(300) find 1,500 tokens in the cache.
    assert found["prompt-cache"] == pytest.approx(1_500 * (2.0 - 0.1) / 1e6 * MONTHLY)


def test_a_rare_prefix_costs_more_than_it_saves() -> None:
    """Twenty requests a day: one in fifteen comes within five minutes; a write costs more."""
    question = structs.replace(
        question_of(), workload=from_flags(daily="20", duration="2s", start="1s")
    )
    month = month_of(question)
    assert prompt_cache_hits(month) == pytest.approx(1 - math.exp(-300 * 20 / 86_400), rel=1e-6)
    assert saved(question)["prompt-cache"] == 0.0


def test_hits_of_recorded_arrivals_are_counted() -> None:
    import numpy as np  # noqa: PLC0415

    times = np.array([0.0, 10.0, 400.0, 650.0, 1_000.0])
    workload = from_flags(daily="1000", duration="2s", start="1s")
    arrivals = Arrivals(horizon=1_001.0, rate=0.0, trace=times)
    question = Question(workload=structs.replace(workload, arrivals=arrivals))
    assert prompt_cache_hits(month_of(question)) == pytest.approx(2 / 4)  # 10 s and 250 s


def test_a_prefix_that_is_too_short_cannot_be_cached() -> None:
    """https://platform.claude.com/docs: Claude Haiku 4.5 caches from 4,096 tokens."""
    question = question_of("claude-haiku-4-5", prefix=1.0)
    lever = next(
        each for each in levers_of(question, month_of(question), 1.0, None)
        if each.name == "prompt-cache"
    )  # fmt: skip
    assert lever.saves == 0.0
    assert "prefixes of 4,096 tokens and more" in lever.basis[0]


@pytest.mark.parametrize("name", known_models())
def test_every_model_has_sane_prices(name: str) -> None:
    price = model_price(name, load_prices("us-east-1"))
    assert 0 < price.input < price.output
    assert price.cached_input is not None
    assert price.cached_input < price.input <= price.cache_write
    assert price.source.startswith("https://")
    assert price.checked >= "2026-01-01"
    if price.smaller:
        smaller = model_price(price.smaller, load_prices("us-east-1"))
        assert (smaller.input, smaller.output) < (price.input, price.output)


def test_prices_of_the_users_file_replace_list_prices() -> None:
    prices = load_prices("us-east-1")
    own = {
        f"model.{kind}_tokens": structs.replace(
            prices.of("nat.gb"), price=value, unit="million", source="our contract"
        )
        for kind, value in (("input", 0.2), ("output", 0.4))
    }
    question = structs.replace(
        question_of(""), prices=structs.replace(prices, items=prices.items | own)
    )
    shared = shared_costs(question, month_of(question))
    model = sum(item.monthly for item in shared.items if item.name.startswith("model."))
    assert model == pytest.approx(MONTHLY * (2_000 * 0.2 + 500 * 0.4) / 1e6)
    assert "our contract" in shared.items[0].source


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"options": Options(model="gpt-1")}, "options.model: no prices of 'gpt-1'; known:"),
        (
            {
                "each": PerRequest(input_tokens=150_000),
                "options": Options(model="claude-haiku-5-5"),
            },
            "each.input_tokens: 150,000 are more than the 100,000",
        ),
        (
            {"prices": structs.replace(load_prices("us-east-1"), currency="EUR")},
            "options.model: its prices are in USD",
        ),
    ],
)
def test_models_without_prices(change: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        structs.replace(question_of(), **change)


def test_both_ways_to_the_model() -> None:
    """Two zones: NAT 4.5 cents an hour and a GB, endpoints 1 cent of each; 7 services for pods."""
    question = Question(workload=from_flags(daily="1200000", duration="2s", start="1s"))
    month = month_of(question)
    gb = month.requests * 40 / 1_048_576
    for how in ("nat", "endpoints"):
        asked = structs.replace(question, options=Options(egress=how))
        items = bill_of(asked, month, eks(asked, month, cores=0.4, pods=2), Used())
        found = egress_of(asked, month, items, "containers")
        assert found is not None
        assert found.nat == pytest.approx(2 * 730 * (0.045 + 0.005) + gb * 0.045)
        assert found.endpoints == pytest.approx(7 * 2 * 730 * 0.01 + gb * 0.01)
        used = {name for name, _, _ in egress_lines(asked, month, "containers")}
        paid = sum(
            item.monthly for item in items
            if item.name in used and "load balancer" not in item.title
        )  # fmt: skip
        assert paid == pytest.approx(found.nat if how == "nat" else found.endpoints)
        assert found.share == pytest.approx(paid / sum(item.monthly for item in items))
    classic = bill_of(question, month, function(question, month, CLASSIC, memory_mb=512), Used())
    assert egress_of(question, month, classic, "functions") is None


def test_tokens_of_a_trace_reach_the_bill(tmp_path: Path) -> None:
    """What BurstGPT and Azure record: the bill has these tokens, not the assumed ones."""
    rows = "".join(f"{at},{100 * at % 3_000},{at % 500}\n" for at in range(1, 241))
    file = tmp_path / "burst.csv"
    file.write_text("Timestamp,Request tokens,Response tokens\n" + rows, encoding="utf-8")
    workload = from_trace(file)
    question = Question(workload=workload, options=Options(model="claude-haiku-4-5"))
    month = month_of(question)
    sent = sum(100 * at % 3_000 for at in range(1, 241)) / 240
    generated = sum(at % 500 for at in range(1, 241)) / 240
    found = {item.name: item.quantity for item in shared_costs(question, month).items}
    assert found["model.input_tokens"] == pytest.approx(month.requests * sent / 1e6, rel=0.01)
    assert found["model.output_tokens"] == pytest.approx(month.requests * generated / 1e6, rel=0.01)
