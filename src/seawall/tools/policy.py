"""Declarations of tools that change something: retries, checks, order, approval, redaction."""

import re
from collections.abc import Callable, Sequence
from typing import Any, Literal

import msgspec
from msgspec import Struct

__all__ = ["Approval", "EffectPolicy", "make_policy", "redacted", "without_redacted"]

_REDACTED = "[redacted]"
_SHORT = 5

_word = re.compile(r"\w+")


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
        redact: Names of arguments, dotted for members (of each item of a list), that are not shown
            in audit records, in lists of what waits, in events, and to who approves.
        waits_for: What a call that needs approval waits for; as `ApprovalRequest.kind`. What waits
            for a person or a client is not executed here: they return its result.
    """

    retry: Literal["key"] | None = None
    check: Callable[..., Any] | None = None
    duplicates: Literal["refuse", "allow"] = "refuse"
    independent: bool = False
    approval: Approval | None = None
    redact: tuple[str, ...] = ()
    waits_for: Literal["approval", "person", "client"] = "approval"


def make_policy(
    tool: str,
    parameters: Sequence[str],
    has_parameter: Callable[[Sequence[str]], bool],
    *,
    mutating: bool,
    retry: Literal["key"] | None = None,
    check: Callable[..., Any] | None = None,
    duplicates: Literal["refuse", "allow"] | None = None,
    independent: bool = False,
    approve: Approval | str | Callable[..., Any] | None = None,
    redact: tuple[str, ...] = (),
) -> EffectPolicy | None:
    """The policy of a tool, checked; None for one that only reads.

    Args:
        tool: Its name.
        parameters: Names of its parameters.
        has_parameter: Whether there is a parameter, or a member of one, of a path.
        mutating: Whether it changes something.
        retry: As in `EffectPolicy`.
        check: As in `EffectPolicy`.
        duplicates: As in `EffectPolicy`.
        independent: As in `EffectPolicy`.
        approve: An `Approval`, or only its `when`.
        redact: As in `EffectPolicy`.

    Raises:
        TypeError: A declaration is wrong.
    """
    if not mutating:
        if retry or check or duplicates or independent or approve is not None or redact:
            raise TypeError(
                f"tool {tool}: retry, check, duplicates, independent, approve and redact are only "
                "for a tool that changes something (mutating=True)"
            )
        return None
    if retry not in (None, "key"):
        raise TypeError(f'tool {tool}: retry must be "key" or None, not {retry!r}')
    if duplicates not in (None, "refuse", "allow"):
        raise TypeError(f'tool {tool}: duplicates must be "refuse" or "allow", not {duplicates!r}')
    if check is not None and not callable(check):
        raise TypeError(f"tool {tool}: check must be a function")
    for path in redact:
        if not has_parameter(path.split(".")):
            raise TypeError(
                f"tool {tool}: redact names {path!r}, which is no parameter or member of one"
            )
    approval = _checked(tool, set(parameters), approve) if approve is not None else None
    return EffectPolicy(retry, check, duplicates or "refuse", independent, approval, tuple(redact))


def _checked(
    tool: str, parameters: set[str], approve: Approval | str | Callable[..., Any]
) -> Approval:
    approval = approve if isinstance(approve, Approval) else Approval(approve)
    if not (isinstance(approval.when, str) or callable(approval.when)):
        raise TypeError(f"tool {tool}: approve must be text, a function or an Approval")
    if isinstance(approval.when, str) and approval.when != "always":
        from seawall.tools.rules import compile_rule  # noqa: PLC0415 - only where there are rules

        try:
            compile_rule(approval.when, parameters)
        except ValueError as error:
            raise TypeError(f"tool {tool}: approve: {error}") from error
    return approval


def redacted(policy: EffectPolicy, arguments: str) -> str:
    """Arguments in canonical JSON without the values that the policy redacts."""
    if not policy.redact:
        return arguments
    values = msgspec.json.decode(arguments)
    for path in policy.redact:
        values = _without(values, path.split("."))
    return msgspec.json.encode(values).decode()


def without_redacted(text: str, arguments: str, shown: str) -> str:
    """Text without the values that are redacted in arguments.

    Args:
        text: What a tool has answered.
        arguments: JSON, as the tool was called.
        shown: The same, redacted; empty if nothing is.
    """
    if not shown or not text:
        return text
    values = _redacted_values(msgspec.json.decode(arguments), msgspec.json.decode(shown))
    words = {each for each in values if len(each) < _SHORT and _word.fullmatch(each)}
    for value in sorted(values - words, key=len, reverse=True):
        text = text.replace(value, _REDACTED)
    if not words:  # of a few characters, which may be a part of other words
        return text
    return _word.sub(lambda found: _REDACTED if found[0] in words else found[0], text)


def _redacted_values(value: Any, shown: Any) -> set[str]:  # noqa: ANN401 - JSON of any kind
    """The texts, and the numbers as text, that are in a value and redacted where it is shown."""
    if value == shown:
        return set()
    if isinstance(value, dict) and isinstance(shown, dict):
        parts = [_redacted_values(each, shown.get(name)) for name, each in value.items()]
    elif isinstance(value, list) and isinstance(shown, list):
        parts = [_redacted_values(*pair) for pair in zip(value, shown, strict=True)]
    elif isinstance(value, dict | list):
        inside = value.values() if isinstance(value, dict) else value
        parts = [_redacted_values(each, None) for each in inside]
    elif isinstance(value, str):
        return {value, msgspec.json.encode(value).decode()[1:-1]} if value.strip() else set()
    else:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return {msgspec.json.encode(value).decode()} if number else set()
    return set().union(*parts)


def _without(value: Any, path: list[str]) -> Any:  # noqa: ANN401 - JSON of any kind
    """A value with what is at the path redacted; in lists, that of each item.

    What has no members, although the path goes on, is redacted as a whole.
    """
    if not path:
        return _REDACTED
    if isinstance(value, list):
        return [_without(each, path) for each in value]
    if isinstance(value, dict):
        name, *rest = path
        return value | {name: _without(value[name], rest)} if name in value else value
    return value if value is None else _REDACTED
