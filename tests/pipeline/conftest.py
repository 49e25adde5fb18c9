"""Where the sessions of a test are: in SQLite, and in DynamoDB."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from seawall.settings import SessionSettings
from tests.dynamodb_local import ENVIRONMENT

PLACES = ("sqlite", "dynamodb")


@pytest.fixture(params=PLACES)
def place(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[SessionSettings]:
    """Settings of a new, empty store."""
    if request.param == "sqlite":
        yield SessionSettings(path=str(tmp_path / "sessions.db"))
        return
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    yield SessionSettings(
        store="dynamodb",
        table=f"sessions-{os.urandom(6).hex()}",
        endpoint=request.getfixturevalue("dynamodb"),
        region=ENVIRONMENT["AWS_REGION"],
        create_table=True,
    )
