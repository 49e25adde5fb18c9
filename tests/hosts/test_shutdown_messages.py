"""A server that stops says so, with what it did; its logs contain no terminal control sequences."""

import json
import logging
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from seawall.hosts.json_lines import JsonFormatter
from tests.fork_server import ForkedProcess, start

CONFIG = """
[identity]
anonymous = true
[sessions]
path = "s.db"
[models.default]
base_url = "http://127.0.0.1:1/v1"
model = "m"
[agents.one]
instructions = "Help."
"""


@contextmanager
def started(words: list[str], folder: Path, **environment: str) -> Iterator[ForkedProcess]:
    """A server that runs in a folder, whose file `errors` has its standard error."""
    with (folder / "errors").open("wb") as errors:
        process = start(words, os.environ | environment, folder, errors.fileno())
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize("form", ["text", "json"])
def test_a_shutdown_is_announced_with_counts(workers: str, form: str, tmp_path: Path) -> None:
    (tmp_path / "seawall.toml").write_text(CONFIG)
    words = ["serve", "--port", "0", "--workers", workers, *(["--json"] if form == "json" else [])]
    with started(words, tmp_path) as process:
        assert process.stdout is not None
        ready = process.stdout.readline().decode()
        url = json.loads(ready)["url"] if form == "json" else ready.split()[4]
        request = urllib.request.Request(f"{url}/v1/turns", b'{"text": "Hello"}')
        with pytest.raises(urllib.error.HTTPError):  # there is no model
            urllib.request.urlopen(request)
        time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        status, out = process.wait(30), process.stdout.read().decode()
    assert status == 0
    assert "Traceback" not in (tmp_path / "errors").read_text()
    if form == "json":
        first, last = (json.loads(line) for line in out.splitlines())
        assert first == {"stopping": True, "in_flight": 0, "seconds": 30.0}
        assert last == {"stopped": True, "completed": 0, "failed": 1}
    else:
        assert out.splitlines() == [
            "Seawall is shutting down: 0 turns in flight",
            "Seawall has stopped: 0 turns completed, 1 failed",
        ]


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize("signals", [1, 2])
def test_a_shutdown_during_the_start(workers: str, signals: int, tmp_path: Path) -> None:
    """What is being opened is waited for no longer, and it is never said to be ready."""
    with socket.create_server(("127.0.0.1", 0)) as hangs:
        hangs.settimeout(10)
        (tmp_path / "seawall.toml").write_text(
            CONFIG.replace(
                'path = "s.db"',
                'store = "dynamodb"\ntable = "sessions"\nregion = "eu-west-1"\n'
                f'endpoint = "http://127.0.0.1:{hangs.getsockname()[1]}"',
            )
        )
        credentials = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
        words = ["serve", "--port", "0", "--workers", workers]
        with started(words, tmp_path, **credentials) as process:
            connection, _ = hangs.accept()
            with connection:
                time.sleep(0.2)
                began = time.monotonic()
                for _ in range(signals):
                    process.send_signal(signal.SIGTERM)
                    time.sleep(0.2)
                status = process.wait(30)
            took = time.monotonic() - began
            assert process.stdout is not None
            out = process.stdout.read().decode()
    errors = (tmp_path / "errors").read_text()
    assert status == 0, errors
    assert "store cannot be used" not in errors
    assert took < 3.0
    assert "listening on" not in out
    assert out.splitlines()[-1] == "Seawall has stopped: 0 turns completed, 0 failed"


def test_a_message_is_one_line_of_the_log_whatever_is_in_it() -> None:
    program = (
        "import logging\n"
        "from seawall.hosts.logs import set_up_logs\n"
        "set_up_logs({})\n"
        "logging.getLogger('a').error('said %s', 'x\\n2026 ERROR b: forged\\x1b[2J\\u202e')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stderr.count("\n") == 1
    assert done.stderr.endswith(r"ERROR a: said x\n2026 ERROR b: forged\x1b[2J\u202e" + "\n")


def test_json_logs_have_no_coloured_copy_of_uvicorns_messages() -> None:
    record = logging.LogRecord("uvicorn.error", logging.INFO, "", 0, "Started %d", (7,), None)
    record.color_message = "Started \x1b[36m%d\x1b[0m"
    record.turn = "t1"
    line = json.loads(JsonFormatter().format(record))
    assert (line["message"], line["turn"]) == ("Started 7", "t1")
    assert "color_message" not in line
