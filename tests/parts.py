"""Real parts that may be absent: the test skips, or fails where nothing may be absent (CI)."""

import os

import pytest

__all__ = ["require"]


def require(missing: str) -> None:
    """Skip the test for this reason, if there is one; with SEAWALL_REQUIRE_ALL=1 fail."""
    if missing and os.environ.get("SEAWALL_REQUIRE_ALL") == "1":
        pytest.fail(missing)
    if missing:
        pytest.skip(missing)
