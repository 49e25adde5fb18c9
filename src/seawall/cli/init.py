"""`seawall init`: a small working project to start from."""

import argparse
import sys
from importlib.resources import files
from pathlib import Path

from seawall.errors import ConfigError

__all__ = ["add_parser"]

_FILES = {
    "seawall.toml": "the configuration: one model, one agent",
    "tools.py": "the agent's tools: typed Python functions",
    "test_assistant.py": "a test with a scripted model",
    "script.json": "what the simulated model answers",
    ".gitignore": "databases and secrets stay out of version control",
}
_NEXT = """
Next:
{enter}  seawall chat --simulated    a first answer: no key, no network
  python -m pytest            the test; needs: pip install pytest

Then set OPENAI_API_KEY, or another model in seawall.toml, and:
  seawall doctor              check the configuration and the model
  seawall chat                talk to it
  seawall serve               serve it over HTTP, then:
    curl http://127.0.0.1:8080/v1/turns -d '{{"text": "When are you open in Oslo?"}}'
"""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "init",
        help="create a project: configuration, a tool, a test",
        description="Write a small working project: a configuration, one tool, a test that runs "
        "it with a scripted model. Files that exist are never overwritten.",
    )
    parser.add_argument(
        "folder",
        nargs="?",
        type=Path,
        default=Path(),
        metavar="FOLDER",
        help="folder to write; created if it is missing (default: the current folder)",
    )
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    folder: Path = arguments.folder
    existing = [name for name in _FILES if (folder / name).exists() and name != ".gitignore"]
    if existing:
        raise ConfigError(
            f"{folder.resolve()} has {', '.join(existing)} already; nothing was written. "
            "Choose another folder: seawall init FOLDER"
        )
    templates = files("seawall.cli") / "project"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, purpose in _FILES.items():
            if (folder / name).exists():
                continue
            text = (templates / name.removeprefix(".")).read_text(encoding="utf-8")
            with (folder / name).open("x", encoding="utf-8", newline="\n") as file:
                file.write(text)
            sys.stdout.write(f"{folder / name!s:<28}  {purpose}\n")
    except OSError as error:
        raise ConfigError(f"{error.filename or folder}: {error.strerror}") from error
    enter = "" if folder.resolve() == Path.cwd() else f"  cd {folder}\n"
    sys.stdout.write(_NEXT.format(enter=enter))
    return 0
