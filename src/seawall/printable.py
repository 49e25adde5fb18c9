"""Escaping of foreign text for terminals and logs."""

__all__ = ["INVISIBLE_MARKS", "printable"]

INVISIBLE_MARKS = (
    "\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180d\u180f\u3164\ufe00-\ufe0f\uffa0"
    "\U000e0100-\U000e01ef"
)
"""Ranges of a regular expression: the letters and marks that have no glyph (Unicode's property
Default_Ignorable_Code_Point). Text can be hidden in them, and `str.isprintable` accepts them."""


def printable(text: str, *, keep: str = "") -> str:
    r"""Escape everything that controls a terminal or looks like another line.

    Args:
        text: Text from elsewhere: a server's response, a file, a request.
        keep: Control characters that are kept, such as line feeds; others are escaped as `\x1b`
            and `\u202e`.
    """
    if text.isprintable():
        return text
    return "".join(
        each
        if each.isprintable() or each in keep
        else each.encode("unicode_escape", "surrogatepass").decode("ascii")
        for each in text
    )
