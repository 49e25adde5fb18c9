"""Clients in JavaScript: OpenAI's, the AI SDK with its providers, and AG-UI's.

They are npm packages in `.venv/.ui-clients`; their install scripts are not run. The AI SDK needs a
newer Node.js than Debian has: that of `mcp_parts`.
"""

import json
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from tests.parts import mcp_parts

__all__ = ["install", "missing", "run", "run_text"]

_FOLDER = Path(__file__).resolve().parents[2] / ".venv/.ui-clients"
_MODULES = _FOLDER / "node_modules"
_PACKAGES = {
    "ai": "7.0.173",
    "@ai-sdk/open-responses": "2.0.36",
    "@ai-sdk/openai": "4.0.118",
    "@ai-sdk/openai-compatible": "3.0.92",
    "@ai-sdk/react": "4.0.177",
    "react": "19.3.1",
    "@ag-ui/client": "1.0.0",
    "openai": "7.59.0",
    "zod": "4.6.7",
}


def run(program: Path, url: str, key: str) -> dict[str, Any]:
    """What a program of a client printed, as JSON.

    Args:
        program: An ES module; its imports are those of the packages.
        url: Of the server.
        key: The client's API key.
    """
    printed: dict[str, Any] = json.loads(run_text(program.read_text(encoding="utf-8"), url, key))
    return printed


def run_text(program: str, *arguments: str) -> str:
    """What a program printed.

    Args:
        program: Text of an ES module.
        arguments: Of the program.
    """
    # The packages that a module imports are looked for from where its file is.
    with tempfile.TemporaryDirectory(dir=_FOLDER) as folder:
        file = Path(folder, "program.mjs")
        file.write_text(program, encoding="utf-8")
        done = subprocess.run(
            (mcp_parts.conformance()[0], str(file), *arguments),
            check=False,
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


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
