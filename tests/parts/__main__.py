"""Install the real parts that tests run against: `python -m tests.parts`.

With `--packages` only print the system packages that are missing, for a package manager. Without
a part its tests are skipped; with SEAWALL_REQUIRE_ALL=1 a missing part is an error.
"""

import os
import sys

from tests.parts import (
    browser,
    dynamodb_local,
    mcp_clients,
    mcp_parts,
    seaweedfs,
    signature_vectors,
    system,
    tools,
    ui_clients,
)

_MISSING = (
    dynamodb_local.missing,
    *(package.missing for package in system.PACKAGES if package.needed),
    tools.missing_sam,
    tools.missing_locust,
    tools.missing_mcp_time,
    tools.missing_openai_clients,
    tools.missing_crds,
    tools.missing_oidc,
    tools.missing_openapi,
    mcp_parts.missing,
    mcp_clients.missing,
    ui_clients.missing,
    seaweedfs.missing,
    signature_vectors.missing,
    browser.missing,
)


def main() -> int:
    """Install what is missing; 1 if a part is still missing and none may be."""
    if "--packages" in sys.argv:
        names = [name for package in system.wanted_packages() for name in package.names]
        sys.stdout.write(" ".join(names) + "\n")
        return 0
    system.install_packages()
    sys.stdout.write("Checking DynamoDB, SeaweedFS, SAM, validators, clients ... under .venv ...\n")
    installed = (dynamodb_local, seaweedfs, signature_vectors)
    failures = [part.install() for part in installed]
    tools.install()
    mcp_parts.install()
    mcp_clients.install()
    ui_clients.install()
    browser.install()
    reasons = dict.fromkeys(filter(None, [*failures, *(missing() for missing in _MISSING)]))
    for reason in reasons:
        sys.stderr.write(f"{reason}; tests that need it are skipped\n")
    return int(bool(reasons) and os.environ.get("SEAWALL_REQUIRE_ALL") == "1")


if __name__ == "__main__":
    sys.exit(main())
