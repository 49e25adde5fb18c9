"""Sentence embeddings by onnxruntime with 8-bit weights: the extra `onnx`."""

from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from seawall.errors import ConfigError
from seawall.intents.embedder import MAX_TOKENS, Array, one_thread
from seawall.intents.features import MAX_CHARACTERS
from seawall.intents.wordpiece import WordPiece

__all__ = ["OnnxEmbedder"]


class OnnxEmbedder:
    """The same embeddings as `Embedder`, rounded, for about a third of the processor time.

    Attributes:
        digest: Identifies the model.
        size: Length of an embedding.
    """

    def __init__(self, folder: Path) -> None:
        """Load the model.

        Args:
            folder: As `seawall intents convert` writes it.

        Raises:
            ConfigError: It is not such a model, or onnxruntime is not installed.
        """
        try:
            import onnxruntime  # noqa: PLC0415 - an extra
        except ImportError as error:
            raise ConfigError(
                f"{folder}: this model needs an extra that is not installed; "
                "pip install 'seawall[onnx]'"
            ) from error
        one_thread()
        options = onnxruntime.SessionOptions()
        # One thread, as in `Embedder`: the products are too small to share.
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        try:
            model = (folder / "model.onnx").read_bytes()
            config = msgspec.json.decode((folder / "config.json").read_bytes())
            vocabulary = (folder / "vocab.txt").read_text(encoding="utf-8").split("\n")
            self._tokens = WordPiece(vocabulary)
            self.size = int(config["hidden_size"])
        except OSError as error:
            raise ConfigError(f"{folder}: cannot be read: {error}") from error
        except (msgspec.DecodeError, UnicodeDecodeError, KeyError) as error:
            raise ConfigError(f"{folder}: is not a model: {error}") from error
        try:
            self._session: Any = onnxruntime.InferenceSession(
                model, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime's own have no base in common
            raise ConfigError(f"{folder}: is not a model: {error}") from error
        self.digest = sha256(model).hexdigest()

    def knows(self, word: str) -> bool:
        """Whether the word, in lower case, is in the model's vocabulary as a whole."""
        return self._tokens.knows(word)

    def __call__(self, texts: Sequence[str]) -> Array:
        """Embeddings, one row a text. Texts are cut at 2,000 characters and 128 tokens."""
        tokens = [self._tokens(text[:MAX_CHARACTERS], MAX_TOKENS) for text in texts]
        rows = np.empty((len(texts), self.size), np.float32)
        for row, text in enumerate(tokens):  # together they are not cheaper: see `onnx_export`
            rows[row] = self._embed(text)
        return rows

    def _embed(self, text: Sequence[int]) -> Array:
        (hidden,) = self._session.run(None, {"tokens": np.array([text], np.int64)})
        total: Array = hidden[0].sum(axis=0)
        return total / np.float32(np.linalg.norm(total))
