"""Sets of questions with the documents that answer them, as folders."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from msgspec import Struct

from seawall.knowledge.html import read_html

__all__ = ["QuestionSet", "own_docs", "python_docs", "xquad"]

_ROOT = Path(__file__).resolve().parents[2]
_PACKAGE = "python3.11-doc"


class QuestionSet(Struct, frozen=True):
    """Questions about a folder.

    Attributes:
        name: What it is.
        folder: The documents.
        questions: Each with the paths of the documents that answer it.
    """

    name: str
    folder: Path
    questions: list[tuple[str, frozenset[str]]]


def own_docs() -> QuestionSet:
    """The documentation of this project, with questions that were written before any search."""
    entries = json.loads(Path(__file__).with_name("docs_questions.json").read_text())
    questions = [(question, frozenset(pages)) for question, pages in entries]
    return QuestionSet("our documentation", _ROOT / "docs", questions)


def xquad(path: Path, folder: Path) -> QuestionSet:
    """A file of XQuAD: a document for each paragraph.

    Args:
        path: Such as xquad.en.json.
        folder: Where the documents are written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    questions: list[tuple[str, frozenset[str]]] = []
    number = 0
    for article in json.loads(path.read_text())["data"]:
        for paragraph in article["paragraphs"]:
            number += 1
            name = f"{number:04}.txt"
            (folder / name).write_text(paragraph["context"])
            asked = (each["question"] for each in paragraph["qas"])
            questions += ((each, frozenset({name})) for each in asked)
    return QuestionSet(path.stem, folder, questions)


def python_docs(work: Path, *, quick: bool) -> QuestionSet:
    """Python's documentation, with the questions of its FAQ, whose answers are documents.

    The headings of the FAQ are the questions and are in no document; the answers are among all
    other pages. The pages come from the Debian package python3.11-doc.

    Args:
        work: Where the package is unpacked.
        quick: Whether only a part of the other pages is there.
    """
    unpacked = work / _PACKAGE
    if not unpacked.is_dir():
        work.mkdir(parents=True, exist_ok=True)
        subprocess.run(["apt-get", "download", _PACKAGE], cwd=work, check=True)
        (package,) = work.glob(f"{_PACKAGE}_*.deb")
        subprocess.run(["dpkg", "-x", package, unpacked], check=True)
    pages = unpacked / "usr/share/doc/python3.11/html"
    folder = work / ("python-quick" if quick else "python")
    shutil.rmtree(folder, ignore_errors=True)
    for page in pages.rglob("*.html"):
        path = page.relative_to(pages)
        left_out = path.parts[0] in ("faq", "_sources", "_static")
        if quick and path.parts[0] not in ("tutorial", "howto"):
            left_out = True
        if left_out or path.stem.startswith("genindex"):
            continue
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(page, folder / path)
    questions = list(_answers(pages / "faq", folder / "faq"))
    return QuestionSet("Python's FAQ", folder, questions)


def _answers(faq: Path, folder: Path) -> Iterator[tuple[str, frozenset[str]]]:
    """Write an answer for each question."""
    folder.mkdir(parents=True, exist_ok=True)
    number = 0
    for page in sorted(faq.glob("*.html")):
        for section in read_html(page.read_text()).sections:
            question = section.headings[-1] if section.headings else ""
            if question.endswith("?"):
                number += 1
                (folder / f"{number:03}.txt").write_text(section.text)
                yield question, frozenset({f"faq/{number:03}.txt"})
