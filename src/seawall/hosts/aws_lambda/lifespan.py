"""Start and end of an ASGI application, by the lifespan protocol."""

import asyncio
import logging
from typing import Any

from seawall.hosts.aws_lambda.http_events import AsgiApp, Message

__all__ = ["Lifespan"]

_log = logging.getLogger("seawall.lambda")


class Lifespan:
    """Start and end of an application by ASGI's lifespan protocol.

    Attributes:
        state: Set by the application at its start, and passed to every request.
    """

    def __init__(self, app: AsgiApp) -> None:
        self._app = app
        self._events: asyncio.Queue[str] = asyncio.Queue()
        self._replies: asyncio.Queue[Message] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None
        self.state: dict[str, Any] = {}

    async def start(self) -> None:
        """Start the application, unless it does not support lifespans.

        Raises:
            RuntimeError: The application reports that it cannot start.
        """
        self._task = asyncio.create_task(self._run())
        reply = await self._ask("startup")
        if reply is None:
            self._task = None
        elif reply["type"] == "lifespan.startup.failed":
            raise RuntimeError(f"the application does not start: {reply.get('message', '')}")

    async def stop(self) -> None:
        """Shut the application down."""
        if self._task is not None:
            await self._ask("shutdown")
            await asyncio.wait([self._task])

    async def _ask(self, event: str) -> Message | None:
        """Send an event; return the reply, or None if the application ended without one."""
        task = self._task
        if task is None:
            return None
        self._events.put_nowait(f"lifespan.{event}")
        receiving = asyncio.create_task(self._replies.get())
        await asyncio.wait([receiving, task], return_when=asyncio.FIRST_COMPLETED)
        if receiving.done():
            return receiving.result()
        receiving.cancel()
        return None if self._replies.empty() else self._replies.get_nowait()

    async def _run(self) -> None:
        scope = {
            "type": "lifespan",
            "asgi": {"version": "3.0", "spec_version": "2.0"},
            "state": self.state,
        }

        async def receive() -> Message:
            return {"type": await self._events.get()}

        async def send(message: Message) -> None:
            self._replies.put_nowait(message)

        try:
            await self._app(scope, receive, send)
        except Exception as error:  # noqa: BLE001 - as servers do: it does not support lifespans
            _log.debug("the application has no lifespan: %r", error)
