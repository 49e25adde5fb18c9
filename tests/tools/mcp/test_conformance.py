"""MCP's own conformance suite against the client."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fork_server import shell_command
from tests.parts import mcp_clients, mcp_parts, require
from tests.parts.mcp_suite import Suites, running_suites

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


@pytest.fixture(scope="module")
def suites() -> Iterator[Suites]:
    require(mcp_clients.missing())
    with running_suites() as suites:
        yield suites


@pytest.mark.parametrize("scenario", RELEASED)
def test_a_scenario_of_the_suite(scenario: str, suites: Suites, tmp_path: Path) -> None:
    _check_passed(_output(suites, mcp_parts.conformance(), tmp_path, "--scenario", scenario))


@pytest.mark.parametrize("scenario", PREVIEW)
def test_a_scenario_of_the_stateless_version(scenario: str, suites: Suites, tmp_path: Path) -> None:
    options = ("--scenario", scenario, "--spec-version", "2026-07-28")
    _check_passed(_output(suites, mcp_clients.preview(), tmp_path, *options))


def test_the_defaults_of_a_form(suites: Suites, tmp_path: Path) -> None:
    """The first call is cancelled, because the turn pauses; the second one gets the defaults."""
    scenario = "elicitation-sep1034-client-defaults"
    output = _output(suites, mcp_parts.conformance(), tmp_path, "--scenario", scenario)
    assert "Passed: 5/6" in output
    assert "Expected action 'accept', got 'cancel'" in output


def _check_passed(output: str) -> None:
    assert "OVERALL: PASSED" in output, output
    assert "0 failed, 0 warnings" in output


def _output(suites: Suites, suite: tuple[str, ...], folder: Path, *options: str) -> str:
    command = str(shell_command(folder, name="client", arguments=["-c", CLIENT]))
    _, output = suites.run(suite, folder, "client", "--command", command, *options)
    return output
