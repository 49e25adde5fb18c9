"""A real authorization server for tests: oidc-provider, in a process of its own."""

import asyncio
import json
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any

from joserfc import jwk, jwt

from seawall.transport.http_client import Endpoint, HttpClient
from tests.parts import require
from tests.parts.tools import OIDC, missing_oidc

EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
ORDERS = "https://orders.example.com"
BRIEF = "https://brief.example.com"
RESOURCES: dict[str, Any] = {
    ORDERS: {"scope": "orders.read orders.write", "seconds": 600},
    BRIEF: {"scope": "orders.read", "seconds": 3},
}


class Provider:
    """The server at `url`."""

    def __init__(self, url: str, process: "subprocess.Popen[bytes]") -> None:
        self.url = url
        self.token_url = f"{url}/token"
        self._process = process

    def stop(self) -> None:
        """End it, and wait for that."""
        self._process.kill()
        self._process.wait()

    async def get(self, path: str) -> dict[str, Any]:
        http = HttpClient()
        deadline = asyncio.get_running_loop().time() + 20
        answer = await http.request("GET", Endpoint.parse(self.url + path), deadline=deadline)
        await http.close()
        assert answer.status == 200, answer
        found: dict[str, Any] = json.loads(answer.body)
        return found

    async def calls(self, grant: str) -> int:
        """How often a grant was asked for."""
        return int((await self.get("/test/calls")).get(grant, 0))

    async def keys(self) -> jwk.KeySet:
        """What an upstream verifies access tokens with."""
        return jwk.KeySet.import_key_set(await self.get("/jwks"))  # type: ignore[arg-type]

    async def verify(self, token: str) -> dict[str, Any]:
        """The claims of an access token, verified as an upstream does it."""
        return claims_of(token, await self.keys())


def claims_of(token: str, keys: jwk.KeySet) -> dict[str, Any]:
    claims: dict[str, Any] = jwt.decode(token, keys, algorithms=["RS256"]).claims
    return claims


@contextmanager
def running_provider(
    *,
    clients: list[dict[str, Any]],
    subject_keys: bytes = b'{"keys": []}',
    resources: Mapping[str, Any] = RESOURCES,
    port: int = 0,
    **more: object,
) -> Iterator[Provider]:
    """Run one until the block ends."""
    require(missing_oidc())
    settings = {
        "port": port,
        "clients": clients,
        "subject_keys": json.loads(subject_keys),
        "resources": resources,
        **more,
    }
    program = str(Path(__file__).parent / "provider.mjs")
    process = subprocess.Popen(
        ["node", program, str(OIDC / "node_modules"), json.dumps(settings)],
        stdout=subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, "oidc-provider has ended"
        yield Provider(line.decode().strip(), process)
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def client(name: str, auth: str = "client_secret_basic", **more: object) -> dict[str, Any]:
    """A registered client that may do everything without a browser."""
    return {
        "client_id": name,
        "client_secret": f"secret of {name}: 100% & more",
        "grant_types": ["client_credentials", EXCHANGE],
        "redirect_uris": [],
        "response_types": [],
        "token_endpoint_auth_method": auth,
        **more,
    }


async def sign_in(url: str) -> str:
    """What a browser does with the address of an authorization request, up to the redirect back.

    The person is `ada`, and consents to everything (see provider.mjs).

    Args:
        url: The request.

    Returns:
        The address that the browser is sent back to.
    """
    http = HttpClient()
    origin, cookies = url.partition("/auth")[0], SimpleCookie()
    try:
        while url.startswith((origin, "/")):
            whole = url if url.startswith("http") else origin + url
            sent = "; ".join(f"{name}={each.value}" for name, each in cookies.items())
            answer = await http.request(
                "GET",
                Endpoint.parse(whole),
                headers=((b"cookie", sent.encode()),),
                deadline=asyncio.get_running_loop().time() + 20,
            )
            assert answer.status in (302, 303), answer
            for each in answer.headers.get("set-cookie", "").split(", "):
                cookies.load(each)
            url = answer.headers["location"]
    finally:
        await http.close()
    return url
