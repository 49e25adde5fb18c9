"""Tables and lists as YAML; everything else as JSON, which is YAML."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["yaml_text"]


def yaml_text(value: Mapping[str, Any] | Sequence[Mapping[str, Any]], indent: int = 0) -> str:
    """Block style where there are tables, one line where there are not.

    Args:
        value: A table, or a list of tables.
        indent: Spaces before each line.
    """
    space = " " * indent
    if not isinstance(value, Mapping):
        return "".join(
            f"{space}- {yaml_text(each, indent + 2).removeprefix(space + '  ')}" for each in value
        )
    lines: list[str] = []
    for key, each in value.items():
        tables = isinstance(each, list) and bool(each) and all(isinstance(x, dict) for x in each)
        if (isinstance(each, Mapping) and each) or tables:
            lines.append(f"{space}{key}:\n{yaml_text(each, indent + 2)}")
        else:
            lines.append(f"{space}{key}: {json.dumps(each)}\n")
    return "".join(lines)
