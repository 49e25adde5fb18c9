"""Messages without an intent: examples of them, and precision among them."""

import asyncio
import csv
from pathlib import Path

import numpy as np
import pytest

from seawall.config import load_settings
from seawall.errors import ConfigError
from seawall.intents import IntentDefinition
from seawall.intents.blend import TwoStageClassifier
from seawall.intents.cascade import build_detector
from seawall.intents.embedder import Embedder, find_model
from seawall.intents.evaluation import (
    Labelled,
    certainty_of_intent,
    evaluate,
    few_shot,
    precision_with_unknown,
)
from seawall.intents.misspelling import misspelt
from seawall.intents.training import train_calibrated
from tests.intents.test_cascade import Oracle
from tests.parts import data_file, require
from tests.parts.models import missing_embedding_model
from tests.properties import sampled

ORDERS = IntentDefinition(
    "status", examples=("where is my order", "has my parcel been sent", "track my delivery")
)
NONE = IntentDefinition(
    "none", examples=("tell me a joke", "what is the weather", "who won the match")
)


def test_an_example_of_none_is_none() -> None:
    detector = build_detector((ORDERS, NONE), threshold=0.5)
    assert detector.detect_locally("where is my parcel").intent == "status"
    found = detector.detect_locally("tell me a joke about the weather")
    assert (found.intent, found.by) == (None, "none")


async def test_a_model_is_still_asked_and_not_offered_it_twice() -> None:
    oracle = Oracle("status")
    detector = build_detector((ORDERS, NONE), threshold=0.5, model=oracle)

    async def run() -> str | None:
        deadline = asyncio.get_running_loop().time() + 5
        return (await detector.detect("tell me a joke", deadline=deadline)).intent

    assert await run() == "status"
    assert oracle.asked == 1


@pytest.mark.parametrize("line", ['agent = "one"', 'patterns = ["x"]', 'description = "x"'])
def test_the_none_intent_has_examples_only(tmp_path: Path, line: str) -> None:
    path = tmp_path / "seawall.toml"
    path.write_text(f"""
[models.default]
base_url = "http://127.0.0.1:9/v1"
model = "none"
[agents.one]
instructions = "Help."
[intents.none]
examples = ["tell me a joke"]
{line}
""")
    with pytest.raises(ConfigError, match=r"seawall\.toml:9.*intents\.none"):
        load_settings(path)


def read(part: str, every: int) -> Labelled:
    with data_file(f"banking77_{part}.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))[1:]
    names = sorted({label for _, label in rows})[::every]
    kept = [row for row in rows if row[1] in names]
    return Labelled(tuple(text for text, _ in kept), tuple(label for _, label in kept))


def only(labelled: Labelled, names: set[str]) -> Labelled:
    pairs = zip(labelled.texts, labelled.labels, strict=True)
    kept = [pair for pair in pairs if pair[1] in names]
    return Labelled(tuple(text for text, _ in kept), tuple(label for _, label in kept))


def test_answers_are_right_although_messages_of_no_intent_are_among_them() -> None:
    """18 % of the messages are of intents left out of training: a quarter of every second one.

    For speed; bench/intents has all of BANKING77, and CLINC150, with embeddings too.
    """
    testing = read("test", 2)
    names = sorted(set(testing.labels))
    away = set(np.random.default_rng(3).permutation(names)[: len(names) // 4].tolist())
    known = set(names) - away
    training = only(few_shot(read("train", 2), 10, seed=3), known)
    trained = train_calibrated(training.texts, training.labels, seed=3)
    result = evaluate(trained.ngrams, only(testing, known), threshold=trained.threshold)
    unknown = certainty_of_intent(trained.ngrams, only(testing, away).texts)
    assert precision_with_unknown(result, unknown, share=0.18) >= 0.97
    assert result.coverage > 0.05


@pytest.mark.parametrize("every", sampled((16, 8, 3), 3))
def test_misspelt_messages_are_understood_by_embeddings_no_worse_than_by_ngrams(
    every: int,
) -> None:
    require(missing_embedding_model())
    training, testing = few_shot(read("train", 8), 10, seed=0), read("test", 8)
    testing = Labelled(testing.texts[::every], testing.labels[::every])
    trained = train_calibrated(training.texts, training.labels, embedder=Embedder(find_model("")))
    assert trained.blended is not None
    both = TwoStageClassifier(trained.blended, trained.first_threshold)
    clean = evaluate(both, testing, threshold=trained.threshold).accuracy
    for kind in ("changed", "swapped", "spaces"):
        copies = Labelled(tuple(misspelt(testing.texts, kind)), testing.labels)
        with_ngrams = evaluate(trained.ngrams, copies, threshold=1.0).accuracy
        with_both = evaluate(both, copies, threshold=1.0).accuracy
        assert with_both >= with_ngrams
        assert with_both > clean - 0.05
