"""The tools of the harness: three ways to make a refund at the ledger, with their kill points.

`refund_keyed`: the ledger keeps the idempotency key. `refund_unkeyed`: it has no key.
`refund_checked`: it has no key either, but can be asked whether an operation was made.
"""

import asyncio
import inspect
import json
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from bench.effects.kill_points import hit

from seawall import Tool, ToolContext, ToolError, Toolset, tool

__all__ = ["open_tools"]


def open_tools(ledger: str) -> Toolset:
    """The tools.

    Args:
        ledger: URL of the ledger.
    """
    client = _Client(ledger)

    async def refund_keyed(  # noqa: D417 - models see no context
        op: str, order: str, amount: float, context: ToolContext, reason: str = ""
    ) -> str:
        """Refund an amount of an order.

        Args:
            op: The operation.
            order: The order.
            amount: The amount.
            reason: What the customer said.
        """
        body = {"op": op, "order": order, "amount": amount, "reason": reason}
        return await client.refund("refund_keyed", body, context, keyed=True)

    async def refund_unkeyed(  # noqa: D417 - models see no context
        op: str, order: str, amount: float, context: ToolContext, reason: str = ""
    ) -> str:
        """Refund an amount of an order, at a service without idempotency keys.

        Args:
            op: The operation.
            order: The order.
            amount: The amount.
            reason: What the customer said.
        """
        body = {"op": op, "order": order, "amount": amount, "reason": reason}
        return await client.refund("refund_unkeyed", body, context, keyed=False)

    async def refund_checked(  # noqa: D417 - models see no context
        op: str, order: str, amount: float, context: ToolContext, reason: str = ""
    ) -> str:
        """Refund an amount of an order, at a service that can be asked what it did.

        Args:
            op: The operation.
            order: The order.
            amount: The amount.
            reason: What the customer said.
        """
        body = {"op": op, "order": order, "amount": amount, "reason": reason}
        return await client.refund("refund_checked", body, context, keyed=False)

    async def was_made(op: str, **_: object) -> str | None:
        return await client.find(op)

    return Toolset(
        (
            _effect(refund_keyed, retry="key"),
            _effect(refund_unkeyed),
            _effect(refund_checked, check=was_made),
        )
    )


def _effect(function: Callable[..., Any], **declared: object) -> Tool:
    """A mutating tool, with those of the declarations that this version of Seawall knows."""
    known = inspect.signature(tool).parameters
    options: dict[str, Any] = {name: each for name, each in declared.items() if name in known}
    return tool(function, mutating=True, **options)


class _Client:
    """A client of the ledger; a connection for each request."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._address = (parts.hostname or "", parts.port or 0)

    async def refund(
        self, name: str, body: dict[str, object], context: ToolContext, *, keyed: bool
    ) -> str:
        """Make a refund; what the model reads of it."""

        def at(point: str) -> None:
            hit(f"effect:{point}", session=context.session, op=str(body["op"]))

        at("before")
        key = context.idempotency_key if keyed else None
        document = await self._ask(
            "POST", "/refunds", body | {"tool": name}, key, sent=lambda: at("sent")
        )
        at("after")
        return f"{body['op']}: refunded, receipt {document['receipt']}"

    async def find(self, op: str) -> str | None:
        """What the model reads of a refund that was made; None if it was not.

        Raises:
            ToolError: The ledger cannot be reached.
        """
        document = await self._ask("GET", f"/refunds/{op}", None, None)
        receipt = document["receipt"]
        return None if receipt is None else f"{op}: refunded, receipt {receipt}"

    async def _ask(
        self,
        method: str,
        path: str,
        body: dict[str, object] | None,
        key: str | None,
        sent: Callable[[], None] = lambda: None,
    ) -> dict[str, Any]:
        try:
            reader, writer = await asyncio.open_connection(*self._address)
        except OSError as error:
            raise ToolError("The ledger cannot be reached.") from error
        try:
            data = b"" if body is None else json.dumps(body).encode()
            head = f"{method} {path} HTTP/1.1\r\nhost: ledger\r\nconnection: close\r\n"
            head += f"idempotency-key: {key}\r\n" if key is not None else ""
            head += f"content-length: {len(data)}\r\n\r\n"
            writer.write(head.encode() + data)
            await writer.drain()
            sent()
            whole = await reader.read()
        finally:
            writer.close()
        _, _, answer = whole.partition(b"\r\n\r\n")
        document: dict[str, Any] = json.loads(answer)
        return document
