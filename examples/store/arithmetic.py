"""Arithmetic for the assistant: the four operations on decimal numbers, and nothing else."""

import ast
import operator
from collections.abc import Callable

from seawall import ToolError

_MAX_CHARACTERS = 200
_operators: dict[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}


def evaluate(expression: str) -> float:
    """The value of an arithmetic expression.

    Raises:
        ToolError: it has something else in it, is too long, or divides by zero.
    """
    if len(expression) > _MAX_CHARACTERS:
        raise ToolError(f"The expression may have {_MAX_CHARACTERS} characters.")
    try:
        return _value(ast.parse(expression.strip(), mode="eval").body)
    except (SyntaxError, ValueError, RecursionError, ZeroDivisionError, OverflowError) as error:
        raise ToolError("Error: Invalid characters in expression") from error


def _value(node: ast.expr) -> float:
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        return float(node.value)  # type: ignore[arg-type]  # narrowed by the line above
    if isinstance(node, ast.BinOp) and type(node.op) in _operators:
        return _operators[type(node.op)](_value(node.left), _value(node.right))
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -_value(node.operand)
    raise ValueError("not arithmetic")
