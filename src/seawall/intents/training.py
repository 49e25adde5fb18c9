"""Training: from examples to a calibrated classifier, kept in a file if one is given."""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from seawall.intents.blend import BlendedClassifier, LinearHead, Neighbours
from seawall.intents.calibration import calibrate
from seawall.intents.classifier import train
from seawall.intents.embedder import SentenceEmbedder
from seawall.intents.features import FORMAT, digest
from seawall.intents.saved import TrainedClassifier, format_of, read, write

__all__ = ["load_or_train", "train_calibrated"]

_SLOW_SECONDS = 2.0

_log = logging.getLogger("seawall.intents")


def train_calibrated(
    texts: Sequence[str],
    labels: Sequence[str],
    *,
    embedder: SentenceEmbedder | None = None,
    seed: int = 0,
    progress: Callable[[str], None] = lambda _: None,
) -> TrainedClassifier:
    """Train on all examples, calibrated by cross-validation.

    Args:
        texts: The examples.
        labels: The intent of each.
        embedder: For the second step; None for n-grams only.
        seed: Of everything random.
        progress: Called with what is being done.
    """
    embeddings = None
    if embedder is not None:
        progress("embedding")
        embeddings = embedder(texts)
    calibration = calibrate(
        texts, labels, seed=seed, embedder=embedder, embeddings=embeddings, progress=progress
    )
    progress("training on everything")
    ngrams = train(texts, labels, seed=seed)
    ngrams.temperature = calibration.temperature
    ngrams.certainty = calibration.first_certainty
    if embedder is None or embeddings is None:
        return TrainedClassifier(ngrams, calibration.first_threshold, calibration.threshold)
    targets, classes = ngrams.positions(labels), len(ngrams.labels)
    blended = BlendedClassifier(
        ngrams,
        embedder,
        LinearHead.fit(embeddings, targets, classes),
        Neighbours.of(embeddings, targets, classes),
        weights=calibration.weights,
        certainty=calibration.certainty,
    )
    return TrainedClassifier(ngrams, calibration.first_threshold, calibration.threshold, blended)


def load_or_train(
    texts: Sequence[str],
    labels: Sequence[str],
    *,
    cache: Path | None,
    embedder: SentenceEmbedder | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> TrainedClassifier:
    """Load the classifier that was trained on exactly these examples, or train and save it.

    Of several processes that start at once one trains, the others wait and load. A file that cannot
    be written costs time, nothing else.

    Args:
        texts: The examples.
        labels: The intent of each.
        cache: The file; None for none.
        embedder: For the second step; None for n-grams only.
        progress: Called with what is being done.
    """
    if cache is None:
        return _trained(texts, labels, embedder, progress, "set routing.classifier_cache")
    key = digest(texts, labels, embedder.digest if embedder else "")
    if (found := read(cache, key, embedder)) is not None:
        return found
    with _file_lock(cache):
        if (found := read(cache, key, embedder)) is not None:
            return found
        if cache.exists():
            found_format = format_of(cache)
            if found_format not in (FORMAT, None):
                _log.warning(
                    "%s is of format %d, and this version of Seawall reads %d; training again. Run "
                    "`seawall intents train` again where the file is shipped",
                    *(cache, found_format, FORMAT),
                )
            else:
                _log.warning("%s does not fit the examples; training again", cache)
        trained = _trained(texts, labels, embedder, progress, f"kept in {cache}")
        try:
            write(cache, key, trained)
        except OSError as error:
            _log.warning("the classifier cannot be kept in %s: %s", cache, error)
    return trained


def _trained(
    texts: Sequence[str],
    labels: Sequence[str],
    embedder: SentenceEmbedder | None,
    progress: Callable[[str], None],
    advice: str,
) -> TrainedClassifier:
    began = time.monotonic()
    trained = train_calibrated(texts, labels, embedder=embedder, progress=progress)
    took = time.monotonic() - began
    if took > _SLOW_SECONDS:
        _log.warning("training on %d examples of intents took %.1f s; %s", len(texts), took, advice)
    return trained


@contextmanager
def _file_lock(cache: Path) -> Iterator[None]:
    """Hold a lock beside the file, if the system has locks and the folder can be written."""
    lock: BinaryIO | None = None
    with suppress(ImportError, OSError):
        import fcntl  # noqa: PLC0415 - not everywhere

        lock = cache.with_name(f"{cache.name}.lock").open("ab")
        fcntl.flock(lock, fcntl.LOCK_EX)
    try:
        yield
    finally:
        if lock is not None:
            lock.close()
