"""Searches of an index: what is found, in which order, by whom at once."""

import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from seawall.errors import ConfigError
from seawall.knowledge.search import IndexSearch, SearchTooSlow, match_expression
from seawall.knowledge.settings import KnowledgeSettings
from tests.knowledge.folders import build, built, found, write
from tests.properties import examples

SHOP: dict[str, str | bytes] = {
    "returns.md": "# Returns\n\nGoods come back within 30 days.\n\n## Costs\n\nSending is free.",
    "hours.md": "# Hours\n\nThe shop is open from nine to five.",
    "jobs.md": "# Work with us\n\nWe look for a cook.",
}


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> KnowledgeSettings:
    return built(tmp_path_factory.mktemp("shop") / "docs", SHOP)


def test_the_best_passage_comes_first_with_its_place(shop: KnowledgeSettings) -> None:
    first = found(shop, "What does sending goods cost?")[0]
    assert (first.path, first.title, first.section, first.anchor, first.text) == (
        "returns.md", "Returns", "Costs", "costs", "Sending is free.",
    )  # fmt: skip
    assert [each.path for each in found(shop, "when does it open?")] == ["hours.md"]
    assert found(shop, "quantum") == []


words = st.integers(0, 25**4 - 1).map(
    lambda number: "".join(chr(98 + number // 25**place % 25) for place in range(4)) + "q"
)


@given(
    st.lists(st.lists(words, min_size=1, max_size=60), min_size=1, max_size=5),
    st.sampled_from(["unicode", "porter", "trigram"]),
)
@examples(40, 1_000)
def test_every_passage_is_found_by_a_word_that_only_it_has(
    tmp_path_factory: pytest.TempPathFactory, texts: list[list[str]], tokenizer: str
) -> None:
    files: dict[str, str | bytes] = {
        f"{number}.txt": " ".join(each) for number, each in enumerate(texts)
    }
    more = {"passage_characters": 200, "overlap_characters": 0, "tokenizer": tokenizer}
    settings = built(tmp_path_factory.mktemp("words") / "docs", files, **more)
    search = IndexSearch(Path(settings.index))
    try:
        for number, each in enumerate(texts):
            others = " ".join(word for other in texts if other is not each for word in other)
            rare = next((word for word in each if is_rare(word, each, others, tokenizer)), None)
            if rare is not None:
                first = search.search(rare, 1)[0]
                assert (first.path, rare in first.text) == (f"{number}.txt", True)
                assert len(first.text) <= 200
    finally:
        search.close()


def is_rare(word: str, text: list[str], others: str, tokenizer: str) -> bool:
    """Whether only this text has the word, once; for trigrams, also what it is found by."""
    if tokenizer == "trigram" and any(word[at : at + 3] in others for at in range(len(word) - 2)):
        return False
    return text.count(word) == 1 and word not in others


HOSTILE = (
    *('"', '""', "'", "*", "a*", "NEAR(a b)", "heading:x", "-x", "^a", "a AND", "OR", "NOT"),
    *("(" * 999, "{a b}:c", "\0", "a\0b", "\ud800", "; DROP TABLE words", "\\", "a" * 10_000),
    *("\U0001f4a5", "\u202e", "%", "_", "ÀÉÎ", "\ufb01", "\u0130", "ß", "零", "é" * 500, ""),
    " ".join(map(str, range(5_000))),
)  # fmt: skip


@pytest.mark.parametrize("question", HOSTILE, ids=range(len(HOSTILE)))
def test_no_question_is_an_error(shop: KnowledgeSettings, question: str) -> None:
    assert len(found(shop, question)) <= 5


@given(st.text(), st.sampled_from(["unicode", "porter", "trigram"]))
def test_nothing_in_a_question_is_syntax(shop: KnowledgeSettings, text: str, kind: str) -> None:
    found(shop, text)
    expression = match_expression(text, kind)
    terms = expression.split(" OR ") if expression else []
    assert len(terms) <= 64
    assert all(each[0] == each[-1] == '"' and '"' not in each[1:-1] for each in terms)


def test_accents_and_case_do_not_matter_and_stems_do_if_asked(tmp_path: Path) -> None:
    files: dict[str, str | bytes] = {"a.txt": "Crème brûlée", "b.txt": "refunded orders"}
    settings = built(tmp_path / "plain", files)
    assert [each.path for each in found(settings, "CREME")] == ["a.txt"]
    assert found(settings, "refunds") == []
    stems = built(tmp_path / "stems", files, tokenizer="porter")
    assert [each.path for each in found(stems, "refunds order")] == ["b.txt"]


def test_languages_without_spaces(tmp_path: Path) -> None:
    files: dict[str, str | bytes] = {
        "a.txt": "我们的退款政策是三十天内退货。",
        "b.txt": "商店每天九点开门。",
    }
    settings = built(tmp_path / "docs", files, tokenizer="trigram")
    assert found(settings, "退款政策是什么")[0].path == "a.txt"
    assert found(settings, "每天九点")[0].path == "b.txt"
    assert found(settings, "退货") == []  # of fewer than three characters


def test_words_that_most_passages_have_change_nothing_but_the_time(tmp_path: Path) -> None:
    files: dict[str, str | bytes] = {
        f"{number}.txt": f"the one and the word{number % 7}" for number in range(20)
    }
    settings = built(tmp_path / "docs", files)
    assert match_expression("the word3", "unicode", {"the"}) == '"word3"'
    assert match_expression("the", "unicode", {"the"}) == '"the"'
    with_it, without = found(settings, "the word3", 3), found(settings, "word3", 3)
    assert [each.path for each in with_it] == [each.path for each in without]
    assert len(found(settings, "the", 20)) == 7  # texts that are equal are shown once


def test_a_replaced_index_is_used_by_the_next_search(tmp_path: Path) -> None:
    settings = built(tmp_path / "docs", {"a.txt": "before"})
    search = IndexSearch(Path(settings.index))
    assert search.search("before", 1)
    write(tmp_path / "docs", {"a.txt": "after"})
    build(settings)
    assert search.search("before", 1) == []
    assert search.search("after", 1)[0].text == "after"
    Path(settings.index).unlink()
    with pytest.raises(OSError, match="No such file"):
        search.search("after", 1)
    search.close()


def test_an_index_that_is_overwritten_in_place_ends_no_process(tmp_path: Path) -> None:
    files: dict[str, str | bytes] = {f"{n}.txt": f"word{n} common text " * 50 for n in range(100)}
    settings = built(tmp_path / "docs", files)
    index = Path(settings.index)
    whole = index.read_bytes()
    search = IndexSearch(index)
    assert search.search("word7", 1)[0].path == "7.txt"
    for length in (0, 100, 4_096, len(whole) // 2):
        index.write_bytes(whole[:length])
        with pytest.raises((sqlite3.Error, OSError)):
            search.search("word99 common text", 20)
    index.write_bytes(whole)
    assert search.search("word7", 1)[0].path == "7.txt"
    search.close()


def test_many_threads_search_while_the_index_is_replaced(tmp_path: Path) -> None:
    files: dict[str, str | bytes] = {f"{n}.txt": f"word{n} common text" for n in range(50)}
    settings = built(tmp_path / "docs", files)
    search = IndexSearch(Path(settings.index))
    over = threading.Event()

    def work(number: int) -> int:
        count = 0
        while not over.is_set() or not count:
            (first,) = search.search(f"word{number}", 1)
            assert first.path == f"{number}.txt"
            count += 1
        return count

    with ThreadPoolExecutor(4) as threads:
        running = [threads.submit(work, number) for number in range(4)]
        for _ in range(3):
            build(settings)
        over.set()
        assert all(each.result() for each in running)
    search.close()


def test_a_search_ends_at_its_time_limit(tmp_path: Path) -> None:
    files: dict[str, str | bytes] = {"a.txt": "some words again. " * 60_000}
    settings = built(tmp_path / "docs", files, passage_characters=200, overlap_characters=0)
    search = IndexSearch(Path(settings.index), seconds=0.0)
    with pytest.raises(SearchTooSlow, match="took more than 0 s"):
        search.search("some words again", 5)
    search.close()


class _Embedder:
    """Vectors by hand: one direction for each topic that a text has a word of."""

    size = 4
    topics = (("money", "refund", "cash"), ("time", "hours", "open"), ("job", "cook"))

    def __init__(self, digest: str = "by-hand") -> None:
        self.digest = digest

    def knows(self, _: str) -> bool:
        return True

    def __call__(self, texts: object) -> NDArray[np.float32]:
        assert isinstance(texts, list)
        rows = np.full((len(texts), 4), 0.01, np.float32)
        for row, text in zip(rows, texts, strict=True):
            for index, words in enumerate(self.topics):
                row[index] += sum(word in text.lower() for word in words)
        normed: NDArray[np.float32] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        return normed


def test_vectors_find_what_words_do_not(tmp_path: Path) -> None:
    files: dict[str, str | bytes] = {
        "a.txt": "You get your cash back.",
        "b.txt": "Open daily.",
        "c.txt": "We need a cook.",
    }
    settings = built(tmp_path / "docs", files)
    assert found(settings, "refund please") == []
    embedder = _Embedder()
    first = build(settings, embedder=embedder)
    assert (first.read, build(settings, embedder=embedder).read) == (3, 0)
    index = Path(settings.index).read_bytes()
    build(settings, embedder=embedder, anew=True)
    assert Path(settings.index).read_bytes() == index
    search = IndexSearch(Path(settings.index), open_embedder=lambda: embedder)
    search.open(vectors=True)
    assert search.search("refund please", 1)[0].path == "a.txt"
    both = search.search("cook and money", 3)
    assert both[0].path == "c.txt"  # by its word and by its meaning
    assert both == search.search("cook and money", 3)
    search.close()
    other = IndexSearch(Path(settings.index), open_embedder=lambda: _Embedder("other"))
    with pytest.raises(ConfigError, match="has embeddings of another model"):
        other.open(vectors=True)
    other.close()


@pytest.mark.parametrize("kind", ["unicode", "porter", "trigram"])
def test_vowels_that_are_marks_are_of_their_words(tmp_path: Path, kind: str) -> None:
    """Hindi writes vowels as marks: without them all words have the same few letters."""
    files: dict[str, str | bytes] = {
        "a.txt": "\u0938\u093e\u092e\u093e\u0928 \u0935\u093e\u092a\u0938",  # goods back
        "b.txt": "\u0938\u092e\u092f \u0938\u0941\u092c\u0939 \u0928\u094c",  # time morning nine
    }
    settings = built(tmp_path / "docs", files, tokenizer=kind)
    for question, path in (
        ("\u0938\u093e\u092e\u093e\u0928", "a.txt"),
        ("\u0938\u0941\u092c\u0939", "b.txt"),
    ):
        assert [each.path for each in found(settings, question)] == [path]
    assert found(settings, "\u0938\u0940\u092e\u093e \u0928\u093f\u0938\u0947") == []  # other words


def test_loading_vectors_is_not_within_the_time_of_a_search(tmp_path: Path) -> None:
    files: dict[str, str | bytes] = {f"{n}.txt": f"cash{n} " * 2_500 for n in range(60)}
    settings = built(tmp_path / "docs", files, passage_characters=200, overlap_characters=0)
    embedder = _Embedder()
    assert build(settings, embedder=embedder).passages > 4_000
    search = IndexSearch(Path(settings.index), seconds=0.0, open_embedder=lambda: embedder)
    assert search.search("refund please", 1)
    search.close()


@pytest.mark.parametrize("value", ["NULL", "''", "x''", "x'00'", "'text'"])
def test_vectors_that_are_damaged_are_said(tmp_path: Path, value: str) -> None:
    embedder = _Embedder()
    settings = built(tmp_path / "docs", {"a.txt": "one", "b.txt": "two"})
    build(settings, embedder=embedder)
    with closing(sqlite3.connect(settings.index)) as opened, opened:
        opened.execute("CREATE TABLE other (passage INTEGER PRIMARY KEY, value)")
        opened.execute(f"INSERT INTO other SELECT passage, {value} FROM vectors")
        opened.execute("DROP TABLE vectors")
        opened.execute("ALTER TABLE other RENAME TO vectors")
    search = IndexSearch(Path(settings.index), open_embedder=lambda: embedder)
    with pytest.raises(ConfigError, match="is damaged: a vector has another length"):
        search.open(vectors=True)
    search.close()
