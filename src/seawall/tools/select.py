"""The part of a result that a model gets: `select` of the configuration, in JMESPath."""

from typing import Any

__all__ = ["Selector", "compile_select"]


class Selector:
    """What a model needs of an answer: a JMESPath expression."""

    def __init__(self, expression: str) -> None:
        """Compile an expression.

        Args:
            expression: JMESPath (https://jmespath.org).

        Raises:
            ValueError: It is none.
        """
        import jmespath  # type: ignore[import-untyped]  # noqa: PLC0415 - only where it is needed

        self._reference = jmespath.visitor._Expression  # noqa: SLF001 - it has no other name
        self._errors = jmespath.exceptions.JMESPathError
        try:
            self._compiled = jmespath.compile(expression)
        except self._errors as error:
            raise ValueError(str(error).split("\n", 1)[0]) from None

    def __call__(self, value: Any) -> Any:  # noqa: ANN401 - JSON
        """The part of a value.

        Raises:
            ValueError: The expression cannot be applied to it.
        """
        try:
            found = self._compiled.search(value)
        except (self._errors, ArithmeticError, LookupError, TypeError, RecursionError) as error:
            raise ValueError(str(error).split("\n", 1)[0]) from None
        if isinstance(found, self._reference):
            raise ValueError("it is an expression (&…), which has no value of its own")  # noqa: TRY004 - of the configuration
        return found


def compile_select(expression: str) -> Selector | None:
    """The selector of a setting; None if it is empty.

    Args:
        expression: JMESPath.

    Raises:
        ValueError: See `Selector`.
    """
    return Selector(expression) if expression else None
