"""Makes an environment for each peer, beside the others: .venvs/NAME.

.venv/bin/python bench/peers/install.py [NAME ...]
"""

import subprocess
import sys
import venv
from pathlib import Path

HERE = Path(__file__).resolve().parent
PEERS = sorted(each.stem for each in (HERE / "requirements").glob("*.txt"))


def python_of(peer: str, bench: Path = HERE) -> Path:
    """The interpreter of its environment, of the benchmark in that folder."""
    return bench / ".venvs" / peer / "bin" / "python"


def installed(peer: str, bench: Path = HERE) -> bool:
    """Whether all of it is there."""
    return (bench / ".venvs" / peer / "installed").exists()


def install(peer: str, bench: Path = HERE) -> None:
    """Make the environment."""
    folder, python = bench / ".venvs" / peer, python_of(peer, bench)
    sys.stderr.write(f"installing {peer} ...\n")
    venv.create(folder, with_pip=True, clear=True)
    requirements = bench / "requirements" / f"{peer}.txt"
    subprocess.run([python, "-m", "pip", "install", "-q", "-r", requirements], check=True)
    frozen = subprocess.run(
        [python, "-m", "pip", "freeze"], check=True, capture_output=True, text=True
    )
    (folder / "installed").write_text(frozen.stdout)


if __name__ == "__main__":
    wanted = sys.argv[1:] or PEERS
    if unknown := set(wanted) - set(PEERS):
        sys.exit(f"there is no {min(unknown)}; there are: {', '.join(PEERS)}")
    for each in wanted:
        if not installed(each):
            install(each)
