"""Our runtime on the local Lambda."""

import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import pytest

from seawall.lab.local_lambda import environment
from seawall.lab.local_lambda.function import LocalFunction
from seawall.lab.local_lambda.invocation import FunctionError
from seawall.lab.local_lambda.server import front
from seawall.lab.local_lambda.settings import FunctionSettings
from tests.aws_lambda.forked_runtime import start_process
from tests.servers import ROOT


def settings_of(handler: str, **changed: Any) -> FunctionSettings:
    return FunctionSettings(
        command=(sys.executable, "-m", "seawall.hosts.aws_lambda", handler),
        handler=handler,
        folder=str(ROOT),
        **changed,
    )


class Site:
    """A function, a client at its URL, and what its environments wrote."""

    def __init__(self, function: LocalFunction, client: httpx2.AsyncClient) -> None:
        self.function = function
        self.client = client
        self.lines: list[str] = []

    def logged(self, level: str = "ERROR") -> list[dict[str, Any]]:
        """What was logged as JSON at a level."""
        found = [json.loads(line) for line in self.lines if line.startswith("{")]
        return [each for each in found if each["level"] == level]

    async def invoke(self, event: object) -> Any:
        return json.loads(await self.function.invoke(json.dumps(event).encode()).whole())

    async def failure(self, event: object) -> dict[str, Any]:
        with pytest.raises(FunctionError) as result:
            await self.invoke(event)
        body: dict[str, Any] = json.loads(result.value.body)
        return body


@asynccontextmanager
async def running(handler: str, *, forked: bool = True, **changed: Any) -> AsyncIterator[Site]:
    """A function that serves a handler, with its URL. forked: from the fork server."""
    lines: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        if forked:
            patch.setattr(environment, "create_subprocess_exec", start_process)
        async with _site(handler, lines, **changed) as site:
            yield site


@asynccontextmanager
async def _site(handler: str, lines: list[str], **changed: Any) -> AsyncIterator[Site]:
    async with (
        LocalFunction(settings_of(handler, **changed), log=lines.append) as function,
        front(function) as url,
        httpx2.AsyncClient(base_url=url, timeout=60) as client,
    ):
        site = Site(function, client)
        site.lines = lines
        yield site
