"""Install haproxy for tests of several servers; run this file. See install_dynamodb_local."""

import os
import shutil
import subprocess
import sys

__all__ = ["missing"]


def missing() -> str:
    """What keeps the balancer from running here; empty if nothing does."""
    return "" if shutil.which("haproxy") else "haproxy is not installed: apt install haproxy"


def main() -> int:
    """Install it where that can be done."""
    if missing() and os.geteuid() == 0 and shutil.which("apt-get") is not None:
        for command in (
            ["apt-get", "update", "-qq"],
            ["apt-get", "install", "-y", "-qq", "--no-install-recommends", "haproxy"],
        ):
            subprocess.run(command, check=False, stdout=subprocess.DEVNULL)
    if reason := missing():
        sys.stderr.write(f"{reason}; tests that need it will skip\n")
        return int(os.environ.get("SEAWALL_REQUIRE_ALL") == "1")
    return 0


if __name__ == "__main__":
    sys.exit(main())
