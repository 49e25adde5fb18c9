"""The caller's token goes to its audience, at a listed address, and nowhere else."""

import time

import pytest

from seawall.errors import ConfigError
from seawall.identity.outbound.open import open_credentials
from seawall.identity.outbound.port import CredentialsUnavailable
from tests.identity.outbound.opened import ADA, opened, settings_of, token
from tests.issuer import Issuer

ADDRESS = "https://orders.example.com"
TABLE = {"kind": "pass-through", "audience": "orders", "addresses": [ADDRESS]}


@pytest.fixture(scope="module")
def issuer() -> Issuer:
    issuer = Issuer()
    issuer.add("one")
    return issuer


@pytest.mark.parametrize("audience", ["orders", ["seawall", "orders"]])
async def test_a_token_for_the_audience_is_passed_on(issuer: Issuer, audience: object) -> None:
    caller = issuer.token(aud=audience)
    async with opened(TABLE) as credentials:
        assert await token(credentials, ADA, caller) == caller


@pytest.mark.parametrize("audience", ["seawall", ["a", "b"], [], None, "order", "orders "])
async def test_a_token_for_others_is_not(issuer: Issuer, audience: object) -> None:
    async with opened(TABLE) as credentials:
        with pytest.raises(CredentialsUnavailable, match="is not for"):
            await token(credentials, ADA, issuer.token(aud=audience))


@pytest.mark.parametrize(
    ("caller", "said"),
    [
        ("", "a caller's token is needed"),
        ("sw_" + "x" * 43, "no JSON Web Token"),
        ("a.b.c", "no JSON Web Token"),
        ("a.b", "no JSON Web Token"),
        ("a.eyJhdWQiOiAxfQ.c", "no JSON Web Token"),
        ("ü.ü.ü", "no JSON Web Token"),
    ],
)
async def test_what_is_no_token_is_not(caller: str, said: str) -> None:
    async with opened(TABLE) as credentials:
        with pytest.raises(CredentialsUnavailable, match=said) as caught:
            await token(credentials, ADA, caller)
    assert not caller or caller not in str(caught.value)


async def test_one_that_has_expired_since_is_not(issuer: Issuer) -> None:
    async with opened(TABLE) as credentials:
        with pytest.raises(CredentialsUnavailable, match="expired"):
            await token(credentials, ADA, issuer.token(aud="orders", exp=int(time.time()) - 1))


@pytest.mark.parametrize(
    "address",
    [
        "https://orders.example.com:8443/v1",
        "https://orders.example.com.evil.example/v1",
        "http://localhost:8000/v1",
    ],
)
async def test_an_upstream_elsewhere_is_refused_at_start(address: str) -> None:
    with pytest.raises(ConfigError, match=r"tools\.orders\.auth\.addresses: .* is not listed"):
        async with opened(TABLE, address=address):
            pass


async def test_without_an_address_of_its_own_there_is_nowhere_to_send_it() -> None:
    for table in (TABLE, {"kind": "mcp"}):
        with pytest.raises(ConfigError, match=r"tools\.orders\.auth\.kind: .* needs a base_url"):
            open_credentials(
                settings_of(table), key="tools.orders.auth", addresses=(), find=lambda _: None
            )
