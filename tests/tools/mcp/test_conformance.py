"""MCP's own conformance suite against the client."""

import asyncio
import os
import sys
from pathlib import Path

import pytest

from tests.parts import mcp_parts, require

CLIENT = Path(__file__).parent / "conformance_client.py"
ROOT = CLIENT.parents[3]


# elicitation-sep1034-client-defaults does not apply: this client does not offer elicitation to
# servers of that version. The scenarios of authorization are in tests/identity.
@pytest.mark.parametrize("scenario", ["initialize", "tools_call", "sse-retry"])
async def test_a_scenario_of_the_suite(scenario: str, tmp_path: Path) -> None:
    require(mcp_parts.missing())
    command = f"{sys.executable} {CLIENT}"
    process = await asyncio.create_subprocess_exec(
        *mcp_parts.conformance(),
        *("client", "--command", command, "--scenario", scenario),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env=os.environ | {"PYTHONPATH": f"{ROOT}/src:{ROOT}"},
        cwd=tmp_path,
    )
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()
    assert "OVERALL: PASSED" in output.decode()
