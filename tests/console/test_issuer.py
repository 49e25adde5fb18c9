"""Login with an issuer: a small OpenID provider on loopback, and what it may get wrong."""

import asyncio
import base64
import hashlib
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, cast
from urllib.parse import parse_qs, parse_qsl, urlencode, urlsplit

import httpx2
import pytest

from seawall.console.issuer import BegunLogin, IssuerLogin
from seawall.errors import IdentityUnavailable, Overloaded
from seawall.identity.settings import JwtSettings
from seawall.settings import ConsoleLoginSettings
from seawall.transport.connection import TransportError
from seawall.transport.http_client import HttpClient
from tests.console.conftest import serving
from tests.issuer import Issuer
from tests.servers import ServerProcess

SECRET = "a secret with a ¥ and a : in it"


class Provider:
    """An OpenID provider of which each part can be changed.

    Attributes:
        changes: Claims of the next ID token that differ.
    """

    def __init__(self) -> None:
        self.keys = Issuer()
        self.keys.add("one")
        self.changes: dict[str, Any] = {}
        self.codes: dict[str, dict[str, str]] = {}
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        provider = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: object) -> None:
                pass

            def answer(self, status: int, value: object, **headers: str) -> None:
                body = json.dumps(value).encode()
                self.send_response(status)
                for name, text in headers.items():
                    self.send_header(name, text)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def do_GET(self) -> None:
                parts = urlsplit(self.path)
                if parts.path == "/.well-known/openid-configuration":
                    self.answer(200, provider.metadata())
                elif parts.path == "/jwks":
                    self.answer(200, json.loads(provider.keys.key_set()))
                else:
                    query = dict(parse_qsl(parts.query))
                    code = f"code-{len(provider.codes)}"
                    provider.codes[code] = query
                    back = urlencode({"code": code, "state": query["state"]})
                    self.answer(302, {}, Location=f"{query['redirect_uri']}?{back}")

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"])).decode()
                form = {name: values[0] for name, values in parse_qs(body).items()}
                status, answer = provider.exchange(form, self.headers.get("Authorization", ""))
                self.answer(status, answer)

        return Handler

    def metadata(self) -> dict[str, object]:
        return {
            "issuer": self.url,
            "authorization_endpoint": f"{self.url}/authorize?tenant=x",
            "token_endpoint": f"{self.url}/token",
            "jwks_uri": f"{self.url}/jwks",
        }

    def exchange(self, form: dict[str, str], authorization: str) -> tuple[int, dict[str, str]]:
        """The token endpoint: RFC 6749 §4.1.3, RFC 7636 §4.6."""
        asked = self.codes.pop(form["code"], None)
        digest = hashlib.sha256(form["code_verifier"].encode()).digest()
        challenge = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
        pair = base64.b64decode(authorization.removeprefix("Basic ")).decode()
        expected = urlencode({"": SECRET}).removeprefix("=")
        if (
            asked is None
            or challenge != asked["code_challenge"]
            or asked["code_challenge_method"] != "S256"
            or form["redirect_uri"] != asked["redirect_uri"]
            or pair != f"the+console:{expected}"
        ):
            return 400, {"error": "invalid_grant"}
        claims = {
            "iss": self.url,
            "aud": "the console",
            "nonce": asked["nonce"],
            "tenant": "ops",
            "roles": ["watch"],
        } | self.changes
        return 200, {"id_token": self.keys.token("leo", **claims), "token_type": "Bearer"}


@contextmanager
def providing() -> Iterator[Provider]:
    provider = Provider()
    thread = threading.Thread(target=provider.server.serve_forever, daemon=True)
    thread.start()
    try:
        yield provider
    finally:
        provider.server.shutdown()
        provider.server.server_close()
        thread.join()


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Provider, ServerProcess]]:
    folder: Path = tmp_path_factory.mktemp("issuer")
    with (
        providing() as provider,
        serving(
            folder,
            SERVER__WORKERS="1",
            IDENTITY__JWT__ISSUER=provider.url,
            IDENTITY__JWT__AUDIENCE="the api",
            IDENTITY__JWT__JWKS_URL=f"{provider.url}/jwks",
            CONSOLE__ENABLED="true",
            CONSOLE__LOOK='["watch"]',
            CONSOLE__OPERATE='["operator"]',
            CONSOLE__LOGIN__CLIENT_ID="the console",
            CONSOLE__LOGIN__CLIENT_SECRET_ENV="SEAWALL_TEST_SECRET",
            CONSOLE__LOGIN__URL="http://127.0.0.1:1/console",  # of the load balancer, say
            TEST_SECRET=SECRET,
        ) as server,
    ):
        yield provider, server


def begin(client: httpx2.Client) -> str:
    """Begin a login; the address to which the issuer sends the browser back, as a path."""
    to_issuer = client.get("/console/api/login/issuer")
    assert to_issuer.status_code == 303
    assert "SameSite=Lax" in to_issuer.headers["set-cookie"]
    from_issuer = httpx2.get(to_issuer.headers["location"])
    address = urlsplit(from_issuer.headers["location"])
    return f"{address.path}?{address.query}"


@pytest.fixture
def client(both: tuple[Provider, ServerProcess]) -> Iterator[httpx2.Client]:
    both[0].changes = {}
    with httpx2.Client(base_url=both[1].url, timeout=20) as client:
        yield client


def test_a_login_with_the_issuer(client: httpx2.Client) -> None:
    assert client.get("/console/api/me").json()["login"] == {"key": True, "issuer": True}
    back = client.get(begin(client))
    assert back.status_code == 200
    assert "SameSite=Strict" in back.headers["set-cookie"]
    me = client.get("/console/api/me").json()
    assert (me["tenant"], me["subject"], me["permissions"]) == ("ops", "leo", ["look"])
    assert client.get("/console/api/turns").status_code == 200
    assert client.post("/console/api/logout").status_code == 204
    assert client.get("/console/api/turns").status_code == 401


@pytest.mark.parametrize(
    "changes",
    [
        {"nonce": "of another login"},
        {"nonce": None},
        {"nonce": 5},
        {"aud": "the api"},
        {"iss": "https://other.example"},
        {"exp": 1},
        {"roles": []},
    ],
)
def test_tokens_that_are_not_of_this_login(
    both: tuple[Provider, ServerProcess], client: httpx2.Client, changes: dict[str, Any]
) -> None:
    both[0].changes = changes
    answered = client.get(begin(client))
    assert answered.status_code in (401, 403)
    assert client.get("/console/api/turns").status_code == 401


class Unanswering:
    """A client whose requests fail after a while; implements what is used of `HttpClient`."""

    def __init__(self) -> None:
        self.requests = 0

    async def request(self, *_: object, **__: object) -> None:
        self.requests += 1
        await asyncio.sleep(0.05)
        raise TransportError("refused")


async def test_strangers_do_not_multiply_requests_to_the_issuer() -> None:
    client = Unanswering()
    login = IssuerLogin(
        ConsoleLoginSettings(client_id="x", url="https://a.example/console"),
        JwtSettings(issuer="https://b.example", audience="y", jwks_url="https://b.example/jwks"),
        cast("HttpClient", client),
        {},
    )
    for _ in range(2):
        begun = await asyncio.gather(*(login.begin() for _ in range(50)), return_exceptions=True)
        assert all(isinstance(each, IdentityUnavailable) for each in begun)
    assert client.requests == 1


async def test_logins_that_are_completed_at_once_are_bounded() -> None:
    client = Unanswering()
    login = IssuerLogin(
        ConsoleLoginSettings(client_id="x", url="https://a.example/console"),
        JwtSettings(issuer="https://b.example", audience="y", jwks_url="https://b.example/jwks"),
        cast("HttpClient", client),
        {},
    )
    begun = BegunLogin("state", "nonce", "verifier", time.time() + 60)
    returned = {"state": "state", "code": "code"}
    results = await asyncio.gather(
        *(login.complete(begun, returned) for _ in range(50)), return_exceptions=True
    )
    assert sum(isinstance(each, IdentityUnavailable) for each in results) == 16
    assert sum(isinstance(each, Overloaded) for each in results) == 34
    with pytest.raises(IdentityUnavailable):
        await login.complete(begun, returned)


def test_a_code_is_for_the_browser_that_began(client: httpx2.Client) -> None:
    address = begin(client)
    with httpx2.Client(base_url=client.base_url) as other:  # a victim is sent the attacker's code
        assert other.get(address).status_code == 401
        begin(other)
        assert other.get(address).status_code == 401, "of another state"
    assert client.get(address).status_code == 200
    assert client.get(address).status_code == 401, "a second time"


@pytest.mark.parametrize("query", ["", "?state=x&code=y", "?error=access_denied", "?iss=other"])
def test_answers_that_are_none(client: httpx2.Client, query: str) -> None:
    begin(client)
    assert client.get(f"/console/callback{query}").status_code == 401


def test_a_token_of_the_api_may_be_exchanged_as_well(
    both: tuple[Provider, ServerProcess], client: httpx2.Client
) -> None:
    keys = both[0].keys
    token = keys.token("leo", iss=both[0].url, aud="the api", tenant="ops", roles=["watch"])
    answered = client.post("/console/api/login", json={"credential": token})
    assert answered.status_code == 204
    cookie = dict(each.partition("=")[::2] for each in answered.headers["set-cookie"].split("; "))
    assert int(cookie["Max-Age"]) <= 600, "not longer than the token"


def test_an_operator_ends_a_login_with_the_issuer_before_its_time(
    both: tuple[Provider, ServerProcess], client: httpx2.Client
) -> None:
    provider, server = both
    assert client.get(begin(client)).status_code == 200
    claims: dict[str, Any] = {"iss": provider.url, "aud": "the api", "tenant": "ops"}
    with httpx2.Client(base_url=server.url, timeout=20) as olga:
        credential = provider.keys.token("olga", roles=["operator"], **claims)
        assert olga.post("/console/api/login", json={"credential": credential}).status_code == 204
        olga.headers["x-console-token"] = olga.get("/console/api/me").json()["token"]
        (own,) = (
            each
            for each in client.get("/console/api/logins").json()["logins"]
            if each["this"] and each["subject"] == "leo"
        )
        copied = dict(client.cookies)
        assert olga.post(f"/console/api/logins/{own['id']}/end").status_code == 204
    assert client.get("/console/api/turns").status_code == 401
    with httpx2.Client(base_url=server.url, cookies=copied, timeout=20) as thief:
        assert thief.get("/console/api/turns").status_code == 401
    assert client.get(begin(client)).status_code == 200, "the issuer knows of no end"
    assert client.get("/console/api/turns").status_code == 200
    assert client.get("/console/api/me").json()["subject"] == "leo"
