"""Vectors of passages: stored beside them, and compared one by one with that of a question."""

import sqlite3
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from seawall.intents.embedder import SentenceEmbedder
from seawall.knowledge.passages import Passage, split_text

__all__ = ["PassageVectors", "passage_vectors"]

_WINDOW_CHARACTERS = 480  # about 128 tokens with the heading: what the model reads at once


def passage_vectors(
    embedder: SentenceEmbedder, title: str, passages: Sequence[Passage]
) -> list[bytes]:
    """The vectors of each passage, of 16 bits: one for each part that the model reads at once.

    Args:
        embedder: The model.
        title: Of the document.
        passages: Its passages.
    """
    texts: list[str] = []
    counts: list[int] = []
    for passage in passages:
        heading = passage.section.rpartition(" > ")[2] or title
        parts = list(split_text(passage.text, size=_WINDOW_CHARACTERS, overlap=0))
        texts += [f"{heading}\n{part}" for part in parts]
        counts.append(len(parts))
    rows = embedder(texts).astype(np.float16) if texts else np.empty((0, embedder.size), np.float16)
    ends = np.cumsum(counts).tolist()
    return [rows[end - count : end].tobytes() for end, count in zip(ends, counts, strict=True)]


class PassageVectors:
    """All vectors of an index, in memory."""

    def __init__(self, opened: sqlite3.Connection, size: int) -> None:
        """Read them.

        Args:
            opened: The index.
            size: Length of a vector.

        Raises:
            sqlite3.Error: The index is damaged.
        """
        rows = opened.execute("SELECT passage, value FROM vectors ORDER BY passage").fetchall()
        if not all(
            isinstance(each, bytes) and each and not len(each) % (2 * size) for _, each in rows
        ):
            raise sqlite3.DatabaseError("is damaged: a vector has another length")
        data = b"".join(value for _, value in rows)
        self._vectors: NDArray[np.float32] = (
            np.frombuffer(data, np.float16).reshape(-1, size).astype(np.float32)
        )
        counts = [len(value) // (2 * size) for _, value in rows]
        self._passages = np.array([passage for passage, _ in rows], np.int64)
        self._starts = np.concatenate(([0], np.cumsum(counts)[:-1])).astype(np.int64)

    def nearest(self, vector: NDArray[np.float32], count: int) -> list[int]:
        """The passages whose nearest part is nearest to a vector, nearest first.

        Args:
            vector: Of unit length, as theirs are.
            count: How many, at most.
        """
        if not len(self._passages):
            return []
        scores = np.maximum.reduceat(self._vectors @ vector, self._starts)
        # Rounded, so that the order does not depend on how a processor adds up.
        order = np.lexsort((self._passages, -np.round(scores, 5)))[:count]
        found: list[int] = self._passages[order].tolist()
        return found
