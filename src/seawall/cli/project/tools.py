"""The tools of the assistant."""

from seawall import ToolError, Toolset, tool

HOURS = {"Oslo": "10 to 18", "Bergen": "9 to 17"}


@tool
async def opening_hours(city: str) -> str:
    """The opening hours of our shop in a city.

    Args:
        city: The city that the shop is in.
    """
    if city not in HOURS:
        raise ToolError(f"There is no shop in {city}; there are shops in {', '.join(HOURS)}.")
    return HOURS[city]


def open_tools() -> Toolset:
    """Called once at start; open connections to your systems here."""
    return Toolset((opening_hours,))
