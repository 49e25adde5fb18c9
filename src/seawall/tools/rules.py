"""Approval rules: small safe expressions over a call's arguments and its caller.

The language is that of Python's comparisons, `and`, `or`, `not`, `in`, `+ - * /`, conditional
expressions, lists, members and items, evaluated by simpleeval: no attributes of objects, no
imports, and no calls but `len`, `lower` and `abs`. Anything else is refused when a rule is checked.
docs/decisions/015-approval-rules.md compares it with others.
"""

import ast
from collections.abc import Iterable, Mapping
from decimal import Decimal
from functools import lru_cache
from typing import Any

import simpleeval  # type: ignore[import-untyped]

__all__ = ["compile_rule", "holds"]

_MAX_CHARACTERS = 1_000
_OTHER_NAMES = frozenset({"caller", "agent"})
_CALLER = frozenset({"tenant", "subject", "roles"})
_NODES = (
    *(ast.Constant, ast.Name, ast.Load, ast.List, ast.Tuple, ast.Attribute, ast.Subscript),
    *(ast.BoolOp, ast.And, ast.Or, ast.UnaryOp, ast.Not, ast.USub, ast.IfExp, ast.Call),
    *(ast.BinOp, ast.Add, ast.Sub, ast.Mult, ast.Div, ast.Compare, ast.cmpop),
)
_VALUES = (dict, list, str, int, float, Decimal, type(None))
_FUNCTIONS = {"abs": abs, "len": len, "lower": str.lower}


def compile_rule(rule: str, parameters: Iterable[str]) -> None:
    """Check a rule.

    Args:
        rule: The expression.
        parameters: Names of the tool's parameters.

    Raises:
        ValueError: It is not an expression, or uses a name that does not exist.
    """
    own = set(parameters)
    known = own | _OTHER_NAMES
    nodes = list(ast.walk(_parse(rule)))
    functions = {each.func for each in nodes if isinstance(each, ast.Call)}
    for each in nodes:
        if not isinstance(each, _NODES):
            what = type(each).__name__
            raise ValueError(f"the rule {rule!r} has {what}, which rules do not have")  # noqa: TRY004 - it is text
        if isinstance(each, ast.Call):
            _check_call(rule, each)
        elif isinstance(each, ast.Name) and each.id not in known and each not in functions:
            names = ", ".join(sorted(known))
            raise ValueError(f"the rule {rule!r} uses {each.id!r}; known: {names}")
        elif isinstance(each, ast.Name) and each.id in own & _OTHER_NAMES:
            raise ValueError(
                f"the rule {rule!r} uses {each.id!r}, a parameter that has the name of something "
                "that all rules have; rename it"
            )
        elif isinstance(each, ast.Attribute):
            _check_member(rule, each)


def _check_call(rule: str, call: ast.Call) -> None:
    name = call.func.id if isinstance(call.func, ast.Name) else ""
    if name not in _FUNCTIONS or len(call.args) != 1 or call.keywords:
        functions = ", ".join(sorted(_FUNCTIONS))
        raise ValueError(f"the rule {rule!r} has a wrong call; known, with one value: {functions}")


def _check_member(rule: str, member: ast.Attribute) -> None:
    of_caller = isinstance(member.value, ast.Name) and member.value.id == "caller"
    if member.attr.startswith("_") or (of_caller and member.attr not in _CALLER):
        whole = ast.unparse(member)
        raise ValueError(f"the rule {rule!r} uses {whole}, which does not exist")
    if any(hasattr(each, member.attr) for each in _VALUES):  # it would not be the member
        value = ast.unparse(member.value)
        raise ValueError(
            f"the rule {rule!r} uses {value}.{member.attr}; write {value}[{member.attr!r}]"
        )


def holds(rule: str, names: Mapping[str, Any]) -> bool:
    """Whether a rule holds.

    Args:
        rule: A rule that was checked.
        names: Values by name; `caller` is a mapping.

    Raises:
        Exception: It cannot be evaluated with these values.
    """
    # The evaluator adds functions to those that it is given.
    evaluator = simpleeval.EvalWithCompoundTypes(functions={**_FUNCTIONS}, names=dict(names))
    return bool(evaluator.eval(rule, previously_parsed=_parse(rule)))


@lru_cache(maxsize=256)
def _parse(rule: str) -> ast.expr:
    if not rule.strip() or len(rule) > _MAX_CHARACTERS:
        raise ValueError(f"a rule has 1 to {_MAX_CHARACTERS} characters")
    try:
        return ast.parse(rule.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ValueError(f"the rule {rule!r} is not an expression: {error}") from error
