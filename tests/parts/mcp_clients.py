"""The preview of MCP's conformance suite, which knows version 2026-07-28, and the MCP Inspector.

They are npm packages in `.venv/.mcp-clients`; their install scripts are not run.
"""

import shutil
import subprocess
from pathlib import Path

from tests.parts import mcp_parts

__all__ = ["inspector", "install", "missing", "preview"]

_FOLDER = Path(__file__).resolve().parents[2] / ".venv/.mcp-clients"
_MODULES = _FOLDER / "node_modules/@modelcontextprotocol"
_PACKAGES = {
    "@modelcontextprotocol/conformance": "0.2.0-alpha.12",
    "@modelcontextprotocol/inspector": "2.12.0",
}


def preview() -> tuple[str, ...]:
    """The command of the conformance suite."""
    return _node(), str(_MODULES / "conformance/dist/index.js")


def inspector() -> tuple[str, ...]:
    """The command of the Inspector."""
    return _node(), str(_MODULES / "inspector/clients/launcher/build/index.js")


def missing() -> str:
    """Why they cannot run here; empty if they can."""
    there = all((_FOLDER / "node_modules" / name).is_dir() for name in _PACKAGES)
    return mcp_parts.missing() or ("" if there else "MCP's clients are not installed: make parts")


def install() -> None:
    """Install what is missing."""
    npm = shutil.which("npm")
    if not missing() or npm is None:
        return
    _FOLDER.mkdir(parents=True, exist_ok=True)
    wanted = [f"{name}@{version}" for name, version in _PACKAGES.items()]
    options = ("--silent", "--ignore-scripts", "--no-audit", "--no-fund", "--no-save")
    subprocess.run(
        (npm, "install", *options, "--prefix", str(_FOLDER), *wanted),
        check=False,
        stdout=subprocess.DEVNULL,
    )


def _node() -> str:
    return mcp_parts.conformance()[0]
