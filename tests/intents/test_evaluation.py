import json
from pathlib import Path

import pytest

from seawall.cli.main import main
from seawall.errors import ConfigError
from seawall.intents.classifier import train
from seawall.intents.evaluation import Labelled, auroc, evaluate, few_shot, read_labelled, split
from tests.parts import data_file


class Parrot:
    """Returns the answers that it is given."""

    def __init__(self, answers: dict[str, tuple[str, float]]) -> None:
        self._answers = answers

    def best(self, text: str) -> tuple[str, float]:
        return self._answers[text]


def test_the_scores_by_hand() -> None:
    labelled = Labelled(("1", "2", "3", "4"), ("a", "a", "b", "b"))
    parrot = Parrot({"1": ("a", 0.95), "2": ("b", 0.55), "3": ("b", 0.95), "4": ("b", 1.0)})
    result = evaluate(parrot, labelled, threshold=0.9)
    assert result.accuracy == 0.75
    # F1 of a: precision 1, recall 1/2; of b: precision 2/3, recall 1.
    assert result.macro_f1 == pytest.approx((2 / 3 + 4 / 5) / 2)
    assert (result.coverage, result.precision) == (0.75, 1.0)
    assert [(each.low, each.count, each.accuracy) for each in result.reliability] == [
        (0.5, 1, 0.0),
        (0.9, 3, 1.0),
    ]
    assert result.calibration_error == pytest.approx((0.55 + 0.05 + 0.05 + 0.0) / 4)
    assert [(each.intent, each.taken_for) for each in result.confusions] == [("a", "b")]


def test_auroc_by_hand() -> None:
    assert auroc([0.9, 0.8], [0.1, 0.2]) == 1.0
    assert auroc([0.1], [0.9]) == 0.0
    assert auroc([0.5, 0.9], [0.5, 0.1]) == (0.5 + 1 + 1 + 1) / 4


def test_parts_are_disjoint_and_fair() -> None:
    labelled = Labelled(
        tuple(str(each) for each in range(100)), tuple("abcde"[each % 5] for each in range(100))
    )
    training, testing = split(labelled, held_out=0.25, seed=3)
    assert sorted([*training.texts, *testing.texts], key=int) == list(labelled.texts)
    assert {name: testing.labels.count(name) for name in "abcde"} == dict.fromkeys("abcde", 5)
    assert few_shot(labelled, 3, seed=1).labels.count("a") == 3
    assert few_shot(labelled, 3, seed=1) == few_shot(labelled, 3, seed=1)


@pytest.mark.parametrize(
    ("content", "because"),
    [
        ("", 'there is no column "text"'),
        ("text,label\n", "has no rows"),
        ("text,label\na,b\nc\n", "bad.csv:3: has 1 columns"),
        ('text,label\n"a', "bad.csv:2: is not CSV"),
    ],
)
def test_files_that_cannot_be_read(tmp_path: Path, content: str, because: str) -> None:
    path = tmp_path / "bad.csv"
    path.write_text(content)
    with pytest.raises(ConfigError, match=because):
        read_labelled(path)
    with pytest.raises(ConfigError, match="nothing"):
        path.write_text("text,label\na,b\n")
        read_labelled(path, label="nothing")


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "said.csv"
    shops = [f"shop {number}" for number in range(30)]
    rows = [f"where is my parcel for {shop},status" for shop in shops]
    rows += [f'"please cancel, now, {shop}",cancel' for shop in shops]
    path.write_text("said,what\n" + "\n".join(rows) + "\n")
    assert main(["intents", "eval", str(path), "--text", "said", "--label", "what"]) == 0
    shown = capsys.readouterr().out
    assert "accuracy          100.00%" in shown
    assert main(["intents", "eval", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["accuracy"] == 1.0
    assert main(["intents", "eval", str(tmp_path / "no.csv")]) == 2
    assert "cannot be read" in capsys.readouterr().err


def test_few_examples_of_banking77_beat_the_linear_svm() -> None:
    """The field's few-shot benchmark: TF-IDF and a linear SVM reach 73.0 %.

    Without calibration, which takes five more trainings and changes no answer.
    """
    training, testing = (
        read_labelled(data_file(f"banking77_{part}.csv")) for part in ("train", "test")
    )
    few = few_shot(training, 10, seed=0)
    result = evaluate(train(few.texts, few.labels), testing, threshold=1.0)
    assert result.messages == 3_080
    assert result.accuracy > 0.73
