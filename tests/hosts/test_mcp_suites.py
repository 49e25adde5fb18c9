"""Agents as tools, by the protocol's own conformance suite and by the MCP Inspector.

`docs/mcp-server.md` lists the scenarios that apply, and why the others do not.
"""

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hosts.test_mcp import TOOLS, serving
from tests.parts import mcp_clients, mcp_parts, require
from tests.servers import ROOT, ServerProcess

PAGE = (ROOT / "docs/mcp-server.md").read_text()
# They call a tool that cannot answer without sampling, which agents never need.
LEFT_OUT = {"sep-2575-server-rejects-undeclared-capability", "sep-2575-missing-capability-http-400"}


def listed(introduction: str) -> set[str]:
    """The scenarios in the first column of the table after a sentence of the page."""
    table = PAGE.partition(introduction)[2].partition("| --- | --- |\n")[2].partition("\n\n")[0]
    first = [line.split("|")[1] for line in table.splitlines()]
    return {name for cell in first for name in re.findall(r"`([\w-]+)`", cell)}


APPLY = listed("These scenarios apply, and pass:")
DO_NOT_APPLY = listed("These do not:")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    require(mcp_clients.missing())
    folder = tmp_path_factory.mktemp("mcp-suites")
    with serving(folder, IDENTITY__ANONYMOUS="true") as server:
        yield server


def scenario_of(folder: str) -> str:
    """The scenario whose results a folder has."""
    found = re.fullmatch(r"server-(.+?)-\d{4}-\d\d-\d\dT.*", folder)
    assert found, folder
    return found[1]


@pytest.mark.parametrize(
    ("suite", "version"), [("0.1.16", ""), ("preview", "2025-11-25"), ("preview", "2026-07-28")]
)
def test_every_scenario_that_applies_passes(
    server: ServerProcess, tmp_path: Path, suite: str, version: str
) -> None:
    command = mcp_parts.conformance() if suite == "0.1.16" else mcp_clients.preview()
    options = ["--suite", "all", "-o", str(tmp_path)]
    if version:
        options += ["--spec-version", version]
    done = subprocess.run(
        [*command, "server", "--url", f"{server.url}/mcp", *options],
        check=False,
        capture_output=True,
        text=True,
        timeout=240,
    )
    results = {
        scenario_of(each.name): json.loads((each / "checks.json").read_text())
        for each in tmp_path.iterdir()
    }
    assert results.keys() & APPLY, done.stdout + done.stderr
    assert results.keys() <= APPLY | DO_NOT_APPLY
    failed = {
        name: [
            f"{check['id']}: {check.get('errorMessage')}"
            for check in checks
            if check["status"] in ("FAILURE", "WARNING") and check["id"] not in LEFT_OUT
        ]
        for name, checks in results.items()
    }
    assert {name: each for name, each in failed.items() if each and name in APPLY} == {}
    assert {name for name, each in failed.items() if not each} <= APPLY  # the list is up to date


def test_each_scenario_is_listed_once() -> None:
    assert len(APPLY) > 10
    assert not APPLY & DO_NOT_APPLY


def test_the_inspector_lists_and_calls(server: ServerProcess) -> None:
    def inspect(*arguments: str) -> dict[str, object]:
        command = (*mcp_clients.inspector(), "--cli", f"{server.url}/mcp", "--transport", "http")
        done = subprocess.run(
            [*command, *arguments],
            check=False,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        read: dict[str, object] = json.loads(done.stdout)
        return read

    tools = inspect("--method", "tools/list")["tools"]
    assert isinstance(tools, list)
    assert [each["name"] for each in tools[: len(TOOLS)]] == TOOLS
    call = ("--method", "tools/call", "--tool-name", "reader", "--tool-arg", "message=hello")
    answered = inspect(*call)["structuredContent"]
    assert isinstance(answered, dict)
    assert (answered["status"], answered["answer"]) == ("completed", "hello")
