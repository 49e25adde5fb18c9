"""`[effects.tools.NAME]`: what the configuration declares of tools."""

from typing import Any

import pytest

from seawall.config import parse_settings
from seawall.errors import ConfigError
from seawall.settings import ToolPolicySettings
from seawall.tools.declared import apply_policies
from seawall.tools.policy import Approval, EffectPolicy
from seawall.tools.port import Tool
from seawall.tools.toolset import tool


def _tools(**options: Any) -> dict[str, Tool]:
    def refund(order: str, amount: float) -> str:
        """Refund an order."""
        return f"{order} {amount}"

    def find(order: str) -> str:
        """Find an order."""
        return order

    return {"refund": tool(refund, mutating=True, **options), "find": tool(find)}


def _policy(settings: dict[str, Any], **options: Any) -> EffectPolicy:
    changed = apply_policies(_tools(**options), {"refund": ToolPolicySettings(**settings)})
    policy = changed["refund"].policy
    assert policy is not None
    return policy


def test_a_table_sets_what_the_tool_does_not_declare() -> None:
    policy = _policy(
        {
            "approve": "amount > 100",
            "role": "manager",
            "own": True,
            "expires_seconds": 60.0,
            "retry": "key",
            "duplicates": "allow",
            "independent": True,
            "redact": ("order",),
        }
    )
    assert policy == EffectPolicy(
        "key", None, "allow", True, Approval("amount > 100", "manager", True, 60.0), ("order",)
    )


def test_a_table_overrides_only_the_keys_that_it_has() -> None:
    own = Approval("amount > 100", "manager", expires_seconds=60.0)
    policy = _policy({"role": "owner"}, approve=own, retry="key", redact=("order",))
    assert policy.approval == Approval("amount > 100", "owner", expires_seconds=60.0)
    assert (policy.retry, policy.redact) == ("key", ("order",))
    assert _policy({"role": ""}, approve=own).approval == Approval(
        "amount > 100", expires_seconds=60.0
    )
    without = _policy({"approve": "never", "retry": "never"}, approve=own, retry="key")
    assert (without.approval, without.retry) == (None, None)


@pytest.mark.parametrize(
    ("name", "settings", "said"),
    [
        ("refnd", {}, 'effects.tools.refnd: unknown tool "refnd"; did you mean "refund"?'),
        ("find", {}, "effects.tools.find: the tool changes nothing"),
        ("refund", {"approve": "amout > 1"}, "effects.tools.refund: tool refund: approve: "),
        ("refund", {"redact": ("card",)}, "redact names 'card', which is no parameter"),
        ("refund", {"role": "manager"}, "role is of an approval, and approve is not set"),
        ("refund", {"approve": "never", "own": True}, "own is of an approval"),
    ],
)
def test_mistakes_name_the_table(name: str, settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as error:
        apply_policies(_tools(), {name: ToolPolicySettings(**settings)})
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[effects]\nnext_message = "ask"', "seawall.toml:2: effects.next_message: "),
        ("[effects]\napproval_seconds = 0", "seawall.toml:2: effects.approval_seconds: "),
        ("[effects]\noperater_role = 'x'", 'did you mean "operator_role"?'),
        ("[effects.tools.refund]\nretry = 'always'", "effects.tools"),
    ],
)
def test_mistakes_in_the_section_are_named(text: str, said: str) -> None:
    with pytest.raises(ConfigError) as error:
        parse_settings(text)
    assert said in str(error.value)
