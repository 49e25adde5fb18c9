"""MCP's own conformance suite against the client."""

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fork_server import shell_command
from tests.parts import mcp_clients, mcp_parts, require

ROOT = Path(__file__).resolve().parents[3]
CLIENT = "import runpy; runpy.run_module('tests.tools.mcp.conformance_client', run_name='__main__')"

# The scenarios of authorization are in tests/identity.
RELEASED = ("initialize", "tools_call", "sse-retry")
# Of version 2026-07-28.
PREVIEW = (
    "tools_call",
    "request-metadata",
    "sep-2322-client-request-state",
    "http-standard-headers",
    "http-custom-headers",
    "http-invalid-tool-headers",
    "json-schema-ref-no-deref",
    "json-schema-2020-12-preservation",
)


@pytest.mark.parametrize("scenario", RELEASED)
async def test_a_scenario_of_the_suite(scenario: str, tmp_path: Path) -> None:
    await _run(mcp_parts.conformance, tmp_path, "--scenario", scenario)


@pytest.mark.parametrize("scenario", PREVIEW)
async def test_a_scenario_of_the_stateless_version(scenario: str, tmp_path: Path) -> None:
    options = ("--scenario", scenario, "--spec-version", "2026-07-28")
    await _run(mcp_clients.preview, tmp_path, *options)


async def test_the_defaults_of_a_form(tmp_path: Path) -> None:
    """The first call is cancelled, because the turn pauses; the second one gets the defaults."""
    scenario = "elicitation-sep1034-client-defaults"
    output = await _output(mcp_parts.conformance, tmp_path, "--scenario", scenario)
    assert "Passed: 5/6" in output
    assert "Expected action 'accept', got 'cancel'" in output


async def _run(suite: Callable[[], tuple[str, ...]], folder: Path, *options: str) -> None:
    output = await _output(suite, folder, *options)
    assert "OVERALL: PASSED" in output, output
    assert "0 failed, 0 warnings" in output


async def _output(suite: Callable[[], tuple[str, ...]], folder: Path, *options: str) -> str:
    require(mcp_clients.missing())
    command = str(shell_command(folder, name="client", arguments=["-c", CLIENT]))
    process = await asyncio.create_subprocess_exec(
        *suite(),
        *("client", "--command", command, *options),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env=os.environ | {"PYTHONPATH": f"{ROOT}/src:{ROOT}"},
        cwd=folder,
    )
    output, _ = await process.communicate()
    return output.decode()
