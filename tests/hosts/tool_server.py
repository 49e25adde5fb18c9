"""The server of `tool_app` for tests, and what they ask it."""

import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2

from tests.fork_server import WORKER
from tests.servers import ServerProcess, running

SOURCE = "tests.hosts.tool_app:app"


@contextmanager
def tool_server(folder: Path, **settings: str) -> Iterator[ServerProcess]:
    """The server; settings as SEAWALL_ variables without prefix. Its log is in `folder`."""
    given = {
        "SESSIONS__PATH": str(folder / "sessions.db"),
        "SERVER__PORT": "0",
        "SERVER__WORKERS": "1",
        **settings,
    }
    environment = {name if name == "TMPDIR" else f"SEAWALL_{name}": given[name] for name in given}
    with running("serve", SOURCE, "--json", environment=environment, log=folder / "log") as server:
        yield server


def log_of(folder: Path) -> str:
    return (folder / "log").read_text()


def ask(server: ServerProcess, *attempts: list[Any], key: str = "", **more: Any) -> httpx2.Response:
    """A turn whose model does these steps, at the first attempt, the second, ..."""
    headers = {"idempotency-key": key} if key else {}
    body = {"text": json.dumps({"attempts": attempts}), **more}
    return httpx2.post(f"{server.url}/v1/turns", json=body, headers=headers, timeout=20)


def outcomes(server: ServerProcess, *calls: tuple[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """What the tools answered that a turn called, all in one step."""
    asked = ask(server, [[[name, json.dumps(arguments)] for name, arguments in calls], "done"])
    assert asked.status_code == 200, asked.text
    session = httpx2.get(f"{server.url}/v1/sessions/{asked.json()['session']}", timeout=10).json()
    messages = session["turns"][0]["messages"]
    return [{"failed": False, **each} for each in messages if each["role"] == "tool"]


def pid_of(server: ServerProcess) -> int:
    """The process that answered."""
    (result,) = outcomes(server, ("healthy", {}))
    return int(result["content"])


def workers(server: ServerProcess) -> set[int]:
    """The processes that the supervisor has started."""
    supervisor = server.process.pid
    children = Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text().split()
    names = {int(each): Path(f"/proc/{each}/comm").read_text().strip() for each in children}
    return {each for each, name in names.items() if name == WORKER}


@contextmanager
def stopped(*processes: int) -> Iterator[None]:
    """SIGSTOP while the block runs; then SIGCONT to those that still are."""
    for each in processes:
        os.kill(each, signal.SIGSTOP)
    try:
        yield
    finally:
        for each in processes:
            if Path(f"/proc/{each}").exists():
                os.kill(each, signal.SIGCONT)
