"""Accuracy and cost of intent detection, beside TF-IDF with a linear SVM.

    .venv/bin/python bench/intents/run.py [--quick] [--validate] [--clinc data_full.json]

Also with misspelt messages, and with messages of no intent among them. Needs BANKING77 (see
README.md). Prints a table, and the figures as one JSON line at the end.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Iterator, Sequence
from itertools import chain, product
from pathlib import Path
from statistics import mean
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
from msgspec import Struct

from seawall.errors import ConfigError
from seawall.intents import NO_INTENT
from seawall.intents.blend import TwoStageClassifier
from seawall.intents.classifier import train
from seawall.intents.embedder import SentenceEmbedder
from seawall.intents.evaluation import (
    Evaluation,
    Labelled,
    auroc,
    certainty_of_intent,
    evaluate,
    few_shot,
    precision_with_unknown,
    read_labelled,
    split,
)
from seawall.intents.features import digest
from seawall.intents.misspelling import KINDS, misspelt
from seawall.intents.open import open_embedder
from seawall.intents.saved import TrainedClassifier, read, write
from seawall.intents.training import train_calibrated

HERE = Path(__file__).resolve().parent
DATA = HERE.parents[2] / "shared" / "data"
UNKNOWN_SHARE = 0.25
"""Of the intents, left out of training."""
UNKNOWN_AMONG = 0.18
"""Of the messages in a mix; CLINC150's own share."""
TIMED = 300


class Case(Struct, frozen=True):
    """What is trained on and scored on.

    unknown: messages of no intent that training knows. far: others, of another trade. misspelt:
    whether misspelt copies are scored too.
    """

    name: str
    seed: int
    training: Labelled
    testing: Labelled
    unknown: tuple[str, ...] = ()
    far: tuple[str, ...] = ()
    misspelt: bool = False


class Answers:
    """What both steps say, as the cascade takes them, of many texts at once."""

    def __init__(self, trained: TrainedClassifier, texts: Sequence[str]) -> None:
        first = {text: trained.ngrams.best(text) for text in texts}
        unsure = [text for text, best in first.items() if best[1] < trained.first_threshold]
        if trained.blended is not None and unsure:
            first.update(zip(unsure, trained.blended.best_of(unsure), strict=True))
        self._best = first

    def best(self, text: str) -> tuple[str, float]:
        """The likeliest intent and how sure it is."""
        return self._best[text]


def ours(case: Case, embedder: SentenceEmbedder | None) -> dict[str, float]:
    """Train, keep, load, score."""
    texts, labels = case.training.texts, case.training.labels
    began = time.process_time()
    trained = train_calibrated(texts, labels, embedder=embedder, seed=case.seed)
    figures = {"training_seconds": time.process_time() - began}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "classifier.npz"
        key = digest(texts, labels, embedder.digest if embedder else "")
        write(path, key, trained)
        figures["file_megabytes"] = path.stat().st_size / 1e6
        began = time.perf_counter()
        loaded = read(path, key, embedder)
        figures["loading_milliseconds"] = (time.perf_counter() - began) * 1e3
    assert loaded is not None
    alone = (
        loaded.ngrams
        if loaded.blended is None
        else TwoStageClassifier(loaded.blended, loaded.first_threshold)
    )
    few = Labelled(case.testing.texts[:TIMED], case.testing.labels[:TIMED])
    figures["microseconds"] = evaluate(alone, few, threshold=loaded.threshold).microseconds
    answers = Answers(loaded, case.testing.texts)
    result = evaluate(answers, case.testing, threshold=loaded.threshold)
    figures |= {
        "accuracy": result.accuracy,
        "macro_f1": result.macro_f1,
        "precision": result.precision,
        "coverage": result.coverage,
        "threshold": result.threshold,
        "calibration_error": result.calibration_error,
    }
    if case.unknown:
        figures |= amid_unknown(loaded, case, answers, result)
    for kind in KINDS if case.misspelt else ():
        copies = Labelled(tuple(misspelt(case.testing.texts, kind)), case.testing.labels)
        scored = evaluate(Answers(loaded, copies.texts), copies, threshold=loaded.threshold)
        figures |= {f"{kind}_accuracy": scored.accuracy, f"{kind}_precision": scored.precision}
    return figures


def amid_unknown(
    trained: TrainedClassifier, case: Case, answers: Answers, result: Evaluation
) -> dict[str, float]:
    """AUROC of messages of no intent, and precision with a share of 18 % of them."""
    known = certainty_of_intent(answers, case.testing.texts)
    figures: dict[str, float] = {}
    for name, texts in (("mix", case.unknown), ("far_mix", case.far)):
        if not texts:
            continue
        unknown = certainty_of_intent(Answers(trained, texts), texts)
        wrongly = mean(each >= trained.threshold for each in unknown)
        figures |= {
            f"{name}_auroc": auroc(known, unknown),
            f"{name}_precision": precision_with_unknown(result, unknown, share=UNKNOWN_AMONG),
            f"{name}_coverage": result.coverage * (1 - UNKNOWN_AMONG) + wrongly * UNKNOWN_AMONG,
        }
    return figures


def peer(case: Case) -> dict[str, float]:
    """The same by scikit-learn."""
    python = HERE / ".venv" / "bin" / "python"
    if not python.exists():
        sys.stderr.write("making a venv for scikit-learn ...\n")
        venv.create(HERE / ".venv", with_pip=True)
        subprocess.run(
            [python, "-m", "pip", "install", "-q", "-r", HERE / "requirements.txt"], check=True
        )
    data = {
        "training": list(zip(case.training.texts, case.training.labels, strict=True)),
        "testing": list(zip(case.testing.texts, case.testing.labels, strict=True)),
        "unknown": case.unknown,
        "misspelt": {kind: misspelt(case.testing.texts, kind) for kind in KINDS}
        if case.misspelt
        else {},
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


def cases(training: Labelled, testing: Labelled, seeds: int, quick: bool) -> Iterator[Case]:
    """On BANKING77: few examples, all of them, and with a quarter of the intents left out."""
    for seed in range(seeds):
        few = few_shot(training, 10, seed=seed)
        yield Case("10 an intent", seed, few, testing, misspelt=not seed)
    if not quick:
        yield Case("full", 0, training, testing, misspelt=True)
    names = np.array(sorted(set(training.labels)))
    for seed in range(1 if quick else 3):
        away = np.random.default_rng(seed).permutation(names)
        known = set(away[round(len(names) * UNKNOWN_SHARE) :].tolist())
        scored = known_only(testing, known, True)
        others = known_only(testing, known, False).texts
        few = known_only(few_shot(training, 10, seed=seed), known, True)
        yield Case("10, intents left out", seed, few, scored, others, retail())
        if not quick:
            every = known_only(training, known, True)
            yield Case("full, intents left out", seed, every, scored, others, retail())


def retail() -> tuple[str, ...]:
    """Requests of customers of a shop, none of which concerns a bank."""
    path = DATA / "retail" / "tasks_train.json"
    if not path.is_file():
        return ()
    tasks = json.loads(path.read_text(encoding="utf-8"))
    return tuple(each["user_scenario"]["instructions"]["reason_for_call"] for each in tasks)


def clinc_cases(path: Path, quick: bool) -> Iterator[Case]:
    """On CLINC150, whose messages of no intent were collected as such."""
    parts = json.loads(path.read_text(encoding="utf-8"))
    training, testing, none = (
        Labelled(tuple(text for text, _ in part), tuple(label for _, label in part))
        for part in (parts["train"], parts["test"], parts["oos_train"])
    )
    unknown = tuple(text for text, _ in parts["oos_test"])
    for seed in range(1 if quick else 2):
        few = few_shot(training, 10, seed=seed)
        yield Case("CLINC150, 10 an intent", seed, few, testing, unknown)
    few = with_none(few_shot(training, 10, seed=0), none)
    yield Case("CLINC150, 10 an intent, none", 0, few, testing, unknown)
    if not quick:
        yield Case("CLINC150, full", 0, training, testing, unknown)
        yield Case("CLINC150, full, none", 0, with_none(training, none), testing, unknown)


def with_none(labelled: Labelled, none: Labelled) -> Labelled:
    """Examples of messages of no intent added."""
    names = (NO_INTENT,) * len(none.texts)
    return Labelled(labelled.texts + none.texts, labelled.labels + names)


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
    parser.add_argument("--no-peer", action="store_true", help="without the linear SVM")
    parser.add_argument(
        "--clinc", type=Path, metavar="FILE", help="also on CLINC150: its data_full.json"
    )
    parser.add_argument("--validate", action="store_true", help="the sweep of settings instead")
    parser.add_argument(
        "--embedding-model", default="", metavar="FOLDER", help="instead of the installed one"
    )
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
        embedder: SentenceEmbedder | None = open_embedder(arguments.embedding_model)
    except ConfigError as error:
        embedder = None
        sys.stderr.write(f"without embeddings: {error}\n")
    rows: list[dict[str, Any]] = []
    seeds = 2 if arguments.quick else arguments.seeds
    found = cases(training, testing, seeds, arguments.quick)
    if arguments.clinc is not None:
        found = chain(found, clinc_cases(arguments.clinc, arguments.quick))
    for case in found:
        if arguments.case not in case.name:
            continue
        measured = {} if arguments.no_peer else {"linear svm": peer(case)}
        measured["n-grams"] = ours(case, None)
        if embedder is not None:
            measured["embeddings"] = ours(case, embedder)
        for classifier, figures in measured.items():
            rows.append({"case": case.name, "seed": case.seed, "classifier": classifier, **figures})
            shown = "  ".join(f"{name} {value:.4g}" for name, value in figures.items())
            print(f"{case.name} #{case.seed}  {classifier:10}  {shown}", flush=True)
    print(json.dumps(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
