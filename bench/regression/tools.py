"""Tools that do next to nothing, so that what is counted is the server's."""

from seawall import Toolset, tool

__all__ = ["open_tools"]


@tool
async def look_up(order: str) -> str:
    """Look an order up."""
    return f"{order} is delivered"


@tool
def look_up_in_thread(order: str) -> str:
    """Look an order up, by a function that may block."""
    return f"{order} is delivered"


@tool(mutating=True, retry="key")
async def change(order: str) -> str:
    """Change an order."""
    return f"{order} is changed"


def open_tools() -> Toolset:
    """The three."""
    return Toolset((look_up, look_up_in_thread, change))
