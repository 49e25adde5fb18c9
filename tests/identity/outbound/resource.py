"""An MCP server as far as authorization goes: it refuses, says what it wants, and lets in."""

import json
import ssl
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

from joserfc import jwk
from joserfc.errors import JoseError

from tests.faulty_server import Answer, FaultyServer, Request, serving
from tests.identity.outbound.provider import Provider, claims_of

__all__ = ["McpServer", "running_resource"]

METADATA = "/.well-known/oauth-protected-resource/mcp"


class McpServer:
    """The server at `url`.

    Attributes:
        issuer: What it names as its authorization server.
        scopes: Those that its metadata lists.
        needs: Those that a request needs.
        names_metadata: Whether a refusal says where the metadata is.
        resource: What its metadata says that it is; empty for its address.
        served: The claims of the tokens that it has let in.
    """

    def __init__(self, issuer: str, keys: jwk.KeySet) -> None:
        self.issuer = issuer
        self.keys = keys
        self.url = ""
        self.server: FaultyServer | None = None
        self.scopes: list[str] = ["orders.read"]
        self.needs = "orders.read"
        self.names_metadata = True
        self.resource = ""
        self.served: list[dict[str, Any]] = []
        self.refused = 0

    def answer(self, request: Request) -> Answer:
        if request.target == METADATA:
            document = {
                "resource": self.resource or self.url,
                "authorization_servers": [self.issuer],
                "scopes_supported": self.scopes,
            }
            return Answer(body=json.dumps(document).encode())
        if request.target != "/mcp":
            return Answer(404)
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        try:
            claims = claims_of(token, self.keys) if token else {}
        except (JoseError, ValueError):
            claims = {}
        if claims.get("aud") != self.url:
            self.refused += 1
            return self._refusal(401, "invalid_token" if token else "")
        if not set(self.needs.split()) <= set(claims.get("scope", "").split()):
            self.refused += 1
            return self._refusal(403, "insufficient_scope")
        self.served.append(claims)
        return Answer()

    def _refusal(self, status: int, error: str) -> Answer:
        origin = self.url.removesuffix("/mcp")
        parts = ['realm="a, \\"quoted\\" realm"']
        if self.names_metadata:
            parts.append(f'resource_metadata="{origin}{METADATA}"')
        if error:
            parts += [f'error="{error}"', f'scope="{self.needs}"']
        return Answer(status, headers={"www-authenticate": f"Basic, Bearer {', '.join(parts)}"})


@asynccontextmanager
async def running_resource(
    provider: Provider, tls: ssl.SSLContext | None = None
) -> AsyncGenerator[McpServer, None]:
    """One that takes the tokens of an authorization server."""
    resource = McpServer(provider.url, await provider.keys())
    async with serving(resource.answer, tls=tls) as server:
        resource.url = f"{server.url}/mcp"
        resource.server = server
        yield resource
