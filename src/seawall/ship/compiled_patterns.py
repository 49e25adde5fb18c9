"""Regular expressions of a package, compiled when it is built, so that cold starts need not.

What `re` makes of a pattern takes longer than most of what is done with it. The archive of a
package carries it for the patterns that its sources name, those of intents in its configuration,
and those that the standard library compiles when it is imported
(`seawall.hosts.aws_lambda.module_archive`).
"""

import ast
import re
import subprocess
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

__all__ = ["compile_patterns"]

Pattern = tuple[str | bytes, int]
"""A regular expression and its flags."""

_SCRIPT = Path(__file__).with_name("pattern_compiler.py")


def compile_patterns(tree: Path, own: Sequence[str], interpreter: str) -> bytes:
    """Compile the patterns of a package with an interpreter of its version of Python.

    Args:
        tree: The folder of the package.
        own: The user's files in it.
        interpreter: Its command.

    Returns:
        What `use_archive` reads; empty if the interpreter cannot compile ahead.
    """
    sources = [*(tree / "seawall").rglob("*.py"), *(tree / each for each in own)]
    found = sorted(set(_patterns(sources)), key=repr)
    done = subprocess.run(  # noqa: S603
        [interpreter, "-I", str(_SCRIPT)],
        input=ascii(found).encode(),
        check=False,
        capture_output=True,
    )
    return done.stdout if done.returncode == 0 else b""


def _patterns(files: Iterable[Path]) -> Iterator[Pattern]:
    broken = (ValueError, SyntaxError, RecursionError, MemoryError)
    for path in files:
        with suppress(*broken):  # left to its user
            if path.suffix == ".py":
                text = path.read_text(encoding="utf-8")
                if "re.compile(" in text or "pattern=" in text:
                    yield from _of_source(ast.parse(text))
            elif path.suffix == ".toml":
                yield from _of_configuration(tomllib.loads(path.read_text(encoding="utf-8-sig")))


def _of_source(tree: ast.Module) -> Iterator[Pattern]:
    """The constant patterns that are compiled, or are a constraint of a setting."""
    for node in ast.walk(tree):
        match node:
            case ast.Call(
                func=ast.Attribute(value=ast.Name(id="re"), attr="compile"),
                args=[ast.Constant(value=str() | bytes() as pattern), *flags],
            ):
                with suppress(ValueError, LookupError):
                    yield pattern, _flags(flags[0]) if flags else 0
            case ast.keyword(arg="pattern", value=ast.Constant(value=str() as pattern)):
                yield pattern, 0


def _flags(node: ast.expr) -> int:
    match node:
        case ast.Attribute(value=ast.Name(id="re"), attr=name):
            return int(re.RegexFlag[name])
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return _flags(left) | _flags(right)
    raise ValueError("not a constant")


def _of_configuration(document: dict[str, object]) -> Iterator[Pattern]:
    """The patterns of intents, which ignore case."""
    intents = document.get("intents")
    for intent in intents.values() if isinstance(intents, dict) else ():
        patterns = intent.get("patterns") if isinstance(intent, dict) else None
        for pattern in patterns if isinstance(patterns, list) else ():
            if isinstance(pattern, str):
                yield pattern, int(re.IGNORECASE)
