"""`seawall intents`: evaluation of the intent classifier, and training ahead of the start."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from seawall.cli.arguments import (
    Commands,
    Parser,
    add_group,
    add_json,
    add_old_name,
    decimal,
    integer,
)
from seawall.cli.terminal import print_line
from seawall.errors import ConfigError
from seawall.printable import printable

if TYPE_CHECKING:
    from seawall.intents.evaluation import Evaluation, Labelled

__all__ = ["add_parser"]

_UNKNOWN_SHARE = 0.18
"""Share of messages without an intent, as in the public data set CLINC150."""


def add_parser(subparsers: "Commands[Parser]") -> None:
    """Add the command."""
    commands = add_group(subparsers, "intents", "evaluate and train the intent classifier")
    _add_train(commands)
    score = commands.add_parser(
        "eval",
        help="train on labelled messages and score on others",
        description="Train the intent classifier on a CSV file of labelled messages and score it "
        "on messages that it has not seen: accuracy, macro-F1, a reliability table, the worst "
        "confusions, and how many messages it answers by itself. With --hold-out-intents, also "
        "how well it recognises messages of unknown intents.",
    )
    score.add_argument("file", type=Path, metavar="FILE.csv", help="labelled messages")
    score.add_argument(
        "--test",
        type=Path,
        metavar="FILE.csv",
        help="score on this file instead of a held-out part",
    )
    score.add_argument("--text", default="", metavar="COLUMN", help="column with the messages")
    score.add_argument("--label", default="", metavar="COLUMN", help="column with the intents")
    score.add_argument(
        "--held-out",
        type=decimal(0, 1, above=True),
        default=0.2,
        metavar="SHARE",
        help="share of messages to score on, without --test (default: %(default)s)",
    )
    score.add_argument(
        "--shots",
        type=integer(1, 1_000_000),
        metavar="N",
        help="train on N examples for each intent only",
    )
    held_out = score.add_argument(
        "--hold-out-intents",
        type=decimal(0, 1),
        default=0.0,
        metavar="SHARE",
        help="leave a share of the intents out of training, as unknown intents (default: 0)",
    )
    add_old_name(score, "--hold-intents", held_out)
    score.add_argument(
        "--embeddings",
        action="store_true",
        help="use a classifier on sentence embeddings where n-grams are not sure",
    )
    score.add_argument(
        "--embedding-model",
        default="",
        metavar="FOLDER",
        help="model of the embeddings (default: the installed package)",
    )
    score.add_argument(
        "--threshold",
        type=decimal(0, 1),
        metavar="SHARE",
        help="confidence from which it answers (default: the calibrated one)",
    )
    score.add_argument(
        "--worst",
        type=integer(0, 1_000_000),
        default=10,
        metavar="N",
        help="number of confusions to show (default: %(default)s)",
    )
    score.add_argument(
        "--seed",
        type=integer(0, 2**63 - 1),
        default=0,
        metavar="N",
        help="seed of all random choices (default: %(default)s)",
    )
    add_json(score, "print the scores as one JSON object")
    score.set_defaults(run=_score)
    _add_convert(commands)


def _add_train(commands: "Commands[Parser]") -> None:
    parser = commands.add_parser(
        "train",
        help="train the classifier of a configuration and store it in a file",
        description="Train the classifier on the examples of a configuration and store it in the "
        "file that routing.classifier_cache names, so that no process has to train when it "
        "starts. A file that already matches the examples is left as it is.",
    )
    parser.add_argument("file", type=Path, metavar="FILE.toml", help="the configuration")
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FILE.npz",
        help="file to store it in (default: routing.classifier_cache)",
    )
    parser.set_defaults(run=_train)


def _add_convert(commands: "Commands[Parser]") -> None:
    parser = commands.add_parser(
        "convert",
        help="convert the embedding model to 8 bits for onnxruntime",
        description="Convert the embedding model to 8-bit weights, which onnxruntime computes for "
        "a fraction of the processor time, with nearly the same embeddings. Name the folder as "
        "routing.embedding_model. Needs the extra onnx.",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="folder to write")
    parser.add_argument(
        "--embedding-model",
        default="",
        metavar="FOLDER",
        help="model to convert (default: the installed package)",
    )
    parser.set_defaults(run=_convert)


def _convert(arguments: argparse.Namespace) -> int:
    from seawall.intents.embedder import find_model  # noqa: PLC0415 - only what it needs
    from seawall.intents.onnx_export import export  # noqa: PLC0415

    source = find_model(arguments.embedding_model)
    size = export(source, arguments.out)
    sys.stdout.write(f"{arguments.out}: {size / 1e6:.0f} MB of 8-bit weights\n")
    return 0


def _progress(text: str) -> None:
    print_line(f"{text} ...")


def _train(arguments: argparse.Namespace) -> int:
    from seawall.config import load_settings  # noqa: PLC0415 - only what this command needs
    from seawall.intents.open import open_embedder  # noqa: PLC0415
    from seawall.intents.training import load_or_train  # noqa: PLC0415

    settings = load_settings(arguments.file)
    routing = settings.routing
    out = arguments.out or (Path(routing.classifier_cache) if routing.classifier_cache else None)
    if out is None:
        raise ConfigError(
            f"{arguments.file}: routing.classifier_cache is not set; set it, or give --out"
        )
    examples = [(text, name) for name, each in settings.intents.items() for text in each.examples]
    if len({name for _, name in examples}) < 2:
        raise ConfigError(f"{arguments.file}: at least two intents with examples are needed")
    embedder = (
        open_embedder(routing.embedding_model) if routing.classifier == "embeddings" else None
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
    from seawall.intents.evaluation import (  # noqa: PLC0415
        auroc,
        certainty_of_intent,
        evaluate,
        precision_with_unknown,
    )
    from seawall.intents.open import open_embedder  # noqa: PLC0415
    from seawall.intents.training import train_calibrated  # noqa: PLC0415

    _check(arguments)
    training, testing, unknown = _data(arguments)

    _progress(f"{len(training.texts)} messages to train on, {len(testing.texts)} to score on")
    trained = train_calibrated(
        training.texts,
        training.labels,
        embedder=open_embedder(arguments.embedding_model) if arguments.embeddings else None,
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
                f"With {_UNKNOWN_SHARE:.0%} of such messages, {unknown_precision:.2%} of answers "
                "are right.\n"
            )
    return 0


def _check(arguments: argparse.Namespace) -> None:
    for name, low, high in (("held_out", 0.0, 1.0), ("hold_out_intents", -1.0, 1.0)):
        value = getattr(arguments, name)
        if not low < value < high or value < 0:
            raise ConfigError(f"--{name.replace('_', '-')} must be a share between 0 and 1")


def _data(arguments: argparse.Namespace) -> "tuple[Labelled, Labelled, Labelled]":
    """Messages for training, for scoring, and of intents that are left out of training."""
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
        .permutation(names)[: round(len(names) * arguments.hold_out_intents)]
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
