"""Which fault applies to a request: windows, matches, probabilities."""

import math
import random
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seawall.errors import ConfigError
from seawall.lab.sim_model.faults import FaultPlan, Rule, draw, load_faults, parse_faults

moments = st.floats(0, 10_000, allow_nan=False)
words = st.text(max_size=12)


def plan(*rules: dict[str, object], seed: int = 1) -> FaultPlan:
    return FaultPlan(parse_faults(msgspec.json.encode({"rules": rules})), seed=seed)


def kind(rule: Rule | None) -> str:
    return "" if rule is None else str(rule.__struct_config__.tag)


def test_the_first_rule_that_applies_decides() -> None:
    follow = plan(
        {"kind": "throttle", "model": "primary", "match": "^refund"},
        {"kind": "hang", "model": "primary|other"},
        {"kind": "slow", "probability": 0},
        {"kind": "error"},
    )
    assert kind(follow.decide("primary", "refund me", now=0)) == "throttle"
    assert kind(follow.decide("primary", "no refund", now=0)) == "hang"
    assert kind(follow.decide("other", "refund me", now=0)) == "hang"
    assert kind(follow.decide("primary-2", "refund me", now=0)) == "error"  # the whole name


@pytest.mark.parametrize(
    ("window", "opened", "closed"),
    [
        ({}, [0, 1e9], []),
        ({"from": 5}, [5, 1e9], [0, 4.999]),
        ({"until": 5}, [0, 4.999], [5, 1e9]),
        ({"from": 2, "until": 3, "every": 10}, [2, 2.5, 12, 22.9], [0, 1.9, 3, 11.9, 13]),
        ({"from": 2, "until": 3, "every": 1}, [2, 3, 4.5], [1.9]),
    ],
)
def test_windows(window: dict[str, float], opened: list[float], closed: list[float]) -> None:
    follow = plan({"kind": "error", **window})
    assert all(follow.decide("m", "hello", now=now) for now in opened)
    assert not any(follow.decide("m", "hello", now=now) for now in closed)


@given(
    begin=st.just(0.0) | st.floats(0.01, 100),
    length=st.floats(0.01, 100),
    pause=st.none() | st.floats(0.01, 100),
    now=moments,
)
def test_between_two_changes_an_outage_does_not_change(
    begin: float, length: float, pause: float | None, now: float
) -> None:
    rule = {"kind": "refuse", "from": begin, "until": begin + length}
    if pause is not None:
        rule["every"] = length + pause
    follow = plan(rule)
    change = follow.next_change(now)
    end = now + 1_000 if change is None else change
    assert end > now
    between = [now + (end - now) * share for share in (0.01, 0.25, 0.5, 0.75, 0.99)]
    # Changes that are next to each other as numbers have nothing in between.
    assert len({follow.refuses(each) for each in between if now < each < end}) <= 1


def test_attempts_are_counted_by_message_and_model() -> None:
    follow = plan({"kind": "error", "attempts": 2})
    kinds = [kind(follow.decide("m", text, now=0)) for text in ("a", "b", "a", "a", "b", "b")]
    assert kinds == ["error", "error", "error", "", "error", ""]
    assert follow.decide("other", "a", now=0)


@given(st.lists(words, max_size=30), st.integers(), st.randoms(use_true_random=False))
def test_the_faults_of_a_message_are_independent_of_others(
    messages: list[str], seed: int, chance: random.Random
) -> None:
    rules: list[dict[str, object]] = [
        {"kind": "error", "probability": 0.3},
        {"kind": "hang", "probability": 0.5},
    ]

    def faults(order: list[str]) -> dict[str, list[str]]:
        follow = plan(*rules, seed=seed)
        found: dict[str, list[str]] = {}
        for each in order:
            found.setdefault(each, []).append(kind(follow.decide("m", each, now=0)))
        return found

    shuffled = list(messages)
    chance.shuffle(shuffled)
    assert faults(messages) == faults(shuffled)


@given(st.integers(), st.integers(0, 100), words, words, st.integers(1, 100))
def test_a_draw_is_between_0_and_1(
    seed: int, rule_index: int, model: str, message: str, attempt: int
) -> None:
    assert 0 <= draw(seed, rule_index, model, message, attempt) < 1


def test_a_probability_is_the_share_of_faults() -> None:
    """Of 20,000 the share is within five standard deviations; retries included."""
    follow = plan({"kind": "error", "probability": 0.2})
    met = sum(follow.decide("m", f"{n % 5_000}", now=0) is not None for n in range(20_000))
    assert abs(met - 4_000) < 5 * math.sqrt(20_000 * 0.2 * 0.8)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("[[rules]]\nkind = 'explode'", "rules[0].kind: Invalid value 'explode'"),
        ("[[rules]]\nstatus = 500", "rules[0]: Object missing required field `kind`"),
        ("[[rules]]\nkind = 'error'\nstatus = 200", "rules[0].status: Expected `int` >= 400"),
        ("[[rules]]\nkind = 'error'\nprobability = 1.5", "rules[0].probability: "),
        ("[[rules]]\nkind = 'error'\nchunks = 3", "rules[0]: Object contains unknown field"),
        (
            "[[rules]]\nkind = 'hang'\n[[rules]]\nkind = 'hang'\nat = 'x'",
            "rules[1].at: Invalid enum",
        ),
        ("[[rules]]\nkind = 'hang'\nmatch = '('", "rules[0].match: not a regular expression"),
        ("[[rules]]\nkind = 'hang'\nmodel = '('", "rules[0].model: not a regular expression"),
        ("[[rules]]\nkind = 'hang'\nfrom = 3\nuntil = 3", "rules[0].until: must be later"),
        ("[[rules]]\nkind = 'hang'\nevery = 3", "rules[0].every: a repeated window"),
        ("[[rules]]\nkind = 'hang'\nuntil = 5\nevery = 3", "rules[0].every: is shorter"),
        ("[[rules]]\nkind = 'refuse'", "rules[0].until: an outage needs an end"),
        ("[[rules]]\nkind = 'refuse'\nuntil = 1\nmatch = 'x'", "rules[0]: Object contains unknown"),
        ("rules = 3", "rules: Expected `array`"),
        ("faults = []", "Object contains unknown field `faults`"),
        ("rules = [", "Invalid value (at end of document)"),
    ],
)
def test_errors_of_a_script_name_file_and_key(tmp_path: Path, source: str, message: str) -> None:
    path = tmp_path / "faults.toml"
    path.write_text(source)
    with pytest.raises(ConfigError) as caught:
        load_faults(path)
    assert str(caught.value).startswith(f"{path}: {message}")


def test_a_missing_script(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        load_faults(tmp_path / "none.toml")
