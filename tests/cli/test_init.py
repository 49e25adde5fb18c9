"""`seawall init`, and what a new user does next."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fork_server import run

SEAWALL = (sys.executable, "-m", "seawall")


def seawall(
    *words: str, folder: Path, text: str = "", **environment: str
) -> subprocess.CompletedProcess[str]:
    variables = {k: v for k, v in os.environ.items() if not k.startswith(("OPENAI_", "SEAWALL_"))}
    return run(words, variables | environment, folder, text)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("new")
    done = seawall("init", "shop", folder=folder)
    assert done.returncode == 0, done.stderr
    assert "cd shop" in done.stdout
    return folder / "shop"


def test_its_own_test_passes(project: Path) -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            "-p",
            "no:schemathesis",
            ".",
        ],
        cwd=project,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, "1 passed" in done.stdout) == (0, True), done.stdout + done.stderr


def test_the_first_answer_needs_no_key(project: Path) -> None:
    done = seawall("chat", "--simulated", "-m", "When are you open in Oslo?", folder=project)
    assert done.returncode == 0, done.stderr
    assert 'tool opening_hours {"city":"Oslo"}' in done.stdout
    assert done.stdout.endswith("Our shop in Oslo is open from 10 to 18.\n")


def test_a_conversation_is_one_session(project: Path) -> None:
    lines = "Hello\n/session\nBergen?\n/session\n/new\n/session\n"
    done = seawall("chat", "--simulated", folder=project, text=lines)
    sessions = [line for line in done.stdout.splitlines() if line.startswith("ses_")]
    assert done.returncode == 0, done.stderr
    assert len(sessions) == 2
    assert sessions[0] == sessions[1]
    assert done.stdout.endswith("none yet\n")


def test_a_session_is_continued_and_events_are_json(project: Path) -> None:
    first = seawall("chat", "--simulated", "--json", "-m", "Oslo?", folder=project)
    completed = json.loads(first.stdout.splitlines()[-1])
    again = seawall(
        *("chat", "--simulated", "--json", "-m", "Bergen?", "--session", completed["session"]),
        folder=project,
    )
    last = json.loads(again.stdout.splitlines()[-1])
    assert (last["session"], last["version"]) == (completed["session"], 2)


def test_a_failed_turn_is_reported_and_exits_with_1(project: Path) -> None:
    done = seawall(
        *("chat", "-m", "Hello"),
        folder=project,
        OPENAI_API_KEY="x",
        SEAWALL_MODELS__DEFAULT__BASE_URL="http://127.0.0.1:9/v1",
    )
    assert done.returncode == 1
    assert "The turn failed (upstream-failed)" in done.stdout


def test_without_a_key_it_says_which_variable(project: Path) -> None:
    done = seawall("chat", "-m", "Hello", folder=project)
    assert done.returncode == 2
    assert "the variable OPENAI_API_KEY is not set" in done.stderr
    assert "without a key: seawall chat --simulated" in done.stderr


def test_nothing_is_overwritten(project: Path) -> None:
    before = {path: path.read_bytes() for path in project.iterdir() if path.is_file()}
    done = seawall("init", folder=project)
    assert done.returncode == 2
    assert "has seawall.toml" in done.stderr
    assert {path: path.read_bytes() for path in before} == before
