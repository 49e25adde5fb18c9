"""One server and its simulated model for all tests here; a slow pair for those that interrupt."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import httpx2
import msgspec
import pytest

from tests.issuer import AUDIENCE, ISSUER, Issuer
from tests.servers import ROOT, ServerProcess, running_model, running_server

API_KEY = "sw_a-key-for-tests"


class Pair:
    """A server, the model behind it, the issuer of its tokens, and the folder of its data."""

    def __init__(
        self, server: ServerProcess, model: ServerProcess, issuer: Issuer, folder: Path
    ) -> None:
        self.server = server
        self.model = model
        self.issuer = issuer
        self.database = folder / "sessions.db"

    @property
    def url(self) -> str:
        return self.server.url

    def client(self, subject: str = "ada", token: str | None = None) -> httpx2.Client:
        bearer = self.issuer.token(subject) if token is None else token
        return httpx2.Client(
            base_url=self.url, headers={"authorization": f"Bearer {bearer}"}, timeout=20
        )

    def model_stats(self) -> dict[str, int]:
        root = self.model.url.removesuffix("/v1")
        stats: dict[str, int] = httpx2.get(f"{root}/sim/stats", timeout=10).json()
        return stats


def identity(folder: Path, issuer: Issuer) -> dict[str, str]:
    (folder / "jwks.json").write_bytes(issuer.key_set())
    digest = hashlib.sha256(API_KEY.encode()).hexdigest()
    return {
        "IDENTITY__JWT__ISSUER": ISSUER,
        "IDENTITY__JWT__AUDIENCE": AUDIENCE,
        "IDENTITY__JWT__JWKS_FILE": str(folder / "jwks.json"),
        "IDENTITY__API_KEYS": f'[{{sha256 = "{digest}", tenant = "acme", subject = "shop"}}]',
    }


@pytest.fixture(scope="session")
def issuer() -> Issuer:
    issuer = Issuer()
    issuer.add("one")
    return issuer


@pytest.fixture(scope="session")
def pair(tmp_path_factory: pytest.TempPathFactory, issuer: Issuer) -> Iterator[Pair]:
    folder = tmp_path_factory.mktemp("pair")
    script = ROOT / "examples/store/conversation.json"
    quick = ("--first-token", "0.01..0.02", "--duration", "0.1..0.2", "--script", str(script))
    with (
        running_model(*quick) as model,
        running_server(
            folder,
            model,
            SERVER__WORKERS="2",
            SERVER__WARM_UP="true",
            **identity(folder, issuer),
        ) as server,
    ):
        yield Pair(server, model, issuer, folder)


@pytest.fixture
def slow(tmp_path: Path, issuer: Issuer) -> Iterator[Pair]:
    with (
        running_model("--first-token", "0.05", "--duration", "30", "--chunks", "300") as model,
        running_server(
            tmp_path,
            model,
            SERVER__WORKERS="1",
            SERVER__BODY_SECONDS="0.5",
            SERVER__HEADER_SECONDS="0.5",
            SERVER__DRAIN_SECONDS="2",
            ADMISSION__IN_FLIGHT="3",
            ADMISSION__QUEUED="2",
            **identity(tmp_path, issuer),
        ) as server,
    ):
        yield Pair(server, model, issuer, tmp_path)


def events(text: str) -> list[dict[str, object]]:
    """The data of a stream of server-sent events."""
    found = [line[6:] for line in text.splitlines() if line.startswith("data: ")]
    return [msgspec.json.decode(each) for each in found]
