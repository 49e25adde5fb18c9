"""`seawall intents`: how well messages are told apart; training ahead of the first start."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from seawall.cli.values import number, whole
from seawall.errors import ConfigError
from seawall.printable import printable

if TYPE_CHECKING:
    from seawall.intents.evaluation import Evaluation, Labelled

__all__ = ["add_parser"]

_UNKNOWN_SHARE = 0.18
"""Of messages without an intent, as in the public data set CLINC150."""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "intents", help="see how well intents are told apart, train ahead"
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    _add_train(commands)
    score = commands.add_parser(
        "eval",
        help="train on labelled messages and score on others",
        description="Train the intent classifier on a CSV file of labelled messages and score it "
        "on messages that it has not seen: accuracy, macro-F1, a reliability table, the worst "
        "confusions, and how many messages it answers by itself. With --hold-intents, also how "
        "well it tells messages of unknown intents.",
    )
    score.add_argument("file", type=Path, metavar="FILE.csv", help="messages with their intents")
    score.add_argument(
        "--test",
        type=Path,
        metavar="FILE.csv",
        help="score on this file, not on a held-out part",
    )
    score.add_argument("--text", default="", metavar="COLUMN", help="column of the messages")
    score.add_argument("--label", default="", metavar="COLUMN", help="column of the intents")
    score.add_argument(
        "--held-out",
        type=number(0, 1, above=True),
        default=0.2,
        metavar="SHARE",
        help="share to score on when there is no --test (default: 0.2)",
    )
    score.add_argument(
        "--shots", type=whole(1, 1_000_000), metavar="N", help="train on N examples an intent only"
    )
    score.add_argument(
        "--hold-intents",
        type=number(0, 1),
        default=0.0,
        metavar="SHARE",
        help="leave a share of the intents out of training, as unknown ones",
    )
    score.add_argument(
        "--embeddings",
        action="store_true",
        help="where n-grams are not sure, ask a classifier on sentence embeddings",
    )
    score.add_argument(
        "--embedding-model",
        default="",
        metavar="FOLDER",
        help="its model (default: the installed package)",
    )
    score.add_argument(
        "--threshold",
        type=number(0, 1),
        help="confidence to answer from (default: the calibrated one)",
    )
    score.add_argument(
        "--worst", type=whole(0, 1_000_000), default=10, help="confusions to show (default: 10)"
    )
    score.add_argument(
        "--seed", type=whole(0, 2**63 - 1), default=0, help="of everything random (default: 0)"
    )
    score.add_argument("--json", action="store_true", help="the scores as one JSON object")
    score.set_defaults(run=_score)


def _add_train(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "train",
        help="train a configuration's classifier and keep it in a file",
        description="Train the classifier on the examples of a configuration and keep it in the "
        "file that routing.classifier_cache names, so that no process has to train at its start. "
        "A file that fits the examples already is left as it is.",
    )
    parser.add_argument("file", type=Path, metavar="FILE.toml", help="the configuration")
    parser.add_argument(
        "--out", type=Path, metavar="FILE.npz", help="keep it here instead, to be shipped"
    )
    parser.set_defaults(run=_train)


def _progress(text: str) -> None:
    sys.stderr.write(f"{text} ...\n")


def _train(arguments: argparse.Namespace) -> int:
    from seawall.config import load_settings  # noqa: PLC0415 - only what this command needs
    from seawall.intents.embedder import Embedder, find_model  # noqa: PLC0415
    from seawall.intents.training import load_or_train  # noqa: PLC0415

    settings = load_settings(arguments.file)
    routing = settings.routing
    out = arguments.out or (Path(routing.classifier_cache) if routing.classifier_cache else None)
    if out is None:
        raise ConfigError(
            f"{arguments.file}: routing.classifier_cache is not set; set it, or say --out"
        )
    examples = [(text, name) for name, each in settings.intents.items() for text in each.examples]
    if len({name for _, name in examples}) < 2:
        raise ConfigError(f"{arguments.file}: at least two intents with examples are needed")
    embedder = (
        Embedder(find_model(routing.embedding_model))
        if routing.classifier == "embeddings"
        else None
    )
    trained = load_or_train(
        [text for text, _ in examples],
        [name for _, name in examples],
        cache=out,
        embedder=embedder,
        progress=_progress,
    )
    if not out.is_file():
        raise ConfigError(f"{out}: cannot be written")
    sys.stdout.write(
        f"{out}: {len(examples)} examples of {len(trained.ngrams.labels)} intents, answers from a "
        f"confidence of {trained.threshold:.3f}\n"
    )
    return 0


def _score(arguments: argparse.Namespace) -> int:
    import msgspec  # noqa: PLC0415 - only what this command needs

    from seawall.intents.blend import TwoStageClassifier  # noqa: PLC0415
    from seawall.intents.embedder import Embedder, find_model  # noqa: PLC0415
    from seawall.intents.evaluation import (  # noqa: PLC0415
        auroc,
        certainty_of_intent,
        evaluate,
        precision_with_unknown,
    )
    from seawall.intents.training import train_calibrated  # noqa: PLC0415

    _check(arguments)
    training, testing, unknown = _data(arguments)

    _progress(f"{len(training.texts)} messages to train on, {len(testing.texts)} to score on")
    trained = train_calibrated(
        training.texts,
        training.labels,
        embedder=Embedder(find_model(arguments.embedding_model)) if arguments.embeddings else None,
        seed=arguments.seed,
        progress=_progress,
    )
    asked = arguments.threshold
    threshold = trained.threshold if asked is None else asked
    first = trained.first_threshold if asked is None else asked
    classifier = (
        trained.ngrams if trained.blended is None else TwoStageClassifier(trained.blended, first)
    )
    result = evaluate(classifier, testing, threshold=threshold, worst=arguments.worst)
    unknown_auroc = unknown_precision = None
    if unknown.texts:
        doubtful = certainty_of_intent(classifier, unknown.texts)
        unknown_auroc = auroc(certainty_of_intent(classifier, testing.texts), doubtful)
        unknown_precision = precision_with_unknown(result, doubtful, share=_UNKNOWN_SHARE)
    if arguments.json:
        scores = msgspec.to_builtins(result) | {
            "unknown_auroc": unknown_auroc,
            "unknown_precision": unknown_precision,
        }
        sys.stdout.write(msgspec.json.encode(scores).decode() + "\n")
    else:
        sys.stdout.write(printable(_table(result), keep="\n"))
        if unknown_auroc is not None:
            sys.stdout.write(
                f"\nunknown intents   AUROC {unknown_auroc:.3f} on {len(unknown.texts)} messages\n"
                f"With {_UNKNOWN_SHARE:.0%} of such messages, "
                f"{unknown_precision:.2%} of answers are right.\n"
            )
    return 0


def _check(arguments: argparse.Namespace) -> None:
    for name, low, high in (("held_out", 0.0, 1.0), ("hold_intents", -1.0, 1.0)):
        value = getattr(arguments, name)
        if not low < value < high or value < 0:
            raise ConfigError(f"--{name.replace('_', '-')} must be a share between 0 and 1")


def _data(arguments: argparse.Namespace) -> "tuple[Labelled, Labelled, Labelled]":
    """To train on, to score on, and messages of intents that training must not know."""
    import numpy as np  # noqa: PLC0415 - only what this command needs

    from seawall.intents.evaluation import (  # noqa: PLC0415
        Labelled,
        few_shot,
        read_labelled,
        split,
    )

    columns = {"text": arguments.text, "label": arguments.label}
    training = read_labelled(arguments.file, **columns)
    if arguments.test:
        testing = read_labelled(arguments.test, **columns)
    else:
        training, testing = split(training, held_out=arguments.held_out, seed=arguments.seed)
    names = np.array(sorted(set(training.labels)))
    excluded = set(
        np.random.default_rng(arguments.seed)
        .permutation(names)[: round(len(names) * arguments.hold_intents)]
        .tolist()
    )
    if len(names) - len(excluded) < 2:
        raise ConfigError(f"{arguments.file}: at least two intents are needed to train on")

    def only(labelled: Labelled, known: bool) -> Labelled:
        kept = [
            pair
            for pair in zip(labelled.texts, labelled.labels, strict=True)
            if (pair[1] not in excluded) == known
        ]
        return Labelled(tuple(text for text, _ in kept), tuple(label for _, label in kept))

    if arguments.shots:
        training = few_shot(training, arguments.shots, seed=arguments.seed)
    training, testing, unknown = only(training, True), only(testing, True), only(testing, False)
    if not testing.texts:
        raise ConfigError(f"{arguments.test or arguments.file}: nothing is left to score on")
    return training, testing, unknown


def _table(result: "Evaluation") -> str:
    lines = [
        f"messages          {result.messages} of {result.intents} intents",
        f"accuracy          {result.accuracy:.2%}",
        f"macro-F1          {result.macro_f1:.2%}",
        f"calibration error {result.calibration_error:.2%}",
        f"time a message    {result.microseconds:.0f} microseconds of CPU",
        "",
        f"At its threshold of {result.threshold:.2f} the classifier answers by itself",
        f"{result.coverage:.1%} of the messages,",
        f"and is right on {result.precision:.2%} of those.",
        "",
        "confidence    messages   mean confidence   accuracy",
    ]
    lines += [
        f"{each.low:.1f} to {each.high:.1f} {each.count:>12} {each.confidence:>17.3f} "
        f"{each.accuracy:>10.3f}"
        for each in result.reliability
    ]
    if result.confusions:
        lines += ["", "worst confusions"]
        lines += [
            f"{each.count:>6} x {each.intent} taken for {each.taken_for}"
            for each in result.confusions
        ]
    return "\n".join(lines) + "\n"
