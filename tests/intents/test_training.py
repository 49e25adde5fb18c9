import logging
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from seawall.cli.main import main
from seawall.intents.calibration import calibrate
from seawall.intents.classifier import softmax, train
from seawall.intents.features import digest
from seawall.intents.saved import read
from seawall.intents.training import load_or_train, train_calibrated

SHOPS = [f"shop {number}" for number in range(20)]
TEXTS = [f"where is my parcel for {each}" for each in SHOPS]
TEXTS += [f"please cancel, now, {each}" for each in SHOPS]
LABELS = ["status"] * 20 + ["cancel"] * 20
CONFIGURATION = """
[routing]
classifier_cache = "{cache}"
[intents.status]
examples = ["where is my order", "has my parcel been sent"]
[intents.cancel]
examples = ["cancel my order", "stop this purchase"]
"""


def test_a_kept_classifier_is_the_same(tmp_path: Path) -> None:
    cache = tmp_path / "trained.npz"
    trained = load_or_train(TEXTS, LABELS, cache=cache)
    before = cache.stat().st_mtime_ns
    loaded = load_or_train(TEXTS, LABELS, cache=cache)
    assert cache.stat().st_mtime_ns == before
    for text in ("cancel the parcel", "naïve 我", "", "shop 7"):
        assert loaded.ngrams.best(text) == trained.ngrams.best(text)
    assert loaded.threshold == trained.threshold
    assert sorted(each.name for each in tmp_path.iterdir()) == ["trained.npz", "trained.npz.lock"]


def test_changed_examples_are_trained_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache = tmp_path / "trained.npz"
    load_or_train(TEXTS, LABELS, cache=cache)
    other = load_or_train([*TEXTS, "good morning"], [*LABELS, "greeting"], cache=cache)
    assert "greeting" in other.ngrams.labels
    assert "does not fit the examples" in caplog.text
    assert read(cache, digest(TEXTS, LABELS), None) is None
    assert digest(["ab"], ["c"]) != digest(["a"], ["bc"])


def test_a_file_of_an_older_format_is_refused_by_name(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache = tmp_path / "trained.npz"
    np.savez(cache, key=np.frombuffer(b"0" * 64, np.uint8), labels=np.zeros(3, np.uint8))
    load_or_train(TEXTS, LABELS, cache=cache)
    assert "is of format 1, and this version of Seawall reads 2" in caplog.text
    assert "seawall intents train" in caplog.text
    caplog.clear()
    load_or_train(TEXTS, LABELS, cache=cache)
    assert caplog.text == ""


def test_training_is_the_same_in_every_process(tmp_path: Path) -> None:
    """Hashes of text differ between processes; what is trained must not."""
    weights = []
    for number in range(2):
        cache = tmp_path / f"{number}.npz"
        program = (
            "from pathlib import Path; from seawall.intents.training import load_or_train;"
            f"load_or_train({TEXTS!r}, {LABELS!r}, cache=Path({str(cache)!r}))"
        )
        environment = os.environ | {"PYTHONHASHSEED": str(number)}
        subprocess.run([sys.executable, "-c", program], check=True, env=environment)
        weights.append(cache.read_bytes())
    assert weights[0] == weights[1]


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x93NUMPY", b"x" * 1_000])
def test_a_damaged_file_is_replaced(tmp_path: Path, content: bytes) -> None:
    cache = tmp_path / "trained.npz"
    cache.write_bytes(content)
    load_or_train(TEXTS, LABELS, cache=cache)
    assert read(cache, digest(TEXTS, LABELS), None) is not None


def test_a_name_that_the_file_cannot_store_is_trained_each_time(tmp_path: Path) -> None:
    labels = [label.replace("a", "\0") for label in LABELS]
    for _ in range(2):
        trained = load_or_train(TEXTS, labels, cache=tmp_path / "trained.npz")
        assert trained.ngrams.best("cancel, please")[0] == "c\0ncel"


def test_no_code_is_loaded_from_a_file(tmp_path: Path) -> None:
    cache = tmp_path / "trained.npz"
    np.savez(cache, key=np.array([{"a": 1}], object))
    assert read(cache, "", None) is None


def test_a_folder_that_cannot_be_written(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cache = tmp_path / "nowhere" / "trained.npz"
    with caplog.at_level(logging.WARNING):
        assert load_or_train(TEXTS, LABELS, cache=cache).ngrams.best("cancel now")[0] == "cancel"
    assert "cannot be kept" in caplog.text


def test_one_of_many_processes_trains(tmp_path: Path) -> None:
    cache = tmp_path / "trained.npz"
    messages: list[str] = []

    def start(_: int) -> float:
        return load_or_train(TEXTS, LABELS, cache=cache, progress=messages.append).threshold

    with ThreadPoolExecutor(6) as pool:
        assert len(set(pool.map(start, range(6)))) == 1
    assert messages.count("training on everything") == 1


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cache, file = tmp_path / "trained.npz", tmp_path / "seawall.toml"
    file.write_text(CONFIGURATION.format(cache=cache))
    assert main(["intents", "train", str(file)]) == 0
    assert "4 examples of 2 intents" in capsys.readouterr().out
    assert main(["intents", "train", str(file), "--out", str(tmp_path / "no" / "x.npz")]) == 2
    assert "cannot be written" in capsys.readouterr().err
    file.write_text(CONFIGURATION.format(cache=""))
    assert main(["intents", "train", str(file)]) == 2
    assert "--out" in capsys.readouterr().err


def test_loading_imports_no_more_than_numpy(tmp_path: Path) -> None:
    cache = tmp_path / "trained.npz"
    load_or_train(TEXTS, LABELS, cache=cache)
    program = (
        "import sys; before = {*sys.modules}; from pathlib import Path;"
        "from seawall.intents.training import load_or_train;"
        f"load_or_train({TEXTS!r}, {LABELS!r}, cache=Path({str(cache)!r}));"
        "after = {name.partition('.')[0] for name in {*sys.modules} - before};"
        "print(after - sys.stdlib_module_names)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    foreign = {name for name in eval(done.stdout) if not name.startswith("_")}
    assert foreign <= {"numpy", "msgspec", "seawall", "typing_extensions"}


def test_few_messages_never_make_a_low_threshold() -> None:
    """All right by chance proves little: of 40 in 40 the lower bound is below 97 %."""
    assert train_calibrated(TEXTS, LABELS).threshold >= 0.9
    assert calibrate(TEXTS[:5] + TEXTS[-5:], LABELS[:5] + LABELS[-5:], seed=0).threshold == 0.9


def test_evidence_lowers_the_threshold_and_noise_raises_it() -> None:
    random = np.random.default_rng(1)
    colours = ("red", "green", "blue", "white", "black")
    animals = ("cat", "dog", "cow", "hen", "fox")
    texts = [
        f"{random.choice(colours)} {random.choice(animals)} {random.integers(50)}"
        for _ in range(400)
    ]
    labels = [text.split()[1] for text in texts]
    clear = calibrate(texts, labels, seed=0)
    assert clear.threshold < 0.9
    noisy = [random.choice(animals) if random.random() < 0.2 else label for label in labels]
    assert calibrate(texts, noisy, seed=0).threshold >= 0.9


def test_a_step_is_that_of_stochastic_gradient_descent() -> None:
    """Example by example, as the formula has it; "" has no feature."""
    texts, labels = [*TEXTS[::4], "", *TEXTS[-3:], ""], [*LABELS[::4], "status", *LABELS[-3:], "x"]
    found = train(texts, labels, seed=3, rate=2.0, dropped=0.4)
    vectors = [found.vectorise(text) for text in texts]
    targets = found.positions(labels)
    weights = np.zeros_like(found.weights)
    random = np.random.default_rng(3)
    for epoch in range(30):
        for index in random.permutation(len(texts)):
            positions, values = vectors[index]
            kept = random.random(len(positions)) >= 0.4
            positions, values = positions[kept], values[kept] / 0.6
            error = softmax(values @ weights[positions])
            error[targets[index]] -= 1
            weights[positions] -= np.outer(values * 2.0 * (1 - epoch / 30), error)
    assert np.abs(weights).max() > 1
    assert found.weights == pytest.approx(weights, abs=1e-3)
    assert train([], []).labels == ()
