"""The port of the two ways to a server: HTTP, and the standard streams of a child process."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from msgspec import Raw, Struct, field

from seawall.tools.mcp.elicitation import Elicitations
from seawall.tools.mcp.protocol import Server
from seawall.tools.port import ToolContext
from seawall.tools.upstream import UpstreamFault

__all__ = ["MAX_MESSAGE_BYTES", "Header", "Request", "ResultTooLong", "Wire"]

MAX_MESSAGE_BYTES = 1 << 20
"""Of one message of a server, and of all that it sends in answer to one request, by default."""

Header = tuple[bytes, bytes]


class Request(Struct, frozen=True):
    """A request to a server.

    Attributes:
        method: The method.
        params: Its parameters, without `_meta`.
        meta: Of `_meta`, what the protocol does not say.
        headers: Of HTTP, where the version has such.
        elicitations: Answers what the server asks meanwhile.
    """

    method: str
    params: dict[str, Any]
    meta: dict[str, Any] = {}
    headers: Sequence[Header] = ()
    elicitations: Elicitations = field(default_factory=Elicitations)


class ResultTooLong(UpstreamFault):
    """The answer to a request is a result, which is longer than allowed: what it asked for is done.

    Attributes:
        limit: Bytes.
    """

    def __init__(self, limit: int) -> None:
        super().__init__("broken", f"it answers with more than {limit} bytes")
        self.limit = limit


class Wire(Protocol):
    """A way to a server. Requests of any number of turns are in progress on it at a time."""

    async def open(self, *, deadline: float) -> Server:
        """What the server is, as far as it is known without a turn.

        Raises:
            UpstreamFault: It cannot be found out.
        """
        ...

    async def request(
        self, request: Request, *, context: ToolContext | None, deadline: float
    ) -> Raw:
        """Send a request and wait for its result, JSON. Being cancelled cancels it at the server.

        Args:
            request: The request.
            context: The turn; None outside of turns.
            deadline: In seconds on the event loop's clock.

        Raises:
            RpcError: The server answered with an error.
            UpstreamFault: It did not answer, or not in JSON-RPC.
        """
        ...

    def subscribe(self, changed: Callable[[], None]) -> None:
        """Have `changed` called on the event loop when a new listing is worth making."""
        ...

    async def close(self) -> None:
        """End what is in progress, within a few seconds."""
        ...
