"""A server of two workers whose console is for roles, and one that is for this machine."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest

from tests.console.app import MARKUP
from tests.servers import ServerProcess, running

KEYS = {
    "sw_customer": ("acme", "ada", ()),
    "sw_hostile": (f"{MARKUP}", f"{MARKUP}", ()),
    "sw_looks": ("ops", "leo", ("watch",)),
    "sw_reads": ("ops", "rita", ("support",)),
    "sw_operates": ("ops", "olga", ("operator",)),
    "sw_with.two.dots": ("ops", "otto", ("watch",)),
}


@contextmanager
def serving(folder: Path, **settings: str) -> Iterator[ServerProcess]:
    environment = {"SESSIONS__PATH": str(folder / "sessions.db"), "SERVER__PORT": "0", **settings}
    prefixed = {f"SEAWALL_{name}": value for name, value in environment.items()}
    source, log = "tests.console.app:app", folder / "log"
    with running("serve", source, "--json", environment=prefixed, log=log) as server:
        yield server


def keys() -> str:
    """The setting `identity.api_keys`."""
    entries = []
    for key, (tenant, subject, roles) in KEYS.items():
        digest = hashlib.sha256(key.encode()).hexdigest()
        named = ", ".join(f"'{each}'" for each in roles)
        entries.append(
            f"{{sha256 = '{digest}', tenant = '''{tenant}''', subject = '''{subject}''', "
            f"roles = [{named}]}}"
        )
    return f"[{', '.join(entries)}]"


class Console:
    """A server whose console is for roles, and the folder of its data and log."""

    def __init__(self, server: ServerProcess, folder: Path) -> None:
        self.url = server.url
        self.process = server.process
        self.folder = folder

    def client(self, key: str = "") -> httpx2.Client:
        """A client that sends a key with each request; on a connection of its own each time."""
        headers = {"authorization": f"Bearer {key}"} if key else {}
        return httpx2.Client(
            base_url=self.url,
            headers={**headers, "connection": "close"},
            timeout=20,
        )

    def turn(self, key: str = "sw_customer", text: str = "What is a tide?") -> dict[str, str]:
        """Run a turn."""
        with self.client(key) as client:
            answered = client.post("/v1/turns", json={"text": text})
        assert answered.status_code == 200, answered.text
        turn: dict[str, str] = answered.json()
        return turn


@pytest.fixture(scope="session")
def console(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Console]:
    folder = tmp_path_factory.mktemp("console")
    (folder / "reports").mkdir()
    with serving(
        folder,
        SERVER__WORKERS="2",
        IDENTITY__API_KEYS=keys(),
        CONSOLE__ENABLED="true",
        CONSOLE__LOOK="['watch']",
        CONSOLE__READ="['support']",
        CONSOLE__REPORTS=str(folder / "reports"),
        SERVER__CORS__ORIGINS='["https://shop.example"]',
        SERVER__CORS__CREDENTIALS="true",
    ) as server:
        yield Console(server, folder)


@pytest.fixture(scope="session")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Console]:
    folder = tmp_path_factory.mktemp("local")
    with serving(folder, SERVER__WORKERS="1", IDENTITY__ANONYMOUS="true") as server:
        yield Console(server, folder)
