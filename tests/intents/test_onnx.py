"""The embedding model with 8-bit weights beside the one with 32."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from seawall.cli.main import main
from seawall.errors import ConfigError
from seawall.intents import IntentDefinition
from seawall.intents.cascade import build_detector
from seawall.intents.embedder import Embedder, SentenceEmbedder, find_model
from seawall.intents.open import open_embedder
from tests.parts import require
from tests.parts.models import missing_onnx

TEXTS = [each["text"] for each in json.loads((Path(__file__).parent / "minilm.json").read_text())]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    require(missing_onnx())
    out = tmp_path_factory.mktemp("onnx") / "model"
    assert main(["intents", "convert", "--out", str(out)]) == 0
    return out


@pytest.fixture(scope="module")
def rounded(folder: Path) -> SentenceEmbedder:
    return open_embedder(str(folder))


def test_embeddings_are_nearly_those_of_32_bits(rounded: SentenceEmbedder, folder: Path) -> None:
    whole = Embedder(find_model(""))
    assert rounded.size == whole.size
    assert rounded.digest != whole.digest  # what was trained with the other is trained anew
    found, reference = rounded(TEXTS), whole(TEXTS)
    assert np.linalg.norm(found, axis=1) == pytest.approx(1.0, abs=1e-5)
    cosines = (found * reference).sum(axis=1)
    assert cosines.min() > 0.96
    assert cosines.mean() > 0.98
    near = reference @ reference.T
    assert np.corrcoef(near.ravel(), (found @ found.T).ravel())[0, 1] > 0.99
    assert (folder / "model.onnx").stat().st_size < 30e6


def test_a_text_is_embedded_the_same_among_others(rounded: SentenceEmbedder) -> None:
    many = TEXTS * 9
    together = rounded(many)
    alone = np.concatenate([rounded([text]) for text in TEXTS])
    assert together.shape == (len(many), rounded.size)
    assert (together[: len(TEXTS)] == alone).all()
    assert rounded([]).shape == (0, rounded.size)
    assert (rounded(["a b " * 100]) == rounded(["a b " * 2_000])).all()


async def test_words_that_no_example_has(folder: Path) -> None:
    said = {
        "status": ("where is my order", "has my parcel been sent", "track my delivery"),
        "cancel": ("cancel my order", "stop this purchase", "call it off"),
        "hours": ("when are you open", "opening hours", "are you closed on Sunday"),
    }
    definitions = [IntentDefinition(name, examples=texts) for name, texts in said.items()]
    detector = build_detector(definitions, threshold=0.5, embedding_model=str(folder))
    found = await detector.detect("at what time does the shop shut?", deadline=0.0)
    detector.close()
    assert (found.intent, found.by) == ("hours", "embeddings")


def test_mistakes(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    convert = ["intents", "convert", "--out", str(tmp_path / "out")]
    assert main([*convert, "--embedding-model", str(folder)]) == 2
    assert "has no model.safetensors to convert" in capsys.readouterr().err
    for name in ("config.json", "vocab.txt"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    (tmp_path / "model.onnx").write_bytes(b"no model")
    with pytest.raises(ConfigError, match="is not a model"):
        open_embedder(str(tmp_path))
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ConfigError, match=r"pip install 'seawall\[onnx\]'"):
        open_embedder(str(folder))
    monkeypatch.setitem(sys.modules, "onnx", None)
    assert main(convert) == 2
    assert "pip install 'seawall[onnx]'" in capsys.readouterr().err
