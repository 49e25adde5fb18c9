"""An opening that fails or is cancelled leaves nothing open."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from seawall.errors import ConfigError
from seawall.orchestrator import Orchestrator

CONFIGURATION = """
[identity.jwt]
issuer = "https://issuer.example"
audience = "shop"
jwks_url = "{issuer}"

[sessions]
path = "{folder}/sessions.db"

[models.default]
base_url = "http://127.0.0.1:9/v1"
model = "none"

[tools.closing]
factory = "{module}:make"

[agents.helper]
instructions = "You help."
tools = {tools}
"""
TOOLS = """
from pathlib import Path
from seawall import Toolset, tool


@tool
def answer() -> str:
    "Answer."
    return "42"


def make() -> Toolset:
    folder = Path(__file__).parent
    (folder / "made").touch()
    return Toolset((answer,), close=(folder / "closed").touch)
"""
KEYS = b'HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 11\r\n\r\n{"keys":[]}'


class _Issuer:
    """Answers one request for its keys, or leaves it waiting."""

    def __init__(self, answer: bytes) -> None:
        self.url = ""
        self.asked = asyncio.Event()
        self.left = asyncio.Event()
        self._answer = answer

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if await reader.read(4_096):
            self.asked.set()
            writer.write(self._answer)
            await reader.read()
        self.left.set()
        writer.close()


@asynccontextmanager
async def issuing(answer: bytes) -> AsyncIterator[_Issuer]:
    issuer = _Issuer(answer)
    async with await asyncio.start_server(issuer.serve, "127.0.0.1", 0) as server:
        issuer.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/keys"
        yield issuer


def orchestrator(folder: Path, issuer: _Issuer, tools: str) -> Orchestrator:
    module = f"closing_{folder.name.replace('-', '_')}"
    (folder / f"{module}.py").write_text(TOOLS)
    path = folder / "seawall.toml"
    path.write_text(
        CONFIGURATION.format(issuer=issuer.url, folder=folder, module=module, tools=tools)
    )
    return Orchestrator.from_config(path)


async def check_closed(folder: Path, issuer: _Issuer) -> None:
    await asyncio.wait_for(issuer.left.wait(), 10)
    assert (folder / "closed").exists()
    assert not [each for each in open_files() if each.startswith(str(folder))]


def open_files() -> list[str]:
    """Of this process; empty where the system does not list them."""
    found = []
    for each in Path("/proc/self/fd").glob("*"):
        with suppress(FileNotFoundError):  # the descriptor of the list itself
            found.append(str(each.readlink()))
    return found


@pytest.mark.parametrize("cold_start", [True, False])
async def test_a_cancelled_opening_closes_what_it_opened(tmp_path: Path, cold_start: bool) -> None:
    async with issuing(b"") as issuer:
        opening = asyncio.create_task(
            orchestrator(tmp_path, issuer, '["answer"]').open(cold_start=cold_start)
        )
        await asyncio.wait_for(issuer.asked.wait(), 10)
        async with asyncio.timeout(10):
            while not ((tmp_path / "made").exists() and (tmp_path / "sessions.db").exists()):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
        await check_closed(tmp_path, issuer)


@pytest.mark.parametrize("cold_start", [True, False])
async def test_a_failed_opening_closes_what_it_opened(tmp_path: Path, cold_start: bool) -> None:
    async with issuing(KEYS) as issuer:
        with pytest.raises(ConfigError, match="unknown tool"):
            await orchestrator(tmp_path, issuer, '["missing"]').open(cold_start=cold_start)
        await check_closed(tmp_path, issuer)


async def test_what_failed_to_open_can_be_opened_again(tmp_path: Path) -> None:
    async with issuing(KEYS) as issuer:
        tools = '["answer"]'
        broken = orchestrator(tmp_path, issuer, tools)
        (tmp_path / "sessions.db").mkdir()
        with pytest.raises(Exception, match="cannot be opened"):
            await broken.open(cold_start=True)
        (tmp_path / "sessions.db").rmdir()
        await broken.open(cold_start=True)
        assert broken.ready
        await broken.close()


async def test_what_was_learned_of_intents_outlives_a_close(tmp_path: Path) -> None:
    (tmp_path / "seawall.toml").write_text(f"""
[sessions]
path = "{tmp_path}/sessions.db"

[identity]
anonymous = true

[models.default]
base_url = "http://127.0.0.1:9/v1"
model = "none"

[intents.order]
patterns = ["order"]

[agents.helper]
instructions = "You help."
""")
    app = Orchestrator.from_config(tmp_path / "seawall.toml")
    await app.open(cold_start=True)
    detector = app.engine.detector
    await app.close()
    await app.open(cold_start=True)
    try:
        assert app.engine.detector is detector
        assert detector.detect_locally("my order").intent == "order"
    finally:
        await app.close()
