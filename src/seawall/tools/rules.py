"""Approval rules: small safe expressions over a call's arguments and its caller.

The language is that of Python's comparisons, arithmetic, `and`, `or`, `not`, `in` and conditional
expressions, evaluated by simpleeval: no attributes of objects, no imports, and no calls but `len`,
`lower` and `abs`. docs/decisions/015-approval-rules.md compares it with others.
"""

import ast
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

import simpleeval  # type: ignore[import-untyped]

__all__ = ["compile_rule", "holds"]

_MAX_CHARACTERS = 1_000
_OTHER_NAMES = frozenset({"caller", "agent"})
_CALLER = frozenset({"tenant", "subject", "roles"})
_FUNCTIONS = {"abs": abs, "len": len, "lower": str.lower}


def compile_rule(rule: str, parameters: Iterable[str]) -> None:
    """Check a rule.

    Args:
        rule: The expression.
        parameters: Names of the tool's parameters.

    Raises:
        ValueError: It is not an expression, or uses a name that does not exist.
    """
    tree = _parse(rule)
    known = {*parameters, *_OTHER_NAMES}
    called = {
        each.func.id
        for each in ast.walk(tree)
        if isinstance(each, ast.Call) and isinstance(each.func, ast.Name)
    }
    for each in ast.walk(tree):
        if isinstance(each, ast.Name) and each.id not in known:
            if each.id in called and each.id in _FUNCTIONS:
                continue
            names = ", ".join(sorted(known))
            raise ValueError(f"the rule {rule!r} uses {each.id!r}; known: {names}")
        of_caller = isinstance(each, ast.Attribute) and isinstance(each.value, ast.Name)
        if of_caller and each.value.id == "caller" and each.attr not in _CALLER:  # type: ignore[attr-defined]
            raise ValueError(f"the rule {rule!r} uses caller.{each.attr}, which does not exist")  # type: ignore[attr-defined]


def holds(rule: str, names: Mapping[str, Any]) -> bool:
    """Whether a rule holds.

    Args:
        rule: A rule that was checked.
        names: Values by name; `caller` is a mapping.

    Raises:
        Exception: It cannot be evaluated with these values.
    """
    evaluator = simpleeval.EvalWithCompoundTypes(functions=_FUNCTIONS, names=dict(names))
    return bool(evaluator.eval(rule, previously_parsed=_parse(rule)))


@lru_cache(maxsize=256)
def _parse(rule: str) -> Any:  # noqa: ANN401 - an expression of the library
    if not rule.strip() or len(rule) > _MAX_CHARACTERS:
        raise ValueError(f"a rule has 1 to {_MAX_CHARACTERS} characters")
    try:
        return simpleeval.SimpleEval.parse(rule)
    except (SyntaxError, simpleeval.InvalidExpression, RecursionError, MemoryError) as error:
        raise ValueError(f"the rule {rule!r} is not an expression: {error}") from error
