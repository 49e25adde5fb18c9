"""Escaping of foreign text for terminals and logs."""

__all__ = ["printable"]


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
