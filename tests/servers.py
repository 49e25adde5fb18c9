"""Servers for tests: the command `seawall` as a process of its own."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path

from tests.fork_server import ForkedProcess, run, start
from tests.once import RUN_FOLDER

ROOT = Path(__file__).resolve().parents[1]
STORE = "examples/store/seawall.toml"


class ServerProcess:
    """A process that serves at `url`, started with an `environment`."""

    def __init__(
        self,
        url: str,
        process: "subprocess.Popen[bytes] | ForkedProcess",
        environment: Mapping[str, str],
    ) -> None:
        self.url = url
        self.process = process
        self.environment = environment

    def stop(self, seconds: float = 20.0) -> int:
        """Send SIGTERM and wait; returns the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(seconds)


def command(
    *arguments: str,
    environment: Mapping[str, str] | None = None,
    folder: Path = ROOT,
    text: str = "",
    seconds: float = 60.0,
) -> "subprocess.CompletedProcess[str]":
    """Run a command to its end, from what the fork server has imported.

    Args:
        arguments: Of `seawall`.
        environment: Added to the current environment.
        folder: Working directory.
        text: Its standard input.
        seconds: How long it may take.
    """
    return run(arguments, {**os.environ, **(environment or {})}, folder, text, seconds)


@contextmanager
def running(
    *arguments: str,
    environment: Mapping[str, str] | None = None,
    folder: Path = ROOT,
    log: Path | None = None,
    prefix: Sequence[str] = (),
) -> Iterator[ServerProcess]:
    """Run a command that announces its URL as a JSON line, until the block ends.

    A server does not warm up, unless the environment says so: that is a third of its start.

    Args:
        arguments: Of `seawall`.
        environment: Added to the current environment.
        folder: Working directory.
        log: File for its standard error; None for the current one.
        prefix: A program that runs it, with arguments. Without one the fork server starts it, from
            what is imported already.
    """
    whole = {**os.environ, "SEAWALL_SERVER__WARM_UP": "false", **(environment or {})}
    with log.open("ab") if log is not None else nullcontext() as errors:
        if prefix:
            process: subprocess.Popen[bytes] | ForkedProcess = subprocess.Popen(
                [*prefix, sys.executable, "-m", "seawall", *arguments],
                stdout=subprocess.PIPE,
                stderr=errors,
                cwd=folder,
                env=whole,
            )
        else:
            process = start(arguments, whole, folder, 2 if errors is None else errors.fileno())
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, f"{arguments[0]} ended with status {process.wait()}"
        yield ServerProcess(json.loads(line)["url"], process, whole)
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


@contextmanager
def running_model(*arguments: str) -> Iterator[ServerProcess]:
    """A simulated model."""
    with running("sim-model", "--port", "0", *arguments) as model:
        yield model


@contextmanager
def running_server(
    folder: Path,
    model: ServerProcess,
    source: str = STORE,
    log: str = "",
    prefix: Sequence[str] = (),
    **settings: str,
) -> Iterator[ServerProcess]:
    """A server with its databases in `folder`; settings are variables without SEAWALL_."""
    environment = {
        "MODELS__DEFAULT__BASE_URL": model.url,
        "SESSIONS__PATH": str(folder / "sessions.db"),
        "TOOLS__STORE__DATABASE": str(folder / "store.db"),
        "IDENTITY__ANONYMOUS": "false",
        "SERVER__PORT": "0",
        **_trained(source),
        **settings,
    }
    prefixed = {f"SEAWALL_{name}": value for name, value in environment.items()}
    errors = Path(log) if log else None
    with running(
        "serve", source, "--json", environment=prefixed, log=errors, prefix=prefix
    ) as server:
        yield server


def _trained(source: str) -> dict[str, str]:
    """Where the store's intent classifier is kept once it is trained: half of a start's time."""
    folder = os.environ.get(RUN_FOLDER, "")
    if not folder or source != STORE:
        return {}
    return {"ROUTING__CLASSIFIER_CACHE": f"{folder}/classifier.npz"}
