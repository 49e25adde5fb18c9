"""AWS's tracing header as W3C Trace Context has it, so that a trace goes on in the function."""

import re

__all__ = ["traceparent_of"]

_ROOT = re.compile(r"1-([0-9a-f]{8})-([0-9a-f]{24})")
_PARENT = re.compile(r"[0-9a-f]{16}")


def traceparent_of(header: str) -> bytes:
    """The header `traceparent`; empty where AWS does not trace this invocation.

    It names a trace also where nobody has switched tracing on, as not sampled: then whether to
    trace is for us to decide. https://docs.aws.amazon.com/xray/latest/devguide/xray-concepts.html
    """
    fields = dict(part.strip().partition("=")[::2] for part in header.split(";"))
    root = _ROOT.fullmatch(fields.get("Root", ""))
    parent = fields.get("Parent", "")
    if root is None or not _PARENT.fullmatch(parent) or fields.get("Sampled") != "1":
        return b""
    return f"00-{root[1]}{root[2]}-{parent}-01".encode()
