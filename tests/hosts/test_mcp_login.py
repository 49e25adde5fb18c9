"""The official client finds the issuer of an endpoint by itself, and gets a token for it."""

import base64
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs

import httpx2
import pytest
from mcp import Client
from mcp.client.auth import OAuthFlowError, OAuthTokenError
from mcp.client.auth.extensions.client_credentials import ClientCredentialsOAuthProvider
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.auth import OAuthClientInformationFull, OAuthToken

from tests.hosts.test_mcp import serving
from tests.issuer import Issuer
from tests.servers import ServerProcess

SECRETS = {"planner": "s1", "stranger": "s2"}


class AuthorizationServer:
    """Grants tokens to clients: for the resource that they ask for.

    Attributes:
        url: Its issuer identifier.
        asked: The resources that tokens were asked for.
    """

    def __init__(self, issuer: Issuer) -> None:
        self.asked: list[str] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                known = self.path == "/.well-known/oauth-authorization-server"
                self._answer(200 if known else 404, outer.metadata() if known else {})

            def do_POST(self) -> None:
                form = parse_qs(self.rfile.read(int(self.headers["content-length"])).decode())
                given = base64.b64decode(self.headers["authorization"].partition(" ")[2]).decode()
                client, _, secret = given.partition(":")
                if SECRETS.get(client) != secret:
                    self._answer(401, {"error": "invalid_client"})
                    return
                (resource,) = form["resource"]
                outer.asked.append(resource)
                token = issuer.token(client, iss=outer.url, aud=resource, tenant=client)
                self._answer(200, {"access_token": token, "token_type": "Bearer", "expires_in": 60})

            def _answer(self, status: int, body: dict[str, Any]) -> None:
                content = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def metadata(self) -> dict[str, Any]:
        return {
            "issuer": self.url,
            "authorization_endpoint": f"{self.url}/authorize",
            "token_endpoint": f"{self.url}/token",
            "response_types_supported": ["code"],
            "grant_types_supported": ["client_credentials"],
            "token_endpoint_auth_methods_supported": ["client_secret_basic"],
            "code_challenge_methods_supported": ["S256"],
        }


@contextmanager
def granting(issuer: Issuer) -> Iterator[AuthorizationServer]:
    made = AuthorizationServer(issuer)
    thread = threading.Thread(target=made.server.serve_forever)
    thread.start()
    try:
        yield made
    finally:
        made.server.shutdown()
        thread.join()
        made.server.server_close()


@pytest.fixture(scope="module")
def login(
    tmp_path_factory: pytest.TempPathFactory, issuer: Issuer
) -> Iterator[tuple[ServerProcess, AuthorizationServer]]:
    folder = tmp_path_factory.mktemp("login")
    (folder / "jwks.json").write_bytes(issuer.key_set())
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    address = f"http://127.0.0.1:{port}/mcp"
    with (
        granting(issuer) as granter,
        serving(
            folder,
            SERVER__PORT=str(port),
            MCP__URL=address,
            IDENTITY__JWT__ISSUER=granter.url,
            IDENTITY__JWT__AUDIENCE=address,
            IDENTITY__JWT__JWKS_FILE=str(folder / "jwks.json"),
        ) as server,
    ):
        yield server, granter


class Storage:
    """Tokens of one client."""

    def __init__(self) -> None:
        self._tokens: OAuthToken | None = None
        self._client: OAuthClientInformationFull | None = None

    async def get_tokens(self) -> OAuthToken | None:
        return self._tokens

    async def set_tokens(self, tokens: OAuthToken) -> None:
        self._tokens = tokens

    async def get_client_info(self) -> OAuthClientInformationFull | None:
        return self._client

    async def set_client_info(self, client_info: OAuthClientInformationFull) -> None:
        self._client = client_info


async def _call(
    login: tuple[ServerProcess, AuthorizationServer], name: str, secret: str, **arguments: str
) -> Any:
    server, granter = login
    address = f"{server.url}/mcp"
    provider = ClientCredentialsOAuthProvider(
        address, Storage(), client_id=name, client_secret=secret, issuer=granter.url
    )
    async with (
        httpx2.AsyncClient(auth=provider, timeout=60) as http,
        Client(streamable_http_client(address, http_client=http)) as client,
    ):
        return (await client.call_tool("reader", arguments)).structured_content


async def test_a_client_gets_a_token_for_this_endpoint(
    login: tuple[ServerProcess, AuthorizationServer],
) -> None:
    answered = await _call(login, "planner", "s1", message="hello")
    assert answered["answer"] == "hello"
    assert login[1].asked == [f"{login[0].url}/mcp"]
    other = await _call(login, "stranger", "s2", message="on", session=answered["session"])
    assert other["problem"]["code"] == "session-not-found"


async def test_a_client_that_gets_no_token_gets_no_answer(
    login: tuple[ServerProcess, AuthorizationServer],
) -> None:
    with pytest.RaisesGroup(
        pytest.RaisesExc((OAuthFlowError, OAuthTokenError)), flatten_subgroups=True
    ):
        await _call(login, "planner", "wrong", message="hello")
