"""Deliberately broken variants of the product, by which the checker is checked.

Each replaces something in a running server, in this process only.
"""

from collections.abc import Callable

__all__ = ["BROKEN", "VARIANTS", "break_it"]

BROKEN = "EFFECTS_BROKEN"


def _key_from_wording() -> None:
    """Keys depend on the text that the model wrote."""
    from seawall.tools import toolset  # noqa: PLC0415 - only in a server that is broken

    prepare = toolset.Tool.prepare

    def broken(self: toolset.Tool, arguments: str) -> toolset.PreparedCall:
        return toolset.PreparedCall(prepare(self, arguments).values, arguments.encode())

    toolset.Tool.prepare = broken  # type: ignore[method-assign]


VARIANTS: dict[str, Callable[[], None]] = {
    "key-from-wording": _key_from_wording,
}


def break_it(name: str) -> None:
    """Break the product in this process."""
    VARIANTS[name]()
