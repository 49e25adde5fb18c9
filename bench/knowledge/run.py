"""Recall and processor time of searches, beside bm25s and rank-bm25, over the same passages."""

import argparse
import json
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import bm25s
from msgspec import structs
from rank_bm25 import BM25Okapi
from sets import QuestionSet, own_docs, python_docs, xquad

from seawall.intents.open import open_embedder
from seawall.knowledge.build import build_index
from seawall.knowledge.index_file import connect
from seawall.knowledge.search import IndexSearch
from seawall.knowledge.settings import KnowledgeSettings

Search = Callable[[str], Sequence[str]]
"""The documents of the five best passages for a question."""

_FIRST = 5
_WORDS = {
    "FTS5": {},
    "FTS5, porter": {"tokenizer": "porter"},
    "FTS5, trigram": {"tokenizer": "trigram"},
}


def main() -> None:
    """Run all sets."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few pages and questions")
    parser.add_argument("--embeddings", action="store_true", help="also search by meaning")
    parser.add_argument(
        "--embedding-model", default="", metavar="FOLDER", help="default: the installed package"
    )
    parser.add_argument("--xquad", type=Path, action="append", default=[], metavar="FILE")
    parser.add_argument("--work", type=Path, help="folder that keeps indexes between runs")
    parser.add_argument("--no-python", action="store_true", help="without Python's documentation")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        work = arguments.work or Path(made)
        for each in _sets(arguments, work):
            model = arguments.embedding_model if arguments.embeddings else None
            _run(each, work, model=model, quick=arguments.quick)


def _sets(arguments: argparse.Namespace, work: Path) -> Iterator[QuestionSet]:
    yield own_docs()
    for path in arguments.xquad:
        yield xquad(path, work / path.stem)
    if not arguments.no_python:
        yield python_docs(work, quick=arguments.quick)


def _run(questions: QuestionSet, work: Path, *, model: str | None, quick: bool) -> None:
    asked = questions.questions[::10] if quick and len(questions.questions) > 500 else None
    asked = asked or questions.questions
    name = questions.folder.name
    settings = KnowledgeSettings(
        folder=str(questions.folder), index=str(work / f"{name}.knowledge"), overlap_characters=150
    )
    passages = build_index(name, settings).passages
    print(f"\n{questions.name}: {len(asked)} questions, {passages:,} passages")
    for system, made in _systems(name, settings, model).items():
        _report(system, made(), asked)


def _systems(
    name: str, settings: KnowledgeSettings, model: str | None
) -> dict[str, Callable[[], Search]]:
    systems: dict[str, Callable[[], Search]] = {}
    for label, options in _WORDS.items():
        systems[label] = partial(_ours, name, settings, options)
    for label in ("FTS5", "FTS5, porter") if model is not None else ():
        systems[f"{label}, and embeddings"] = partial(
            _ours, name, settings, _WORDS[label], model=model
        )
    systems["bm25s"] = partial(_bm25s, settings)
    systems["rank-bm25"] = partial(_rank_bm25, settings)
    return systems


def _ours(
    name: str, settings: KnowledgeSettings, options: dict[str, Any], *, model: str | None = None
) -> Search:
    index = f"{settings.index}-{'words' if model is None else 'vectors'}"
    settings = structs.replace(settings, index=index, embeddings=model is not None, **options)
    embedder = open_embedder(model) if model is not None else None
    build_index(name, settings, embedder=embedder)
    search = IndexSearch(
        Path(settings.index), open_embedder=(lambda: embedder) if embedder is not None else None
    )
    search.open(vectors=embedder is not None)
    return lambda question: [each.path for each in search.search(question, _FIRST)]


def _texts(settings: KnowledgeSettings) -> tuple[list[str], list[str]]:
    """The passages with their headings, and the document of each."""
    with closing(connect(Path(settings.index))) as opened:
        rows = _rows(opened)
    return [f"{title}\n{section}\n{text}" for _, title, section, text in rows], [r[0] for r in rows]


def _rows(opened: sqlite3.Connection) -> list[tuple[str, str, str, str]]:
    return opened.execute(
        "SELECT path, title, section, text FROM passages JOIN files ON files.id = file "
        "ORDER BY passages.id"
    ).fetchall()


def _bm25s(settings: KnowledgeSettings) -> Search:
    texts, paths = _texts(settings)
    model = bm25s.BM25()
    model.index(bm25s.tokenize(texts, stopwords="en", show_progress=False), show_progress=False)

    def search(question: str) -> list[str]:
        tokens = bm25s.tokenize([question], stopwords="en", show_progress=False)
        found, _ = model.retrieve(tokens, k=min(_FIRST, len(texts)), show_progress=False)
        return [paths[index] for index in found[0]]

    return search


def _rank_bm25(settings: KnowledgeSettings) -> Search:
    texts, paths = _texts(settings)
    model = BM25Okapi([text.lower().split() for text in texts])
    numbers = list(range(len(texts)))
    return lambda question: [
        paths[index] for index in model.get_top_n(question.lower().split(), numbers, n=_FIRST)
    ]


def _report(system: str, search: Search, questions: Sequence[tuple[str, frozenset[str]]]) -> None:
    search(questions[0][0])  # what is loaded with the first search is not counted
    began = time.process_time()
    found = [search(question) for question, _ in questions]
    took = (time.process_time() - began) / len(questions) * 1e3
    pairs = list(zip(found, (each for _, each in questions), strict=True))
    hits = sum(bool(right.intersection(paths)) for paths, right in pairs) / len(pairs)
    first = sum(bool(right.intersection(paths[:1])) for paths, right in pairs) / len(pairs)
    figures = {
        "system": system,
        "recall_at_5": round(hits, 3),
        "recall_at_1": round(first, 3),
        "cpu_ms": round(took, 2),
    }
    sys.stdout.write(json.dumps(figures) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
