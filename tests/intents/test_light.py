"""N-gram classifier without numpy, compared to the one with it."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seawall.intents.classifier import NgramClassifier
from seawall.intents.light import LightClassifier, load_light, read_light
from seawall.intents.saved import TrainedClassifier
from seawall.intents.training import load_or_train
from seawall.intents.training_process import train_apart
from tests.properties import examples
from tests.servers import ROOT

STORE = tomllib.loads((ROOT / "examples/store/seawall.toml").read_text())["intents"]
TEXTS = [text for intent in STORE.values() for text in intent["examples"]]
LABELS = [name for name, intent in STORE.items() for _ in intent["examples"]]
WORDS = sorted({word for text in TEXTS for word in text.split()})


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, TrainedClassifier]:
    path = tmp_path_factory.mktemp("light") / "trained.npz"
    return path, load_or_train(TEXTS, LABELS, cache=path)


@pytest.fixture(scope="module")
def pair(kept: tuple[Path, TrainedClassifier]) -> tuple[LightClassifier, NgramClassifier]:
    light = load_light(kept[0], TEXTS, LABELS)
    assert light is not None
    assert light.threshold == kept[1].first_threshold
    return light, kept[1].ngrams


@examples(100, 1_000)
@given(
    st.one_of(
        st.lists(st.sampled_from(WORDS), max_size=12).map(" ".join),
        st.text(max_size=60),
        st.sampled_from(["\ud800", "a" * 3_000, "我 " * 50, "cancel cancel cancel"]),
    )
)
def test_both_classifiers_give_the_same_result(
    pair: tuple[LightClassifier, NgramClassifier], text: str
) -> None:
    light, full = pair
    intent, confidence = light.best(text)
    known, probability = full.best(text)
    assert confidence == pytest.approx(probability, abs=1e-5)
    if probability > 1 / len(full.labels) + 1e-3:  # else it is a draw
        assert intent == known


def test_both_classifiers_agree_on_all_examples(
    pair: tuple[LightClassifier, NgramClassifier],
) -> None:
    light, full = pair
    for text in TEXTS + [" ".join(both) for both in zip(TEXTS, reversed(TEXTS), strict=True)]:
        intent, confidence = light.best(text)
        known, probability = full.best(text)
        assert intent == known
        assert confidence == pytest.approx(probability, abs=1e-6)


def test_a_text_of_many_different_parts_has_room_in_the_fields(
    pair: tuple[LightClassifier, NgramClassifier],
) -> None:
    light, full = pair
    for text in (" ".join(WORDS)[:2_000], " ".join(TEXTS), "order " * 400, "my " * 700):
        assert light.best(text)[1] == pytest.approx(full.best(text)[1], abs=1e-5)


def test_a_file_of_other_examples_is_not_loaded(
    kept: tuple[Path, TrainedClassifier], tmp_path: Path
) -> None:
    path, _ = kept
    assert load_light(path, [*TEXTS, "good day"], [*LABELS, "greeting"]) is None
    assert load_light(tmp_path / "none.npz", TEXTS, LABELS) is None
    raw = path.read_bytes()
    for damaged in (b"", raw[: len(raw) // 2], b"x" * 100):
        (tmp_path / "damaged.npz").write_bytes(damaged)
        assert load_light(tmp_path / "damaged.npz", TEXTS, LABELS) is None


@examples(70, 1_000)
@given(st.integers(0, 1 << 20), st.integers(0, 255))
def test_a_damaged_file_is_left_alone(
    kept: tuple[Path, TrainedClassifier],
    tmp_path_factory: pytest.TempPathFactory,
    offset: int,
    byte: int,
) -> None:
    raw = bytearray(kept[0].read_bytes())
    raw[-1 - offset % 2_000 if offset % 2 else offset % len(raw)] = byte
    damaged = tmp_path_factory.getbasetemp() / "one-byte.npz"
    damaged.write_bytes(raw)
    found = load_light(damaged, TEXTS, LABELS)
    if found is not None:  # the byte was of no consequence
        text = "where is my order"
        assert found.best(text)[0] == kept[1].ngrams.best(text)[0]


@pytest.mark.parametrize("cached", ["trained", "not yet trained", "never"])
def test_it_needs_no_numpy(
    kept: tuple[Path, TrainedClassifier], tmp_path: Path, cached: str
) -> None:
    path = kept[0] if cached == "trained" else tmp_path / "new.npz"
    cache = "None" if cached == "never" else f"Path({str(path)!r})"
    script = f"""
import sys
from pathlib import Path
from seawall.intents.cascade import build_detector
from seawall.intents import IntentDefinition
texts, labels = {TEXTS!r}, {LABELS!r}
intents = [
    IntentDefinition(name, "", tuple(t for t, l in zip(texts, labels) if l == name), ())
    for name in dict.fromkeys(labels)
]
detector = build_detector(intents, cache={cache})
assert detector.detect_locally("where is my order").intent == "order_status"
assert not {{"numpy", "zipfile"}} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", script], check=True)
    if cached != "never":
        assert load_light(path, TEXTS, LABELS) is not None


def test_warnings_of_training_in_another_process_are_logged_here(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trained = train_apart(TEXTS, LABELS, cache=tmp_path / "none" / "trained.npz")
    assert trained is not None
    assert "the classifier cannot be kept in" in caplog.text
    light = read_light(trained, TEXTS, LABELS)
    assert light is not None
    assert light.best("where is my order")[0] == "order_status"


def test_without_another_process_training_is_done_here(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    assert train_apart(TEXTS, LABELS, cache=None) is None
    assert "training here" in caplog.text
