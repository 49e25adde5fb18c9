"""Files of trained classifiers: arrays and names, no code."""

import os
import tempfile
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from seawall.intents.blend import BlendedClassifier, LinearHead, Neighbours
from seawall.intents.classifier import NgramClassifier
from seawall.intents.embedder import SentenceEmbedder
from seawall.intents.features import FORMAT
from seawall.intents.vectors import Vectoriser

__all__ = ["TrainedClassifier", "format_of", "read", "save", "write"]

_UNNAMED_FORMAT = 1
"""The format of files from before formats were written into them."""


class TrainedClassifier(Struct, frozen=True):
    """A trained classifier.

    Attributes:
        ngrams: The first step.
        first_threshold: The confidence from which the n-grams decide.
        threshold: The confidence from which the last step decides.
        blended: The second step, if there are embeddings.
    """

    ngrams: NgramClassifier
    first_threshold: float
    threshold: float
    blended: BlendedClassifier | None = None


def save(file: BinaryIO, key: str, trained: TrainedClassifier) -> None:
    """Write the content of a file.

    Raises:
        OSError: It cannot be written.
    """
    ngrams, blended = trained.ngrams, trained.blended
    arrays: dict[str, NDArray[np.generic]] = {
        "format": np.array([FORMAT]),
        "key": _packed([key]),
        "labels": _packed(ngrams.labels),
        "words": _packed(ngrams.vectorise.words),
        "letters": _packed(ngrams.vectorise.letters),
        "idf": ngrams.vectorise.idf,
        "weights": ngrams.weights,
        "numbers": np.array([ngrams.temperature, trained.first_threshold, trained.threshold]),
        "certainty": np.array(ngrams.certainty),
    }
    if blended is not None:
        arrays["head"] = blended.head.weights
        arrays["offset"] = blended.head.offset
        arrays["examples"] = blended.neighbours.rows
        arrays["targets"] = blended.neighbours.targets
        arrays["mix"] = np.array([*blended.weights, *blended.certainty])
    np.savez(file, allow_pickle=False, **arrays)


def write(path: Path, key: str, trained: TrainedClassifier) -> None:
    """Replace the file atomically.

    Raises:
        OSError: It cannot be written.
    """
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            save(file, key, trained)
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def format_of(path: Path) -> int | None:
    """The format of a file that any version wrote; None if it is no such file."""
    try:
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            if "format" in file:
                return int(file["format"][0])
            return _UNNAMED_FORMAT if "key" in file else None
    except (OSError, EOFError, TypeError, ValueError, KeyError, IndexError, zipfile.BadZipFile):
        return None


def read(path: Path, key: str, embedder: SentenceEmbedder | None) -> TrainedClassifier | None:
    """The classifier in a file; None if the file does not fit."""
    try:
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            if _unpacked(file["key"]) != [key]:
                return None
            vectorise = Vectoriser(
                _unpacked(file["words"]), _unpacked(file["letters"]), file["idf"]
            )
            labels = tuple(_unpacked(file["labels"]))
            if (len(vectorise), len(labels)) != file["weights"].shape:
                return None
            temperature, first_threshold, threshold = file["numbers"].tolist()
            ngrams = NgramClassifier(
                labels,
                vectorise,
                file["weights"],
                temperature=temperature,
                certainty=tuple(file["certainty"].tolist()),
            )
            if embedder is None:
                return TrainedClassifier(ngrams, first_threshold, threshold)
            head = LinearHead(file["head"], file["offset"])
            neighbours = Neighbours(file["examples"], file["targets"], len(labels))
            first, second, *certainty = file["mix"].tolist()
            blended = BlendedClassifier(
                ngrams,
                embedder,
                head,
                neighbours,
                weights=(first, second),
                certainty=tuple(certainty),
            )
            return TrainedClassifier(ngrams, first_threshold, threshold, blended)
    except (OSError, EOFError, TypeError, ValueError, KeyError, zipfile.BadZipFile):
        return None


def _packed(names: Iterable[str]) -> NDArray[np.uint8]:
    """Names, none with a NUL, as bytes: numpy would store each as long as the longest."""
    return np.frombuffer("\0".join(names).encode("utf-8", "surrogatepass"), np.uint8)


def _unpacked(packed: NDArray[np.uint8]) -> list[str]:
    return packed.tobytes().decode("utf-8", "surrogatepass").split("\0")
