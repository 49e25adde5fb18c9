"""Declarations of tools in the configuration: `[effects.tools.NAME]`."""

from collections.abc import Mapping

from msgspec import structs

from seawall.errors import ConfigError, did_you_mean
from seawall.settings import ToolPolicySettings
from seawall.tools.policy import Approval, EffectPolicy, make_policy
from seawall.tools.port import Tool

__all__ = ["apply_policies"]


def apply_policies(
    tools: Mapping[str, Tool], declared: Mapping[str, ToolPolicySettings]
) -> dict[str, Tool]:
    """The tools with what the configuration declares of them.

    Args:
        tools: By name.
        declared: The tables `[effects.tools.NAME]`, by name.

    Raises:
        ConfigError: A table is not of a tool that changes something, or a declaration is wrong.
    """
    changed = dict(tools)
    for name, settings in declared.items():
        key = f"effects.tools.{name}"
        tool = tools.get(name)
        if tool is None:
            known = ", ".join(sorted(tools)) or "none"
            meant = did_you_mean(name, tools)
            raise ConfigError(f'{key}: unknown tool "{name}"{meant}; known: {known}')
        if tool.policy is None:
            raise ConfigError(f"{key}: the tool changes nothing; only mutating tools have a policy")
        try:
            policy = _changed(tool, tool.policy, settings)
        except TypeError as error:
            raise ConfigError(f"{key}: {error}") from error
        changed[name] = structs.replace(tool, policy=policy)
    return changed


def _changed(tool: Tool, own: EffectPolicy, settings: ToolPolicySettings) -> EffectPolicy | None:
    retry = own.retry if settings.retry is None else settings.retry
    return make_policy(
        tool.name,
        tool.parameters,
        tool.has_parameter,
        mutating=True,
        retry=None if retry == "never" else retry,
        check=own.check,
        duplicates=settings.duplicates or own.duplicates,
        independent=own.independent if settings.independent is None else settings.independent,
        approve=_approval(own.approval, settings),
        redact=own.redact if settings.redact is None else settings.redact,
    )


def _approval(own: Approval | None, settings: ToolPolicySettings) -> Approval | None:
    if settings.approve == "never":
        own = None
    elif settings.approve is not None:
        own = structs.replace(own or Approval(), when=settings.approve)
    if own is None:
        for key in ("role", "own", "expires_seconds"):
            if getattr(settings, key) is not None:
                raise TypeError(f"{key} is of an approval, and approve is not set")
        return None
    return structs.replace(
        own,
        role=own.role if settings.role is None else settings.role or None,
        own=own.own if settings.own is None else settings.own,
        expires_seconds=settings.expires_seconds or own.expires_seconds,
    )
