"""Clients of the protocols of user interfaces: the AI SDK and AG-UI's client.

They are npm packages in `.venv/.ui-clients`; their install scripts are not run. The AI SDK needs a
newer Node.js than Debian has: that of `mcp_parts`.
"""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

from tests.parts import mcp_parts

__all__ = ["install", "missing", "run"]

_FOLDER = Path(__file__).resolve().parents[2] / ".venv/.ui-clients"
_MODULES = _FOLDER / "node_modules"
_PACKAGES = {
    "ai": "7.0.173",
    "@ai-sdk/openai-compatible": "3.0.92",
    "@ag-ui/client": "1.0.0",
    "zod": "4.6.7",
}


def run(program: Path, url: str, key: str, *arguments: str) -> dict[str, Any]:
    """What a program of a client printed, as JSON.

    Args:
        program: An ES module; its imports are those of the packages.
        url: Of the server.
        key: The client's API key.
        arguments: More of the program's.
    """
    # An ES module is resolved from where its file is.
    copied = _FOLDER / f"{program.stem}-{os.getpid()}.mjs"
    copied.write_text(program.read_text(encoding="utf-8"), encoding="utf-8")
    try:
        done = subprocess.run(
            (mcp_parts.conformance()[0], str(copied), url, key, *arguments),
            check=False,
            capture_output=True,
            text=True,
            timeout=60,
        )
    finally:
        copied.unlink()
    assert done.returncode == 0, done.stdout + done.stderr
    printed: dict[str, Any] = json.loads(done.stdout)
    return printed


def missing() -> str:
    """Why they cannot run here; empty if they can."""
    there = all((_MODULES / name).is_dir() for name in _PACKAGES)
    return mcp_parts.missing() or ("" if there else "The AI SDK is not installed: make parts")


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
