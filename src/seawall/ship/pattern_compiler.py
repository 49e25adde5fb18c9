"""Run by the interpreter that a package is built for: compiles regular expressions ahead.

Reads a list of patterns and flags, and writes the table that
`seawall.hosts.aws_lambda.module_archive` looks them up in. The interpreter has the standard library
only, so this imports nothing else.
"""

import _sre  # type: ignore[import-not-found]
import ast
import importlib
import marshal
import re
import sys
from contextlib import suppress
from re import _compiler  # type: ignore[attr-defined]
from typing import Any

# Of the standard library, what a turn on Lambda imports; each compiles its patterns then.
_MODULES = (
    *("asyncio", "decimal", "hashlib", "inspect", "ipaddress", "locale", "logging", "pathlib"),
    *("platform", "random", "sqlite3", "ssl", "string", "textwrap", "tokenize", "urllib.parse"),
    *("uuid",),
)
_SET_BY_PROCESS = re.LOCALE | re.DEBUG


class _Recorder:
    """Stands for `_sre` in the compiler of `re`, and keeps what it is given last."""

    def __init__(self) -> None:
        self.table: dict[tuple[bool, str | bytes, int], bytes] = {}
        self._last: tuple[Any, ...] = ()
        self._usual = _compiler.compile

    def __getattr__(self, name: str) -> object:
        return getattr(_sre, name)

    def compile(self, pattern: object, *compiled: object) -> object:
        """As `_sre.compile`."""
        self._last = compiled
        return _sre.compile(pattern, *compiled)

    def compile_pattern(self, pattern: str | bytes, flags: int = 0) -> "re.Pattern[str]":
        """As the compiler's `compile`."""
        made: re.Pattern[str] = self._usual(pattern, flags)
        known, code, *rest, index, names = self._last
        # Some numbers in it are of a class that only the compiler has.
        plain = (int(known), [int(each) for each in code], *rest, dict(index), names)
        if not made.flags & _SET_BY_PROCESS and _sre.compile(pattern, *plain) == made:
            self.table[isinstance(pattern, str), pattern, int(flags)] = _bytes(plain)
        return made


def _bytes(value: Any) -> bytes:  # noqa: ANN401 - what marshal takes
    """Marshal without references to objects seen before, which depend on who else has them."""
    return marshal.dumps(value, 2)


def main() -> None:
    """Compile what is on the standard input, and what the standard library compiles."""
    recorder = _Recorder()
    _compiler._sre, _compiler.compile = recorder, recorder.compile_pattern  # noqa: SLF001
    for name in _MODULES:
        with suppress(ImportError):  # a part that this interpreter is built without
            importlib.import_module(name)
    for pattern, flags in ast.literal_eval(sys.stdin.read()):
        if flags & re.DEBUG:  # would print
            continue
        with suppress(re.error, ValueError, OverflowError, RecursionError):  # refused where used
            re.compile(pattern, flags)
    sys.stdout.buffer.write(_bytes((_sre.MAGIC, sys.byteorder, recorder.table)))


if __name__ == "__main__":
    main()
