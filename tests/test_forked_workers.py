import os
import subprocess
import sys
from pathlib import Path

from tests.once import RUN_FOLDER
from tests.servers import ROOT


def test_a_file_that_cannot_be_imported_fails_the_run(tmp_path: Path) -> None:
    broken = tmp_path / "test_broken.py"
    broken.write_text("def test_one() -> None: ...\n\n\nraise ValueError('broken')\n")
    options = ["-n", "2", "-p", "tests.conftest", "--import-mode=importlib", "--rootdir"]
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-c", os.devnull, *options, str(tmp_path), str(broken)],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if name not in _OF_THIS_RUN},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert run.returncode not in (0, 5), run.stdout
    assert "ValueError: broken" in run.stdout


_OF_THIS_RUN = {RUN_FOLDER, "PYTEST_XDIST_WORKER", "PYTEST_XDIST_TESTRUNUID", "PYTEST_ADDOPTS"}
