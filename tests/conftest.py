"""What tests of several packages share."""

import logging
from collections.abc import Iterator

import hypothesis
import pytest

from seawall.telemetry.log_filter import FloodFilter
from tests.dynamodb_local import require_dynamodb, running_dynamodb

# Machines that test are busy, and how long an example takes says nothing about it.
hypothesis.settings.register_profile("seawall", deadline=None)
hypothesis.settings.load_profile("seawall")


@pytest.fixture(scope="session")
def dynamodb() -> Iterator[str]:
    """The URL of one DynamoDB Local for the whole session; every test makes its own table."""
    require_dynamodb()
    with running_dynamodb() as url:
        yield url


@pytest.fixture(autouse=True)
def unfiltered_logs() -> None:
    """Commands that earlier tests ran in this process have left no filter on what is captured."""
    for handler in logging.getLogger().handlers:
        for each in list(handler.filters):
            if isinstance(each, FloodFilter):
                handler.removeFilter(each)
