"""`seawall sessions` with DynamoDB: migrations in both directions, and interrupted ones."""

import json
import signal
from pathlib import Path

import pytest

from seawall.cli.main import main
from seawall.turn import SessionKey
from tests.cli.stores import everything_in_sqlite, fill_sqlite
from tests.cli.test_sessions_migrate import CHECKPOINT, KEYS, start, stop_in_the_middle
from tests.dynamodb_local import ENVIRONMENT
from tests.storage.stores import new_location


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dynamodb: str) -> str:
    monkeypatch.chdir(tmp_path)
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "seawall.toml").write_text(
        f'[sessions]\nendpoint = "{dynamodb}"\ncreate_table = true\n'
    )
    return new_location("dynamodb")


def test_migration_to_dynamodb_and_back(
    table: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fill_sqlite(tmp_path / "a.db", KEYS)
    there = ["sessions", "migrate", "sqlite:a.db", f"dynamodb:{table}", "--verify", "--json"]
    assert main(there) == 0
    figures = json.loads(capsys.readouterr().out)
    assert (figures["moved"], figures["verification"]["same"]) == (len(KEYS), len(KEYS))
    assert main(["sessions", "migrate", f"dynamodb:{table}", "sqlite:b.db", "--verify"]) == 0
    assert everything_in_sqlite(tmp_path / "a.db") == everything_in_sqlite(tmp_path / "b.db")


def test_a_migration_continues_after_a_kill(table: str, tmp_path: Path) -> None:
    keys = [SessionKey(f"t{n % 3}", f"u{n % 7}", f"s{n:05}") for n in range(300)]
    fill_sqlite(tmp_path / "a.db", keys)
    command = ("sqlite:a.db", f"dynamodb:{table}", "--batch", "10", "--concurrency", "4")
    checkpoint = tmp_path / CHECKPOINT
    stop_in_the_middle(start(tmp_path, *command), checkpoint, signal.SIGKILL)
    with start(tmp_path, *command, "--verify", "--json") as process:
        out, output = process.communicate(timeout=60)
    assert process.returncode == 0, output
    figures = json.loads(out)
    assert figures["moved"] + figures["skipped"] == len(keys)
    assert figures["verification"]["same"] == len(keys)


def test_a_subject_is_listed_exported_and_erased(
    table: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fill_sqlite(tmp_path / "a.db", KEYS)
    assert main(["sessions", "migrate", "sqlite:a.db", f"dynamodb:{table}"]) == 0
    with (tmp_path / "seawall.toml").open("a") as file:
        file.write(f'store = "dynamodb"\ntable = "{table}"\n')
    owner = ["--tenant", "t1", "--subject", "u1"]
    theirs = [key.session for key in KEYS if (key.tenant, key.subject) == ("t1", "u1")]
    capsys.readouterr()
    assert main(["sessions", "list", *owner, "--json"]) == 0
    listed = [each["session"] for each in json.loads(capsys.readouterr().out)["sessions"]]
    assert sorted(listed) == sorted(theirs)
    assert main(["sessions", "export", *owner]) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(theirs)
    assert main(["sessions", "erase", *owner, "--yes"]) == 0
    capsys.readouterr()
    assert main(["sessions", "list", *owner, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["sessions"] == []
