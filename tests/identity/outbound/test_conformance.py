"""MCP's own conformance suite, the scenarios of authorization, against a source of tools."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fork_server import shell_command
from tests.parts import mcp_clients, mcp_parts, require
from tests.parts.mcp_suite import Suites, running_suites

CLIENT = (
    "import runpy;"
    "runpy.run_module('tests.identity.outbound.conformance_client', run_name='__main__')"
)
# Not among them, and why:
# - 2025-03-26-oauth-metadata-backcompat: that version lets a client believe metadata that names
#   another issuer; later ones forbid it.
# - cross-app-access-complete-flow: an extension, for tokens of an enterprise's identity provider
#   that are exchanged twice; not offered.
SUITE = (
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
)
NOT_IN_SUITE = (
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


@pytest.fixture(scope="module")
def suites() -> Iterator[Suites]:
    require(mcp_clients.missing())
    with running_suites() as suites:
        yield suites


@pytest.fixture(scope="module")
def summary(suites: Suites, tmp_path_factory: pytest.TempPathFactory) -> str:
    """What the suite prints of all its scenarios."""
    folder = tmp_path_factory.mktemp("suite")
    return _run(suites, mcp_parts.conformance(), folder, "--suite", "auth")


def test_the_suite_has_these_scenarios(summary: str) -> None:
    found = re.findall(r"^. auth/([\w-]+): ", summary, re.MULTILINE)
    assert sorted(found) == sorted(SUITE)


@pytest.mark.parametrize("scenario", SUITE)
def test_a_scenario_of_the_suite(scenario: str, summary: str) -> None:
    passed = rf"^✓ auth/{scenario}: [1-9]\d* passed, 0 failed$"
    assert re.search(passed, summary, re.MULTILINE), summary
    assert "0 failed, 0 warnings" in summary


@pytest.mark.parametrize("scenario", NOT_IN_SUITE)
def test_another_scenario_of_authorization(scenario: str, suites: Suites, tmp_path: Path) -> None:
    options = ("--scenario", f"auth/{scenario}")
    assert "OVERALL: PASSED" in _run(suites, mcp_parts.conformance(), tmp_path, *options)


@pytest.mark.parametrize("scenario", PREVIEW)
def test_a_scenario_of_the_stateless_version(scenario: str, suites: Suites, tmp_path: Path) -> None:
    options = ("--scenario", f"auth/{scenario}", "--spec-version", "2026-07-28")
    assert "OVERALL: PASSED" in _run(suites, mcp_clients.preview(), tmp_path, *options)


def _run(suites: Suites, suite: tuple[str, ...], folder: Path, *options: str) -> str:
    """What the suite's program prints."""
    program = str(shell_command(folder, name="client", arguments=["-c", CLIENT]))
    options = ("client", "--command", program, *options, "--timeout", "120000")
    status, output = suites.run(suite, folder, *options)
    assert status == 0, output
    return output
