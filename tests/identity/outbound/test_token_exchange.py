"""The caller's token, exchanged by a real authorization server; subjects are never mixed up."""

import asyncio
import logging
import random
from typing import Any

import pytest

from seawall.identity.outbound.port import CredentialsUnavailable
from seawall.turn import Principal
from tests.identity.outbound.opened import ADA, opened, token
from tests.identity.outbound.provider import EXCHANGE, ORDERS, Provider, claims_of, client
from tests.issuer import Issuer

ENVIRONMENT = {"SECRET": client("basic")["client_secret"]}


def table_of(provider: Provider, **more: Any) -> dict[str, Any]:
    return {
        "kind": "token-exchange",
        "token_url": provider.token_url,
        "client_id": "basic",
        "client_secret_env": "SECRET",
        "resource": ORDERS,
        "scope": "orders.read",
        **more,
    }


async def test_the_new_token_is_the_callers_and_for_the_upstream(
    provider: Provider, callers: Issuer
) -> None:
    async with opened(table_of(provider), environment=ENVIRONMENT) as credentials:
        claims = await provider.verify(await token(credentials, ADA, callers.token()))
    assert (claims["sub"], claims["aud"], claims["scope"]) == ("ada", ORDERS, "orders.read")


async def test_this_server_can_be_named_as_the_actor(provider: Provider, callers: Issuer) -> None:
    environment = {**ENVIRONMENT, "ACTOR": callers.token("seawall")}
    table = table_of(provider, actor_token_env="ACTOR")
    async with opened(table, environment=environment) as credentials:
        claims = await provider.verify(await token(credentials, ADA, callers.token()))
    assert (claims["sub"], claims["act"]) == ("ada", {"sub": "seawall"})


async def test_another_token_of_the_same_subject_is_exchanged_anew(
    provider: Provider, callers: Issuer
) -> None:
    first, second = callers.token(roles=["clerk"]), callers.token(roles=[])
    async with opened(table_of(provider), environment=ENVIRONMENT) as credentials:
        granted = [await token(credentials, ADA, each) for each in (first, second, first)]
    assert granted[0] == granted[2] != granted[1]


async def test_a_token_that_the_server_does_not_accept(provider: Provider) -> None:
    stranger = Issuer()
    stranger.add("one")
    caller = stranger.token()
    async with opened(table_of(provider), environment=ENVIRONMENT) as credentials:
        with pytest.raises(CredentialsUnavailable, match="invalid_grant") as caught:
            await token(credentials, ADA, caller)
    assert caller not in str(caught.value)


@pytest.mark.parametrize(
    ("principal", "caller", "said"),
    [
        (None, "", "there is no caller"),
        (ADA, "", "a caller's token is needed"),
        (ADA, "sw_key", "no JSON Web Token"),
    ],
)
async def test_without_a_token_there_is_nothing_to_exchange(
    provider: Provider, principal: Principal | None, caller: str, said: str
) -> None:
    async with opened(table_of(provider), environment=ENVIRONMENT) as credentials:
        with pytest.raises(CredentialsUnavailable, match=said):
            await token(credentials, principal, caller)


async def test_2000_interleaved_calls_of_50_subjects_never_see_anothers_token(
    provider: Provider, callers: Issuer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    steps = random.Random(19)
    names = [f"subject{number}" for number in range(25)]
    # The same names in two tenants, which are other subjects.
    subjects = {
        Principal(tenant, name): callers.token(name, tenant=tenant)
        for tenant in ("acme", "other")
        for name in names
    }
    claims: dict[str, dict[str, Any]] = {}
    owners: dict[str, Principal] = {}
    keys = await provider.keys()
    before = await provider.calls(EXCHANGE)

    async with opened(table_of(provider), environment=ENVIRONMENT) as credentials:

        async def call(number: int) -> None:
            principal, caller = steps.choice(list(subjects.items()))
            await asyncio.sleep(steps.random() * 0.5)
            deadline = asyncio.get_running_loop().time() + 60
            sent = await credentials.headers(principal, caller, deadline=deadline)
            found = sent[0][1].decode().removeprefix("Bearer ")
            if found not in claims:
                claims[found] = claims_of(found, keys)
            assert claims[found]["sub"] == principal.subject
            assert owners.setdefault(found, principal) == principal
            if number % 100 == 0:
                credentials.rejected(principal, caller, sent, 'Bearer error="invalid_token"')

        await asyncio.gather(*(call(number) for number in range(2_000)))
    fetched = await provider.calls(EXCHANGE) - before
    assert set(owners.values()) == set(subjects)
    assert fetched == len(owners) <= len(subjects) + 20
    shown = caplog.text + repr(credentials) + repr(vars(credentials))
    assert not any(each in shown for each in (*owners, *subjects.values()))
