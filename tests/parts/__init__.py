"""Real parts that tests run against: servers, tools and data that are no Python dependencies.

`python -m tests.parts` installs them (`make parts`); each module here says what is missing.
"""

import os
from pathlib import Path

import pytest

__all__ = ["DATA", "data_file", "require"]

_BESIDE = Path(__file__).resolve().parents[3] / "shared" / "data"
DATA = Path(os.environ.get("SEAWALL_DATA") or _BESIDE)


def require(missing: str) -> None:
    """Skip the test for this reason, if there is one; with SEAWALL_REQUIRE_ALL=1 fail it.

    Args:
        missing: Why the part cannot be used; empty if it can.
    """
    if missing and os.environ.get("SEAWALL_REQUIRE_ALL") == "1":
        pytest.fail(missing, pytrace=False)
    if missing:
        pytest.skip(missing)


def data_file(name: str) -> Path:
    """A file of the data folder; without it the test is skipped.

    The data sets are not part of the project. They are looked for in `../shared/data`, or where
    SEAWALL_DATA says; a folder that is named there has to have them.

    Args:
        name: Path relative to the folder, such as `banking77_train.csv`.
    """
    path = DATA / name
    if not path.exists():
        reason = f"test data: {path} does not exist (SEAWALL_DATA names the folder)"
        if os.environ.get("SEAWALL_DATA"):
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)
    return path
