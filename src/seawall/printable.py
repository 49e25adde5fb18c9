"""Text of others, for terminals and logs."""

__all__ = ["printable"]


def printable(text: str, *, keep: str = "") -> str:
    r"""The text without anything that a terminal obeys or that looks like another line.

    Args:
        text: What came from elsewhere: an answer of a server, a file, a request.
        keep: Control characters that stay, such as a line feed of our own; others are escaped as
            `\x1b` and `\u202e`.
    """
    if text.isprintable():
        return text
    return "".join(
        each
        if each.isprintable() or each in keep
        else each.encode("unicode_escape", "surrogatepass").decode("ascii")
        for each in text
    )
