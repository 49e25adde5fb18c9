"""Budgets in whole turns with scripted models: when the budget is checked, what is charged."""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from seawall import Orchestrator, Principal
from seawall.budgets.budgets import BudgetState, read_budgets
from seawall.config import parse_settings
from seawall.errors import ConfigError, UpstreamFailed
from seawall.events import (
    Event,
    IntentDetected,
    TextDelta,
    TurnCompleted,
    TurnFailed,
    UsageReported,
)
from seawall.models import Finish, ModelEvent, ModelRequest, Text
from seawall.requests import new_request
from seawall.turn import Usage

ADA = Principal("acme", "ada")
CONFIG = """
[sessions]
path = "{path}"

[routing]
intent_model = "guesser"

[budgets.default]
tokens_per_day = 1000

[intents.greeting]
description = "a greeting"

[models.guesser]
base_url = "http://127.0.0.1:9/v1"
model = "m"

[models.default]
base_url = "http://127.0.0.1:9/v1"
model = "m"

[agents.shop]
instructions = "Help."
"""


class Counted:
    """Returns a constant answer, and counts its calls."""

    def __init__(self, text: str, usage: Usage, failure: Exception | None = None) -> None:
        self._text = text
        self._usage = usage
        self._failure = failure
        self.asked = 0

    async def stream(
        self, request: ModelRequest, *, deadline: float
    ) -> AsyncGenerator[ModelEvent, None]:
        del request, deadline
        self.asked += 1
        yield Text(self._text)
        if self._failure is not None:
            raise self._failure
        yield Finish("stop", self._usage)

    async def warm(self) -> None:
        """Nothing to open."""

    async def close(self) -> None:
        """Nothing to close."""


async def play(
    folder: Path,
    guesser: Counted,
    model: Counted,
    scenario: Callable[[Orchestrator], Coroutine[Any, Any, None]],
) -> None:
    app = Orchestrator(parse_settings(CONFIG.format(path=folder / "kept.db")))
    app.model("guesser", guesser)
    app.model("default", model)
    async with asyncio.timeout(30), app:
        await scenario(app)


async def ask(app: Orchestrator, key: str | None = None) -> list[Event]:
    request = new_request("Hello", idempotency_key=key)
    return [event async for event in app.run(request, principal=ADA)]


async def budget(app: Orchestrator) -> BudgetState:
    counters = app.engine.store.counters()
    [state] = await read_budgets(app.settings.budgets, counters, "acme", time.time())
    return state


async def test_intent_detection_is_charged_and_a_replay_is_not(tmp_path: Path) -> None:
    guesser = Counted("greeting", Usage(90, 10, 1))
    model = Counted("Good day", Usage(300, 100, 1))

    async def scenario(app: Orchestrator) -> None:
        for _ in range(3):  # of 500 each; the third is one too many
            events = await ask(app, "first" if not model.asked else None)
            if isinstance(events[-1], TurnFailed):
                break
            assert any(isinstance(each, UsageReported) for each in events)
            [detected] = [each for each in events if isinstance(each, IntentDetected)]
            assert (detected.intent, detected.by) == ("greeting", "model")
        assert (guesser.asked, model.asked) == (2, 2)
        [failed] = await ask(app)
        assert isinstance(failed, TurnFailed)
        assert failed.problem["code"] == "budget-exhausted"
        *_, completed = await ask(app, "first")
        assert isinstance(completed, TurnCompleted)
        assert completed.replayed
        assert (guesser.asked, model.asked) == (2, 2)
        assert (await budget(app)).used == 1_000

    await play(tmp_path, guesser, model, scenario)


async def test_a_failed_turn_is_charged_for_its_output(tmp_path: Path) -> None:
    guesser = Counted("none", Usage(10, 1, 1))
    model = Counted("x" * 400, Usage(), UpstreamFailed("It broke off."))

    async def scenario(app: Orchestrator) -> None:
        events = await ask(app)
        assert isinstance(events[-1], TurnFailed)
        assert any(isinstance(each, TextDelta) for each in events)

    await play(tmp_path, guesser, model, scenario)

    async def after(app: Orchestrator) -> None:
        used = (await budget(app)).used
        assert 11 + 100 < used < 11 + 100 + 20  # what was written, and about what it read

    await play(tmp_path, guesser, model, after)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("money_per_day = 1.0", r"seawall.toml:\d+: models.default.price: must be set, because"),
        ("tokens_per_day = -1", "budgets.default.tokens_per_day"),
    ],
)
def test_contradicting_settings_are_reported(text: str, message: str) -> None:
    base = '[models.default]\nbase_url = "http://h/v1"\nmodel = "m"\n'
    with pytest.raises(ConfigError, match=message):
        parse_settings(f"{base}[budgets.default]\n{text}\n")


def test_models_with_two_currencies_or_an_unknown_quota_are_refused() -> None:
    price = "{prompt = 1, completion = 1, currency = "
    base = 'base_url = "http://h/v1"\nmodel = "m"\n'
    with pytest.raises(ConfigError, match=r"models.b.price.currency: must be USD"):
        parse_settings(
            f'[models.a]\n{base}price = {price}"USD"}}\n[models.b]\n{base}price = {price}"EUR"}}\n'
        )
    with pytest.raises(ConfigError, match=r'models.a.quota: unknown quota "q"; known: none'):
        parse_settings(f'[models.a]\n{base}quota = "q"\n')


@pytest.mark.parametrize(
    ("quota", "limits", "message"),
    [
        ("tokens_per_minute = 4000", "", "completion_tokens: a call reserves 4,096, and quotas.q"),
        ("tokens_per_minute = 60000\nwindow_seconds = 1", "", "never has more than 1,000"),
        ("output_tokens_per_minute = 9", "limits.call_tokens = 10", "limits.call_tokens: a call"),
    ],
)
def test_an_agent_of_which_no_call_would_be_admitted_is_refused(
    quota: str, limits: str, message: str
) -> None:
    text = f"""
    [models.default]
    base_url = "http://h/v1"
    model = "m"
    quota = "q"
    [quotas.q]
    {quota}
    [agents.shop]
    instructions = "Help."
    {limits}
    """
    with pytest.raises(ConfigError, match=message):
        parse_settings(text)
    parse_settings(text.replace("[quotas.q]", '[quotas.q]\nreserve = "usage"'))
