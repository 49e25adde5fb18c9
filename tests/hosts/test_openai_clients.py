"""Programs that speak OpenAI's APIs, unmodified: what works, as `docs/clients.md` says."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.hosts.openai_clients_app import PERSON
from tests.hosts.test_effects_api import keys_of_callers
from tests.parts import require, tools, ui_clients
from tests.servers import ROOT, ServerProcess, running

PROGRAM = Path(__file__).with_name("openai_clients.py")
NODE_PROGRAM = Path(__file__).with_name("openai_clients.mjs")
PAGE = ROOT / "docs/clients.md"
WEATHER = "I was answered: sunny in Oslo, sunny in Rome"
EXPECTED = {
    "text": "You said: hi",
    "history": "one | history",
    "tools": WEATHER,
    "tools streamed": WEATHER,
    "structured": PERSON,
    "structured by tool": PERSON,
    "image": "I see image/png.",
    "error": "unknown-agent",
}


def _table() -> dict[str, dict[str, str]]:
    """The cells of the page's table, by client and feature."""
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    begin = lines.index("<!-- clients -->") + 1
    head, _, *rows = (line for line in lines[begin:] if line.startswith("|"))
    names = [each.strip() for each in head.strip("|").split("|")]
    cells = [[each.strip() for each in row.strip("|").split("|")] for row in rows]
    return {row[0].strip("`"): dict(zip(names[1:], row[1:], strict=True)) for row in cells}


TABLE = _table()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("clients")
    environment = {
        "SEAWALL_SESSIONS__PATH": str(folder / "sessions.db"),
        "SEAWALL_BLOBS__PATH": str(folder / "blobs"),
        "SEAWALL_SERVER__PORT": "0",
        "SEAWALL_SERVER__WORKERS": "1",
        "SEAWALL_IDENTITY__API_KEYS": keys_of_callers(),
    }
    source = "tests.hosts.openai_clients_app:app"
    with running("serve", source, "--json", environment=environment, log=folder / "log") as server:
        yield server


@pytest.fixture(scope="module")
def seen(server: ServerProcess) -> dict[str, dict[str, Any]]:
    """What each client saw, by feature."""
    require(tools.missing_openai_clients() or ui_clients.missing())
    done = subprocess.run(
        (str(tools.openai_clients()), str(PROGRAM), f"{server.url}/v1", "sw_ann"),
        check=False,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout) | ui_clients.run(NODE_PROGRAM, server.url, "sw_ann")
    return {
        client: {name.replace("_", " "): each for name, each in features.items()}
        for client, features in found.items()
    }


def test_every_client_has_a_row(seen: dict[str, dict[str, Any]]) -> None:
    assert sorted(seen) == sorted(TABLE)


@pytest.mark.parametrize("client", TABLE)
def test_it_sees_what_the_table_says(client: str, seen: dict[str, dict[str, Any]]) -> None:
    tried = seen[client]
    assert set(tried) == {name for name, cell in TABLE[client].items() if cell != "·"}
    for feature, result in tried.items():
        assert TABLE[client][feature] == "yes", feature
        assert "seen" in result, f"{feature}: {result}"
        _check(feature, result["seen"])


def _check(feature: str, saw: Any) -> None:
    if feature == "stream":
        assert len(saw) > 1
        assert "".join(saw) == "You said: hi there"
    elif feature == "usage":
        assert saw > 0
    else:
        assert saw == EXPECTED[feature], feature
