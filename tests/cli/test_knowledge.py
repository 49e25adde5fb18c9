"""`seawall knowledge`: build and search; what `seawall doctor` says; what a package has."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from seawall.cli.main import main
from seawall.config import load_settings
from seawall.errors import ConfigError
from seawall.ship.package_files import package_files
from tests.knowledge.folders import write

CONFIGURATION = """
[models.default]
base_url = "http://127.0.0.1:9/v1"
model = "m"
[knowledge.manual]
folder = "manual"
base_url = "https://shop.example"
urls = "html"
[agents.help]
instructions = "Help."
tools = ["search_manual"]
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    write(
        tmp_path,
        {
            "seawall.toml": CONFIGURATION,
            "manual/a.txt": "Goods come back within 30 days.",
            "manual/b.txt": "The shop is open daily.\n\n\x1b[31mred",
        },
    )
    return tmp_path / "seawall.toml"


def run(config: Path, *words: str) -> int:
    return main(["knowledge", *words, "--config", str(config)])


def test_build_and_search(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(config, "search", "manual", "goods") == 2
    assert "there is no index" in capsys.readouterr().err
    assert run(config, "build") == 0
    index = config.with_name("manual.knowledge")
    said = capsys.readouterr().out
    assert said == (
        "knowledge.manual: 2 documents (2 read, 0 removed since the last build), 2 passages, "
        f"{index.stat().st_size / 1e6:.1f} MB in {index}\n"
    )
    assert run(config, "search", "manual", "When do goods come back?") == 0
    assert capsys.readouterr().out == (
        "1. a\n   https://shop.example/a.txt\n   Goods come back within 30 days.\n"
    )
    assert run(config, "search", "manual", "open red", "--json", "--passages", "1") == 0
    (passage,) = json.loads(capsys.readouterr().out)["passages"]
    assert (passage["url"], "\x1b" in passage["text"]) == ("https://shop.example/b.txt", False)
    assert run(config, "search", "manual", "quantum") == 1
    whole = index.read_bytes()
    with closing(sqlite3.connect(index)) as opened, opened:
        opened.execute("DROP TABLE words")
    capsys.readouterr()
    assert run(config, "search", "manual", "goods") == 2
    assert "knowledge.manual: " in capsys.readouterr().err
    index.write_bytes(whole)
    assert run(config, "build", "manual", "--json") == 0
    figures = json.loads(capsys.readouterr().out)
    assert (figures["name"], figures["documents"], figures["read"]) == ("manual", 2, 0)
    assert run(config, "build", "--full", "--json") == 0
    assert json.loads(capsys.readouterr().out)["read"] == 2


def test_what_cannot_be_built_says_so(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(config, "build", "manul") == 2
    assert "manual" in capsys.readouterr().err
    (config.parent / "manual/c.txt").write_bytes(b"\xff")
    assert run(config, "build") == 2
    said = capsys.readouterr().err
    assert "c.txt is not utf-8 text (byte 0)" in said
    assert "--skip-unreadable" in said
    assert run(config, "build", "--skip-unreadable") == 0
    assert "left out: c.txt" in capsys.readouterr().err
    config.write_text("[server]\nport = 1\n")
    assert run(config, "build") == 2
    assert "has no table [knowledge.NAME]" in capsys.readouterr().err


def test_the_doctor_compares_contents(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def finding() -> dict[str, str]:
        main(["doctor", str(config), "--json"])
        found = json.loads(capsys.readouterr().out)
        (one,) = (each for each in found if each["name"] == "knowledge.manual")
        assert isinstance(one, dict)
        return one

    missing = finding()
    assert (missing["status"], missing["advice"]) == ("failed", "seawall knowledge build manual")
    assert run(config, "build") == 0
    capsys.readouterr()
    assert finding()["status"] == "ok"
    (config.parent / "manual/a.txt").write_text("Goods come back within 31 days.")
    stale = finding()
    assert (stale["status"], "a.txt changed" in stale["detail"]) == ("warning", True)


def test_a_package_has_the_index(config: Path) -> None:
    assert run(config, "build") == 0
    (config.parent / ".seawallignore").write_text("manual/\n")
    assert package_files(config.parent) == ["manual.knowledge", "seawall.toml"]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("[knowledge.'a b']\nfolder = 'x'", "knowledge.a b: the name may have letters"),
        (f"[knowledge.{'x' * 58}]\nfolder = 'x'", "57 at most"),
        ("[knowledge.a]", "missing required field `folder`"),
        (
            "[knowledge.a]\nfolder = 'x'\n[knowledge.b]\nfolder = 'y'\nindex = 'a.knowledge'",
            "is that of knowledge.a",
        ),
        ("[knowledge.a]\nfolder = ''", "knowledge.a.folder"),
        ("[knowledge.a]\nfolder = 'x'\noverlap = 3", "unknown key"),
        ("[knowledge.a]\nfolder = 'x'\npassage_characters = 100", "passage_characters"),
        ("[knowledge.a]\nfolder = 'x'\noverlap_characters = 700", "at most half"),
        ("[knowledge.a]\nfolder = 'x'\nembedding_model = 'm'", "needs embeddings = true"),
        ("[knowledge.a]\nfolder = 'x'\nbase_url = 'ftp://x'", "http or https"),
        ("[knowledge.a]\nfolder = 'x'\nbase_url = 'https://x?y'", "no query"),
        ("[knowledge.a]\nfolder = 'x'\nbase_url = 'javascript:x'", "http or https"),
        ("[knowledge.a]\nfolder = 'x'\n[knowledge.a.limits]\nfiles = 0", "limits.files"),
    ],
)
def test_settings_that_are_wrong(tmp_path: Path, line: str, says: str) -> None:
    path = tmp_path / "seawall.toml"
    path.write_text(line)
    with pytest.raises(ConfigError) as refused:
        load_settings(path)
    assert says in str(refused.value)


def test_files_are_beside_the_configuration(config: Path) -> None:
    settings = load_settings(config).knowledge["manual"]
    assert settings.folder == str(config.parent / "manual")
    assert settings.index == str(config.parent / "manual.knowledge")
    variables = {"SEAWALL_KNOWLEDGE__MANUAL__INDEX": "other"}
    assert load_settings(config, variables).knowledge["manual"].index == "other"


def test_a_tool_of_the_same_name_is_refused(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(config, "build") == 0
    (config.parent / "own.py").write_text(
        "from seawall import Toolset, tool\n\n@tool\ndef search_manual(a: int) -> int:\n"
        "    'Add.'\n    return a\n\ndef made() -> Toolset:\n    return Toolset((search_manual,))\n"
    )
    with config.open("a") as file:
        file.write('[tools.own]\nfactory = "own:made"\n')
    assert main(["tools", "list", str(config)]) == 2
    assert "knowledge.manual: there is another tool search_manual" in capsys.readouterr().err


def test_a_build_says_that_a_language_needs_another_tokenizer(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(config.parent, {"manual/c.txt": "我们的退款政策是三十天内退货。商店每天九点开门。" * 4})
    for _ in range(2):  # also of what is not read again
        assert run(config, "build") == 0
        assert 'without tokenizer = "trigram"' in capsys.readouterr().err
    config.write_text(CONFIGURATION.replace("urls =", 'tokenizer = "trigram"\nurls ='))
    assert run(config, "build") == 0
    assert capsys.readouterr().err == ""
