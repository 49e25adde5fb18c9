"""What holds for the whole suite: async tests, shared servers.

**Async tests** are plain `async def test_x()`: anyio's plugin, in auto mode, runs each on an
asyncio loop of its own. A test that leaves a task running fails.
"""

import asyncio
import functools
import logging
from collections.abc import Callable, Coroutine, Iterator
from inspect import iscoroutinefunction
from typing import Any

import hypothesis
import pytest

from seawall.telemetry.log_filter import FloodFilter
from tests.dynamodb_local import require_dynamodb, running_dynamodb

# Machines that test are busy, and how long an example takes says nothing about it.
hypothesis.settings.register_profile("seawall", deadline=None)
hypothesis.settings.load_profile("seawall")


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Iterator[None]:
    """Have async tests checked for tasks that they leave running."""
    handle = getattr(pyfuncitem.obj, "hypothesis", None)
    if handle is not None and iscoroutinefunction(handle.inner_test):
        handle.inner_test = _without_leftovers(handle.inner_test)
    elif handle is None and iscoroutinefunction(pyfuncitem.obj):
        pyfuncitem.obj = _without_leftovers(pyfuncitem.obj)
    return (yield)


def _without_leftovers(
    test: Callable[..., Coroutine[Any, Any, None]],
) -> Callable[..., Coroutine[Any, Any, None]]:
    @functools.wraps(test)
    async def run(*arguments: object, **named: object) -> None:
        before = asyncio.all_tasks()
        await test(*arguments, **named)
        await asyncio.sleep(0)
        left = asyncio.all_tasks() - before
        assert not left, f"tasks left running: {left}"

    return run


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


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
