"""How well intents are told apart, and at what cost, beside TF-IDF with a linear SVM.

    .venv/bin/python bench/intents/run.py [--quick] [--validate]

Needs BANKING77 (see README.md). Prints a table, and the figures as one JSON line at the end.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from statistics import mean
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np

from seawall.errors import ConfigError
from seawall.intents.blend import TwoSteps
from seawall.intents.classifier import train
from seawall.intents.digest import digest
from seawall.intents.embedder import Embedder, find_model
from seawall.intents.evaluation import Labelled, auroc, evaluate, few_shot, read_labelled, split
from seawall.intents.saved import read, write
from seawall.intents.training import train_calibrated

HERE = Path(__file__).resolve().parent
DATA = HERE.parents[2] / "shared" / "data"
UNKNOWN_SHARE = 0.25


def ours(
    training: Labelled, testing: Labelled, unknown: Labelled, embedder: Embedder | None, seed: int
) -> dict[str, float]:
    """Train, keep, load, score."""
    began = time.process_time()
    trained = train_calibrated(training.texts, training.labels, embedder=embedder, seed=seed)
    figures = {"training_seconds": time.process_time() - began}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "classifier.npz"
        key = digest(training.texts, training.labels, embedder.digest if embedder else "")
        write(path, key, trained)
        figures["file_megabytes"] = path.stat().st_size / 1e6
        began = time.perf_counter()
        loaded = read(path, key, embedder)
        figures["loading_milliseconds"] = (time.perf_counter() - began) * 1e3
    assert loaded is not None
    classifier = (
        loaded.ngrams
        if loaded.blended is None
        else TwoSteps(loaded.blended, loaded.first_threshold)
    )
    result = evaluate(classifier, testing, threshold=loaded.threshold)
    figures |= {
        "accuracy": result.accuracy,
        "macro_f1": result.macro_f1,
        "precision": result.precision,
        "coverage": result.coverage,
        "threshold": result.threshold,
        "calibration_error": result.calibration_error,
        "microseconds": result.microseconds,
    }
    if unknown.texts:
        figures["unknown_auroc"] = auroc(
            [classifier.best(text)[1] for text in testing.texts],
            [classifier.best(text)[1] for text in unknown.texts],
        )
    return figures


def peer(training: Labelled, testing: Labelled, unknown: Labelled) -> dict[str, float]:
    """The same by scikit-learn."""
    python = HERE / ".venv" / "bin" / "python"
    if not python.exists():
        sys.stderr.write("making a venv for scikit-learn ...\n")
        venv.create(HERE / ".venv", with_pip=True)
        subprocess.run(
            [python, "-m", "pip", "install", "-q", "-r", HERE / "requirements.txt"], check=True
        )
    data = {
        "training": list(zip(training.texts, training.labels, strict=True)),
        "testing": list(zip(testing.texts, testing.labels, strict=True)),
        "unknown": unknown.texts,
    }
    done = subprocess.run(
        [python, HERE / "peer.py"], input=json.dumps(data).encode(), check=True, capture_output=True
    )
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


def known_only(labelled: Labelled, names: set[str], known: bool) -> Labelled:
    """The messages of the named intents, or of all others."""
    pairs = zip(labelled.texts, labelled.labels, strict=True)
    kept = [pair for pair in pairs if (pair[1] in names) == known]
    return Labelled(tuple(text for text, _ in kept), tuple(label for _, label in kept))


def cases(
    training: Labelled, testing: Labelled, seeds: int, quick: bool
) -> Iterator[tuple[str, int, Labelled, Labelled, Labelled]]:
    """Name, seed, to train on, to score on, and messages of intents left out of training."""
    nothing = Labelled((), ())
    for seed in range(seeds):
        yield "10 an intent", seed, few_shot(training, 10, seed=seed), testing, nothing
    if not quick:
        yield "full", 0, training, testing, nothing
    names = np.array(sorted(set(training.labels)))
    for seed in range(1 if quick else 3):
        away = np.random.default_rng(seed).permutation(names)
        known = set(away[round(len(names) * UNKNOWN_SHARE) :].tolist())
        few = known_only(few_shot(training, 10, seed=seed), known, True)
        scored = known_only(testing, known, True), known_only(testing, known, False)
        yield "10, intents left out", seed, few, *scored
        if seed == 0 and not quick:
            yield "full, intents left out", seed, known_only(training, known, True), *scored


def validate(training: Labelled, seeds: int) -> list[dict[str, float]]:
    """How the n-gram classifier's settings were chosen: by held-out training data only."""
    found = []
    kept, away = split(training, held_out=0.2, seed=0)
    for rate, dropped in product((2.5, 5.0, 10.0), (0.0, 0.3, 0.5)):
        few = []
        for seed in range(seeds):
            shots = few_shot(training, 10, seed=seed)
            seen = set(shots.texts)
            pairs = zip(training.texts, training.labels, strict=True)
            rest = [pair for pair in pairs if pair[0] not in seen][::3]
            classifier = train(shots.texts, shots.labels, seed=seed, rate=rate, dropped=dropped)
            few.append(mean(classifier.best(text)[0] == label for text, label in rest))
        classifier = train(kept.texts, kept.labels, rate=rate, dropped=dropped)
        pairs = zip(away.texts, away.labels, strict=True)
        full = mean(classifier.best(text)[0] == label for text, label in pairs)
        found.append({"rate": rate, "dropped": dropped, "few": mean(few), "full": full})
        print(f"rate {rate:4}  dropped {dropped}  {mean(few):7.2%} {full:7.2%}", flush=True)
    return found


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="two draws, 10 an intent only")
    parser.add_argument("--seeds", type=int, default=5, help="draws of 10 an intent (default: 5)")
    parser.add_argument("--case", default="", help="only cases whose name has this in it")
    parser.add_argument("--validate", action="store_true", help="the sweep of settings instead")
    arguments = parser.parse_args()
    if not (DATA / "banking77_train.csv").is_file():
        sys.stderr.write(f"BANKING77 is not in {DATA}; see README.md\n")
        return 2
    training = read_labelled(DATA / "banking77_train.csv")
    testing = read_labelled(DATA / "banking77_test.csv")
    if arguments.validate:
        print(json.dumps(validate(training, 1 if arguments.quick else 3)))
        return 0
    try:
        embedder: Embedder | None = Embedder(find_model(""))
    except ConfigError as error:
        embedder = None
        sys.stderr.write(f"without embeddings: {error}\n")
    rows: list[dict[str, Any]] = []
    seeds = 2 if arguments.quick else arguments.seeds
    for case, seed, few, scored, unknown in cases(training, testing, seeds, arguments.quick):
        if arguments.case not in case:
            continue
        measured = {
            "linear svm": peer(few, scored, unknown),
            "n-grams": ours(few, scored, unknown, None, seed),
        }
        if embedder is not None:
            measured["embeddings"] = ours(few, scored, unknown, embedder, seed)
        for who, figures in measured.items():
            rows.append({"case": case, "seed": seed, "who": who, **figures})
            shown = "  ".join(f"{name} {value:.4g}" for name, value in figures.items())
            print(f"{case} #{seed}  {who:10}  {shown}", flush=True)
    print(json.dumps(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
