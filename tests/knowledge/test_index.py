"""Indexes: what a build makes of a folder, and what it takes from the index before."""

import inspect
import os
import shutil
import sqlite3
import sys
from contextlib import closing, suppress
from pathlib import Path
from random import Random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from seawall.errors import ConfigError
from seawall.knowledge.document import Unreadable
from seawall.knowledge.index_file import FORMAT, IndexNote, connect, writing
from seawall.knowledge.reader import DocumentReader
from seawall.knowledge.search import IndexSearch, SearchTooSlow
from seawall.knowledge.settings import KnowledgeLimits, KnowledgeSettings
from seawall.knowledge.status import check_index
from seawall.knowledge.tool import answer
from tests.knowledge.folders import build, built, found, pdf, settings_of, write
from tests.properties import examples

TEXTS = st.dictionaries(
    st.sampled_from(["a.txt", "b.txt", "sub/c.txt", "sub/d.txt"]),
    st.text("abcdef \n.", min_size=1, max_size=400),
)


def content(settings: KnowledgeSettings) -> bytes:
    return Path(settings.index).read_bytes()


@given(TEXTS, TEXTS)
@examples(40, 1_000)
def test_an_index_after_changes_is_the_one_that_a_full_build_makes(
    tmp_path_factory: pytest.TempPathFactory,
    before: dict[str, str | bytes],
    after: dict[str, str | bytes],
) -> None:
    folder = tmp_path_factory.mktemp("folder") / "docs"
    more = {"passage_characters": 200, "overlap_characters": 20}
    built(folder, before, **more)
    shutil.rmtree(folder)
    settings = built(folder, after, **more)
    changed = content(settings)
    figures = build(settings, anew=True)
    assert content(settings) == changed
    assert figures.documents == figures.read == len(after)
    assert check_index("docs", settings, contents=True).summary == ""


def test_only_what_changed_is_read(tmp_path: Path) -> None:
    folder = tmp_path / "docs"
    settings = built(folder, {"a.md": "# A\n\none", "b.html": "<p>two", "c.pdf": pdf("three")})
    assert (build(settings).read, build(settings).removed) == (0, 0)
    write(folder, {"b.html": "<p>four"})
    (folder / "a.md").unlink()
    figures = build(settings)
    assert (figures.documents, figures.read, figures.removed) == (2, 1, 1)
    assert [each.path for each in found(settings, "one two three four")] == ["b.html", "c.pdf"]
    other = structs.replace(settings, passage_characters=500)
    assert build(other).read == 2
    stems = structs.replace(other, tokenizer="porter")
    assert build(stems).read == 0
    again = content(stems)
    build(stems, anew=True)
    assert content(stems) == again


def test_a_build_that_fails_leaves_the_index_that_there_is(tmp_path: Path) -> None:
    folder = tmp_path / "docs"
    settings = built(folder, {"a.txt": "first"})
    before = content(settings)
    write(folder, {"a.txt": "second", "bad.pdf": b"none", "worse.md": b"\xff"})
    with pytest.raises(ConfigError, match=r"(?s)2 of .*bad\.pdf is not .*worse\.md is not utf-8"):
        build(settings)
    assert content(settings) == before
    assert [each.name for each in tmp_path.iterdir() if each.name.startswith(".")] == []
    figures = build(settings, skip_unreadable=True)
    assert (figures.documents, list(figures.faults)) == (1, ["bad.pdf", "worse.md"])
    state = check_index("docs", settings, contents=True)
    assert (state.summary, state.detail) == (
        "", "1 documents, 1 passages; 2 documents could not be read and are left out",
    )  # fmt: skip
    assert build(settings, skip_unreadable=True).read == 2  # they may be readable by now


def test_links_that_lead_out_are_refused_and_hidden_files_are_left_out(tmp_path: Path) -> None:
    folder = tmp_path / "docs"
    settings = built(
        folder,
        {"a.txt": "one", ".hidden/b.txt": "two", ".c.txt": "three", "d.py": "four", "e/f.TXT": "x"},
    )
    assert len(found(settings, "one two three four x")) == 2
    (folder / "inside.txt").symlink_to("a.txt")
    assert build(settings).documents == 3
    (tmp_path / "secret.txt").write_text("secret")
    (folder / "link.txt").symlink_to("../secret.txt")
    with pytest.raises(ConfigError, match=r"knowledge\.docs: link\.txt is a link to .*secret\.txt"):
        build(settings)
    (folder / "link.txt").unlink()
    (folder / "around").symlink_to(folder)
    with pytest.raises(ConfigError, match="around is a link to"):
        build(settings)
    assert build(structs.replace(settings, exclude=("around", "in*"))).documents == 2


@pytest.mark.parametrize(
    ("limits", "says"),
    [
        (KnowledgeLimits(files=1), "more documents than limits.files, 1"),
        (KnowledgeLimits(file_bytes=4), r"b\.txt has 600 bytes; limits.file_bytes is 4"),
        (KnowledgeLimits(passages=1), "more passages than limits.passages, 1"),
        (KnowledgeLimits(document_characters=10), r"b\.txt has 599 characters"),
    ],
)
def test_limits(tmp_path: Path, limits: KnowledgeLimits, says: str) -> None:
    folder = tmp_path / "docs"
    folder.mkdir()
    write(folder, {"a.txt": "ab", "b.txt": "x y z " * 100})
    settings = settings_of(folder, passage_characters=200, overlap_characters=0, limits=limits)
    with pytest.raises(ConfigError, match=says):
        build(settings)
    with pytest.raises(ConfigError, match="there is no folder"):
        build(structs.replace(settings, folder=str(tmp_path / "none")))


def test_a_document_that_takes_too_long_or_too_much_ends_its_reader_only() -> None:
    late = DocumentReader(KnowledgeLimits(document_seconds=0.001))
    with pytest.raises(Unreadable, match=r"not read after 0\.001 s"):
        late.read("a.md", b"# A")
    reader = DocumentReader(KnowledgeLimits(document_mebibytes=256))
    try:
        with pytest.raises(Unreadable, match="document_mebibytes"):
            reader.read("a.html", b"<p>" + b"<b>x" * 20_000_000)
        assert reader.read("b.md", b"# B\n\ntext").title == "B"
    finally:
        reader.close()
        late.close()


def test_what_is_no_index_of_ours_is_said(tmp_path: Path) -> None:
    settings = built(tmp_path / "docs", {"a.txt": "one"})
    index = Path(settings.index)
    assert check_index("docs", settings).detail == "1 documents, 1 passages"

    def fault() -> str:
        return check_index("docs", settings).summary.replace(str(tmp_path), "")

    again = "build it: seawall knowledge build docs"
    index.unlink()
    assert fault() == f"there is no index /docs.knowledge; {again}"
    index.write_bytes(b"not a database, but as long as one: " + bytes(200))
    assert fault() == f"/docs.knowledge file is not a database; {again}"
    index.unlink()
    with closing(sqlite3.connect(index)) as other:
        other.execute("CREATE TABLE t (a)")
    assert fault() == f"/docs.knowledge is not an index of documents; {again}"
    index.unlink()
    build(settings)
    whole = index.read_bytes()
    index.write_bytes(whole[:60] + (1).to_bytes(4, "big") + whole[64:])  # its user version
    assert fault() == (f"/docs.knowledge has the format 1, and this version needs 2; {again}")
    index.write_bytes(whole[: len(whole) // 2])
    with pytest.raises((ConfigError, sqlite3.Error)):
        found(settings, "one")
    build(settings)
    assert index.read_bytes() == whole


def test_an_index_is_stale_if_documents_or_settings_differ(tmp_path: Path) -> None:
    folder = tmp_path / "docs"
    settings = built(folder, {"a.txt": "one", "b.txt": "two"})
    assert check_index("docs", settings, contents=True).stale == ""
    write(folder, {"a.txt": "six"})
    assert check_index("docs", settings).stale == ""  # of the same size
    assert "a.txt changed" in check_index("docs", settings, contents=True).stale
    write(folder, {"c.txt": "new"})
    (folder / "b.txt").unlink()
    assert "b.txt, c.txt changed" in check_index("docs", settings).stale
    assert check_index("docs", settings, compare=False).stale == ""
    other = structs.replace(settings, tokenizer="porter", passage_characters=300)
    assert "passage_characters, tokenizer changed" in check_index("docs", other).stale
    shutil.rmtree(folder)
    assert check_index("docs", settings, contents=True).summary == ""  # only the index is there
    unequal = structs.replace(settings, embeddings=True)
    assert "has no embeddings" in check_index("docs", unequal).fault


@pytest.mark.skipif(os.getuid() == 0, reason="root may read everything")
def test_an_index_that_may_not_be_read(tmp_path: Path) -> None:
    settings = built(tmp_path / "docs", {"a.txt": "one"})
    Path(settings.index).chmod(0)
    assert "cannot be read: Permission denied" in check_index("docs", settings).fault


def test_an_index_needs_no_permission_to_write(tmp_path: Path) -> None:
    settings = built(tmp_path / "docs", {"a.txt": "one"})
    Path(settings.index).chmod(0o444)
    tmp_path.chmod(0o555)
    try:
        assert found(settings, "one")[0].text == "one"
        with closing(connect(Path(settings.index))) as opened, pytest.raises(sqlite3.Error):
            opened.execute("DELETE FROM files")
        assert [each.name for each in sorted(tmp_path.iterdir())] == ["docs", "docs.knowledge"]
    finally:
        tmp_path.chmod(0o755)


def test_nothing_is_imported_from_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be the folder of the documents, which come from anywhere."""
    write(tmp_path, {"msgspec.py": "open('ran', 'w')", "re.py": "open('ran', 'w')"})
    monkeypatch.chdir(tmp_path)
    assert found(built(tmp_path / "docs", {"a.md": "# A\n\ntext"}), "text")
    assert not (tmp_path / "ran").exists()


def test_links_to_themselves_and_names_that_hide_something_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "docs"
    settings = built(folder, {"a.txt": "one"})
    (folder / "loop.txt").symlink_to("loop.txt")
    with pytest.raises(ConfigError, match=r"knowledge\.docs: loop\.txt is a link to itself"):
        build(settings)
    (folder / "loop.txt").unlink()
    for name in ("a\nb.txt", "a\x1b[31m.txt", "a\u202etxt.exe.txt", "a\U000e0041.txt"):
        (folder / name).write_text("two")
        with pytest.raises(ConfigError, match="has control or invisible characters"):
            build(settings)
        (folder / name).unlink()
    (folder / "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645.txt").write_text("two")  # Persian
    assert build(settings).documents == 2


def test_folders_may_be_nested_deep(tmp_path: Path) -> None:
    settings = built(tmp_path / "docs", {"a.txt": "one", f"{'d/' * 250}b.txt": "two"})
    write(tmp_path / "docs", {"c.txt": "three"})
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(len(inspect.stack()) + 150)
    try:
        assert build(settings).documents == 3
    finally:
        sys.setrecursionlimit(limit)
    write(tmp_path / "docs", {f"{'d/' * 254}long.txt": "four"})
    with pytest.raises(ConfigError, match="has more than 512 bytes"):
        build(settings)


@pytest.mark.parametrize(("now", "says"), [("pipe", "no file"), ("large", "limits.file_bytes")])
def test_a_document_that_becomes_something_else_while_it_is_built(
    tmp_path: Path, now: str, says: str
) -> None:
    folder = tmp_path / "docs"
    folder.mkdir()
    write(folder, {"a.txt": "one", "b.txt": "two"})
    settings = settings_of(folder, limits=KnowledgeLimits(file_bytes=10))

    def replace(_: int, __: int, path: str) -> None:
        if path == "b.txt":
            (folder / path).unlink()
            if now == "pipe":
                os.mkfifo(folder / path)
            else:
                (folder / path).write_text("x" * 11)

    with pytest.raises(ConfigError, match=rf"b\.txt cannot be read: .*{says}"):
        build(settings, progress=replace)


def test_two_builds_of_one_process_id_do_not_share_a_file(tmp_path: Path) -> None:
    """As in two containers with one volume."""
    note = IndexNote(FORMAT, 1_200, 150, "unicode", "")
    path = tmp_path / "x.knowledge"
    with writing(path, note) as first, writing(path, note) as second:
        for each in (first, second):
            each.execute("INSERT INTO passages VALUES (1, 1, '', '', 'text')")
    with closing(connect(path)) as opened:
        assert opened.execute("SELECT count(*) FROM passages").fetchone() == (1,)
    assert [each.name for each in tmp_path.iterdir()] == ["x.knowledge"]


@pytest.mark.parametrize(
    "content", [b"# A\n\ntext", b"SQLite format 3\0" + b"\0" * 100, b"x" * 100]
)
def test_only_an_index_is_replaced(tmp_path: Path, content: bytes) -> None:
    folder = tmp_path / "docs"
    folder.mkdir()
    write(folder, {"a.md": content, "b.txt": "text"})
    settings = structs.replace(settings_of(folder), index=str(folder / "a.md"))
    with pytest.raises(
        ConfigError, match=r"a\.md is not an index of documents, and is not replaced"
    ):
        build(structs.replace(settings, exclude=("a.md",)))
    assert (folder / "a.md").read_bytes() == content


def test_a_pipe_in_the_place_of_the_index_does_not_block(tmp_path: Path) -> None:
    settings = built(tmp_path / "docs", {"a.txt": "text"})
    index = Path(settings.index)
    search = IndexSearch(index)
    assert search.search("text", 1)
    whole = index.read_bytes()
    index.unlink()
    os.mkfifo(index)
    with pytest.raises(OSError, match="is no file"):
        search.search("text", 1)
    with pytest.raises(ConfigError, match=r"docs\.knowledge: cannot be read: is no file"):
        build(settings)
    assert check_index("docs", settings).fault == f"{index} cannot be read: is no file"
    index.unlink()
    index.write_bytes(whole)
    assert search.search("text", 1)
    search.close()


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> tuple[KnowledgeSettings, bytes]:
    """An index, and its bytes."""
    files: dict[str, str | bytes] = {
        f"{n}.txt": "common " + " ".join(f"word{n * i % 97}" for i in range(100)) for n in range(20)
    }
    settings = built(tmp_path_factory.mktemp("sound") / "docs", files, passage_characters=300)
    return settings, content(settings)


@given(st.randoms(use_true_random=False))
@examples(20, 1_000)
def test_a_damaged_index_is_said_and_can_be_built(
    sound: tuple[KnowledgeSettings, bytes], chance: Random
) -> None:
    settings, whole = sound
    data = bytearray(whole)
    for _ in range(chance.choice((1, 20, 200))):
        data[chance.randrange(100, len(data))] = chance.randrange(256)
    length = chance.choice((len(data), chance.randrange(100, len(data))))
    index = Path(settings.index)
    index.with_suffix(".new").write_bytes(data[:length])
    index.with_suffix(".new").replace(index)
    check_index("docs", settings)
    search = IndexSearch(index)
    try:
        with suppress(sqlite3.Error, ConfigError, SearchTooSlow):
            msgspec.json.encode(answer(search.search("word5 common", 5), settings).content)
    finally:
        search.close()
    build(settings)
    build(settings, anew=True)
    assert content(settings) == whole
