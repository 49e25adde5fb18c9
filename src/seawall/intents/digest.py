"""What a trained classifier was trained from, in one short text."""

from collections.abc import Sequence
from hashlib import sha256

__all__ = ["FORMAT", "digest"]

FORMAT = 2
"""Of features, training, calibration and file together; a change of any must change it.

1: n-grams and head. 2: certainty, the embeddings of examples; misspelt words are corrected.
"""


def digest(texts: Sequence[str], labels: Sequence[str], embedding: str = "") -> str:
    """Identifies version, examples, and the embedding model by its own digest."""
    hashed = sha256(f"{FORMAT}\0{embedding}".encode())
    for text, label in zip(texts, labels, strict=True):
        pair = f"{len(text)}\0{len(label)}\0{text}{label}"
        hashed.update(pair.encode("utf-8", "surrogatepass"))
    return hashed.hexdigest()
