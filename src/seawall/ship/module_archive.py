"""Writes the archive of a package's bytecode; see `seawall.hosts.aws_lambda.module_archive`."""

import marshal
from pathlib import Path

from seawall.hosts.aws_lambda.module_archive import HEAD_BYTES, PATTERNS, archive_name

__all__ = ["write_archive"]

_PYC_HEAD_BYTES = 16
_MAGIC = slice(0, 4)


def write_archive(tree: Path, tag: str, patterns: bytes = b"") -> bool:
    """Write the archive of all modules of a package that have bytecode.

    The files of the bytecode stay, for processes that are started without the archive. A module is
    left out where Python would import something else in its place: a compiled module or a package
    of the same name.

    Args:
        tree: The folder of the package, with bytecode in folders `__pycache__`.
        tag: Of the version of Python that compiled it, such as "cpython-313".
        patterns: Compiled regular expressions (`seawall.ship.compiled_patterns`).

    Returns:
        Whether there was any bytecode.
    """
    suffix = f".{tag}.pyc"
    index: dict[str, tuple[int, int]] = {}
    parts: list[bytes] = []
    magic, at = b"", 0
    for path in sorted(tree.rglob(f"*{suffix}")):
        module = path.parent.parent / path.name.removesuffix(suffix)
        if path.parent.name != "__pycache__" or _is_hidden(module):
            continue
        content = path.read_bytes()
        magic, code = content[_MAGIC], content[_PYC_HEAD_BYTES:]
        index[module.relative_to(tree).as_posix()] = (at, len(code))
        parts.append(code)
        at += len(code)
    if not parts:
        return False
    if patterns:
        index[PATTERNS] = (at, len(patterns))
        parts.append(patterns)
    listed = marshal.dumps(index)
    head = magic + len(listed).to_bytes(HEAD_BYTES - len(magic), "little")
    (tree / archive_name(tag)).write_bytes(b"".join((head, listed, *parts)))
    return True


def _is_hidden(module: Path) -> bool:
    """Whether there is a compiled module of that name, or a package."""
    compiled = any(module.parent.glob(f"{module.name}.*.so")) or module.with_suffix(".so").exists()
    return compiled or any(module.glob("__init__.*"))
