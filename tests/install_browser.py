"""Install Chromium for tests of pages; run this file. See install_dynamodb_local."""

import os
import shutil
import subprocess
import sys

import pytest

__all__ = ["browser", "require_browser"]


def browser() -> str | None:
    """The program, where it is installed."""
    return shutil.which("chromium") or shutil.which("google-chrome")


def require_browser() -> str:
    """The program; without it skip the test, or on CI (SEAWALL_REQUIRE_ALL=1) fail."""
    found = browser()
    if found is None:
        reason = "chromium is not installed: apt install chromium"
        if os.environ.get("SEAWALL_REQUIRE_ALL") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    return found


def main() -> int:
    """Install it where that can be done."""
    if browser() is None and os.geteuid() == 0 and shutil.which("apt-get") is not None:
        for command in (
            ["apt-get", "update", "-qq"],
            ["apt-get", "install", "-y", "-qq", "--no-install-recommends", "chromium"],
        ):
            subprocess.run(command, check=False, stdout=subprocess.DEVNULL)
    if browser() is None:
        sys.stderr.write("chromium is not installed: tests that need it will skip\n")
        return int(os.environ.get("SEAWALL_REQUIRE_ALL") == "1")
    return 0


if __name__ == "__main__":
    sys.exit(main())
