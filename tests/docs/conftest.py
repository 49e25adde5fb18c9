"""One server for all pages."""

import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec import Struct

from tests.servers import ROOT, running_model, running_server

KEY = "sw_a-key-of-the-docs"


class Site(Struct, frozen=True):
    """url: the server's. environment: of a shell whose `seawall` finds the server's store."""

    url: str
    environment: dict[str, str]


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("docs")
    digest = hashlib.sha256(KEY.encode()).hexdigest()
    script = str(ROOT / "examples/store/conversation.json")
    fast = ("--first-token", "0.01", "--duration", "0.1", "--script", script)
    with (
        running_model(*fast) as model,
        running_server(
            folder,
            model,
            SERVER__WORKERS="1",
            IDENTITY__ANONYMOUS="true",
            BLOBS__PATH=str(folder / "files"),
            IDENTITY__API_KEYS=f'[{{sha256 = "{digest}", tenant = "shop", subject = "me"}}]',
        ) as server,
    ):
        yield Site(
            server.url,
            {
                "SEAWALL_KEY": KEY,
                "SEAWALL_SESSIONS__PATH": str(folder / "sessions.db"),
                "SEAWALL_BLOBS__PATH": str(folder / "files"),
                "SEAWALL_MODELS__DEFAULT__BASE_URL": model.url,
                "SEAWALL_TOOLS__STORE__DATABASE": str(folder / "own-store.db"),
            },
        )


@pytest.fixture
def desk(tmp_path: Path) -> Path:
    """A folder with the store's configuration in it, to work in."""
    shutil.copy(ROOT / "examples/store/seawall.toml", tmp_path / "seawall.toml")
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    return tmp_path
