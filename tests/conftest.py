"""What tests of several packages share."""

from collections.abc import Iterator

import hypothesis
import pytest

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
