"""`seawall sessions migrate`: everything arrives once, however often it is cut off."""

import json
import os
import pty
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from seawall.cli.main import main
from seawall.turn import SessionKey
from tests.cli.stores import everything_in_sqlite, fill_sqlite

CHECKPOINT = "seawall-migration.json"
KEYS = [SessionKey(f"t{n % 3}", f"u{n % 7}", f"s{n:04}") for n in range(40)]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def migrate(*arguments: str) -> int:
    return main(["sessions", "migrate", *arguments])


def test_everything_is_copied_and_verified(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fill_sqlite(folder / "a.db", KEYS)
    fill_sqlite(folder / "b.db", KEYS[:3])
    assert migrate("sqlite:a.db", "sqlite:b.db", "--batch", "7", "--verify", "--json") == 0
    figures = json.loads(capsys.readouterr().out)
    assert (figures["moved"], figures["turns"], figures["skipped"]) == (37, 74, 3)
    assert figures["verification"]["same"] == 40
    before, after = everything_in_sqlite(folder / "a.db"), everything_in_sqlite(folder / "b.db")
    assert {key: (each.turns, each.keys) for key, each in before.items()} == {
        key: (each.turns, each.keys) for key, each in after.items()
    }
    assert all(before[key] == after[key] for key in KEYS[3:])
    assert not (folder / CHECKPOINT).exists()

    assert migrate("sqlite:a.db", "sqlite:b.db") == 0
    out = capsys.readouterr().out
    assert "moved 0 sessions" in out
    assert "skipped 40 that were there already" in out


def test_stores_are_named_by_files_too(folder: Path) -> None:
    fill_sqlite(folder / "a.db", KEYS)
    (folder / "old.toml").write_text('[sessions]\npath = "a.db"\n')
    (folder / "seawall.toml").write_text('[sessions]\npath = "b.db"\n')
    assert migrate("old.toml", "sqlite") == 0
    assert everything_in_sqlite(folder / "a.db") == everything_in_sqlite(folder / "b.db")


def test_a_wrong_copy_is_found(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fill_sqlite(folder / "a.db", KEYS)
    assert migrate("sqlite:a.db", "sqlite:b.db", "--verify") == 0
    fill_sqlite(folder / "c.db", KEYS[:1], turns=3)  # it went on, which is no fault
    with sqlite3.connect(folder / "b.db") as database:
        for key, change in (
            (KEYS[1], "UPDATE turns SET payload = replace(payload, 'Where', 'There')"),
            (KEYS[2], "DELETE FROM turns"),
        ):
            database.execute(f"{change} WHERE session = ? AND number = 2", (key.session,))
    database.close()
    capsys.readouterr()
    assert migrate("sqlite:a.db", "sqlite:b.db", "--verify", "--json") == 1
    verification = json.loads(capsys.readouterr().out)["verification"]
    assert (verification["same"], verification["differing"]) == (38, 2)
    assert sorted(verification["examples"]) == [
        f"differing: {key.tenant} / {key.subject} / {key.session}" for key in KEYS[1:3]
    ]
    assert migrate("sqlite:a.db", "sqlite:c.db", "--verify", "--json") == 0
    assert json.loads(capsys.readouterr().out)["verification"]["ahead"] == 1


def start(folder: Path, *arguments: str) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-m", "seawall", "sessions", "migrate", *arguments],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def stop_in_the_middle(
    process: "subprocess.Popen[bytes]", checkpoint: Path, number: signal.Signals
) -> tuple[int, bytes]:
    """Send the signal when the checkpoint has changed; status and standard error."""
    before = checkpoint.read_bytes() if checkpoint.exists() else b""
    while not checkpoint.exists() or checkpoint.read_bytes() == before:
        assert process.poll() is None, process.communicate()
        time.sleep(0.002)
    process.send_signal(number)
    _, output = process.communicate(timeout=30)
    return process.returncode, output


def test_a_migration_continues_after_kill_and_interrupt(folder: Path) -> None:
    keys = [SessionKey(f"t{n % 3}", f"u{n % 7}", f"s{n:05}") for n in range(1_500)]
    fill_sqlite(folder / "a.db", keys)
    command = ("sqlite:a.db", "sqlite:b.db", "--batch", "10", "--concurrency", "2")
    checkpoint = folder / CHECKPOINT
    status, _ = stop_in_the_middle(start(folder, *command), checkpoint, signal.SIGKILL)
    assert status == -signal.SIGKILL
    status, output = stop_in_the_middle(start(folder, *command), checkpoint, signal.SIGINT)
    assert status == 130
    assert b"run the same command to continue" in output
    reached = json.loads(checkpoint.read_bytes())
    done = reached["moved"] + reached["skipped"]
    assert 0 < done < len(keys)

    with start(folder, *command, "--verify", "--json") as process:
        out, output = process.communicate(timeout=60)
    assert process.returncode == 0, output
    assert f"continuing after {done:,} sessions".encode() in output
    figures = json.loads(out)
    assert figures["moved"] + figures["skipped"] == len(keys)
    assert figures["skipped"] <= 20  # at most the batch that each of the two cut off
    assert figures["verification"]["same"] == len(keys)
    assert everything_in_sqlite(folder / "a.db") == everything_in_sqlite(folder / "b.db")
    assert not checkpoint.exists()


def test_progress_on_a_terminal_is_one_line(folder: Path) -> None:
    fill_sqlite(folder / "a.db", KEYS)
    near, far = pty.openpty()
    done = subprocess.run(
        [sys.executable, "-m", "seawall", "sessions", "migrate", "sqlite:a.db", "sqlite:b.db"],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=far,
        check=False,
    )
    output = os.read(near, 65_536).decode()
    os.close(near)
    os.close(far)
    assert done.returncode == 0
    assert output.count("\n") == 1
    assert "\r40 sessions, " in output


@pytest.mark.parametrize(
    ("arguments", "output"),
    [
        (["sqlite:a.db", "sqlite:./a.db"], "are the same store"),
        (["sqlite:none.db", "sqlite:b.db"], "there is no database none.db"),
        (["mysql:a", "sqlite:b.db"], "'mysql:a' names no store"),
        (["sqlite:", "sqlite:b.db"], "'sqlite:' names no store"),
        (["none.toml", "sqlite:b.db"], "none.toml: cannot be read"),
        (["sqlite:a.db", "sqlite:b.db", "--checkpoint", "a.db"], "not a checkpoint"),
    ],
)
def test_errors_are_reported(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], output: str
) -> None:
    fill_sqlite(folder / "a.db", KEYS[:1])
    assert migrate(*arguments) == 2
    assert output in capsys.readouterr().err
    assert not (folder / "b.db").exists()


def test_a_checkpoint_of_another_migration_is_refused(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fill_sqlite(folder / "a.db", KEYS[:1])
    other = {"source": "sqlite:/x", "target": "sqlite:/y", "cursor": "abc", "moved": 7}
    (folder / CHECKPOINT).write_text(json.dumps(other))
    assert migrate("sqlite:a.db", "sqlite:b.db") == 2
    assert "belongs to the migration from sqlite:/x to sqlite:/y" in capsys.readouterr().err
