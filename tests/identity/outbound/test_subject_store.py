"""Tokens that an application keeps for its users, refreshed at a real authorization server."""

import asyncio
import base64
import hashlib
import json
import sys
import time
from collections.abc import Iterator
from types import ModuleType
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest

from seawall.errors import ConfigError
from seawall.identity.outbound.client import OAuthClient
from seawall.identity.outbound.port import CredentialsUnavailable
from seawall.identity.outbound.subject_store import SubjectToken
from seawall.identity.outbound.token_endpoint import TokenEndpoint
from seawall.transport.http_client import HttpClient
from seawall.turn import Principal
from tests.faulty_server import Answer, script, serving
from tests.identity.outbound.opened import ADA, BOB, opened, token
from tests.identity.outbound.provider import ORDERS, Provider, client, sign_in

MODULE = "accounts_of_a_test"
TABLE = {"kind": "subject-store", "factory": f"{MODULE}:tokens"}
CALLBACK = "https://shop.example/callback"
ENVIRONMENT = {"SECRET": client("web")["client_secret"]}


class Accounts:
    """An application's table of linked accounts."""

    def __init__(self) -> None:
        self.rows: dict[tuple[str, str], SubjectToken] = {}
        self.found = 0
        self.error: Exception | None = None
        self.seconds = 0.0

    async def find(self, tenant: str, subject: str) -> SubjectToken | None:
        self.found += 1
        await asyncio.sleep(self.seconds)
        if self.error is not None:
            raise self.error
        return self.rows.get((tenant, subject))

    async def save(self, tenant: str, subject: str, token: SubjectToken) -> None:
        self.rows[tenant, subject] = token


@pytest.fixture
def accounts() -> Iterator[Accounts]:
    """Returned by the factory that `TABLE` names."""
    module: Any = ModuleType(MODULE)
    accounts = Accounts()
    module.tokens = lambda: accounts
    module.other = object
    sys.modules[MODULE] = module
    yield accounts
    del sys.modules[MODULE]


async def test_each_subject_has_its_own(accounts: Accounts) -> None:
    elsewhere = Principal("other", "ada")
    accounts.rows = {
        ("acme", "ada"): SubjectToken("of-ada"),
        ("acme", "bob"): SubjectToken("of-bob", time.time() + 600),
        ("other", "ada"): SubjectToken("of-the-other-ada"),
    }
    async with opened(TABLE) as credentials:
        for _ in range(3):
            assert await token(credentials, ADA) == "of-ada"
            assert await token(credentials, BOB) == "of-bob"
            assert await token(credentials, elsewhere) == "of-the-other-ada"
    assert accounts.found == 3


async def test_who_has_given_none_is_said(accounts: Accounts) -> None:
    async with opened(TABLE) as credentials:
        with pytest.raises(CredentialsUnavailable, match="has not given access"):
            await token(credentials, ADA)
        with pytest.raises(CredentialsUnavailable, match="there is no subject"):
            await token(credentials, None)
    assert accounts.found == 1


async def test_one_that_has_expired_is_not_sent(accounts: Accounts) -> None:
    accounts.rows["acme", "ada"] = SubjectToken("old", time.time() - 1)
    async with opened(TABLE) as credentials:
        with pytest.raises(CredentialsUnavailable, match="has expired"):
            await token(credentials, ADA)


async def test_after_a_refusal_the_application_is_asked_again(accounts: Accounts) -> None:
    accounts.rows["acme", "ada"] = SubjectToken("first")
    async with opened(TABLE) as credentials:
        assert await token(credentials, ADA) == "first"
        accounts.rows["acme", "ada"] = SubjectToken("second")
        assert await token(credentials, ADA) == "first"
        assert credentials.rejected(ADA, "", ((b"authorization", b"Bearer first"),))
        assert await token(credentials, ADA) == "second"


async def test_the_applications_errors_stay_its_own(
    accounts: Accounts, caplog: pytest.LogCaptureFixture
) -> None:
    accounts.error = RuntimeError("password=hunter2")
    async with opened(TABLE) as credentials:
        with pytest.raises(CredentialsUnavailable, match="RuntimeError") as caught:
            await token(credentials, ADA)
    assert "hunter2" not in str(caught.value) + caplog.text


async def test_a_store_that_hangs_costs_its_time_limit(accounts: Accounts) -> None:
    accounts.seconds = 60
    async with opened({**TABLE, "timeout_seconds": 0.05}) as credentials:
        with pytest.raises(CredentialsUnavailable, match="in time"):
            await token(credentials, ADA)


async def test_a_factory_that_returns_something_else(accounts: Accounts) -> None:
    with pytest.raises(ConfigError, match=r"tools\.orders\.auth\.factory: object has no method"):
        async with opened({**TABLE, "factory": f"{MODULE}:other"}):
            pass
    accounts.rows["acme", "ada"] = "a string"  # type: ignore[assignment]
    async with opened(TABLE) as credentials:
        with pytest.raises(CredentialsUnavailable, match="must return a SubjectToken, not str"):
            await token(credentials, ADA)


async def linked_account(provider: Provider) -> SubjectToken:
    """What an application has when its user has come back from the authorization server."""
    verifier = "v" * 43
    digest = hashlib.sha256(verifier.encode()).digest()
    asked = {
        "response_type": "code",
        "client_id": "web",
        "redirect_uri": CALLBACK,
        "scope": "orders.read offline_access",
        "resource": ORDERS,
        "prompt": "consent",
        "code_challenge_method": "S256",
        "code_challenge": base64.urlsafe_b64encode(digest).rstrip(b"=").decode(),
    }
    back = await sign_in(f"{provider.url}/auth?{urlencode(asked)}")
    (code,) = parse_qs(urlsplit(back).query)["code"]
    form = {
        "grant_type": "authorization_code",
        "code": code,
        "redirect_uri": CALLBACK,
        "code_verifier": verifier,
        "client_id": "web",
    }
    http = HttpClient()
    endpoint = TokenEndpoint(
        http,
        provider.token_url,
        OAuthClient("web", "client_secret_basic", lambda: ENVIRONMENT["SECRET"]),
    )
    grant = await endpoint.request(form, deadline=asyncio.get_running_loop().time() + 20)
    await http.close()
    return SubjectToken(grant.token.value, time.time() - 1, grant.refresh_token)


def refreshing(token_url: str) -> dict[str, Any]:
    return {
        **TABLE,
        "token_url": token_url,
        "client_id": "web",
        "client_secret_env": "SECRET",
    }


async def test_tokens_are_refreshed_and_the_new_ones_kept(
    provider: Provider, accounts: Accounts
) -> None:
    first = accounts.rows["acme", "ada"] = await linked_account(provider)
    before = await provider.calls("refresh_token")
    async with opened(refreshing(provider.token_url), environment=ENVIRONMENT) as credentials:
        found = set(await asyncio.gather(*(token(credentials, ADA) for _ in range(100))))
        (fresh,) = found
    assert (await provider.verify(fresh))["sub"] == "ada"
    assert await provider.calls("refresh_token") == before + 1
    kept = accounts.rows["acme", "ada"]
    assert kept.access_token == fresh != first.access_token
    assert kept.refresh_token != first.refresh_token  # the server rotates them
    assert kept.expires_at is not None
    assert kept.expires_at > time.time()
    accounts.rows["acme", "ada"] = SubjectToken("x", 1.0, kept.refresh_token)
    async with opened(refreshing(provider.token_url), environment=ENVIRONMENT) as credentials:
        assert (await provider.verify(await token(credentials, ADA)))["sub"] == "ada"


async def test_of_two_processes_that_refresh_one_uses_what_the_other_has_kept(
    accounts: Accounts,
) -> None:
    accounts.rows["acme", "ada"] = SubjectToken("old", 1.0, "refresh-1")

    def refuse(_: object) -> Answer:  # the other process was faster, and has saved
        accounts.rows["acme", "ada"] = SubjectToken("new", time.time() + 60, "refresh-2")
        return Answer(400, json.dumps({"error": "invalid_grant"}).encode())

    async with (
        serving(refuse) as server,
        opened(refreshing(server.url), environment=ENVIRONMENT) as credentials,
    ):
        assert await token(credentials, ADA) == "new"


async def test_access_that_was_revoked_is_said(accounts: Accounts) -> None:
    accounts.rows["acme", "ada"] = SubjectToken("old", 1.0, "refresh-1")
    refusal = Answer(400, json.dumps({"error": "invalid_grant"}).encode())
    async with (
        serving(script(refusal)) as server,
        opened(refreshing(server.url), environment=ENVIRONMENT) as credentials,
    ):
        with pytest.raises(CredentialsUnavailable, match="has to be given again"):
            await token(credentials, ADA)


def test_a_token_is_not_shown() -> None:
    assert "secret" not in repr(SubjectToken("secret", 1.0, "secret"))
