"""MCP's own conformance suite, the scenarios of authorization, against a source of tools."""

import asyncio
import os
import sys
from pathlib import Path

import pytest

from tests.parts import mcp_clients, mcp_parts, require

ROOT = Path(__file__).resolve().parents[3]
# Not among them, and why:
# - 2025-03-26-oauth-metadata-backcompat: that version lets a client believe metadata that names
#   another issuer; later ones forbid it.
# - cross-app-access-complete-flow: an extension, for tokens of an enterprise's identity provider
#   that are exchanged twice; not offered.
SCENARIOS = (
    "metadata-default",
    "metadata-var1",
    "metadata-var2",
    "metadata-var3",
    "basic-cimd",
    "scope-from-www-authenticate",
    "scope-from-scopes-supported",
    "scope-omitted-when-undefined",
    "scope-step-up",
    "scope-retry-limit",
    "token-endpoint-auth-basic",
    "token-endpoint-auth-post",
    "token-endpoint-auth-none",
    "pre-registration",
    "resource-mismatch",
    "offline-access-scope",
    "offline-access-not-supported",
    "client-credentials-basic",
    "client-credentials-jwt",
    "2025-03-26-oauth-endpoint-fallback",
)

# Of version 2026-07-28, which only the preview of the suite knows.
PREVIEW = (
    "authorization-server-migration",
    "iss-supported",
    "iss-not-advertised",
    "iss-supported-missing",
    "iss-wrong-issuer",
    "iss-unexpected",
    "iss-normalized",
    "metadata-issuer-mismatch",
)


@pytest.mark.parametrize("scenario", SCENARIOS)
async def test_a_scenario_of_authorization(scenario: str, tmp_path: Path) -> None:
    require(mcp_parts.missing())
    await _run(mcp_parts.conformance(), scenario, tmp_path)


@pytest.mark.parametrize("scenario", PREVIEW)
async def test_a_scenario_of_the_stateless_version(scenario: str, tmp_path: Path) -> None:
    require(mcp_clients.missing())
    await _run(mcp_clients.preview(), scenario, tmp_path, "--spec-version", "2026-07-28")


async def _run(suite: tuple[str, ...], scenario: str, folder: Path, *options: str) -> None:
    program = f"{sys.executable} -m tests.identity.outbound.conformance_client"
    process = await asyncio.create_subprocess_exec(
        *(*suite, "client", "--command", program),
        *("--scenario", f"auth/{scenario}", "--timeout", "120000", *options),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env=os.environ | {"PYTHONPATH": f"{ROOT}/src:{ROOT}"},
        cwd=folder,
    )
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()
    assert "OVERALL: PASSED" in output.decode()
