"""Negations and quotations: words of an intent that do not express it."""

import time

import pytest

from seawall.intents import IntentDefinition
from seawall.intents.cascade import build_detector
from seawall.intents.rules import Rules

RULES = Rules(
    (
        IntentDefinition("cancel", patterns=(r"\bcancel",)),
        IntentDefinition("person", patterns=(r"\b(human|real person)\b",)),
        IntentDefinition("keep", patterns=(r"\b(don't|do not) want it\b",)),
        IntentDefinition("all", patterns=(r"^.*\brefund\b",)),
    )
)

NEGATED = """
do not cancel my order
don't cancel my order
Don\u2019t cancel my order
please don't cancel it
never cancel it
no need to cancel my order
DO NOT CANCEL IT
\u017ftop cancelling it
\u0130\u0130\u0130\u0130 DON\u2019T cancel it
there is no need to cancel anything
instead of cancelling, wait
I did not cancel
I didn`t cancel that
dont cancel it
you mustn't cancel it
stop cancelling my orders
without cancelling the other one
please do not, whatever happens, cancel #W1005754
I would rather wait than not, so never cancel
he refused to cancel
do not transfer me to a human
no human please
not a real person, thanks
I cannot ask for a refund
why would I not want it, do not refund me, no refund
"""
MEANT = """
cancel my order|cancel
I did not order this. Cancel it.|cancel
do not cancel #1, but cancel #2|cancel
don't cancel #1. Please cancel #2|cancel
I want a human|person
No, I want a human|person
no please get me a real person|person
cancel it, I do not need it|cancel
I don't want it|keep
I want a refund|all
"cancel my order"|cancel
"""


@pytest.mark.parametrize("text", NEGATED.strip().splitlines())
def test_a_negated_match_decides_nothing(text: str) -> None:
    assert RULES.match(text) is None


@pytest.mark.parametrize("line", MEANT.strip().splitlines())
def test_a_match_outside_of_a_negation_decides(line: str) -> None:
    text, intent = line.split("|")
    assert RULES.match(text) == intent


@pytest.mark.parametrize(
    "text",
    [
        'your mail says "please cancel" and nothing else of use',
        "the button “cancel order” is broken",
        "was heißt «cancel order»?",
        "is 'cancel it' a button?",
    ],
)
def test_a_quoted_match_decides_nothing(text: str) -> None:
    assert RULES.match(text) is None


@pytest.mark.parametrize("part", ["“", '"', "not ", "no  ", "cancel not ", "n't", "don't. "])
def test_no_message_takes_long(part: str) -> None:
    text = part * 2_000
    began = time.perf_counter()
    RULES.match(text)
    DETECTOR.detect_locally(text + "cancel my order")
    assert time.perf_counter() - began < 0.5


DETECTOR = build_detector(
    (
        IntentDefinition(
            "cancel",
            examples=("cancel my order", "please cancel it", "stop the order", "call it off"),
        ),
        IntentDefinition(
            "status",
            examples=("I have not received my order", "where is my parcel", "it did not arrive"),
        ),
        IntentDefinition("return", examples=("return my order", "send it back", "refund me")),
    ),
    threshold=0.5,
)


@pytest.mark.parametrize(
    ("text", "intent"),
    [
        ("cancel my order", "cancel"),
        ("do not cancel my order", None),
        ("don\u2019t cancel my order please", None),
        ("I never said cancel my order", None),
        ("please stop the order", "cancel"),
        ("I do not like it. Cancel my order.", "cancel"),
        ("I haven't received my order", "status"),
        ("do not return my order", None),
        ('they wrote "cancel my order"', None),
    ],
)
def test_a_classifier_knows_only_the_negations_of_its_examples(
    text: str, intent: str | None
) -> None:
    assert DETECTOR.detect_locally(text).intent == intent
