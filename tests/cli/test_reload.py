"""`seawall serve --reload`: a change is served, an error is waited out, an interrupt ends all."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from seawall.cli.reload import changed_files, watched_files
from tests.cli.test_doctor import configured


def test_source_files_are_watched_and_generated_ones_are_not(tmp_path: Path) -> None:
    for name in ("tools.py", "seawall.toml", "data.bin", ".venv/a.py", "__pycache__/b.py"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("x")
    before = watched_files(tmp_path)
    assert sorted(path.name for path in before) == ["seawall.toml", "tools.py"]
    (tmp_path / "tools.py").unlink()
    (tmp_path / "new.py").write_text("y")
    assert [path.name for path in changed_files(before, watched_files(tmp_path))] == [
        "new.py",
        "tools.py",
    ]


def test_a_change_restarts_the_server(tmp_path: Path) -> None:
    folder = configured(tmp_path, "http://127.0.0.1:9/v1", "[server]\nwarm_up = false\n")
    toml = folder / "seawall.toml"
    process = subprocess.Popen(
        [sys.executable, "-m", "seawall", "serve", "--reload", "--port", "0", "--json"],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        first = json.loads(process.stdout.readline())
        right = toml.read_text()
        toml.write_text(right + "[nothing]\n")  # the server cannot start from it
        assert json.loads(process.stdout.readline())["stopping"]
        assert json.loads(process.stdout.readline())["stopped"]
        errors = ""
        for line in process.stderr:
            errors += line
            if "waiting for a change" in line:
                break
        toml.write_text(right)
        os.utime(toml)
        second = json.loads(process.stdout.readline())
        assert second["url"].startswith("http://127.0.0.1:")
        assert first["workers"] == second["workers"] == 1
    finally:
        process.send_signal(signal.SIGINT)
        out, rest = process.communicate(timeout=30)
    errors += rest
    assert process.returncode == 0
    assert "stopped" in out
    assert "Reloading: seawall.toml changed" in errors
    assert "unknown section" in errors or "nothing" in errors
    assert "Traceback" not in errors


@pytest.mark.skipif(sys.platform != "linux", reason="prctl(PR_SET_PDEATHSIG) is of Linux")
def test_the_server_ends_with_a_watcher_that_is_killed(tmp_path: Path) -> None:
    folder = configured(tmp_path, "http://127.0.0.1:9/v1", "[server]\nwarm_up = false\n")
    process = subprocess.Popen(
        [sys.executable, "-m", "seawall", "serve", "--reload", "--port", "0", "--json"],
        cwd=folder,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    json.loads(process.stdout.readline())
    process.kill()
    assert [*map(json.loads, process.stdout)][-1]["stopped"]  # and the pipe is closed
    process.wait()
    process.stdout.close()
