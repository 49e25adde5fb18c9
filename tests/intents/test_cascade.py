import asyncio
from collections.abc import AsyncGenerator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seawall.errors import ConfigError, UpstreamFailed
from seawall.intents import Detection, IntentDefinition
from seawall.intents.cascade import IntentDetector, build_detector
from seawall.intents.classifier import train
from seawall.models import Finish, ModelEvent, ModelRequest, Text
from seawall.turn import Usage

DEFINITIONS = (
    IntentDefinition(
        "status",
        examples=("where is my order", "has my parcel been sent", "track my delivery"),
        patterns=(r"\btracking number\b",),
    ),
    IntentDefinition("cancel", examples=("cancel my order", "stop this purchase", "call it off")),
    IntentDefinition("person", patterns=(r"\bhuman\b",)),
)


class Oracle:
    """A model with a given answer, or one that fails."""

    def __init__(self, says: str) -> None:
        self.says = says
        self.asked = 0

    async def stream(
        self,
        request: ModelRequest,
        *,
        deadline: float,  # noqa: ARG002 - the port's
    ) -> AsyncGenerator[ModelEvent, None]:
        self.asked += 1
        assert "status" in request.prompt.instructions
        if self.says == "fail":
            raise UpstreamFailed("down")
        yield Text(self.says)
        yield Finish("stop", Usage(5, 1))

    async def warm(self) -> None: ...
    async def close(self) -> None: ...


async def ask(detector: IntentDetector, text: str) -> Detection:
    deadline = asyncio.get_running_loop().time() + 5
    async with asyncio.timeout(2):
        return await detector.detect(text, deadline=deadline)


async def test_each_step_answers_what_it_can() -> None:
    oracle = Oracle('"Cancel".')
    detector = build_detector(DEFINITIONS, model=oracle, threshold=0.7)
    assert await ask(detector, "A HUMAN please") == Detection("person", 1.0, "rules")
    assert (await ask(detector, "my Tracking Number?")).intent == "status"
    sure = await ask(detector, "where is my order")
    assert (sure.intent, sure.by) == ("status", "classifier")
    assert oracle.asked == 0
    unsure = await ask(detector, "qwertz uiop")
    assert (unsure.intent, unsure.by, unsure.usage) == ("cancel", "model", Usage(5, 1))
    for says in ("none", "something else", "", "fail"):
        assert (await ask(build_detector(DEFINITIONS, model=Oracle(says)), "qwertz")).intent is None


async def test_without_two_intents_nothing_is_detected() -> None:
    for definitions in ((), DEFINITIONS[2:], DEFINITIONS[:1]):
        assert (await ask(build_detector(definitions), "hello")).intent is None


def test_an_invalid_pattern_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"intents\.bad\.patterns"):
        build_detector((IntentDefinition("bad", patterns=("(",)),))


@given(st.text(max_size=3_000))
def test_any_text_gets_probabilities(text: str) -> None:
    probabilities = CLASSIFIER.probabilities(text)
    assert probabilities.sum() == pytest.approx(1.0)
    assert (probabilities >= 0).all()


CLASSIFIER = train(["a b c", "d e f", "g h i"], ["x", "y", "z"])


def test_training_is_reproducible() -> None:
    again = train(["a b c", "d e f", "g h i"], ["x", "y", "z"])
    assert (again.probabilities("a e i") == CLASSIFIER.probabilities("a e i")).all()
