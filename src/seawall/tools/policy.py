"""Declarations of tools that change something: retries, checks, order, approval, redaction."""

import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import msgspec
from msgspec import Struct

if TYPE_CHECKING:
    from seawall.tools.toolset import PreparedCall, Tool, ToolContext, ToolOutcome

__all__ = [
    "Approval",
    "CheckFailed",
    "EffectPolicy",
    "check_effect",
    "needs_approval",
    "redacted",
]

_REDACTED = "[redacted]"

_log = logging.getLogger("seawall.tools")


class CheckFailed(Exception):
    """Whether the effect happened could not be found out."""


class Approval(Struct, frozen=True):
    """When a call needs approval, and who decides.

    Attributes:
        when: "always", a rule over arguments and caller such as `amount > 100`, or a function with
            the tool's parameters that returns whether approval is needed.
        role: The role that decides; None for the customer, the turn's own subject.
        own: Whether the turn's own subject may decide if it has the role.
        expires_seconds: Afterwards the call is rejected; None for the configured time.
    """

    when: str | Callable[..., Any] = "always"
    role: str | None = None
    own: bool = False
    expires_seconds: float | None = None


class EffectPolicy(Struct, frozen=True):
    """What a tool that changes something declares.

    Attributes:
        retry: "key" if the service keeps `context.idempotency_key` with the change, so that a call
            may be repeated.
        check: Called like the tool; returns the result if the change was made, else None.
        duplicates: What happens to a second call of a step with the same arguments.
        independent: Whether it may run at the same time as other effects of its step.
        approval: None for none.
        redact: Names of arguments, dotted for members, that are not shown in records.
    """

    retry: Literal["key"] | None = None
    check: Callable[..., Any] | None = None
    duplicates: Literal["refuse", "allow"] = "refuse"
    independent: bool = False
    approval: Approval | None = None
    redact: tuple[str, ...] = ()


def redacted(policy: EffectPolicy, arguments: str) -> str:
    """Arguments in canonical JSON without the values that the policy redacts."""
    if not policy.redact:
        return arguments
    values = msgspec.json.decode(arguments)
    for path in policy.redact:
        *parents, last = path.split(".")
        member: Any = values
        for name in parents:
            member = member.get(name) if isinstance(member, dict) else None
        if isinstance(member, dict) and last in member:
            member[last] = _REDACTED
    return msgspec.json.encode(values).decode()
