"""Intents of the example store: requests, negations, mentions, and other messages."""

import csv
import tomllib

import pytest

from seawall.intents import IntentDefinition
from seawall.intents.cascade import IntentDetector, build_detector
from tests.servers import ROOT

FOLDER = ROOT / "examples" / "store"
CONFIGURATION = tomllib.loads((FOLDER / "seawall.toml").read_text(encoding="utf-8"))
with (FOLDER / "messages.csv").open(newline="", encoding="utf-8") as file:
    MESSAGES = list(csv.DictReader(file))


@pytest.fixture(scope="module")
def detector() -> IntentDetector:
    return build_detector(
        [
            IntentDefinition(
                name,
                each.get("description", ""),
                tuple(each["examples"]),
                tuple(each.get("patterns", ())),
            )
            for name, each in CONFIGURATION["intents"].items()
        ],
        threshold=CONFIGURATION["routing"]["intent_threshold"],
    )


def test_negated_and_mentioned_requests_are_no_intent(detector: IntentDetector) -> None:
    others = [each["text"] for each in MESSAGES if each["label"] == "none"]
    assert len(others) >= 80
    taken = {text: detector.detect_locally(text).intent for text in others}
    assert {text: intent for text, intent in taken.items() if intent is not None} == {}


def test_requests_are_never_taken_for_others(detector: IntentDetector) -> None:
    requests = {each["text"]: each["label"] for each in MESSAGES if each["label"] != "none"}
    found = {text: detector.detect_locally(text).intent for text in requests}
    decided = {text: intent for text, intent in found.items() if intent is not None}
    assert decided.items() <= requests.items()
    assert len(decided) >= 0.8 * len(requests)


@pytest.mark.parametrize(
    "text", ["I want to talk to a human", "Human please!", "Hi. Can I speak to a real person?"]
)
def test_a_human_is_asked_for_by_rule(detector: IntentDetector, text: str) -> None:
    found = detector.detect_locally(text)
    assert (found.intent, found.by) == ("speak_to_person", "rules")
