"""`seawall tools login` as a person runs it, with a browser that follows where it is sent."""

import asyncio
import json
import os
import re
import sys
from pathlib import Path

import pytest

from tests.identity.outbound.provider import Provider, running_provider, sign_in
from tests.identity.outbound.resource import running_resource
from tests.identity.outbound.test_mcp_authorization import RESOURCES, come_back

CONFIG = """
[models.default]
base_url = "http://127.0.0.1:1"
model = "m"
[agents.helper]
instructions = "Help."
[tools.crm]
mcp = "{url}"
[tools.crm.auth]
kind = "mcp"
grant = "login"
login_file = "crm-login.json"
"""


async def command(folder: Path, *arguments: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "seawall", "tools", "login", *arguments),
        cwd=folder,
        env={**os.environ, "NO_COLOR": "1"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def sign_in_at(provider: Provider, folder: Path) -> None:
    async with running_resource(provider) as server:
        (folder / "seawall.toml").write_text(CONFIG.format(url=server.url))
        process = await command(folder, "crm", "--no-browser")
        assert process.stderr is not None
        asked = ""
        while not (found := re.search(r"^  (http\S+)$", asked, re.MULTILINE)):
            line = await process.stderr.readline()
            assert line, asked
            asked += line.decode()
        await come_back(await sign_in(found[1]))
        said, _ = await process.communicate()
        assert process.returncode == 0
        assert said.decode() == f"crm-login.json: signed in to {server.url}\n"
        kept = json.loads((folder / "crm-login.json").read_text())
        assert kept["refresh_token"]
        assert kept["resource"] == server.url


async def test_signing_in(tmp_path: Path) -> None:
    with running_provider(clients=[], resources=RESOURCES, registration=True) as provider:
        await sign_in_at(provider, tmp_path)


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (("crn",), 2, "there is no source of tools 'crn'; did you mean \"crm\""),
        (("crm", "--tenant", "acme"), 2, "there is no table [tenants.acme.tools.crm.auth]"),
        (("crm",), 1, "127.0.0.1:1"),
    ],
)
async def test_what_cannot_be_signed_in_to(
    tmp_path: Path, arguments: tuple[str, ...], status: int, said: str
) -> None:
    (tmp_path / "seawall.toml").write_text(CONFIG.format(url="http://127.0.0.1:1/mcp"))
    process = await command(tmp_path, *arguments)
    _, errors = await process.communicate()
    assert process.returncode == status
    assert said in errors.decode()
