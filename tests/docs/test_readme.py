"""Every code block of the README, run as it stands; only addresses are those of the test."""

import hashlib
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fork_server import run
from tests.servers import ROOT, ServerProcess, running, running_model, running_server

BLOCKS = re.findall(
    r"^```(\w+)\n(.*?)^```", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL
)
MADE = [text for _, text in BLOCKS if text.startswith("make")]
SERVED = [text for _, text in BLOCKS if text.startswith(".venv/bin/seawall")]
CURLED = [text for _, text in BLOCKS if text.startswith("curl")]
KEY = "sw_a-key-of-the-readme"
DIGEST = hashlib.sha256(KEY.encode()).hexdigest()
PYTHON = [text for language, text in BLOCKS if language == "python"]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with (
        running_model("--first-token", "0.01", "--duration", "0.1") as model,
        running_server(
            tmp_path_factory.mktemp("readme"),
            model,
            SERVER__WORKERS="1",
            IDENTITY__ANONYMOUS="true",
            IDENTITY__API_KEYS=f'[{{sha256 = "{DIGEST}", tenant = "shop", subject = "me"}}]',
        ) as running,
    ):
        yield running


def test_no_block_is_left_out() -> None:
    shown = [text for language, text in BLOCKS if language != "text"]
    assert sorted(shown) == sorted([*MADE, *SERVED, *CURLED, *PYTHON])


def test_make_knows_the_targets() -> None:
    for line in "".join(MADE).splitlines():
        subprocess.run([*line.split(), "--dry-run"], cwd=ROOT, check=True, capture_output=True)


@pytest.mark.parametrize("line", "".join(SERVED).splitlines())
def test_commands_that_the_reader_starts_do_start(line: str, tmp_path: Path) -> None:
    _, command, *arguments = line.split(maxsplit=2)
    environment = {"SEAWALL_SESSIONS__PATH": str(tmp_path / "s.db")}
    environment["SEAWALL_TOOLS__STORE__DATABASE"] = str(tmp_path / "t.db")
    extra = ["--json"] if command == "serve" else []
    words = (command, *arguments[0].split(), "--port", "0", *extra)
    with running(*words, environment=environment) as started:
        assert started.url
        assert started.stop() == 0


@pytest.mark.parametrize("block", CURLED)
def test_curl(server: ServerProcess, block: str) -> None:
    script = "set -e\n" + block.replace("http://127.0.0.1:8080", server.url)
    script = script.replace("curl ", "curl --fail-with-body --max-time 20 ")
    done = subprocess.run(
        ["bash", "-c", script], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout


@pytest.mark.parametrize("block", PYTHON)
def test_python(server: ServerProcess, block: str, tmp_path: Path) -> None:
    with running_model("--first-token", "0.01", "--duration", "0.1") as model:
        environment = os.environ | {
            "SEAWALL_KEY": KEY,
            "SEAWALL_MODELS__DEFAULT__BASE_URL": model.url,
            "SEAWALL_SESSIONS__PATH": str(tmp_path / "s.db"),
            "SEAWALL_TOOLS__STORE__DATABASE": str(tmp_path / "t.db"),
        }
        done = run(["-c", block.replace("http://127.0.0.1:8080", server.url)], environment, ROOT)
    assert done.returncode == 0, done.stderr
    assert ("TurnCompleted" if "asyncio.run" in block else "[") in done.stdout
