"""Install haproxy and nginx for tests of several servers. See install_dynamodb_local."""

import os
import shutil
import subprocess
import sys

__all__ = ["missing"]


KINDS = ("haproxy", "nginx")


def missing(kind: str = "haproxy") -> str:
    """What keeps the balancer from running here; empty if nothing does."""
    found = shutil.which(kind) or shutil.which(kind, path="/usr/sbin:/usr/local/sbin")
    return "" if found else f"{kind} is not installed: apt install {kind}"


def main() -> int:
    """Install it where that can be done."""
    wanted = [kind for kind in KINDS if missing(kind)]
    if wanted and os.geteuid() == 0 and shutil.which("apt-get") is not None:
        for command in (
            ["apt-get", "update", "-qq"],
            ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *wanted],
        ):
            subprocess.run(command, check=False, stdout=subprocess.DEVNULL)
    reasons = [reason for kind in KINDS if (reason := missing(kind))]
    for reason in reasons:
        sys.stderr.write(f"{reason}; tests that need it will skip\n")
    return int(bool(reasons) and os.environ.get("SEAWALL_REQUIRE_ALL") == "1")


if __name__ == "__main__":
    sys.exit(main())
