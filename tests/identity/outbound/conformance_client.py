"""The client that MCP's conformance suite runs for its scenarios `auth/...`: a source of tools.

    python -m tests.identity.outbound.conformance_client URL

The suite names the scenario in MCP_CONFORMANCE_SCENARIO, and what an operator would know in
MCP_CONFORMANCE_CONTEXT. Where a person has to sign in, this program is the person as well.
"""

import asyncio
import io
import json
import logging
import os
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

import msgspec

from seawall.identity.outbound.open import open_login
from seawall.identity.outbound.settings import McpAuth
from seawall.tools.port import ToolContext
from seawall.tools.settings import McpSettings
from seawall.tools.sources import open_catalog
from seawall.transport.http_client import BufferedResponse, Endpoint, HttpClient
from seawall.turn import Principal

CIMD = "https://conformance-test.local/client-metadata.json"
ENVIRONMENT = {"SECRET": "", "PATH": os.environ["PATH"]}
_SIGN_INS = 3  # with more scopes each time


async def get(url: str) -> BufferedResponse:
    """Get an address."""
    http = HttpClient()
    deadline = asyncio.get_running_loop().time() + 10
    try:
        return await http.request("GET", Endpoint.parse(url), deadline=deadline)
    finally:
        await http.close()


async def issuers_of(url: str) -> list[str]:
    """The authorization servers that an operator of this server knows."""
    root, _, path = url.removeprefix("http://").partition("/")
    for address in (f"http://{root}/.well-known/oauth-protected-resource/{path}",):
        answer = await get(address)
        if answer.status == 200:
            servers: list[str] = json.loads(answer.body)["authorization_servers"]
            return servers
    return []


async def table_of(url: str, scenario: str, known: dict[str, Any], folder: Path) -> dict[str, Any]:
    """What an operator would configure."""
    table: dict[str, Any] = {"kind": "mcp", "timeout_seconds": 10.0}
    if "client_id" in known:
        table |= {"client_id": known["client_id"], "issuers": await issuers_of(url)}
    if "client_secret" in known:
        ENVIRONMENT["SECRET"] = known["client_secret"]
        table["client_secret_env"] = "SECRET"
    if "private_key_pem" in known:
        key = folder / "key.pem"
        key.write_text(known["private_key_pem"])
        table["private_key_file"] = str(key)
    if "client-credentials" not in scenario:
        table |= {"grant": "login", "login_file": str(folder / "login.json")}
        table["default_endpoints"] = scenario == "auth/2025-03-26-oauth-endpoint-fallback"
        if scenario == "auth/basic-cimd":
            table["client_id"] = CIMD
    return table


async def sign_in(table: dict[str, Any], url: str) -> None:
    """`seawall tools login`, by a browser that is sent back at once."""
    browsers = []

    async def browse(address: str) -> None:
        back = await get(address)
        assert back.status in (302, 303), back
        await get(back.headers["location"])

    settings = msgspec.convert(table, McpAuth)
    await open_login(
        settings,
        url,
        key="tools.server.auth",
        show=lambda address: browsers.append(asyncio.create_task(browse(address))),
        environment=ENVIRONMENT,
    )
    await asyncio.gather(*browsers)


async def use(table: dict[str, Any], url: str) -> str:
    """List the server's tools and call each; what is logged if that fails, or nothing."""
    log = io.StringIO()
    logging.basicConfig(stream=log, force=True)
    settings = McpSettings(mcp=url, auth=msgspec.convert(table, McpAuth), pin="off")
    catalog = open_catalog({"server": settings}, folder="", environment=ENVIRONMENT)
    try:
        await catalog.list_all()
        if catalog.unavailable:
            return log.getvalue()
        for tool in catalog.tools["server"]:
            context = ToolContext(
                principal=Principal("tenant", "subject"),
                session="session",
                turn="turn",
                agent="agent",
                call="call",
                idempotency_key="key",
                deadline=asyncio.get_running_loop().time() + 10,
                state={},
            )
            outcome = await tool.call("{}", context)
            if outcome.failed:
                return outcome.content + log.getvalue()
    finally:
        await catalog.close()
    return ""


async def main(url: str) -> int:
    """Run the scenario; 1 if the server was not used in the end."""
    scenario = os.environ["MCP_CONFORMANCE_SCENARIO"]
    known = json.loads(os.environ.get("MCP_CONFORMANCE_CONTEXT") or "{}")
    with tempfile.TemporaryDirectory() as folder:
        table = await table_of(url, scenario, known, Path(folder))
        said = ""
        for _ in range(_SIGN_INS):
            if table.get("grant") == "login":
                await sign_in(table, url)
            said = await use(table, url)
            more = re.search(r'set scope = "([^"]+)"', said)
            if more is not None and more[1] != table.get("scope"):
                table["scope"] = more[1]
            elif "sign in with seawall tools login" not in said:
                break
    if said:
        sys.stderr.write(f"{said}\n")
    return int(bool(said))


if __name__ == "__main__":
    sys.exit(asyncio.run(main(sys.argv[-1])))
