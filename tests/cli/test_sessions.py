"""`seawall sessions`: list, show, export, delete and erase."""

import asyncio
import base64
import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from seawall.cli.main import main
from seawall.settings import BlobSettings
from seawall.storage.blobs import Blob, BlobInfo, BlobKey, new_name
from seawall.storage.export import Export
from seawall.storage.open_blobs import open_blobs
from seawall.turn import Principal, SessionKey
from tests.cli.stores import everything_in_sqlite, fill_sqlite
from tests.servers import command

ADA = [SessionKey("acme", "ada", f"s{number:03}") for number in range(5)]
EVE = [SessionKey("acme", "eve", "s000"), SessionKey("other", "ada", "s000")]
OF_ADA = ["--tenant", "acme", "--subject", "ada"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "seawall.toml").write_text('[sessions]\npath = "kept.db"\n')
    fill_sqlite(tmp_path / "kept.db", ADA + EVE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def kept(folder: Path) -> set[SessionKey]:
    return set(everything_in_sqlite(folder / "kept.db"))


def test_a_list_continues_at_its_cursor(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    del folder
    seen: list[tuple[str, int]] = []
    cursor = None
    while True:
        more: list[str] = ["--cursor", cursor] if cursor else []
        assert main(["sessions", "list", *OF_ADA, "--limit", "2", "--json", *more]) == 0
        page = json.loads(capsys.readouterr().out)
        seen += [(each["session"], each["version"]) for each in page["sessions"]]
        cursor = page["cursor"]
        if cursor is None:
            break
    assert seen == [(key.session, 2) for key in reversed(ADA)]


def test_an_overview_lists_the_owners(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    del folder
    assert main(["sessions", "list", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    owners = {(each["tenant"], each["subject"]): each for each in found["owners"]}
    assert owners.keys() == {("acme", "ada"), ("acme", "eve"), ("other", "ada")}
    assert owners["acme", "ada"]["sessions"] == 5
    assert owners["acme", "ada"]["turns"] == 10
    assert found["total"] == {"sessions": 7, "turns": 14, "owners": 3}
    assert main(["sessions", "list", "--tenant", "acme", "--limit", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["tenant", "subject", "sessions", "turns", "updated"]
    assert len(lines) == 4
    assert lines[-2:] == ["1 more owner: see --limit", "6 sessions with 12 turns of 2 owners"]


def test_human_readable_output(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    del folder
    assert main(["sessions", "list", *OF_ADA, "--limit", "2"]) == 0
    out = capsys.readouterr().out
    assert "s004" in out
    assert "s002" not in out
    assert "There are more: --cursor " in out
    assert main(["sessions", "show", "s001", *OF_ADA]) == 0
    out = capsys.readouterr().out
    assert "note customer: c-17" in out
    assert out.index("1. 2023-11-14") < out.index("2. 2023-11-14")
    assert 'calls get_order({"id":"#W1"})' in out
    assert 'get_order answers: {"state":"sent"}' in out
    assert main(["sessions", "list", "--tenant", "acme", "--subject", "unknown"]) == 0
    assert capsys.readouterr().out == "There are no sessions.\n"


def test_control_characters_of_users_are_escaped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SEAWALL_SESSIONS__PATH", str(tmp_path / "kept.db"))
    (tmp_path / "seawall.toml").write_text("")
    text = "\x1b]0;owned\x07\x1b[2J \r hidden\nline \u202e \x9b1m"
    fill_sqlite(tmp_path / "kept.db", ADA[:1], text=text)
    config = ["--config", str(tmp_path / "seawall.toml")]
    assert main(["sessions", "show", "s000", *OF_ADA, *config]) == 0
    out = capsys.readouterr().out
    assert out.replace("\n", "").isprintable()
    assert r"\x1b[2J \r hidden\nline \u202e \x9b1m" in out


def test_an_export_has_everything(folder: Path, capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    stored = everything_in_sqlite(folder / "kept.db")
    assert main(["sessions", "export", *OF_ADA]) == 0
    lines = capsysbinary.readouterr().out.splitlines()
    exported = [msgspec.json.decode(line, type=Export) for line in lines]
    assert [each.session.key for each in exported] == ADA[::-1]
    for each in exported:
        archive = stored[each.session.key]
        assert each.turns == archive.turns
        assert each.session.state == archive.session.state
        assert each.session.version == archive.session.version

    assert main(["sessions", "export", "s003", *OF_ADA, "--output", "one.jsonl"]) == 0
    captured = capsysbinary.readouterr()
    assert (captured.out, captured.err) == (b"", b"exported 1 session with 2 turns\n")
    assert (folder / "one.jsonl").read_bytes() == lines[1] + b"\n"
    assert (folder / "one.jsonl").stat().st_mode & 0o777 == 0o600

    assert main(["sessions", "export", "s999", *OF_ADA, "--output", "none.jsonl"]) == 1
    assert sorted(path.name for path in folder.glob("*.jsonl*")) == ["one.jsonl"]


def test_an_export_of_many_turns_keeps_their_order(
    folder: Path, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    long = SessionKey("acme", "ida", "long")
    fill_sqlite(folder / "kept.db", [long], turns=230)
    assert main(["sessions", "export", "--tenant", "acme", "--subject", "ida"]) == 0
    (line,) = capsysbinary.readouterr().out.splitlines()
    exported = msgspec.json.decode(line, type=Export)
    assert [turn.number for turn in exported.turns] == list(range(1, 231))


def test_delete_and_erase(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sessions", "delete", "s002", *OF_ADA, "--yes"]) == 0
    assert capsys.readouterr().out == "deleted s002\n"
    assert kept(folder) == {*ADA, *EVE} - {ADA[2]}
    assert main(["sessions", "delete", "s002", *OF_ADA, "--yes"]) == 1
    assert "There is no such session." in capsys.readouterr().err
    assert main(["sessions", "erase", *OF_ADA, "--yes", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"erased": 4}
    assert kept(folder) == set(EVE)


@pytest.mark.parametrize("words", [["delete", "s001"], ["erase"]])
def test_deletion_without_a_terminal_needs_yes(folder: Path, words: list[str]) -> None:
    done = command("sessions", *words, *OF_ADA, folder=folder)
    assert (done.returncode, done.stdout) == (2, "")
    assert "give --yes" in done.stderr
    assert kept(folder) == {*ADA, *EVE}


def test_deletion_on_a_terminal_asks_for_confirmation(folder: Path) -> None:
    for answer, status in ((b"\n", 1), (b"n\n", 1), (b"y\n", 0)):
        near, far = pty.openpty()
        with subprocess.Popen(
            [sys.executable, "-m", "seawall", "sessions", "erase", *OF_ADA],
            cwd=folder,
            stdin=far,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as process:
            assert process.stderr is not None
            assert process.stderr.read(6) == b"Delete"
            os.write(near, answer)
            out, _ = process.communicate(timeout=30)
        os.close(near)
        os.close(far)
        assert process.returncode == status
        assert (b"erased 5 sessions" in out) == (status == 0)
    assert kept(folder) == set(EVE)


@pytest.mark.parametrize(
    ("arguments", "status", "output"),
    [
        (["show", "s999", *OF_ADA], 1, "There is no such session."),
        (["show", "s000", "--tenant", "acme", "--subject", "bob"], 1, "There is no such session."),
        (["list", *OF_ADA, "--cursor", "x"], 2, "not a cursor of this list"),
        (["list", *OF_ADA, "--config", "none.toml"], 2, "none.toml: cannot be read"),
        (["export", *OF_ADA, "--output", "no/such/place"], 2, "cannot be written"),
    ],
)
def test_errors_are_reported(
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    status: int,
    output: str,
) -> None:
    del folder
    assert main(["sessions", *arguments]) == status
    captured = capsys.readouterr()
    assert captured.out == ""
    assert output in captured.err


@pytest.mark.parametrize(
    "arguments",
    [
        ["list", "--subject", "ada"],
        ["list", *OF_ADA, "--limit", "0"],
        ["list", *OF_ADA, "--limit", "201"],
        ["list", "--tenant", "a\nb", "--subject", "ada"],
    ],
)
def test_wrong_arguments_are_refused(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as refusal:
        main(["sessions", *arguments])
    assert refusal.value.code == 2


def test_reading_creates_no_database(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "seawall.toml").write_text('[sessions]\npath = "typo.db"\n')
    monkeypatch.chdir(tmp_path)
    assert main(["sessions", "list", *OF_ADA]) == 2
    assert "there is no database typo.db" in capsys.readouterr().err
    assert not (tmp_path / "typo.db").exists()


def test_files_are_exported_deleted_and_erased_with_their_sessions(
    folder: Path, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    with (folder / "seawall.toml").open("a") as configuration:
        configuration.write('[blobs]\npath = "kept-files"\n')
    _store_files(folder)
    assert main(["sessions", "export", *OF_ADA]) == 0
    out = capsysbinary.readouterr()
    lines = [json.loads(line) for line in out.out.splitlines()]
    files = {each["file"]: base64.b64decode(each["content"]) for each in lines if "file" in each}
    assert sorted(files.values()) == [b"of s000", b"of s001", b"upload"]
    assert b"10 turns, 3 files" in out.err
    assert main(["sessions", "export", "s001", *OF_ADA]) == 0
    one = [json.loads(line) for line in capsysbinary.readouterr().out.splitlines()]
    assert [each["session"] for each in one if "file" in each] == ["s001"]
    assert main(["sessions", "delete", "s001", *OF_ADA, "--yes"]) == 0
    assert _left(folder) == [b"of eve", b"of s000", b"upload"]
    assert main(["sessions", "erase", *OF_ADA, "--yes"]) == 0
    assert _left(folder) == [b"of eve"]


def _store_files(folder: Path) -> None:
    async def store() -> None:
        blobs = await open_blobs(BlobSettings(path=str(folder / "kept-files")))
        ada, eve = Principal("acme", "ada"), Principal("acme", "eve")
        stored = {
            BlobKey(ada, "", new_name()): b"upload",
            BlobKey(ada, "s000", new_name()): b"of s000",
            BlobKey(ada, "s001", new_name()): b"of s001",
            BlobKey(eve, "s000", new_name()): b"of eve",
        }
        for key, content in stored.items():
            info = BlobInfo(
                key=key,
                media_type="text/plain",
                name="a.txt",
                bytes=len(content),
                tokens=1,
                created_at=1.0,
            )
            await blobs.put(Blob(info, content))
        await blobs.close()

    asyncio.run(store())


def _left(folder: Path) -> list[bytes]:
    files = (folder / "kept-files").rglob("*")
    return sorted(each.read_bytes() for each in files if len(each.name) == 32)
